"""`mdr lag` as people run it, and what the process that watches tells: with a worker, and with none."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from api.client import HttpClient
from streams import kafka, simulate
from streams.agents import Worker
from streams.cli import operator_file, serving
from streams.clock import clock_ms
from streams.produce import Outlet, send_simulated
from streams.settings import Settings
from tests import pipeline

ROOT = Path(__file__).parent.parent


def mdr(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MDR_")}
    own = {
        "MDR_KAFKA": settings.kafka, "MDR_DATA_DIR": str(settings.data_dir), "MDR_TOPIC_PREFIX": settings.topic_prefix,
        "MDR_CHECKPOINT_INTERVAL": "500ms", "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    program = [sys.executable, "-c", "from streams.cli import main; main()", "lag", *arguments]
    return subprocess.run(
        program, env=inherited | own, cwd=settings.data_dir, capture_output=True, text=True, timeout=120, check=False
    )


def with_free_port(settings: Settings) -> Settings:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return msgspec.structs.replace(settings, http=("127.0.0.1", found.getsockname()[1]))


async def produce(settings: Settings, messages: int) -> list[simulate.Event]:
    plan = simulate.Plan(messages, 5, clock_ms() - 200_000, 30.0, settling_ms=settings.settling_window_ms)
    events = list(simulate.events(plan))
    await kafka.create_topics(settings)
    async with kafka.producing(settings) as client:
        await send_simulated(Outlet(client, settings), events, None, lambda _: None)
    return events


def test_lag_with_nothing_running(kafka_at: str, tmp_path: Path) -> None:
    """Broker and store are asked themselves, also when a dead `mdr up` left its address behind; 3 is too far."""
    settings = pipeline.make_settings(kafka_at, tmp_path, "lagcli.")
    events = asyncio.run(produce(settings, 40))
    stale = operator_file.Operator("http://127.0.0.1:1", "operator", "secret")
    (tmp_path / "operator.json").write_bytes(msgspec.json.encode(stale))
    run = mdr(settings, "--json", "--max-seconds", "30")
    assert run.returncode == 3, run.stderr
    told = json.loads(run.stdout)
    assert told["status"] == "stopped" and told["rates"] is None and told["trouble"] == []
    assert sum(a["lag_events"] for a in told["agents"]) == len(events)
    assert 100 < max(a["lag_seconds"] for a in told["agents"]) < 300
    watched = mdr(settings, "--watch", "--json", "--max-seconds", "30")
    assert (watched.returncode, len(watched.stdout.splitlines())) == (3, 1)
    table = mdr(settings)
    assert table.returncode == 0 and table.stdout.startswith("stopped: lagcli.sends partition 0: no worker has this")
    assert "settled through: not known" in table.stdout


def test_lag_without_a_broker_is_one_sentence(tmp_path: Path) -> None:
    """Whom it cannot ask is named."""
    run = mdr(pipeline.make_settings("127.0.0.1:1", tmp_path, "nobody."), "--json")
    assert run.returncode == 1 and run.stdout == ""
    assert run.stderr.startswith("mdr: the Kafka broker at 127.0.0.1:1 is away")


async def _watched(settings: Settings) -> tuple[Any, Any, Any, str, int]:
    await kafka.create_topics(settings)
    worker = Worker(settings, await kafka.check_topics(settings))
    await worker.start()
    try:
        async with serving.serving(settings, worker):
            events = await produce(settings, 400)
            await pipeline.settle_all(worker, len(events))
            operator = operator_file.read(settings.data_dir)
            assert operator is not None
            client = HttpClient(operator.url, operator.key, operator.secret)
            history = await _looked_again(client)
            run = await asyncio.to_thread(mdr, settings, "--json", "--max-seconds", "30")
            assert run.returncode == 0, run.stderr
            _, metrics = await asyncio.to_thread(client._exchange, "GET", "/metrics", None)
            _, ready = await asyncio.to_thread(client._exchange, "GET", "/readyz", None)
    finally:
        await worker.stop()
    return json.loads(run.stdout), history, json.loads(ready), metrics.decode(), len(events)


async def _looked_again(client: HttpClient) -> Any:
    """The history, once the process has looked at its lag while nothing held it up and has seen events."""
    while True:
        history = await asyncio.to_thread(client.get, "/mdr/lag/history")
        lag = await asyncio.to_thread(client.get, "/mdr/lag")
        if not lag["trouble"] and any(point["events_per_second"] for point in history["points"]):
            return history
        await asyncio.sleep(0.2)


def test_lag_beside_a_worker(kafka_at: str, tmp_path: Path) -> None:
    """`mdr lag` asks the running process; lag, rates, history and metrics agree with what went through."""
    settings = with_free_port(pipeline.make_settings(kafka_at, tmp_path, "laglive."))
    told, history, ready, metrics, produced = asyncio.run(_watched(settings))
    assert (told["status"], told["why"], told["trouble"]) == ("ok", "every agent keeps up", [])
    assert {a["lag_events"] for a in told["agents"]} == {0} and len(told["agents"]) == 9
    assert all(a["owner"].startswith("mdr-") and a["watermark"] for a in told["agents"])
    assert [(s["partition"], s["open"]) for s in told["settling"]] == [(0, 0), (1, 0), (2, 0)]
    assert all(s["checkpoint_age_seconds"] < 60 and s["flush_age_seconds"] < 60 for s in told["settling"])
    assert told["rates"]["events_per_second"].keys() == {f"laglive.{t}" for t in ("sends", "receives", "receipts")}
    assert history["every_seconds"] == 10 and sum(p["events_per_second"] for p in history["points"]) > 0
    assert ready == {"live": True, "ready": True, "reasons": [], "alarms": []}
    samples = [s for family in text_string_to_metric_families(metrics) for s in family.samples]
    assert sum(s.value for s in samples if s.name == "mdr_events_total") == produced
    assert sum(s.value for s in samples if s.name == "mdr_records_total") == 400
    assert {s.value for s in samples if s.name == "mdr_lag_events"} == {0.0}
    assert sum(s.value for s in samples if s.name == "mdr_agent_status") == 9
