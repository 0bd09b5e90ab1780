"""Run `mdr up` as people run it, against a real Kafka, under hostile input and hostile requests at the same time.

    python -m tests.hostile [--seconds 600] [--seed N]

Ordinary traffic, ugly but valid events, raw record batches that only a broker would take, receives of more than 65
months and thousands of open messages go in; `tests.hostile.pressure` presses on the HTTP side. At the end every record
and dead letter is compared with tests/oracle.py. Ends with one JSON line; exit 1 unless it is as it must be.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any, Final

import clickhouse_connect
from aiokafka.structs import TopicPartition

from streams.broker_port import free_port
from streams.simulate import Plan, events
from tests.faults.processes import Kafka, Workers, in_own_directory
from tests.faults.scenario import partition_of, producer
from tests.faults.verdict import Reader, Verdict, consumer, judge
from tests.hostile.raw import Batch, Letter, batches, letters, produce
from tests.hostile.ugly import Made, Ugly

PREFIX: Final = "mdr."
PARTITIONS: Final = 4
WINDOW_MS: Final = 30_000
LIVEZ_MS_MAX = OTHER_P99_MS_MAX = 1_000
LAG_S_MAX: Final = 10.0
RSS_MB_MAX: Final = 1_536
_STARTS_WITHIN_S: Final = 60


class Store(Reader):
    """Reads the embedded store, once nobody has it open, and the log around what a strict reader cannot read."""

    def __init__(self, bootstrap: str, path: Path) -> None:
        super().__init__(bootstrap, PREFIX, PARTITIONS, 0)
        self.path = path
        self.raw: list[Batch] = []
        self.raw_letters: dict[tuple[str, int, int], Letter] = {}

    async def letters(self) -> list[dict[str, str]]:
        """What is said of every dead letter but those of raw batches, which are kept apart."""
        found = []
        for letter in await letters(self.bootstrap, f"{PREFIX}dead-letters", PARTITIONS):
            told = {n.decode("latin-1"): (v or b"").decode("latin-1") for n, v in letter.headers}
            place = told["topic"], int(told["partition"]), int(told["offset"])
            if any(b.topic == place[0] and b.partition == place[1] and b.offset <= place[2] < b.offset + b.taken for b in self.raw):
                self.raw_letters[place] = letter
            else:
                found.append(told | {"same": "yes" if "cut" in told or self._is_same(place, letter) else ""})
        return found

    def _is_same(self, place: tuple[str, int, int], letter: Letter) -> bool:
        entry = self.log.get((place[0].removeprefix(PREFIX), *place[1:]))
        return entry is None or entry[1:] == (letter.key, letter.value)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows from the tables."""
        client = clickhouse_connect.get_client(interface="chdb", path=str(self.path))
        try:
            return list(client.query(sql).result_rows)  # type: ignore[arg-type]
        finally:
            client.close()

    async def take_log(self) -> None:
        """Reads the input topics; entry by entry up to each raw batch, and on behind it."""
        ends = await self.ends()
        async with consumer(self.bootstrap) as client:
            for tp in self.inputs():
                client.assign([tp])
                at = 0
                holes = sorted((b.offset, b.offset + b.taken) for b in self.raw if (b.topic, b.partition) == (tp.topic, tp.partition))
                for begin, end in [*holes, (ends[tp], ends[tp])]:
                    client.seek(tp, at)
                    while await client.position(tp) < begin:
                        r = await client.getone(tp)
                        self.log[tp.topic.removeprefix(PREFIX), tp.partition, r.offset] = (r.timestamp, r.key, r.value)
                    at = end


