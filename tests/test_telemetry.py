"""What is counted and what Prometheus is told: names, units, labels, and that nobody's number is among them."""

import re
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from schemas.record import COLUMNS
from streams import aside
from streams.fold import columns_of
from streams.lag import AgentLag, Report
from streams.settle import Partition
from streams.telemetry import Live, Metered, Tally, Telemetry

NOW_MS = 1_795_000_000_000
LABELS = {
    "agent", "topic", "partition", "status", "record_type", "reason", "table", "kind", "le", "version", "native",
}  # fmt: skip
Values = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def partition(shard: int = 0) -> Partition:
    """An owned partition with a watermark."""
    made = Partition(shard, 60_000, NOW_MS)
    made.marks["sends"] = NOW_MS - 2_500
    return made


def watched() -> Telemetry:
    """A worker's telemetry, as a monitor sets it up."""
    telemetry = Telemetry("mdr.")
    agent = AgentLag("sends", "mdr.sends", 0, "w", 5, 9, 4, 1.5, None, None, "catching_up", "", 0)
    report = Report("catching_up", "", "", "", [agent], [], None, [])
    shard = partition()
    shard._occurred.add(NOW_MS, "m")
    telemetry.live = lambda: Live(
        report, NOW_MS, {0: shard}, NOW_MS - 60_000, NOW_MS - 1_000, 14_400_000, store_trouble=True, flushed_ms=NOW_MS
    )
    telemetry.insert_seconds.labels("mdrs").observe(0.2)
    telemetry.write_seconds.labels("flush").observe(0.3)
    return telemetry


def exposed() -> str:
    """The exposition of a process with a worker."""
    return watched().exposition().decode()


def values(telemetry: Telemetry) -> Values:
    """Every sample by name and labels."""
    text = telemetry.exposition().decode()
    samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for s in samples}


def row(**more: Any) -> tuple[Any, ...]:
    """A row of `mdrs` in which only what is counted is filled in."""
    filled = {
        "record_type": "complete", "direction": "outbound", "amendments": 0, "occurred_at": NOW_MS,
        "final_at": NOW_MS + 4_000, "settled_at": NOW_MS + 5_000,
    } | more  # fmt: skip
    return tuple(filled.get(c.name) for c in COLUMNS)


class Tables:
    """A store that takes every row, or refuses those it is told to."""

    def __init__(self, *refused: int) -> None:
        self.refused = refused

    def write_records(self, records: Any, wrote: Any) -> list[Any]:
        rows = list(zip(*records, strict=True))
        taken = [row for n, row in enumerate(rows) if n not in self.refused]
        if taken:
            wrote(columns_of(taken))
        return [type("Bad", (), {"row": rows[at]}) for at in self.refused]


@pytest.fixture(autouse=True)
def nothing_failed() -> None:
    """Each test begins without failures of an earlier one."""
    aside.failures.clear()


def write(telemetry: Telemetry, rows: list[tuple[Any, ...]], *refused: int) -> None:
    Metered(Tables(*refused), telemetry).write_records([list(column) for column in zip(*rows, strict=True)])


def test_names_are_the_fields_own() -> None:
    """Seconds are seconds, counts end in `_total`, and every family says what it means."""
    for family in text_string_to_metric_families(exposed()):
        assert re.fullmatch(r"(mdr|process)_[a-z_]+", family.name)
        assert not re.search(r"_(ms|millis|minutes)\b", family.name) and family.documentation
        if family.type == "counter":
            assert all(s.name.endswith("_total") for s in family.samples), family.name


def test_no_label_holds_a_number_or_an_id() -> None:
    """Labels are few and bounded: topics, partitions, reasons, words of ours."""
    used = {label for family in text_string_to_metric_families(exposed()) for s in family.samples for label in s.labels}
    assert used == LABELS


def test_records_are_counted_once_and_late_ones_not_again() -> None:
    """A row that amends what was written before is no new record; inbound ones have no delay."""
    telemetry = Telemetry("mdr.")
    late = row(amendments=2, record_type="error")
    inbound = row(direction="inbound")
    write(telemetry, [row(), row(record_type="incomplete", final_at=None), inbound])
    write(telemetry, [late, row(final_at=NOW_MS - 9, amendments=1, settled_at=NOW_MS + 5_001)])
    told = values(telemetry)
    assert told["mdr_records_total", (("record_type", "complete"),)] == 3
    assert told["mdr_records_total", (("record_type", "incomplete"),)] == 1
    assert told["mdr_records_total", (("record_type", "error"),)] == 0
    assert told["mdr_receipt_delay_seconds_count", ()] == 2
    assert told["mdr_receipt_delay_seconds_sum", ()] == 4.0
    assert told["mdr_receipt_delay_seconds_bucket", (("le", "2.0"),)] == 1
    assert told["mdr_receipt_delay_seconds_bucket", (("le", "5.0"),)] == 2
    assert told["mdr_insert_duration_seconds_count", (("table", "mdrs"),)] == 2


