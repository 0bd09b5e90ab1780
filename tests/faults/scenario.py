"""Where faults happen: broker, store, workers, traffic all the time, and how long it takes until all is read."""

import asyncio
import contextlib
import random
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError
from aiokafka.partitioner import murmur2
from aiokafka.structs import TopicPartition

from schemas.events import TOPICS
from streams.simulate import Event, Plan, events
from tests.faults.processes import Clickhouse, Kafka, Workers
from tests.faults.verdict import Reader

PREFIX: Final = "faults."
PARTITIONS: Final = 4
WINDOW_MS: Final = 5_000


@dataclass
class Line:
    """One line of the table."""

    fault: str
    times: int = 0
    events: int = 0
    recovery_s: float = 0.0
    note: str = ""


class Ground:
    """Broker, store, two workers and a producer."""

    def __init__(self, home: Path, seed: int, say: Callable[[str], None], rate_per_s: float) -> None:
        self.home, self.say, self.rate_per_s = home, say, rate_per_s
        self.random = random.Random(seed)
        self.seed = seed
        self.kafka = Kafka(home)
        self.clickhouse = Clickhouse(home)
        self.lines: dict[str, Line] = {}
        self.sent = 0
        self.skipped: set[tuple[str, int, int]] = set()
        self.problems: list[str] = []
        self.kills = 0
        self.standstill_s = 0.0
        self._tasks: list[asyncio.Task[None]] = []
        self._flowing = asyncio.Event()

    async def start(self) -> None:
        """Everything runs; the traffic waits."""
        await self.kafka.start()
        await self.clickhouse.start()
        self.reader = Reader(self.kafka.bootstrap, PREFIX, PARTITIONS, self.clickhouse.port)
        await self._topics()
        env = {
            "MDR_KAFKA": self.kafka.bootstrap, "MDR_CLICKHOUSE_URL": self.clickhouse.url, "MDR_TOPIC_PREFIX": PREFIX,
            "MDR_PARTITIONS": str(PARTITIONS), "MDR_SETTLING_WINDOW": f"{WINDOW_MS}ms", "MDR_FLUSH_INTERVAL": "200ms",
            "MDR_CHECKPOINT_INTERVAL": "1s", "MDR_DATA_DIR": str(self.home / "data"),
        }  # fmt: skip
        self.workers = Workers(self.home, env, "worker")
        self.workers.wanted = 2
        self._tasks = [asyncio.create_task(self.workers.watch()), asyncio.create_task(self._traffic())]
        self._flowing.set()

    async def stop(self) -> None:
        """Ends everything in order."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.workers.stop_all()

    async def close(self) -> None:
        """Ends the servers."""
        await self.clickhouse.close()
        self.kafka.signal(signal.SIGKILL)

    async def _topics(self) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.kafka.bootstrap)
        await admin.start()
        limits = {**dict.fromkeys(TOPICS, 2 << 20), "dead-letters": 4 << 20}
        wanted = [
            NewTopic(PREFIX + name, PARTITIONS, 1, topic_configs={"max.message.bytes": str(limit)})
            for name, limit in limits.items()
        ]
        await admin.create_topics(wanted)
        await admin.close()

    # ---- traffic ----

    async def _traffic(self) -> None:
        """Simulated traffic, one plan after the other, until cancelled; what the broker refuses is sent again."""
        number = 0
        while True:
            number += 1
            messages = int(self.rate_per_s * 10)
            # It lies in the past so that its last receipts need not be waited for.
            start_ms = time.time_ns() // 1_000_000 - 10_000 - 4 * WINDOW_MS - 60_000
            plan = Plan(
                messages, self.seed * 1_000 + number, start_ms, self.rate_per_s / 2.5, settling_ms=WINDOW_MS,
                late_share=0.05, early_share=0.05, duplicate_share=0.05, orphan_share=0.01, broken_share=0.01,
                conflict_share=0.002, reordered_share=0.05,
            )  # fmt: skip
            waiting = await asyncio.to_thread(_listed, plan)
            while waiting:
                with contextlib.suppress(KafkaError):
                    await self._send(waiting)

    async def _send(self, waiting: list[Event]) -> None:
        async with producer(self.kafka.bootstrap) as client:
            while waiting:
                await self._flowing.wait()
                began = time.monotonic()
                some = waiting[: max(1, int(self.rate_per_s / 10))]
                futures = [
                    await client.send(
                        PREFIX + e.topic, e.value, e.key, partition=partition_of(e.key), timestamp_ms=e.at_ms
                    )
                    for e in some
                ]
                await asyncio.gather(*futures)
                del waiting[: len(some)]
                self.sent += len(some)
                await asyncio.sleep(max(0.0, 0.1 - (time.monotonic() - began)))

    @contextlib.asynccontextmanager
    async def quiet(self) -> Any:
        """No traffic within."""
        self._flowing.clear()
        try:
            yield
        finally:
            self._flowing.set()

    # ---- faults ----

    async def inject(self, name: str, fault: Callable[[], Awaitable[str | None]]) -> None:
        """One fault, then until everything that was written before its end is committed."""
        line = self.lines.setdefault(name, Line(name))
        before = self.sent
        try:
            note = await fault()
            took_s = await self.caught_up(120)
        except Exception as e:
            self.problems.append(f"{name}: {type(e).__name__}: {e}")
            return
        if took_s is None:
            self.problems.append(f"{name}: not caught up within 120 s")
            return
        line.times += 1
        line.events += self.sent - before
        line.recovery_s = max(line.recovery_s, took_s)
        line.note = note or line.note
        self.say(f"{name}: caught up after {took_s:.1f} s; {self.sent} events so far{f' ({note})' if note else ''}")

    async def caught_up(self, timeout_s: float) -> float | None:
        """How long until all that is in the log now is committed."""
        began = time.monotonic()
        wanted: dict[TopicPartition, int] = {}
        while time.monotonic() - began < timeout_s:
            with contextlib.suppress(KafkaError, OSError, asyncio.TimeoutError):
                wanted = wanted or await asyncio.wait_for(self.reader.ends(), 10)
                committed = await asyncio.wait_for(self.reader.committed(), 10)
                if all(committed.get(tp, 0) >= end for tp, end in wanted.items()):
                    return time.monotonic() - began
            await asyncio.sleep(0.1)
        return None

    def _any_worker(self) -> Any:
        running = [w for w in self.workers.running if w.runs()]
        return self.random.choice(running)

    async def settled(self, timeout_s: float) -> bool:
        """Whether everything was settled in time: nothing open any more, all committed."""
        self._flowing.clear()
        deadline = time.monotonic() + timeout_s
        await self.caught_up(timeout_s)
        await asyncio.sleep(3 * WINDOW_MS / 1000)
        while time.monotonic() < deadline:
            left = await asyncio.to_thread(self.reader.query, "SELECT count() FROM mdr.open_messages FINAL")
            if not left[0][0]:
                return True
            await asyncio.sleep(1)
        return False


def _listed(plan: Plan) -> list[Event]:
    return list(events(plan))


def producer(bootstrap: str, **options: Any) -> AIOKafkaProducer:
    """Acknowledged by all, compressed."""
    return AIOKafkaProducer(
        bootstrap_servers=bootstrap, acks="all", compression_type="lz4", linger_ms=5, request_timeout_ms=20_000,
        **{"max_request_size": 4 << 20, **options},
    )  # fmt: skip


def partition_of(key: bytes) -> int:
    """As the Java client does it."""
    return int((murmur2(key) & 0x7FFFFFFF) % PARTITIONS)
