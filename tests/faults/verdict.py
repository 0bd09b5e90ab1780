"""What the log says must be in the store, and what is."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import clickhouse_connect
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.structs import TopicPartition

from schemas.events import TOPICS
from schemas.record import COLUMNS
from tests.oracle import Oracle, Outcome

STEP = ("event_id", "state", "occurred_at", "segment", "error_code")
INCIDENTAL = frozenset({"settled_at", "amended_at", "amendments", "version", "shard", "facts"})
NAMES = [c.name for c in COLUMNS]
PLACES = (
    "SELECT DISTINCT arrayJoin(timeline.source) FROM mdr.mdrs UNION DISTINCT SELECT source FROM mdr.orphan_log"
    ' UNION DISTINCT SELECT arrayJoin(extractAll(facts, \'"~at":"([^"]+)"\')) FROM mdr.open_messages'
)


def shown(name: str, type_: str) -> str:
    """A column as integers where it is an instant."""
    if type_.startswith("Array(DateTime64"):
        return f"arrayMap(at -> toUnixTimestamp64Milli(at), `{name}`)"
    return f"toUnixTimestamp64Milli(`{name}`)" if "DateTime64" in type_ else f"`{name}`"


@dataclass
class Verdict:
    """How many of each; the sentences are the first of them."""

    records: int = 0
    lost: int = 0
    twice: int = 0
    wrong: int = 0
    extra: int = 0
    dead_letters: int = 0
    dead_letters_wrong: int = 0
    orphans_wrong: int = 0
    ahead: int = 0
    sentences: list[str] = field(default_factory=list)

    def say(self, counter: str, sentence: str) -> None:
        """One thing that is not as it must be."""
        setattr(self, counter, getattr(self, counter) + 1)
        if len(self.sentences) < 25:
            self.sentences.append(f"{counter}: {sentence}")

    @property
    def bad(self) -> int:
        """All of it."""
        return (
            self.lost + self.twice + self.wrong + self.extra + self.dead_letters_wrong + self.orphans_wrong + self.ahead
        )


class Reader:
    """Reads the topics, the group's offsets and the tables; nothing of the product is used for it."""

    def __init__(self, bootstrap: str, prefix: str, partitions: int, clickhouse_port: int) -> None:
        self.bootstrap, self.prefix, self.partitions = bootstrap, prefix, partitions
        self._port = clickhouse_port
        self.log: dict[tuple[str, int, int], Any] = {}
        self.at: dict[TopicPartition, int] = {}
        self.samples: list[dict[TopicPartition, int]] = []
        self.durable_since: dict[str, int] = {}

    def inputs(self) -> list[TopicPartition]:
        """Every partition of the input topics."""
        return [TopicPartition(self.prefix + t, p) for t in TOPICS for p in range(self.partitions)]

    async def ends(self) -> dict[TopicPartition, int]:
        """What a reader of committed entries can reach."""
        async with consumer(self.bootstrap) as client:
            return dict(await client.end_offsets(self.inputs()))

    async def committed(self) -> dict[TopicPartition, int]:
        """Where the group stands."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            found = await admin.list_consumer_group_offsets(f"{self.prefix}worker")
            return {tp: at.offset for tp, at in found.items() if tp.topic.startswith(self.prefix)}
        finally:
            await admin.close()

    async def take_log(self) -> None:
        """Reads what was written to the input topics since the last time."""
        ends = await self.ends()
        async with consumer(self.bootstrap) as client:
            client.assign(self.inputs())
            for tp in self.inputs():
                begin = (await client.beginning_offsets([tp]))[tp]
                client.seek(tp, max(self.at.get(tp, 0), begin))
            while not await _is_at(client, ends):
                for tp, records in (await client.getmany(timeout_ms=500)).items():
                    topic = tp.topic.removeprefix(self.prefix)
                    for r in records:
                        self.log[topic, tp.partition, r.offset] = (r.timestamp, r.key, r.value)
            self.at = {tp: await client.position(tp) for tp in self.inputs()}

    async def count(self, tp: TopicPartition, start: int) -> int:
        """How many entries a partition holds from an offset on."""
        count = 0
        async with consumer(self.bootstrap) as client:
            client.assign([tp])
            end = (await client.end_offsets([tp]))[tp]
            client.seek(tp, start)
            while await client.position(tp) < end:
                count += sum(map(len, (await client.getmany(timeout_ms=500)).values()))
        return count

    async def letters(self) -> list[dict[str, str]]:
        """The headers of every dead letter, and whether its bytes are those of its entry."""
        tps = [TopicPartition(f"{self.prefix}dead-letters", p) for p in range(self.partitions)]
        found = []
        async with consumer(self.bootstrap) as client:
            client.assign(tps)
            ends = await client.end_offsets(tps)
            await client.seek_to_beginning(*tps)
            while not await _is_at(client, ends):
                for records in (await client.getmany(timeout_ms=500)).values():
                    for r in records:
                        headers = {n: v.decode() for n, v in r.headers[-6:]}
                        place = (
                            headers["topic"].removeprefix(self.prefix),
                            *map(int, (headers["partition"], headers["offset"])),
                        )
                        entry = self.log.get(place)
                        same = entry is None or (entry[1], entry[2]) == (r.key, r.value)
                        found.append(headers | {"same": "yes" if same else ""})
        return found

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows from the tables."""
        client = clickhouse_connect.get_client(host="127.0.0.1", port=self._port, autogenerate_session_id=False)
        try:
            return list(client.query(sql).result_rows)  # type: ignore[arg-type]
        finally:
            client.close()

    async def sample(self) -> None:
        """Notes where the group stands and what is durable; meant for a moment when no worker writes."""
        committed = await self.committed()
        durable = await asyncio.to_thread(self.query, PLACES)
        number = len(self.samples)
        self.samples.append(committed)
        for (source,) in durable:
            self.durable_since.setdefault(source, number)


