"""A Faust transport that hands out batches: one Faust event for each partition's share of a fetch.

Faust's own path costs tens of microseconds an event; this one costs that once a batch. Faust neither tracks nor commits
these offsets (the topics are declared without acks): `commit` here is the only way an offset moves, and it is refused
when the group's generation is no longer the one the batch was read in.

All this leans on private names of one Faust and one aiokafka version. `check_private_names` refuses to start on others
and says which name moved.
"""

import asyncio
import inspect
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import version
from typing import Any, Final, NamedTuple

import aiokafka
from aiokafka.consumer import fetcher as fetching
from aiokafka.consumer.fetcher import Fetcher, FetchResult, PartitionRecords
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import (
    CommitFailedError,
    IllegalGenerationError,
    IllegalStateError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)
from aiokafka.structs import TopicPartition
from faust.transport.consumer import ConsumerThread
from faust.transport.drivers import aiokafka as driver
from faust.types.tuples import TP, ConsumerMessage
from mode.threads import ServiceThread

from streams import fetched
from streams.effects import Entry
from streams.fetched import NEVER_MS, Left, Unread, credible_ms, share

PINNED: Final = {"faust-streaming": "0.15.3", "mode-streaming": "0.7.1", "aiokafka": "0.14.0"}
POLL_RECORDS_MAX: Final = 6_000
_FETCH_BYTES_MAX: Final = 1 << 20
# Of log time, by which one partition may be read ahead of another.
_AHEAD_MS_MAX: Final = 10_000


class TransportMoved(Exception):
    """A name this transport leans on is not what it was; one sentence that says which."""


class Batch(NamedTuple):
    """One partition's share of one fetch: the log from `first_offset` up to, not including, `next_offset`.

    Each begins where the one before ended, so that a reader sees whether one is missing. There are no records in it
    where the log holds only what a reader is not shown: markers, compacted and aborted entries.
    """

    topic: str
    partition: int
    generation: int
    records: Sequence[Entry]
    first_offset: int
    next_offset: int


class Start(NamedTuple):
    """Where a partition is read from: what the group committed, if anything, and where the log begins by now."""

    committed: int | None
    begin: int

    @property
    def offset(self) -> int:
        """The first offset to read."""
        return self.begin if self.committed is None else max(self.committed, self.begin)

    @property
    def lost(self) -> int:
        """How many entries the broker dropped before they were read."""
        return 0 if self.committed is None else self.offset - self.committed


class _Unheeded(dict[Any, Any]):
    """Faust's read offsets. It drops what lies before them without a word, also when reading went back on purpose."""

    def __getitem__(self, tp: Any) -> None:
        return None

    def __setitem__(self, tp: Any, offset: Any) -> None:
        pass

    def update(self, *_: Any, **__: Any) -> None:
        """Nothing."""


def _states(consumer: Any) -> list[tuple[Any, Any]]:
    """What aiokafka knows of each assigned partition whose position it knows."""
    assignment = consumer._subscription.subscription.assignment
    states = ((tp, assignment.state_value(tp)) for tp in assignment.tps) if assignment is not None else ()
    return [(tp, state) for tp, state in states if state.has_valid_position]


def _is_behind(state: Any) -> bool:
    """Whether a partition has something to read that a reader may be shown: nothing beyond an open transaction."""
    ends = [end for end in (state.highwater, state.lso) if end is not None]
    return bool(ends) and state.position < min(ends)


def _unread(fetcher: Any) -> dict[Any, Unread]:
    """What was fetched and not read yet."""
    unread = {tp: getattr(result, "_partition_records", None) for tp, result in fetcher._records.items()}
    return {tp: records for tp, records in unread.items() if records is not None}


def _hand_out_in_shares(fetcher: Any, limits: Mapping[Any, int]) -> None:
    """Hands out a share a partition at a time, and by `limits` up to a time in the log.

    One fetch may hold minutes of a partition's log, and what belongs together would wait in memory for as long.
    """
    left = Left(POLL_RECORDS_MAX)
    for tp in _unread(fetcher):
        # By its place: with itself in it only the collector would free it.
        fetcher._records[tp].getall = partial(share, fetcher._records, tp, left, limits.get(tp, NEVER_MS))


