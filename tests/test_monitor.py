"""What the watching process says when events were lost, and when broker or store are away."""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete
from aiokafka.structs import TopicPartition

from schemas import native
from streams import kafka
from streams.agents import Worker
from streams.clock import clock_ms
from streams.monitor import Monitor
from streams.settings import Settings
from streams.store import Store
from tests import pipeline


async def _overtaken(settings: Settings) -> None:
    """Ten entries, two of them committed as read, seven deleted by the broker."""
    await kafka.create_topics(settings)
    tp = TopicPartition(settings.topic_prefix + "sends", 0)
    async with kafka.producing(settings) as client:
        for _ in range(10):
            await client.send(tp.topic, b"{}", partition=0)
        await client.flush()
    consumer = AIOKafkaConsumer(**kafka.client_options(settings), group_id=settings.group, enable_auto_commit=False)
    await consumer.start()
    consumer.assign([tp])
    await consumer.commit({tp: 2})
    await consumer.stop()
    admin = AIOKafkaAdminClient(**kafka.client_options(settings))
    await admin.start()
    await admin.delete_records({tp: RecordsToDelete(before_offset=7)})
    await admin.close()


async def _run_overtaken(settings: Settings) -> tuple[dict[str, Any], dict[str, Any], str]:
    await _overtaken(settings)
    worker = Worker(settings, await kafka.check_topics(settings))
    await worker.start()
    watch = Monitor(settings, worker, clock_ms)
    await watch.start()
    try:
        await pipeline.until(lambda: sum(p.counts.events for p in worker.flow.partitions.values()) == 3, worker)
        await worker.barrier.write(checkpoint=True)
        await pipeline.until(lambda: bool(watch._report and not watch._reading.locked()), worker)
        watch._told_ms = 0  # so that it looks again now
        return watch.health(), await watch.lag(), watch.metrics().decode()
    finally:
        await watch.stop()
        await worker.stop()


def test_events_that_were_deleted_unread_are_an_alarm(kafka_at: str, tmp_path: Path) -> None:
    """The worker goes on from what there still is; what is gone is counted and told for as long as it lives."""
    settings = pipeline.make_settings(kafka_at, tmp_path, "alarm.")
    health, lag, metrics = asyncio.run(_run_overtaken(settings))
    # The group committed two of them, but this store holds none.
    told = "7 entries of alarm.sends were deleted before they were read"
    assert health["ready"] and health["alarms"] == [told, *([native.missing] if native.missing else [])]
    assert told in lag["trouble"]
    assert 'mdr_lost_events_total{topic="alarm.sends"} 7.0\n' in metrics
    assert 'mdr_dead_letters_total{reason="missing_field"} 3.0\n' in metrics


def test_without_a_broker_what_waited_goes_on_waiting(kafka_at: str, tmp_path: Path) -> None:
    """The lag does not freeze at its last value: seconds go on, the status is stalled, and the reason is told."""
    settings = pipeline.make_settings(kafka_at, tmp_path, "blind.")
    passed_ms = 0

    async def go() -> tuple[dict[str, Any], dict[str, Any], str]:
        nonlocal passed_ms
        await kafka.create_topics(settings)
        async with kafka.producing(settings) as client:
            await client.send_and_wait("blind.sends", b"{}", partition=0)
        with contextlib.closing(Store(settings.clickhouse_url)) as store:
            store.migrate(90, 30)
        watch = Monitor(settings, None, lambda: clock_ms() + passed_ms)
        await watch.start()
        try:
            before = await watch.lag()
            assert watch._reader is not None
            await watch._reader.close()
            watch._reader._settings = pipeline.make_settings("127.0.0.1:1", tmp_path, "blind.")
            passed_ms = 60_000
            return before, await watch.lag(), watch.metrics().decode()
        finally:
            await watch.stop()

    before, after, metrics = asyncio.run(go())
    assert before["status"] == "stopped" and before["trouble"] == []
    first, later = (max(a["lag_seconds"] for a in told["agents"]) for told in (before, after))
    assert 59 < later - first < 75
    assert after["status"] == "stalled" and "127.0.0.1:1 is away" in after["why"]
    assert "mdr_broker_trouble 1.0\n" in metrics


def test_without_a_store_the_lag_is_told_all_the_same(kafka_at: str, tmp_path: Path) -> None:
    """The lag is the broker's to tell; what the store would have said is missing, and that is said."""
    url = {"MDR_CLICKHOUSE_URL": "http://127.0.0.1:1"}
    settings = pipeline.make_settings(kafka_at, tmp_path, "storeless.", **url)

    async def go() -> tuple[dict[str, Any], str]:
        await kafka.create_topics(settings)
        watch = Monitor(settings, None, clock_ms)
        await watch.start()
        try:
            return await watch.lag(), watch.metrics().decode()
        finally:
            await watch.stop()

    told, metrics = asyncio.run(go())
    assert len(told["agents"]) == 9 and told["settling"] == []
    assert "ClickHouse at 127.0.0.1:1 cannot be opened" in str(told["trouble"])
    assert "mdr_store_trouble 1.0\n" in metrics
