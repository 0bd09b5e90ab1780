"""What is counted while the worker works, and how Prometheus is told: base units, no number and no id as a label.

Counting costs a few additions a batch. The core counts by partition itself; what it counted is gathered from there.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from prometheus_client import (
    CollectorRegistry,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from schemas import native
from schemas.events import REASONS, TOPICS
from schemas.record import COLUMNS
from streams.aside import aside, failures
from streams.effects import Counts
from streams.fold import Columns
from streams.folding import Folded, Piece, as_array
from streams.lag import Report
from streams.lag_rules import STATUSES
from streams.settle import Partition

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_DISTRIBUTION: Final = "message-detail-records"
_DELAYS_S: Final = (1, 2, 5, 10, 30, 60, 300, 900, 3_600, 14_400, 43_200, 86_400, 259_200)
_DURATIONS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_BUILD: Final = ("version", "native")
_NAMES: Final = [c.name for c in COLUMNS]
_TYPE, _DIRECTION, _AMENDMENTS, _OCCURRED, _FINAL, _SETTLED = map(
    _NAMES.index, ("record_type", "direction", "amendments", "occurred_at", "final_at", "settled_at")
)
T = TypeVar("T")
# When each series began would be as many series again.
disable_created_metrics()  # type: ignore[no-untyped-call]  # theirs


class Tally:
    """What one process counted since it began."""

    def __init__(self) -> None:
        self.events: Counter[str] = Counter()
        self.records: Counter[str] = Counter()
        self.dead_letters: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.read_again: Counter[str] = Counter()
        self.misplaced = 0
        self.outcomes = Counts()
        self.delays = np.zeros(len(_DELAYS_S) + 1, np.int64)
        self.delays_sum_s = 0.0
        self._settled_ms = 0
        self._gathered: dict[int, tuple[Partition, Counts]] = {}

    def took(self, partitions: Mapping[int, Partition]) -> None:
        """Says that partitions were taken on: what they had counted before is not ours."""
        self._gathered |= {shard: (p, _copy(p.counts)) for shard, p in partitions.items()}

    def gather(self, partitions: Mapping[int, Partition]) -> None:
        """Adds what the partitions counted since the last time."""
        for shard, partition in partitions.items():
            known, before = self._gathered.get(shard, (None, Counts()))
            now = _copy(partition.counts)
            self._gathered[shard] = (partition, now)
            if known is partition:
                for name in Counts.__struct_fields__:
                    grown = getattr(now, name) - getattr(before, name)
                    setattr(self.outcomes, name, getattr(self.outcomes, name) + grown)

    def wrote(self, pieces: Sequence[Piece]) -> None:
        """Counts records as they are written for the first time, and how long their final receipts took.

        One that was amended is new all the same if it settled after everything that was written before.
        """
        if not pieces:
            return
        amendments, settled, occurred = (as_array(pieces, c).to_numpy() for c in (_AMENDMENTS, _SETTLED, _OCCURRED))
        since_ms, self._settled_ms = self._settled_ms, max(self._settled_ms, int(settled.max()))
        is_new = (amendments == 0) | (settled > since_ms)
        for kind in as_array(pieces, _TYPE).filter(pa.array(is_new)).value_counts().to_pylist():
            self.records[kind["values"]] += kind["counts"]
        final, is_outbound = as_array(pieces, _FINAL), pc.equal(as_array(pieces, _DIRECTION), "outbound")
        told = is_new & final.is_valid().to_numpy(zero_copy_only=False) & is_outbound.to_numpy(zero_copy_only=False)
        delays_s = np.maximum(final.fill_null(0).to_numpy()[told] - occurred[told], 0) / 1000
        self.delays += np.bincount(np.searchsorted(_DELAYS_S, delays_s), minlength=len(self.delays))
        self.delays_sum_s += float(delays_s.sum())


def _copy(counts: Counts) -> Counts:
    return Counts(*(getattr(counts, name) for name in Counts.__struct_fields__))


class Metered:
    """The writing half of a store, timed and counted."""

    def __init__(self, store: Any, telemetry: "Telemetry") -> None:
        self._store = store
        self._tally = telemetry.tally
        self._seconds = telemetry.insert_seconds

    def write_records(self, records: Columns | Folded) -> Any:
        """See `Store.write_records`."""
        written: list[Piece] = []
        bad = self._timed("mdrs", self._store.write_records, records, written.append)
        aside("counting records", self._tally.wrote, written)
        return bad

    def write_open(self, rows: Sequence[Any], opened: Columns | Folded) -> Any:
        """See `Store.write_open`."""
        return self._timed("open_messages", self._store.write_open, rows, opened)

    def write_orphans(self, shard: int, orphans: Sequence[Any]) -> Any:
        """See `Store.write_orphans`."""
        if not orphans:
            return []
        return self._timed("orphan_log", self._store.write_orphans, shard, orphans)

    def drop_orphans(self, shard: int, adopted: Sequence[Any]) -> None:
        """See `Store.drop_orphans`."""
        if adopted:
            self._timed("orphan_log", self._store.drop_orphans, shard, adopted)

    def write_checkpoints(self, rows: Sequence[Any]) -> None:
        """See `Store.write_checkpoints`."""
        self._timed("checkpoints", self._store.write_checkpoints, rows)

    def _timed(self, table: str, call: Callable[..., T], *args: Any) -> T:
        began_s = time.perf_counter()
        try:
            return call(*args)
        finally:
            aside("timing an insert", self._observe, table, time.perf_counter() - began_s)

    def _observe(self, table: str, seconds: float) -> None:
        self._seconds.labels(table).observe(seconds)


class Live(NamedTuple):
    """What is so at the time of a scrape; times in ms, 0 when it never was."""

    report: Report | None = None
    read_ms: int = 0
    partitions: Mapping[int, Partition] = {}
    settled_through_ms: int | None = None
    settled_moved_ms: int = 0
    window_ms: int = 0
    store_trouble: bool = False
    broker_trouble: bool = False
    flushed_ms: int = 0
    checkpointed_ms: int = 0


class Telemetry:
    """The metrics of one process, in a registry of its own; `live` is asked at each scrape."""

    def __init__(self, topic_prefix: str) -> None:
        self.topics = {topic: topic_prefix + topic for topic in TOPICS}
        self.tally = Tally()
        self.live: Callable[[], Live] = Live
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._registry.register(_Collector(self))
        self.insert_seconds = self._histogram("mdr_insert_duration_seconds", "Inserts, by table.", ["table"])
        self.write_seconds = self._histogram("mdr_flush_duration_seconds", "Whole flushes and checkpoints.", ["kind"])
        self.stall_seconds = self._histogram("mdr_event_loop_stall_seconds", "How late the event loop was.", [])

    def _histogram(self, name: str, meaning: str, labels: Sequence[str]) -> Histogram:
        return Histogram(name, meaning, labels, buckets=_DURATIONS_S, registry=self._registry)

    def exposition(self) -> bytes:
        """All metrics as Prometheus reads them."""
        return generate_latest(self._registry)


class _Collector:
    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    def describe(self) -> Iterable[Metric]:
        """Nothing, so that registering asks nobody."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The families that are made at a scrape."""
        live, tally, topics = self._telemetry.live(), self._telemetry.tally, self._telemetry.topics
        aside("gathering counts", tally.gather, live.partitions)
        yield from _guarded("telling counts", _counted, tally, topics)
        yield from _guarded("telling the lag", _lag, live)
        yield from _guarded("telling what stands", _standing, live, topics)
        build = (_version(), "yes" if native.enabled else "no")
        yield _gauge("mdr_build_info", "The version that runs, and whether it is compiled.", _BUILD, {build: 1})


