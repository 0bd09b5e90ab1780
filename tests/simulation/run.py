"""One seed: two workers, traffic, faults, then calm; and what must be true at the end."""

import asyncio
import logging
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import msgspec
from aiokafka.structs import TopicPartition

from schemas import native
from schemas.events import TOPICS
from schemas.record import COLUMNS
from streams import agents, join, kafka, packing
from streams.agents import Worker
from streams.lives import Lives
from streams.settings import Settings, load
from streams.store import Unavailable
from tests import oracle
from tests.oracle import Oracle, Outcome
from tests.simulation.broker import PREFIX, App, Broker, Producer
from tests.simulation.store import MemoryStore, Tables
from tests.simulation.traffic import Traffic
from tests.simulation.world import START_MS, Killed, Process, World

NAMES = [c.name for c in COLUMNS]
INCIDENTAL = frozenset({"settled_at", "amended_at", "amendments", "version", "shard", "facts"})
STEP = ("event_id", "state", "occurred_at", "segment", "error_code")
SETTINGS = load({"HOME": "/nowhere", "MDR_KAFKA": "fake:1", "MDR_CLICKHOUSE_URL": "http://fake:1"}, Path("/nowhere"))
CALM_MS = 60_000


@dataclass
class Result:
    """What one seed came to; `wrong` holds a sentence for each thing that is not as it must be."""

    seed: int
    wrong: list[str] = field(default_factory=list)
    events: int = 0
    records: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    stops: int = 0
    terms: int = 0
    rebalances: int = 0
    refused: int = 0
    restored: int = 0
    steps: int = 0


class SimWorker(Worker):
    """The worker with another app under it."""

    app: Any

    def __init__(self, settings: Settings, shards: int, app: App, clock: Callable[[], int]) -> None:
        self._fake_app = app
        super().__init__(settings, shards, clock=clock)

    def _make_app(self) -> Any:
        app = self._fake_app
        for topic in TOPICS:
            app.agents[topic] = self._agent(topic)
        app.on_revoked, app.on_assigned = self._on_revoked, self._on_assigned
        return app


