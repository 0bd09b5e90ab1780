"""Whatever a broker takes into a topic becomes a record, a dead letter or nothing: a running worker, a real broker."""

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from schemas.events import REASONS, TOPICS
from streams import checking, dead_letters, demo, kafka, letters
from streams.clock import clock_ms
from streams.lag import Known, LagReader
from streams.settings import Settings
from streams.store import Store
from tests import pipeline
from tests.hostile import raw
from tests.hostile.raw import _COMPRESS, GZIP, LZ4, SNAPPY, ZSTD, Batch, Letter, Raw, batch, record, varint

pytestmark = pytest.mark.usefixtures("way")
PARTITIONS: Final = 3


class Seen(NamedTuple):
    """What came of a run: the batches that the broker took, records, dead letters by place, and what tools said."""

    taken: list[Batch]
    refused: list[str]
    records: dict[str, Any]
    letters: dict[tuple[str, int, int], list[Letter]]
    tools: dict[str, Any]


def _send(mid: str) -> bytes:
    return raw._send(mid, clock_ms())


def _odd(now_ms: int) -> Iterator[Raw]:
    """Beyond what `make hostile` produces."""
    good = partial(Raw, topic="sends", key=b"o", offsets=1)

    def entry(mid: str, **more: Any) -> bytes:
        return record(mid.encode(), _send(mid), **more)

    two = "odd-a", "odd-b"
    deltas = batch([entry(two[0], delta=7), entry(two[1], delta=-9)], now_ms, last_delta=1)
    yield good("deltas that are odd", data=deltas, ids=two, comes="record", offsets=2)
    for codec in (GZIP, LZ4):
        ids = tuple(f"odd-stray-{codec}-{n}" for n in range(3))
        payload = _COMPRESS[codec](b"".join(entry(mid, delta=n) for n, mid in enumerate(ids))) + b"*" * 40
        yield good(f"stray {codec}", data=batch([b""] * 3, now_ms, codec=codec, payload=payload), ids=ids, comes="record", offsets=3)
    for n, name in enumerate((b"\xff", b"cut", b"reason", b"\xed\xa0\x80")):
        data = batch([record(b"k", b"{", [(name, b"\xfe"), (name, None)])], now_ms)
        yield good(f"a header {name!r}", data=data, ids=(), comes="letter")
        mid = f"odd-header-{n}"
        data = batch([entry(mid, headers=[(name, None)])], now_ms)
        yield good(f"a record under a header {name!r}", data=data, ids=(mid,), comes="record")
    bad = record(b"k", b"{", [(b"x", b"y")], delta=1).replace(b"\x02x", b"\x01x")
    data = batch([entry("odd-c"), bad, entry("odd-d", delta=2)], now_ms)
    yield good("a record that is none among good ones", data=data, ids=("odd-c", "odd-d"), comes="record", offsets=3)
    tiny = [record(b"k", b"{}", delta=n) for n in range(5_000)]
    yield good("5,000 tiny records", data=batch(tiny, now_ms, codec=LZ4), ids=(), comes="letter", offsets=5_000)
    many = [record(b"k", b"[" * 1_000_000, delta=n) for n in range(40)]
    yield good("40 MB of dead letters", data=batch(many, now_ms, codec=ZSTD), ids=(), comes="letter", offsets=40)
    huge = [record(b"k", bytes(8 << 20)), entry("odd-e", delta=1)]
    data = batch(huge, now_ms, codec=GZIP)
    yield good("a value of 8 MiB before a good record", data=data, ids=("odd-e",), comes="record", offsets=2)
    data = batch([b""], now_ms, codec=SNAPPY, payload=b"\xff\xff\xff\xff\x0f" + b"*" * 9)
    yield good("snappy that claims 4 GiB", data=data, ids=(), comes="letter")
    data = batch([varint((1 << 32) + 7) + b"\0" * 7], now_ms)
    yield good("a length beyond 32 bits", data=data, ids=(), comes="letter")


async def _run(settings: Settings, raws: Sequence[Raw]) -> Seen:
    await _create_topics(settings)
    where = partial(_partition)
    taken, refused = [], []
    await _produce_good(settings, "before")
    for one in raws:
        placed = await raw.produce(settings.kafka, settings.topic_prefix, one, where)
        (refused.append(one.name) if placed is None else taken.append(placed))
    await _produce_good(settings, "after")
    async with pipeline.working(settings) as worker:
        waiting = await _lag(settings)
        await worker.start()
        await pipeline.until(lambda: _at_end(worker), worker)
        await worker.barrier.write(checkpoint=True)
        told = await asyncio.to_thread(demo.read_all, worker.store)
    found = await raw.letters(settings.kafka, settings.topic_prefix + kafka.DEAD_LETTERS, PARTITIONS)
    by_place: dict[tuple[str, int, int], list[Letter]] = {}
    for letter in found:
        by_place.setdefault(_place(letter), []).append(letter)
    records = {r["message_id"]: r for r in told["records"]}
    return Seen(taken, refused, records, by_place, {"waiting": waiting, **await _tools(settings)})


