"""The batch transport: the private names it leans on, and that it loses nothing of what Faust fetches."""

import asyncio
import gc
import json
import weakref
from functools import partial
from itertools import accumulate
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import faust.streams
import pytest
from aiokafka.consumer.fetcher import READ_COMMITTED
from aiokafka.structs import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from streams import demo, kafka, transport
from streams.fetched import NEVER_MS, SHARE_RECORDS_MAX, Fetched, Result, Unread
from streams.settings import Settings
from tests import pipeline
from tests.test_fetched import batch


def test_every_private_name_is_what_it_was() -> None:
    """Faust, mode and aiokafka are the pinned versions, and each name takes what the transport gives it."""
    transport.check_private_names()


def test_faust_is_compiled() -> None:
    """Its pure Python streams acknowledge stale messages; the compiled ones skip them."""
    assert faust.streams._CStreamIterator is not None


class _Moved:
    def kept(self, a: int, b: int) -> None:
        """As it was."""

    def changed(self, a: int) -> None:
        """Takes less than it did."""


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("gone", "gone is gone, and the batch transport"), ("changed", r"changed takes \(self, a\) now")],
)
def test_a_name_that_moved_is_told(name: str, sentence: str) -> None:
    """The start is refused with the name that is gone or takes something else."""
    with pytest.raises(transport.TransportMoved, match=sentence):
        transport.check_name(_Moved, name, "(self, a, b)")


def test_another_version_is_refused(monkeypatch: Any) -> None:
    """A version the transport was not made for is named with the one it was made for."""
    monkeypatch.setattr(transport, "version", lambda package: "9.9.9")
    with pytest.raises(transport.TransportMoved, match=r"is 9\.9\.9, but the batch transport was made for"):
        transport.check_private_names()


class _EndingThread:
    def commit_fenced(self) -> None:
        """Never called."""

    async def call_thread(self, *_: Any) -> None:
        """Gives up what it was asked, as it does when it ends."""
        raise asyncio.CancelledError


def test_a_commit_that_the_ending_consumer_gives_up_is_refused() -> None:
    """As a cancellation of its caller it would stop a rebalance half-way, and the process would never end."""
    consumer = transport._Consumer.__new__(transport._Consumer)
    consumer._thread = _EndingThread()
    assert asyncio.run(consumer.commit_fenced({}, 1)) is False


def test_a_commit_whose_caller_is_cancelled_is_cancelled() -> None:
    """A checkpoint that takes too long is torn, not refused."""

    class Slow(_EndingThread):
        async def call_thread(self, *_: Any) -> None:
            await asyncio.Event().wait()

    async def bounded() -> None:
        consumer = transport._Consumer.__new__(transport._Consumer)
        consumer._thread = Slow()
        await asyncio.wait_for(consumer.commit_fenced({}, 1), 0.01)

    with pytest.raises(TimeoutError):
        asyncio.run(bounded())


class _Position:
    """Where a partition is read, as aiokafka keeps it."""

    active, paused = True, False

    def __init__(self, position: int) -> None:
        self.position = position
        self.consumed_to = partial(setattr, self, "position")

    def state_value(self, tp: TopicPartition) -> "_Position":
        """Of the only one there is."""
        return self


def _batch(offsets: range, ms: int = 1_000) -> bytes:
    """A record batch as it lies in a log."""
    return batch([(ms, b"k", b"v", [])] * len(offsets), base_offset=offsets.start)


def _fetch(log: bytes, start: int) -> tuple[Result, _Position]:
    tp, position = TopicPartition("t", 0), _Position(start)
    unread = Unread(tp, Fetched(log), None, start, None, None, True, READ_COMMITTED)
    return Result(tp, assignment=position, partition_records=unread, backoff=0), position


def _shared(result: Result, limits: dict[Any, int]) -> list[int]:
    """The offsets of the next share."""
    transport._hand_out_in_shares(SimpleNamespace(_records={TopicPartition("t", 0): result}), limits)
    return [record.offset for record in result.getall(None)]


@given(st.lists(st.integers(1, 700), min_size=1, max_size=6), st.data())
def test_shares_hand_out_every_record_once(sizes: list[int], data: st.DataObject) -> None:
    """Record batches whole until a share is full, none from before where reading begins; the position follows."""
    ends = list(accumulate(sizes))
    start = data.draw(st.integers(0, sizes[0] - 1))
    log = b"".join(_batch(range(end - size, end)) for end, size in zip(ends, sizes, strict=True))
    result, position = _fetch(log, start)
    read: list[int] = []
    while result.has_more():
        share = _shared(result, {})
        assert len(share) < SHARE_RECORDS_MAX + max(sizes)
        read += share
        assert position.position == start + len(read)
    assert read == list(range(start, ends[-1]))


