"""Everything asked of a Kafka broker but the consuming: how to connect, the topics, producing."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaConnectionError, KafkaError, TopicAlreadyExistsError
from aiokafka.partitioner import murmur2
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.structs import TopicPartition

from schemas.events import TOPICS
from streams import fetched, record_batches, security
from streams.clock import clock_ms
from streams.security import client_options as client_options
from streams.settings import Settings

DEAD_LETTERS: Final = "dead-letters"
_INPUT_BYTES_MAX: Final = 2 << 20
_DEAD_BYTES_MAX: Final = 4 << 20
# Before compression; the broker has its own bound after it.
_REQUEST_BYTES_MAX: Final = 256 << 20
# Of entries that we send together.
_RUN_BYTES_MAX: Final = 1 << 18
_REPLICAS_MAX: Final = 3
_CONNECT_TIMEOUT_S: Final = 20


class KafkaUnavailable(Exception):
    """The broker cannot be used; one sentence that names it."""


class TopicsWrong(Exception):
    """The topics are not as they must be; one sentence that names them."""


@lru_cache(16_384)  # a message's events follow each other, and the hash is made of Python
def partition_of(key: bytes, partitions: int) -> int:
    """The partition the Java client's default partitioner gives a key."""
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)


@asynccontextmanager
async def _started(client: Any, settings: Settings) -> AsyncIterator[Any]:
    try:
        await asyncio.wait_for(client.start(), _CONNECT_TIMEOUT_S)
    except (TimeoutError, KafkaError, OSError) as e:
        await _close(client)
        reason = await security.why(settings) or _reason(e)
        raise KafkaUnavailable(f"the Kafka broker at {settings.kafka} cannot be reached: {reason}") from None
    try:
        yield client
    finally:
        await _close(client)


async def _close(client: Any) -> None:
    await (client.close() if isinstance(client, AIOKafkaAdminClient) else client.stop())


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {_CONNECT_TIMEOUT_S} s"
    if isinstance(error, KafkaConnectionError):
        return "nothing answers there"
    return str(error) or type(error).__name__


def producer(settings: Settings, **options: Any) -> AIOKafkaProducer:
    """A producer whose sends are durable once awaited; for callers that keep it."""
    return AIOKafkaProducer(
        **client_options(settings), acks="all", enable_idempotence=True, max_request_size=_REQUEST_BYTES_MAX,
        request_timeout_ms=30_000, **options,
    )  # fmt: skip


@asynccontextmanager
async def producing(settings: Settings) -> AsyncIterator[AIOKafkaProducer]:
    """A started producer for bulk: batches of lz4."""
    fast = producer(settings, linger_ms=20, max_batch_size=1 << 18, compression_type="lz4")
    async with _started(fast, settings) as client:
        yield client


def consumer(settings: Settings, **options: Any) -> AIOKafkaConsumer:
    """A consumer that reads whatever a broker took, in bounded memory."""
    fetched.install()
    return AIOKafkaConsumer(**client_options(settings), enable_auto_commit=False, **options)


class _Written(BatchBuilder):  # type: ignore[misc]
    """A record batch that we wrote, where aiokafka has those it writes itself."""

    def __init__(self, entries: Sequence[record_batches.Written]) -> None:
        self._buffer = record_batches.encode(entries, clock_ms())
        self._relative_offset = len(entries)
        self._closed = True

    def _set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        record_batches.stamped(self._buffer, producer_id, producer_epoch, base_sequence)


