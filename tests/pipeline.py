"""Runs the real worker against a real broker and the embedded store, for tests."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition

from schemas.events import TOPICS
from streams import kafka
from streams.agents import Worker
from streams.settings import Settings, load
from tests.oracle import Oracle

PATIENCE_S = 60.0


def make_settings(kafka_at: str, home: Path, prefix: str, **more: str) -> Settings:
    """Settings of a test: its own topics, its own store, a short settling window."""
    environ = {
        "MDR_KAFKA": kafka_at,
        "MDR_DATA_DIR": str(home),
        "MDR_TOPIC_PREFIX": prefix,
        "MDR_PARTITIONS": "3",
        "MDR_SETTLING_WINDOW": "2s",
        "MDR_FLUSH_INTERVAL": "100ms",
        "MDR_CHECKPOINT_INTERVAL": "500ms",
        "HOME": str(home),
    }
    return load(environ | more, home)


@asynccontextmanager
async def working(settings: Settings) -> AsyncIterator[Worker]:
    """A worker that is stopped however the block ends: the loop's end alone would wait for Faust's tasks for ever."""
    worker = Worker(settings, await kafka.check_topics(settings))
    try:
        yield worker
    finally:
        await worker.stop()


async def until(true: Callable[[], bool], worker: Worker) -> None:
    """Returns once a condition holds; raises what made the worker fail, or TimeoutError."""

    async def wait() -> None:
        while not true():
            assert worker.failed is not None
            if worker.failed.done():
                worker.failed.result()
            await asyncio.sleep(0.05)

    await asyncio.wait_for(wait(), PATIENCE_S)


def is_idle(worker: Worker, events: int) -> bool:
    """Whether so many events were worked off and nothing is open or still to be written."""
    partitions = list(worker.flow.partitions.values())
    seen = sum(p.counts.events for p in partitions)
    return seen >= events and not any(len(p.lives) + p.pending() + len(p.dead) for p in partitions)


async def settle_all(worker: Worker, events: int) -> None:
    """Waits until all is settled, then makes it durable."""
    await until(lambda: is_idle(worker, events), worker)
    await worker.barrier.write(checkpoint=True)
    await until(lambda: is_idle(worker, events), worker)


async def read_log(settings: Settings, topics: tuple[str, ...] = TOPICS) -> list[tuple[str, Any]]:
    """Every entry of our topics, with the topic's name without prefix."""
    partitions = await kafka.check_topics(settings)
    consumer = AIOKafkaConsumer(**kafka.client_options(settings), auto_offset_reset="earliest")
    await consumer.start()
    found = []
    try:
        tps = [TopicPartition(settings.topic_prefix + t, p) for t in topics for p in range(partitions)]
        consumer.assign(tps)
        ends = await consumer.end_offsets(tps)
        left = {tp for tp, end in ends.items() if end}
        while left:
            for tp, records in (await consumer.getmany(timeout_ms=1_000)).items():
                found += [(tp.topic.removeprefix(settings.topic_prefix), r) for r in records]
            left = {tp for tp in left if await consumer.position(tp) < ends[tp]}
    finally:
        await consumer.stop()
    return found


def judge(log: list[tuple[str, Any]], clock_ms: int, window_ms: int) -> Any:
    """What the independent oracle makes of a log."""
    entries = [(t, r.partition, r.offset, r.timestamp, r.key, r.value, clock_ms) for t, r in log]
    return Oracle(window_ms).judge(entries)
