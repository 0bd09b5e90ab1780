"""Throughput against what grows: `python -m benchmarks.growth [partitions|batch|open|late|body|mdrs ...]`.

The worker's own part without Kafka: entries are decoded, joined, settled, looked up, inserted into chDB and
checkpointed by the real flow, barrier and store. Each message is a send with a `sent` and a `delivered` receipt. One
thing varies at a time, the others stay at `BASE`. Ends with one JSON line of events a second.
"""

import asyncio
import json
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from benchmarks import query
from benchmarks.latency import one_segment_sends
from benchmarks.query import Entry
from benchmarks.recovery import NoKafka
from schemas.times import format_rfc3339
from streams import kafka
from streams.barrier import Barrier
from streams.flow import RECEIPTS, SENDS, Flow
from streams.store import Store

MESSAGES: Final = 60_000
_RATE_PER_MS: Final = 5
_LATE_AFTER: Final = 30_000
_TICK_S: Final = 0.25
_PRELOAD_STEP: Final = 20_000


class Case(NamedTuple):
    """One measurement."""

    partitions: int = 8
    batch: int = 1_000
    open: int = 10_000
    late: float = 0.0
    body: int = 60
    mdrs: int = 0


BASE: Final = Case()
SERIES: Final[dict[str, tuple[Any, ...]]] = {
    "partitions": (1, 8, 32), "batch": (100, 1_000, 5_000), "open": (10_000, 100_000, 1_000_000, 2_000_000),
    "late": (0.0, 0.05, 0.2), "body": (20, 160, 1_000), "mdrs": (0, 1_000_000, 10_000_000),
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
    step = case.batch * case.partitions
    for first in range(0, MESSAGES, step):
        numbers = range(first, min(first + step, MESSAGES))
        log += feed.sends(numbers, "m")
        log += feed.receipts(numbers, "m", "sent", numbers[-1])
        log += feed.receipts(numbers, "m", "delivered", numbers[-1])
        late = range(max(0, first - _LATE_AFTER), max(0, numbers[-1] + 1 - _LATE_AFTER))
        log += feed.receipts(late[: round(len(late) * case.late)], "m", "failed", numbers[-1]) if case.late else []
    return log


async def measure(case: Case, store: Store) -> int:
    """Events a second."""
    start_ms = time.time_ns() // 1_000_000 - 600_000
    feed, flow = Feed(case, start_ms), Flow("mdr.", 4 * 3_600_000)
    for shard in range(case.partitions):
        flow.open_partition(shard, start_ms)
    _preload(flow, feed, case.open, start_ms)
    log = traffic(feed, case)
    clock = lambda: time.time_ns() // 1_000_000  # noqa: E731
    barrier = Barrier(flow, store, NoKafka(), clock, case.partitions, 1_000, 5_000)
    # What was preloaded counts as saved: the store has no part in it.
    for p in flow.partitions.values():
        p.snapshot(start_ms)
    writing = asyncio.create_task(barrier.run())
    began = time.perf_counter()
    events = await _worked(flow, barrier, store, log)
    barrier.finish()
    await writing
    await barrier.write(checkpoint=True)
    took_s = time.perf_counter() - began
    barrier.close()
    return round(events / took_s)


def _preload(flow: Flow, feed: Feed, count: int, now_ms: int) -> None:
    for first in range(0, count, _PRELOAD_STEP):
        for topic, shard, entries in feed.sends(range(first, min(first + _PRELOAD_STEP, count)), "open"):
            flow.batch(topic, shard, entries, now_ms)
        for p in flow.partitions.values():
            p.saved(p.snapshot(now_ms))
        for _ in range(6):
            flow.tick(now_ms)


async def _worked(flow: Flow, barrier: Barrier, store: Store, log: list[Batch]) -> int:
    events, ticked = 0, time.monotonic()
    for topic, shard, entries in log:
        await barrier.room()
        now_ms = time.time_ns() // 1_000_000
        held = flow.batch(topic, shard, entries, now_ms)
        if held:
            found = await asyncio.to_thread(store.lookup, [h.event.message_id for h in held])
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


def run(series: str, value: Any, home: Path) -> int:
    """One value of one series, on a store of its own."""
    case = BASE._replace(**{series: value})
    store = Store(f"chdb://{home}/{series}-{value}")
    store.migrate(3_650, 3_650)
    if case.mdrs:
        query.fill(store, case.mdrs, int(time.time() * 1000) - query.DAYS * 86_400_000)
    try:
        return asyncio.run(measure(case, store))
    finally:
        store.close()


def main() -> None:
    """Prints a line a series; each value in a process of its own, since one process opens one store."""
    if sys.argv[1:2] == ["--one"]:
        series, value = sys.argv[2], type(getattr(BASE, sys.argv[2]))(sys.argv[3])
        print(run(series, value, Path(sys.argv[4])))
        return
    asyncio.run(_all(sys.argv[1:] or list(SERIES)))


async def _all(wanted: list[str]) -> None:
    told: dict[str, dict[str, int]] = {}
    for series in wanted:
        for value in SERIES[series]:
            with tempfile.TemporaryDirectory(prefix="mdr-growth-") as home:
                one = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "benchmarks.growth", "--one", series, str(value), home,
                    stdout=asyncio.subprocess.PIPE,
                )  # fmt: skip
                out, _ = await one.communicate()
            told.setdefault(series, {})[str(value)] = int(out.split()[-1])
            print(f"  {series} {value}: {told[series][str(value)]:,} events/s", file=sys.stderr)
    print(json.dumps({"growth": told}))


if __name__ == "__main__":
    main()
