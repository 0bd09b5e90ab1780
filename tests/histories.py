"""Histories for properties: a log of one partition, and everything that may happen while a worker reads it.

A history is plain data, so that a failing one can be read: the log's entries in the order they arrive, then steps. The
vocabulary is small on purpose: three messages and few ids, so that events repeat, contradict and cross each other.
"""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from schemas.record import Record
from streams.flow import TOPICS
from tests.entries import NOON_MS, LogEntry, entry, event
from tests.inmemory import SHARD, Crash, Worker
from tests.oracle import Oracle, Outcome

WINDOW_MS: Final = 5_000
# All steps of a history together take less than the ten minutes for which conflicts are found for certain.
WAIT_MS_MAX: Final = 15_000
STEPS_MAX: Final = 30

Step = tuple[Any, ...]


class Arrival(NamedTuple):
    """An event of the log; `skew_ms` is how far its broker time is off the clock."""

    topic: str
    fields: dict[str, Any]
    skew_ms: int


class History(NamedTuple):
    """A log and what happens while it is read."""

    log: list[Arrival]
    steps: list[Step]

    def told(self) -> str:
        """A line an entry, then a line a step."""
        log = [f"{a.topic:9}{a.skew_ms:8} ms  {a.fields}" for a in self.log]
        return "\n".join([*log, *map(str, self.steps)])


# ---- logs ------------------------------------------------------------------------------------------------------

_IDS: Final = st.sampled_from(["m1", "m1", "m1", "m2"])
_SKEWS: Final = st.sampled_from([0, 0, 0, -3_000, 5_000, 1_200_000])


def _some(name: str, *values: Any) -> SearchStrategy[dict[str, Any]]:
    return st.sampled_from([{}, {}, *({name: v} for v in values)])


