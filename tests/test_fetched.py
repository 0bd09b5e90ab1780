"""What a consumer has fetched: batches handed out once each, what was taken back left out, whatever they hold."""

from typing import Any

import pytest
from aiokafka.consumer.fetcher import READ_COMMITTED, READ_UNCOMMITTED
from aiokafka.structs import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from schemas.batches import newest
from streams import fetched, record_batches
from streams.clock import clock_ms
from streams.record_batches import read
from tests.entries import LogEntry
from tests.hostile import raw
from tests.test_record_batches import CONTROL, LZ4, honest, placed, some

pytestmark = pytest.mark.usefixtures("way")
TRANSACTIONAL = 0x10


def batch(records: list[Any], codec: int = 0, base_offset: int = 0) -> bytes:
    """A record batch as it lies in a log: (time in ms, key, value, headers) each."""
    return honest(records, codec, base_offset)


def own(data: bytes) -> Any:
    """The records of the first batch, as we read them."""
    return read(data)[0]


def unread(data: bytes, start: int = 0, aborted: Any = None, isolation: int = READ_COMMITTED) -> fetched.Unread:
    """What was fetched of a partition."""
    return fetched.Unread(TopicPartition("t", 0), fetched.Fetched(data), aborted, start, None, None, True, isolation)


def offsets(log: fetched.Unread) -> list[int]:
    """All that are handed out."""
    found = []
    while (chunk := log.take()) is not None:
        found += [entry.offset for entry in chunk.entries]
        assert log.next_fetch_offset > found[-1]
    return found


@pytest.mark.parametrize("made", [lambda ms: LogEntry(0, ms, b"", b""), lambda ms: own(batch([(ms, b"", b"", [])]))[0]])
def test_the_newest_within_a_limit(made: Any) -> None:
    """Times beyond it do not count; where there is none within it is 0."""
    entries = [made(ms) for ms in (3, 9, 7)]
    assert [newest(entries, limit) for limit in (2, 3, 8, 9, 100)] == [0, 3, 7, 9, 9]
    assert newest([], 100) == 0


def test_peeking_at_the_next_batch() -> None:
    """The newest time in it, before it is read; 0 when all are read, or the time is far ahead."""
    data = batch([(5, b"a", b"1", []), (3, b"b", b"2", [])]) + batch([(4, b"c", b"3", [])], LZ4, 2)
    log = unread(data + placed(raw.batch(some(1), 1 << 62), 3) + placed(raw.batch(some(1), clock_ms()), 4))
    seen: list[int] = []
    while log.newest_ms() or not seen or len(seen) < 4:
        seen.append(log.newest_ms())
        log.take()
    assert seen[:3] == [5, 4, 0] and seen[3] > 1 << 40
    assert log.take() is None and log.newest_ms() == 0


def test_reading_begins_within_a_batch() -> None:
    """What lies before is left out, whichever chunk it is in; a part that reaches beyond it is not."""
    whole = placed(raw.batch(some(2_500), 5), 100)
    assert offsets(unread(whole, 1_700)) == list(range(1_700, 2_600))
    damaged = bytearray(whole)
    damaged[-1] ^= 1
    assert offsets(unread(bytes(damaged), 1_700)) == [100]


def test_what_was_taken_back_and_markers_are_left_out() -> None:
    """An aborted transaction up to its marker, and no other producer's; uncommitted reading shows both."""

    def produced(data: bytes, offset: int, producer: int) -> bytes:
        return bytes(record_batches.stamped(bytearray(placed(data, offset)), producer, 0, 0))

    one = raw.batch(some(2), 5, attributes=TRANSACTIONAL)
    abort, commit = (
        raw.batch([raw.record(b"\0\0\0" + kind, b"\0" * 6)], 5, attributes=TRANSACTIONAL | CONTROL)
        for kind in (b"\0", b"\1")
    )
    log = (
        produced(one, 0, 7) + produced(one, 2, 8) + produced(abort, 4, 7) + produced(commit, 5, 8) + produced(one, 6, 7)
    )
    assert offsets(unread(log, aborted=[(7, 0)])) == [2, 3, 6, 7]
    assert offsets(unread(log, aborted=[(7, 0)], isolation=READ_UNCOMMITTED)) == [0, 1, 2, 3, 6, 7]
    last = unread(produced(abort, 4, 7), 4)
    assert (offsets(last), last.next_fetch_offset) == ([], 5)


@pytest.mark.parametrize("records", [[], [raw.record(None, None)], [raw.record(b"\0", b"")], [b"\xff" * 20]])
def test_a_marker_that_says_nothing_is_no_abort(records: list[bytes]) -> None:
    """It is passed over like any other."""
    log = unread(raw.batch(records, 5, attributes=CONTROL | TRANSACTIONAL))
    assert (offsets(log), log.next_fetch_offset) == ([], 1)


def test_what_is_not_there_as_a_whole_is_fetched_again() -> None:
    """The end of a fetch is cut anywhere, and says nothing."""
    whole = batch([(5, b"a", b"1", [])])
    for cut in range(len(whole)):
        log = fetched.Fetched(whole + whole[:cut])
        assert log.has_next() and log.next_batch() is not None
        assert (log.has_next(), log.size_in_bytes(), log.next_batch()) == (False, 0, None)


@given(st.lists(st.binary(max_size=80), max_size=4), st.integers(0, 1 << 40))
def test_any_bytes_are_passed_over(log: list[bytes], start: int) -> None:
    """Nothing is raised, and reading never goes back or stands still."""
    data = b"".join(log)
    one = unread(data, start)
    while (chunk := one.take()) is not None:
        assert chunk.entries
    assert one.next_fetch_offset >= start + bool(data and fetched.Fetched(data).has_next())
    for entry in unread(data, start):
        assert entry.topic == "t"
