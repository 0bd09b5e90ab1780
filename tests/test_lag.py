"""Lag: the rules as a table, and what is read from a real broker, beside Kafka's own tool."""

import asyncio
import subprocess
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete
from aiokafka.structs import TopicPartition

from schemas.events import TOPICS
from streams import broker, kafka, lag
from streams.lag import Known, LagReader, Report
from streams.lag_rules import Behind, Track, bounds, due, judge, overall, span
from streams.settings import Settings, load
from streams.store import Store
from streams.tables import Checkpoint
from tests import pipeline

NOW_MS = 1_795_000_000_000
BOUND = bounds(5_000)


@pytest.mark.parametrize(
    ("behind", "status", "why"),
    [
        (Behind(0, 0.0, None, "", None), "stopped", "no worker has this partition"),
        (Behind(7, 80.0, None, "", None), "stopped", "no worker has this partition; 7 events (80 s) behind"),
        (Behind(0, 0.0, None, "w1", None), "ok", "nothing waits to be read"),
        (Behind(0, 0.0, 3.0, "w1", 900.0, "the store is away"), "ok", "nothing waits to be read"),
        (Behind(4_000, 14.0, 900.0, "w1", 12.0), "ok", "4,000 events (14 s) behind"),
        (
            Behind(1, 2_400.0, 0.0, "w1", 3.0, there_s=9.0),
            "ok",
            "1 event (40 min) behind by their stamps, and there for less than 9.0 s",
        ),
        (
            Behind(9, 2_400.0, 0.0, "w1", 3.0, there_s=16.0),
            "falling_behind",
            "9 events (40 min) behind, 0 more each second",
        ),
        (Behind(9, 16.0, -1.0, "w1", 3.0, "the store is away"), "stalled", "9 events (16 s) behind, the store is away"),
        (
            Behind(9, 90.0, 0.1, "w1", 61.0),
            "stalled",
            "9 events (90 s) behind, and nothing was committed for 61 s",
        ),
        (
            Behind(9, 90.0, None, "w1", None),
            "catching_up",
            "9 events (90 s) behind; too early to say whether it gets less",
        ),
        (
            Behind(1_200, 300.0, -40.0, "w1", 4.0),
            "catching_up",
            "1,200 events (5 min) behind, 40 fewer each second: done in about 30 s",
        ),
        (Behind(1_200, 300.0, 0.0, "w1", 4.0), "falling_behind", "1,200 events (5 min) behind, 0 more each second"),
        (Behind(1_200, None, 12.0, "w1", 4.0), "falling_behind", "1,200 events behind, 12 more each second"),
    ],
)
def test_the_status_of_a_partition(behind: Behind, status: str, why: str) -> None:
    """The first rule that applies decides, and says why in words."""
    assert judge(behind, BOUND) == (status, why)


def test_bounds_follow_the_checkpoints() -> None:
    """A checkpoint's worth of lag is no lag, however seldom there are checkpoints."""
    assert bounds(500) == (10.0, 60.0, 4.0, 60.0)
    assert bounds(60_000) == (180.0, 240.0, 60.0, 240.0)


def test_the_worst_partition_speaks_for_all() -> None:
    """Overall the worst status is told, with its first reason and how many more are as bad."""
    fine = ("mdr.sends partition 0", "ok", "nothing waits to be read")
    assert overall([fine, fine]) == ("ok", "every agent keeps up")
    bad = [("mdr.sends partition 1", "stalled", "because"), ("b", "catching_up", "x"), ("c", "stalled", "y")]
    assert overall([fine, *bad]) == ("stalled", "mdr.sends partition 1: because (and 1 more partitions)")
    assert overall([]) == ("stopped", "nothing is known of any partition")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (119, "119 s"), (121, "2 min"), (7_500, "2 h 5 min"), (200_000, "2 days")],
)
def test_a_length_of_time_for_people(seconds: float, text: str) -> None:
    """Seconds, then minutes, hours and days, each as fine as it is useful."""
    assert span(seconds) == text


def test_open_messages_by_time_to_settle() -> None:
    """Deadlines are measured from the watermark they run on; what is overdue counts as due within a minute."""
    deadlines = {NOW_MS - 5: 1, NOW_MS + 59_999: 2, NOW_MS + 60_000: 4, NOW_MS + 600_000: 8, NOW_MS + 3_600_000: 16}
    assert due(deadlines, NOW_MS) == {"1m": 3, "10m": 4, "1h": 8, "later": 16}


def test_a_trend_needs_time_and_forgets() -> None:
    """It is told over at least one checkpoint, from what was seen in the last minute."""
    track = Track(BOUND)
    assert (track.trend_per_s(), track.still_s(NOW_MS)) == (None, None)
    track.see(NOW_MS, 1_000, 10)
    track.see(NOW_MS + 4_000, 900, 20)
    assert track.trend_per_s() is None
    track.see(NOW_MS + 10_000, 500, 30)
    assert track.trend_per_s() == -50.0
    track.see(NOW_MS + 69_000, 1_090, 30)
    assert track.trend_per_s() == pytest.approx(10.0)


