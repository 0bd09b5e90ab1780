"""All messages of one partition that are not yet history: open, waiting for their send, or settled and not yet written.

Pure: events and times go in; what must be written is taken out by `take` (finished rows) and `snapshot` (what is open).

    where a message is      what it means
    ----------------------  ------------------------------------------------------------------------------------------
    lives                   open (has a send), or waiting (receipts whose send was not read yet)
    fresh -> flushing       settled: to be written -> being written; still merged with in memory
    recent                  written: only its id's hash is remembered, a repeated send is looked up in the store

Deadlines run on watermarks, not on the clock: an open message ends on the receipts watermark, a waiting one on the
sends watermark. An unknown receipt is only looked up in the store once the sends before it were read, because until
then its send may simply not have been reached; so topics that are read at different speeds cost nothing.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, Protocol

import msgspec

from schemas.events import FUTURE_MS_MAX, Receipt, Receive, Send
from schemas.record import Record
from streams import join
from streams.join import Life
from streams.recent import Recent, hashes
from streams.wheel import Wheel

REMEMBER_MS: Final = 600_000
_RECENT_IDS_MAX: Final = 4_000_000
_BUCKET_MS_MIN: Final = 250
_BUCKET_MS_MAX: Final = 5_000
# A tombstone outranks every open row of its message, whatever facts those had.
TOMBSTONE: Final = 1 << 32

_encode = msgspec.json.Encoder().encode
_thaw = msgspec.json.Decoder(Life).decode


class Entry(Protocol):
    """A log entry as the consumer hands it over; kept whole while it may still become a dead letter."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


class DeadLetter(NamedTuple):
    """An input that cannot be used; `entry` is None when only `receipt` is left of it."""

    topic: str
    shard: int
    entry: Entry | None
    reason: str
    detail: str
    receipt: Receipt | None = None


class OpenRow(NamedTuple):
    """One row of `open_messages`; `part` is empty for a message, else it names a waiting receipt."""

    shard: int
    message_id: str
    part: str
    account_id: str
    occurred_at: int
    deadline: int
    facts: bytes
    version: int
    is_deleted: int


class Counts(msgspec.Struct):
    """What became of the events of a partition; `events` is the sum of what was done with them."""

    events: int = 0
    duplicates: int = 0
    dead_letters: int = 0
    merged: int = 0
    amended: int = 0
    orphaned: int = 0
    adopted: int = 0


class Progress(Protocol):
    """What a checkpoint says of a partition: watermarks in ms, and the fields of `Counts`."""

    sends_mark: int
    receives_mark: int
    receipts_mark: int


class Found(NamedTuple):
    """What the store knows of one message id."""

    records: dict[str, Record]
    orphans: tuple[Receipt, ...]


class Rows(NamedTuple):
    """What is finished."""

    shard: int
    settled: list[Life]
    inbound: list[Receive]
    orphans: list[tuple[Receipt, int]]


class Snapshot(NamedTuple):
    """What is open and changed since the last one, and where the partition stands.

    `adopted` are receipts that leave `orphan_receipts`, once the rows that now hold them are durable.
    """

    rows: list[OpenRow]
    adopted: list[Receipt]
    frozen: dict[str, tuple[Life, bytes]]
    marks: dict[str, int]
    settled_through: int
    remembers_from: int
    open: int
    counts: Counts


class Held(NamedTuple):
    """A send or receive that the store must be asked about before it is merged.

    `orphans` are receipts of its message that were on their way to the store then: the answer may miss them.
    """

    event: Send | Receive
    entry: Entry
    orphans: tuple[Receipt, ...] = ()


