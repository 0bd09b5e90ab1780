"""Everything asked of a Kafka broker but the consuming: how to connect, the topics, producing."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaConnectionError, KafkaError, TopicAlreadyExistsError
from aiokafka.partitioner import murmur2
from aiokafka.structs import TopicPartition

from schemas.events import TOPICS
from streams.settings import Settings

DEAD_LETTERS: Final = "dead-letters"
_INPUT_BYTES_MAX: Final = 2 << 20
_DEAD_BYTES_MAX: Final = 4 << 20
# Before compression; what a fetch can bring must go back out as a dead letter.
_REQUEST_BYTES_MAX: Final = 256 << 20
_REPLICAS_MAX: Final = 3
_CONNECT_TIMEOUT_S: Final = 20


class KafkaUnavailable(Exception):
    """The broker cannot be used; one sentence that names it."""


class TopicsWrong(Exception):
    """The topics are not as they must be; one sentence that names them."""


def client_options(settings: Settings) -> dict[str, Any]:
    """What every aiokafka client needs to connect: servers, TLS, SASL."""
    options: dict[str, Any] = {"bootstrap_servers": settings.kafka}
    protocol = settings.kafka_security_protocol
    options["security_protocol"] = protocol
    if protocol in ("SSL", "SASL_SSL"):
        context = ssl.create_default_context(cafile=settings.kafka_security_cafile or None)
        if settings.kafka_security_certfile:
            context.load_cert_chain(settings.kafka_security_certfile, settings.kafka_security_keyfile or None)
        options["ssl_context"] = context
    if protocol.startswith("SASL"):
        options["sasl_mechanism"] = settings.kafka_security_mechanism or "PLAIN"
        options["sasl_plain_username"] = settings.kafka_security_username
        options["sasl_plain_password"] = settings.kafka_security_password
    return options


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
        raise KafkaUnavailable(f"the Kafka broker at {settings.kafka} cannot be reached: {_reason(e)}") from None
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


@asynccontextmanager
async def reading(settings: Settings) -> AsyncIterator[tuple[AIOKafkaConsumer, dict[str, int]]]:
    """A started consumer outside of any group, and the partition count of each of our topics; 0 for a missing one."""
    options = client_options(settings)
    async with _started(AIOKafkaAdminClient(**options), settings) as admin:
        counts = await _partition_counts(admin, settings)
    async with _started(AIOKafkaConsumer(**options, isolation_level="read_committed"), settings) as consumer:
        yield consumer, counts


async def committed(settings: Settings) -> dict[TopicPartition, int]:
    """The offsets that the workers' group has committed."""
    async with _started(AIOKafkaAdminClient(**client_options(settings)), settings) as admin:
        found = await admin.list_consumer_group_offsets(settings.group)
    return {tp: at.offset for tp, at in found.items() if at.offset >= 0}


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
    async with _started(AIOKafkaConsumer(**client_options(settings)), settings) as consumer:
        for name in (settings.topic_prefix + topic for topic in TOPICS):
            for partition in range(partitions):
                tp = TopicPartition(name, partition)
                wrong = [r async for r in _newest(consumer, tp, sample) if _is_misplaced(r, partition, partitions)]
                if wrong:
                    told.append(
                        f"{name} partition {partition}: {len(wrong)} of the newest entries belong elsewhere by key"
                        " (the producer must use the murmur2 partitioner)"
                    )
    return told


def _is_misplaced(record: Any, partition: int, partitions: int) -> bool:
    return record.key is not None and partition_of(record.key, partitions) != partition


async def _newest(consumer: AIOKafkaConsumer, tp: TopicPartition, sample: int) -> AsyncIterator[Any]:
    consumer.assign([tp])
    end = (await consumer.end_offsets([tp]))[tp]
    begin = max((await consumer.beginning_offsets([tp]))[tp], end - sample)
    consumer.seek(tp, begin)
    while begin < end:
        records = (await consumer.getmany(tp, timeout_ms=2_000)).get(tp)
        if not records:
            return
        for record in records:
            yield record
        begin = records[-1].offset + 1


async def read_back(settings: Settings, sources: Iterable[str]) -> list[Any]:
    """The log entries at `topic:partition:offset`, as far as the broker still holds them."""
    entries = []
    async with _started(AIOKafkaConsumer(**client_options(settings)), settings) as consumer:
        for source in sources:
            topic, partition, offset = source.rsplit(":", 2)
            tp = TopicPartition(topic, int(partition))
            consumer.assign([tp])
            consumer.seek(tp, int(offset))
            records = (await consumer.getmany(tp, timeout_ms=5_000, max_records=1)).get(tp, [])
            entries += [r for r in records if r.offset == int(offset)]
    return entries
