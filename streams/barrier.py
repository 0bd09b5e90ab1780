"""The barrier between Kafka and ClickHouse: rows and dead letters are durable first, then the offsets move.

    flush       (often)    finished rows -> mdrs, orphan_receipts
    checkpoint  (seldom)   a flush; then open messages and tombstones, then where the partitions stand, then the commit

A checkpoint is a cut: rows, open messages and offsets are taken in one step of the event loop, and written in that
order while reading goes on. Whatever fails is tried again for as long as it takes; meanwhile `room` holds the reading.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple, Protocol, TypeVar, cast

from streams import folding
from streams.aside import aside
from streams.effects import DeadLetter, OpenRow, Rows, Snapshot
from streams.flow import RECEIPTS, RECEIVES, SENDS, TOPICS, Flow
from streams.settle import Partition
from streams.store import Store, Unavailable, Unstorable
from streams.tables import Checkpoint

log = logging.getLogger(__name__)
# Finished rows: at this many they are written, at twice as many reading waits.
ROWS_MAX: Final = 60_000
# A flush of so many messages at most is kept in memory for two more.
KEEP_ROWS_MAX: Final = 10_000
# Open messages that changed, and dead letters: at this many a checkpoint comes early, at twice as many reading waits.
UNSAVED_MAX: Final = 50_000
# Behind by more than this there are no flushes but with checkpoints: fewer and larger inserts are cheaper to merge.
_BEHIND_MS: Final = 10_000
_BACKOFF_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
T = TypeVar("T")
Offsets = dict[tuple[str, int], int]


class Log(Protocol):
    """What the barrier needs of Kafka."""

    async def commit(self, offsets: Mapping[tuple[str, int], int], generation: int) -> bool:
        """Commits by (topic without prefix, partition); False when the group has moved on."""

    async def bury(self, letters: Sequence[DeadLetter]) -> None:
        """Returns once every dead letter is acknowledged."""

    async def bury_unstorable(self, bad: Sequence[Unstorable]) -> None:
        """The same for the events that made rows the store refuses."""


class _Cut(NamedTuple):
    partition: Partition
    rows: Rows
    dead: list[DeadLetter]
    snapshot: Snapshot | None


class Barrier:
    """Writes what the flow yields; one cut at a time."""

    def __init__(
        self, flow: Flow, store: Store, kafka: Log, clock_ms: Callable[[], int], partitions: int,
        flush_ms: int, checkpoint_ms: int,
    ) -> None:  # fmt: skip
        self._flow = flow
        self._store = store
        self._kafka = kafka
        self._clock_ms = clock_ms
        self._partitions = partitions
        self._flush_ms = flush_ms
        self._checkpoint_ms = checkpoint_ms
        self._thread = ThreadPoolExecutor(1, "store-write")
        self._writing = asyncio.Lock()
        self._full = asyncio.Event()
        self._roomy = asyncio.Event()
        self._roomy.set()
        self._torn = False
        self.done: Offsets = {}
        # Where the stored checkpoints stood: a partition not heard of since has not gone back.
        self.base: Offsets = {}
        self.generation = -1
        self._finishing = False
        self.trouble = ""
        # Told after each cut that got through: whether it was a checkpoint, and how many ms it took.
        self.on_written: Callable[[bool, int], None] = lambda checkpoint, took_ms: None

    def finish(self) -> None:
        """Lets `run` return after the write it is in."""
        self._finishing = True
        self._full.set()

    def close(self) -> None:
        """Ends the writing thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    # ---- filling -------------------------------------------------------------------------------------------

    def did(self, topic: str, shard: int, next_offset: int) -> None:
        """Says that a partition's batch is worked off up to an offset."""
        self.done[topic, shard] = next_offset
        partitions = self._flow.partitions.values()
        fill = max(sum(p.pending() for p in partitions) / ROWS_MAX, sum(p.unsaved() for p in partitions) / UNSAVED_MAX)
        if fill >= 1:
            self._full.set()
        if fill >= 2:
            self._roomy.clear()

    async def room(self) -> None:
        """Returns once there is room for another batch: the bound of what waits to be written."""
        await self._roomy.wait()

    async def run(self) -> None:
        """Flushes and checkpoints until `finish`; to cancel it in the midst of a write would tear that write."""
        began_ms = self._clock_ms()
        next_ms = began_ms + self._checkpoint_ms
        while not self._finishing:
            # From the beginning of the write before: a long write makes no row wait longer than a short one.
            wait_ms = min(self._flush_ms, max(0, began_ms + self._flush_ms - self._clock_ms()))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._full.wait(), wait_ms / 1000)
            began_ms = self._clock_ms()
            unsaved = sum(p.unsaved() for p in self._flow.partitions.values())
            due = self._clock_ms() >= next_ms or unsaved >= UNSAVED_MAX
            if not due and not self._full.is_set() and self._is_behind():
                continue
            await self.write(checkpoint=due)
            if due:
                next_ms = self._clock_ms() + self._checkpoint_ms

    def _is_behind(self) -> bool:
        """Whether even what was read last is old: nobody waits for its rows by the second."""
        marks = [ms for p in self._flow.partitions.values() for ms in p.marks.values() if ms]
        return bool(marks) and self._clock_ms() - max(marks) > _BEHIND_MS

    # ---- writing -------------------------------------------------------------------------------------------

    async def write(self, *, checkpoint: bool) -> None:
        """Makes one cut durable; with `checkpoint` the offsets follow."""
        async with self._writing:
            if self._torn:
                return
            try:
                await self._write_cut(checkpoint)
            except BaseException:
                # What was cut is neither in memory nor in the store: nothing may be committed after it.
                self._torn = True
                raise

    async def _write_cut(self, checkpoint: bool) -> None:
        self._full.clear()
        now_ms = self._clock_ms()
        generation, offsets = self.generation, dict(self.done)
        cuts = [self._cut(p, now_ms, checkpoint) for p in self._flow.partitions.values()]
        bad = await self._write_rows(cuts, now_ms)
        refused = {cast(str, row[0]) for row, *_ in bad}
        keep = sum(len(cut.rows.settled) for cut in cuts) <= KEEP_ROWS_MAX
        for cut in cuts:
            cut.partition.written(self._clock_ms(), refused, keep=keep)
        if checkpoint:
            await self._write_snapshots(cuts, offsets, now_ms)
            await self._retry("commit", lambda: self._kafka.commit(offsets, generation))
        aside("telling of a write", self.on_written, checkpoint, self._clock_ms() - now_ms)
        self._roomy.set()

    def forget(self) -> None:
        """Says that all partitions were let go: what is taken on next is whole."""
        self.generation = -1
        self.done.clear()
        self.base.clear()
        self._torn = False

    async def last(self, timeout_s: float) -> bool:
        """One more checkpoint, bounded in time; False when it did not get through.

        What was cut then is not written, so the partitions must be forgotten: the next owner reads on from the
        checkpoint before.
        """
        try:
            await asyncio.wait_for(self.write(checkpoint=True), timeout_s)
        except TimeoutError:
            log.warning(
                "the last checkpoint took longer than %.0f s, the next owner goes on from the one before", timeout_s
            )
            return False
        return True

    def _cut(self, p: Partition, now_ms: int, checkpoint: bool) -> _Cut:
        dead, p.dead, p.dead_bytes = p.dead, [], 0
        snapshot = p.snapshot(now_ms) if checkpoint else None
        return _Cut(p, p.take(now_ms), dead, snapshot)

    async def _write_rows(self, cuts: list[_Cut], now_ms: int) -> list[Unstorable]:
        """Returns what the store refuses; its events are dead letters then."""
        letters = [letter for cut in cuts for letter in cut.dead]
        if letters:
            await self._retry("dead letters", lambda: self._kafka.bury(letters))
        bad: list[Unstorable] = []
        if any(cut.rows.settled or cut.rows.inbound for cut in cuts):
            bad += await self._in_thread("records", self._write_records, [c.rows for c in cuts], now_ms)
        for rows in (cut.rows for cut in cuts if cut.rows.orphans):
            bad += await self._in_thread("orphans", self._store.write_orphans, rows.shard, rows.orphans)
        await self._bury(bad)
        return bad

    async def _bury(self, bad: list[Unstorable]) -> None:
        if bad:
            await self._retry("dead letters", lambda: self._kafka.bury_unstorable(bad))

    def _write_records(self, taken: list[Rows], now_ms: int) -> list[Unstorable]:
        return self._store.write_records(folding.records(taken, now_ms))

    def _write_open(self, rows: list[OpenRow], opened: list[Rows], now_ms: int) -> list[Unstorable]:
        return self._store.write_open(rows, folding.records(opened, now_ms))

    async def _write_snapshots(self, cuts: list[_Cut], offsets: Offsets, now_ms: int) -> None:
        rows: list[OpenRow] = []
        opened: list[Rows] = []
        marks: list[Checkpoint] = []
        snapshots = [(cut.partition, cut.snapshot) for cut in cuts if cut.snapshot is not None]
        for partition, snapshot in snapshots:
            rows += snapshot.rows
            opened.append(Rows(partition.shard, snapshot.opened, [], []))
            marks.append(_checkpoint(partition.shard, self._partitions, snapshot, self.base | offsets, now_ms))
        bad = await self._in_thread("open messages", self._write_open, rows, opened, now_ms) if rows else []
        await self._bury(bad)
        for partition, snapshot in ((p, s) for p, s in snapshots if s.adopted):
            # Only now do other rows hold what was adopted.
            adopted = [(receipt, now_ms) for receipt in snapshot.adopted]
            await self._in_thread("orphans", self._store.drop_orphans, partition.shard, adopted)
        await self._in_thread("checkpoint", self._store.write_checkpoints, marks)
        for partition, snapshot in snapshots:
            partition.saved(snapshot)
        for row, *_ in bad:
            self._flow.partitions[cast(int, row[0])].forget(cast(str, row[1]))

    async def _in_thread(self, what: str, call: Callable[..., T], *args: Any) -> T:
        loop = asyncio.get_running_loop()
        return await self._retry(what, lambda: loop.run_in_executor(self._thread, call, *args))

    async def _retry(self, what: str, call: Callable[[], Awaitable[T]]) -> T:
        """Tries for as long as it takes; says so once when it begins to fail and once when it works again."""
        attempt = 0
        while True:
            try:
                result = await call()
            except Unavailable as e:
                if not attempt:
                    log.warning("writing %s fails, trying again: %s", what, e)
                self.trouble = f"{what}: {e}"
                await asyncio.sleep(_BACKOFF_S[min(attempt, len(_BACKOFF_S) - 1)])
                attempt += 1
            else:
                if attempt:
                    log.warning("writing %s works again after %d tries", what, attempt + 1)
                    self.trouble = ""
                return result


def _checkpoint(shard: int, partitions: int, s: Snapshot, offsets: Offsets, now_ms: int) -> Checkpoint:
    at = [offsets.get((topic, shard), 0) for topic in TOPICS]
    marks = [s.marks[topic] for topic in (SENDS, RECEIVES, RECEIPTS)]
    c = s.counts
    return Checkpoint(
        shard, partitions, marks[0], marks[1], marks[2], at[0], at[1], at[2], s.settled_through, s.remembers_from,
        s.open, c.events, c.merged, c.duplicates, c.dead_letters, c.amended, c.orphaned, c.adopted, now_ms,
        sum(at) + sum(marks),
    )  # fmt: skip