class Partition:
    """The state of one partition number over the three topics."""

    def __init__(self, shard: int, window_ms: int, now_ms: int) -> None:
        self.shard = shard
        self.window_ms = window_ms
        self.lives: dict[str, Life | bytes] = {}
        self.fresh: dict[str, Life] = {}
        self.flushing: dict[str, Life] = {}
        self.fresh_inbound: dict[str, Receive] = {}
        self.flushing_inbound: dict[str, Receive] = {}
        self.marks = dict.fromkeys(("sends", "receives", "receipts"), 0)
        self.counts = Counts()
        self.dead: list[DeadLetter] = []
        self.waiting = 0
        self._recent = {"outbound": Recent(_RECENT_IDS_MAX), "inbound": Recent(_RECENT_IDS_MAX)}
        self._orphaned = Recent(_RECENT_IDS_MAX)
        bucket_ms = min(_BUCKET_MS_MAX, max(_BUCKET_MS_MIN, window_ms // 64))
        self._ends = Wheel(bucket_ms, self.lives.__contains__)
        self._waits = Wheel(bucket_ms, self.lives.__contains__)
        self._occurred = Wheel(1_000, self.lives.__contains__)
        self._young: list[str] = []
        self._dirty: set[str] = set()
        self._gone: list[tuple[str, str, int]] = []
        self._asks: deque[tuple[int, str]] = deque()
        self._orphans: dict[str, list[tuple[Receipt, int]]] = {}
        self._flushing_orphans: dict[str, list[tuple[Receipt, int]]] = {}
        self._adopted: list[Receipt] = []
        self._held: set[str] = set()
        self._asking: set[str] = set()
        self._taken_ms = self._settled_from_ms = now_ms

    # ---- events --------------------------------------------------------------------------------------------

    def add_sends(self, events: list[tuple[Send, Entry]], now_ms: int) -> list[Held]:
        """Merges sends in log order; returns those to ask the store about, to be given to `resolve_sends`."""
        suspects = self._suspects([s.message_id for s, _ in events], "outbound")
        held: list[Held] = []
        for send, entry in events:
            mid = send.message_id
            life = self._life(mid)
            if (suspects and hash(mid) in suspects) or (self._held and mid in self._held):
                held.append(Held(send, entry, self._unwritten_orphans(mid)))
                self._held.add(mid)
            elif life is not None and life.send is not None:
                self._repeated(life.send, send, entry, "sends")
            elif entry.timestamp - send.occurred_ms > REMEMBER_MS:
                held.append(Held(send, entry, self._unwritten_orphans(mid)))
                self._held.add(mid)
            else:
                self._open(send, entry, life, now_ms)
        return held

    def add_receives(self, events: list[tuple[Receive, Entry]], now_ms: int) -> list[Held]:
        """Merges receives in log order; returns those to ask the store about, to be given to `resolve_receives`."""
        suspects = self._suspects([r.message_id for r, _ in events], "inbound")
        held: list[Held] = []
        held_ids: set[str] = set()
        for receive, entry in events:
            mid = receive.message_id
            known = self.fresh_inbound.get(mid) or self.flushing_inbound.get(mid)
            if known is not None:
                self._repeated(known, receive, entry, "receives")
            elif (
                (suspects and hash(mid) in suspects)
                or entry.timestamp - receive.occurred_ms > REMEMBER_MS
                or (held_ids and mid in held_ids)
            ):  # fmt: skip
                held.append(Held(receive, entry))
                held_ids.add(mid)
            else:
                self.fresh_inbound[mid] = receive
                self.counts.merged += 1
        return held

    def add_receipts(self, events: list[tuple[Receipt, Entry]], now_ms: int) -> None:
        """Merges receipts in log order: into open and settled messages, else they wait for their send."""
        lives = self.lives
        for receipt, entry in events:
            mid = receipt.message_id
            life = lives.get(mid)
            if life is None:
                if not self._amend(mid, receipt, entry, now_ms):
                    self._wait(receipt, entry, now_ms)
                continue
            if isinstance(life, bytes):
                life = lives[mid] = _thawed(life)
            outcome = join.add_receipt(life, receipt)
            if outcome != "merged":
                self._count_receipt(outcome, receipt, entry)
                continue
            self.counts.merged += 1
            if life.send is not None and join.is_final(receipt):
                self._settle(mid, life, now_ms)
            else:
                self._dirty.add(mid)

    def _suspects(self, ids: list[str], direction: str) -> set[int]:
        wanted = hashes(ids)
        suspects = self._recent[direction].seen(wanted)
        return suspects | self._orphaned.seen(wanted) if direction == "outbound" else suspects

    def _life(self, mid: str) -> Life | None:
        return self._open_life(mid) or self.fresh.get(mid) or self.flushing.get(mid)

    def _open_life(self, mid: str) -> Life | None:
        life = self.lives.get(mid)
        if isinstance(life, bytes):
            life = self.lives[mid] = _thawed(life)
        return life

    def _repeated(self, known: Send | Receive, event: Send | Receive, entry: Entry, topic: str) -> None:
        if known.event_id == event.event_id:
            self.counts.duplicates += 1
        else:
            self.refuse(topic, entry, "conflict", "message_id: known with another event_id")

    def refuse(self, topic: str, entry: Entry | None, reason: str, detail: str, receipt: Receipt | None = None) -> None:
        """Puts an input among the dead letters."""
        self.counts.dead_letters += 1
        self.dead.append(DeadLetter(topic, self.shard, entry, reason, detail, receipt))

    def _count_receipt(self, outcome: str, receipt: Receipt, entry: Entry | None) -> None:
        if outcome == "duplicate":
            self.counts.duplicates += 1
        elif outcome == "too_many_events":
            self.refuse("receipts", entry, outcome, f"message_id: has {join.RECEIPTS_MAX} receipts", receipt)

    def _open(self, send: Send, entry: Entry, waiting: Life | None, now_ms: int) -> None:
        mid = send.message_id
        deadline_ms = max(send.occurred_ms, min(entry.timestamp, now_ms)) + self.window_ms
        self.counts.merged += 1
        if waiting is None:
            self.lives[mid] = Life(send, (), deadline_ms)
        else:
            self._leave_wheels(waiting)
            self._asking.discard(mid)
            self.waiting -= 1
            waiting.send, waiting.deadline_ms, waiting.placed = send, deadline_ms, False
            if join.has_final(waiting):
                self._settle(mid, waiting, now_ms)
                return
        self._young.append(mid)
        self._dirty.add(mid)

    def _wait(self, receipt: Receipt, entry: Entry, now_ms: int) -> None:
        mid = receipt.message_id
        read_ms = min(entry.timestamp, now_ms)
        self.lives[mid] = Life(None, (receipt,), max(receipt.occurred_ms, read_ms) + self.window_ms)
        self.counts.merged += 1
        self.waiting += 1
        self._young.append(mid)
        self._dirty.add(mid)
        self._asks.append((read_ms, mid))

    def _amend(self, mid: str, receipt: Receipt, entry: Entry | None, now_ms: int) -> bool:
        """Merges a receipt into a settled message that is still in memory, if it is."""
        life = self.fresh.get(mid)
        if life is None:
            writing = self.flushing.get(mid)
            if writing is None:
                return False
            # Its row is being written: what changes now is a copy, and a row of its own.
            life = msgspec.structs.replace(writing)
        outcome = join.add_receipt(life, receipt)
        if outcome == "merged":
            self.counts.merged += 1
            self._mark_amended(mid, life, now_ms)
        else:
            self._count_receipt(outcome, receipt, entry)
        return True

    def _mark_amended(self, mid: str, life: Life, now_ms: int) -> None:
        life.amendments += 1
        life.amended_ms = now_ms
        self.fresh[mid] = life
        self.counts.amended += 1

    def _settle(self, mid: str, life: Life, now_ms: int) -> None:
        self._drop(mid, life)
        life.settled_ms = now_ms
        self.fresh[mid] = life

    def _drop(self, mid: str, life: Life) -> None:
        """Takes a message out of what is open, and remembers which of its rows in the store must go."""
        del self.lives[mid]
        self._dirty.discard(mid)
        self._asking.discard(mid)
        self._leave_wheels(life)
        if life.saved:
            self._gone.append((mid, "", TOMBSTONE + len(life.receipts)))
        self._gone += [(mid, part, TOMBSTONE) for part in life.parts]
        life.saved, life.parts = False, ()

    def _leave_wheels(self, life: Life) -> None:
        if not life.placed:
            return
        if life.send is None:
            self._waits.remove(life.deadline_ms)
        else:
            self._ends.remove(life.deadline_ms)
            self._occurred.remove(life.send.occurred_ms)

    # ---- what the store knows ------------------------------------------------------------------------------

    def resolve_sends(self, held: list[Held], found: dict[str, Found], now_ms: int) -> None:
        """Goes on with held sends, in log order, now that the store was asked."""
        for send, entry, unwritten in held:
            assert isinstance(send, Send)
            mid = send.message_id
            self._held.discard(mid)
            life = self._life(mid)
            known = found.get(mid, Found({}, ()))
            orphans = (*known.orphans, *unwritten)
            if life is not None and life.send is not None:
                self._repeated(life.send, send, entry, "sends")
                self._merge_into(mid, life, orphans, now_ms)
            elif "outbound" in known.records:
                stored = join.restore(known.records["outbound"])
                assert stored.send is not None
                self._repeated(stored.send, send, entry, "sends")
                self._merge_waiting(mid, life, stored, orphans, now_ms)
            else:
                self._open(send, entry, self._adopt(mid, life, orphans) if orphans else life, now_ms)

    def resolve_receives(self, held: list[Held], found: dict[str, Found], now_ms: int) -> None:
        """Goes on with held receives, in log order, now that the store was asked."""
        for receive, entry, _ in held:
            assert isinstance(receive, Receive)
            mid = receive.message_id
            first = self.fresh_inbound.get(mid) or self.flushing_inbound.get(mid)
            known = found.get(mid)
            if first is not None:
                self._repeated(first, receive, entry, "receives")
            elif known is not None and "inbound" in known.records:
                if known.records["inbound"].timeline_event_id[0] == receive.event_id:
                    self.counts.duplicates += 1
                else:
                    self.refuse("receives", entry, "conflict", "message_id: known with another event_id")
            else:
                self.fresh_inbound[mid] = receive
                self.counts.merged += 1

    def resolve_receipts(self, asked: Iterable[str], found: dict[str, Found], now_ms: int) -> None:
        """Goes on with waiting receipts: into the settled record if the store has one, else they wait on."""
        for mid in asked:
            life = self._open_life(mid)
            # An answer is for the receipts it was asked for, not for others that began to wait since.
            if life is None or mid not in self._asking:
                continue
            self._asking.discard(mid)
            known = found.get(mid, Found({}, ()))
            if "outbound" in known.records:
                self._merge_waiting(mid, life, join.restore(known.records["outbound"]), known.orphans, now_ms)
            else:
                life.asked = True
                self._dirty.add(mid)  # else a snapshot under way would bring back the bytes from before

    def _merge_waiting(
        self, mid: str, life: Life | None, stored: Life, orphans: tuple[Receipt, ...], now_ms: int
    ) -> None:
        """Merges orphans, and receipts that wait, into a record of the store."""
        merged = self._merge_orphans(stored, orphans)
        if life is not None:
            self._drop(mid, life)
            self.waiting -= 1
            merged += self._merge_waited(stored, life.receipts)
        for _ in range(merged):
            self._mark_amended(mid, stored, now_ms)

    def _merge_into(self, mid: str, life: Life, orphans: tuple[Receipt, ...], now_ms: int) -> None:
        """Merges orphans into a message that is open or just settled: a crash had come between the two writes."""
        if mid in self.flushing and mid not in self.fresh:
            life = msgspec.structs.replace(life)
        merged = self._merge_orphans(life, orphans)
        if life.settled_ms:
            for _ in range(merged):
                self._mark_amended(mid, life, now_ms)
        elif merged and join.has_final(life):
            self._settle(mid, life, now_ms)
        elif merged:
            self._dirty.add(mid)

    def _adopt(self, mid: str, life: Life | None, orphans: tuple[Receipt, ...]) -> Life:
        """A waiting life of orphans and of the receipts that came since, oldest first."""
        adopted = Life()
        self._merge_orphans(adopted, orphans)
        if life is None:
            self.waiting += 1
        else:
            self._leave_wheels(life)
            adopted.parts = life.parts
            self._merge_waited(adopted, life.receipts)
        self.lives[mid] = adopted
        return adopted

    def _merge_orphans(self, life: Life, orphans: tuple[Receipt, ...]) -> int:
        """How many joined; they were counted when they were read, whatever becomes of them now."""
        merged = sum(join.add_receipt(life, receipt) == "merged" for receipt in orphans)
        self._adopted += orphans
        self.counts.adopted += merged
        return merged

    def _merge_waited(self, life: Life, receipts: tuple[Receipt, ...]) -> int:
        """How many joined; they were counted as merged when they began to wait."""
        merged = 0
        for receipt in receipts:
            outcome = join.add_receipt(life, receipt)
            if outcome == "merged":
                merged += 1
            else:
                self.counts.merged -= 1
                self._count_receipt(outcome, receipt, None)
        return merged

    def _unwritten_orphans(self, mid: str) -> tuple[Receipt, ...]:
        return tuple(r for orphans in (self._flushing_orphans, self._orphans) for r, _ in orphans.get(mid, ()))

    # ---- time ----------------------------------------------------------------------------------------------

    def advance(self, topic: str, entries: Sequence[Entry], now_ms: int) -> None:
        """Moves a topic's watermark over entries that were read; one far in the future says nothing about time."""
        newest_ms = max((e.timestamp for e in entries if e.timestamp <= now_ms + FUTURE_MS_MAX), default=0)
        self.marks[topic] = max(self.marks[topic], min(newest_ms, now_ms))

    def caught_up(self, topic: str, asked_ms: int) -> None:
        """Says that everything in a topic was read that it held at `asked_ms` by the clock."""
        self.marks[topic] = max(self.marks[topic], asked_ms)

    def tick(self, now_ms: int) -> list[str]:
        """Settles and orphans what is due by now; returns ids of waiting receipts to ask the store about."""
        self._place_young()
        for mid in self._ends.upto(self.marks["receipts"]):
            life = self._open_life(mid)
            if life is not None and life.send is not None and life.deadline_ms < self.marks["receipts"]:
                self._settle(mid, life, now_ms)
        for mid in self._waits.upto(self.marks["sends"]):
            life = self._open_life(mid)
            if life is None or life.send is not None or mid in self._held:
                continue
            if life.asked and life.deadline_ms < self.marks["sends"]:
                self._orphan(mid, life, now_ms)
        for recent in self._recent.values():
            recent.forget(now_ms - REMEMBER_MS, min(self.marks["sends"], self.marks["receives"]) - REMEMBER_MS)
        return self._due_asks()

    def _place_young(self) -> None:
        """Enters into the wheels what has stayed open: most messages never get there."""
        young, self._young = self._young, []
        for mid in young:
            life = self.lives.get(mid)
            if isinstance(life, Life) and not life.placed:
                self._place(mid, life)

    def _place(self, mid: str, life: Life) -> None:
        life.placed = True
        if life.send is None:
            self._waits.add(life.deadline_ms, mid)
        else:
            self._ends.add(life.deadline_ms, mid)
            self._occurred.add(life.send.occurred_ms, mid)

    def _orphan(self, mid: str, life: Life, now_ms: int) -> None:
        self._drop(mid, life)
        self.waiting -= 1
        self._orphans.setdefault(mid, []).extend((receipt, now_ms) for receipt in life.receipts)
        self.counts.orphaned += len(life.receipts)
        self._orphaned.add([mid], now_ms, now_ms, now_ms)

    def _due_asks(self) -> list[str]:
        due: list[str] = []
        while self._asks and self._asks[0][0] < self.marks["sends"]:
            mid = self._asks.popleft()[1]
            life = self._open_life(mid)
            if life is not None and life.send is None and not life.asked:
                due.append(mid)
                self._asking.add(mid)
        return due

    # ---- what is to be written -----------------------------------------------------------------------------

    def pending(self) -> int:
        """How many finished rows wait to be taken."""
        return len(self.fresh) + len(self.fresh_inbound)

    def unsaved(self) -> int:
        """How many open messages and dead letters wait for the next checkpoint."""
        return len(self._dirty) + len(self.dead)

    def forget(self, message_id: str) -> None:
        """Lets go of an open message that the store refuses."""
        life = self._open_life(message_id)
        if life is not None:
            self.waiting -= life.send is None
            self._drop(message_id, life)

    def take(self, now_ms: int) -> Rows:
        """Takes what is finished; `written` must follow before the next `take`."""
        assert not self.flushing and not self.flushing_inbound, "what was taken last is not written yet"
        self._settled_from_ms, self._taken_ms = self._taken_ms, now_ms
        self.flushing = self.fresh
        self.flushing_inbound = self.fresh_inbound
        self.fresh, self.fresh_inbound = {}, {}
        self._flushing_orphans, self._orphans = self._orphans, {}
        orphans = [orphan for group in self._flushing_orphans.values() for orphan in group]
        return Rows(self.shard, list(self.flushing.values()), list(self.flushing_inbound.values()), orphans)

    def written(self, now_ms: int) -> None:
        """Says that what was taken last is durable: from here on only the ids are remembered."""
        since_ms = self._settled_from_ms
        self._recent["outbound"].add(self.flushing, since_ms, now_ms, self.marks["sends"])
        self._recent["inbound"].add(self.flushing_inbound, since_ms, now_ms, self.marks["receives"])
        self.flushing, self.flushing_inbound, self._flushing_orphans = {}, {}, {}

    def snapshot(self, now_ms: int) -> Snapshot:
        """What is open and changed since the last snapshot; call it together with `take`."""
        self._place_young()
        rows = [OpenRow(self.shard, mid, part, "", 0, 0, b"", v, 1) for mid, part, v in self._gone]
        self._gone = []
        frozen: dict[str, tuple[Life, bytes]] = {}
        for mid in self._dirty:
            life = self.lives[mid]
            assert isinstance(life, Life)
            rows += self._waiting_rows(mid, life) if life.send is None else self._part_tombstones(mid, life)
            facts = _encode(life)
            frozen[mid] = (life, facts)
            if life.send is not None:
                rows.append(self._open_row(mid, life, life.send, facts))
        self._dirty = set()
        through = min(self.marks["sends"], self.marks["receives"], self._earliest_ms())
        oldest_ms = min(recent.remembers_from_ms(now_ms) for recent in self._recent.values())
        counts = msgspec.structs.replace(self.counts)
        adopted, self._adopted = self._adopted, []
        return Snapshot(rows, adopted, frozen, dict(self.marks), through, oldest_ms, len(self.lives), counts)

    def _part_tombstones(self, mid: str, life: Life) -> list[OpenRow]:
        rows = [OpenRow(self.shard, mid, part, "", 0, 0, b"", TOMBSTONE, 1) for part in life.parts]
        life.saved, life.parts = True, ()
        return rows

    def _open_row(self, mid: str, life: Life, send: Send, facts: bytes) -> OpenRow:
        at = send.occurred_ms, life.deadline_ms
        return OpenRow(self.shard, mid, "", send.account_id, *at, facts, 1 + len(life.receipts), 0)

    def _waiting_rows(self, mid: str, life: Life) -> list[OpenRow]:
        parts = {f"{r.event_id}\0{r.state}\0{r.occurred_ms}\0{r.segment}": r for r in life.receipts}
        life.parts = tuple(parts)
        at = 0, life.deadline_ms
        return [
            OpenRow(self.shard, mid, part, "", *at, _encode(Life(None, (r,), life.deadline_ms)), 1, 0)
            for part, r in parts.items()
        ]

    def saved(self, snapshot: Snapshot) -> None:
        """Says that a snapshot is durable: what has not changed since is kept as the bytes that were written."""
        for mid, (life, facts) in snapshot.frozen.items():
            if self.lives.get(mid) is life and mid not in self._dirty:
                self.lives[mid] = facts

    def _earliest_ms(self) -> int:
        """The smallest `occurred_at` still open; the largest time there is when nothing is."""
        for ids in self._occurred.ascending():
            lives = [self._open_life(mid) for mid in ids]
            times = [life.send.occurred_ms for life in lives if life is not None and life.send is not None]
            if times:
                return min(times)
        return (1 << 63) - 1

    # ---- recovery ------------------------------------------------------------------------------------------

    def restore(self, message_id: str, facts: bytes, deadline_ms: int, occurred_ms: int) -> None:
        """Takes back an open message as it was saved."""
        self.lives[message_id] = facts
        self._ends.add(deadline_ms, message_id)
        self._occurred.add(occurred_ms, message_id)

    def restore_waiting(self, message_id: str, part: str, facts: bytes) -> None:
        """Takes back a receipt that waits for its send; the store is asked about it again."""
        saved = _thaw(facts)
        life = self._await_again(message_id, saved)
        life.parts = (*life.parts, part)

    def restore_settled(self, message_id: str, facts: bytes, is_known: bool) -> None:
        """Takes back an open row whose message has a record already: a crash, or a stale owner, left it behind.

        `is_known`: the record holds all that the row does. Else its receipts go the way of late ones.
        """
        saved = _thaw(facts)
        self._gone.append((message_id, "", TOMBSTONE + len(saved.receipts)))
        if not is_known:
            self._await_again(message_id, saved)

    def _await_again(self, message_id: str, saved: Life) -> Life:
        life = self._open_life(message_id)
        if life is None:
            life = self.lives[message_id] = Life(None, (), saved.deadline_ms)
            self.waiting += 1
            self._young.append(message_id)
            self._asks.append((0, message_id))
        receipts = {r.source: r for r in (*life.receipts, *saved.receipts)}
        life.receipts = tuple(receipts[source] for source in sorted(receipts, key=_log_order))
        return life

    def restore_progress(self, stored: "Progress") -> None:
        """Takes back watermarks and counts: the offsets that reading goes on from belong to them."""
        self.marks = {"sends": stored.sends_mark, "receives": stored.receives_mark, "receipts": stored.receipts_mark}
        self.counts = Counts(**{name: getattr(stored, name) for name in Counts.__struct_fields__})

    def remember(self, direction: str, ids: Iterable[str], since_ms: int, now_ms: int) -> None:
        """Takes back the ids of records settled between two times."""
        self._recent[direction].add(ids, since_ms, now_ms, now_ms)

    def remember_orphans(self, ids: Iterable[str], now_ms: int) -> None:
        """Takes back the ids of receipts that never met a message."""
        self._orphaned.add(ids, now_ms, now_ms, now_ms)


def _log_order(source: str) -> int:
    return int(source.rsplit(":", 1)[1])


def _thawed(facts: bytes) -> Life:
    life = _thaw(facts)
    life.placed, life.saved = True, life.send is not None
    return life
