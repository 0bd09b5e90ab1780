"""The whole way on this machine: broker, worker, simulated traffic, records, and the comparison with the truth."""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import msgspec
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from schemas.money import format_nanos
from schemas.record import COLUMNS
from schemas.times import format_rfc3339
from streams import kafka, private, running
from streams.clock import clock_ms
from streams.produce import Outlet, send_simulated
from streams.settings import Settings
from streams.simulate import Event, Plan, Truth, events, expected
from streams.store import Store
from streams.tables import select_columns
from streams.terminal import Terminal, err

if TYPE_CHECKING:
    from streams.agents import Worker

MESSAGES: Final = 20_000
_RATE_PER_S: Final = 40.0
_TAIL_MS: Final = 150_000
_SETTLING_MS: Final = 5_000
_PATIENCE_S: Final = 120.0
# When it happened to be worked off, not what it says.
_INCIDENTAL: Final = frozenset({"settled_at", "amended_at", "amendments", "version", "shard", "facts"})


class DemoFailed(Exception):
    """The demo did not come out as it must; one sentence."""


async def run(settings: Settings, messages: int, seed: int) -> None:
    """Runs the demo in a directory of its own under the data directory; raises `DemoFailed` unless all agrees."""
    home = settings.data_dir / "demo"
    shutil.rmtree(home, ignore_errors=True)
    settings = msgspec.structs.replace(
        settings, data_dir=home, clickhouse_url=f"chdb://{home / 'chdb'}", kafka="", settling_window_ms=_SETTLING_MS,
        checkpoint_interval_ms=1_000,
    )  # fmt: skip
    console = err
    began = time.monotonic()
    private.directory(home)
    # The traffic and its truth are made while the broker starts.
    making = asyncio.create_task(asyncio.to_thread(_make, _plan(messages, seed)))
    settings = await asyncio.to_thread(running.with_own_broker, settings, console.print)
    console.print(f"Kafka runs at {settings.kafka}, the store is chDB in {home / 'chdb'}")
    async with running.working(settings) as worker:
        produced, truth = await making
        await _run_traffic(worker, settings, produced, console)
        told = await asyncio.to_thread(read_all, worker.store)
        counts = dict(worker.telemetry.tally.dead_letters)
    _show(told, truth, counts, produced, began)


def _plan(messages: int, seed: int) -> Plan:
    span_ms = int(messages / _RATE_PER_S * 1000) + _TAIL_MS
    return Plan(messages, seed, clock_ms() - span_ms, _RATE_PER_S, settling_ms=_SETTLING_MS)


def _make(plan: Plan) -> tuple[list[Event], Truth]:
    produced = list(events(plan))
    return produced, expected(produced)


async def _run_traffic(worker: Worker, settings: Settings, produced: list[Event], console: Terminal) -> None:
    bars = Progress(
        TextColumn("{task.description:>12}", markup=False), BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f}"), TimeElapsedColumn(), console=console,
    )  # fmt: skip
    with bars:
        made, read, settled = (bars.add_task(name, total=len(produced)) for name in ("produced", "read", "settled"))
        async with kafka.producing(settings) as client:
            outlet = Outlet(client, settings)
            watching = asyncio.create_task(_watch(worker, len(produced), bars, read, settled))
            await send_simulated(outlet, produced, None, lambda n: bars.update(made, completed=n))
        try:
            await asyncio.wait_for(watching, _PATIENCE_S)
        except TimeoutError:
            raise DemoFailed(f"not everything was settled within {_PATIENCE_S:.0f} s") from None


async def _watch(worker: Worker, total: int, bars: Progress, read: TaskID, settled: TaskID) -> None:
    """Returns once every event was read and nothing is open, waits or is still to be written."""
    while True:
        await asyncio.sleep(0.1)
        if worker.failed is not None and worker.failed.done():
            worker.failed.result()
        seen = sum(p.counts.events for p in worker.flow.partitions.values())
        open_ = sum(len(p.lives) + p.pending() for p in worker.flow.partitions.values())
        bars.update(read, completed=seen)
        bars.update(settled, completed=max(0, seen - open_))
        if seen >= total and not open_:
            await worker.barrier.write(checkpoint=True)
            if not any(len(p.lives) + p.pending() for p in worker.flow.partitions.values()):
                return


