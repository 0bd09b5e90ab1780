"""The worker: a Faust app with one agent a topic, and what ties its batches to the flow, the store and the offsets."""

import asyncio
import itertools
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import faust
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from schemas import native
from schemas.events import TOPICS
from streams import kafka, recovery
from streams.app import faust_app
from streams.aside import aside
from streams.barrier import Barrier
from streams.clock import clock_ms, monotonic_ms
from streams.flow import Flow, Found
from streams.outbox import Outbox
from streams.questions import Questions
from streams.settings import Settings
from streams.store import Store, StoreError, Unavailable
from streams.tasks import ended
from streams.telemetry import Metered, Telemetry
from streams.transport import Batch, Start, check_private_names
from streams.watchdog import STUCK_MS_MAX, Watchdog

log = logging.getLogger(__name__)
_TICK_S: Final = 0.25
# The store is asked about waiting receipts every so many ticks: a question costs much the same for one id as for ten.
_ASK_TICKS: Final = 4
_REVOKE_TIMEOUT_S: Final = 3.0
_ENDS_TIMEOUT_S: Final = 5.0
_SAMPLE_EVERY: Final = 997
# Batches of a topic that may wait for the store's answers.
_UNDER_WAY_MAX: Final = 4
T = TypeVar("T")


class WorkerStuck(Exception):
    """The worker does not get on and must be started anew; one sentence."""


