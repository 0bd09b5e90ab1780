"""What must come of the loaded topics, by `streams/simulate/truth.py`, and whether it did.

The topics are read back and folded a partition at a time, apart from all code under test. Of every record a digest is
kept: of the whole record, for ours; of the columns that peers write, with every receipt merged; and of the same columns
with only the receipts that a peer which settles once has heard of by then.
"""

import asyncio
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from hashlib import blake2b
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import orjson
from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition

from benchmarks.peers.rows import COMPARED
from schemas.states import FINAL_RANK, RANK, parse_state
from schemas.times import parse_rfc3339
from streams import simulate
from streams.settings import Settings
from streams.simulate import Event

Kind = Literal["whole", "merged", "once"]
KINDS: Final[tuple[Kind, ...]] = ("whole", "merged", "once")
_WINDOW_MS: Final = 4 * 3_600_000
# A send must be known before it can be said which of its receipts came in time.
_TOPICS: Final = ("sends", "receives", "receipts")
_PROCESSES: Final = 2
_BYTES: Final = 8


def digest(record: dict[str, Any], names: Iterable[str]) -> bytes:
    """The same eight bytes for the same values of these columns."""
    values = orjson.dumps([record.get(name) for name in names], option=orjson.OPT_SORT_KEYS)
    return blake2b(values, digest_size=_BYTES).digest()


def heard_once(events: Iterable[Event]) -> Iterator[Event]:
    """The events without the receipts after a message's first final one, and without those after its window.

    Every send comes before the receipts.
    """
    due_ms: dict[str, int] = {}
    settled: set[str] = set()
    for event in events:
        fields = orjson.loads(event.value)
        mid = fields["message_id"]
        if event.topic == "sends":
            due_ms.setdefault(mid, max(parse_rfc3339(fields["occurred_at"]) or 0, event.at_ms) + _WINDOW_MS)
        elif event.topic == "receipts":
            if mid in settled or event.at_ms >= due_ms.get(mid, event.at_ms + 1):
                continue
            if RANK[parse_state(fields["state"]) or ""] >= FINAL_RANK:
                settled.add(mid)
        yield event


def write(here: Settings, path: Path) -> int:
    """Reads the topics back and writes what must come of them; returns how many records that are."""
    shards = range(here.partitions)
    with ProcessPoolExecutor(_PROCESSES, get_context("spawn")) as pool:
        found = list(pool.map(partial(_expected, here.kafka, here.topic_prefix), shards))
    told = {key: value for shard in found for key, value in shard.items()}
    path.write_bytes(msgspec.msgpack.encode(told))
    return len(told)


def _expected(kafka_at: str, prefix: str, shard: int) -> dict[str, tuple[str, bytes]]:
    log = asyncio.run(_entries(kafka_at, prefix, shard))
    heard = list(heard_once(log))
    once = _records_that_differ(log, heard)
    told: dict[str, tuple[str, bytes]] = {}
    for key, record in simulate.expected(log).records.items():
        merged, settled = digest(record, COMPARED), once.get(key, record)
        digests = digest(record, sorted(record)) + merged + (digest(settled, COMPARED) if key in once else merged)
        told[" ".join(key)] = f"{record['record_type']} {settled['record_type']}", digests
    return told


def _records_that_differ(log: list[Event], heard: list[Event]) -> dict[tuple[str, str], dict[str, Any]]:
    """What becomes of those messages of which not everything was heard."""
    left = set(map(id, heard))
    touched = {event.key for event in log if id(event) not in left}
    return simulate.expected(event for event in heard if event.key in touched).records


async def _entries(kafka_at: str, prefix: str, shard: int) -> list[Event]:
    """Sends, receives and receipts of a partition, each in the order of the log."""
    read = await _read(kafka_at, [TopicPartition(prefix + topic, shard) for topic in _TOPICS])
    places = zip(_TOPICS, read.values(), strict=True)
    return [Event(topic, r.key, r.value, r.timestamp, "") for topic, records in places for r in records]


async def _read(kafka_at: str, places: Sequence[TopicPartition]) -> dict[TopicPartition, list[Any]]:
    """Everything these partitions hold."""
    consumer: Any = AIOKafkaConsumer(
        bootstrap_servers=kafka_at, auto_offset_reset="earliest", max_partition_fetch_bytes=4 << 20
    )
    await consumer.start()
    consumer.assign(places)
    ends = await consumer.end_offsets(places)
    found: dict[TopicPartition, list[Any]] = {place: [] for place in places}
    while any(len(found[place]) < end for place, end in ends.items()):
        for place, records in (await consumer.getmany(timeout_ms=500)).items():
            found[place] += records
    await consumer.stop()
    return found


class Expected:
    """The expectation as a contender of one kind must meet it."""

    def __init__(self, path: Path, kind: Kind) -> None:
        told = msgspec.msgpack.decode(path.read_bytes(), type=dict[str, tuple[str, bytes]])
        place = KINDS.index(kind)
        once = kind == "once"
        self._wanted = {key: digests[place * _BYTES : (place + 1) * _BYTES] for key, (_, digests) in told.items()}
        self.types = Counter(types.split()[once] for types, _ in told.values())
        self.records = len(told)

    def compare(self, found: Iterable[tuple[str, str, bytes]]) -> dict[str, Any]:
        """Of (`direction message_id`, record type, digest): how many there are by type, and how many are wrong.

        Wrong is what differs, what nobody sent, what is there twice, and what is not there. A few are named.
        """
        left, types, wrong = dict(self._wanted), Counter[str](), list[str]()
        for key, record_type, mine in found:
            types[record_type] += 1
            wanted = left.pop(key, None)
            if wanted != mine:
                wrong.append(f"{key}: {'differs' if wanted else 'again' if key in self._wanted else 'not sent'}")
        wrong += [f"{key}: missing" for key in left]
        for sentence in wrong[:5]:
            print(f"  {sentence}", file=sys.stderr)
        as_wanted = types == self.types
        return {"records": types.total(), **dict(sorted(types.items())), "wrong": len(wrong) or int(not as_wanted)}


async def topic_values(kafka_at: str, topic: str, partitions: int) -> list[bytes]:
    """Every value of a topic."""
    read = await _read(kafka_at, [TopicPartition(topic, shard) for shard in range(partitions)])
    return [record.value for records in read.values() for record in records]