def test_an_offset_stands_only_while_something_waits() -> None:
    """An idle partition does not stall, and one that moves begins anew."""
    track = Track(BOUND)
    for at_s, events, committed in ((0, 0, 10), (50, 0, 10), (100, 5, 10), (170, 9, 10)):
        track.see(NOW_MS + at_s * 1000, events, committed)
    assert track.still_s(NOW_MS + 170_000) == 120.0  # since it was last seen with nothing to read
    track.see(NOW_MS + 180_000, 3, 16)
    assert track.still_s(NOW_MS + 185_000) == 5.0


def test_what_is_read_as_it_comes_was_there_since_the_last_look() -> None:
    """However old its stamps are, what waits came after the newest look whose end has been committed."""
    track = Track(BOUND)
    assert track.there_s() is None
    track.see(NOW_MS, 4, 10)
    assert track.there_s() is None  # it may have been there for long
    track.see(NOW_MS + 10_000, 5, 14)
    assert track.there_s() == 10.0
    track.see(NOW_MS + 20_000, 6, 18)
    assert track.there_s() == 20.0
    track.see(NOW_MS + 30_000, 1, 24)
    assert track.there_s() == 10.0
    track.see(NOW_MS + 40_000, 1, None)
    assert track.there_s() is None


# ---- from a real broker --------------------------------------------------------------------------------------


def _settings(kafka_at: str, home: Path, prefix: str) -> Settings:
    return pipeline.make_settings(kafka_at, home, prefix)


async def _produce(settings: Settings, counts: dict[tuple[str, int], int], first_ms: int) -> None:
    await kafka.create_topics(settings)
    async with kafka.producing(settings) as client:
        for (topic, partition), count in counts.items():
            for n in range(count):
                at_ms = first_ms + n * 1_000
                await client.send(settings.topic_prefix + topic, b"{}", partition=partition, timestamp_ms=at_ms)
        await client.flush()


async def _commit(settings: Settings, offsets: dict[tuple[str, int], int]) -> None:
    consumer = AIOKafkaConsumer(**kafka.client_options(settings), group_id=settings.group, enable_auto_commit=False)
    await consumer.start()
    named = {TopicPartition(settings.topic_prefix + t, p): at for (t, p), at in offsets.items()}
    consumer.assign(list(named))
    await consumer.commit(named)
    await consumer.stop()


async def _read(settings: Settings, now_ms: int = NOW_MS, known: Known | None = None) -> Report:
    reader = LagReader(settings)
    try:
        return await reader.read(known or Known(), now_ms)
    finally:
        await reader.close()


def _kafka_tells(settings: Settings) -> dict[tuple[str, int], tuple[int, int, int]]:
    """Committed, end and lag by topic and partition, as Kafka's own tool prints them."""
    classes = ":".join(map(str, broker.jars(load().cache_dir)))
    tool = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
    command = [str(broker.java()), "-XX:TieredStopAtLevel=1", "-cp", classes, tool]
    command += ["--bootstrap-server", settings.kafka, "--describe", "--group", settings.group]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    rows = [line.split() for line in run.stdout.splitlines() if line.startswith(settings.group)]
    return {(row[1], int(row[2])): (int(row[3]), int(row[4]), int(row[5])) for row in rows}


def test_lag_of_a_stopped_worker_is_what_kafkas_own_tool_says(kafka_at: str, tmp_path: Path) -> None:
    """Events behind agree with `kafka-consumer-groups`; seconds are the age of the first unread event."""
    settings = _settings(kafka_at, tmp_path, "stopped.")

    async def prepare() -> Report:
        await _produce(settings, {("sends", 0): 20, ("sends", 1): 5, ("receipts", 2): 7}, NOW_MS - 100_000)
        committed = {(topic, p): 0 for topic in TOPICS for p in range(3)}
        await _commit(settings, committed | {("sends", 0): 8, ("sends", 1): 5})
        return await _read(settings)

    report = asyncio.run(prepare())
    ours = {(a.topic, a.partition): (a.committed, a.end, a.lag_events) for a in report.agents}
    assert ours == _kafka_tells(settings)
    seconds = {(a.agent, a.partition): a.lag_seconds for a in report.agents}
    assert seconds["sends", 0] == 92.0 and seconds["sends", 1] == 0.0 and seconds["receipts", 2] == 100.0
    assert {a.status for a in report.agents} == {"stopped"} and report.status == "stopped"
    assert lag.exceeds([{"lag_seconds": s} for s in seconds.values()], 99.9)
    assert not lag.exceeds([{"lag_seconds": s} for s in seconds.values()], 100.0)


