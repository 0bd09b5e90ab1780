"""The bench's own judgement: what it expects of whom, what it calls wrong, what it says a run cost."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest

from benchmarks import cost
from benchmarks.bench import summary
from benchmarks.expect import Expected, digest, heard_once
from benchmarks.peers import once, rows
from benchmarks.peers.rows import COMPARED
from benchmarks.profile import table
from streams import simulate
from streams.simulate import Event

NOON = "2026-01-31T12:00:00Z"
NOON_MS = 1_769_860_800_000
HOUR_MS = 3_600_000


def entry(topic: str, name: str, at_ms: int = NOON_MS, **fields: str) -> Event:
    value = {"message_id": "m", "event_id": name, "occurred_at": NOON} | fields
    return Event(topic, b"m", orjson.dumps(value), at_ms, "")


SEND = entry("sends", "send")


@pytest.mark.parametrize(
    ("receipts", "heard"),
    [
        ([entry("receipts", "a", state="ENROUTE"), entry("receipts", "b", state="DELIVRD")], "ab"),
        ([entry("receipts", "a", state="2"), entry("receipts", "b", state="sent")], "a"),
        ([entry("receipts", "a", state="Failed"), entry("receipts", "b", state="delivered")], "a"),
        ([entry("receipts", "a", NOON_MS + 4 * HOUR_MS - 1, state="sent")], "a"),
        ([entry("receipts", "a", NOON_MS + 4 * HOUR_MS, state="delivered")], ""),
    ],
    ids=["all until it is final", "nothing after that", "nothing stronger either", "the last in time", "too late"],
)
def test_a_peer_that_settles_once_hears_until_then(receipts: list[Event], heard: str) -> None:
    """It is judged by the receipts up to the first final one in the log, and by those within the window."""
    names = [orjson.loads(event.value)["event_id"] for event in heard_once([SEND, *receipts])]
    assert names == ["send", *heard]


def expected(path: Path, records: Sequence[str]) -> Expected:
    told = {f"outbound {mid}": ("complete error", mid.encode() * 8 + b"merged.." + b"once....") for mid in records}
    path.write_bytes(msgspec.msgpack.encode(told))
    return Expected(path, "whole")


@pytest.mark.parametrize(
    ("found", "wrong"), [("ab", 0), ("a", 1), ("abb", 1), ("abc", 1), ("", 2), ("bA", 2)],
    ids=["all", "one missing", "one twice", "one nobody sent", "none", "one missing, another unknown"],
)  # fmt: skip
def test_what_is_missing_twice_or_unknown_is_wrong(found: str, wrong: int, tmp_path: Path) -> None:
    """Each message must be there exactly once."""
    rows = [(f"outbound {mid}", "complete", mid.encode() * 8) for mid in found]
    assert expected(tmp_path / "x", "ab").compare(rows)["wrong"] == wrong


def test_a_record_that_says_something_else_is_wrong(tmp_path: Path) -> None:
    """The digest stands for every column that is compared."""
    rows = [("outbound a", "complete", b"b" * 8)]
    assert expected(tmp_path / "x", "a").compare(rows) == {"records": 1, "complete": 1, "wrong": 1}


def test_a_digest_is_of_the_named_values_alone() -> None:
    """Another value is another digest; a column that is not named does not count, nor does the order of a map."""
    record: dict[str, Any] = {"a": 1, "b": {"x": 1, "y": 2}, "c": 3}
    same = {"c": 4, "b": {"y": 2, "x": 1}, "a": 1}
    assert digest(record, ["a", "b"]) == digest(same, ["a", "b"]) != digest(record | {"a": 2}, ["a", "b"])


def test_a_run_costs_what_its_children_cost(tmp_path: Path) -> None:
    """The CPU of a child is counted, also when its parent never waits for it."""
    burn = "import time\nwhile time.process_time() < 1: pass\nprint(1, flush=True)\ntime.sleep(0.5)"
    parent = f"import subprocess, sys\np = subprocess.Popen([sys.executable, '-c', {burn!r}], stdout=-1)\n"
    parent += "p.stdout.read()\nprint('done', flush=True)\nimport os; os._exit(0)"
    spent = cost.run([sys.executable, "-c", parent], os.environ, tmp_path / "log", os.getpid(), 60)
    assert (spent.status, spent.lines) == (0, ["done"]) and spent.cpu_s >= 0.9 and spent.peak_mb > 5


def test_a_run_without_end_is_ended(tmp_path: Path) -> None:
    """Patience is limited; what the run started ends with it."""
    spent = cost.run(["sh", "-c", "sleep 1000 & wait"], os.environ, tmp_path / "log", os.getpid(), 0)
    assert spent.status < 0


def test_ratios_are_of_the_same_round_and_of_the_best_peer() -> None:
    """Ours is set beside the fastest of the stream processors, round by round, so that a busy minute hits both."""

    def runs(*rates: int, cpu: float = 1.0) -> list[dict[str, Any]]:
        return [{"events_per_s": rate, "cpu_s_per_million": cpu, "wrong": 0} for rate in rates]

    results = {
        "raw": runs(400, 100, 400), "ours": runs(200, 50, 200), "flink-heap": runs(100, 100, 100, cpu=4.0),
        "kstreams-memory": runs(50, 50, 50), "faust": runs(10),
    }  # fmt: skip
    told = summary(3, results)
    assert told["ratios"] == {"ours/raw": 0.5, "ours/faust": 20.0, "ours/flink-heap": 2.0, "cpu ours/flink": 0.25}
    assert told["ours"] == {"events_per_s": 200, "cpu_s_per_million": 1.0, "wrong": 0}


def test_a_sample_counts_for_the_deepest_function_of_ours() -> None:
    """What it calls elsewhere is its cost; a pool's threads are as one."""
    told = table([
        'process 1:"x";thread (1): MainThread;run (streams/app.py:3);decode (schemas/events.py:7);loads (orjson.py:1) 7',
        'process 1:"x";thread (2): store_0;insert (streams/store.py:9) 1',
        'process 1:"x";thread (3): store_1;insert (streams/store.py:9) 2',
    ])  # fmt: skip
    assert [tuple(line) for line in told] == [
        (0.7, "MainThread", "decode (schemas/events.py)", "loads (orjson.py)"),
        (0.3, "store", "insert (streams/store.py)", ""),
    ]


