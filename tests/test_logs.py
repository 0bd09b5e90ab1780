"""Logs: their shape, what is held back, and that a run with faults tells nobody's number, body or secret."""

import asyncio
import io
import json
import logging
import os
import re
import signal
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from api.client import HttpClient
from streams import kafka, logs, simulate
from streams.cli import operator_file
from streams.clock import clock_ms
from streams.produce import Outlet, send_simulated
from tests import pipeline
from tests.faults.processes import Clickhouse, Killable
from tests.leaks import secrets_of
from tests.test_stopping import MDR, free_port, get, until


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A logger of its own, and its lines as they are told when stderr is no terminal."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    logger = logging.Logger("streams.test")
    logger.addHandler(logs.handler())
    return logger, lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_a_json_object(told: Any) -> None:
    """Each has what happened, how bad it is, who says it and when; and what was said beside."""
    logger, lines = told
    logger.warning("took %d partitions", 3, extra={"partitions": [1, 2, 3]})
    (line,) = lines()
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT[\d:.]+Z", line.pop("timestamp"))
    assert line == {
        "event": "took 3 partitions", "level": "warning", "logger": "streams.test", "partitions": [1, 2, 3],
    }  # fmt: skip


def test_an_error_with_its_traceback_is_one_line(told: Any) -> None:
    """Whoever reads logs line by line gets all of it, without the number that a library put into its words."""
    logger, lines = told
    try:
        raise ValueError("cannot parse '+14155550100' of /x?to=%2B14155550100&at=2026-01-31T09:15:04+00:00")
    except ValueError:
        logger.exception("no number: %s", "+491701234567")
    (line,) = lines()
    assert line["event"] == "no number: +***" and "Traceback" in line["exception"]
    assert "cannot parse '+***' of /x?to=+***&at=2026-01-31T09:15:04+00:00" in line["exception"]
    assert "4155550100" not in json.dumps(line)


def test_what_repeats_is_held_back_and_counted() -> None:
    """Twenty of a kind a minute; the first one after says how many there were. Another kind is not held back."""
    now_s = 0.0
    rate = logs.Rate(lambda: now_s)

    def line(text: str) -> logging.LogRecord:
        return logging.LogRecord("streams", logging.WARNING, "", 1, text, (), None)

    passed = [rate.filter(line("again")) for _ in range(50)]
    assert sum(passed) == 20 and all(passed[:20])
    assert rate.filter(line("another"))
    now_s = 61.0
    after = line("again")
    assert rate.filter(after) and after.__dict__["held_back"] == 30
    following = line("again")
    assert rate.filter(following) and "held_back" not in following.__dict__


# ---- a real run ----------------------------------------------------------------------------------------------


def ask(port: int, home: Path, number: str) -> str:
    """Requests that fail and that do not, with a number in the path and in the query; returns the secret used."""
    operator = operator_file.read(home)
    assert operator is not None
    client = HttpClient(operator.url, operator.key, operator.secret)
    for path in ("/mdr/records/", "/mdr/dead-letters/", "/mdr/reports/"):
        client._exchange("GET", path + urllib.parse.quote(number, safe=""), None)
    for query in (f"to_number={number}", f"from_number=%2B{number[1:]}&bogus=1", f"cursor={number}"):
        client._exchange("GET", f"/mdr/records?{query}", None)
    # Whoever presents nothing is refused without a question to the store, which may be away.
    assert get(port, f"/v2.1/messages/{number}")[0] == 401
    return operator.secret


async def run(kafka_at: str, home: Path) -> tuple[str, set[str]]:
    """The log of `mdr up` through bad events, a store that fails in many ways, a row it refuses, and questions."""
    store = Clickhouse(home)
    await store.start()
    port, prefix = free_port(), "loud."
    settings = pipeline.make_settings(kafka_at, home / "data", prefix)
    environ = {
        "MDR_KAFKA": kafka_at, "MDR_CLICKHOUSE_URL": store.url, "MDR_TOPIC_PREFIX": prefix, "MDR_PARTITIONS": "2",
        "MDR_DATA_DIR": str(home / "data"), "MDR_HTTP": f"127.0.0.1:{port}", "MDR_FLUSH_INTERVAL": "100ms",
        "MDR_CHECKPOINT_INTERVAL": "500ms", "MDR_SETTLING_WINDOW": "2s",
    }  # fmt: skip
    worker = Killable("up", [*MDR, "up"], os.environ | environ, home / "log")
    try:
        await until(lambda: get(port, "/readyz")[0] == 200, worker)
        plan = simulate.Plan(600, 9, clock_ms() - 200_000, 30.0, settling_ms=2_000, broken_share=0.05)
        events = list(simulate.events(plan))
        bodies = [b for e in events if (b := _body(e))]
        store.fault("marker", marker=bodies[0], code=6)
        async with kafka.producing(settings) as client:
            outlet = Outlet(client, settings)
            for at, fault in enumerate(("marker", "busy", "drop", "code", "refuse")):
                some = events[at * len(events) // 5 : (at + 1) * len(events) // 5]
                await send_simulated(outlet, some, None, lambda _: None)
                if fault == "marker":
                    await until(lambda: "rows cannot be stored" in worker.log.read_text(), worker)
                store.fault(fault, only="any" if fault == "refuse" else "insert")
                await _met(store, fault, worker)
                secret = await asyncio.to_thread(ask, port, home / "data", _number(events))
        store.fault("none")
        await until(lambda: get(port, "/readyz")[0] == 200, worker)
        worker.signal(signal.SIGTERM)
        assert await worker.ended(20) is not None
        return worker.log.read_text(), secrets_of(e.value for e in events) | {secret}
    finally:
        await worker.kill()
        assert store.process is not None
        await store.process.kill()


async def _met(store: Clickhouse, fault: str, worker: Killable) -> None:
    """Return once a write has met the fault; a port that is closed tells of none."""
    if fault in ("busy", "drop", "code"):
        await until(lambda: store.stats().get(f"fault {fault}", 0), worker)


def _body(event: simulate.Event) -> str:
    found = re.search(rb'"body": ?"([A-Za-z ]{12,})', event.value)
    return found[1].decode() if found else ""


def _number(events: list[simulate.Event]) -> str:
    found = next(m for e in events if (m := re.search(rb'"to": ?"(\+[0-9]{9,15})"', e.value)))
    return found[1].decode()


def test_a_run_with_faults_tells_no_number_and_no_body(kafka_at: str, tmp_path: Path) -> None:
    """Nothing of what was produced is in the log, though it tells of the outage and of its end, once each."""
    log, hidden = asyncio.run(run(kafka_at, tmp_path))
    assert len(hidden) > 500
    assert not [text for text in hidden if text in log]
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    events = [line["event"] for line in lines]
    assert any("rows cannot be stored" in event for event in events), log
    assert any("fails, trying again" in event for event in events), log
    assert any("works again" in event for event in events), log
    assert len(lines) < 60
