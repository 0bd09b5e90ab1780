"""Events per second, ours beside the raw limit and beside the same job done by others, on the same loaded topics.

`python -m benchmarks.bench` loads a seeded data set into a broker of its own, runs everyone in turn for some rounds,
each in a fresh process, compares every result with the simulated truth, and ends with one JSON line.
"""

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

from aiokafka.admin import AIOKafkaAdminClient

from benchmarks import cost, dataset
from benchmarks.contenders import FAUST, FLINK, KSTREAMS, RAW, SINK, Contender, contenders, why_not
from benchmarks.dataset import Dataset
from streams.broker import Broker

_PATIENCE_S: Final = 900.0
_MAIN, _FEW = "mdr.", "few."
Run = dict[str, Any]


class Failed(Exception):
    """A contender did not get to its end; one sentence."""


class Field(NamedTuple):
    """Where it all takes place."""

    home: Path
    broker: Broker
    sets: dict[str, Dataset]
    threads: int
    commit_ms: int


def measure(who: Contender, field: Field, *, then: Callable[[str], None] = lambda _: None) -> Run:
    """Runs one contender, compares what it wrote; `then` may use its output topic before that goes."""
    what = field.sets[_FEW if who.name == FAUST else _MAIN]
    name = f"bench-{who.name}-{time.time_ns()}"
    home = field.home / "run"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    try:
        told = _run(who, field, what, name, home)
        if who.ends:
            told |= _check(who, field, what, home, f"{name}-out")
        then(f"{name}-out")
    finally:
        asyncio.run(_forget(field.broker.bootstrap, name))
        shutil.rmtree(home, ignore_errors=True)
    return told


def _run(who: Contender, field: Field, what: Dataset, name: str, home: Path, out: str = "") -> Run:
    log = field.home / f"{who.name}.log"
    spent = cost.run(who.command, _environ(who, field, what, name, home, out), log, field.broker.pid, _PATIENCE_S)
    lines = [line for line in spent.lines if line.startswith("{")]
    if spent.status or not lines:
        raise Failed(f"{who.name} failed with {spent.status}: see {log}")
    told: Run = json.loads(lines[-1])
    millions = told["events"] / 1e6
    return told | {
        "seconds": round(told["seconds"], 2),
        "events_per_s": round(told["events"] / told["seconds"]),
        "cpu_s_per_million": round(spent.cpu_s / millions, 2),
        "broker_cpu_s_per_million": round(spent.broker_cpu_s / millions, 2),
        "peak_mb": spent.peak_mb,
        # What else kept the machine busy: with more than a little of it the run says little.
        "other_cores": round(spent.other_cpu_s / spent.wall_s, 2),
    }


def _environ(who: Contender, field: Field, what: Dataset, name: str, home: Path, out: str) -> dict[str, str]:
    told = {
        "KAFKA": field.broker.bootstrap, "PREFIX": what.prefix, "PARTITIONS": what.partitions, "EVENTS": what.events,
        "RECORDS": what.records, "HOME": home, "RUN": name, "OUT": out or f"{name}-out", "STATE": who.state,
        "THREADS": field.threads, "COMMIT_MS": field.commit_ms,
    }  # fmt: skip
    return os.environ | {f"PEER_{key}": str(value) for key, value in told.items()}


def _check(who: Contender, field: Field, what: Dataset, home: Path, out: str) -> Run:
    place = out if who.ends == "topic" else f"chdb://{home / 'chdb'}"
    expected = dataset.expect_file(field.home, what.prefix)
    command = [sys.executable, "-m", "benchmarks.check", str(expected), who.kind, who.ends, place]
    done = subprocess.run(
        [*command, field.broker.bootstrap, str(what.partitions)], stdout=subprocess.PIPE, text=True, check=True
    )
    found: Run = json.loads(done.stdout.splitlines()[-1])
    return found