def _guarded(what: str, families: Callable[..., Iterator[Metric]], *args: Any) -> list[Metric]:
    """Return what of the families can be told: one that fails does not take the others along."""
    told: list[Metric] = []
    aside(what, lambda: told.extend(families(*args)))
    return told


def _counted(tally: Tally, topics: Mapping[str, str]) -> Iterator[Metric]:
    events, lost = ({name: counts[topic] for topic, name in topics.items()} for counts in (tally.events, tally.lost))
    by_type = dict.fromkeys(("complete", "error", "incomplete"), 0)
    by_reason = dict.fromkeys(REASONS, 0)
    yield _counter("mdr_events_total", "Events read.", "topic", events)
    yield _counter("mdr_records_total", "Records written for the first time.", "record_type", by_type | tally.records)
    yield _counter("mdr_dead_letters_total", "Inputs refused.", "reason", by_reason | tally.dead_letters)
    yield _counter("mdr_lost_events_total", "Events deleted before they were read.", "topic", lost)
    again = {name: tally.read_again[topic] for topic, name in topics.items()}
    yield _counter("mdr_read_again_events_total", "Committed events that the store did not hold.", "topic", again)
    outcomes = tally.outcomes
    for name, meaning, value in (
        ("mdr_duplicates_total", "Repeated events, which change nothing.", outcomes.duplicates),
        ("mdr_late_receipts_total", "Receipts that amended a settled record.", outcomes.amended),
        ("mdr_orphan_receipts_total", "Receipts that never met a message.", outcomes.orphaned),
        ("mdr_adopted_receipts_total", "Orphaned receipts whose message came after all.", outcomes.adopted),
        ("mdr_misplaced_events_total", "Sampled entries in another partition than their key's.", tally.misplaced),
        ("mdr_counting_failures_total", "Failures of what only counts or logs.", sum(failures.values())),
    ):
        yield CounterMetricFamily(name, meaning, value)
    sums = np.cumsum(tally.delays)
    bounds = [*map(str, map(float, _DELAYS_S)), "+Inf"]
    yield HistogramMetricFamily(
        "mdr_receipt_delay_seconds", "From a message to its final receipt, as it settles.",
        list(zip(bounds, map(float, sums), strict=True)), tally.delays_sum_s,
    )  # fmt: skip


