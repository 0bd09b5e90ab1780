"""Throughput against what grows: `make growth`, or `python -m benchmarks.growth [SERIES ...] [--rounds N]`.

The worker's own part without Kafka: entries are decoded, joined, settled, looked up, inserted into chDB and
checkpointed by the real flow, barrier and store. Each message is a send with a `sent` and a `delivered` receipt. One
thing varies at a time, the others stay at `BASE`. Rounds go through all values in turn, so that what else the machine
does meets them alike; medians are told, as a table and a JSON line. The series `workers` is of whole processes
(`benchmarks.workers`).
"""

import argparse
import asyncio
import gc
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from benchmarks import query, tables, workers
from benchmarks.query import Entry
from benchmarks.recovery import NoKafka
from benchmarks.steady import one_segment_sends
from schemas.times import format_rfc3339
from streams import kafka
from streams.barrier import Barrier
from streams.flow import RECEIPTS, SENDS, Flow
from streams.store import Store

MESSAGES: Final = 40_000
_RATE_PER_MS: Final = 5
_LATE_AFTER: Final = 20_000
_TICK_S: Final = 1.0
# What the log holds between two topics' batches, whatever the partitions.
_BATCHES_A_STEP: Final = 8
_WINDOW_MS: Final = 4 * 3_600_000
_FILL_STEP: Final = 500_000
_MDRS_MAX: Final = 20_000_000


class Case(NamedTuple):
    """One measurement."""

    partitions: int = 8
    batch: int = 1_000
    open: int = 10_000
    late: float = 0.0
    body: int = 60
    mdrs: int = 0


BASE: Final = Case()
# Late receipts ask the store: with them it shows what its size does.
_WITH: Final[dict[str, dict[str, Any]]] = {"mdrs": {"late": 0.05}}
SERIES: Final[dict[str, tuple[Any, ...]]] = {
    "partitions": (1, 8, 32, 128), "batch": (100, 1_000, 5_000), "open": (10_000, 100_000, 1_000_000, 2_000_000),
    "late": (0.0, 0.05, 0.2), "body": (20, 160, 1_000), "mdrs": (0, 1_000_000, 5_000_000, _MDRS_MAX),
}  # fmt: skip
UNITS: Final = {
    "partitions": "partitions", "batch": "entries a batch at most", "open": "messages open", "late": "late receipts",
    "body": "characters a body", "mdrs": "rows in mdrs",
}  # fmt: skip


Batch = tuple[str, int, list[Entry]]


class Feed:
    """Makes entries with offsets that go on, one topic and partition at a time."""

    def __init__(self, case: Case, start_ms: int) -> None:
        self._case = case
        self._start_ms = start_ms
        self._models = [send | {"body": "x" * case.body} for send in one_segment_sends()]
        self._offsets: dict[tuple[str, int], int] = defaultdict(int)

    def sends(self, numbers: range, name: str) -> list[Batch]:
        """Sends of messages `name-number`."""
        made = []
        for n in numbers:
            fields = {"message_id": f"{name}-{n}", "event_id": f"{name}-{n}-q", "occurred_at": self._at(n)}
            made.append((f"{name}-{n}".encode(), self._models[n % len(self._models)] | fields, self._ms(n)))
        return self._batches(SENDS, made)

    def receipts(self, numbers: range, name: str, state: str, now: int) -> list[Batch]:
        """A receipt for each, when message number `now` is sent."""
        made = []
        for n in numbers:
            fields = {"message_id": f"{name}-{n}", "event_id": f"{name}-{n}-{state}", "occurred_at": self._at(now)}
            made.append((f"{name}-{n}".encode(), fields | {"state": state}, self._ms(now)))
        return self._batches(RECEIPTS, made)

    def _ms(self, n: int) -> int:
        return self._start_ms + n // _RATE_PER_MS

    def _at(self, n: int) -> str:
        return format_rfc3339(self._ms(n))

    def _batches(self, topic: str, made: list[tuple[bytes, dict[str, Any], int]]) -> list[Batch]:
        by_shard: dict[int, list[Entry]] = defaultdict(list)
        for key, fields, at_ms in made:
            shard = kafka.partition_of(key, self._case.partitions)
            self._offsets[topic, shard] += 1
            by_shard[shard].append(Entry(self._offsets[topic, shard], at_ms, key, orjson.dumps(fields)))
        size = self._case.batch
        return [(topic, s, e[at : at + size]) for s, e in by_shard.items() for at in range(0, len(e), size)]


