"""Active parts of `mdrs` under an insert rate, in the real engine and simulated beside it.

`python -m benchmarks.parts [--seconds 150] [--rows 5700] [--every 0.23]` measures what a merge costs, inserts parts of
so many rows so often while merges run, and simulates what was inserted when. Ends with one JSON line.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from typing import Any, Final

from benchmarks import query, tables
from benchmarks.merging import Engine, Load, simulate
from streams.store import Store

_MONTH_START_MS: Final = 1_795_000_000_000

_PARTS: Final = (
    "SELECT count(), sum(bytes_on_disk), sum(rows), sumIf(bytes_on_disk, level = 0), sumIf(rows, level = 0),"
    " (SELECT count() FROM system.merges) FROM system.parts WHERE active AND table = 'mdrs'"
)


def insert(store: Store, number: int, rows: int, records: int) -> None:
    """One part of records, all in one month, inserted as the worker inserts."""
    numbers = range(number * rows, (number + 1) * rows)
    query.insert(store, numbers, _MONTH_START_MS, records, days=1, settings=" SETTINGS optimize_on_insert = 0")


def measure(store: Store, rows: int, every_s: float, seconds: float) -> dict[str, Any]:
    """Inserts for so long, sampled every half second."""
    began = time.monotonic()
    inserts, late_s = 0, 0.0
    times, parts, fresh, inserted = [], [], [], []
    while (now_s := time.monotonic() - began) < seconds:
        if now_s >= inserts * every_s:
            insert(store, inserts, rows, int(rows * seconds / every_s))
            inserts += 1
            inserted.append(time.monotonic() - began)
            late_s = max(late_s, time.monotonic() - began - inserts * every_s)
        if len(times) < int(now_s / 0.5):
            active, size, held, new_size, new_rows, _ = store.query(_PARTS, {})[0]
            times.append(now_s)
            parts.append(active)
            fresh += [new_size / new_rows] if new_rows else []
        time.sleep(0.01)
    return {
        "times_s": times, "parts": parts, "inserts": inserts, "inserted_s": inserted, "late_s": round(late_s, 1),
        "bytes_a_fresh_row": statistics.median(fresh), "bytes_a_row": size / held,
    }  # fmt: skip


def merge_speed(store: Store, rows: int, parts: int) -> tuple[float, float]:
    """Bytes a second of a core, and what a merge costs besides in core seconds: from a large and a small one."""
    took = []
    for count, size in ((parts, rows), (2, 50)):
        store.command("SYSTEM STOP MERGES mdrs", {})
        store.command("TRUNCATE TABLE mdrs", {})
        for number in range(count):
            insert(store, number, size, rows * parts)
        held = store.query(_PARTS, {})[0][1]
        store.command("SYSTEM START MERGES mdrs", {})
        began_s = tables.cpu_s()
        store.command("OPTIMIZE TABLE mdrs FINAL", {})
        took.append((held, tables.cpu_s() - began_s))
    store.command("TRUNCATE TABLE mdrs", {})
    (large, large_s), (_, small_s) = took
    return large / (large_s - small_s), small_s


def compare(told: dict[str, Any], engine: Engine, rows: int) -> dict[str, Any]:
    """Real and simulated counts of parts, from the same inserts; without the first stretch, in which both fill."""
    seconds = told["times_s"][-1]
    load = Load(told["bytes_a_fresh_row"] * rows, 0, seconds, at_s=tuple(told["inserted_s"]))
    course = simulate(engine, load, sample_s=0.5)
    both = {"real": (told["times_s"], told["parts"]), "simulated": (course.times_s, course.parts)}
    out: dict[str, Any] = {}
    for name, (times, parts) in both.items():
        settled = [n for at, n in zip(times, parts, strict=True) if at > load.seconds / 5]
        out[name] = {"mean": round(statistics.mean(settled), 1), "max": max(settled), "last": parts[-1]}
    return out | {"write_amplification": round(course.write_amplification, 2)}


def main() -> None:
    """Measures and simulates, prints both."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=150)
    options.add_argument("--rows", type=int, default=5_700)
    options.add_argument("--every", type=float, default=0.23)
    asked = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="mdr-parts-") as home:
        store = Store(f"chdb://{home}/chdb")
        store.migrate(3_650, 3_650)
        speed, fixed_s = merge_speed(store, asked.rows, 40)
        told = measure(store, asked.rows, asked.every, asked.seconds)
        store.close()
    # The embedded engine: two threads, four tasks, no smaller merges in a full pool.
    engine = Engine(speed, 1.5, 2, 4, 0, fixed_s)
    out = compare(told, engine, asked.rows)
    row_us = told["bytes_a_fresh_row"] / speed * 1e6
    _print(speed, row_us, fixed_s, told["inserts"], out)
    shown = {name: value for name, value in told.items() if name not in ("times_s", "parts", "inserted_s")}
    shown |= {"merge_row_us": round(row_us, 1)}
    print(json.dumps({"parts": out | shown, "merge_bytes_per_s": round(speed), "merge_fixed_s": round(fixed_s, 3)}))


def _print(speed: float, row_us: float, fixed_s: float, inserts: int, out: dict[str, Any]) -> None:
    cost = f"{speed / 1e6:.1f} MB/s, {row_us:.1f} us a row, {fixed_s * 1000:.0f} ms a merge"
    print(f"merging: {cost}; {inserts} inserts\n{'parts':10} {'mean':>6} {'max':>6} {'last':>6}", file=sys.stderr)
    for name in ("real", "simulated"):
        print(f"{name:10} {out[name]['mean']:6} {out[name]['max']:6} {out[name]['last']:6}", file=sys.stderr)


if __name__ == "__main__":
    main()