def test_what_was_handed_out_is_freed_without_the_collector() -> None:
    """Hundreds of results a second are no garbage that only a look at all objects would find."""
    tp, fetcher = TopicPartition("t", 0), SimpleNamespace(_records={})
    fetcher._records[tp], _ = _fetch(_batch(range(3)), 0)
    transport._hand_out_in_shares(fetcher, {})
    assert len(fetcher._records[tp].getall(None)) == 3
    there = weakref.ref(fetcher._records[tp])
    gc.disable()
    try:
        del fetcher._records[tp]  # as aiokafka does
        assert there() is None
    finally:
        gc.enable()


def test_a_share_ends_at_a_time_in_the_log() -> None:
    """Record batches that reach beyond it stay where they are until they may be read."""
    tp = TopicPartition("t", 0)
    result, position = _fetch(_batch(range(3), 1_000) + _batch(range(3, 5), 2_000) + _batch(range(5, 9), 3_000), 0)
    assert _shared(result, {tp: 999}) == []
    assert _shared(result, {tp: 2_999}) == [0, 1, 2, 3, 4]
    assert position.position == 5
    assert _shared(result, {tp: 2_999}) == []
    assert _shared(result, {tp: NEVER_MS}) == [5, 6, 7, 8]
    assert not result.has_more()


SENDS, RECEIPTS, RECEIVES = (TopicPartition(topic, 0) for topic in ("sends", "receipts", "receives"))


def _limits(
    newest: dict[Any, int], nexts: dict[Any, int] | None = None, worked: dict[Any, int] | None = None,
    ends: dict[Any, tuple[int, int]] | None = None,
) -> dict[Any, int]:  # fmt: skip
    """What may be read when partitions stand at offset 5; `ends` are highwater and last stable offset, else 9."""
    states = {tp: SimpleNamespace(position=5, has_valid_position=True) for tp in newest}
    for tp, state in states.items():
        state.highwater, state.lso = (ends or {}).get(tp, (9, 9))
    assignment = SimpleNamespace(tps=list(newest), state_value=states.__getitem__)
    consumer = SimpleNamespace(_subscription=SimpleNamespace(subscription=SimpleNamespace(assignment=assignment)))
    thread = transport._Thread.__new__(transport._Thread)
    thread.newest_ms, thread.worked_ms, thread.leaders = newest, worked or {}, {"receipts": "sends"}
    return thread._limits(consumer, set(newest), nexts or {})


def test_none_runs_far_ahead_of_the_slowest() -> None:
    """In a backlog what is over ten seconds of log ahead waits; at its end nobody waits for it."""
    assert set(_limits({SENDS: 50_000, RECEIVES: 39_999})) == {RECEIVES}
    assert set(_limits({SENDS: 50_000, RECEIVES: 40_000})) == {SENDS, RECEIVES}
    assert set(_limits({SENDS: 50_000, RECEIVES: 0}, ends={RECEIVES: (5, 5)})) == {SENDS, RECEIVES}


def test_an_open_transaction_holds_up_its_own_partition_only() -> None:
    """What lies beyond the last stable offset cannot be read yet: the others do not wait for it."""
    assert set(_limits({SENDS: 50_000, RECEIVES: 0}, ends={RECEIVES: (9, 5)})) == {SENDS, RECEIVES}


def test_a_follower_is_read_up_to_where_its_leader_was_worked_off() -> None:
    """Receipts behind their sends; when all sends are read, to their end."""
    limits = _limits({SENDS: 50_000, RECEIPTS: 45_000}, {RECEIPTS: 47_000}, {SENDS: 48_000})
    assert limits == {SENDS: NEVER_MS, RECEIPTS: 48_000}
    assert _limits({SENDS: 50_000, RECEIPTS: 45_000}, ends={SENDS: (5, 5)})[RECEIPTS] == NEVER_MS


def test_a_follower_that_waits_for_its_leader_holds_nobody_back() -> None:
    """Its next batch reaches beyond what was worked off, so its leader may go on, however far that is ahead of it."""
    assert set(_limits({SENDS: 50_000, RECEIPTS: 30_000}, {RECEIPTS: 51_000}, {SENDS: 50_000})) == {SENDS}
    assert set(_limits({SENDS: 50_000, RECEIPTS: 30_000}, {RECEIPTS: 49_000}, {SENDS: 50_000})) == {RECEIPTS}


positions = st.fixed_dictionaries(
    {TopicPartition(t, n): st.integers(0, 60_000) for t in ("sends", "receipts", "x") for n in (0, 1)}
)