class Run:
    """One seed's world."""

    def __init__(self, seed: int, tell: Callable[[str], None]) -> None:
        self.result = Result(seed)
        self.world = World(seed)
        self.random = self.world.random
        self.shards = self.random.choice((1, 2, 3))
        self.broker = Broker(self.world, self.shards)
        self.tables = Tables()
        self.failing_until_ms = 0
        self.deadly = self.random.choice((0.0, 0.002, 0.01, 0.03))
        self.shaky = self.random.choice((0.0, 0.0, 0.05, 0.3))
        self.calm = False
        self.workers: list[tuple[Process, SimWorker, App]] = []
        self.born = 0
        self.settings = msgspec.structs.replace(
            SETTINGS, settling_window_ms=self.random.choice((700, 1_500, 3_000)),
            flush_interval_ms=self.random.choice((200, 700)), checkpoint_interval_ms=self.random.choice((300, 1_500)),
        )  # fmt: skip
        self.tell = tell

    def say(self, what: str) -> None:
        """One line of the story, for a replay."""
        self.tell(f"{(self.world.now_ms - START_MS) / 1000:8.3f} {what}")

    # ---- what may go wrong anywhere ----

    def point(self, process: Process, name: str) -> None:
        """A named point of a worker's dealings with the world: it may die here, or the store fail."""
        self.say(f"{process.name} {name}")
        if name.startswith(("recovery", "lookup")) and self.random.random() < 0.2:
            self.world.hasten(100)
        if self.calm:
            return
        if process.alive and self.random.random() < self.deadly:
            self.result.kills[name] += 1
            self.died(process, name)
            raise Killed
        if name.startswith(("before commit", "after commit", "revocation", "assignment")) or "letter" in name:
            return
        if self.world.now_ms < self.failing_until_ms or self.random.random() < self.shaky:
            raise Unavailable(f"{name}: not now")

    def died(self, process: Process, where: str) -> None:
        """Has the group find out, and a supervisor start another."""
        self.say(f"{process.name} KILLED at {where}")
        process.kill()
        for p, _, app in self.workers:
            if p is process:
                self.broker.gone(app)
        self.workers = [w for w in self.workers if w[0] is not process]
        self.world.after(self.random.randint(100, 3_000), self.start)

    def start(self) -> None:
        """One more worker process."""
        if len(self.workers) >= 2:
            return
        self.born += 1
        process = self.world.process(f"w{self.born}")
        app = App(process, self.broker, partial(self.point, process))
        self.say(f"{process.name} starts")
        process.spawn(self._life(process, app))

    async def _life(self, process: Process, app: App) -> None:
        try:
            await self._live(process, app)
        except Exception as e:
            self.result.wrong.append(f"{process.name} gave up: {type(e).__name__}: {e}")
            self.tell("".join(traceback.format_exception(e)))
            self.died(process, f"its own {e!r}")

    async def _live(self, process: Process, app: App) -> None:
        worker = SimWorker(self.settings, self.shards, app, lambda: self.world.now_ms + process.skew_ms)
        self.workers.append((process, worker, app))
        try:
            await worker.start()
        except Unavailable:
            self.died(process, "start")
            return
        assert worker.failed is not None
        await worker.failed

    async def _terminate(self, process: Process, worker: SimWorker) -> None:
        self.result.terms += 1
        began_ms = self.world.now_ms
        await worker.stop()
        took_ms = self.world.now_ms - began_ms
        if took_ms > 12_000:
            self.result.wrong.append(f"{process.name} took {took_ms} ms to stop")
        self.say(f"{process.name} stopped in {took_ms} ms")
        process.kill()
        self.workers = [w for w in self.workers if w[0] is not process]
        self.world.after(self.random.randint(100, 3_000), self.start)

    def store(self) -> MemoryStore:
        """The running process's access to the tables."""
        return MemoryStore(self.tables, partial(self.point, _running()))

    def producer(self) -> Producer:
        """The running process's producer."""
        return Producer(_running(), self.broker, partial(self.point, _running()))

    # ---- faults from outside ----

    def nemesis(self) -> None:
        """Now and then something from outside: a kill, a stop, a signal, the store or the broker away."""
        if self.calm:
            return
        self.world.after(self.random.randint(300, 6_000), self.nemesis)
        running = [w for w in self.workers if w[0].alive and not w[0].stopped and not w[2].closing]
        what = self.random.choice(("kill", "stop", "term", "store", "broker", "start", "clock", "nothing"))
        if what == "store":
            self.failing_until_ms = self.world.now_ms + self.random.choice((500, 4_000, 12_000))
            self.say("the store fails")
        elif what == "broker":
            self.broker.failing = self.random.choice((0.1, 0.9))
            self.world.after(self.random.randint(200, 5_000), self._broker_back)
        elif what == "start":
            self.start()
        elif running and what != "nothing":
            process, worker, app = self.random.choice(running)
            self._harm(what, process, worker, app)

    def _broker_back(self) -> None:
        self.broker.failing = 0.0

    def _harm(self, what: str, process: Process, worker: SimWorker, app: App) -> None:
        if what == "kill":
            self.result.kills["any time"] += 1
            self.died(process, "any time")
        elif what == "term":
            self.say(f"{process.name} is told to stop")
            app.closing = True
            process.spawn(self._terminate(process, worker))
        elif what == "clock":
            # Further behind, what is written now would be in its future.
            process.skew_ms = self.random.choice((3_600_000, 30_000, 0, -5_000, -500_000))
            self.say(f"{process.name}: its clock is {process.skew_ms} ms ahead")
        else:
            self.result.stops += 1
            self.say(f"{process.name} is frozen")
            process.stopped = True
            self.broker.gone(app)
            self.world.after(self.random.choice((500, 3_000, 9_000, 30_000)), lambda: self._thaw(process))

    def _thaw(self, process: Process) -> None:
        self.say(f"{process.name} goes on")
        process.stopped = False

    def back_up(self) -> None:
        """Saves the store, and puts that back later: the offsets stay where they are by then."""
        copy = self.tables.copy()
        self.say("the store is saved")
        self.world.after(self.random.randint(500, 6_000), lambda: self._put_back(copy))

    def _put_back(self, copy: dict[str, Any]) -> None:
        if self.calm:
            return
        for process in self.world.ever:
            process.silenced = True  # whoever puts a store back waits until nobody writes to it
        for process, _, _ in list(self.workers):
            self.died(process, "a store that is to be put back")
        self.result.restored += 1
        self.broker.may_go_back = True
        self.tables.put_back(copy)
        self.say("the store is what it was")

    # ---- the whole ----

    def go(self) -> Result:
        """Runs the seed to its end and compares."""
        span_ms = self.random.choice((3_000, 8_000))
        traffic = Traffic(
            self.random, self.shards, self.settings.settling_window_ms, START_MS, span_ms, join.RECEIPTS_MAX < 320
        )
        for w in traffic.entries:
            self.world.at(START_MS + w.at_ms, partial(self._append, w))
        last_ms = START_MS + max((w.at_ms for w in traffic.entries), default=0)
        self.start()
        self.world.after(self.random.randint(0, 5_000), self.start)
        self.world.after(self.random.randint(500, 6_000), self.nemesis)
        if self.result.seed % 7 == 5:
            self.world.after(self.random.randint(0, 6_000), self.back_up)
        self.world.run(last_ms + self.random.randint(0, 6_000))
        self.calm = True
        self.failing_until_ms, self.broker.failing = 0, 0.0
        for process in self.world.processes:
            process.skew_ms = 0
        self.say("from here on all is well")
        self.world.run(self.world.now_ms + CALM_MS, self._is_done)
        if not self._is_done():
            # What a stale owner wrote after the new one had loaded stays until somebody loads again.
            for process, _, _ in list(self.workers):
                self.died(process, "the end")
            self.world.run(self.world.now_ms + CALM_MS, self._is_done)
        self._judge()
        for process in self.world.processes:
            process.kill()
        return self.result

    def _append(self, w: Any) -> None:
        self.say(f"{w.topic} {w.shard} at {self.broker.ends[TopicPartition(PREFIX + w.topic, w.shard)]}: {w.value!r}")
        self.broker.append(w.topic, w.shard, self.world.now_ms - w.behind_ms, w.key, w.value)

    def _is_done(self) -> bool:
        if any(self.broker.committed.get(tp, 0) < end for tp, end in self.broker.ends.items()):
            return False
        return not any(not row.is_deleted for row in self.tables.open.values())

    def _judge(self) -> None:
        result = self.result
        result.steps, result.rebalances, result.refused = self.world.steps, self.broker.rebalances, self.broker.refused
        if not self._is_done():
            behind = {
                f"{tp.topic}:{tp.partition}": (self.broker.committed.get(tp, 0), end)
                for tp, end in self.broker.ends.items()
            }
            left = [r.message_id for r in self.tables.open.values() if not r.is_deleted]
            result.wrong.append(f"not done after {CALM_MS // 1000} s of calm: committed and end {behind}, open {left}")
            return
        shown = [key for key, (_, row) in self.tables.shown.items() if row is not None]
        if shown:
            result.wrong.append(f"shown as open after all was settled: {shown}")
        log = [
            (e.topic.removeprefix(PREFIX), e.partition, e.offset, e.timestamp, e.key, e.value, self.world.now_ms)
            for entries in self.broker.logs.values()
            for e in entries
        ]
        result.events = len(log)
        result.wrong += self.broker.wrong
        expected = Oracle(self.settings.settling_window_ms).judge(log)
        result.records = len(expected.records)
        result.wrong += compare(expected, self.tables, self.broker.letters, {e[:3]: e[5] for e in log})