def _merge(parts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    return {name: v for part in parts for name, v in part.items()}


def _events(topic: str, ids: list[str], at_ms: list[int], *some: SearchStrategy[dict[str, Any]]) -> Any:
    fields = st.tuples(*some).map(_merge)
    return st.builds(
        lambda mid, event_id, at, more, skew: Arrival(topic, event(topic, mid, at, event_id=event_id, **more), skew),
        _IDS, st.sampled_from(ids), st.sampled_from(at_ms), fields, _SKEWS,
    )  # fmt: skip


_MONEY = (_some("rate", "0", "1"), _some("carrier_fee", "0.5"), _some("provider", "p1", "p2"), _some("mcc", "310"))
# The third time is two hours ago: such a send is looked up before it is merged.
_AT_MS: Final = [NOON_MS, NOON_MS + 2_000, NOON_MS - 7_200_000]
_SENDS = _events(
    "sends",
    ["e1", "e1", "e2"],
    _AT_MS,
    _some("segments", 2, 300),
    _some("account_id", "a2"),
    _some("body", "b"),
    *_MONEY,
)
_RECEIVES = _events("receives", ["e1", "e2"], _AT_MS, _some("error_code", "1"), _some("body", "b"))
_RECEIPTS = _events(
    "receipts", ["r1", "r2", "r3"], [NOON_MS, NOON_MS + 1_000, NOON_MS + 3_000],
    st.sampled_from(["sent", "sent", "queued", "failed", "expired", "delivered"]).map(lambda s: {"state": s}),
    _some("segment", 1, 2), _some("error_code", "1", "2"), _some("vendor_error_code", "v"), *_MONEY,
)  # fmt: skip
LOGS: Final = st.lists(st.one_of(_SENDS, _RECEIPTS, _RECEIPTS, _RECEIVES), min_size=4, max_size=14)

# ---- steps -----------------------------------------------------------------------------------------------------

_TOPIC: Final = st.sampled_from(TOPICS)
_COUNT: Final = st.integers(1, 5)
_SMALL: Final = st.one_of(
    st.tuples(st.just("arrive"), _COUNT),
    st.tuples(st.sampled_from(["read", "begin"]), _TOPIC, _COUNT),
    st.tuples(st.sampled_from(["answer", "finish"]), _TOPIC),
    st.tuples(st.sampled_from(["ends", "tick", "begin_tick", "answer_tick", "finish_tick"])),
    st.tuples(st.just("wait"), st.sampled_from([10, 1_000, 6_000, WAIT_MS_MAX])),
)
# What happens meanwhile happens before a write, one step before each; the worker dies before write `crash_at`, if any.
_WRITE: Final = st.tuples(
    st.just("write"), st.booleans(), st.lists(_SMALL, max_size=4), st.sampled_from([None, None, None, 1, 2, 3, 4, 5])
)
# A stretch of undisturbed work, and what waits so long that it settles or becomes an orphan.
_CALM: Final = st.tuples(st.just("calm"), _COUNT, st.sampled_from([10, WINDOW_MS + 1_000]), st.booleans())
STEPS: Final = st.lists(
    st.one_of(_SMALL, _SMALL, _CALM, _CALM, _WRITE, st.tuples(st.sampled_from(["crash"]))),
    min_size=6, max_size=STEPS_MAX,
)  # fmt: skip
HISTORIES: Final = st.builds(History, LOGS, STEPS)
# Another worker takes the partition; what this one had cut by then is written some time after.
_TAKEN: Final = st.tuples(st.sampled_from(["take_over", "write_stale", "write_stale"]))
TAKEN_STEPS: Final = st.lists(st.one_of(_SMALL, _CALM, _CALM, _WRITE, _TAKEN), min_size=6, max_size=STEPS_MAX)
TAKEN: Final = st.builds(History, LOGS, TAKEN_STEPS)


class Run:
    """Plays a history on a worker; `check` is called after every step."""

    def __init__(self, history: History) -> None:
        self.worker = Worker(WINDOW_MS, NOON_MS + 10_000)
        self.coming = list(history.log)
        self.judged: list[tuple[Any, ...]] = []
        for step in history.steps:
            self.do(*step)
            self.check()
        self._end()

    def outcome(self) -> Outcome:
        """What the oracle says of the log."""
        return Oracle(WINDOW_MS).judge(self.judged)

    def do(self, what: str, *args: Any) -> None:
        """Plays one step."""
        match what, *args:
            case "arrive", int(count):
                self._arrive(count)
            case "read" | "begin", topic, count:
                getattr(self.worker, what)(topic, count)
            case "answer" | "finish", topic:
                getattr(self.worker, what)(topic)
            case ("ends",):
                self.worker.find_ends()
            case "wait", int(ms):
                self.worker.clock_ms += ms
            case "write", bool(checkpoint), list(meanwhile), crash_at:
                self._write(checkpoint, list(meanwhile), crash_at)
            case "calm", int(count), int(wait_ms), bool(checkpoint):
                self._arrive(count)
                for ms in (0, wait_ms, 1):
                    self.worker.clock_ms += ms
                    self._turn()
                self.worker.write(checkpoint=checkpoint)
            case ("crash",):
                self.worker.start()
            case _:
                getattr(self.worker, what)()

    def _arrive(self, count: int) -> None:
        arriving, self.coming = self.coming[:count], self.coming[count:]
        for topic, fields, skew_ms in arriving:
            made = entry(len(self.worker.log[topic]), self.worker.clock_ms + skew_ms, fields)
            self.worker.append(topic, made)
            self.judged.append(_as_judged(topic, made, self.worker.clock_ms))

    def _write(self, checkpoint: bool, meanwhile: list[Step], crash_at: int | None) -> None:
        writes = 0

        def before(_what: str) -> None:
            nonlocal writes
            writes += 1
            if writes == crash_at:
                raise Crash
            if meanwhile:
                self.do(*meanwhile.pop(0))

        try:
            self.worker.write(checkpoint=checkpoint, before=before)
        except Crash:
            self.worker.start()
        else:
            if checkpoint:
                self.check_settled_through()

    def _turn(self) -> None:
        for topic in TOPICS:
            self.worker.read(topic)
        self.worker.find_ends()
        self.worker.tick()

    def _end(self) -> None:
        """Lets everything arrive, be read, settle and be written."""
        self._arrive(len(self.coming))
        for wait_ms in (0, 1, WINDOW_MS + 3_000, WINDOW_MS + 3_000, 1):
            self.worker.clock_ms += wait_ms
            self._turn()
            self.worker.write(checkpoint=True)
            self.check()

    # ---- what is true at every step ------------------------------------------------------------------------

    def check(self) -> None:
        """Nothing vanishes: every event that something was done with was merged, is a duplicate or a dead letter."""
        partition, counts = self.worker.partition, self.worker.partition.counts
        done = counts.merged + counts.duplicates + counts.dead_letters
        assert counts.events == done, f"{counts}, {self.worker.held} held"
        lives = [partition._life(mid) for mid in list(partition.lives)]
        assert partition.waiting == sum(life is not None and life.send is None for life in lives)

    def check_settled_through(self) -> None:
        """What was read and occurred before `settled_through` is settled and durable."""
        store = self.worker.store
        through = store.points[SHARD].settled_through
        read = [e for e in self.judged if e[0] != "receipts" and e[2] < self.worker.kafka.committed[e[0]]]
        written = {(r.direction, r.message_id) for r in store.mdrs.values()}
        for (direction, mid), row in Oracle(WINDOW_MS).judge(read).records.items():
            assert row["occurred_at"] >= through or (direction, mid) in written, f"{direction} {mid} is missing"


def _as_judged(topic: str, made: LogEntry, clock_ms: int) -> tuple[Any, ...]:
    return topic, SHARD, made.offset, made.timestamp, made.key, made.value, clock_ms


# ---- records as the oracle has them ----------------------------------------------------------------------------

_UNSPOKEN: Final = {"settled_at", "amended_at", "amendments", "version", "shard", "facts"}


def plain(row: Record) -> dict[str, Any]:
    """A record as the oracle writes it: all columns that do not depend on how the log was cut, and how many facts."""
    names = [n for n in Record.__struct_fields__ if n not in _UNSPOKEN and not n.startswith("timeline_")]
    values = {n: getattr(row, n) for n in names}
    listed = {n: list(v) if isinstance(v, tuple) else v for n, v in values.items()}
    steps = [
        {"event_id": e, "state": s, "occurred_at": at, "segment": part, "error_code": code}
        for e, s, at, part, code in zip(
            row.timeline_event_id, row.timeline_state, row.timeline_occurred_at, row.timeline_segment,
            row.timeline_error_code, strict=True,
        )
    ]  # fmt: skip
    return listed | {"timeline": steps, "facts": len(steps)}
