"""Active parts of a MergeTree table under a steady insert rate, simulated.

It follows ClickHouse's simple merge selector (its ranges, score and falling base, as of 26.5) and its pool: parts are
selected at each insert and at each end of a merge, and merges share the cores. Left out: merges for TTL, replicas that
fetch instead of merging, the random part of waits. `python -m benchmarks.parts` compares it with the real engine.
"""

import heapq
import itertools
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np

MIB: Final = 1 << 20
_AT_ONCE_MAX: Final = 100
_FIXED_BYTES: Final = 5 * MIB
# `merge_selector_base` of the table, and what it falls to.
_BASE, _BASE_MIN = 16.0, 2.0
_LOG_SIZES: Final = (np.log(1 + MIB), np.log(1 + 100 * 1024 * MIB))
_AGE_MIN_S, _AGE_MAX_SMALL_S, _AGE_MAX_LARGE_S = 10.0, 3_600.0, 30 * 86_400.0
_PARTS_TO_LOWER: Final = (10, 50)


class Engine(NamedTuple):
    """What a ClickHouse has for merging; the defaults are a server's, `merge_bytes_per_s` is of one core."""

    merge_bytes_per_s: float
    cores: float = 4.0
    threads: int = 16
    tasks: int = 32
    lower_below_free: int = 8
    merge_fixed_s: float = 0.05
    merge_bytes_max: float = 150 * 1024 * MIB
    merge_bytes_min: float = MIB


class Load(NamedTuple):
    """Parts of so many bytes, so often or at given moments; `old` are parts that are there already."""

    insert_bytes: float
    every_s: float
    seconds: float
    old: tuple[float, ...] = ()
    at_s: tuple[float, ...] = ()

    def inserts_s(self) -> Iterator[float]:
        """When a part comes, for ever: after the last given moment none does."""
        yield from self.at_s or (n * self.every_s for n in itertools.count())
        yield float("inf")


class Course(NamedTuple):
    """What came of it: active parts by time, and how often a byte was written by merges."""

    times_s: list[float]
    parts: list[int]
    write_amplification: float
    merging_cores: float
    refused: int


def largest_merge(engine: Engine, running: int) -> float:
    """How many bytes a merge may have now: the fuller the pool, the fewer."""
    free = engine.tasks - running
    if free <= 0:
        return 0.0
    if free >= engine.lower_below_free:
        return engine.merge_bytes_max
    steps = engine.merge_bytes_max / engine.merge_bytes_min
    return float(engine.merge_bytes_min * steps ** (free / engine.lower_below_free))


def select(sizes: np.ndarray, ages_s: np.ndarray, bytes_max: float) -> tuple[float, int, int] | None:
    """The best of neighbouring parts to merge, as (score, begin, end); the lowest score is the best."""
    count = len(sizes)
    if count < 2:
        return None
    width = min(count, _AT_ONCE_MAX)
    padding = np.zeros(width)
    windows = np.lib.stride_tricks.sliding_window_view(np.concatenate([sizes, padding]), width)[:count]
    young = np.lib.stride_tricks.sliding_window_view(np.concatenate([ages_s, padding]), width)[:count]
    sums = np.cumsum(windows, axis=1)
    members = np.arange(1, width + 1)
    inside = (np.arange(count)[:, None] + members <= count) & (members >= 2) & (sums <= bytes_max)
    largest = np.maximum.accumulate(windows, axis=1)
    base = _base(sums, np.minimum.accumulate(young, axis=1), count)
    allowed = inside & ((sums + members * _FIXED_BYTES) / (largest + _FIXED_BYTES) >= base)
    begins, places = np.nonzero(allowed)
    if not len(begins):
        return None
    return _best(sizes, begins, begins + places + 1, sums[begins, places])


def _base(sums: np.ndarray, youngest_s: np.ndarray, count: int) -> Any:
    size = np.clip((np.log(1 + sums) - _LOG_SIZES[0]) / (_LOG_SIZES[1] - _LOG_SIZES[0]), 0, 1)
    age_max_s = _AGE_MAX_SMALL_S + (_AGE_MAX_LARGE_S - _AGE_MAX_SMALL_S) * size
    age = np.clip((youngest_s - _AGE_MIN_S) / (age_max_s - _AGE_MIN_S), 0, 1)
    many = min(1.0, max(0.0, (count - _PARTS_TO_LOWER[0]) / (_PARTS_TO_LOWER[1] - _PARTS_TO_LOWER[0])))
    return _BASE + (_BASE_MIN - _BASE) * np.minimum(1.0, age + many)


