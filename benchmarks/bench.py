"""Events per second, beside the raw limit: what aiokafka and orjson need to read and decode the same topics.

`python -m benchmarks.bench` loads a seeded data set into a broker of its own, runs the limit and ours in turn, each in
a fresh process, checks the records, and ends with one JSON line. Times run from the first event to the last row
acknowledged, ours with its offsets committed.
"""

import argparse
import asyncio
import dataclasses
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import orjson
from aiokafka import AIOKafkaConsumer

from schemas.events import TOPICS
from streams import broker, kafka, running, settings, simulate
from streams.agents import Worker, clock_ms
from streams.demo import compare, read_all
from streams.produce import Outlet, send_simulated
from streams.settings import Settings

_RATE_PER_S = 200.0
_HOUR_MS = 3_600_000
_PATIENCE_S = 600.0


def plan(messages: int, start_ms: int, *, sound: bool) -> simulate.Plan:
    """The data set: made long ago enough that every window has passed once it is read to its end.

    `sound` leaves broken events out, which plain Faust would not survive.
    """
    made = simulate.Plan(messages, 11, start_ms, _RATE_PER_S, settling_ms=4 * _HOUR_MS)
    return dataclasses.replace(made, broken_share=0.0) if sound else made


async def load(ready: Settings, what: simulate.Plan) -> int:
    """Produces the data set; returns how many events it has."""
    await kafka.create_topics(ready)
    began = time.monotonic()

    def tell(n: int) -> None:
        if n % 100_000 == 0:
            print(f"  loaded {n:,} events, {n / (time.monotonic() - began):,.0f}/s", file=sys.stderr)

    async with kafka.producing(ready) as client:
        outlet = Outlet(client, ready)
        await send_simulated(outlet, simulate.events(what), None, tell)
    return outlet.sent


async def raw(ready: Settings, events: int) -> dict[str, Any]:
    """The limit: `getmany` and `orjson.loads`, nothing else."""
    consumer = AIOKafkaConsumer(
        *(ready.topic_prefix + topic for topic in TOPICS),
        **kafka.client_options(ready),
        group_id=f"raw-{os.getpid()}",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        max_partition_fetch_bytes=4 << 20,
    )
    await consumer.start()
    count, began, cpu_began = 0, 0.0, 0.0
    while count < events:
        fetched = await consumer.getmany(timeout_ms=500, max_records=20_000)
        if not began:
            began, cpu_began = time.monotonic(), time.process_time()
        for records in fetched.values():
            for record in records:
                try:
                    orjson.loads(record.value)
                except (orjson.JSONDecodeError, TypeError):
                    continue
            count += len(records)
    seconds, cpu_s = time.monotonic() - began, time.process_time() - cpu_began
    await consumer.stop()
    return {"events": count, "seconds": seconds, "busy_s": round(cpu_s, 2)}


async def ours(ready: Settings, events: int) -> dict[str, Any]:
    """The worker: three topics joined, settled, inserted, acknowledged, offsets committed."""
    async with running.working(ready, f"bench-{os.getpid()}") as worker:
        return await _until_all_is_written(worker, ready, events)


async def _until_all_is_written(worker: Worker, ready: Settings, events: int) -> dict[str, Any]:
    began = cpu_began = 0.0
    open_peak = 0
    while True:
        await asyncio.sleep(0.01)
        assert worker.failed is not None
        if worker.failed.done():
            worker.failed.result()
        parts = worker.flow.partitions.values()
        seen = sum(p.counts.events for p in parts)
        if seen and not began:
            began, cpu_began = time.monotonic(), time.process_time()
        open_ = sum(len(p.lives) for p in parts)
        open_peak = max(open_peak, open_)
        if began and time.monotonic() - began > _PATIENCE_S:
            raise SystemExit(f"{open_} messages are still open after {_PATIENCE_S} s")
        if seen >= events and not open_ and not any(p.pending() for p in parts):
            await worker.barrier.write(checkpoint=True)
            if not any(len(p.lives) + p.pending() for p in parts):
                break
    seconds, cpu_s = time.monotonic() - began, time.process_time() - cpu_began
    # Before the records are compared, which takes memory of its own.
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    out: dict[str, Any] = {"events": events, "seconds": seconds, "busy_s": round(cpu_s, 2), "open_peak": open_peak}
    out["peak_mb"] = peak_mb
    found = read_all(worker.store) if os.environ.get("CHECK") else None
    if found is not None:
        print(json.dumps(out), file=sys.stderr)
        wrong = compare(found["records"], simulate.expected(simulate.events(_stored_plan(ready))))
        out["wrong"] = len(wrong)
    return out


def _stored_plan(ready: Settings) -> simulate.Plan:
    return msgspec.json.decode((ready.data_dir / "plan.json").read_bytes(), type=simulate.Plan)