def _told(error: BaseException | None) -> str:
    """An error in words: its `repr` may hold what was read."""
    return f"{type(error).__name__}: {error}"[:500] if error is not None else "the worker stopped"


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
        self._questions = Questions(self._reader.lookup)
        # One thread: answers of the store must be acted upon in the order they were asked for.
        self._reading = ThreadPoolExecutor(1, "store-read")
        self.telemetry = Telemetry(settings.topic_prefix)
        self._tally = self.telemetry.tally
        self._outbox = Outbox(settings, self._tally, self._commit)
        metered: Any = Metered(self.store, self.telemetry)
        self.barrier = Barrier(
            self.flow, metered, self._outbox, clock, partitions, settings.flush_interval_ms,
            settings.checkpoint_interval_ms,
        )  # fmt: skip
        self.barrier.on_written = self._on_written
        self.flushed_ms = self.checkpointed_ms = 0
        self._ready: dict[int, asyncio.Event] = {}
        self._assigned: int | None = None
        # Up to where each partition was worked off; the next batch begins here, or one is missing.
        self._next: dict[tuple[str, int], int] = {}
        self._tasks: list[asyncio.Task[Any]] = []
        # Batches that are worked off, those of a partition one after the other.
        self._under_way: dict[str, set[asyncio.Task[None]]] = {topic: set() for topic in TOPICS}
        self._turns: dict[tuple[str, int], asyncio.Lock] = defaultdict(asyncio.Lock)
        self._writing: asyncio.Task[None] | None = None
        self.failed: asyncio.Future[None] | None = None
        self.ends: dict[tuple[str, int], int] = {}
        self._asking_ends: tuple[int, int, asyncio.Task[dict[TopicPartition, int]]] | None = None
        # Why nothing is read, when it is for a reason that passes.
        self._read_trouble = self._broker_trouble = ""
        self.app = self._make_app()

    # ---- life ----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Migrates the store and begins to consume; `failed` is set when the worker cannot go on."""
        if native.missing:
            log.warning("%s", native.missing)
        await self._check_store()
        self.failed = asyncio.get_running_loop().create_future()
        self._watchdog = Watchdog(monotonic_ms())
        await self._outbox.start()
        await self.app.start()
        self._writing = self._spawn(self.barrier.run())
        self._spawn(self._tick_forever())
        self._spawn(self._heed_crashes())

    async def _check_store(self) -> None:
        settings = self.settings
        await asyncio.to_thread(self.store.migrate, *settings.kept_days)
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
        # A worker that the group has no partition for stands by, and is fine.
        if not self.flow.partitions and self._assigned != 0:
            reasons.append("no partitions are assigned and recovered yet")
        reasons += [
            f"{what} held up: {trouble}"
            for what, trouble in (
                ("writing is", self.barrier.trouble), ("reading from the store is", self._read_trouble),
                ("asking the broker is", self._broker_trouble),
            )
            if trouble
        ]  # fmt: skip
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
        if self.app.crashed:  # whatever else fails then fails because of it
            error = WorkerStuck(f"Faust crashed: {_told(self.app.crash_reason)}")
        if self.failed is not None and not self.failed.done():
            log.error("the worker ends: %s", _told(error))
            self.failed.set_exception(error or RuntimeError("the worker stopped"))

    async def _heed_crashes(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            if self.app.crashed:
                self.fail(None)
                return

    async def stop(self, timeout_s: float = _REVOKE_TIMEOUT_S) -> None:
        """Writes what is finished, saves what is open, commits and leaves the group, each within bounds."""
        self.barrier.finish()
        if self._writing is not None:
            await asyncio.wait([self._writing], timeout=timeout_s)
            # A write that does not end is torn by the end of the process; nothing may be committed after it.
            if self._writing.done() and not self._writing.exception():
                await self.barrier.last(timeout_s)
        if self._asking_ends is not None:
            self._tasks.append(self._asking_ends[2])
        await ended([*self._tasks, *(task for tasks in self._under_way.values() for task in tasks)])
        # A consumer that is stopped in the midst of a rebalance may never say that it has ended.
        error = await self._let_go(self.app.stop(), timeout_s)
        if error is not None and not self.app.crashed:
            raise error
        await self._let_go(self._outbox.stop(), timeout_s)
        self.barrier.close()
        self._reading.shutdown(wait=False, cancel_futures=True)
        for store in (self._reader, self.store):
            await self._let_go(asyncio.to_thread(store.close), timeout_s)

    async def _let_go(self, work: Coroutine[Any, Any, None], timeout_s: float) -> BaseException | None:
        done, late = await asyncio.wait([asyncio.create_task(work)], timeout=timeout_s)
        await ended(late)
        return next((task.exception() for task in done), None)

    def _make_app(self) -> faust.App:
        app = faust_app(self.settings, self.group, {topic: self._agent(topic) for topic in TOPICS})
        app.on_partitions_revoked.connect(self._on_revoked)
        app.on_partitions_assigned.connect(self._on_assigned)
        return app

    def _agent(self, topic: str) -> Callable[[Any], Awaitable[None]]:
        async def agent(stream: Any) -> None:
            async for batch in stream:
                try:
                    await self._begin(topic, batch)
                except asyncio.CancelledError:
                    raise
                except BaseException as e:
                    # Faust would take the batch for done.
                    self.fail(e)
                    raise

        return agent

    # ---- batches -------------------------------------------------------------------------------------------

    async def _begin(self, topic: str, batch: Batch) -> None:
        """Works a batch off; or, when the store must be asked for it, lets it wait while other partitions go on."""
        ready = self._ready.get(batch.partition)
        if ready is not None:
            await ready.wait()
        await self.barrier.room()
        under_way = self._under_way[topic]
        task = asyncio.create_task(self._in_turn(topic, batch))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
        task.add_done_callback(self._on_done)
        # Faust hands over what it has without a pause: let the others have their turn.
        await asyncio.sleep(0)
        if len(under_way) >= _UNDER_WAY_MAX:
            await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)

    async def _in_turn(self, topic: str, batch: Batch) -> None:
        async with self._turns[topic, batch.partition]:
            await self._work(topic, batch)

    async def _work(self, topic: str, batch: Batch) -> None:
        shard = batch.partition
        if batch.generation != self.barrier.generation:
            return
        at = self._next[topic, shard]
        if batch.first_offset > at:
            await self._reread(topic, batch, at)
            return
        entries = batch.records if batch.first_offset == at else [e for e in batch.records if e.offset >= at]
        self._tally.events[topic] += len(entries)
        held = self.flow.batch(topic, shard, entries, self._clock())
        if held:
            found = await self._lookup([h.event.message_id for h in held], self.flow.brief(shard, held))
            if batch.generation != self.barrier.generation:
                return
            self.flow.resume(topic, shard, entries, held, found, self._clock())
        if batch.records:
            self.app.consumer.worked(TopicPartition(batch.topic, shard), batch.records[-1].timestamp)
        aside("sampling a batch", self._sample, batch)
        self._next[topic, shard] = max(at, batch.next_offset)
        self.barrier.did(topic, shard, self._next[topic, shard])

    async def _reread(self, topic: str, batch: Batch, at: int) -> None:
        """Goes back for what was fetched but never came here, as a rebalance may have it, or is no longer there."""
        found = await self.app.consumer.reread(TopicPartition(batch.topic, batch.partition), at, batch.generation)
        if found is None or batch.generation != self.barrier.generation:
            return
        log.warning(
            "%s partition %d: read on at %d after %d, reading it again", batch.topic, batch.partition,
            batch.first_offset, at,
        )  # fmt: skip
        self._lost(topic, batch.partition, found - at)
        self._next[topic, batch.partition] = found

    def _lost(self, topic: str, shard: int, count: int) -> None:
        if count > 0:
            self._tally.lost[topic] += count
            log.error(
                "%s%s partition %d: %d entries were deleted before they were read", self.settings.topic_prefix, topic,
                shard, count,
            )  # fmt: skip

    def _sample(self, batch: Batch) -> None:
        for record in batch.records[::_SAMPLE_EVERY]:
            if record.key is not None and kafka.partition_of(record.key, self._partitions) != batch.partition:
                if not self._tally.misplaced:
                    log.warning(
                        "%s partition %d has an entry whose key belongs elsewhere; `mdr topics check` tells more",
                        batch.topic, batch.partition,
                    )  # fmt: skip
                self._tally.misplaced += 1

    async def _lookup(self, ids: list[str], brief: Set[str] = frozenset()) -> dict[str, Found]:
        return await self._retry_read(self._questions.answer, self._questions.put(ids, brief))

    async def _read(self, call: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._reading, call, *args)

    # ---- time ----------------------------------------------------------------------------------------------

    async def _tick_forever(self) -> None:
        for turn in itertools.count():
            await asyncio.sleep(_TICK_S)
            await self._find_ends()
            now_ms = self._clock()
            self._watch()
            partitions = dict(self.flow.partitions)
            asked = self.flow.tick(now_ms, ask=turn % _ASK_TICKS == 0)
            found = await self._lookup([mid for ids in asked.values() for mid in ids]) if asked else {}
            for shard, ids in asked.items():
                if self.flow.partitions.get(shard) is partitions[shard]:
                    partitions[shard].resolve_receipts(ids, found, self._clock())

    def _watch(self) -> None:
        """Ends the worker when there is something to read and nothing is read for no reason."""
        done = self.barrier.done
        # A consumer that does not say where the log ends is one that hangs.
        is_behind = self._asking_ends is not None or any(end > done.get(tp, 0) for tp, end in self.ends.items())
        recovering = any(not ready.is_set() for ready in self._ready.values())
        is_held_up = bool(recovering or self.barrier.trouble or self._read_trouble or self._broker_trouble)
        now_ms = monotonic_ms()  # a clock that is set says nothing about us
        if self._watchdog.is_stuck(sum(done.values()), is_behind=is_behind, is_held_up=is_held_up, now_ms=now_ms):
            self.fail(WorkerStuck(f"the log moves, but nothing was read for {STUCK_MS_MAX // 1000} s"))

    async def _find_ends(self) -> None:
        """Moves the watermarks of topics that are read to their end: the clock is read before the end is asked for."""
        if self._asking_ends is None:
            ends = asyncio.create_task(self.app.consumer.ends())
            self._asking_ends = self._clock(), self.barrier.generation, ends
        asked_ms, generation, asking = self._asking_ends
        await asyncio.wait([asking], timeout=_ENDS_TIMEOUT_S)
        if not asking.done():
            return
        self._asking_ends = None
        if asking.cancelled():  # the thread that was asked has ended
            return
        try:
            answer = asking.result()
        except KafkaError as e:
            if not self._broker_trouble:
                log.warning("the broker cannot be asked, trying again: %s", e)
            self._broker_trouble = str(e) or type(e).__name__
            return
        if self._broker_trouble:
            log.warning("the broker answers again")
        self._broker_trouble = ""
        if generation != self.barrier.generation:
            return
        for tp, end in answer.items():
            at = topic, shard = tp.topic.removeprefix(self.settings.topic_prefix), tp.partition
            self.ends[at] = end
            partition = self.flow.partitions.get(shard)
            if partition is not None and self._next[at] >= end:
                partition.caught_up(topic, asked_ms)
                self.barrier.did(topic, shard, self._next[at])

    # ---- partitions come and go ----------------------------------------------------------------------------

    async def _on_revoked(self, app: Any, revoked: Any, **_: Any) -> None:
        if self.flow.partitions:
            await self.barrier.last(_REVOKE_TIMEOUT_S)
        aside("gathering counts", self._tally.gather, self.flow.partitions)
        self.flow.partitions.clear()
        self.barrier.forget()
        self.ends.clear()
        self._next.clear()
        for ready in self._ready.values():
            ready.set()
        self._ready.clear()
        self._assigned = None

    async def _on_assigned(self, app: Any, assigned: Any, **_: Any) -> None:
        shards = sorted({tp.partition for tp in assigned})
        self.barrier.generation = self.app.consumer_generation_id
        self._assigned = len(shards)
        self._ready = {shard: asyncio.Event() for shard in shards}
        self._spawn(self._recover(shards, self.barrier.generation))

    async def _recover(self, shards: list[int], generation: int) -> None:
        starts = await self.app.consumer.starts()
        recovered = await self._retry_read(self._load, shards)
        if generation != self.barrier.generation:
            return
        begins = {tp: await self._begin_at(tp, start, recovered, generation) for tp, start in starts.items()}
        if generation != self.barrier.generation:
            return
        aside("gathering counts", self._tally.took, recovered.partitions)
        for tp, (begin, lost) in begins.items():
            topic = tp.topic.removeprefix(self.settings.topic_prefix)
            self._next[topic, tp.partition] = begin
            self._lost(topic, tp.partition, lost)
            self._read_again(topic, tp.partition, (starts[tp].committed or 0) - begin)
        self.flow.partitions.update(recovered.partitions)
        self.barrier.base = recovered.offsets
        for shard in shards:
            self._ready[shard].set()
        count = sum(len(p.lives) for p in recovered.partitions.values())
        log.info("took %d partitions with %d open messages", len(shards), count, extra={"partitions": shards})

    async def _begin_at(
        self, tp: TopicPartition, start: Start, recovered: recovery.Recovered, generation: int
    ) -> tuple[int, int]:
        """The first offset to read, and how many entries before it are gone; goes back where the store is older."""
        stored = recovered.begin(tp.topic.removeprefix(self.settings.topic_prefix), tp.partition, start.committed)
        if stored is None or stored == start.committed:
            return start.offset, start.lost
        found = await self.app.consumer.reread(tp, stored, generation)
        return (stored, 0) if found is None else (found, found - stored)

    def _read_again(self, topic: str, shard: int, count: int) -> None:
        if count > 0:
            self._tally.read_again[topic] += count
            log.error(
                "%s%s partition %d: the store is older than the offsets that were committed: %d entries are read again",
                self.settings.topic_prefix, topic, shard, count,
            )  # fmt: skip

    def _load(self, shards: list[int]) -> recovery.Recovered:
        return recovery.load(self._reader, shards, self.settings.settling_window_ms, self._clock())

    async def _retry_read(self, call: Callable[..., T], *args: Any) -> T:
        delay_s = 0.1
        while True:
            try:
                answer = await self._read(call, *args)
            except Unavailable as e:
                if not self._read_trouble:
                    log.warning("reading from the store fails, trying again: %s", e)
                self._read_trouble = str(e)
                await asyncio.sleep(delay_s)
                delay_s = min(5.0, delay_s * 2)
            else:
                if self._read_trouble:
                    log.warning("reading from the store works again")
                self._read_trouble = ""
                return answer

    # ---- what was written ----------------------------------------------------------------------------------

    def _on_written(self, checkpoint: bool, took_ms: int) -> None:
        self.flushed_ms = self._clock()
        if checkpoint:
            self.checkpointed_ms = self.flushed_ms
        self.telemetry.write_seconds.labels("checkpoint" if checkpoint else "flush").observe(took_ms / 1000)

    async def _commit(self, offsets: Mapping[TopicPartition, int], generation: int) -> bool:
        """Refused when the group has moved on."""
        if generation != self.barrier.generation:
            return False
        return bool(await self.app.consumer.commit_fenced(offsets, generation))
