"""A worker's process from outside: its probes, and how it ends when the store is away."""

import asyncio
import json
import os
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from schemas.times import format_rfc3339
from streams import kafka
from streams.agents import Worker
from streams.cli import serving
from streams.clock import clock_ms
from tests import pipeline
from tests.faults.processes import Clickhouse, Killable

MDR = [sys.executable, "-c", "from streams.cli import main; main()"]
END_S_MAX = 10.0


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def get(port: int, path: str) -> tuple[int, str]:
    """Status and body; 0 when nobody answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as e:
        with e:
            return e.code, e.read().decode()
    except OSError:
        return 0, ""


async def until(true: Callable[[], Any], process: Killable, patience_s: float = 60) -> None:
    began_s = time.monotonic()
    while not await asyncio.to_thread(true):
        assert process.runs(), process.log.read_text()
        assert time.monotonic() - began_s < patience_s, process.log.read_text()
        await asyncio.sleep(0.1)


async def run(command: str, fault: str, kafka_at: str, home: Path) -> tuple[float | None, dict[str, Any], str, str]:
    """How long SIGTERM takes while the store has a fault; what /readyz and /metrics said then, and the log."""
    store = Clickhouse(home)
    await store.start()
    port, prefix = free_port(), f"{command}.{fault}."
    settings = pipeline.make_settings(kafka_at, home, prefix)
    environ = {
        "MDR_KAFKA": kafka_at, "MDR_CLICKHOUSE_URL": store.url, "MDR_TOPIC_PREFIX": prefix, "MDR_PARTITIONS": "2",
        "MDR_DATA_DIR": str(home / "data"), "MDR_HTTP": f"127.0.0.1:{port}", "MDR_FLUSH_INTERVAL": "200ms",
        "MDR_CHECKPOINT_INTERVAL": "1s",
    }  # fmt: skip
    worker = Killable(command, [*MDR, command], os.environ | environ, home / "log")
    try:
        await until(lambda: get(port, "/readyz")[0] == 200, worker)
        store.fault(fault)
        async with kafka.producing(settings) as client:
            for n in range(200):
                await client.send(prefix + "sends", _send(n), str(n).encode())
            await client.flush()
        if fault == "refuse":
            await until(lambda: "held up" in get(port, "/readyz")[1], worker)
        else:
            await asyncio.sleep(3)
        ready, metrics = get(port, "/readyz")[1], get(port, "/metrics")[1]
        worker.signal(signal.SIGTERM)
        return await worker.ended(30), json.loads(ready), metrics, worker.log.read_text()
    finally:
        await worker.kill()
        store.fault("none")
        assert store.process is not None
        await store.process.kill()


def _send(n: int) -> bytes:
    at = format_rfc3339(clock_ms())
    event = {"event_id": f"e{n}", "message_id": str(n), "occurred_at": at, "account_id": "a"}
    return json.dumps(event | {"from": "+14155550100", "to": "+12125550101"}).encode()


@pytest.mark.parametrize(("command", "fault"), [("worker", "refuse"), ("up", "hang")])
def test_sigterm_ends_it_in_time_while_the_store_is_away(
    command: str, fault: str, kafka_at: str, tmp_path: Path
) -> None:
    """Within ten seconds, whether ClickHouse refuses or hangs; until then it lives, and says why it is not ready."""
    took_s, ready, metrics, log = asyncio.run(run(command, fault, kafka_at, tmp_path))
    assert took_s is not None and took_s < END_S_MAX, log
    assert "Traceback" not in log
    if fault == "refuse":
        assert not ready["ready"] and ready["live"] and "writing is held up" in str(ready["reasons"])
        assert "\nmdr_store_trouble 1.0\n" in metrics


def test_the_second_worker_of_a_machine_works_without_probes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One address is for one process: the first serves its probes there, the other says that nobody asks it."""
    settings = pipeline.make_settings("127.0.0.1:1", tmp_path, "twice.", MDR_HTTP=f"127.0.0.1:{free_port()}")

    async def twice() -> tuple[str, str, tuple[int, str]]:
        worker = Worker(settings, 3)
        try:
            async with serving.probing(settings, worker) as first, serving.probing(settings, worker) as second:
                return first, second, await asyncio.to_thread(get, settings.http[1], "/readyz")
        finally:
            await worker.stop()

    first, second, (status, said) = asyncio.run(twice())
    assert first == f"http://127.0.0.1:{settings.http[1]}" and second == ""
    assert status == 503 and "no partitions are assigned and recovered yet" in said
    assert f"nobody can listen at {first}" in caplog.text
