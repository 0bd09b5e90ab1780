"""One world of faults: traffic all the time, one fault after the other, the verdict at the end."""

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
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
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
POISON: Final = (
    b"", b"null", b"[]", b"7", b'"a"', b"{", b'{"event_id":1}', b"\xef\xbb\xbf{}", b"\xff\xfe{\x00}\x00",
    b"{}\x00", b'{"event_id":"\\ud800"}', b'{"a":NaN}', b'{"a":1e999}', b'{"a":' + b"9" * 5_000 + b"}",
    b'{"a":18446744073709551617}', b"[" * 100_000, b'{"event_id":"e","event_id":2}', b"\x1f\x8b\x08\x00",
    b"\x08\x96\x01", "{\"\u202e\":\"\U0001f469\"}".encode(),
)  # fmt: skip


@dataclass
class Line:
    """One line of the table."""

    fault: str
    times: int = 0
    events: int = 0
    recovery_s: float = 0.0
    note: str = ""


class World:
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
        if self.clickhouse.process is not None:
            await self.clickhouse.process.kill()
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

    async def nothing(self) -> str | None:
        """Traffic alone."""
        await asyncio.sleep(8)
        return None

    async def kill_worker(self) -> str | None:
        """kill -9 at a random moment; now and then both, to compare what is durable with what is committed."""
        await asyncio.sleep(self.random.uniform(0.5, 3.0))
        both = self.random.random() < 0.4
        wanted, self.workers.wanted = self.workers.wanted, 0
        for worker in list(self.workers.running) if both else [self._any_worker()]:
            await self.workers.kill(worker)
            self.kills += 1
        if both:
            await asyncio.sleep(0.5)
            await self.reader.sample()
        self.workers.wanted = wanted
        return f"{self.kills} kills"

    async def kill_broker(self) -> str | None:
        """SIGKILL, a few seconds of nothing, restart."""
        self.kafka.signal(signal.SIGKILL)
        await asyncio.sleep(self.random.uniform(1, 6))
        await self.kafka.start()
        return None

    async def freeze_broker(self) -> str | None:
        """SIGSTOP for some seconds."""
        self.kafka.signal(signal.SIGSTOP)
        await asyncio.sleep(self.random.uniform(5, 15))
        self.kafka.signal(signal.SIGCONT)
        return None

    def store_fault(self, kind: str, seconds: float, **more: Any) -> Callable[[], Awaitable[str | None]]:
        """The store misbehaves for a while."""

        async def fault() -> str | None:
            self.clickhouse.fault(kind, **more)
            await asyncio.sleep(seconds)
            done = self.clickhouse.stats().get(f"fault {kind}", 0)
            self.clickhouse.fault("none")
            return f"{done} requests" if done else None

        return fault

    async def kill_store(self) -> str | None:
        """kill -9 of ClickHouse itself, and a restart."""
        assert self.clickhouse.process is not None
        await self.clickhouse.process.kill()
        await asyncio.sleep(self.random.uniform(0.5, 4))
        await self.clickhouse.start()
        return None

    async def storm(self) -> str | None:
        """Workers come and go every two seconds."""
        changes = 0
        for wanted in (3, 2, 3, 1, 3, 2):
            self.workers.wanted = wanted
            while len(self.workers.running) > wanted:
                worker = self._any_worker()
                await self._ends(worker)
                await asyncio.sleep(0.5)  # the supervisor takes it off its list
            changes += 1
            await asyncio.sleep(2)
        return f"{changes} changes each"

    async def zombie(self) -> str | None:
        """A worker frozen beyond its session, then let go on."""
        worker = self._any_worker()
        worker.signal(signal.SIGSTOP)
        await asyncio.sleep(self.random.uniform(15, 22))
        worker.signal(signal.SIGCONT)
        await asyncio.sleep(2)
        return None

    async def terminate(self) -> str | None:
        """SIGTERM under load."""
        took_s = await self._ends(self._any_worker())
        return f"exit in {took_s:.1f} s"

    async def terminate_without_store(self) -> str | None:
        """SIGTERM while the store is away."""
        self.clickhouse.fault("refuse")
        await asyncio.sleep(3)
        took_s = await self._ends(self._any_worker())
        self.clickhouse.fault("none")
        return f"exit in {took_s:.1f} s"

    async def _ends(self, worker: Any) -> float:
        took_s = await self.workers.terminate(worker, 60)
        if took_s is None:
            await worker.kill()
        if took_s is None or took_s > 10.5:
            self.problems.append(f"SIGTERM: {worker.name} took {took_s or 60:.1f} s to end")
        return took_s or 60.0

    async def poison(self) -> str | None:
        """The corpus, then a thousand in a row, then one that was ten million bytes before compression."""
        async with producer(self.kafka.bootstrap) as client:
            for topic in TOPICS:
                bad: list[bytes | None] = [*POISON, None]
                bad += [self.random.choice(POISON) for _ in range(330)]
                for n, value in enumerate(bad):
                    key = f"poison{n % 7}".encode()
                    headers = [("trace", b"t"), ("none", None)] if value is not None and n % 5 == 0 else []
                    await client.send(PREFIX + topic, value, key, partition=partition_of(key), headers=headers)
                await client.flush()
        async with producer(self.kafka.bootstrap, max_request_size=64 << 20) as client:
            huge = b'{"x":"' + b"x" * 10_000_000 + b'"}'
            await client.send_and_wait(PREFIX + "sends", huge, b"huge", partition=partition_of(b"huge"))
        return None

    async def transactions(self) -> str | None:
        """Committed and aborted transactions: what was aborted must not be read, and leaves holes."""
        plan = Plan(
            300, self.random.randrange(1 << 30), time.time_ns() // 1_000_000 - 60_000, 50, settling_ms=WINDOW_MS
        )
        some = list(events(plan))
        transactional = AIOKafkaProducer(
            bootstrap_servers=self.kafka.bootstrap, transactional_id="faults", request_timeout_ms=20_000
        )
        await transactional.start()
        try:
            for at in range(0, len(some), 20):
                await transactional.begin_transaction()
                abort = self.random.random() < 0.4
                for e in some[at : at + 20]:
                    # What is aborted would be another event for the message.
                    value = e.value.replace(b'"event_id":"', b'"event_id":"aborted') if abort else e.value
                    where = PREFIX + e.topic
                    await transactional.send(where, value, e.key, partition=partition_of(e.key), timestamp_ms=e.at_ms)
                await (transactional.abort_transaction() if abort else transactional.commit_transaction())
        finally:
            await transactional.stop()
        return None

    async def retention(self) -> str | None:
        """Entries deleted before a stopped group could read them: counted, shouted, and reading goes on."""
        async with self.quiet():
            await asyncio.sleep(1)
            wanted, self.workers.wanted = self.workers.wanted, 0
            for worker in list(self.workers.running):
                await self._ends(worker)
            await self.reader.take_log()
        await asyncio.sleep(5)
        async with self.quiet():
            await asyncio.sleep(1)
            lost = await self._delete()
            self.workers.wanted = wanted
            await self.caught_up(60)
        if not any("delete" in log.read_text() for log in self.home.glob("worker*.log")):
            self.problems.append(f"retention: {lost} entries were lost and no worker said so")
        return f"{lost} entries deleted unread"

    async def _delete(self) -> int:
        await self.reader.take_log()
        committed = await self.reader.committed()
        tp = TopicPartition(PREFIX + "receipts", self.random.randrange(PARTITIONS))
        end = (await self.reader.ends())[tp]
        admin = AIOKafkaAdminClient(bootstrap_servers=self.kafka.bootstrap)
        await admin.start()
        await admin.delete_records({tp: RecordsToDelete(end)})
        await admin.close()
        lost = {p for p in self.reader.log if p[:2] == ("receipts", tp.partition) and committed[tp] <= p[2] < end}
        self.skipped |= lost
        return len(lost)

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
