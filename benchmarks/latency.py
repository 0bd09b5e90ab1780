"""From the final receipt to the row: `python -m benchmarks.latency [--rates 2000,20000] [--seconds 40]`.

A producer in a process of its own sends messages at a steady rate, each with a `sent` and a `delivered` receipt some
hundred milliseconds apart. One message in a hundred is a probe, of an account of its own. The time runs from the
moment its final receipt was handed to the client until a query of `mdr` shows the row, polled twenty times a second
through the worker's own process. Also told: how late the worker's event loop was at worst. Ends with one JSON line.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any, Final

import msgspec
import orjson

from benchmarks.recovery import PARTITIONS
from schemas.times import format_rfc3339
from streams import broker, kafka, running, settings, simulate
from streams.agents import clock_ms
from streams.flow import RECEIPTS, SENDS
from streams.produce import Outlet
from streams.settings import Settings
from streams.store import Store

PROBE: Final = "probe"
_PROBE_EVERY: Final = 100
_EVENTS_A_MESSAGE: Final = 3
_STEP_S: Final = 0.02
_SENT_AFTER_S: Final = 0.1
_DELIVERED_AFTER_S: Final = 0.4
_WARM_UP_S: Final = 8.0
_POLL_S: Final = 0.05
_GRACE_S: Final = 10.0
_VISIBLE: Final = (
    "SELECT message_id FROM mdr WHERE account_id = 'probe'"
    " AND occurred_at >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')"
)


async def produce(ready: Settings, rate: float, seconds: float) -> dict[str, float]:
    """Sends for so long; returns when each probe's final receipt was handed to the client, seconds since the epoch."""
    models = one_segment_sends()
    finals: dict[str, float] = {}
    later: deque[tuple[float, bytes, str, str]] = deque()
    last: deque[tuple[float, bytes, str, str]] = deque()
    began = time.monotonic()
    made = 0
    async with kafka.producing(ready) as client:
        outlet = Outlet(client, ready)
        while (passed := time.monotonic() - began) < seconds or last or later:
            now = format_rfc3339(clock_ms())
            due = min(passed, seconds) * rate / _EVENTS_A_MESSAGE
            while made < due:
                mid = f"{made:012d}-{os.getpid()}"
                account = PROBE if made % _PROBE_EVERY == 0 else ""
                send = models[made % len(models)] | {"message_id": mid, "event_id": f"{mid}-q", "occurred_at": now}
                send["account_id"] = account or send["account_id"]
                await outlet.send(SENDS, mid.encode(), orjson.dumps(send))
                later.append((passed + _SENT_AFTER_S, mid.encode(), "sent", account))
                made += 1
            for queue, follow in ((later, last), (last, None)):
                while queue and queue[0][0] <= passed:
                    _, key, state, account = queue.popleft()
                    mid = key.decode()
                    receipt = {"event_id": f"{mid}-{state}", "message_id": mid, "occurred_at": now, "state": state}
                    await outlet.send(RECEIPTS, key, orjson.dumps(receipt))
                    if follow is not None:
                        follow.append((passed + _DELIVERED_AFTER_S, key, "delivered", account))
                    elif account and passed > _WARM_UP_S:
                        finals[mid] = time.time()
            await outlet.submit()
            await asyncio.sleep(_STEP_S)
        await outlet.flush()
    return finals


def one_segment_sends() -> list[dict[str, Any]]:
    """Sends with one segment, so that one `delivered` is final."""
    plan = simulate.Plan(3_000, 3, 1_700_000_000_000, 100.0, inbound_share=0.0, broken_share=0.0)
    sends = [orjson.loads(e.value) for e in simulate.events(plan) if e.topic == SENDS]
    plain = [s | {"body": "Your code is 123456.", "encoding": "gsm7", "segments": 1} for s in sends]
    return [s for s in plain if s.get("type", "sms") == "sms"]


async def measure(ready: Settings, rate: int, seconds: float) -> dict[str, Any]:
    """One rate, from an empty store."""
    await kafka.create_topics(ready)
    seen: dict[str, float] = {}
    async with running.working(ready, f"latency-{rate}") as worker:
        stalls: list[float] = []
        watching = asyncio.create_task(_feel(stalls))
        since_ms = clock_ms()
        producer = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.latency", "--produce", str(rate), "--seconds", str(seconds),
            env=os.environ | _environ(ready), stdout=subprocess.PIPE, limit=1 << 26,
        )  # fmt: skip
        told = asyncio.create_task(producer.communicate())
        polling = asyncio.create_task(_poll(worker._reader, since_ms, seen))
        finals: dict[str, float] = orjson.loads((await told)[0])
        end_s = time.monotonic() + _GRACE_S
        while time.monotonic() < end_s and finals.keys() - seen.keys():  # noqa: ASYNC110  # it is polled itself
            await asyncio.sleep(_POLL_S)
        events = sum(p.counts.events for p in worker.flow.partitions.values())
        for task in (polling, watching):
            task.cancel()
        await asyncio.gather(polling, watching, return_exceptions=True)
    took = sorted(seen[mid] - at for mid, at in finals.items() if mid in seen)
    return {
        "rate": rate, "events": events, "probes": len(finals), "unseen": len(finals) - len(took),
        "p50_s": round(took[len(took) // 2], 2), "p99_s": round(took[int(len(took) * 0.99)], 2),
        "stall_ms_max": round(max(stalls[int(_WARM_UP_S / _POLL_S):], default=0.0) * 1000),
    }  # fmt: skip


async def _poll(store: Store, since_ms: int, seen: dict[str, float]) -> None:
    while True:
        window_ms = max(since_ms, clock_ms() - 20_000)
        rows = await asyncio.to_thread(store.query, _VISIBLE, {"since": window_ms})
        now = time.time()
        for (mid,) in rows:
            seen.setdefault(mid, now)
        await asyncio.sleep(_POLL_S)


async def _feel(stalls: list[float]) -> None:
    while True:
        began = time.monotonic()
        await asyncio.sleep(_POLL_S)
        stalls.append(time.monotonic() - began - _POLL_S)


def _environ(ready: Settings) -> dict[str, str]:
    return {"MDR_KAFKA": ready.kafka, "MDR_TOPIC_PREFIX": ready.topic_prefix, "MDR_DATA_DIR": str(ready.data_dir)}


def main() -> None:
    """Measures each rate, or produces for one."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rates", default="2000,20000")
    options.add_argument("--seconds", type=float, default=40)
    options.add_argument("--produce", type=float)
    chosen = options.parse_args()
    if chosen.produce:
        print(json.dumps(asyncio.run(produce(settings.load(), chosen.produce, chosen.seconds))))
        return
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
    print(json.dumps({"latency": lines}))


if __name__ == "__main__":
    main()