def _best(sizes: np.ndarray, begins: np.ndarray, ends: np.ndarray, sums: np.ndarray) -> tuple[float, int, int]:
    whole, sums = sums, sums.copy()
    # Small parts at the right end are left for a merge of their own.
    while (small := (ends >= begins + 3) & (sizes[ends - 1] < 0.01 * whole)).any():
        sums[small] -= sizes[ends[small] - 1]
        ends = ends - small
    counts = ends - begins
    scores = (sums + _FIXED_BYTES * counts) / (counts - 1.9)
    before = np.where(begins > 0, sizes[begins - 1], 0)
    near = np.abs(np.log2(sums / np.maximum(before, 1)))
    # What is as large as its left neighbour is liked better: the two can merge later.
    scores = np.where((before > 0.9 * sums) & (near < 0.5), scores * (0.75 + 0.25 * near / 0.5), scores)
    at = len(scores) - 1 - int(np.argmin(scores[::-1]))
    return float(scores[at]), int(begins[at]), int(ends[at])


class _Table:
    """Parts in order of insertion, and the merges that run."""

    def __init__(self, engine: Engine, load: Load) -> None:
        self.engine = engine
        self.sizes = list(load.old)
        self.born_s = [-86_400.0] * len(load.old)
        self.merge_of = [0] * len(load.old)
        self.running: dict[int, float] = {}
        self.names = 0
        self.merged_bytes = 0.0
        self.busy_core_s = 0.0

    def insert(self, size: float, now_s: float) -> None:
        self.sizes.append(size)
        self.born_s.append(now_s)
        self.merge_of.append(0)

    def pace(self) -> float:
        """How much of a core each merge has."""
        return min(1.0, min(self.engine.cores, self.engine.threads) / max(1, len(self.running)))

    def next_end_s(self, now_s: float) -> float:
        return now_s + min(self.running.values()) / self.pace() if self.running else float("inf")

    def work(self, seconds: float, now_s: float) -> None:
        """Lets merges go on, and ends those that are done."""
        pace = self.pace()
        self.busy_core_s += seconds * pace * len(self.running)
        self.running = {name: left - seconds * pace for name, left in self.running.items()}
        for name in [name for name, left in self.running.items() if left <= 1e-9]:
            del self.running[name]
            self._end(name, now_s)

    def _end(self, name: int, now_s: float) -> None:
        places = [n for n, merge in enumerate(self.merge_of) if merge == name]
        at, upto = places[0], places[-1] + 1
        size = sum(self.sizes[at:upto])
        self.sizes[at:upto], self.born_s[at:upto], self.merge_of[at:upto] = [size], [now_s], [0]

    def start_merges(self, now_s: float) -> None:
        while (most := largest_merge(self.engine, len(self.running))) and (found := self._choose(now_s, most)):
            begin, end = found
            size = sum(self.sizes[begin:end])
            self.names += 1
            self.merge_of[begin:end] = [self.names] * (end - begin)
            self.running[self.names] = self.engine.merge_fixed_s + size / self.engine.merge_bytes_per_s
            self.merged_bytes += size

    def _choose(self, now_s: float, most: float) -> tuple[int, int] | None:
        chosen: list[tuple[float, int, int]] = []
        for first, last in self._free():
            sizes = np.array(self.sizes[first:last])
            found = select(sizes, np.floor(now_s - np.array(self.born_s[first:last])), most)
            if found:
                heapq.heappush(chosen, (found[0], found[1] + first, found[2] + first))
        return chosen[0][1:] if chosen else None

    def _free(self) -> Iterator[tuple[int, int]]:
        """Stretches of parts that no merge has."""
        first = 0
        for at, merge in enumerate([*self.merge_of, -1]):
            if merge:
                if at > first:
                    yield first, at
                first = at + 1


def simulate(engine: Engine, load: Load, sample_s: float = 1.0, parts_max: int = 3_000) -> Course:
    """Inserts as the load says; more parts than ClickHouse bears are refused, and counted."""
    inserts_s = load.inserts_s()
    table, now_s, insert_s, tell_s = _Table(engine, load), 0.0, next(inserts_s), sample_s
    times, parts, inserted, refused = [], [], 0.0, 0
    while now_s < load.seconds:
        then_s = min(insert_s, table.next_end_s(now_s), tell_s)
        table.work(then_s - now_s, then_s)
        now_s = then_s
        if now_s >= insert_s:
            insert_s = next(inserts_s)
            if len(table.sizes) < parts_max:
                table.insert(load.insert_bytes, now_s)
                inserted += load.insert_bytes
            else:
                refused += 1
        if now_s >= tell_s:
            tell_s += sample_s
            times.append(now_s)
            parts.append(len(table.sizes))
        table.start_merges(now_s)
    return Course(times, parts, table.merged_bytes / inserted, table.busy_core_s / now_s, refused)
