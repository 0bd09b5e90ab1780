"""A sized plan from measured costs, and simulations of it: `make plan`, or `python -m benchmarks.plan [TABLE ...]`.

New measurements change `Costs` and nothing else; `docs/SCALING.md` shows what this prints, and a test compares the two.
"""

import sys
from collections.abc import Callable, Sequence
from math import ceil, inf
from typing import Final, NamedTuple

from benchmarks import merging, rebalance
from benchmarks.merging import Engine, Load
from benchmarks.rebalance import Group, Times
from streams.barrier import ROWS_MAX

SIZES: Final = (10_000, 100_000, 1_000_000)
_DAY_S: Final = 86_400
_MONTH_DAYS: Final = 30


class Costs(NamedTuple):
    """What was measured (benchmarks/README.md says when and how), unless its comment says otherwise."""

    # The worker at its limit on two cores, and its CPU for an event.
    worker_events_per_s: float = 75_000
    worker_cpu_us: float = 19
    # Of simulated traffic.
    events_a_message: float = 2.64
    event_bytes: float = 450
    lz4_share: float = 0.26
    # A record on disk when merged, in a part just inserted, and as it goes over the wire.
    record_bytes: float = 116
    record_fresh_bytes: float = 125
    record_wire_bytes: float = 651
    open_bytes: float = 308
    recover_s_per_million: float = 6
    start_s: float = 4
    # ClickHouse: the insert of a record, and one merge of it.
    insert_us: float = 6
    merge_us: float = 12
    merge_fixed_s: float = 0.11
    # Chosen, not measured.
    load_share: float = 0.55
    unsettled_share: float = 0.03
    window_h: float = 4
    retention_days: float = 90
    shard_bytes: float = 20e12
    broker_bytes_per_s: float = 150e6
    copies: int = 3
    replicas: int = 2
    partitions_a_worker: int = 4
    merge_cores: float = 8


COSTS: Final = Costs()


class Plan(NamedTuple):
    """One size: so many groups, each with its topics, its workers and its shard."""

    messages_per_s: float
    groups: int
    workers: int
    costs: Costs

    @property
    def events_per_s(self) -> float:
        """Of all groups."""
        return self.messages_per_s * self.costs.events_a_message

    @property
    def open_messages(self) -> float:
        """Of all groups; what settles in seconds does not count."""
        return self.messages_per_s * self.costs.unsettled_share * self.costs.window_h * 3_600

    @property
    def all_workers(self) -> int:
        """Of all groups."""
        return self.groups * self.workers

    @property
    def load_share(self) -> float:
        """How much of what a worker can do the traffic takes."""
        return self.events_per_s / self.all_workers / self.costs.worker_events_per_s

    @property
    def disk_bytes_a_day(self) -> float:
        """Records of all groups, one copy, merged."""
        return self.messages_per_s * _DAY_S * self.costs.record_bytes

    def group(self, *, static: bool = False) -> Group:
        """One group, as its rebalances see it."""
        partitions = self.workers * self.costs.partitions_a_worker
        events = self.events_per_s / self.groups
        return Group(self.workers, partitions, events, self.open_messages / self.groups, self.load_share, static)


def plan(messages_per_s: float, costs: Costs = COSTS, groups: int = 0) -> Plan:
    """The plan of a size: the disk decides the shards, each shard has a group, the events decide its workers."""
    shards = groups or ceil(messages_per_s * _DAY_S * costs.record_bytes * costs.retention_days / costs.shard_bytes)
    needed = messages_per_s * costs.events_a_message / (costs.worker_events_per_s * costs.load_share)
    return Plan(messages_per_s, shards, ceil(needed / shards), costs)


# ---- tables -----------------------------------------------------------------------------------------------------


def _number(value: float) -> str:
    if value >= 1e6:
        return f"{_two(value / 1e6)} million"
    return f"{value:,.0f}" if value >= 10 else _two(value)


def _two(value: float) -> str:
    """Two digits that say something."""
    return f"{value:,.0f}" if value >= 9.95 else f"{value:.1f}" if value >= 0.095 else f"{value:.2f}"