@given(positions, positions, positions)
def test_something_can_always_be_read(newest: dict[Any, int], nexts: dict[Any, int], worked: dict[Any, int]) -> None:
    """Wherever partitions stand, one of those that may be read is not waiting for anyone."""
    limits = _limits(newest, nexts, {tp: min(ms, newest[tp]) for tp, ms in worked.items()})
    assert any(nexts[tp] <= limit for tp, limit in limits.items())


def _value(message_id: str) -> bytes:
    event = {"event_id": message_id, "message_id": message_id, "occurred_at": "2026-01-31T09:15:04Z", "account_id": "a"}
    return json.dumps(event | {"from": "+14155550100", "to": "+12125550101"}).encode()


async def _run_swallowing(settings: Settings) -> tuple[int, int]:
    """Records after a worker whose first fetch Faust dropped, and how many fetches were dropped."""
    await kafka.create_topics(settings)
    await _receive(settings, range(2_000))
    async with pipeline.working(settings) as worker:
        handed = worker.app.consumer._getmany
        dropped: list[Any] = []

        async def drop(**asked: Any) -> Any:
            batches = await handed(**asked)
            if batches and not dropped:
                dropped.append(batches)
                return {}
            return batches

        worker.app.consumer._getmany = drop
        await worker.start()
        await pipeline.until(lambda: bool(dropped), worker)
        await _receive(settings, range(2_000, 2_300))
        await pipeline.settle_all(worker, 2_300)
        told = await asyncio.to_thread(demo.read_all, worker.store)
    return len(told["records"]), len(dropped)


async def _receive(settings: Settings, messages: range) -> None:
    async with kafka.producing(settings) as client:
        for n in messages:
            await client.send(settings.topic_prefix + "receives", _value(f"m{n}"), f"m{n}".encode())
        await client.flush()


def test_what_faust_drops_is_read_again(kafka_at: str, tmp_path: Path) -> None:
    """Nothing was committed yet, and the first batches of every partition are fetched and never handed over."""
    settings = pipeline.make_settings(kafka_at, tmp_path, "swallow.")
    assert asyncio.run(_run_swallowing(settings)) == (2_300, 1)


async def _run_followed(settings: Settings) -> tuple[set[int], set[int]]:
    """Up to which times sends were told to be worked off, and the times they have."""
    await kafka.create_topics(settings)
    topic = settings.topic_prefix + "sends"
    async with kafka.producing(settings) as client:
        for n in range(300):
            await client.send(topic, _value(f"m{n}"), f"m{n}".encode(), timestamp_ms=1_700_000_000_000 + n)
        await client.flush()
    async with pipeline.working(settings) as worker:
        await worker.start()
        await pipeline.until(
            lambda: sum(at for (t, _), at in worker.barrier.done.items() if t == "sends") == 300, worker
        )
        worked = worker.app.consumer._thread.worked_ms
        told = {ms for tp, ms in worked.items() if tp.topic == topic}
        return told, {p._read_ms["sends"] for p in worker.flow.partitions.values() if p._read_ms["sends"]}


def test_followers_are_told_how_far_sends_were_worked_off(kafka_at: str, tmp_path: Path) -> None:
    """By the newest time in each partition of them."""
    told, newest = asyncio.run(_run_followed(pipeline.make_settings(kafka_at, tmp_path, "followed.")))
    assert told == newest != set()


async def _run_transactions(settings: Settings) -> tuple[int, bool]:
    await kafka.create_topics(settings)
    topic = settings.topic_prefix + "receives"
    client = kafka.producer(settings, transactional_id="t")
    await client.start()
    for commits, message_id in ((True, "kept"), (False, "aborted")):
        await client.begin_transaction()
        await client.send(topic, _value(message_id), message_id.encode(), partition=0)
        await (client.commit_transaction() if commits else client.abort_transaction())
    await client.stop()
    async with pipeline.working(settings) as worker:
        await worker.start()
        # The kept entry, its marker, the aborted one and its marker.
        await pipeline.until(lambda: worker.barrier.done.get(("receives", 0)) == 4, worker)
        await pipeline.settle_all(worker, 1)
        told = await asyncio.to_thread(demo.read_all, worker.store)
    return len(told["records"]), not worker.telemetry.tally.lost


def test_what_a_log_holds_unseen_is_passed_over(kafka_at: str, tmp_path: Path) -> None:
    """Markers and aborted entries at its end: the partition is read to its end, and nothing counts as missing."""
    assert asyncio.run(_run_transactions(pipeline.make_settings(kafka_at, tmp_path, "unseen."))) == (1, True)
