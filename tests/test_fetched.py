"""Record batches read in their bytes: the same records that the client library reads, whatever is in them."""

from typing import Any

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st

from schemas import native
from schemas.batches import newest
from streams import fetched
from tests.entries import LogEntry

pytestmark = pytest.mark.native
NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)
BROKER_TIME = 0x08

Told = tuple[int, int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]
some_bytes = st.one_of(st.none(), st.binary(max_size=300))
some_records = st.lists(
    st.tuples(
        st.integers(0, 1 << 45), some_bytes, some_bytes,
        st.lists(st.tuples(st.text(max_size=20), st.one_of(st.none(), st.binary(max_size=20))), max_size=3),
    ),
    min_size=1, max_size=30,
)  # fmt: skip


def batch(records: list[Any], codec: int = NONE, base_offset: int = 0) -> bytes:
    """A record batch as it lies in a log: (time in ms, key, value, headers) each."""
    builder = DefaultRecordBatchBuilder(2, codec, 0, -1, -1, -1, 1 << 24)
    for n, (ms, key, value, headers) in enumerate(records):
        assert builder.append(n, ms, key, value, headers) is not None
    return base_offset.to_bytes(8) + bytes(builder.build())[8:]


def told(records: Any) -> list[Told]:
    """All that a reader asks of records."""
    return [(r.offset, r.timestamp, r.key, r.value, list(r.headers)) for r in records]


def own(data: bytes) -> Any:
    """The records of the first batch, as we read them."""
    return fetched._native_records(memoryview(data))


@pytest.mark.parametrize("codec", [NONE, GZIP, SNAPPY, LZ4, ZSTD])
@given(records=some_records, base_offset=st.integers(0, 1 << 40))
def test_they_are_what_the_client_library_reads(codec: int, records: list[Any], base_offset: int) -> None:
    """Offsets, times, keys, values and headers, none and empty told apart, under every compression."""
    data = batch(records, codec, base_offset)
    assert told(own(data)) == told(MemoryRecords(data).next_batch())


def test_a_time_that_the_broker_gave_is_that_of_all() -> None:
    """A topic with `LogAppendTime` has one time a batch, in its header."""
    data = bytearray(batch([(5, b"a", b"1", []), (9, b"b", b"2", [])]))
    data[22] |= BROKER_TIME
    assert told(own(bytes(data))) == told(MemoryRecords(bytes(data)).next_batch())
    assert [record.timestamp for record in own(bytes(data))] == [9, 9]


def test_a_batch_of_no_records_has_none() -> None:
    """Compaction leaves them behind."""
    assert native.enabled
    assert native.module.records(b"", 0, 7, 0, -1) == []


@given(some_records, st.data())
def test_what_is_damaged_is_left_to_the_client_library(records: list[Any], data: st.DataObject) -> None:
    """Cut anywhere, or one record more or fewer than there are: a doubt, never half of a batch."""
    assert native.enabled
    body, count = batch(records)[fetched._HEADER.size :], len(records)
    cut = data.draw(st.integers(0, len(body) - 1))
    assert native.module.records(body[:cut], count, 0, 0, -1) is None
    assert native.module.records(body, count + 1, 0, 0, -1) is None
    assert native.module.records(body, count - 1, 0, 0, -1) is None


@given(st.binary(max_size=400), st.integers(-5, 1 << 40))
def test_noise_is_no_record(noise: bytes, count: int) -> None:
    """Any bytes are read or doubted, and what is read can be asked for everything."""
    assert native.enabled
    for record in native.module.records(noise, count, 0, 0, -1) or ():
        told([record])


def test_names_of_headers_that_are_no_text_are_told_as_far_as_they_go() -> None:
    """A dead letter with such a header must not stop the worker that writes it."""
    body = bytes([2 * 9, 0, 0, 0, 1, 1, 2, 2, 0xFF, 1])
    assert native.enabled
    (record,) = native.module.records(body, 1, 0, 0, -1) or [None]
    assert told([record]) == [(0, 0, None, None, [("\ufffd", None)])]


def test_a_record_that_is_longer_than_what_is_in_it_is_doubted() -> None:
    """Its length says one byte more than key, value and headers take."""
    assert native.enabled
    assert native.module.records(bytes([2 * 6, 0, 0, 0, 1, 1, 0]), 1, 0, 0, -1) is not None
    assert native.module.records(bytes([2 * 7, 0, 0, 0, 1, 1, 0, 0]), 1, 0, 0, -1) is None


def test_an_older_format_is_read_by_the_client_library() -> None:
    """Its magic is not 2, wherever it came from."""
    data = bytearray(batch([(5, b"a", b"1", [])]))
    data[16] = 1
    assert own(bytes(data)) is None


@pytest.mark.parametrize("made", [lambda ms: LogEntry(0, ms, b"", b""), lambda ms: own(batch([(ms, b"", b"", [])]))[0]])
def test_the_newest_within_a_limit(made: Any) -> None:
    """Times beyond it do not count; where there is none within it is 0."""
    entries = [made(ms) for ms in (3, 9, 7)]
    assert [newest(entries, limit) for limit in (2, 3, 8, 9, 100)] == [0, 3, 7, 9, 9]
    assert newest([], 100) == 0


def test_peeking_at_the_next_batch() -> None:
    """The newest time in it, before it is read; 0 when all are read."""
    data = batch([(5, b"a", b"1", []), (3, b"b", b"2", [])]) + batch([(4, b"c", b"3", [])], LZ4)
    wholes = fetched.Wholes(fetched.Fetched(data))
    seen = []
    while wholes.has_next():
        seen.append(wholes.newest_ms())
        wholes.next_batch()
    assert seen == [5, 4]
    assert wholes.newest_ms() == 0
