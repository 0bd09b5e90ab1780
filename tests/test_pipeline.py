"""The whole way through a real Kafka and the embedded ClickHouse, against an oracle that shares no code with it."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from schemas.events import TOPICS
from streams import checking, demo, kafka, letters, simulate
from streams.agents import Worker
from streams.clock import clock_ms
from streams.produce import Outlet, read_lines, send_simulated
from streams.settings import Settings
from streams.store import Store, StoreError
from tests import pipeline
from tests.api_support import LogEntry

EXAMPLES = Path(__file__).parent.parent / "schemas" / "examples"


async def _produce(settings: Settings, entries: list[tuple[str, bytes | None, bytes]]) -> None:
    async with kafka.producing(settings) as client:
        outlet = Outlet(client, settings)
        for topic, key, value in entries:
            await outlet.send(topic, key, value)
        await outlet.flush()


def _dead(log: list[tuple[str, Any]]) -> dict[tuple[str, int, int], dict[str, str]]:
    letters = {}
    for _, record in log:
        headers = {name: value.decode() for name, value in record.headers}
        letters[headers["topic"], int(headers["partition"]), int(headers["offset"])] = headers
    return letters


async def _run_simulated(settings: Settings, restart: bool) -> None:
    window_ms = settings.settling_window_ms
    plan = simulate.Plan(1_500, 5, clock_ms() - 200_000, 30.0, settling_ms=window_ms, broken_share=0.02)
    produced = list(simulate.events(plan))
    await kafka.create_topics(settings)
    async with kafka.producing(settings) as client:
        await send_simulated(Outlet(client, settings), produced, None, lambda _: None)
    worker = Worker(settings, await kafka.check_topics(settings))
    await worker.start()
    if restart:
        await pipeline.until(lambda: sum(p.counts.events for p in worker.flow.partitions.values()) > 1_000, worker)
        await worker.stop()
        worker = Worker(settings, await kafka.check_topics(settings))
        await worker.start()
    await pipeline.settle_all(worker, len(produced))
    told = await asyncio.to_thread(demo.read_all, worker.store)
    letters = _dead(await pipeline.read_log(settings, (kafka.DEAD_LETTERS,)))
    counts = [p.counts for p in worker.flow.partitions.values()]
    await worker.stop()
    _compare(told, letters, pipeline.judge(await pipeline.read_log(settings), clock_ms(), window_ms), settings)
    assert sum(c.events for c in counts) >= len(produced)
    assert all(c.events == c.merged + c.duplicates + c.dead_letters for c in counts)
    await _check(settings, is_exact=not restart)


async def _check(settings: Settings, is_exact: bool) -> None:
    """Nothing is wrong with a whole run, to the last event; a dead letter nobody counted and a lost record are told."""
    store = Store(settings.clickhouse_url)
    verdict = await checking.run(settings, store, clock_ms, lambda *_: None)
    assert (verdict["ok"], verdict["findings"]) == (True, [])
    if is_exact:
        assert all(row["read"] == row["events"] and not row["difference"] for row in verdict["partitions"])
        assert not verdict["notes"]
    topic = settings.topic_prefix + "sends"
    async with kafka.producing(settings) as client:
        strange = letters.entry_letter(topic, 1, LogEntry(0, 1, b"k", b"v"), "invalid_json", "")
        await kafka.produce(client, [(settings.topic_prefix + kafka.DEAD_LETTERS, strange.within())])
    store.command(
        "ALTER TABLE mdrs DELETE WHERE message_id = (SELECT min(message_id) FROM mdrs) SETTINGS mutations_sync = 2", {}
    )
    damaged = await checking.run(settings, store, clock_ms, lambda *_: None)
    store.close()
    assert sorted(finding["kind"] for finding in damaged["findings"]) == ["dead_letters", "lost"]
    assert damaged["tries"] == 2


def _compare(told: dict[str, Any], letters: dict[Any, dict[str, str]], wanted: Any, settings: Settings) -> None:
    records = {(r["direction"], r["message_id"]): demo.comparable(r) for r in told["records"]}
    assert len(records) == len(told["records"])
    assert records.keys() == wanted.records.keys()
    for key, row in wanted.records.items():
        assert records[key] == {name: value for name, value in row.items() if name != "facts"}
    assert told["orphans"] == wanted.orphans
    prefix = settings.topic_prefix
    assert {k: h["reason"] for k, h in letters.items()} == {
        (prefix + topic, partition, offset): reason
        for (topic, partition, offset), reason in wanted.dead_letters.items()
    }


def test_simulated_traffic_becomes_the_records_of_the_oracle(kafka_at: str, tmp_path: Path) -> None:
    """What the worker stores, orphans and refuses is what the oracle makes of the same log."""
    asyncio.run(_run_simulated(pipeline.make_settings(kafka_at, tmp_path, "sim."), restart=False))


def test_a_restart_in_the_midst_changes_nothing(kafka_at: str, tmp_path: Path) -> None:
    """A worker that is stopped half-way and started again ends with the same records, orphans and dead letters."""
    asyncio.run(_run_simulated(pipeline.make_settings(kafka_at, tmp_path, "again."), restart=True))


def _golden() -> list[tuple[str, str, bytes]]:
    """(topic, reason, bytes) of the golden bad events that a log entry can carry."""
    found = []
    for topic in TOPICS:
        for file in sorted((EXAMPLES / topic).glob("bad-*")):
            value = file.read_bytes().rstrip(b"\n") if file.suffix == ".json" else file.read_bytes()
            found.append((topic, file.name.split("-")[1].split(".")[0], value))
    return found


async def _run_golden(settings: Settings) -> None:
    await kafka.create_topics(settings)
    entries: list[tuple[str, bytes | None, bytes]] = []
    for topic, _, value in _golden():
        line = next(iter(read_lines(topic, [value], clock_ms())), None)
        entries.append((topic, line.key if line else None, value))
    good = b'{"event_id":"e","message_id":"fine","occurred_at":"2026-01-31T09:15:04Z","account_id":"a",'
    good += b'"from":"+14155550100","to":"+12125550101"}'
    poison = [("receives", b"fine", b"\xff")] * 1_000
    await _produce(settings, [*entries, *poison, ("receives", b"fine", good)])
    total = len(entries) + 1_001
    worker = Worker(settings, await kafka.check_topics(settings))
    await worker.start()
    await pipeline.settle_all(worker, total)
    told = await asyncio.to_thread(demo.read_all, worker.store)
    await worker.stop()
    log = {(r.topic, r.partition, r.offset): r for _, r in await pipeline.read_log(settings)}
    letters = await pipeline.read_log(settings, (kafka.DEAD_LETTERS,))
    assert [r["message_id"] for r in told["records"]] == ["fine"]
    assert len(_dead(letters)) == total - 1
    _compare_letters(letters, log, settings)


def _compare_letters(letters: list[tuple[str, Any]], log: dict[Any, Any], settings: Settings) -> None:
    found: Counter[tuple[str, bytes, str]] = Counter()
    for at, (_, letter) in zip((tuple(k) for k in map(_place, letters)), letters, strict=True):
        source = log[at]
        headers = {name: value.decode() for name, value in letter.headers}
        assert (letter.key, letter.value) == (source.key, source.value)
        assert headers["timestamp"] == str(source.timestamp)
        found[source.topic.removeprefix(settings.topic_prefix), source.value or b"", headers["reason"]] += 1
    for topic, reason, value in _golden():
        assert found[topic, value, reason], f"{topic} {reason} {value[:80]!r}"


def _place(letter: tuple[str, Any]) -> tuple[str, int, int]:
    headers = {name: value.decode() for name, value in letter[1].headers}
    return headers["topic"], int(headers["partition"]), int(headers["offset"])


def test_every_golden_bad_event_ends_in_the_dead_letters(kafka_at: str, tmp_path: Path) -> None:
    """Each goes with its reason and its bytes, and neither they nor a thousand in a row harm the event after them."""
    asyncio.run(_run_golden(pipeline.make_settings(kafka_at, tmp_path, "golden.")))


async def _run_compressed(settings: Settings) -> int:
    await kafka.create_topics(settings)
    value = b'{"event_id":"e","message_id":"%s","occurred_at":"2026-01-31T09:15:04Z","account_id":"a",'
    value += b'"from":"+14155550100","to":"+12125550101"}'
    for codec in ("gzip", "snappy", "lz4", "zstd"):
        client = kafka.producer(settings, compression_type=codec)
        await client.start()
        await client.send_and_wait(settings.topic_prefix + "receives", value % codec.encode(), codec.encode())
        await client.stop()
    worker = Worker(settings, await kafka.check_topics(settings))
    await worker.start()
    await pipeline.settle_all(worker, 4)
    told = await asyncio.to_thread(demo.read_all, worker.store)
    await worker.stop()
    return len(told["records"])


def test_all_four_compressions_are_read(kafka_at: str, tmp_path: Path) -> None:
    """gzip, snappy, lz4 and zstd batches are events like any other."""
    assert asyncio.run(_run_compressed(pipeline.make_settings(kafka_at, tmp_path, "zip."))) == 4


async def _start_with(settings: Settings, partitions: int) -> None:
    worker = Worker(settings, partitions)
    try:
        await worker.start()
    finally:
        await worker.stop()


def test_another_partition_count_than_the_stored_one_stops_the_start(kafka_at: str, tmp_path: Path) -> None:
    """Open messages that were stored for other partitions would never meet their receipts."""
    settings = pipeline.make_settings(kafka_at, tmp_path, "grown.")

    async def grow() -> None:
        await kafka.create_topics(settings)
        worker = Worker(settings, 3)
        await worker.start()
        await pipeline.settle_all(worker, 0)
        await pipeline.until(lambda: bool(worker.flow.partitions), worker)
        await worker.barrier.write(checkpoint=True)
        await worker.stop()
        await _start_with(settings, 4)

    with pytest.raises(StoreError, match="3 partitions a topic, but the topics have 4"):
        asyncio.run(grow())


async def _run_quiet(settings: Settings) -> dict[str, Any]:
    await kafka.create_topics(settings)
    worker = Worker(settings, await kafka.check_topics(settings))
    await worker.start()
    value = simulate.stamps.milli(clock_ms()).encode()
    event = b'{"event_id":"e","message_id":"quiet","occurred_at":"' + value + b'","account_id":"a",'
    await _produce(settings, [("sends", b"quiet", event + b'"from":"+14155550100","to":"+12125550101"}')])
    await pipeline.settle_all(worker, 1)
    told = await asyncio.to_thread(demo.read_all, worker.store)
    await worker.stop()
    return told


def test_a_quiet_topic_still_settles(kafka_at: str, tmp_path: Path) -> None:
    """With nothing more to read, the window passes by the clock, and everything before now is settled."""
    began_ms = clock_ms()
    told = asyncio.run(_run_quiet(pipeline.make_settings(kafka_at, tmp_path, "quiet.")))
    assert [(r["record_type"], r["state"]) for r in told["records"]] == [("incomplete", "queued")]
    assert told["settled_through"] > began_ms