class _Thread(driver.AIOKafkaConsumerThread):
    """The thread that owns the aiokafka consumer."""

    newest_ms: dict[TopicPartition, int]
    worked_ms: dict[TopicPartition, int]
    leaders: Mapping[str, str]
    # Where a partition was gone back to, and in which generation: Faust may go to what is committed after it.
    went_back: dict[TopicPartition, tuple[int, int]]

    def _create_worker_consumer(self, transport: "Transport") -> aiokafka.AIOKafkaConsumer:
        options = transport.consumer_options
        self.newest_ms, self.worked_ms, self.went_back = {}, {}, {}
        self.leaders = transport.leaders
        fetched.install()
        self._assignor = RangePartitionAssignor
        return aiokafka.AIOKafkaConsumer(
            group_id=self.app.conf.id,
            # Range over topics of equal partition counts gives each worker the same numbers of every topic.
            partition_assignment_strategy=[RangePartitionAssignor],
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            # A store that is away for hours must not cost the membership: Faust would never come back from that.
            max_poll_interval_ms=7 * 86_400_000,
            max_partition_fetch_bytes=_FETCH_BYTES_MAX,
            # A long poll for quiet partitions holds up the fetch of those that fall behind.
            fetch_max_wait_ms=40,
            check_crcs=True,
            session_timeout_ms=10_000,
            heartbeat_interval_ms=2_000,
            rebalance_timeout_ms=60_000,
            metadata_max_age_ms=30_000,
            **options,
        )

    async def _fetch_records(
        self,
        consumer: Any,
        active_partitions: Any,
        timeout: Any = None,  # noqa: ASYNC109  # the signature is Faust's
        max_records: Any = None,
    ) -> Any:
        batches = await self._drain(consumer, active_partitions)
        if not batches and timeout:
            waiter = consumer._fetcher._create_fetch_waiter()
            await asyncio.wait([waiter], timeout=timeout)
            waiter.result() if waiter.done() else waiter.cancel()  # what the broker denies us is raised
            batches = await self._drain(consumer, active_partitions)
        return batches

    async def _drain(self, consumer: Any, active: Any) -> dict[TopicPartition, list[Batch]]:
        """What was fetched already. Nothing else runs meanwhile: positions, records and generation belong together."""
        if consumer._subscription.reassignment_in_progress:
            return {}
        generation = consumer._coordinator.generation
        before = {tp: state.position for tp, state in _states(consumer)}
        next_ms = {tp: records.newest_ms() for tp, records in _unread(consumer._fetcher).items()}
        limits = self._limits(consumer, active, next_ms)
        _hand_out_in_shares(consumer._fetcher, limits)
        records = await super()._fetch_records(consumer, set(limits), 0, None)
        for tp, entries in records.items():
            self.newest_ms[tp] = max(self.newest_ms.get(tp, 0), credible_ms(entries[-1].timestamp))
        return {
            tp: [Batch(tp.topic, tp.partition, generation, records.get(tp, []), before[tp], state.position)]
            for tp, state in _states(consumer)
            if state.position != before.get(tp, state.position)
        }

    def _limits(self, consumer: Any, active: Any, next_ms: Mapping[Any, int]) -> dict[TopicPartition, int]:
        """The partitions to read from now, and up to which time in the log; `next_ms` is that of what comes next.

        In a backlog none runs far ahead of the slowest, and none ahead of the one it follows: what belongs together
        then meets in memory soon, however unevenly the broker hands out its topics.
        """
        read_ms = {tp: self.newest_ms.get(tp, 0) for tp in active}
        behind = {tp: read_ms[tp] for tp, state in _states(consumer) if tp in active and _is_behind(state)}
        leader = {tp: TopicPartition(self.leaders.get(tp.topic, ""), tp.partition) for tp in active}
        led = {tp: self.worked_ms.get(leader[tp], 0) for tp in active if leader[tp] in behind}
        waiting = {tp for tp, until_ms in led.items() if next_ms.get(tp, 0) > until_ms}
        # What waits for its leader is not waited for: the slowest of the others may always be read.
        bound_ms = min((ms for tp, ms in behind.items() if tp not in waiting), default=NEVER_MS) + _AHEAD_MS_MAX
        return {tp: led.get(tp, NEVER_MS) for tp in active if tp not in waiting and read_ms[tp] <= bound_ms}

    async def commit_fenced(self, offsets: Mapping[TopicPartition, int], generation: int) -> bool:
        """Commits, unless the group has moved on since `generation`; False when refused."""
        consumer = self._ensure_consumer()
        if consumer._coordinator.generation != generation:
            return False
        try:
            await consumer.commit(dict(offsets))
        except (
            CommitFailedError, IllegalGenerationError, IllegalStateError, RebalanceInProgressError,
            UnknownMemberIdError,
        ):  # fmt: skip
            return False
        return True

    async def ends(self) -> dict[TopicPartition, int]:
        """The end offsets of what is assigned: of what a `read_committed` consumer can reach."""
        consumer = self._ensure_consumer()
        assigned = list(consumer.assignment())
        return dict(await consumer.end_offsets(assigned)) if assigned else {}

    async def starts(self) -> dict[TopicPartition, Start]:
        """Where the group stands on what is assigned."""
        consumer = self._ensure_consumer()
        assigned = list(consumer.assignment())
        begins = await consumer.beginning_offsets(assigned) if assigned else {}
        committed = await asyncio.gather(*(consumer.committed(tp) for tp in assigned))
        return {tp: Start(at, begins[tp]) for tp, at in zip(assigned, committed, strict=True)}

    async def seek_to_committed(self) -> Any:
        """Reads anew what Faust fetched and dropped in a rebalance.

        Its own leaves out the partitions that nothing was committed of: their first entries would be lost.
        """
        return await self.call_thread(self._rewind)

    async def _rewind(self) -> dict[TopicPartition, int]:
        starts = await self.starts()
        self.newest_ms.clear()
        self.worked_ms.clear()
        offsets = {tp: self._gone_back(tp, start.offset) for tp, start in starts.items()}
        return {tp: offset for tp, offset in offsets.items() if self._seek(tp, offset)}

    def _gone_back(self, tp: TopicPartition, offset: int) -> int:
        generation, gone_back = self.went_back.get(tp, (-1, offset))
        return min(offset, gone_back) if generation == self._ensure_consumer()._coordinator.generation else offset

    async def reread(self, tp: TopicPartition, offset: int, generation: int) -> int | None:
        """Goes back to `offset`, or to where the log begins by now if that is later; None when the group moved on."""
        consumer = self._ensure_consumer()
        begin = (await consumer.beginning_offsets([tp]))[tp]
        at: int = max(offset, begin)
        self.newest_ms.pop(tp, None)
        self.worked_ms.pop(tp, None)
        if consumer._coordinator.generation != generation or not self._seek(tp, at):
            return None
        self.went_back[tp] = generation, at
        return at

    async def stop(self) -> None:
        """Stops the thread while the event loop goes on, which the thread may be waiting for."""
        if self._started.is_set():
            await super(ServiceThread, self).stop()
            if self._thread is not None:
                await asyncio.to_thread(self._thread.stop)

    def _seek(self, tp: TopicPartition, offset: int) -> bool:
        consumer = self._ensure_consumer()
        is_ours = tp in consumer.assignment()
        if is_ours:
            consumer.seek(tp, offset)
        return is_ours


