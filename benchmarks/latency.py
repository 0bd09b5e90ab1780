"""From the final receipt to the row: `python -m benchmarks.latency [--rates 2000,20000] [--seconds 40]`.

A producer in a process of its own sends messages at a steady rate by the clock (`benchmarks.steady`). One message in a
hundred is a probe, of an account of its own. The time runs from when its final receipt was due to leave until a query
of `mdr` shows the row, asked for twenty times a second in the worker's own process. Also told: how late the worker's
event loop was at worst, how late the producer itself was, and what CPU an event cost, with those queries. Ends with a
table and one JSON line.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import msgspec
import orjson

from benchmarks import tables
from benchmarks.recovery import PARTITIONS
from benchmarks.steady import WARM_UP_S
from streams import broker, kafka, running, settings
from streams.agents import clock_ms
from streams.settings import Settings
from streams.store import Store

_POLL_S: Final = 0.05
_FEEL_S: Final = 0.02
_GRACE_S: Final = 40.0
_VISIBLE: Final = (
    "SELECT message_id FROM mdr WHERE account_id = 'probe'"
    " AND occurred_at >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')"
)
_COLUMNS: Final = (
    "rate", "probes", "unseen", "p50_s", "p99_s", "stall_ms_max", "late_ms_p50", "late_ms_p99", "late_ms_max",
    "acknowledged_ms_p99", "cpu_us",
)  # fmt: skip


async def measure(ready: Settings, rate: int, seconds: float) -> dict[str, Any]:
    """One rate, from an empty store."""
    await kafka.create_topics(ready)
    seen: dict[str, float] = {}
    stalls: list[tuple[float, float]] = []
    async with running.working(ready, f"latency-{rate}") as worker:
        reader = Store(ready.clickhouse_url)
        own = [asyncio.create_task(_poll(reader, clock_ms(), seen)), asyncio.create_task(_feel(stalls))]
        began_s = time.process_time()
        producer = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.steady", str(rate), str(seconds), env=os.environ | _environ(ready),
            stdout=subprocess.PIPE, limit=1 << 26,
        )  # fmt: skip
        told = orjson.loads((await producer.communicate())[0])
        finals: dict[str, float] = told.pop("finals")
        patience_s = time.monotonic() + _GRACE_S
        while time.monotonic() < patience_s and finals.keys() - seen.keys():  # noqa: ASYNC110  # it is polled itself
            await asyncio.sleep(_POLL_S)
        spent_s = time.process_time() - began_s
        events = sum(p.counts.events for p in worker.flow.partitions.values())
        for task in own:
            task.cancel()
        await asyncio.gather(*own, return_exceptions=True)
    start_s, end_s = told.pop("start_s") + WARM_UP_S, told.pop("end_s")
    steady = [late_s for at_s, late_s in stalls if start_s < at_s < end_s]
    took = sorted(seen[mid] - at for mid, at in finals.items() if mid in seen)
    return told | {
        "rate": rate, "events": events, "cpu_us": round(spent_s / events * 1e6, 1),
        "probes": len(finals), "unseen": len(finals) - len(took),
        "p50_s": round(took[len(took) // 2], 2), "p99_s": round(took[int(len(took) * 0.99)], 2),
        "stall_ms_max": round(max(steady, default=0.0) * 1000),
    }  # fmt: skip


async def _poll(store: Store, since_ms: int, seen: dict[str, float]) -> None:
    while True:
        window_ms = max(since_ms, clock_ms() - 60_000)
        rows = await asyncio.to_thread(store.query, _VISIBLE, {"since": window_ms})
        now = time.time()
        for (mid,) in rows:
            seen.setdefault(mid, now)
        await asyncio.sleep(_POLL_S)


async def _feel(stalls: list[tuple[float, float]]) -> None:
    while True:
        began = time.monotonic()
        await asyncio.sleep(_FEEL_S)
        stalls.append((time.time(), time.monotonic() - began - _FEEL_S))


def _environ(ready: Settings) -> dict[str, str]:
    return {"MDR_KAFKA": ready.kafka, "MDR_TOPIC_PREFIX": ready.topic_prefix, "MDR_DATA_DIR": str(ready.data_dir)}


def main() -> None:
    """Measures each rate."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rates", default="2000,20000")
    options.add_argument("--seconds", type=float, default=40)
    chosen = options.parse_args()
    lines = []
    with tempfile.TemporaryDirectory(prefix="mdr-latency-") as folder:
        home = Path(folder)
        started = broker.start(home, cache_dir=Path.home() / ".cache" / "mdr", tied_to_parent=True)
        for rate in map(int, chosen.rates.split(",")):
            own = {"MDR_DATA_DIR": str(home / str(rate)), "MDR_KAFKA": started.bootstrap, "HOME": os.environ["HOME"]}
            own |= {"MDR_PARTITIONS": str(PARTITIONS), "MDR_TOPIC_PREFIX": f"at{rate}."}
            ready = settings.load(own, home)
            ready = msgspec.structs.replace(ready, clickhouse_url=f"chdb://{home}/{rate}/chdb")
            lines.append(asyncio.run(measure(ready, rate, chosen.seconds)))
            print(f"  {json.dumps(lines[-1])}", file=sys.stderr)
        broker.stop(home)
    header = (
        "events/s",
        "probes",
        "unseen",
        "p50 s",
        "p99 s",
        "stall ms",
        "producer ms p50",
        "p99",
        "max",
        "acked ms p99",
        "cpu us an event",
    )
    tables.show("from the final receipt to the row", header, [[line[name] for name in _COLUMNS] for line in lines])
    print(json.dumps({"latency": lines}))


if __name__ == "__main__":
    main()