def _bytes(value: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if value >= size:
            return f"{_two(value / size)} {unit}"
    return f"{_two(value / 1e3)} kB"


def _brokers(p: Plan) -> int:
    """A multiple of three, one of each three in a place of its own."""
    written = p.events_per_s * p.costs.event_bytes * p.costs.lz4_share * p.costs.copies
    return 3 * max(1, ceil(written / p.costs.broker_bytes_per_s / 3))


_COSTS: Final[tuple[tuple[str, Callable[[Costs], str]], ...]] = (
    ("CPU an event", lambda c: f"{c.worker_cpu_us:.0f} us"),
    ("one worker at its limit, on two cores", lambda c: f"{c.worker_events_per_s:,.0f} events/s"),
    ("events a message (simulated traffic)", lambda c: f"{c.events_a_message}"),
    ("an event; its share with lz4, in batches of 256 KiB", lambda c: f"{c.event_bytes:.0f} bytes; {c.lz4_share:.0%}"),
    (
        "a record on disk, merged; as inserted",
        lambda c: f"{c.record_bytes:.0f} bytes; {c.record_fresh_bytes:.0f} bytes",
    ),
    ("a record before compression, as it goes to the store", lambda c: f"{c.record_wire_bytes:.0f} bytes"),
    ("an open message in memory", lambda c: f"{c.open_bytes:.0f} bytes"),
    ("a million open messages, read back", lambda c: f"{c.recover_s_per_million:.0f} s"),
    ("a worker's start", lambda c: f"{c.start_s:.0f} s"),
    ("ClickHouse's CPU to insert a record; to merge it once", lambda c: f"{c.insert_us:.0f} us; {c.merge_us:.0f} us"),
)


def costs_table(costs: Costs = COSTS) -> str:
    """What was measured."""
    return table(["cost", "figure"], [[name, line(costs)] for name, line in _COSTS])


_LINES: Final[tuple[tuple[str, Callable[[Plan], str]], ...]] = (
    ("events/s", lambda p: _number(p.events_per_s)),
    ("groups, each with its topics and its shard", lambda p: str(p.groups)),
    ("workers (2 cores each)", lambda p: f"{p.all_workers}: {p.workers} a group"),
    ("of what a worker can do", lambda p: f"{p.load_share:.0%}"),
    ("CPU for all events, cores", lambda p: _number(p.events_per_s * p.costs.worker_cpu_us / 1e6)),
    ("partitions of each topic, a group", lambda p: str(p.group().partitions)),
    ("Kafka in, lz4", lambda p: f"{_bytes(p.events_per_s * p.costs.event_bytes * p.costs.lz4_share)}/s"),
    ("brokers", lambda p: str(_brokers(p))),
    ("a worker reads; sends to its shard at most", lambda p: "; ".join(_traffic(p))),
    ("open messages, all workers", lambda p: _number(p.open_messages)),
    ("memory for them, a worker", lambda p: _bytes(p.open_messages / p.all_workers * p.costs.open_bytes)),
    ("to read a worker's share back", lambda p: f"{_recovery_s(p):.0f} s"),
    ("records a day, on disk, one copy", lambda p: _bytes(p.disk_bytes_a_day)),
    ("kept 90 days, one copy", lambda p: _bytes(p.disk_bytes_a_day * p.costs.retention_days)),
    ("ClickHouse servers (two a shard)", lambda p: str(p.groups * p.costs.replicas)),
    ("records/s a shard", lambda p: _number(p.messages_per_s / p.groups)),
    ("inserts/s into `mdrs` a shard, flush 1 s; 5 s", lambda p: f"{p.workers}; {_two(p.workers / 5)}"),
    ("rows an insert, flush 1 s; 5 s", lambda p: "; ".join(_number(_rows(p, s)) for s in (1, 5))),
    ("cores for inserts, a shard", lambda p: _two(p.messages_per_s / p.groups * p.costs.insert_us / 1e6)),
)


def _traffic(p: Plan) -> tuple[str, str]:
    read = p.events_per_s * p.costs.event_bytes * p.costs.lz4_share / p.all_workers
    return f"{_bytes(read)}/s", f"{_bytes(p.messages_per_s * p.costs.record_wire_bytes / p.all_workers)}/s"


def _recovery_s(p: Plan) -> float:
    return p.open_messages / p.all_workers / 1e6 * p.costs.recover_s_per_million


def _rows(p: Plan, flush_s: float) -> float:
    # The worker flushes early at 20,000 rows.
    return min(ROWS_MAX, p.messages_per_s / p.all_workers * flush_s)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as the documents have it."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def plan_table(costs: Costs = COSTS) -> str:
    """The three sizes."""
    plans = [plan(size, costs) for size in SIZES]
    header = ["messages/s", *(f"{size:,}" for size in SIZES)]
    return table(header, [[name, *(line(p) for p in plans)] for name, line in _LINES])


# ---- simulations ------------------------------------------------------------------------------------------------

_STATIC_SESSION_S: Final = 45.0
_SCRIPTS: Final = (rebalance.loss, rebalance.rolling, rebalance.whole_group)


def rebalance_table(costs: Costs = COSTS) -> str:
    """A lost worker, a rolling deploy, a restart of all: longest stand; most backlog, in traffic; caught up after."""
    rows = []
    for size in SIZES:
        planned, large = plan(size, costs), plan(size, costs, groups=1)
        groups = [("", planned.group()), (", static", planned.group(static=True))]
        if planned.groups > 1:
            groups = [(", all in one", large.group()), *groups, (", all in one, static", large.group(static=True))]
        rows += [[f"{size:,}: {group.workers} workers{name}", *_outcomes(group, costs)] for name, group in groups]
    return table(["messages/s, group", "one lost", "rolling deploy", "all at once"], rows)


def _outcomes(group: Group, costs: Costs) -> list[str]:
    times = Times(start_s=costs.start_s, recover_s_per_million=costs.recover_s_per_million)
    if group.static:
        times = times._replace(session_s=_STATIC_SESSION_S)
    told = []
    for script in _SCRIPTS:
        o = rebalance.simulate(group, times, script)
        told.append(f"{_time(o.longest_s)}; {_time(o.backlog_s_max)}; {_time(o.caught_up_s)}")
    return told


def _time(seconds: float) -> str:
    if seconds == inf:
        return "never"
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7_200
        else f"{seconds / 3_600:.1f} h"
    )


