"""What was fetched of a partition, handed out in shares, each record batch read whole.

aiokafka fetches, checks sums, passes over what was aborted and keeps the position. The records of a batch are left in
its bytes by native/log.c; what that doubts, and all where it could not be built, aiokafka reads.
"""

import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from aiokafka import codec
from aiokafka.consumer.fetcher import FetchResult
from aiokafka.record.memory_records import MemoryRecords

from schemas import native

SHARE_RECORDS_MAX: Final = 1_000
NEVER_MS: Final = (1 << 63) - 1
# Kafka's record batch, format 2: base offset, length, magic, attributes, base time, newest time, count of records.
_HEADER: Final = struct.Struct(">qi4xb4xh4xqq14xi")
# Offset and length come before what the length counts; the magic is where it was in older formats.
_BEFORE_LENGTH: Final = 12
_MAGIC_AT: Final = 16
_CODEC, _BROKER_TIME = 0x07, 0x08
_DECODE: Final[dict[int, Callable[[Any], bytes]]] = {
    0: bytes, 1: codec.gzip_decode, 2: codec.snappy_decode, 3: codec.lz4_decode, 4: codec.zstd_decode,
}  # fmt: skip


class Fetched:
    """aiokafka's `MemoryRecords`, with the bytes they are made of."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        records = MemoryRecords(data)
        self.has_next, self.next_batch = records.has_next, records.next_batch
        self.size_in_bytes = records.size_in_bytes


class Chunk(NamedTuple):
    """The records of one record batch; to aiokafka one record with the offset of the last."""

    offset: int
    records: list[Any]


class _Whole:
    """A record batch that hands out all it has as one item."""

    def __init__(self, batch: Any, data: memoryview) -> None:
        self._batch = batch
        self._data = data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        return next(self._batch)

    def __iter__(self) -> Iterator[Chunk]:
        records = _native_records(self._data)
        if records is None:
            records = list(self._batch)
        if records:
            yield Chunk(records[-1].offset, records)


def _native_records(data: memoryview) -> list[Any] | None:
    """The records of a batch in its bytes; None where aiokafka must read them."""
    if not native.enabled or data[_MAGIC_AT] != 2:
        return None
    base_offset, _, _, attributes, base_ms, newest_ms, count = _HEADER.unpack_from(data)
    decode = _DECODE.get(attributes & _CODEC)
    if decode is None:
        return None
    fixed_ms = newest_ms if attributes & _BROKER_TIME else -1
    return native.module.records(decode(data[_HEADER.size :]), count, base_offset, base_ms, fixed_ms)


class Wholes:
    """What was fetched of a partition, its record batches whole."""

    def __init__(self, fetched: Fetched) -> None:
        self._fetched = fetched
        self._left = memoryview(fetched.data)
        self.has_next = fetched.has_next

    def next_batch(self) -> _Whole:
        """The next."""
        size = _BEFORE_LENGTH + int.from_bytes(self._left[_BEFORE_LENGTH - 4 : _BEFORE_LENGTH])
        data, self._left = self._left[:size], self._left[size:]
        return _Whole(self._fetched.next_batch(), data)

    def newest_ms(self) -> int:
        """The newest time by the broker in the next batch; 0 where there is none, or it is of an older format."""
        if not self.has_next() or self._left[_MAGIC_AT] != 2:
            return 0
        newest_ms: int = _HEADER.unpack_from(self._left)[5]
        return newest_ms


def as_read(_: Any, record: Any) -> Any:
    """A record as the batch has it."""
    return record


def share(fetched: Mapping[Any, Any], tp: Any, left: list[int], limit_ms: int, _: Any) -> list[Any]:
    """Record batches of a partition, whole: up to a share, to what is left of a poll, or to a time in the log."""
    result = fetched[tp]
    unread = result._partition_records
    records: list[Any] = []
    first = unread.next_fetch_offset
    while len(records) < min(SHARE_RECORDS_MAX, left[0]) and unread._records.newest_ms() <= limit_ms:
        chunks = FetchResult.getall(result, 1)
        if not chunks:
            break
        records += chunks[0].records
    if records and records[0].offset < first:  # reading begins within a batch
        records = [record for record in records if record.offset >= first]
    left[0] -= len(records)
    return records