class Ground:
    """The broker, `mdr up`, the traffic, and what is measured from outside."""

    def __init__(self, home: Path, seed: int) -> None:
        self.home, self.seed = home, seed
        self.kafka = Kafka(home)
        self.port = free_port(home)
        self.sent = 0
        self.lag_s_max = 0.0
        self.problems: list[str] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Returns once `mdr up` is ready."""
        await self.kafka.start()
        self.reader = Store(self.kafka.bootstrap, self.home / "data" / "chdb")
        self.env = {
            "MDR_KAFKA": self.kafka.bootstrap, "MDR_PARTITIONS": str(PARTITIONS), "MDR_SETTLING_WINDOW": f"{WINDOW_MS}ms",
            "MDR_DATA_DIR": str(self.home / "data"), "MDR_HTTP": f"127.0.0.1:{self.port}",
        }  # fmt: skip
        self.up = Workers(self.home, self.env, "up")
        self.up.wanted = 1
        self._spawn(self.up.watch())
        until = time.monotonic() + _STARTS_WITHIN_S
        while not await asyncio.to_thread(self._is_ready):
            assert time.monotonic() < until, "mdr up did not become ready"
            await asyncio.sleep(0.2)

    def _spawn(self, work: Any) -> None:
        self._tasks.append(asyncio.create_task(work))

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=10):
                return True
        except OSError:
            return False

    def mdr(self, *arguments: str) -> str:
        """What a command prints."""
        command = [sys.executable, "-c", "from streams.cli import main; main()", *arguments]
        done = subprocess.run(command, env=os.environ | self.env, capture_output=True, text=True, check=True, timeout=120)
        return done.stdout

    def bearer(self, account: str) -> str:
        """A new key of an account."""
        return str(json.loads(self.mdr("credentials", "add", account, "--json"))["bearer"])

    # ---- traffic ----

    def flow(self, seconds: float) -> None:
        """Begins everything that is produced."""
        self._spawn(self._ordinary())
        self._spawn(self._ugly())
        self._spawn(self._bursts())
        self._spawn(self._raw(seconds))
        self._spawn(self._watch_lag())

    async def _ordinary(self) -> None:
        """Simulated traffic, at about 100 events a second."""
        number = 0
        while True:
            number += 1
            start_ms = time.time_ns() // 1_000_000 - 180_000
            plan = Plan(400, self.seed * 1_000 + number, start_ms, 40, settling_ms=WINDOW_MS, late_share=0.05, early_share=0.05,
                        duplicate_share=0.05, orphan_share=0.01, broken_share=0.01, reordered_share=0.05)  # fmt: skip
            made = await asyncio.to_thread(_made, plan)
            await self._send(made, 100)

    async def _ugly(self) -> None:
        """Ugly events, at about 100 a second, and now and then more months than one flush likes."""
        ugly = Ugly(self.seed, "heavy")
        for turn in range(1 << 30):
            now_ms = time.time_ns() // 1_000_000
            await self._send(list(ugly.messages(50, now_ms)), 100)
            if turn % 50 == 10:
                await self._send(ugly.months(80, now_ms), 1_000)

    async def _bursts(self) -> None:
        """Many messages of one tenant that stay open, every minute."""
        ugly = Ugly(self.seed + 1, "heavy")
        while True:
            await self._send(ugly.sends(20_000, time.time_ns() // 1_000_000), 5_000)
            await asyncio.sleep(60)

    async def _raw(self, seconds: float) -> None:
        """Every raw batch there is, in an order of its own, spread over the run."""
        cases = list(batches(self.seed, time.time_ns() // 1_000_000))
        for case in cases:
            await asyncio.sleep(seconds * 0.8 / len(cases))
            placed = await produce(self.kafka.bootstrap, PREFIX, case, partition_of)
            if placed is not None:
                self.reader.raw.append(placed)
                self.sent += placed.taken

    async def _send(self, made: list[Made], rate_per_s: float) -> None:
        async with producer(self.kafka.bootstrap) as client:
            for at in range(0, len(made), 50):
                began = time.monotonic()
                some = made[at : at + 50]
                futures = [await client.send(PREFIX + e.topic, e.value, e.key, partition=partition_of(e.key)) for e in some]
                await asyncio.gather(*futures)
                self.sent += len(some)
                await asyncio.sleep(max(0.0, len(some) / rate_per_s - (time.monotonic() - began)))

    async def _watch_lag(self) -> None:
        """How long it takes until what is in the log at a moment is committed, second by second."""
        waiting: list[tuple[float, dict[TopicPartition, int]]] = []
        while True:
            with contextlib.suppress(OSError, TimeoutError):
                waiting.append((time.monotonic(), await self.reader.ends()))
                committed = await self.reader.committed()
                waiting = [(at, ends) for at, ends in waiting if any(committed.get(tp, 0) < end for tp, end in ends.items())]
                self.lag_s_max = max([self.lag_s_max, *(time.monotonic() - at for at, _ in waiting)])
            await asyncio.sleep(1)

    # ---- the end ----

    async def calm(self, timeout_s: float) -> bool:
        """Ends the traffic; whether all of it was committed, and every window passed, in time."""
        for task in self._tasks[1:]:
            task.cancel()
        await asyncio.gather(*self._tasks[1:], return_exceptions=True)
        wanted, until = await self.reader.ends(), time.monotonic() + timeout_s
        while time.monotonic() < until:
            committed = await self.reader.committed()
            if all(committed.get(tp, 0) >= end for tp, end in wanted.items()):
                await asyncio.sleep(2 * WINDOW_MS / 1000 + 10)
                return True
            await asyncio.sleep(1)
        return False

    def asked(self) -> None:
        """Asks every command that reads the same log; each must answer, and `check` find nothing."""
        for line in ("lag", "topics check", "dead-letters list --json", "dead-letters list --kinds", "check"):
            try:
                self.mdr(*line.split())
            except subprocess.CalledProcessError as e:
                self.problems.append(f"mdr {line} exits {e.returncode}: {e.stderr[-300:]!r} {e.stdout[-300:]!r}")
            except subprocess.TimeoutExpired:
                self.problems.append(f"mdr {line} does not end")

    async def stop(self) -> None:
        """Ends `mdr up` in order; by force it is a problem."""
        self.up.wanted = 0
        for process in list(self.up.running):
            if await self.up.terminate(process, 20) is None:
                self.problems.append("SIGTERM did not end mdr up within 20 s")
                await process.kill()
        self._tasks[0].cancel()

    async def judged(self) -> Verdict:
        """Compares everything; what came in raw batches must be a record or a dead letter, and is nobody's loss."""
        verdict = await judge(self.reader, WINDOW_MS, time.time_ns() // 1_000_000, set(), is_aside=lambda mid: mid.startswith("raw-"))
        rows = self.reader.query("SELECT message_id, count() FROM mdr.mdr WHERE startsWith(message_id, 'raw-') GROUP BY 1")
        records: dict[str, int] = dict(rows)
        for placed in self.reader.raw:
            _judge_raw(verdict, placed, records, self.reader.raw_letters)
        return verdict


def _judge_raw(verdict: Verdict, placed: Batch, records: dict[str, int], found: dict[tuple[str, int, int], Letter]) -> None:
    """A raw batch became what it must: one record of each of its messages, or dead letters."""
    raw = placed.raw
    buried = sum((placed.topic, placed.partition, placed.offset + n) in found for n in range(placed.taken))
    have = sum(mid in records for mid in raw.ids)
    for mid in raw.ids:
        if records.get(mid, 0) > 1:
            verdict.say("twice", f"{mid} ({raw.name})")
    wanted = len(raw.ids) or 1
    good = {"record": have == wanted, "letter": buried > 0 and not have, "either": have + buried >= wanted, "nothing": True}[raw.comes]
    if not good:
        verdict.say("lost", f"{raw.name}: {have} records and {buried} dead letters of {placed.taken} entries, wanted {raw.comes}")


def pressing(ground: Ground, heavy: str, other: str, ids: list[str], seconds: float) -> subprocess.Popen[str]:
    """The pressure, as a process of its own."""
    task = {"host": "127.0.0.1", "port": ground.port, "heavy": heavy, "other": other, "record_ids": ids, "seconds": seconds,
            "seed": ground.seed}  # fmt: skip
    started = subprocess.Popen(
        [sys.executable, "-m", "tests.hostile.pressure"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert started.stdin is not None
    started.stdin.write(json.dumps(task))
    started.stdin.close()
    started.stdin = None
    return started


def _made(plan: Plan) -> list[Made]:
    return [Made(e.topic, e.key, e.value) for e in events(plan)]


async def other_tenant(ground: Ground) -> list[str]:
    """Ids of some settled records of a tenant that wants nothing but one of them."""
    now_ms = time.time_ns() // 1_000_000
    plan = Plan(50, 7, now_ms - 180_000, 50, account="other", settling_ms=WINDOW_MS, missing_share=0, orphan_share=0, broken_share=0,
                conflict_share=0, inbound_share=0)  # fmt: skip
    made = _made(plan)
    await ground._send(made, 1_000)
    return sorted({e.key.decode() for e in made if e.topic == "sends"})


async def run(seconds: float, seed: int, home: Path) -> int:
    """Exit 1 unless all is as it must be."""
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:7.1f} {text}", file=sys.stderr, flush=True)

    ground = Ground(home, seed)
    say(f"seed {seed}, in {home}")
    await ground.start()
    heavy, other = await asyncio.to_thread(ground.bearer, "heavy"), await asyncio.to_thread(ground.bearer, "other")
    ids = await other_tenant(ground)
    await asyncio.sleep(5)
    # The rest is for settling and for the comparison.
    pressed_s = max(30.0, seconds - 150 - (time.monotonic() - began))
    ground.flow(pressed_s)
    pressure = pressing(ground, heavy, other, ids, pressed_s)
    while pressure.poll() is None:
        await asyncio.sleep(10)
        say(f"{ground.sent} events, lag at most {ground.lag_s_max:.1f} s, {ground.up.rss_mb_max} MB, ended {ground.up.gave_up}")
    assert pressure.stdout is not None
    figures = json.loads(pressure.stdout.read())
    say(json.dumps(figures))
    if not await ground.calm(90):
        ground.problems.append("what was written was not all committed within 90 s of calm")
    await asyncio.to_thread(ground.asked)
    await ground.stop()
    say("comparing")
    verdict = await ground.judged()
    ground.kafka.signal(signal.SIGKILL)
    return report(ground, verdict, figures, time.monotonic() - began)


def report(ground: Ground, verdict: Verdict, figures: dict[str, Any], took_s: float) -> int:
    """Prints what went wrong and the JSON line."""
    for sentence in [*verdict.sentences, *ground.problems, *figures["wrong_answers"], *(f"ended: {g}" for g in ground.up.gave_up[:20])]:
        print(f"  {sentence}")
    told = {
        "events": ground.sent, "records": verdict.records, "lost": verdict.lost, "twice": verdict.twice,
        "wrong": verdict.wrong + verdict.extra + verdict.orphans_wrong + verdict.dead_letters_wrong, "ended": len(ground.up.gave_up),
        "hung": figures["hung"], "livez_ms_max": figures["livez_ms_max"], "other_tenant_p99_ms": figures["other_tenant_p99_ms"],
        "lag_s_max": round(ground.lag_s_max, 1), "rss_mb_max": ground.up.rss_mb_max, "raw_batches": len(ground.reader.raw),
        "wrong_answers": len(figures["wrong_answers"]), "problems": len(ground.problems), "seconds": round(took_s), "seed": ground.seed,
    }  # fmt: skip
    print(json.dumps(told))
    nothing = ("lost", "twice", "wrong", "ended", "hung", "wrong_answers", "problems")
    bounds = {"livez_ms_max": LIVEZ_MS_MAX, "other_tenant_p99_ms": OTHER_P99_MS_MAX, "lag_s_max": LAG_S_MAX, "rss_mb_max": RSS_MB_MAX}
    return int(any(told[name] for name in nothing) or any(told[name] > most for name, most in bounds.items()))


def main() -> int:
    """Runs in a directory of its own; it is kept when something went wrong."""
    options = argparse.ArgumentParser()
    options.add_argument("--seconds", type=float, default=600)
    options.add_argument("--seed", type=int, default=int(time.time()) % 100_000)
    told = options.parse_args()
    return in_own_directory("mdr-hostile-", lambda home: run(told.seconds, told.seed, home))


if __name__ == "__main__":
    sys.exit(main())
