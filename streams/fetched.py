"""What a consumer has fetched of a partition, read by streams/record_batches.py: aiokafka's own reader ends on poison.

aiokafka fetches and keeps the position. `install` puts the three classes here in the place of its own, so that every
consumer of the process survives whatever a broker takes, in bounded memory.
"""

import time
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from aiokafka.consumer import fetcher as fetching
from aiokafka.consumer.fetcher import READ_COMMITTED, FetchResult
from aiokafka.structs import ConsumerRecord

from streams.record_batches import Batch, Part, next_size

SHARE_RECORDS_MAX: Final = 1_000
# Of a partition at once, and of all in one poll: another piece is read only while less was. A megabyte of ill-made
# JSON takes a tenth of a second to refuse.
SHARE_BYTES_MAX: Final = 1 << 20
POLL_BYTES_MAX: Final = 24 << 20
NEVER_MS: Final = (1 << 63) - 1
# Times further ahead of the clock are nobody's progress.
AHEAD_MS_MAX: Final = 600_000


def install() -> None:
    """Has all consumers of the process read as it is done here."""
    fetching.MemoryRecords, fetching.PartitionRecords, fetching.FetchResult = Fetched, Unread, Result


def credible_ms(ms: int) -> int:
    """A time in the log; 0 for one that is far ahead of the clock."""
    return ms if ms <= time.time_ns() // 1_000_000 + AHEAD_MS_MAX else 0


class Left:
    """What may still be read in one poll."""

    def __init__(self, records: int) -> None:
        self.records = records
        self.bytes = POLL_BYTES_MAX


class Fetched:
    """The record batches in the bytes of a fetch; what is not there as a whole is fetched again."""

    def __init__(self, data: bytes) -> None:
        self._left = memoryview(data)
        self._size = next_size(self._left)
        self._next = Batch(self._left[: self._size]) if self._size else None

    def has_next(self) -> bool:
        """Whether there is a whole one."""
        return self._next is not None

    def peek(self) -> Batch | None:
        """The next one, if there is one."""
        return self._next

    def next_batch(self) -> Batch | None:
        """Passes on to the one after it."""
        batch, self._left = self._next, self._left[self._size :]
        self._size = next_size(self._left)
        self._next = Batch(self._left[: self._size]) if self._size else None
        return batch

    def size_in_bytes(self) -> int:
        """Nothing: aiokafka raises an error for bytes in which there is no batch."""
        return 0


class Chunk(NamedTuple):
    """Entries of a record batch, and how many bytes of it they took."""

    entries: list[Any]
    size: int


class Unread:
    """What was fetched of a partition and was not read yet, without what transactions took back."""

    def __init__(
        self, tp: Any, records: Fetched, aborted_transactions: Any, fetch_offset: int, key_deserializer: Any,
        value_deserializer: Any, check_crcs: bool, isolation_level: int,
    ) -> None:  # fmt: skip
        self._tp = tp
        self._records = records
        self._aborts = sorted(aborted_transactions or (), key=lambda aborted: aborted[1])
        self._aborted: set[int] = set()
        self._deserializers = key_deserializer, value_deserializer
        self._is_committed = isolation_level == READ_COMMITTED
        self._next = self._first = fetch_offset
        self._batch: Batch | None = None
        self._chunks: Iterator[list[Any]] = iter(())
        self._ready: deque[Any] = deque()
        self.taken = 0

    @property
    def next_fetch_offset(self) -> int:
        """The offset of what comes next."""
        return int(self._ready[0].offset) if self._ready else self._next

    def newest_ms(self) -> int:
        """The newest time by the broker in what comes next; 0 if there is none that can be believed."""
        batch = self._batch or self._records.peek()
        return credible_ms(batch.newest_ms) if batch is not None else 0

    def take(self) -> Chunk | None:
        """The next entries, none from before where reading begins; None at the end."""
        while self._batch is not None or self._open():
            batch = self._batch
            assert batch is not None
            before = batch.taken
            chunk = next(self._chunks, [])
            if chunk and _last(chunk[0]) < self._next:
                chunk = [entry for entry in chunk if _last(entry) >= self._next]
            if chunk:
                self._next = _last(chunk[-1]) + 1
            if batch.is_done:
                self._batch = None
                self._next = max(self._next, batch.last_offset + 1)
            if chunk:
                return Chunk(chunk, batch.taken - before)
        # No broker sends nothing but what lies before; it would be fetched for ever.
        self._next += self._next == self._first
        return None

    def _open(self) -> bool:
        """Goes on to the next batch that may be shown."""
        while (batch := self._records.next_batch()) is not None:
            if not self._is_hidden(batch):
                self._batch, self._chunks = batch, batch.chunks()
                return True
            self._next = max(self._next, batch.last_offset + 1)
        return False

    def _is_hidden(self, batch: Batch) -> bool:
        """Whether it is a marker, or was taken back."""
        if self._is_committed:
            while self._aborts and self._aborts[0][1] <= batch.base_offset:
                self._aborted.add(self._aborts.pop(0)[0])
            if batch.is_abort():
                self._aborted.discard(batch.producer_id)
        return batch.is_control or (
            self._is_committed and batch.is_transactional and batch.producer_id in self._aborted
        )

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> ConsumerRecord[Any, Any]:
        """One entry as aiokafka hands it out."""
        while not self._ready:
            chunk = self.take()
            if chunk is None:
                raise StopIteration
            self._ready.extend(chunk.entries)
            self.taken += chunk.size
        entry = self._ready.popleft()
        key, value = (f(x) if f else x for f, x in zip(self._deserializers, (entry.key, entry.value), strict=True))
        sizes = (-1 if data is None else len(data) for data in (entry.key, entry.value))
        return ConsumerRecord(
            self._tp.topic, self._tp.partition, entry.offset, entry.timestamp, 0, key, value, None, *sizes,
            tuple(entry.headers),
        )  # fmt: skip


def _last(entry: Any) -> int:
    """The last offset that an entry stands for."""
    return entry.last if type(entry) is Part else entry.offset


class Result(FetchResult):  # type: ignore[misc]
    """aiokafka's, whose entries may be many more than there is memory for."""

    _partition_records: Unread | None

    def getall(self, max_records: int | None = None) -> list[Any]:
        """So many of the next entries, as long as they do not take too many bytes."""
        if not self.check_assignment(self._topic_partition) or not self.has_more():
            return []
        found: list[Any] = []
        unread, taken = self._partition_records, 0
        while unread is not None and len(found) != max_records and taken <= SHARE_BYTES_MAX:
            before = unread.taken
            entry = next(unread, None)
            taken += unread.taken - before
            self._update_position()
            if entry is None:
                unread = self._partition_records = None
            else:
                found.append(entry)
        return found


def share(fetched: Mapping[Any, Any], tp: Any, left: Left, limit_ms: int, _: Any) -> list[Any]:
    """Entries of a partition, up to a share, to what is left of a poll, or to a time in the log."""
    result = fetched[tp]
    entries: list[Any] = []
    if not result.check_assignment(tp) or not result.has_more():
        return entries
    unread: Unread = result._partition_records
    size, most = 0, min(SHARE_RECORDS_MAX, left.records)
    while len(entries) < most and size < min(SHARE_BYTES_MAX, left.bytes) and unread.newest_ms() <= limit_ms:
        chunk = unread.take()
        result._update_position()
        if chunk is None:
            result._partition_records = None
            break
        entries = entries + chunk.entries if entries else chunk.entries
        size += chunk.size
    left.records -= len(entries)
    left.bytes -= size
    return entries
