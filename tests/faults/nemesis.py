"""The faults, one method each; what it gives back is the note in the table."""

import asyncio
import contextlib
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from schemas.events import TOPICS
from streams.simulate import Plan, events
from tests.faults.scenario import PARTITIONS, PREFIX, WINDOW_MS, Ground, partition_of, producer

POISON: Final = (
    b"", b"null", b"[]", b"7", b'"a"', b"{", b'{"event_id":1}', b"\xef\xbb\xbf{}", b"\xff\xfe{\x00}\x00",
    b"{}\x00", b'{"event_id":"\\ud800"}', b'{"a":NaN}', b'{"a":1e999}', b'{"a":' + b"9" * 5_000 + b"}",
    b'{"a":18446744073709551617}', b"[" * 100_000, b'{"event_id":"e","event_id":2}', b"\x1f\x8b\x08\x00",
    b"\x08\x96\x01", "{\"\u202e\":\"\U0001f469\"}".encode(),
)  # fmt: skip


class World(Ground):
    """Everything that can be done to it."""

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

    def outage(self, seconds: float) -> Callable[[], Awaitable[str | None]]:
        """Nobody listens where the store was: what the workers hold grows to a bound, and reading waits."""

        async def fault() -> str | None:
            self.clickhouse.fault("refuse")
            told = []
            for _ in range(3):
                told.append(max(worker.rss_mb() for worker in self.workers.running))
                await asyncio.sleep(seconds / 3)
            told.append(max(worker.rss_mb() for worker in self.workers.running))
            self.clickhouse.fault("none")
            return f"{seconds:.0f} s, memory {' '.join(map(str, told))} MB"

        return fault

    async def compaction(self) -> str | None:
        """Most of what a stopped group has not read is compacted away: holes, and only the last of each key."""
        async with self.quiet():
            await self.caught_up(60)
            wanted, self.workers.wanted = self.workers.wanted, 0
            for worker in list(self.workers.running):
                await self._ends(worker)
            await self.reader.take_log()
            try:
                return await self._compacted()
            finally:
                self.workers.wanted = wanted

    async def _compacted(self) -> str:
        tp = TopicPartition(PREFIX + "sends", self.random.randrange(PARTITIONS))
        before = (await self.reader.ends())[tp]
        plan = Plan(400, self.random.randrange(1 << 30), time.time_ns() // 1_000_000 - 60_000, 50, broken_share=0.0)
        sends = [e for e in events(plan) if e.topic == "sends" and partition_of(e.key) == tp.partition]
        async with producer(self.kafka.bootstrap) as client:
            for _ in range(5):
                for e in sends:
                    await client.send(tp.topic, e.value, e.key, partition=tp.partition)
            await client.flush()
            await self._configure(tp.topic, {"cleanup.policy": "compact", "segment.ms": "500"})
            await asyncio.sleep(1)
            # The last segment is never compacted: this one ends it.
            await client.send_and_wait(tp.topic, sends[0].value, sends[0].key, partition=tp.partition)
        left = await self._shrunk(tp, before, 5 * len(sends))
        await self._configure(tp.topic, {"cleanup.policy": "delete"})
        return f"{5 * len(sends) + 1 - left} of {5 * len(sends) + 1} gone"

    async def _configure(self, topic: str, more: dict[str, str]) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.kafka.bootstrap)
        await admin.start()
        configs = {"max.message.bytes": str(2 << 20), "min.cleanable.dirty.ratio": "0.001", **more}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs)])
        await admin.close()

    async def _shrunk(self, tp: TopicPartition, start: int, written: int) -> int:
        """How many entries are left from an offset on, once there are fewer; the cleaner looks every 15 s."""
        for _ in range(25):
            left = await self.reader.count(tp, start)
            if left < written:
                return left
            await asyncio.sleep(2)
        self.problems.append("compaction: nothing was compacted in 50 s")
        return left

    async def _standstill(self) -> float:
        """The longest time in which no offset moved, until cancelled; then it is in `standstill_s`."""
        moved, at = time.monotonic(), 0
        while True:
            with contextlib.suppress(KafkaError, OSError):
                now = sum((await self.reader.committed()).values())
                if now != at:
                    moved, at = time.monotonic(), now
                self.standstill_s = max(self.standstill_s, time.monotonic() - moved)
            await asyncio.sleep(0.1)

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
        self.standstill_s = 0.0
        watch = asyncio.create_task(self._standstill())
        for wanted in (3, 2, 3, 1, 3, 2):
            self.workers.wanted = wanted
            while len(self.workers.running) > wanted:
                worker = self._any_worker()
                await self._ends(worker)
                await asyncio.sleep(0.5)  # the supervisor takes it off its list
            changes += 1
            await asyncio.sleep(2)
        watch.cancel()
        return f"{changes} changes; nothing committed for {self.standstill_s:.1f} s at most"

    async def join_and_leave(self) -> str | None:
        """One worker joins, and leaves again, undisturbed: how long nothing moves for one rebalance."""
        self.standstill_s = 0.0
        watch = asyncio.create_task(self._standstill())
        self.workers.wanted = 3
        await asyncio.sleep(12)
        self.workers.wanted = 2
        await self._ends(self._any_worker())
        await asyncio.sleep(6)
        watch.cancel()
        return f"nothing committed for {self.standstill_s:.1f} s at most"

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