async def produce(
    client: AIOKafkaProducer, entries: Sequence[tuple[str, record_batches.Written]]
) -> list[tuple[str, int, int] | KafkaError]:
    """Produces entries to topics byte for byte: any header's name, and also what has neither key nor value.

    Returns where each stands then, or why it does not; raises KafkaError where nothing can be produced.
    """
    runs: list[tuple[TopicPartition, list[int], Any]] = []
    for tp, places in await _placed(client, entries):
        for run in _runs(entries, places):
            batch = _Written([entries[n][1] for n in run])
            runs.append((tp, run, await client.send_batch(batch, tp.topic, partition=tp.partition)))
    outcomes = await asyncio.gather(*(future for *_, future in runs), return_exceptions=True)
    found: dict[int, tuple[str, int, int] | KafkaError] = {}
    for (tp, run, _), outcome in zip(runs, outcomes, strict=True):
        if isinstance(outcome, BaseException) and not isinstance(outcome, KafkaError):
            raise outcome
        for ahead, n in enumerate(run):
            is_refused = isinstance(outcome, KafkaError)
            found[n] = outcome if is_refused else (tp.topic, tp.partition, outcome.offset + ahead)
    return [found[n] for n in range(len(entries))]


async def _placed(
    client: AIOKafkaProducer, entries: Sequence[tuple[str, record_batches.Written]]
) -> list[tuple[TopicPartition, list[int]]]:
    """Which entries go to which partition; those without a key all to one."""
    places: dict[TopicPartition, list[int]] = {}
    counts = {topic: len(await client.partitions_for(topic)) for topic in {topic for topic, _ in entries}}
    for n, (topic, (key, _, _)) in enumerate(entries):
        at = clock_ms() % counts[topic] if key is None else partition_of(key, counts[topic])
        places.setdefault(TopicPartition(topic, at), []).append(n)
    return list(places.items())


def _runs(entries: Sequence[tuple[str, record_batches.Written]], places: Sequence[int]) -> Iterator[list[int]]:
    """Entries that are sent together: not so many bytes that a broker would refuse them for it."""
    run: list[int] = []
    size = 0
    for n in places:
        own = record_batches.size_of(*entries[n][1])
        if run and size + own > _RUN_BYTES_MAX:
            yield run
            run, size = [], 0
        run.append(n)
        size += own
    if run:
        yield run


@asynccontextmanager
async def reading(settings: Settings) -> AsyncIterator[tuple[AIOKafkaConsumer, dict[str, int]]]:
    """A started consumer outside of any group, and the partition count of each of our topics; 0 for a missing one."""
    options = client_options(settings)
    async with _started(AIOKafkaAdminClient(**options), settings) as admin:
        counts = await _partition_counts(admin, settings)
    async with _started(consumer(settings, isolation_level="read_committed"), settings) as client:
        yield client, counts


async def committed(settings: Settings) -> dict[TopicPartition, int]:
    """The offsets that the workers' group has committed."""
    async with _started(AIOKafkaAdminClient(**client_options(settings)), settings) as admin:
        found = await admin.list_consumer_group_offsets(settings.group)
    return {tp: at.offset for tp, at in found.items() if at.offset >= 0}


async def retentions(settings: Settings) -> dict[str, int | None]:
    """`retention.ms` of each of our topics that is there; -1 keeps for ever, None is not told."""
    async with _started(AIOKafkaAdminClient(**client_options(settings)), settings) as admin:
        counts = await _partition_counts(admin, settings)
        names = [settings.topic_prefix + name for name in (*TOPICS, DEAD_LETTERS)]
        there = [name for name in names if counts.get(name)]
        asked = [ConfigResource(ConfigResourceType.TOPIC, name, configs={"retention.ms": None}) for name in there]
        answers = await admin.describe_configs(asked) if asked else []
    found: dict[str, int | None] = dict.fromkeys(there)
    for answer in answers:
        for _, _, _, name, entries in answer.resources:
            values = [value for key, value, *_ in entries if key == "retention.ms" and value is not None]
            found[name] = int(values[0]) if values else None
    return found


async def create_topics(settings: Settings) -> list[str]:
    """Creates what is missing of our topics; returns the names created, and raises `TopicsWrong` for uneven counts."""
    async with _started(AIOKafkaAdminClient(**client_options(settings)), settings) as admin:
        counts = await _partition_counts(admin, settings)
        missing = [name for name, count in counts.items() if not count]
        inputs = {count for name, count in counts.items() if count and not name.endswith(DEAD_LETTERS)}
        partitions = inputs.pop() if len(inputs) == 1 else settings.partitions
        replicas = min(_REPLICAS_MAX, len((await admin.describe_cluster())["brokers"]))
        for name in missing:
            await _create(admin, name, partitions, replicas)
    await check_topics(settings)
    return missing