def measure(name: str, ready: Settings, events: int) -> dict[str, Any]:
    """Runs one contender in a process of its own and adds what it cost."""
    home = ready.data_dir / f"run-{name}"
    shutil.rmtree(home, ignore_errors=True)
    own = ["--only", name, "--events", str(events), "--home", str(ready.data_dir), "--kafka", ready.kafka]
    module = ["benchmarks.peers.faust_plain", "worker", "-l", "warn"] if name == "faust" else ["benchmarks.bench", *own]
    process = subprocess.Popen(
        [sys.executable, "-m", *module], env=os.environ | _peer_environ(home, ready, events), stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert process.stdout is not None
    lines = process.stdout.read().splitlines()
    _, status, usage = os.wait4(process.pid, 0)
    if status or not lines:
        raise SystemExit(f"{name} failed")
    told: dict[str, Any] = json.loads(lines[-1])
    told["events_per_s"] = round(told["events"] / told["seconds"])
    told["cpu_s"] = round(usage.ru_utime + usage.ru_stime, 2)
    told.setdefault("peak_mb", usage.ru_maxrss // 1024)
    shutil.rmtree(home, ignore_errors=True)
    return told


def _peer_environ(home: Path, ready: Settings, events: int) -> dict[str, str]:
    return {
        "PEER_EVENTS": str(events), "PEER_PREFIX": ready.topic_prefix, "PEER_PARTITIONS": str(ready.partitions),
        "PEER_KAFKA": ready.kafka, "PEER_HOME": str(home),
    }  # fmt: skip


def _settings(home: Path, kafka_at: str, run: str) -> Settings:
    base = settings.load({"MDR_DATA_DIR": str(home), "MDR_KAFKA": kafka_at, "HOME": os.environ["HOME"]}, home)
    path = home / f"run-{run}"
    return msgspec.structs.replace(base, clickhouse_url=f"chdb://{path}")


def main() -> None:
    """Runs the benchmark, or one contender of it."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--messages", type=int, default=400_000)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--home", type=Path, default=Path("data/bench").absolute())
    options.add_argument("--peers", action="store_true", help="plain Faust too, once: it takes its time")
    options.add_argument("--only", choices=("raw", "ours"))
    options.add_argument("--events", type=int, default=0)
    options.add_argument("--kafka", default="")
    chosen = options.parse_args()
    if chosen.only:
        contender = {"raw": raw, "ours": ours}[chosen.only]
        print(json.dumps(asyncio.run(contender(_settings(chosen.home, chosen.kafka, chosen.only), chosen.events))))
        return
    _compare(chosen.home, chosen.messages, chosen.rounds, peers=chosen.peers)


def _compare(home: Path, messages: int, rounds: int, *, peers: bool) -> None:
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    cache = settings.load({"HOME": os.environ["HOME"]}, home).cache_dir
    started = broker.start(home, cache_dir=cache, tied_to_parent=True)
    ready = _settings(home, started.bootstrap, "load")
    what = plan(messages, clock_ms() - int(messages / _RATE_PER_S * 1000) - 14 * _HOUR_MS, sound=peers)
    (home / "plan.json").write_bytes(msgspec.json.encode(what))
    events = asyncio.run(load(ready, what))
    print(f"{events:,} events of {messages:,} messages, {ready.partitions} partitions, lz4", file=sys.stderr)
    results: dict[str, list[dict[str, Any]]] = {"raw": [], "ours": [], **({"faust": []} if peers else {})}
    for turn in range(rounds):
        for name, runs in results.items():
            if name == "faust" and turn:
                continue
            os.environ["CHECK"] = "1" if turn == 0 else ""
            runs.append(measure(name, ready, events))
            print(f"  {name:5} {json.dumps(runs[-1])}", file=sys.stderr)
    broker.stop(home)
    _tell(events, results)


def _median(runs: list[dict[str, Any]], field: str) -> float:
    return float(sorted(run[field] for run in runs)[len(runs) // 2])


def _tell(events: int, results: dict[str, list[dict[str, Any]]]) -> None:
    told: Counter[str] = Counter()
    line: dict[str, Any] = {"events": events}
    for name, runs in results.items():
        for field in ("events_per_s", "cpu_s", "peak_mb"):
            line[f"{name}_{field}"] = _median(runs, field)
    ratios = [o["events_per_s"] / r["events_per_s"] for r, o in zip(results["raw"], results["ours"], strict=True)]
    line["ratio"] = round(sorted(ratios)[len(ratios) // 2], 3)
    if "faust" in results:
        line["times_faust"] = round(line["ours_events_per_s"] / line["faust_events_per_s"], 1)
    line["wrong"] = results["ours"][0].get("wrong", told["none"])
    print(json.dumps(line))


if __name__ == "__main__":
    main()