def traffic(feed: Feed, case: Case) -> list[Batch]:
    """The measured traffic; late receipts come long after their message was settled."""
    log: list[Batch] = []
    step = case.batch * _BATCHES_A_STEP
    for first in range(0, MESSAGES, step):
        numbers = range(first, min(first + step, MESSAGES))
        log += feed.sends(numbers, "m")
        log += feed.receipts(numbers, "m", "sent", numbers[-1])
        log += feed.receipts(numbers, "m", "delivered", numbers[-1])
        late = range(max(0, first - _LATE_AFTER), max(0, numbers[-1] + 1 - _LATE_AFTER))
        log += feed.receipts(late[: round(len(late) * case.late)], "m", "failed", numbers[-1]) if case.late else []
    return log


async def measure(case: Case, store: Store) -> dict[str, Any]:
    """Events a second, and CPU for each: all threads, merges too, and child processes."""
    # As the worker has it.
    gc.freeze()
    gc.set_threshold(100_000, 20, 50)
    start_ms = time.time_ns() // 1_000_000 - 600_000
    feed, flow = Feed(case, start_ms), Flow("mdr.", _WINDOW_MS)
    for shard in range(case.partitions):
        flow.open_partition(shard, start_ms)
    _preload(flow, feed, case, start_ms)
    log = traffic(feed, case)
    clock = lambda: time.time_ns() // 1_000_000  # noqa: E731
    barrier = Barrier(flow, store, NoKafka(), clock, case.partitions, 1_000, 5_000)
    writing = asyncio.create_task(barrier.run())
    began, cpu_began = time.perf_counter(), tables.cpu_s()
    events = await _worked(flow, barrier, store, log)
    barrier.finish()
    await writing
    await barrier.write(checkpoint=True)
    took_s = time.perf_counter() - began
    barrier.close()
    cpu_us = (tables.cpu_s() - cpu_began) / events * 1e6
    return {"events_per_s": round(events / took_s), "cpu_us": round(cpu_us, 1)}


def _preload(flow: Flow, feed: Feed, case: Case, now_ms: int) -> None:
    """Open messages as they are once they were saved, and packed: the store has no part in it."""
    ((_, shard, (entry,)),) = feed.sends(range(1), "open")
    scratch = Flow("mdr.", _WINDOW_MS).open_partition(shard, now_ms)
    model = Flow("mdr.", _WINDOW_MS)
    model.partitions[shard] = scratch
    model.batch(SENDS, shard, [entry], now_ms)
    (row,) = scratch.snapshot(now_ms).rows
    said = str(now_ms).encode()
    for n in range(1, case.open + 1):
        mid = f"open-{n}"
        partition = flow.partitions[kafka.partition_of(mid.encode(), case.partitions)]
        # Spread over a window, as a steady stream leaves them; the first ends ten minutes from now.
        at_ms = now_ms - _WINDOW_MS + 600_000 + n * (_WINDOW_MS - 600_000) // case.open
        facts = row.facts.replace(b"open-0", mid.encode()).replace(said, b"%d" % at_ms)
        partition.restore(mid, facts, at_ms + _WINDOW_MS, at_ms)
    for p in flow.partitions.values():
        p.tick(now_ms)
        while len(p._unpacked) > p.unpacked_max:
            p._pack()


async def _worked(flow: Flow, barrier: Barrier, store: Store, log: list[Batch]) -> int:
    events, ticked = 0, time.monotonic()
    for topic, shard, entries in log:
        await barrier.room()
        now_ms = time.time_ns() // 1_000_000
        held = flow.batch(topic, shard, entries, now_ms)
        if held:
            brief = flow.brief(shard, held)
            found = await asyncio.to_thread(store.lookup, [h.event.message_id for h in held], brief)
            flow.resume(topic, shard, entries, held, found, now_ms)
        events += len(entries)
        barrier.did(topic, shard, entries[-1].offset + 1)
        if time.monotonic() - ticked > _TICK_S:
            ticked = time.monotonic()
            asked = flow.tick(now_ms)
            found = await asyncio.to_thread(store.lookup, [m for ids in asked.values() for m in ids]) if asked else {}
            for at, ids in asked.items():
                flow.partitions[at].resolve_receipts(ids, found, now_ms)
        await asyncio.sleep(0)
    return events