async def _create(admin: AIOKafkaAdminClient, name: str, partitions: int, replicas: int) -> None:
    bytes_max = _DEAD_BYTES_MAX if name.endswith(DEAD_LETTERS) else _INPUT_BYTES_MAX
    topic = NewTopic(name, partitions, replicas, topic_configs={"max.message.bytes": str(bytes_max)})
    try:
        response = await admin.create_topics([topic])
    except TopicAlreadyExistsError:
        return
    for _, code, message in response.topic_errors:
        if code not in (0, TopicAlreadyExistsError.errno):
            raise TopicsWrong(f"the topic {name} cannot be created: {message or code}")


async def check_topics(settings: Settings) -> int:
    """The partition count that the input topics share; raises `TopicsWrong` naming what is missing or uneven."""
    async with _started(AIOKafkaAdminClient(**client_options(settings)), settings) as admin:
        for _ in range(50):  # a topic just created takes a moment to be known everywhere
            counts = await _partition_counts(admin, settings)
            if all(counts.values()):
                break
            await asyncio.sleep(0.1)
    missing = [name for name, count in counts.items() if not count]
    if missing:
        raise TopicsWrong(f"no such topic: {', '.join(missing)}; `mdr topics create` creates it")
    inputs = {name: count for name, count in counts.items() if not name.endswith(DEAD_LETTERS)}
    if len(set(inputs.values())) > 1:
        told = ", ".join(f"{name} has {count}" for name, count in inputs.items())
        raise TopicsWrong(f"the input topics must have the same number of partitions, but {told}")
    return next(iter(inputs.values()))


async def _partition_counts(admin: AIOKafkaAdminClient, settings: Settings) -> dict[str, int]:
    names = [settings.topic_prefix + name for name in (*TOPICS, DEAD_LETTERS)]
    described = {t["topic"]: len(t["partitions"]) for t in await admin.describe_topics(names) if not t["error_code"]}
    return {name: described.get(name, 0) for name in names}


async def misplaced(settings: Settings, sample: int = 200) -> list[str]:
    """Entries among the newest of each input partition whose key belongs to another partition, as sentences."""
    partitions = await check_topics(settings)
    told = []
    async with _started(consumer(settings), settings) as client:
        for name in (settings.topic_prefix + topic for topic in TOPICS):
            for partition in range(partitions):
                tp = TopicPartition(name, partition)
                wrong = [r async for r in _newest(client, tp, sample) if _is_misplaced(r, partition, partitions)]
                if wrong:
                    told.append(
                        f"{name} partition {partition}: {len(wrong)} of the newest entries belong elsewhere by key"
                        " (the producer must use the murmur2 partitioner)"
                    )
    return told


def _is_misplaced(record: Any, partition: int, partitions: int) -> bool:
    return record.key is not None and partition_of(record.key, partitions) != partition


async def _newest(client: AIOKafkaConsumer, tp: TopicPartition, sample: int) -> AsyncIterator[Any]:
    client.assign([tp])
    end = (await client.end_offsets([tp]))[tp]
    begin = max((await client.beginning_offsets([tp]))[tp], end - sample)
    client.seek(tp, begin)
    while begin < end:
        for record in (await client.getmany(tp, timeout_ms=2_000)).get(tp, ()):
            yield record
        before, begin = begin, await client.position(tp)
        if begin <= before:
            return


async def read_back(settings: Settings, sources: Iterable[str]) -> list[Any]:
    """The log entries at `topic:partition:offset`, as far as the broker still holds them."""
    entries = []
    async with _started(consumer(settings), settings) as client:
        for source in sources:
            topic, partition, offset = source.rsplit(":", 2)
            tp = TopicPartition(topic, int(partition))
            client.assign([tp])
            client.seek(tp, int(offset))
            records = (await client.getmany(tp, timeout_ms=5_000, max_records=1)).get(tp, [])
            entries += [r for r in records if r.offset == int(offset)]
    return entries