def rows_of(log: Sequence[Event]) -> list[rows.Row]:
    """What plain Faust makes of it, without Faust."""
    held: dict[str, once.Held] = {}
    made: list[rows.Row | None] = []
    for event in log:
        fields = orjson.loads(event.value)
        mid = fields["message_id"]
        if event.topic != "receives":
            take = once.send if event.topic == "sends" else once.receipt
            held[mid], row = take(held.get(mid, {}), fields, event.at_ms)
            made.append(row)
        elif f"in {mid}" not in held:
            held[f"in {mid}"] = {}
            made.append(rows.inbound(fields))
    made += [once.expire(each) for each in held.values() if "send" in each]
    return [row for row in made if row]


def test_peers_that_settle_once_make_what_is_expected_of_them() -> None:
    """Of traffic that is mostly copied, late, early and reordered, read in the order of the log or sends first."""
    plan = simulate.Plan(
        2_000, 5, NOON_MS, broken_share=0.0, altered_share=0.3, duplicate_share=0.2, early_share=0.1,
        reordered_share=0.2, late_share=0.05, conflict_share=0.02,
    )  # fmt: skip
    log = list(simulate.events(plan))
    sends_first = sorted(log, key=lambda event: event.topic == "receipts")
    told = simulate.expected(heard_once(event for event in sends_first if not event.broken)).records
    wanted = {(row["direction"], row["message_id"], digest(row, COMPARED)) for row in told.values()}
    for order in (log, sends_first):
        made = rows_of(order)
        assert len(made) == len(wanted)
        assert {(row["direction"], row["message_id"], digest(row, COMPARED)) for row in made} == wanted