class _Consumer(driver.Consumer):
    """Hands each partition's share of a fetch to Faust as one message."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._read_offset = _Unheeded()

    def _new_consumer_thread(self) -> ConsumerThread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)

    def _to_message(self, tp: TP, record: Batch) -> ConsumerMessage:
        return ConsumerMessage(
            record.topic, record.partition, record.next_offset - 1, 0.0, 0, (), None, record, None, 0, 0, tp,
            # Without it Faust drops the message without a word.
            generation_id=record.generation,
        )  # fmt: skip

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Nothing: Faust's stall warnings measure acks, which these topics do not have."""

    def worked(self, tp: TopicPartition, until_ms: int) -> None:
        """Says up to which time in the log a partition was worked off, for those that follow it."""
        worked_ms = self._thread.worked_ms
        worked_ms[tp] = max(worked_ms.get(tp, 0), credible_ms(until_ms))

    async def commit_fenced(self, offsets: Mapping[TopicPartition, int], generation: int) -> bool:
        """See `_Thread.commit_fenced`; False also when the consumer ends meanwhile."""
        try:
            return bool(await self._thread.call_thread(self._thread.commit_fenced, offsets, generation))
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # The thread is ending and gave up what it was asked. As our own end this would stop the thread half-way.
            return False

    async def ends(self) -> dict[TopicPartition, int]:
        """See `_Thread.ends`."""
        return dict(await self._thread.call_thread(self._thread.ends))

    async def starts(self) -> dict[TopicPartition, Start]:
        """See `_Thread.starts`."""
        return dict(await self._thread.call_thread(self._thread.starts))

    async def reread(self, tp: TopicPartition, offset: int, generation: int) -> int | None:
        """See `_Thread.reread`."""
        at: int | None = await self._thread.call_thread(self._thread.reread, tp, offset, generation)
        return at