def test_nothing_committed_yet_is_behind_by_all_there_is(kafka_at: str, tmp_path: Path) -> None:
    """A group that never was is behind from the beginning of the log, and stopped."""
    settings = _settings(kafka_at, tmp_path, "never.")

    async def go() -> Report:
        await _produce(settings, {("receives", 1): 3}, NOW_MS - 5_000)
        return await _read(settings, known=Known({("receives", 1): NOW_MS - 1}, trouble=("odd",)))

    report = asyncio.run(go())
    (told,) = [a for a in report.agents if a.lag_events]
    assert (told.agent, told.partition, told.committed, told.lag_events, told.lag_seconds) == (
        "receives",
        1,
        None,
        3,
        5.0,
    )
    assert told.watermark == "2026-11-18T11:06:39.999Z" and report.trouble == ["odd"]


def test_retention_that_overtook_the_offset_is_told(kafka_at: str, tmp_path: Path) -> None:
    """What the broker deleted before it was read is counted and named, and is not lag: nobody can read it any more."""
    settings = _settings(kafka_at, tmp_path, "overtaken.")

    async def go() -> Report:
        await _produce(settings, {("sends", 0): 10}, NOW_MS - 10_000)
        await _commit(settings, {("sends", 0): 2})
        admin = AIOKafkaAdminClient(**kafka.client_options(settings))
        await admin.start()
        await admin.delete_records(
            {TopicPartition(settings.topic_prefix + "sends", 0): RecordsToDelete(before_offset=7)}
        )
        await admin.close()
        return await _read(settings)

    report = asyncio.run(go())
    (told,) = [a for a in report.agents if a.lag_events]
    assert (told.lost_events, told.lag_events, told.lag_seconds) == (5, 3, 3.0)
    assert report.trouble == ["overtaken.sends partition 0: the broker deleted 5 entries that were never read"]


def test_the_owner_is_the_member_of_the_group(kafka_at: str, tmp_path: Path) -> None:
    """Each partition names the client that has it, and where it runs."""
    settings = _settings(kafka_at, tmp_path, "owned.")

    async def go() -> Report:
        await _produce(settings, {("sends", 0): 2}, NOW_MS - 1_000)
        names = [settings.topic_prefix + topic for topic in TOPICS]
        options = kafka.client_options(settings) | {"client_id": "somebody"}
        consumer = AIOKafkaConsumer(*names, **options, group_id=settings.group, enable_auto_commit=False)
        await consumer.start()
        while not consumer.assignment():
            await consumer.getmany(timeout_ms=100)
        try:
            return await _read(settings)
        finally:
            await consumer.stop()

    report = asyncio.run(go())
    assert {a.owner for a in report.agents} == {"somebody at 127.0.0.1"}
    assert report.status == "ok"


def test_a_broker_that_is_away_is_one_sentence(tmp_path: Path) -> None:
    """Nobody there is told by name, and soon."""
    with pytest.raises(kafka.KafkaUnavailable, match=r"the Kafka broker at 127\.0\.0\.1:1 is away"):
        asyncio.run(_read(_settings("127.0.0.1:1", tmp_path, "away.")))


# ---- from the store --------------------------------------------------------------------------------------------


def _checkpoint(shard: int, through: int) -> Checkpoint:
    filled = dict.fromkeys(Checkpoint._fields, 0) | {
        "shard": shard, "partitions": 2, "sends_mark": NOW_MS - 3, "receives_mark": NOW_MS - 2,
        "receipts_mark": NOW_MS - 1, "settled_through": through, "updated_at": NOW_MS - 4_000,
    }  # fmt: skip
    return Checkpoint(**filled)


def test_the_store_tells_what_a_dead_worker_left(tmp_path: Path) -> None:
    """Watermarks, the age of the checkpoint and what still settles come from the last checkpoint, per partition."""
    store = Store(f"chdb://{tmp_path / 'chdb'}")
    store.migrate(90, 30)
    store.write_checkpoints([_checkpoint(1, NOW_MS - 9_000)])
    assert lag.stored(store, NOW_MS).settled_through == 0
    store.write_checkpoints([_checkpoint(0, NOW_MS - 7_000)])
    store.client.command(
        "INSERT INTO mdr.open_messages (shard, message_id, part, occurred_at, deadline, version, is_deleted) SELECT"
        " 1, toString(number), '', fromUnixTimestamp64Milli(toInt64({now:Int64} - 1000 * number)),"
        " fromUnixTimestamp64Milli(toInt64({now:Int64} + 50000 * number)), 1, 0 FROM numbers(20)",
        parameters={"now": NOW_MS},
    )
    known = lag.stored(store, NOW_MS)
    store.close()
    assert known.settled_through == NOW_MS - 9_000
    assert known.marks["receives", 0] == NOW_MS - 2 and known.marks["receipts", 1] == NOW_MS - 1
    empty, full = known.settling
    assert (empty.open, empty.oldest_open, full.open, full.oldest_open) == (0, None, 20, "2026-11-18T11:06:21.000Z")
    assert full.due == {"1m": 2, "10m": 10, "1h": 8, "later": 0} and full.checkpoint_age_seconds == 4.0