def run(series: str, value: Any, home: Path) -> dict[str, Any]:
    """One value of one series, on the store in a directory."""
    case = BASE._replace(**{series: value}, **_WITH.get(series, {}))
    store = Store(f"chdb://{home}")
    store.migrate(3_650, 3_650)
    try:
        return asyncio.run(measure(case, store))
    finally:
        store.close()


def fill(home: Path, wanted: int) -> None:
    """Adds records up to so many, and lets the engine come to rest."""
    store = Store(f"chdb://{home}")
    store.migrate(3_650, 3_650)
    held = int(store.query("SELECT count() FROM mdrs", {})[0][0])
    start_ms = int(time.time() * 1000) - query.DAYS * 86_400_000
    for at in range(held, wanted, _FILL_STEP):
        count = min(_FILL_STEP, wanted - at)
        query.insert(store, range(at, at + count), start_ms, _MDRS_MAX)
    patience_s = time.monotonic() + 60
    while store.query("SELECT count() FROM system.merges", {})[0][0] and time.monotonic() < patience_s:
        time.sleep(0.5)
    store.close()


def _own(*arguments: str) -> str:
    """What this module prints in a process of its own: one process opens one store, once."""
    command = [sys.executable, "-m", "benchmarks.growth", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


class _Stores:
    """A store of so many records for each measurement: filled once, then copied."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def copy(self, records: int) -> Path:
        made, used = self._home / f"filled-{records}", self._home / "used"
        if not made.exists():
            smaller = [p for p in self._home.glob("filled-*") if int(p.name.removeprefix("filled-")) < records]
            if smaller:
                shutil.copytree(max(smaller, key=lambda p: int(p.name.removeprefix("filled-"))), made, symlinks=True)
            _own("--fill", str(made), str(records))
        shutil.rmtree(used, ignore_errors=True)
        shutil.copytree(made, used, symlinks=True)
        return used


def main() -> None:
    """Prints a table a series and one JSON line."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("series", nargs="*", help=f"of {', '.join(SERIES)}, workers; all of them otherwise")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--home", type=Path, help="keeps the filled stores here")
    options.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options.add_argument("--fill", nargs=2, help=argparse.SUPPRESS)
    asked = options.parse_args()
    if asked.one:
        series, value = asked.one[0], type(getattr(BASE, asked.one[0]))(asked.one[1])
        print(json.dumps(run(series, value, Path(asked.one[2]))))
    elif asked.fill:
        fill(Path(asked.fill[0]), int(asked.fill[1]))
    else:
        with tempfile.TemporaryDirectory(prefix="mdr-growth-") as home:
            _all(asked.series or [*SERIES, "workers"], asked.rounds, asked.home or Path(home))


def _all(wanted: list[str], rounds: int, home: Path) -> None:
    home.mkdir(parents=True, exist_ok=True)
    stores, told = _Stores(home), {}
    for series in wanted:
        told[series] = workers.compare(rounds) if series == "workers" else _series(series, rounds, stores)
    print(json.dumps({"growth": told}))


def _series(series: str, rounds: int, stores: _Stores) -> dict[str, Any]:
    runs: dict[Any, list[dict[str, Any]]] = {value: [] for value in SERIES[series]}
    for _ in range(rounds):
        for value, done in runs.items():
            used = stores.copy(value if series == "mdrs" else 0)
            done.append(json.loads(_own("--one", series, str(value), str(used))))
            print(f"  {series} {value}: {done[-1]}", file=sys.stderr)
    out: dict[str, Any] = {}
    for value, done in runs.items():
        out[str(value)] = {name: tables.median([run[name] for run in done]) for name in ("events_per_s", "cpu_us")}
        # Of the same round: what the machine does besides meets both.
        pairs = zip(done, runs[SERIES[series][0]], strict=True)
        out[str(value)]["to_first"] = round(tables.median([a["events_per_s"] / b["events_per_s"] for a, b in pairs]), 2)
    header = (UNITS[series], "events/s", "to the first", "CPU us an event")
    rows = [(value, int(o["events_per_s"]), o["to_first"], o["cpu_us"]) for value, o in out.items()]
    tables.show(f"{series}, medians of {rounds}", header, rows)
    return out


if __name__ == "__main__":
    main()