class Transport(driver.Transport):
    """Give it to `app.transport`; `consumer_options` are what connects an aiokafka client (servers, security).

    `leaders` are topics by those that follow them: in a backlog a follower is read after its leader.
    """

    Consumer = _Consumer
    consumer_options: dict[str, Any]
    leaders: Mapping[str, str]


_OF_PARTITION_RECORDS: Final = (
    "(self, tp, records, aborted_transactions, fetch_offset, key_deserializer, value_deserializer, check_crcs,"
    " isolation_level)"
)
# What is overridden or called, and what it must look like: (owner, name, parameters or None for an attribute).
_PRIVATE: Final[tuple[tuple[Any, str, str | None], ...]] = (
    (driver.AIOKafkaConsumerThread, "_create_worker_consumer", "(self, transport)"),
    (driver.AIOKafkaConsumerThread, "_fetch_records", "(self, consumer, active_partitions, timeout, max_records)"),
    (driver.AIOKafkaConsumerThread, "_ensure_consumer", "(self)"),
    (driver.AIOKafkaConsumerThread, "seek_to_committed", "(self)"),
    (driver.AIOKafkaConsumerThread, "call_thread", "(self, fun, args, kwargs)"),
    (ServiceThread, "stop", "(self)"),
    (driver.Consumer, "_new_consumer_thread", "(self)"),
    (driver.Consumer, "_to_message", "(self, tp, record)"),
    (driver.Consumer, "verify_event_path", "(self, now, tp)"),
    (driver.Transport, "Consumer", None),
    (aiokafka.AIOKafkaConsumer, "commit", "(self, offsets)"),
    (aiokafka.AIOKafkaConsumer, "end_offsets", "(self, partitions)"),
    (aiokafka.AIOKafkaConsumer, "beginning_offsets", "(self, partitions)"),
    (aiokafka.AIOKafkaConsumer, "committed", "(self, partition)"),
    (aiokafka.AIOKafkaConsumer, "seek", "(self, partition, offset)"),
    (fetching, "MemoryRecords", None),
    (Fetcher, "_create_fetch_waiter", "(self)"),
    (fetching, "PartitionRecords", None),
    (fetching, "FetchResult", None),
    (FetchResult, "__init__", "(self, tp, assignment, partition_records, backoff)"),
    (FetchResult, "getall", "(self, max_records)"),
    (FetchResult, "check_assignment", "(self, tp)"),
    (FetchResult, "has_more", "(self)"),
    (FetchResult, "_update_position", "(self)"),
    (PartitionRecords, "__init__", _OF_PARTITION_RECORDS),
    (SubscriptionState, "reassignment_in_progress", None),
)


def check_private_names() -> None:
    """Raises `TransportMoved` unless every name this transport leans on is still what it was."""
    for package, pinned in PINNED.items():
        if version(package) != pinned:
            raise TransportMoved(f"{package} is {version(package)}, but the batch transport was made for {pinned}")
    for owner, name, parameters in _PRIVATE:
        check_name(owner, name, parameters)


def check_name(owner: Any, name: str, parameters: str | None) -> None:
    """Raises `TransportMoved` unless `owner.name` exists and takes these parameters."""
    home = owner.__name__ if inspect.ismodule(owner) else f"{owner.__module__}.{owner.__qualname__}"
    where = f"{home}.{name}"
    member = inspect.getattr_static(owner, name, None)
    if member is None:
        raise TransportMoved(f"{where} is gone, and the batch transport leans on it")
    if parameters is not None:
        found = f"({', '.join(inspect.signature(member).parameters)})"
        if found != parameters:
            raise TransportMoved(f"{where} takes {found} now, and the batch transport gives it {parameters}")
