"""The command line: rounds of every fault for as long as asked, the table, the JSON line."""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from tests.faults.nemesis import World
from tests.faults.processes import in_own_directory
from tests.faults.scenario import WINDOW_MS
from tests.faults.verdict import Verdict, judge
from tests.leaks import secrets_of


def plan(world: World, short: bool) -> list[tuple[str, Any]]:
    """One round of faults."""
    away_s = 20.0 if short else 600.0
    store = world.store_fault
    return [
        ("none", world.nothing),
        ("kill -9 of a worker", world.kill_worker),
        ("kill -9 of a worker", world.kill_worker),
        ("a worker joins and leaves", world.join_and_leave),
        ("SIGTERM under load", world.terminate),
        ("store: code 241", store("code", 3, code=241)),
        ("store: code 252", store("code", 3, code=252)),
        ("store: code 319", store("code", 3, code=319)),
        ("store: busy (503)", store("busy", 4, only="any")),
        ("store: applies, drops the reply", store("drop", 4)),
        ("store: cut off half-way", store("cut", 4)),
        ("poison", world.poison),
        ("kill -9 of a worker", world.kill_worker),
        ("zombie (SIGSTOP beyond its session)", world.zombie),
        ("broker: SIGKILL", world.kill_broker),
        ("store: kill -9", world.kill_store),
        ("kill -9 of a worker", world.kill_worker),
        ("broker: SIGSTOP", world.freeze_broker),
        ("store: away", world.outage(away_s)),
        ("store: disk full (code 243)", store("code", 5, code=243)),
        ("SIGTERM without store", world.terminate_without_store),
        ("store: hangs", store("hang", 8 if short else 60, only="any")),
        ("rebalance storm", world.storm),
        ("kill -9 of a worker", world.kill_worker),
        ("transactions, aborts", world.transactions),
        ("compaction holes", world.compaction),
        ("kill -9 of a worker", world.kill_worker),
    ]


async def run(seconds: float, seed: int, home: Path, rate_per_s: float, only: str) -> int:
    """Exit 1 unless all is as it must be."""
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:7.1f} {text}", file=sys.stderr, flush=True)

    world = World(home, seed, say, rate_per_s)
    say(f"seed {seed}, in {home}")
    await world.start()
    # A quarter, at most three minutes, is kept for settling and the comparison.
    until = began + seconds - min(180.0, seconds / 4)
    steps: list[tuple[str, Any]] = []
    while time.monotonic() < until:
        steps = steps or [step for step in plan(world, short=seconds <= 900) if only in step[0]]
        await world.inject(*steps.pop(0))
    if not only:
        await world.inject("retention overtakes", world.retention)
    if not await world.settled(120):
        world.problems.append("not everything was settled within 120 s of calm")
    say("comparing")
    await world.stop()
    await world.reader.sample()
    verdict = await judge(world.reader, WINDOW_MS, time.time_ns() // 1_000_000, world.skipped)
    await world.close()
    world.problems += leaks(home, [value for _, _, value in world.reader.log.values()])
    return report(world, verdict, time.monotonic() - began)


def leaks(home: Path, values: list[bytes | None]) -> list[str]:
    """A sentence for each log of a worker that holds a number or a body of what was produced."""
    secrets = secrets_of(values)
    logs = {path.name: path.read_text(errors="replace") for path in home.glob("worker*.log")}
    if not logs:
        return ["no worker has left a log"]
    told = {name: sum(secret in text for secret in secrets) for name, text in logs.items()}
    return [f"{name} tells {count} numbers and bodies" for name, count in told.items() if count]


def report(world: World, verdict: Verdict, took_s: float) -> int:
    """Prints the table and the JSON line."""
    print(f"{'fault':38} {'times':>5} {'events':>8} {'recovery s':>10}  note")
    for line in world.lines.values():
        print(f"{line.fault:38} {line.times:5} {line.events:8} {line.recovery_s:10.1f}  {line.note}")
    print(f"all: {world.sent} events, {verdict.records} records and {verdict.dead_letters} dead letters compared,")
    print(f"  lost {verdict.lost}, twice {verdict.twice}, wrong {verdict.wrong}, extra {verdict.extra},")
    print(f"  orphans wrong {verdict.orphans_wrong}, dead letters wrong {verdict.dead_letters_wrong},")
    print(f"  committed ahead of durable {verdict.ahead} ({len(world.reader.samples)} samples)")
    print(f"  {world.kills} workers killed, {world.workers.born} started; memory {world.workers.rss_mb_max} MB at most")
    for sentence in [*verdict.sentences, *world.problems, *(f"gave up: {g}" for g in world.workers.gave_up[:20])]:
        print(f"  {sentence}")
    told = {
        "faults": sum(line.times for line in world.lines.values()),
        "kills": world.kills,
        "events": world.sent,
        "records": verdict.records,
        "lost": verdict.lost,
        "twice": verdict.twice,
        "wrong": verdict.wrong + verdict.extra + verdict.orphans_wrong,
        "dead_letters_wrong": verdict.dead_letters_wrong,
        "committed_ahead": verdict.ahead,
        "problems": len(world.problems),
        "gave_up": len(world.workers.gave_up),
        "recovery_s_max": round(max((line.recovery_s for line in world.lines.values()), default=0.0), 1),
        "rss_mb_max": world.workers.rss_mb_max,
        "seconds": round(took_s),
        "seed": world.seed,
    }
    print(json.dumps(told))
    return int(bool(verdict.bad or world.problems))


def main() -> int:
    """Runs in a directory of its own; it is kept when something went wrong."""
    options = argparse.ArgumentParser()
    options.add_argument("--seconds", type=float, default=540)
    options.add_argument("--seed", type=int, default=int(time.time()) % 100_000)
    options.add_argument("--rate", type=float, default=400.0, help="events a second")
    options.add_argument("--only", default="", help="faults whose name holds this, again and again")
    told = options.parse_args()
    return in_own_directory("mdr-faults-", lambda home: run(told.seconds, told.seed, home, told.rate, told.only))


if __name__ == "__main__":
    sys.exit(main())