async def _is_at(client: Any, ends: dict[TopicPartition, int]) -> bool:
    return all([await client.position(tp) >= end for tp, end in ends.items()])


def consumer(bootstrap: str) -> Any:
    """A reader outside any group."""
    return AIOKafkaConsumer(
        bootstrap_servers=bootstrap, isolation_level="read_committed", enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=16 << 20,
    )  # fmt: skip


async def judge(
    reader: Reader, window_ms: int, now_ms: int, skipped: set[tuple[str, int, int]],
    is_aside: Callable[[str], bool] = lambda message_id: False,
) -> Verdict:  # fmt: skip
    """Compares everything; `skipped` are entries that were deleted before a worker could read them.

    Records of messages that `is_aside` are judged elsewhere.
    """
    await reader.take_log()
    entries = [
        (*place, ts, key, value, now_ms) for place, (ts, key, value) in reader.log.items() if place not in skipped
    ]
    expected = await asyncio.to_thread(Oracle(window_ms).judge, entries)
    verdict = Verdict(records=len(expected.records))
    columns = ", ".join(shown(c.name, c.type) for c in COLUMNS if c.name not in ("shard", "facts"))
    rows = await asyncio.to_thread(reader.query, f"SELECT {columns} FROM mdr.mdr")  # noqa: S608  # our own column names
    names = [n for n in NAMES if n not in ("shard", "facts")]
    told = (dict(zip(names, row, strict=True)) for row in rows)
    _records(verdict, expected, [row for row in told if not is_aside(row["message_id"])])
    found = await asyncio.to_thread(
        reader.query,
        "SELECT message_id, event_id, state, toUnixTimestamp64Milli(occurred_at), segment FROM mdr.orphan_receipts",
    )
    for orphan in expected.orphans ^ set(found):
        verdict.say("orphans_wrong", str(orphan))
    _letters(verdict, expected, await reader.letters())
    _ahead(verdict, reader, expected, skipped)
    return verdict


def _records(verdict: Verdict, expected: Outcome, rows: list[dict[str, Any]]) -> None:
    seen: Counter[tuple[str, str]] = Counter()
    for row in rows:
        key = row["direction"], row["message_id"]
        seen[key] += 1
        wanted = expected.records.get(key)
        if wanted is None:
            verdict.say("extra", f"{key}")
            continue
        steps = [dict(zip(STEP, s, strict=True)) for s in zip(*(row[f"timeline.{p}"] for p in STEP), strict=True)]
        have = {n: list(v) if isinstance(v, tuple) else v for n, v in row.items()} | {
            "timeline": steps, "facts": len(steps),
        }  # fmt: skip
        differ = [f"{n} is {have.get(n)!r}, not {v!r}" for n, v in wanted.items() if have.get(n) != v]
        if differ:
            verdict.say("wrong", f"{key}: {'; '.join(differ)[:400]}")
    for key, count in seen.items():
        if count > 1:
            verdict.say("twice", f"{key}")
    for key in expected.records:
        if key not in seen:
            verdict.say("lost", f"{key}")


def _letters(verdict: Verdict, expected: Outcome, letters: list[dict[str, str]]) -> None:
    found: dict[Any, str] = {}
    for letter in letters:
        place = letter["topic"].split(".")[-1], int(letter["partition"]), int(letter["offset"])
        found[place] = letter["reason"]
        if not letter["same"] and "cut" not in letter and "cut" not in letter["detail"]:
            verdict.say("dead_letters_wrong", f"{place} has other bytes")
    verdict.dead_letters = len(found)
    for place in found.keys() | expected.dead_letters.keys():
        if found.get(place) != expected.dead_letters.get(place):
            verdict.say("dead_letters_wrong", f"{place}: {found.get(place)}, not {expected.dead_letters.get(place)}")


def _ahead(verdict: Verdict, reader: Reader, expected: Outcome, skipped: set[tuple[str, int, int]]) -> None:
    """Committed offsets that were ahead of what was durable, at any sample."""
    dead = expected.dead_letters.keys() | skipped
    firsts: dict[Any, tuple[str, int, int]] = {}
    copies: dict[Any, list[str]] = {}
    for (topic, partition, offset), (_, key, value) in sorted(reader.log.items()):
        if (topic, partition, offset) in dead:
            continue
        identity = topic, key, _identity(topic, value)
        firsts.setdefault(identity, (topic, partition, offset))
        copies.setdefault(identity, []).append(f"{reader.prefix}{topic}:{partition}:{offset}")
    highest = _highest(reader.samples)
    for identity, (topic, partition, offset) in firsts.items():
        tp = TopicPartition(reader.prefix + topic, partition)
        since = min((reader.durable_since[c] for c in copies[identity] if c in reader.durable_since), default=1 << 30)
        before = min(since, len(highest)) - 1
        if before >= 0 and highest[before].get(tp, 0) > offset:
            verdict.say("ahead", f"{tp.topic}:{partition}:{offset} was committed before sample {before}, not durable then")


def _highest(samples: list[dict[TopicPartition, int]]) -> list[dict[TopicPartition, int]]:
    """By sample, the highest offset committed so far."""
    found: list[dict[TopicPartition, int]] = []
    for committed in samples:
        known = found[-1] if found else {}
        found.append({tp: max(at, known.get(tp, 0)) for tp, at in (known | committed).items()})
    return found


def _identity(topic: str, value: bytes) -> tuple[str, ...]:
    """What makes two entries of one key the same event."""
    fields = json.loads(value)
    names = ("event_id", "state", "occurred_at", "segment") if topic == "receipts" else ("event_id",)
    return tuple(str(fields.get(n)).lower() for n in names)