def parts_table(costs: Costs = COSTS, hours: float = 0.5) -> str:
    """Active parts of a month's partition in a shard: at its beginning, and with a month in it."""
    small, usual, large = plan(SIZES[0], costs), plan(SIZES[-1], costs), plan(SIZES[1], costs, groups=1)
    cases = [(small, 1, hours), (small, 5, hours), (usual, 1, hours), (usual, 5, hours), (large, 1, hours / 3)]
    header = ["records/s, workers of a shard", "inserts/s", "parts: mean, most", "late in the month", *_TOLD.values()]
    return table(header, [_parts_line(*case) for case in cases])


def _parts_line(p: Plan, flush_s: float, hours: float) -> list[str]:
    costs = p.costs
    rows = _rows(p, flush_s)
    every_s = p.groups * rows / p.messages_per_s
    engine = Engine(
        costs.record_fresh_bytes / costs.merge_us * 1e6, costs.merge_cores, merge_fixed_s=costs.merge_fixed_s
    )
    load = Load(rows * costs.record_fresh_bytes, every_s, hours * 3_600)
    held = p.disk_bytes_a_day * _MONTH_DAYS / p.groups
    old = [engine.merge_bytes_max * 0.9] * int(held / engine.merge_bytes_max / 0.9)
    first = merging.simulate(engine, load)
    late = merging.simulate(engine, load._replace(old=tuple(old)))
    name = f"{p.messages_per_s / p.groups:,.0f}, {p.workers}, flush {flush_s} s"
    counts = [_counts(c.parts) + (f", {c.refused} refused" if c.refused else "") for c in (first, late)]
    return [name, _two(1 / every_s), *counts, *(f"{_two(getattr(first, f))}; {_two(getattr(late, f))}" for f in _TOLD)]


_TOLD: Final = {"write_amplification": "times a byte is merged", "merging_cores": "cores for merges"}


def _counts(parts: Sequence[int]) -> str:
    settled = parts[len(parts) // 4 :]
    return f"{sum(settled) / len(settled):.0f}, {max(settled)}"


_TABLES: Final = {"costs": costs_table, "plan": plan_table, "rebalances": rebalance_table, "parts": parts_table}


def main() -> None:
    """Prints the tables asked for, or all."""
    for name in sys.argv[1:] or _TABLES:
        print(f"<!-- {name} -->\n{_TABLES[name]()}\n<!-- end -->\n", flush=True)


if __name__ == "__main__":
    main()
