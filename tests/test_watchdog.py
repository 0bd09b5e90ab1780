"""The watchdog: when a worker that reads nothing is ended, and when it is not."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from streams import kafka
from streams.agents import Worker, WorkerStuck
from streams.clock import monotonic_ms
from streams.settings import Settings
from streams.watchdog import BUSY_S_MAX, ENDING_STILL_S_MAX, STILL_S_MAX, STUCK_MS_MAX, Pulse, Watchdog
from tests import pipeline

LATE_MS = STUCK_MS_MAX + 1


@pytest.mark.parametrize(
    ("at", "behind", "held_up", "stuck"),
    [
        (7, True, False, True),
        (8, True, False, False),
        (7, False, False, False),
        (7, True, True, False),
    ],
    ids=["nothing is read", "something was read", "there is nothing to read", "the store is away"],
)
def test_when_a_worker_is_stuck(at: int, behind: bool, held_up: bool, stuck: bool) -> None:
    """The log moves, we do not, and nothing holds us up that will pass; for two minutes."""
    dog = Watchdog(0)
    assert not dog.is_stuck(7, is_behind=True, is_held_up=False, now_ms=10)
    assert not dog.is_stuck(7, is_behind=True, is_held_up=False, now_ms=10 + STUCK_MS_MAX)
    assert dog.is_stuck(at, is_behind=behind, is_held_up=held_up, now_ms=10 + LATE_MS) is stuck


def test_time_that_was_held_up_does_not_count() -> None:
    """After an outage of hours there are two minutes again."""
    dog = Watchdog(0)
    assert not dog.is_stuck(1, is_behind=True, is_held_up=True, now_ms=9 * LATE_MS)
    assert not dog.is_stuck(1, is_behind=True, is_held_up=False, now_ms=9 * LATE_MS + STUCK_MS_MAX)
    assert dog.is_stuck(1, is_behind=True, is_held_up=False, now_ms=10 * LATE_MS)


def _trouble(pulse: Pulse, seconds: float, used_share: float, beats: int = 0) -> str:
    """What a pulse says after so many seconds in steps of a half."""
    for _ in range(round(2 * seconds)):
        told = pulse.trouble(beats, 0.5, 0.5 * used_share)
        if told:
            return told
    return ""


def test_an_event_loop_that_stands_or_computes_without_end() -> None:
    """Half a minute of standing still, or a minute of processor time in one step, however long the machine takes."""
    assert _trouble(Pulse(), STILL_S_MAX - 1, 0) == ""
    assert "stood still" in _trouble(Pulse(), STILL_S_MAX, 0)
    assert _trouble(Pulse(), 10 * STILL_S_MAX, 0.1) == ""
    assert "computed" in _trouble(Pulse(), BUSY_S_MAX, 1)
    pulse = Pulse()
    assert _trouble(pulse, STILL_S_MAX - 1, 0) == _trouble(pulse, 1, 0, beats=1) == ""
    assert _trouble(pulse, STILL_S_MAX - 1, 0, beats=2) == ""


def test_an_end_that_does_not_end() -> None:
    """The shortest bound holds, also while the loop beats; one that stands is given less time than before."""
    pulse = Pulse()
    pulse.end_within(20)
    pulse.end_within(8)
    assert [bool(pulse.trouble(beat, 1, 0)) for beat in range(8)] == [False] * 7 + [True]
    late = Pulse()
    late.end_within(20)
    assert "stood still" in _trouble(late, ENDING_STILL_S_MAX, 0)


async def _run(settings: Settings, harm: Any, monkeypatch: pytest.MonkeyPatch) -> BaseException | None:
    """A worker that has read something, then is harmed; what it ends with once the clock says two minutes more."""
    passed_ms, real_ms = 0, monotonic_ms
    await kafka.create_topics(settings)
    worker = Worker(settings, await kafka.check_topics(settings))
    monkeypatch.setattr("streams.agents.monotonic_ms", lambda: real_ms() + passed_ms)
    await worker.start()
    assert worker.failed is not None
    try:
        await pipeline.until(lambda: bool(worker.flow.partitions), worker)
        harm(worker)
        await asyncio.sleep(2)  # the fetch that was under way brings what it finds
        async with kafka.producing(settings) as client:
            await client.send_and_wait(settings.topic_prefix + "sends", b"{}", partition=0)
        await asyncio.sleep(1.5)
        passed_ms = LATE_MS
        await asyncio.wait([worker.failed], timeout=10)
        return worker.failed.exception() if worker.failed.done() else None
    finally:
        await worker.stop()


def _hang(worker: Worker) -> None:
    async def nothing(*_: Any, **__: Any) -> Any:
        await asyncio.Event().wait()

    worker.app.consumer._getmany = nothing


def _hush(worker: Worker) -> None:
    async def nothing() -> Any:
        await asyncio.Event().wait()

    _hang(worker)
    worker.app.consumer.ends = nothing


def _crash(worker: Worker) -> None:
    async def fail(*_: Any, **__: Any) -> Any:
        raise OSError("the consumer broke")

    worker.app.consumer._getmany = fail


@pytest.mark.parametrize(
    ("name", "harm", "why"),
    [
        ("hangs.", _hang, "nothing was read for 120 s"), ("hushed.", _hush, "nothing was read for 120 s"),
        ("breaks.", _crash, "the consumer broke"), ("well.", lambda worker: None, ""),
    ],
    ids=["the consumer reads no more", "the consumer answers no more", "Faust crashes", "all is well"],
)  # fmt: skip
def test_a_consumer_that_hangs_or_breaks_ends_the_worker(
    kafka_at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, harm: Any, why: str
) -> None:
    """The process ends with its reason, for a supervisor to start it anew; a worker that reads goes on."""
    error = asyncio.run(_run(pipeline.make_settings(kafka_at, tmp_path, name), harm, monkeypatch))
    assert isinstance(error, WorkerStuck) if why else error is None
    assert not why or why in str(error)