async def _create_topics(settings: Settings) -> None:
    """Our topics, those of sends with any time."""
    anything = {f"message.timestamp.{what}.max.ms": str((1 << 63) - 1) for what in ("before", "after")}
    admin = AIOKafkaAdminClient(**kafka.client_options(settings))
    await admin.start()
    await admin.create_topics([NewTopic(settings.topic_prefix + "sends", PARTITIONS, 1, topic_configs=anything)])
    await admin.close()
    await kafka.create_topics(settings)


def _partition(key: bytes) -> int:
    return kafka.partition_of(key, PARTITIONS)


async def _produce_good(settings: Settings, name: str) -> None:
    """A send in each partition of its topic, where reading must have come to."""
    async with kafka.producing(settings) as client:
        for partition in range(PARTITIONS):
            mid = f"{name}-{partition}"
            await client.send_and_wait(settings.topic_prefix + "sends", _send(mid), mid.encode(), partition=partition)


def _at_end(worker: Any) -> bool:
    """Whether everything was read, and nothing is open or waits to be written."""
    ends = {place: end for place, end in worker.ends.items() if end}
    idle = not any(len(p.lives) + p.pending() for p in worker.flow.partitions.values())
    return bool(ends) and idle and all(worker.barrier.done.get(place, 0) >= end for place, end in ends.items())


async def _lag(settings: Settings) -> list[float | None]:
    """How many seconds each partition is behind, as `mdr lag` tells it."""
    reader = LagReader(settings)
    try:
        return [agent.lag_seconds for agent in (await reader.read(Known(), clock_ms())).agents]
    finally:
        await reader.close()


async def _tools(settings: Settings) -> dict[str, Any]:
    """What the other readers of the log say when all is done."""
    store = Store(settings.clickhouse_url)
    try:
        verdict = await checking.run(settings, store, clock_ms, lambda *_: None)
        scanned = await dead_letters.scan(settings, dead_letters.Wanted())
        shown = [letters.shown(letter, True, ()) for letter in scanned.letters[:300]]
        misplaced = await kafka.misplaced(settings)
    finally:
        store.close()
    return {"lag": await _lag(settings), "check": verdict, "shown": shown, "misplaced": misplaced}


def _place(letter: Letter) -> tuple[str, int, int]:
    told = {name: value or b"" for name, value in letter.headers[-6:]}
    assert list(told) == [b"reason", b"detail", b"topic", b"partition", b"offset", b"timestamp"]
    assert told[b"reason"].decode() in REASONS and all(value.isascii() for value in told.values())
    return told[b"topic"].decode(), int(told[b"partition"]), int(told[b"offset"])


def _judge(seen: Seen, placed: Batch) -> str:
    """What is wrong with what came of a batch; empty if nothing is."""
    one = placed.raw
    have = sum(mid in seen.records for mid in one.ids)
    places = [(placed.topic, placed.partition, placed.offset + n) for n in range(placed.taken)]
    buried = [place for place in places if place in seen.letters]
    wanted = len(one.ids) or 1
    good = {
        "record": have == wanted, "letter": bool(buried) and not have, "either": have + len(buried) >= wanted,
        "nothing": not have,
    }[one.comes]  # fmt: skip
    return "" if good else f"{one.name}: {have} records and {len(buried)} dead letters, wanted {one.comes}"


def _unfaithful(seen: Seen, placed: Batch) -> list[str]:
    """Dead letters of sound records that are not the records, byte for byte."""
    try:
        records = dict(raw._records(placed.raw.data))
    except Exception:
        return []
    wrong = []
    for delta, entry in records.items():
        for letter in seen.letters.get((placed.topic, placed.partition, placed.offset + delta), ()):
            ours = 7 if letter.headers[-7:-6] and letter.headers[-7][0] == b"cut" else 6
            is_cut, is_stray = ours == 7 and letter.headers[-7][1], b"behind the last" in (letter.headers[-5][1] or b"")
            same = (letter.key, letter.value, letter.headers[:-ours]) == (entry.key, entry.value, entry.headers)
            if not same and not is_cut and not is_stray:
                wrong.append(f"{placed.raw.name}: {letter.headers[-6:]}")
    return wrong


def test_everything_a_broker_takes_is_read(kafka_at: str, tmp_path: Path) -> None:
    """One run over every odd batch: the worker goes on to the last entry, and every tool that reads the log says so."""
    settings = pipeline.make_settings(kafka_at, tmp_path, f"poison{time.time_ns()}.")
    raws = [one for one in raw.batches(1, clock_ms()) if not one.name.startswith(("100,000", "codec 4: a value of 768"))]
    raws += _odd(clock_ms())
    seen = asyncio.run(_run(settings, raws))
    assert len(seen.taken) > 46, seen.refused
    assert [told for placed in seen.taken if (told := _judge(seen, placed))] == []
    assert [told for placed in seen.taken for told in _unfaithful(seen, placed)] == []
    for name in ("before", "after"):
        assert all(f"{name}-{partition}" in seen.records for partition in range(PARTITIONS))
    tools = seen.tools
    assert tools["lag"] == [0.0] * len(TOPICS) * PARTITIONS and None not in tools["waiting"]
    assert (tools["check"]["ok"], tools["check"]["findings"]) == (True, [])
    assert json.dumps(tools["shown"]) and len(tools["shown"]) == 300
