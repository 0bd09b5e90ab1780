"""A Faust transport that hands out batches: one Faust event for each partition's share of a fetch.

Faust's own path costs tens of microseconds an event; this one costs that once a batch. Faust neither tracks nor commits
these offsets (the topics are declared without acks): `commit` here is the only way an offset moves, and it is refused
when the group's generation is no longer the one the batch was read in.

All this leans on private names of one Faust and one aiokafka version. `check_private_names` refuses to start on others
and says which name moved.
"""

import asyncio
import inspect
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, Final, NamedTuple

import aiokafka
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import (
    CommitFailedError,
    IllegalGenerationError,
    IllegalStateError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)
from aiokafka.structs import ConsumerRecord, TopicPartition
from faust.transport.consumer import ConsumerThread
from faust.transport.drivers import aiokafka as driver
from faust.types.tuples import TP, ConsumerMessage

PINNED: Final = {"faust-streaming": "0.15.3", "mode-streaming": "0.7.1", "aiokafka": "0.14.0"}
POLL_RECORDS_MAX: Final = 6_000
_FETCH_BYTES_MAX: Final = 1 << 20
# Of log time, by which one partition may be read ahead of another.
_AHEAD_MS_MAX: Final = 10_000


class TransportMoved(Exception):
    """A name this transport leans on is not what it was; one sentence that says which."""


class Batch(NamedTuple):
    """The records of one partition in one fetch, and where the partition's reading goes on after them."""

    topic: str
    partition: int
    generation: int
    records: list[ConsumerRecord]
    next_offset: int


def _states(consumer: Any) -> list[tuple[Any, Any]]:
    """What aiokafka knows of each assigned partition."""
    assignment = consumer._subscription.subscription.assignment
    return [(tp, assignment.state_value(tp)) for tp in assignment.tps] if assignment is not None else []


class _Thread(driver.AIOKafkaConsumerThread):
    """The thread that owns the aiokafka consumer."""

    newest_ms: dict[TopicPartition, int]

    def _create_worker_consumer(self, transport: "Transport") -> aiokafka.AIOKafkaConsumer:
        options = transport.consumer_options
        self.newest_ms = {}
        self._assignor = RangePartitionAssignor
        return aiokafka.AIOKafkaConsumer(
            group_id=self.app.conf.id,
            # Range over topics of equal partition counts gives each worker the same numbers of every topic.
            partition_assignment_strategy=[RangePartitionAssignor],
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            max_poll_records=POLL_RECORDS_MAX,
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
        wanted = self._abreast(consumer, active_partitions)
        records = await super()._fetch_records(consumer, wanted, timeout, max_records)
        for tp, entries in records.items():
            if entries:
                self.newest_ms[tp] = entries[-1].timestamp
        # Read in the same step as the records, so that a position never runs ahead of what was handed over with it.
        return records, {tp: state.position for tp, state in _states(consumer) if state.has_valid_position}

    def _abreast(self, consumer: Any, active: Any) -> Any:
        """The partitions to read from now: in a backlog none runs far ahead of the slowest.

        What belongs together then meets in memory soon, however unevenly the broker hands out its topics.
        """
        behind = [
            self.newest_ms.get(tp, 0)
            for tp, state in _states(consumer)
            if tp in active
            and state.has_valid_position
            and state.highwater is not None
            and state.position < state.highwater
        ]
        if not behind:
            return active
        limit_ms = min(behind) + _AHEAD_MS_MAX
        return {tp for tp in active if self.newest_ms.get(tp, 0) <= limit_ms}

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

    async def lost(self) -> dict[TopicPartition, int]:
        """By partition, how many entries the broker dropped between what was committed and what it still holds."""
        consumer = self._ensure_consumer()
        assigned = list(consumer.assignment())
        gaps = {}
        for tp, begin in (await consumer.beginning_offsets(assigned)).items() if assigned else ():
            committed = await consumer.committed(tp)
            if committed is not None and committed < begin:
                gaps[tp] = begin - committed
        return gaps


class _Consumer(driver.Consumer):
    """Hands each partition's records of a fetch to Faust as one message."""

    positions: dict[TopicPartition, int]
    handed: dict[TopicPartition, int]

    def _new_consumer_thread(self) -> ConsumerThread:
        self.positions = {}
        self.handed = {}
        return _Thread(self, loop=self.loop, beacon=self.beacon)

    async def _getmany(self, active_partitions: Any, timeout: float) -> Any:  # noqa: ASYNC109
        fetched = await super()._getmany(active_partitions, timeout)
        if not fetched:
            return {}
        records, positions = fetched
        generation = self.app.consumer_generation_id
        batches = {}
        for tp, entries in records.items():
            if entries:
                next_offset = positions.get(tp, entries[-1].offset + 1)
                batches[tp] = [Batch(tp.topic, tp.partition, generation, entries, next_offset)]
                self.handed[tp] = self.handed.get(tp, 0) + 1
        self.positions.update(positions)
        return batches

    def _to_message(self, tp: TP, record: Batch) -> ConsumerMessage:
        last = record.records[-1]
        return ConsumerMessage(
            record.topic, record.partition, last.offset, last.timestamp / 1000.0, last.timestamp_type, (), None, record,
            None, 0, 0, tp,
            # Without it Faust drops the message without a word.
            generation_id=record.generation,
        )  # fmt: skip

    def forget(self) -> None:
        """Starts counting anew: what was handed out before a rebalance will never be worked off."""
        self.positions.clear()
        self.handed.clear()
        self._thread.newest_ms.clear()

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Nothing: Faust's stall warnings measure acks, which these topics do not have."""

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

    async def lost(self) -> dict[TopicPartition, int]:
        """See `_Thread.lost`."""
        return dict(await self._thread.call_thread(self._thread.lost))


class Transport(driver.Transport):
    """Give it to `app.transport`; `consumer_options` are what connects an aiokafka client (servers, security)."""

    Consumer = _Consumer
    consumer_options: dict[str, Any]


# What is overridden or called, and what it must look like: (owner, name, parameters or None for an attribute).
_PRIVATE: Final[tuple[tuple[Any, str, str | None], ...]] = (
    (driver.AIOKafkaConsumerThread, "_create_worker_consumer", "(self, transport)"),
    (driver.AIOKafkaConsumerThread, "_fetch_records", "(self, consumer, active_partitions, timeout, max_records)"),
    (driver.AIOKafkaConsumerThread, "_ensure_consumer", "(self)"),
    (driver.AIOKafkaConsumerThread, "call_thread", "(self, fun, args, kwargs)"),
    (driver.Consumer, "_new_consumer_thread", "(self)"),
    (driver.Consumer, "_getmany", "(self, active_partitions, timeout)"),
    (driver.Consumer, "_to_message", "(self, tp, record)"),
    (driver.Consumer, "verify_event_path", "(self, now, tp)"),
    (driver.Transport, "Consumer", None),
    (aiokafka.AIOKafkaConsumer, "commit", "(self, offsets)"),
    (aiokafka.AIOKafkaConsumer, "end_offsets", "(self, partitions)"),
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
    where = f"{owner.__module__}.{owner.__qualname__}.{name}"
    member = inspect.getattr_static(owner, name, None)
    if member is None:
        raise TransportMoved(f"{where} is gone, and the batch transport leans on it")
    if parameters is not None:
        found = f"({', '.join(inspect.signature(member).parameters)})"
        if found != parameters:
            raise TransportMoved(f"{where} takes {found} now, and the batch transport gives it {parameters}")