def read_all(store: Store) -> dict[str, Any]:
    """Everything the tables say, read back through SQL."""
    names = [c.name for c in COLUMNS]
    rows = store.query(f"SELECT {select_columns(COLUMNS)} FROM mdrs AS t FINAL", {})  # noqa: S608  # our own column names
    orphans = store.query(
        "SELECT message_id, event_id, state, toUnixTimestamp64Milli(occurred_at), segment FROM orphan_receipts", {}
    )
    through = store.query("SELECT toUnixTimestamp64Milli(min(settled_through)) FROM settled_through", {})
    return {
        "records": [dict(zip(names, row, strict=True)) for row in rows],
        "orphans": {tuple(row) for row in orphans},
        "settled_through": through[0][0],
    }


def compare(found: list[dict[str, Any]], truth: Truth) -> list[str]:
    """Where records differ from the truth: one sentence a difference."""
    wrong = []
    seen: Counter[tuple[str, str]] = Counter()
    for row in found:
        key = (row["direction"], row["message_id"])
        seen[key] += 1
        wanted = truth.records.get(key)
        if wanted is None:
            wrong.append(f"{key}: nobody sent it")
            continue
        shown = comparable(row)
        wrong += [f"{key}: {n} is {shown.get(n)!r}, not {wanted[n]!r}" for n in wanted if shown.get(n) != wanted[n]]
    wrong += [f"{key}: has {count} records" for key, count in seen.items() if count > 1]
    return wrong + [f"{key}: has no record" for key in truth.records if key not in seen]


def comparable(row: dict[str, Any]) -> dict[str, Any]:
    """A row of `mdrs` without what is incidental, its timeline as a list of entries."""
    plain = {n: v for n, v in row.items() if n not in _INCIDENTAL and not n.startswith("timeline.")}
    parts = ("event_id", "state", "occurred_at", "segment", "error_code")
    entries = zip(*(row[f"timeline.{part}"] for part in parts), strict=True)
    return plain | {"timeline": [dict(zip(parts, entry, strict=True)) for entry in entries]}


# ---- what people see -------------------------------------------------------------------------------------------


def _show(told: dict[str, Any], truth: Truth, dead: dict[str, int], produced: list[Event], began: float) -> None:
    out = Terminal(width=None if sys.stdout.isatty() else 120)
    records = told["records"]
    _show_states(out, records)
    _show_timeline(out, max(records, key=lambda r: len(set(r["timeline.state"]))))
    _show_dead(out, dead, truth)
    out.print(f"orphan receipts: {len(told['orphans'])} of {len(truth.orphans)} as expected")
    out.print(f"settled through: {format_rfc3339(told['settled_through'])}")
    wrong = compare(records, truth)
    for sentence in wrong[:10]:
        out.print(f"  {sentence}")
    right = len(truth.records) - len({w.split(":")[0] for w in wrong})
    out.print(f"{right:,} of {len(truth.records):,} records as expected, from {len(produced):,} events")
    out.print(f"{time.monotonic() - began:.1f} s")
    if wrong or told["orphans"] != truth.orphans or Counter(dead) != truth.reasons:
        raise DemoFailed("what was stored is not what was simulated")


def _show_states(out: Terminal, records: list[dict[str, Any]]) -> None:
    table = Table("direction", "record type", "state", "currency", title="records", title_justify="left")
    for name in ("records", "segments", "amount"):
        table.add_column(name, justify="right")
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for record in records:
        group = tuple(record[name] for name in ("direction", "record_type", "state", "currency"))
        groups.setdefault(group, []).append(record)
    for key, rows in sorted(groups.items()):
        amount = sum(r["amount_nanos"] for r in rows)
        table.add_row(*key, f"{len(rows):,}", f"{sum(r['segments'] for r in rows):,}", format_nanos(amount) or "0")
    out.print(table)


def _show_timeline(out: Terminal, record: dict[str, Any]) -> None:
    title = f"one message: {record['message_id']}, {record['record_type']}, {record['state']}"
    table = Table("at", "after", "state", "segment", "error", "source", title=title, title_justify="left")
    first_ms = record["timeline.occurred_at"][0]
    parts = ("occurred_at", "state", "segment", "error_code", "source")
    for at_ms, state, segment, error, source in zip(*(record[f"timeline.{p}"] for p in parts), strict=True):
        after = f"{(at_ms - first_ms) / 1000:.3f} s"
        table.add_row(format_rfc3339(at_ms), after, state, str(segment or ""), error, source)
    out.print(table)


def _show_dead(out: Terminal, dead: dict[str, int], truth: Truth) -> None:
    table = Table("reason", title="dead letters", title_justify="left")
    table.add_column("found", justify="right")
    table.add_column("simulated", justify="right")
    for reason in sorted(truth.reasons | Counter(dead)):
        table.add_row(reason, str(dead.get(reason, 0)), str(truth.reasons.get(reason, 0)))
    out.print(table)