def _running() -> Process:
    loop: Any = asyncio.get_running_loop()
    process: Process = loop.process
    return process


def compare(expected: Outcome, tables: Tables, letters: list[dict[str, Any]], values: dict[Any, Any]) -> list[str]:
    """Where the tables and the dead letters differ from the oracle's word."""
    rows = [dict(zip(NAMES, row, strict=True)) for row in tables.mdrs.values()]
    wrong = compare_records(expected, rows)
    settled = {row["message_id"] for row in rows if row["direction"] == "outbound"}
    orphans = {
        (r.message_id, r.event_id, r.state, r.occurred_ms, r.segment)
        for _, is_deleted, _, r, _ in tables.orphans.values()
        if not is_deleted and r.message_id not in settled  # as the view has it
    }
    wrong += [f"orphan {o} is lost" for o in expected.orphans - orphans]
    wrong += [f"orphan {o} should be none" for o in orphans - expected.orphans]
    return wrong + compare_letters(expected, letters, values)


def compare_letters(expected: Outcome, letters: list[dict[str, Any]], values: dict[Any, Any]) -> list[str]:
    """Each dead letter at least once, for the reason the oracle gives, and no other."""
    found: dict[tuple[str, int, int], str] = {}
    wrong = []
    for letter in letters:
        headers = {name: value.decode() for name, value in letter["headers"][-6:]}
        place = headers["topic"].removeprefix(PREFIX), int(headers["partition"]), int(headers["offset"])
        if found.setdefault(place, headers["reason"]) != headers["reason"]:
            wrong.append(f"dead letter {place} has two reasons")
    # A copy of a receipt that is one too many is told as a dead letter or as a duplicate, as the batches fall.
    copies = {letter["value"] for letter in letters if dict(letter["headers"])["reason"] == b"too_many_events"}
    missing = {p: r for p, r in expected.dead_letters.items() if found.get(p) != r}
    missing = {p: r for p, r in missing.items() if r != "too_many_events" or values.get(p) not in copies}
    wrong += [f"dead letter {p}: {found.get(p)}, not {r}" for p, r in missing.items()]
    return wrong + [f"dead letter {p} should be none: {r}" for p, r in found.items() if p not in expected.dead_letters]