def test_a_row_that_is_refused_is_no_record() -> None:
    """What cannot be stored is counted among the dead letters, not here."""
    telemetry = Telemetry("mdr.")
    write(telemetry, [row(), row(record_type="error")], 1)
    told = values(telemetry)
    assert told["mdr_records_total", (("record_type", "complete"),)] == 1
    assert told["mdr_records_total", (("record_type", "error"),)] == 0


def test_records_without_any_final_receipt_are_counted() -> None:
    """Also of what is left when a row was refused: a column of nothing but None has no type of its own."""
    telemetry = Telemetry("mdr.")
    open_ended = row(record_type="incomplete", final_at=None)
    write(telemetry, [open_ended, open_ended, row(record_type="error")], 2)
    told = values(telemetry)
    assert told["mdr_records_total", (("record_type", "incomplete"),)] == 2
    assert told["mdr_receipt_delay_seconds_count", ()] == 0


def test_what_a_partition_counted_before_is_not_counted_again() -> None:
    """Counts are stored with checkpoints: only what grew since the partition was taken on is ours."""
    tally, old = Tally(), partition()
    old.counts.amended = 100
    tally.took({0: old})
    old.counts.amended += 3
    tally.gather({0: old})
    tally.gather({0: old})
    assert tally.outcomes.amended == 3
    again = partition()
    again.counts.amended = 103
    tally.took({0: again})
    again.counts.amended += 1
    tally.gather({0: again})
    assert tally.outcomes.amended == 4


@pytest.mark.parametrize(
    ("name", "labels", "value"),
    [
        ("mdr_lag_events", {"agent": "sends", "topic": "mdr.sends", "partition": "0"}, 4),
        ("mdr_lag_seconds", {"agent": "sends", "topic": "mdr.sends", "partition": "0"}, 1.5),
        ("mdr_watermark_timestamp_seconds", {"topic": "mdr.sends", "partition": "0"}, (NOW_MS - 2_500) / 1000),
        ("mdr_settled_through_timestamp_seconds", {}, (NOW_MS - 60_000) / 1000),
        ("mdr_oldest_open_timestamp_seconds", {"partition": "0"}, NOW_MS / 1000),
        ("mdr_open_messages", {"partition": "0"}, 0),
        ("mdr_store_trouble", {}, 1),
        ("mdr_broker_trouble", {}, 0),
        ("mdr_lost_events_total", {"topic": "mdr.receipts"}, 0),
        ("mdr_settling_window_seconds", {}, 14_400),
    ],
)
def test_what_is_so_now(name: str, labels: dict[str, str], value: float) -> None:
    """Gauges are read when they are asked for, in base units."""
    assert values(watched())[name, tuple(sorted(labels.items()))] == value


def test_the_status_is_one_of_all() -> None:
    """Exactly the status that an agent has is 1, so that an alert can wait for one."""
    told = {dict(labels)["status"]: v for (name, labels), v in values(watched()).items() if name == "mdr_agent_status"}
    assert told == {"ok": 0, "catching_up": 1, "falling_behind": 0, "stalled": 0, "stopped": 0}


def test_a_count_that_fails_fails_nothing_else(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """What was written is acknowledged all the same, the other metrics are told, and the failure is counted."""
    telemetry = Telemetry("mdr.")
    monkeypatch.setattr(telemetry.tally, "_settled_ms", None)
    monkeypatch.setattr(telemetry.insert_seconds, "labels", None)
    telemetry.live = lambda: Live(partitions={0: Any})  # type: ignore[dict-item]
    for _ in range(2):
        write(telemetry, [row()])
    told = values(telemetry)
    assert told["mdr_events_total", (("topic", "mdr.sends"),)] == 0
    assert told["mdr_counting_failures_total", ()] == 5
    assert caplog.text.count("counting records fails") == 1


def test_where_the_log_cannot_be_written_the_work_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure to tell of a failure is none of the work's either."""
    monkeypatch.setattr(aside.log, "error", None)
    aside.aside("a thing", int, "no number")
    assert aside.failures == {"a thing": 1}


def test_of_a_write_that_wrote_nothing_nothing_is_counted() -> None:
    """Every row was refused."""
    telemetry = Telemetry("mdr.")
    write(telemetry, [row()], 0)
    assert not telemetry.tally.records and not aside.failures.get("counting records")


def test_it_says_whether_it_is_compiled(way: str) -> None:
    """Without its compiled part it is several times slower: monitoring can tell."""
    said = "yes" if way == "native" else "no"
    assert f'mdr_build_info{{native="{said}",version=' in exposed()