def _lag(live: Live) -> Iterator[Metric]:
    agents = live.report.agents if live.report is not None else []
    keys = {(a.agent, a.topic, str(a.partition)): a for a in agents}
    labels = ["agent", "topic", "partition"]
    seconds = {k: a.lag_seconds for k, a in keys.items() if a.lag_seconds is not None}
    yield _gauge("mdr_lag_events", "Events behind.", labels, {k: a.lag_events for k, a in keys.items()})
    yield _gauge("mdr_lag_seconds", "Age of the next event that was not read and kept.", labels, seconds)
    yield _gauge(
        "mdr_agent_status", "1 for the status that an agent has in a partition.", [*labels, "status"],
        {(*k, status): float(status == a.status) for k, a in keys.items() for status in STATUSES},
    )  # fmt: skip
    yield _since("mdr_lag_read_timestamp_seconds", "When the broker last told the lag.", live.read_ms)


def _standing(live: Live, topics: Mapping[str, str]) -> Iterator[Metric]:
    shards = {str(shard): p for shard, p in sorted(live.partitions.items())}
    marks = {(name, s): p.marks[t] / 1000 for s, p in shards.items() for t, name in topics.items()}
    opened = {(s,): len(p.lives) - p.waiting for s, p in shards.items()}
    oldest = {(s,): ms / 1000 for s, p in shards.items() if (ms := p.oldest_open_ms()) is not None}
    yield _gauge("mdr_watermark_timestamp_seconds", "Progress of a topic.", ["topic", "partition"], marks)
    yield _gauge("mdr_open_messages", "Messages that still settle.", ["partition"], opened)
    yield _gauge(
        "mdr_waiting_messages", "Ids whose receipts wait for a send.", ["partition"],
        {(s,): p.waiting for s, p in shards.items()},
    )  # fmt: skip
    yield _gauge("mdr_oldest_open_timestamp_seconds", "The oldest open message.", ["partition"], oldest)
    if live.settled_through_ms is not None:
        through, moved = "mdr_settled_through_timestamp_seconds", "mdr_settled_through_moved_timestamp_seconds"
        yield _since(through, "Every message before is a record.", live.settled_through_ms)
        yield _since(moved, "When settled-through was last seen to move.", live.settled_moved_ms)
    yield GaugeMetricFamily("mdr_settling_window_seconds", "MDR_SETTLING_WINDOW.", live.window_ms / 1000)
    yield GaugeMetricFamily("mdr_store_trouble", "1 while ClickHouse holds us up.", float(live.store_trouble))
    yield GaugeMetricFamily("mdr_broker_trouble", "1 while the broker cannot be asked.", float(live.broker_trouble))
    if live.partitions:
        yield _since("mdr_flush_timestamp_seconds", "The last flush that got through.", live.flushed_ms)
        yield _since("mdr_checkpoint_timestamp_seconds", "The last checkpoint that did.", live.checkpointed_ms)


def _since(name: str, meaning: str, at_ms: int) -> Metric:
    return GaugeMetricFamily(name, meaning, at_ms / 1000)


def _gauge(name: str, meaning: str, labels: Sequence[str], values: Mapping[Any, float]) -> Metric:
    """`values` by the tuple of the labels' values."""
    family = GaugeMetricFamily(name, meaning, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _counter(name: str, meaning: str, label: str, values: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, meaning, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _version() -> str:
    return version(_DISTRIBUTION)
