"""The worker: a Faust app with one agent a topic, and what ties its batches to the flow, the store and the offsets."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import faust
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from aiokafka.structs import TopicPartition

from schemas.events import TOPICS
from streams import kafka
from streams.barrier import Barrier
from streams.effects import DeadLetter
from streams.flow import Flow, Found
from streams.letters import cut_letter, entry_letter
from streams.settings import Settings
from streams.settle import REMEMBER_MS, Partition
from streams.store import Store, StoreError, Unavailable, Unstorable
from streams.transport import Batch, Transport, check_private_names

log = logging.getLogger(__name__)
_TICK_S: Final = 0.25
_REVOKE_TIMEOUT_S: Final = 3.0
# So long may the log move while we do not; a consumer that hangs for ever does not come back by itself.
_STUCK_MS_MAX: Final = 120_000
_SAMPLE_EVERY: Final = 997
T = TypeVar("T")


def clock_ms() -> int:
    """Milliseconds since the epoch by the wall clock."""
    return time.time_ns() // 1_000_000


class WorkerStuck(Exception):
    """The worker does not get on and must be started anew; one sentence."""


class Worker:
    """One stream processor: consumes its partitions until stopped."""

    def __init__(
        self, settings: Settings, partitions: int, *, group: str = "", clock: Callable[[], int] = clock_ms
    ) -> None:
        """`partitions` is the count that the input topics share; raises `Unavailable` if the store cannot be opened."""
        check_private_names()
        self.settings = settings
        self.group = group or settings.group
        self._partitions = partitions
        self._clock = clock
        self.flow = Flow(settings.topic_prefix, settings.settling_window_ms)
        self.store = Store(settings.clickhouse_url)
        self._reader = Store(settings.clickhouse_url)
        # One thread: answers of the store must be acted upon in the order they were asked for.
        self._reading = ThreadPoolExecutor(1, "store-read")
        self._producer: AIOKafkaProducer | None = None
        self.barrier = Barrier(
            self.flow, self.store, self, clock, partitions, settings.flush_interval_ms, settings.checkpoint_interval_ms
        )
        self._ready: dict[int, asyncio.Event] = {}
        self._stored_offsets: dict[tuple[str, int], int] = {}
        self._worked: dict[TopicPartition, int] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._writing: asyncio.Task[None] | None = None
        self.failed: asyncio.Future[None] | None = None
        self.ends: dict[tuple[str, int], int] = {}
        self._moved = (0, clock())
        self.misplaced = 0
        self.dead_letters: Counter[str] = Counter()
        self.app = self._make_app()

    # ---- life ----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Migrates the store and begins to consume; `failed` is set when the worker cannot go on."""
        await self._check_store()
        self.failed = asyncio.get_running_loop().create_future()
        self._producer = kafka.producer(self.settings, compression_type="lz4")
        await self._producer.start()
        await self.app.start()
        self._writing = self._spawn(self.barrier.run())
        self._spawn(self._tick_forever())

    async def _check_store(self) -> None:
        settings = self.settings
        await asyncio.to_thread(self.store.migrate, settings.retention_days, settings.body_retention_days)
        stored = await asyncio.to_thread(self._reader.checkpoints)
        before = {c.partitions for c in stored.values()} - {self._partitions}
        if before:
            raise StoreError(
                f"the open messages were stored for {before.pop()} partitions a topic, but the topics have "
                f"{self._partitions} now: let the old topics run dry, or use another MDR_TOPIC_PREFIX and store"
            )

    def health(self) -> dict[str, Any]:
        """Whether the worker lives and is ready, with reasons in words."""
        failed = self.failed is not None and self.failed.done()
        reasons = ["the worker has ended"] if failed else []
        if not self.flow.partitions:
            reasons.append("no partitions are assigned and recovered yet")
        if self.barrier.trouble:
            reasons.append(f"writing is held up: {self.barrier.trouble}")
        return {"live": not failed, "ready": not reasons, "reasons": reasons}

    def _spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(work)
        task.add_done_callback(self._on_done)
        self._tasks.append(task)
        return task

    def _on_done(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and task.exception() is not None:
            self.fail(task.exception())

    def fail(self, error: BaseException | None) -> None:
        """Ends the worker with a reason; the supervisor starts it anew, and nothing is lost by it."""
        if self.failed is not None and not self.failed.done():
            self.failed.set_exception(error or RuntimeError("the worker stopped"))

    async def stop(self, timeout_s: float = _REVOKE_TIMEOUT_S) -> None:
        """Writes what is finished, saves what is open, commits and leaves the group, each within bounds."""
        self.barrier.finish()
        if self._writing is not None:
            await asyncio.wait([self._writing], timeout=timeout_s)
            # A write that does not end is torn by the end of the process; nothing may be committed after it.
            if self._writing.done() and not self._writing.exception():
                await self.barrier.last(timeout_s)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.app.stop()
        if self._producer is not None:
            await self._producer.stop()
        self.barrier.close()
        self._reading.shutdown(wait=False, cancel_futures=True)
        for store in (self._reader, self.store):
            await asyncio.to_thread(store.close)

    def _make_app(self) -> faust.App:
        settings = self.settings
        app = faust.App(
            self.group,
            broker=[f"kafka://{server.strip()}" for server in settings.kafka.split(",")],
            store="memory://",
            web_enabled=False,
            topic_disable_leader=True,
            topic_allow_declare=False,
            # Never wait for acks that do not exist: a rebalance would hang on it.
            stream_wait_empty=False,
            stream_buffer_maxsize=4,
            broker_session_timeout=10.0,
            broker_request_timeout=40.0,
        )
        transport = Transport(app.conf.broker_consumer, app)
        transport.consumer_options = kafka.client_options(settings)
        if settings.is_embedded:
            # Only one process can have an embedded store open, so the member before us is gone: take its place at once.
            transport.consumer_options["group_instance_id"] = f"{self.group}.embedded"
        app.transport = transport
        for topic in TOPICS:
            source = app.topic(settings.topic_prefix + topic, value_type=bytes, value_serializer="raw", acks=False)
            app.agent(source, name=f"{settings.topic_prefix}{topic}")(self._agent(topic))
        app.on_partitions_revoked.connect(self._on_revoked)
        app.on_partitions_assigned.connect(self._on_assigned)
        return app

    def _agent(self, topic: str) -> Callable[[Any], Awaitable[None]]:
        async def agent(stream: Any) -> None:
            async for batch in stream:
                try:
                    await self._work(topic, batch)
                except asyncio.CancelledError:
                    raise
                except BaseException as e:
                    # Faust would take the batch for done.
                    self.fail(e)
                    raise

        return agent

    # ---- batches -------------------------------------------------------------------------------------------

    async def _work(self, topic: str, batch: Batch) -> None:
        shard, entries = batch.partition, batch.records
        ready = self._ready.get(shard)
        if ready is not None:
            await ready.wait()
        await self.barrier.room()
        if batch.generation != self.barrier.generation:
            return
        held = self.flow.batch(topic, shard, entries, self._clock())
        if held:
            found = await self._lookup([h.event.message_id for h in held])
            if batch.generation != self.barrier.generation:
                return
            self.flow.resume(topic, shard, entries, held, found, self._clock())
        self._sample(batch)
        tp = TopicPartition(batch.topic, shard)
        self._worked[tp] = self._worked.get(tp, 0) + 1
        self.barrier.did(topic, shard, batch.next_offset)
        # Faust hands over what it has without a pause: let the others have their turn.
        await asyncio.sleep(0)

    def _sample(self, batch: Batch) -> None:
        for record in batch.records[::_SAMPLE_EVERY]:
            if record.key is not None and kafka.partition_of(record.key, self._partitions) != batch.partition:
                if not self.misplaced:
                    log.warning(
                        "%s partition %d has an entry whose key belongs elsewhere; `mdr topics check` tells more",
                        batch.topic, batch.partition,
                    )  # fmt: skip
                self.misplaced += 1

    async def _lookup(self, ids: list[str]) -> dict[str, Found]:
        return await self._retry_read(self._reader.lookup, ids)

    async def _read(self, call: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._reading, call, *args)

    # ---- time ----------------------------------------------------------------------------------------------

    async def _tick_forever(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            await self._find_ends()
            now_ms = self._clock()
            self._watch(now_ms)
            partitions = dict(self.flow.partitions)
            asked = self.flow.tick(now_ms)
            found = await self._lookup([mid for ids in asked.values() for mid in ids]) if asked else {}
            for shard, ids in asked.items():
                if self.flow.partitions.get(shard) is partitions[shard]:
                    partitions[shard].resolve_receipts(ids, found, self._clock())

    def _watch(self, now_ms: int) -> None:
        """Ends the worker when there is something to read and nothing is read, for no reason we know."""
        at = sum(self.barrier.done.values())
        behind = any(end > self.barrier.done.get(tp, 0) for tp, end in self.ends.items())
        if at != self._moved[0] or not behind or self.barrier.trouble:
            self._moved = (at, now_ms)
        elif now_ms - self._moved[1] > _STUCK_MS_MAX:
            self.fail(WorkerStuck(f"the log moves, but nothing was read for {_STUCK_MS_MAX // 1000} s"))

    async def _find_ends(self) -> None:
        """Moves the watermarks of topics that are read to their end: the clock is read before the end is asked for."""
        consumer, generation = self.app.consumer, self.barrier.generation
        asked_ms = self._clock()
        try:
            ends = await consumer.ends()
        except KafkaError as e:
            log.debug("the end offsets are not to be had: %s", e)
            return
        if generation != self.barrier.generation:
            return
        for tp, end in ends.items():
            topic = tp.topic.removeprefix(self.settings.topic_prefix)
            self.ends[topic, tp.partition] = end
            idle = consumer.handed.get(tp, 0) == self._worked.get(tp, 0)
            partition = self.flow.partitions.get(tp.partition)
            if idle and consumer.positions.get(tp, -1) >= end and partition is not None:
                partition.caught_up(topic, asked_ms)
                self.barrier.did(topic, tp.partition, consumer.positions[tp])

    # ---- partitions come and go ----------------------------------------------------------------------------

    async def _on_revoked(self, app: Any, revoked: Any, **_: Any) -> None:
        if self.flow.partitions:
            await self.barrier.last(_REVOKE_TIMEOUT_S)
        self.flow.partitions.clear()
        self.barrier.forget()
        self.ends.clear()
        self._worked.clear()
        self.app.consumer.forget()
        for ready in self._ready.values():
            ready.set()
        self._ready.clear()

    async def _on_assigned(self, app: Any, assigned: Any, **_: Any) -> None:
        shards = sorted({tp.partition for tp in assigned})
        self.app.consumer.forget()
        self.barrier.generation = self.app.consumer_generation_id
        self._ready = {shard: asyncio.Event() for shard in shards}
        self._spawn(self._recover(shards, self.barrier.generation))

    async def _recover(self, shards: list[int], generation: int) -> None:
        await self._warn_of_loss()
        recovered = await self._retry_read(self._load, shards)
        if generation != self.barrier.generation:
            return
        self.flow.partitions.update(recovered)
        self.barrier.base = dict(self._stored_offsets)
        for shard in shards:
            self._ready[shard].set()
        log.info("took %d partitions with %d open messages", len(shards), sum(len(p.lives) for p in recovered.values()))

    async def _warn_of_loss(self) -> None:
        for tp, count in (await self.app.consumer.lost()).items():
            log.error("%s partition %d: %d entries were deleted before they were read", tp.topic, tp.partition, count)

    async def _retry_read(self, call: Callable[..., T], *args: Any) -> T:
        delay_s = 0.1
        while True:
            try:
                return await self._read(call, *args)
            except Unavailable as e:
                log.warning("reading from the store fails, trying again: %s", e)
                await asyncio.sleep(delay_s)
                delay_s = min(5.0, delay_s * 2)

    def _load(self, shards: list[int]) -> dict[int, Partition]:
        """Partitions as they were saved last; runs in the reading thread."""
        now_ms = self._clock()
        stored = self._reader.checkpoints()
        partitions = {shard: Partition(shard, self.settings.settling_window_ms, now_ms) for shard in shards}
        for shard, message_id, part, facts, deadline_ms, occurred_ms, settled in self._reader.open_rows(shards):
            mid = message_id.decode()
            if part:
                partitions[shard].restore_waiting(mid, part.decode(), facts)
            elif settled:
                partitions[shard].restore_settled(mid, facts, settled == 1)
            else:
                partitions[shard].restore(mid, facts, deadline_ms, occurred_ms)
        for shard, partition in partitions.items():
            self._load_past(partition, stored.get(shard), now_ms)
        return partitions

    def _load_past(self, partition: Partition, stored: Any, now_ms: int) -> None:
        if stored is not None:
            partition.restore_progress(stored)
            offsets = (stored.sends_offset, stored.receives_offset, stored.receipts_offset)
            self._stored_offsets |= {(topic, partition.shard): at for topic, at in zip(TOPICS, offsets, strict=True)}
        since_ms = min(stored.remembers_from, now_ms - REMEMBER_MS) if stored else now_ms - REMEMBER_MS
        recent = self._reader.recent_ids(partition.shard, since_ms)
        for direction in ("outbound", "inbound"):
            partition.remember(direction, [m for m, d in recent if d == direction], since_ms, now_ms)
        partition.remember_orphans(self._reader.orphan_ids(partition.shard), now_ms)

    # ---- what the barrier needs of Kafka -------------------------------------------------------------------

    async def commit(self, offsets: Mapping[tuple[str, int], int], generation: int) -> bool:
        """Commits what the barrier made durable; refused when the group has moved on."""
        if not offsets or generation != self.barrier.generation:
            return False
        prefix = self.settings.topic_prefix
        named = {TopicPartition(prefix + topic, shard): at for (topic, shard), at in offsets.items()}
        try:
            return bool(await self.app.consumer.commit_fenced(named, generation))
        except KafkaError as e:
            raise Unavailable(f"Kafka refuses the commit: {e!r}") from None

    async def bury(self, letters: Sequence[DeadLetter]) -> None:
        """Produces dead letters and waits for their acknowledgement."""
        await self._produce([await self._letter(letter) for letter in letters])
        self.dead_letters.update(letter.reason for letter in letters)

    async def _letter(self, letter: DeadLetter) -> dict[str, Any]:
        topic, entry = self.settings.topic_prefix + letter.topic, letter.entry
        if entry is None and letter.receipt is not None:
            # It had been merged and was let go: the log still has its bytes.
            entry = next(iter(await self._read_back([letter.receipt.source])), None)
        if entry is None:
            raise StoreError(f"a dead letter of {topic} partition {letter.shard} is no longer in the log")
        return entry_letter(topic, letter.shard, entry, letter.reason, letter.detail)

    async def _read_back(self, sources: Iterable[str]) -> list[Any]:
        try:
            return await kafka.read_back(self.settings, sources)
        except kafka.KafkaUnavailable as e:
            raise Unavailable(str(e)) from None

    async def bury_unstorable(self, bad: Sequence[Unstorable]) -> None:
        """Reads the events of rows that the store refuses back from the log and produces them as dead letters."""
        for _, detail, sources in bad:
            log.error("a row cannot be stored, its events become dead letters: %s", detail)
            entries = await self._read_back(sources)
            await self._produce([entry_letter(e.topic, e.partition, e, "unstorable", detail) for e in entries])

    async def _produce(self, letters: list[dict[str, Any]]) -> None:
        assert self._producer is not None
        topic = self.settings.topic_prefix + kafka.DEAD_LETTERS
        try:
            sent = [await self._producer.send(topic, **letter) for letter in letters]
            outcomes = await asyncio.gather(*sent, return_exceptions=True)
            for letter, outcome in zip(letters, outcomes, strict=True):
                if isinstance(outcome, MessageSizeTooLargeError):
                    await self._producer.send_and_wait(topic, **cut_letter(letter))
                elif isinstance(outcome, BaseException):
                    raise outcome
        except MessageSizeTooLargeError as e:
            raise StoreError(f"a dead letter is too large even when it is cut: {e}") from None
        except KafkaError as e:
            raise Unavailable(f"Kafka refuses dead letters: {e!r}") from None
