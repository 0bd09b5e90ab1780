"""A store that is older than the offsets that the group committed: put back from a copy, or a replica that lags."""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest

from streams import checking, demo, kafka, monitor, recovery, simulate
from streams.clock import clock_ms
from streams.produce import Outlet, send_simulated
from streams.settings import Settings
from streams.store import Store
from tests import pipeline
from tests.test_pipeline import _compare, _dead


def _events(settings: Settings) -> list[simulate.Event]:
    plan = simulate.Plan(
        800, 5, clock_ms() - 200_000, 30.0, settling_ms=settings.settling_window_ms, broken_share=0.02
    )  # fmt: skip
    # A topic without any entry, as many a log has: the check must not be blind for it.
    return [event for event in simulate.events(plan) if event.topic != "receives"]


async def _produce(settings: Settings, events: list[simulate.Event]) -> None:
    async with kafka.producing(settings) as client:
        await send_simulated(Outlet(client, settings), events, None, lambda _: None)


async def _work(settings: Settings, events: int) -> dict[str, Any]:
    """A worker's whole life; what it stored, and what alarms it raised."""
    async with pipeline.working(settings) as worker:
        await worker.start()
        await pipeline.until(lambda: len(worker.barrier.done) == 9, worker)
        await pipeline.settle_all(worker, events)
        told = await asyncio.to_thread(demo.read_all, worker.store)
        watch = monitor.Monitor(settings, worker, clock_ms)
        return told | {"alarms": [a for a in watch.health()["alarms"] if "entries of" in a], "metrics": watch.metrics().decode()}


async def _check(settings: Settings) -> set[str]:
    store = Store(settings.clickhouse_url)
    try:
        verdict = await checking.run(settings, store, clock_ms, lambda *_: None)
    finally:
        store.close()
    return {finding["kind"] for finding in verdict["findings"]}


async def _put_back(settings: Settings, home: Path) -> int:
    """Reads the whole log, and puts a copy of the store back that was made half-way; how many entries the log has."""
    events = _events(settings)
    half, older = len(events) // 2, home / "older"
    await kafka.create_topics(settings)
    await _produce(settings, events[:half])
    await _work(settings, half)
    shutil.copytree(settings.chdb_path, older, symlinks=True)
    await _produce(settings, events[half:])
    whole = await _work(settings, len(events))
    assert whole["alarms"] == []
    shutil.rmtree(settings.chdb_path)
    older.rename(settings.chdb_path)
    return len(events)


def test_a_store_that_is_put_back_lacks_nothing_in_the_end(kafka_at: str, tmp_path: Path) -> None:
    """What it does not hold is read again, with an alarm that says how much, and every record is right."""
    settings = pipeline.make_settings(kafka_at, tmp_path, "older.")

    async def go() -> None:
        count = await _put_back(settings, tmp_path)
        assert "committed_ahead" in await _check(settings)
        told = await _work(settings, count)
        log = await pipeline.read_log(settings)
        letters = _dead(await pipeline.read_log(settings, (kafka.DEAD_LETTERS,)))
        _compare(told, letters, pipeline.judge(log, clock_ms(), settings.settling_window_ms), settings)
        assert len(told["alarms"]) == 2, told["alarms"]
        assert all("are read again: the store was older than the offsets" in alarm for alarm in told["alarms"])
        assert 'mdr_read_again_events_total{topic="older.receives"} 0.0' in told["metrics"]
        assert await _check(settings) == set()
        assert (await _work(settings, count))["alarms"] == []

    asyncio.run(go())


def test_the_check_finds_a_store_that_was_not_mended(
    kafka_at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were reading to go on at what was committed, the entries in between were passed over, and that is told."""
    settings = pipeline.make_settings(kafka_at, tmp_path, "unmended.")

    async def go() -> set[str]:
        await _put_back(settings, tmp_path)
        monkeypatch.setattr(recovery.Recovered, "begin", lambda self, topic, shard, committed: committed)
        assert (await _work(settings, 0))["alarms"] == []
        return await _check(settings)

    # What was refused in between lies on its topic, and no checkpoint counts it.
    assert asyncio.run(go()) == {"passed_over", "dead_letters"}