def compare_records(expected: Outcome, rows: list[dict[str, Any]]) -> list[str]:
    """Lost, twice, wrong: one sentence each."""
    wrong, seen = [], Counter[tuple[str, str]]()
    for row in rows:
        key = row["direction"], row["message_id"]
        seen[key] += 1
        wanted = expected.records.get(key)
        if wanted is None:
            wrong.append(f"record {key} should be none")
            continue
        shown = comparable(row)
        wrong += [f"record {key}: {n} is {shown.get(n)!r}, not {v!r}" for n, v in wanted.items() if shown.get(n) != v]
    wrong += [f"record {key} is there {count} times" for key, count in seen.items() if count > 1]
    return wrong + [f"record {key} is lost" for key in expected.records if key not in seen]


def comparable(row: dict[str, Any]) -> dict[str, Any]:
    """A row in the oracle's words."""
    plain = {n: list(v) if isinstance(v, tuple) else v for n, v in row.items() if not n.startswith("timeline.")}
    steps = zip(*(row[f"timeline.{part}"] for part in STEP), strict=True)
    timeline = [dict(zip(STEP, step, strict=True)) for step in steps]
    return {n: v for n, v in plain.items() if n not in INCIDENTAL} | {"timeline": timeline, "facts": len(timeline)}


@contextmanager
def environment() -> Iterator[SimpleNamespace]:
    """Replaces what the worker would ask the outside for; the log's story stays out of the log."""
    held = SimpleNamespace(run=None)

    async def read_back(settings: Settings, sources: Any) -> list[Any]:
        return [entry for source in sources for entry in held.run.broker.read_back(source)]

    with ExitStack() as stack:
        stack.enter_context(patch.object(agents, "check_private_names", lambda: None))
        stack.enter_context(patch.object(agents, "_TICK_S", 0.4))
        # So that even the few messages of a seed are packed.
        stack.enter_context(patch.object(Lives, "unpacked_max", 0))
        stack.enter_context(patch.object(packing, "_SAMPLES", 2))
        stack.enter_context(patch.object(agents, "Metered", lambda store, telemetry: store))
        stack.enter_context(patch.object(agents, "Store", lambda url: held.run.store()))
        stack.enter_context(patch.object(kafka, "producer", lambda *_, **__: held.run.producer()))
        stack.enter_context(patch.object(kafka, "read_back", read_back))
        stack.enter_context(patch.object(logging.getLogger("streams"), "disabled", True))
        for name in ("streams.agents", "streams.barrier", "streams.outbox"):
            stack.enter_context(patch.object(logging.getLogger(name), "disabled", True))
        yield held


def run(seed: int, tell: Callable[[str], None] = lambda line: None, way: str = "") -> Result:
    """The result of one seed; the same seed gives the same. Without a way even seeds go the compiled one."""
    with environment() as held, ExitStack() as stack:
        is_native = (way or ("native", "python")[seed % 2]) == "native"
        stack.enter_context(patch.object(native, "enabled", native.enabled and is_native))
        held.run = it = Run(seed, tell)
        if seed % 10 == 3:  # few receipts are already too many
            stack.enter_context(patch.object(join, "RECEIPTS_MAX", 3))
            stack.enter_context(patch.object(oracle, "MOST_RECEIPTS", 3))
        return it.go()