async def _forget(kafka_at: str, name: str) -> None:
    """Deletes the topics that a run made for itself."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_at)
    await admin.start()
    if mine := [topic for topic in await admin.list_topics() if topic.startswith(name)]:
        await admin.delete_topics(mine)
    await admin.close()


def _rounds(field: Field, chosen: list[Contender], rounds: int) -> dict[str, list[Run]]:
    results: dict[str, list[Run]] = {who.name: [] for who in chosen}
    sink = next((who for who in chosen if who.name == SINK), None)

    def note(name: str, run: Run) -> None:
        results[name].append(run)
        print(f"  {name:16} {json.dumps(run)}", file=sys.stderr)

    for turn in range(rounds):

        def sink_from(out: str) -> None:
            if sink and len(results[SINK]) == turn:  # noqa: B023  # called within this round
                note(SINK, _sink(sink, field, out))

        for who in chosen:
            if who.name == SINK or (who.name == FAUST and turn):
                continue
            then = sink_from if who.ends == "topic" else lambda _: None
            try:
                note(who.name, measure(who, field, then=then))
            except Failed as e:
                print(f"  {e}", file=sys.stderr)
    return {name: runs for name, runs in results.items() if runs}


def _sink(who: Contender, field: Field, out: str) -> Run:
    what, home = field.sets[_MAIN], field.home / "run-sink"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    told = _run(who, field, what, f"bench-{who.name}-{time.time_ns()}", home, out)
    # What it costs is told per event of the input, as with everyone else.
    per_event = told.pop("events") / what.events
    told |= {key: round(told[key] * per_event, 2) for key in ("cpu_s_per_million", "broker_cpu_s_per_million")}
    told["rows_per_s"] = told.pop("events_per_s")
    told |= _check(who, field, what, home, out)
    shutil.rmtree(home, ignore_errors=True)
    return told


def summary(events: int, results: dict[str, list[Run]]) -> dict[str, Any]:
    """Medians of each contender, and ours in relation to the others."""
    fields = (
        "events_per_s",
        "second_half_per_s",
        "rows_per_s",
        "cpu_s_per_million",
        "broker_cpu_s_per_million",
        "peak_mb",
    )
    told: dict[str, Any] = {"events": events}
    for name, runs in results.items():
        told[name] = {field: _median([run[field] for run in runs]) for field in fields if field in runs[0]}
        if "wrong" in runs[0]:
            told[name]["wrong"] = max(run["wrong"] for run in runs)
    return told | {"ratios": _ratios(results)}


def _ratios(results: dict[str, list[Run]]) -> dict[str, float]:
    def best(names: tuple[str, ...], field: str, choose: Callable[..., str]) -> str:
        there = [name for name in names if name in results]
        return choose(there, key=lambda name: _median([run[field] for run in results[name]])) if there else ""

    stream = best(FLINK + KSTREAMS, "events_per_s", max)
    others = {"ours/raw": RAW, "ours/faust": FAUST, f"ours/{stream}": stream, "ours/chnative": "chnative"}
    told = {what: _ratio(results, other, "events_per_s") for what, other in others.items()}
    told["cpu ours/flink"] = _ratio(results, best(FLINK, "cpu_s_per_million", min), "cpu_s_per_million")
    return {what: ratio for what, ratio in told.items() if ratio}


def _ratio(results: dict[str, list[Run]], other: str, field: str) -> float:
    """Ours to another: the median of the rounds, or of the medians when they were not run equally often."""
    mine, theirs = ([run[field] for run in results.get(name, [])] for name in ("ours", other))
    if not mine or not theirs:
        return 0.0
    if len(mine) != len(theirs):
        mine, theirs = [_median(mine)], [_median(theirs)]
    return round(_median([m / t for m, t in zip(mine, theirs, strict=True)]), 3)


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def _options() -> argparse.Namespace:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--messages", type=int, default=1_150_000, help="2.6 events each")
    options.add_argument("--faust-messages", type=int, default=40_000, help="plain Faust's own, smaller topics")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--peers", default="", help="only these, with commas: raw,ours,flink-heap")
    options.add_argument("--home", type=Path, default=Path("data/bench"))
    options.add_argument("--java", type=Path, default=Path("data/peers"), help="where `make bench-peers` built")
    options.add_argument("--threads", type=int, default=2, help="of Kafka Streams and Flink")
    options.add_argument("--commit-ms", type=int, default=1_000, help="their commits and checkpoints")
    options.add_argument("--keep", action="store_true", help="keep the loaded topics; the next run with it uses them")
    return options.parse_args()


def _chosen(options: argparse.Namespace) -> list[Contender]:
    known = contenders(options.java.absolute())
    names = options.peers.split(",") if options.peers else list(known)
    if unknown := set(names) - set(known):
        raise SystemExit(f"no such contender: {', '.join(unknown)}; there are {', '.join(known)}")
    out = []
    for who in (who for name, who in known.items() if name in names):
        if reason := why_not(who):
            print(f"{who.name} is skipped: {reason}", file=sys.stderr)
        else:
            out.append(who)
    return out


def main() -> None:
    """Runs the benchmark."""
    options = _options()
    home, chosen = options.home.absolute(), _chosen(options)
    if not chosen:
        raise SystemExit("nobody is left to run")
    if not options.keep:
        shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True, exist_ok=True)
    with dataset.serving(home) as broker:
        sizes = {_MAIN: options.messages} if any(who.name != FAUST for who in chosen) else {}
        sizes |= {_FEW: options.faust_messages} if any(who.name == FAUST for who in chosen) else {}
        sets = {prefix: dataset.loaded(home, broker.bootstrap, prefix, size) for prefix, size in sizes.items()}
        for each in sets.values():
            print(f"{each.prefix}*: {each.events:,} events of {each.messages:,} messages, lz4", file=sys.stderr)
        field = Field(home, broker, sets, options.threads, options.commit_ms)
        results = _rounds(field, chosen, options.rounds)
    if not options.keep:
        shutil.rmtree(home, ignore_errors=True)
    told = summary(next(iter(sets.values())).events, results)
    print(json.dumps(told))
    # Speed without the right result is none.
    sys.exit(len(results) < len(chosen) or any(run.get("wrong") for runs in results.values() for run in runs))


if __name__ == "__main__":
    main()
