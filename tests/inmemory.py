"""A worker without Kafka and ClickHouse: the real flow and barrier, over a log and a store held in dicts.

Whatever may happen between two steps of the event loop can happen here, one step at a time: another batch while a
look-up is under way, a tick while rows are written, a crash after any write. A crash leaves the store, the committed
offsets and the dead letters; all else is built anew from them.
"""

from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence, Set
from typing import Any, NamedTuple, TypeVar, cast

import msgspec

from schemas.events import Receipt
from schemas.record import Record
from streams.barrier import Barrier
from streams.effects import DeadLetter, OpenRow
from streams.flow import TOPICS, Flow, Found, Held
from streams.fold import Columns
from streams.folding import Folded
from streams.lives import REMEMBER_MS
from streams.settle import Partition
from streams.store import Store, Unstorable
from streams.tables import Checkpoint, orphan_version
from tests.entries import PREFIX, LogEntry, entry
from tests.rows import began_with, rows_of

SHARD = 0
T = TypeVar("T")
Place = tuple[str, int]  # topic, offset
OrphanKey = tuple[str, str, str, int, int]  # message_id, event_id, state, occurred_at in ms, segment


class Crash(Exception):
    """The worker is gone."""


def run(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits."""
    try:
        work.send(None)
    except StopIteration as end:
        return cast(T, end.value)
    raise AssertionError("it waits for something")


class MemoryStore:
    """What ClickHouse promises of our tables: of rows with one key the highest version stays, else the last."""

    def __init__(self) -> None:
        self.before_write: Callable[[str], None] = lambda _what: None
        self.history: dict[tuple[str, str], list[Record]] = {}
        self.mdrs: dict[tuple[str, int, str, str], Record] = {}
        self.open: dict[tuple[str, str], OpenRow] = {}
        self.orphan_log: dict[OrphanKey, tuple[int, Receipt]] = {}
        self.points: dict[int, Checkpoint] = {}
        self.looked_up: list[str] = []

    def write_records(self, records: Columns | Folded) -> list[Unstorable]:
        self.before_write("records")
        for row in rows_of(records):
            new = msgspec.convert(row, Record)
            self.history.setdefault((new.direction, new.message_id), []).append(new)
            key = (new.account_id, new.occurred_at, new.message_id, new.direction)
            if key not in self.mdrs or new.version >= self.mdrs[key].version:
                self.mdrs[key] = new
        return []

    def write_open(self, rows: Sequence[OpenRow], opened: Columns | Folded) -> list[Unstorable]:
        self.before_write("open messages")
        for row in rows:
            key = (row.message_id, row.part)
            if key not in self.open or row.version >= self.open[key].version:
                self.open[key] = row
        return []

    def write_orphans(self, shard: int, orphans: Sequence[tuple[Receipt, int]]) -> list[Unstorable]:
        self.before_write("orphans")
        self._log_orphans(0, orphans)
        return []

    def drop_orphans(self, shard: int, adopted: Sequence[tuple[Receipt, int]]) -> None:
        self.before_write("adopted")
        self._log_orphans(1, adopted)

    def _log_orphans(self, is_deleted: int, receipts: Sequence[tuple[Receipt, int]]) -> None:
        for r, _at_ms in receipts:
            key = (r.message_id, r.event_id, r.state, r.occurred_ms, r.segment)
            version = orphan_version(r.source, is_deleted)
            if key not in self.orphan_log or version >= self.orphan_log[key][0]:
                self.orphan_log[key] = version, r

    def write_checkpoints(self, rows: Sequence[Checkpoint]) -> None:
        self.before_write("checkpoint")
        for row in rows:
            if row.shard not in self.points or row.version >= self.points[row.shard].version:
                self.points[row.shard] = row

    def lookup(self, ids: Sequence[str], brief: Set[str] = frozenset()) -> dict[str, Found]:
        self.looked_up += ids
        orphaned = {key[0] for key in self.orphan_log}
        found: dict[str, Found] = {}
        for row in sorted(self.mdrs.values(), key=lambda r: r.version):
            if row.message_id in ids:
                known = found.setdefault(row.message_id, Found({}, (), {}))
                if row.message_id in brief - orphaned:
                    known.begun[row.direction] = began_with(row)
                else:
                    known.records[row.direction] = row
        for key in sorted(self.orphan_log):  # those adopted before, too
            if key[0] in ids:
                known = found.get(key[0], Found({}, (), {}))
                found[key[0]] = known._replace(orphans=(*known.orphans, self.orphan_log[key][1]))
        return found

    def orphans(self) -> dict[OrphanKey, Receipt]:
        """The receipts that never met a message."""
        return {key: r for key, (version, r) in self.orphan_log.items() if version < orphan_version("", 1)}

    def open_rows(self) -> Iterator[tuple[OpenRow, int]]:
        """What is open or waiting; 1 beside what has a record that holds as many facts, 2 beside one of fewer."""
        for row in self.open.values():
            known = self.mdrs.get((row.account_id, row.occurred_at, row.message_id, "outbound"))
            settled = 0 if row.part or known is None else 1 if known.version % (1 << 32) >= row.version // 2 else 2
            if not row.is_deleted:
                yield row, settled


class MemoryLog:
    """What the barrier needs of Kafka; dead letters by where their entry stood, as many as were produced."""

    def __init__(self) -> None:
        self.committed = dict.fromkeys(TOPICS, 0)
        self.generation = 0
        self.letters: list[tuple[Place, str]] = []
        self.before_write: Callable[[str], None] = lambda _what: None

    async def commit(self, offsets: Mapping[tuple[str, int], int], generation: int) -> bool:
        self.before_write("commit")
        if generation != self.generation:
            return False
        for (topic, _), offset in offsets.items():
            assert offset >= self.committed[topic], "a committed offset went back"
            self.committed[topic] = offset
        return True

    async def bury(self, letters: Sequence[DeadLetter]) -> None:
        self.before_write("dead letters")
        self.letters += [(place_of(letter), letter.reason) for letter in letters]

    async def bury_unstorable(self, bad: Sequence[Unstorable]) -> None:
        raise AssertionError("the store takes everything")


def place_of(letter: DeadLetter) -> Place:
    """Topic and offset of the entry that became a dead letter."""
    if letter.entry is not None:
        return letter.topic, letter.entry.offset
    assert letter.receipt is not None
    return letter.topic, int(letter.receipt.source.rsplit(":", 1)[1])


class _InlineBarrier(Barrier):
    """The barrier with its writes on the caller's thread."""

    async def _in_thread(self, what: str, call: Callable[..., T], *args: Any) -> T:
        return call(*args)


class _Batch(NamedTuple):
    entries: list[LogEntry]
    held: list[Held]
    found: dict[str, Found] | None


class Worker:
    """One partition's worker; `clock_ms` is the wall clock, moved by the test."""

    def __init__(self, window_ms: int, clock_ms: int) -> None:
        self.window_ms = window_ms
        self.clock_ms = clock_ms
        self.log: dict[str, list[LogEntry]] = {topic: [] for topic in TOPICS}
        self.store = MemoryStore()
        self.kafka = MemoryLog()
        self.stale: Barrier | None = None
        self.start()

    def produce(self, topic: str, broker_ms: int, fields: dict[str, Any]) -> None:
        """Appends an event to its topic."""
        self.append(topic, entry(len(self.log[topic]), broker_ms, fields))

    def append(self, topic: str, made: LogEntry) -> None:
        """Appends an entry to its topic."""
        assert made.offset == len(self.log[topic])
        self.log[topic].append(made)

    # ---- a life of the process -----------------------------------------------------------------------------

    def start(self) -> None:
        """Begins as after an assignment: with what the store has, reading on from the committed offsets."""
        self.kafka.generation += 1
        self.flow = Flow(PREFIX, self.window_ms)
        self.barrier = _InlineBarrier(self.flow, cast(Store, self.store), self.kafka, lambda: self.clock_ms, 1, 1, 1)
        self.barrier.generation = self.kafka.generation
        self.positions = dict(self.kafka.committed)
        self.batches: dict[str, _Batch] = {}
        self.asked: tuple[list[str], dict[str, Found] | None] | None = None
        self._load(self.flow.open_partition(SHARD, self.clock_ms))

    def _load(self, partition: Partition) -> None:
        for row, settled in self.store.open_rows():
            if row.part:
                partition.restore_waiting(row.message_id, row.part, row.facts)
            elif settled:
                partition.restore_settled(row.message_id, row.facts, settled == 1)
            else:
                partition.restore(row.message_id, row.facts, row.deadline, row.occurred_at)
        since_ms = self.clock_ms - REMEMBER_MS
        stored = self.store.points.get(SHARD)
        if stored is not None:
            partition.restore_progress(cast(Any, stored))
            since_ms = min(since_ms, stored.remembers_from)
            offsets = stored.sends_offset, stored.receives_offset, stored.receipts_offset
            self.barrier.base = {(topic, SHARD): at for topic, at in zip(TOPICS, offsets, strict=True)}
        rows = [r for r in self.store.mdrs.values() if r.settled_at >= since_ms]
        for direction in ("outbound", "inbound"):
            ids = [r.message_id for r in rows if r.direction == direction]
            partition.remember(direction, ids, since_ms, self.clock_ms)
        partition.remember_orphans({key[0] for key in self.store.orphans()}, self.clock_ms)

    def take_over(self) -> None:
        """Another worker takes the partition; this one has a checkpoint under way, which `write_stale` ends."""
        self.stale = self.barrier
        self.start()

    def write_stale(self) -> None:
        """The worker that lost the partition writes what it had cut; its commit is refused."""
        if self.stale is not None:
            run(self.stale.write(checkpoint=True))
        self.stale = None

    @property
    def partition(self) -> Partition:
        return self.flow.partitions[SHARD]

    # ---- batches -------------------------------------------------------------------------------------------

    def unread(self, topic: str) -> list[LogEntry]:
        """What the broker holds and the worker has not read."""
        return self.log[topic][self.positions[topic] :]

    def begin(self, topic: str, count: int = 1_000_000) -> None:
        """Hands a batch to the flow; it is done at once unless the store must be asked."""
        entries = self.unread(topic)[:count]
        if topic in self.batches or not entries:
            return
        held = self.flow.batch(topic, SHARD, entries, self.clock_ms)
        self.positions[topic] += len(entries)
        if held:
            self.batches[topic] = _Batch(entries, held, None)
        else:
            self.barrier.did(topic, SHARD, self.positions[topic])

    def answer(self, topic: str) -> None:
        """The store answers what a batch asked."""
        batch = self.batches.get(topic)
        if batch is not None and batch.found is None:
            self._act_on_answers()
            brief = self.flow.brief(SHARD, batch.held)
            found = self.store.lookup([h.event.message_id for h in batch.held], brief)
            self.batches[topic] = batch._replace(found=found)

    def finish(self, topic: str) -> None:
        """The batch goes on with the answer."""
        self.answer(topic)
        batch = self.batches.pop(topic, None)
        if batch is not None and batch.found is not None:
            self.flow.resume(topic, SHARD, batch.entries, batch.held, batch.found, self.clock_ms)
            self.barrier.did(topic, SHARD, self.positions[topic])

    def _act_on_answers(self) -> None:
        """One thread reads the store: an answer is acted upon before there is another."""
        for topic in [topic for topic, batch in self.batches.items() if batch.found is not None]:
            self.finish(topic)
        if self.asked is not None and self.asked[1] is not None:
            self.finish_tick()

    def read(self, topic: str, count: int = 1_000_000) -> None:
        """Reads a batch to its end."""
        self.finish(topic)
        self.begin(topic, count)
        self.finish(topic)

    # ---- time ----------------------------------------------------------------------------------------------

    def find_ends(self, topics: Sequence[str] = TOPICS) -> None:
        """Says of topics that are read to their end that they are."""
        for topic in topics:
            if topic not in self.batches and not self.unread(topic):
                self.partition.caught_up(topic, self.clock_ms)
                self.barrier.did(topic, SHARD, self.positions[topic])

    def begin_tick(self) -> None:
        """Lets time pass; what the store is to be asked about waits for `finish_tick`."""
        if self.asked is None:
            self.asked = self.flow.tick(self.clock_ms).get(SHARD, []), None

    def answer_tick(self) -> None:
        """The store answers what the tick asked."""
        if self.asked is not None and self.asked[1] is None:
            self._act_on_answers()
            self.asked = self.asked[0], self.store.lookup(self.asked[0]) if self.asked[0] else {}

    def finish_tick(self) -> None:
        """The tick goes on with the answer."""
        self.answer_tick()
        if self.asked is not None and self.asked[1] is not None:
            self.partition.resolve_receipts(self.asked[0], self.asked[1], self.clock_ms)
        self.asked = None

    def tick(self) -> None:
        """Lets time pass, look-ups included."""
        self.finish_tick()
        self.begin_tick()
        self.finish_tick()

    # ---- writing -------------------------------------------------------------------------------------------

    def write(self, *, checkpoint: bool, before: Callable[[str], None] = lambda _what: None) -> None:
        """One flush or checkpoint; `before` is called with what is about to be written, and may raise `Crash`."""
        self.store.before_write = self.kafka.before_write = before
        run(self.barrier.write(checkpoint=checkpoint))
        self.store.before_write = self.kafka.before_write = lambda _what: None

    @property
    def held(self) -> int:
        """How many events wait for the store's answer."""
        return sum(len(batch.held) for batch in self.batches.values())
