"""Scenarios: tables of what happens to one partition, and what must come of it.

    # A sentence that states the rule.
    at=0s   send     id=m1 segments=2
    at=3s   receipt  id=m1 state=DELIVRD
            tick                          -> mdr id=m1 state=delivered final_at=3s; rows=1

A line is a time (seconds or minutes or hours after noon; the line before's if left out), a verb with `key=value` cells,
and what must be true after it. Verbs:

    send, receive, receipt   an event with these fields arrives and is read, unless its topic is paused. `event=` is its
                             event_id (`KIND-ID` by default), `occurred=` and `broker=` times other than the line's,
                             `times=` how often it comes, each time with another event_id
    pause, resume TOPIC      the topic is not read; read to its end again
    tick                     the ends are found, time passes, the store is asked, finished rows are written
    pass                     the same, but the ends are not found: the topics are not known to be read to their end
    checkpoint               a tick, then everything is made durable and committed
    crash                    the worker is gone and starts anew

What must be true, any number of them, separated by `;` (`not` before one turns it round):

    mdr id=.. COLUMN=..      the record is written and says so           open id=..      it is in memory, not settled
    orphan id=.. event=..    a receipt is among the orphans              waiting=N       receipts' messages that wait
    dead=REASON,REASON       exactly these became dead letters so far    rows=N          the line wrote N records
    merged=N duplicates=N amended=N adopted=N ..                         the counts      asked=N  ids looked up so far
    mark topic=.. at=..      where the watermark stands                  through at=..   the last `settled_through`
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from schemas.record import Record
from streams.effects import Counts
from streams.flow import TOPICS
from tests.entries import NOON_MS, event
from tests.inmemory import Worker

WINDOW_MS: Final = 4 * 3_600_000
_UNITS_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}
_INTEGERS: Final = ("segments", "segment")
_TIMES: Final = ("occurred_at", "sent_at", "final_at", "settled_at", "amended_at")
_NEVER_MS: Final = (1 << 63) - 1


@dataclass(frozen=True)
class Scenario:
    """A rule and the numbered lines that show it."""

    rule: str
    lines: list[tuple[int, str]]


def scenarios(path: Path) -> list[Scenario]:
    """The scenarios of a file, in order; they are separated by blank lines."""
    found: list[Scenario] = []
    for block in re.split(r"\n\s*\n", path.read_text("utf-8").strip()):
        first = path.read_text("utf-8").index(block)
        number = path.read_text("utf-8")[:first].count("\n") + 1
        lines = list(enumerate(block.splitlines(), number))
        rule = " ".join(text.lstrip("# ") for _, text in lines if text.startswith("#"))
        assert rule, f"{path.name}:{number}: a scenario without a sentence"
        found.append(Scenario(rule, [(n, text) for n, text in lines if not text.startswith("#")]))
    return found


def play(scenario: Scenario) -> None:
    """Plays a scenario; fails with the scenario and its failing line marked."""
    stage = Stage()
    for number, text in scenario.lines:
        try:
            wrong = stage.line(text)
        except Exception as e:
            wrong = f"{type(e).__name__}: {e}"
            raise AssertionError(_marked(scenario, number, wrong)) from e
        assert not wrong, _marked(scenario, number, wrong)


def _marked(scenario: Scenario, failing: int, wrong: str) -> str:
    lines = [f"{'>>>' if n == failing else '   '} {n:4} {text}" for n, text in scenario.lines]
    return "\n".join(["", f"# {scenario.rule}", *lines, f"    {wrong}"])


class Stage:
    """A worker on which the lines of one scenario are played."""

    def __init__(self) -> None:
        self.worker = Worker(WINDOW_MS, NOON_MS)
        self.paused: set[str] = set()
        self.rows = 0

    def line(self, text: str) -> str:
        """Plays one line; what is wrong after it, `""` if nothing."""
        what, _, expected = text.partition("->")
        words = what.split()
        if words and words[0].startswith("at="):
            self.worker.clock_ms = moment_ms(words.pop(0)[3:])
        before = self._written()
        if words:
            self._do(words[0], words[1:])
        self.rows = self._written() - before
        wrong = [self._check(part.split()) for part in expected.split(";") if part.strip()]
        return "; ".join(filter(None, wrong))

    def _written(self) -> int:
        return sum(map(len, self.worker.store.history.values()))

    # ---- what happens --------------------------------------------------------------------------------------

    def _do(self, verb: str, words: list[str]) -> None:
        worker = self.worker
        if verb in ("send", "receive", "receipt"):
            self._event(verb, _cells(words))
        elif verb == "pause":
            self.paused |= set(words)
        elif verb == "resume":
            self.paused -= set(words)
            for topic in words:
                worker.read(topic)
        elif verb == "crash":
            worker.start()
            for topic in TOPICS:
                self._read(topic)
        elif verb in ("tick", "pass", "checkpoint"):
            if verb != "pass":
                worker.find_ends([topic for topic in TOPICS if topic not in self.paused])
            for _ in range(2):  # what the first one asked the store is acted upon by the second
                worker.tick()
            worker.write(checkpoint=verb == "checkpoint")
        else:
            raise ValueError(f"no verb {verb}")

    def _event(self, verb: str, cells: dict[str, Any]) -> None:
        topic, worker = f"{verb}s", self.worker
        id_ = cells.pop("id")
        name = cells.pop("event", f"{verb}-{id_}")
        occurred_ms = moment_ms(cells.pop("occurred", "")) or worker.clock_ms
        broker_ms = moment_ms(cells.pop("broker", "")) or worker.clock_ms
        times = int(cells.pop("times", 1))
        cells |= {n: int(cells[n]) for n in _INTEGERS if n in cells}
        for n in range(times):
            event_id = f"{name}-{n}" if times > 1 else name
            worker.produce(topic, broker_ms, event(topic, id_, occurred_ms, event_id=event_id, **cells))
        self._read(topic)

    def _read(self, topic: str) -> None:
        if topic not in self.paused:
            self.worker.read(topic)

    # ---- what must be true ---------------------------------------------------------------------------------

    def _check(self, words: list[str]) -> str:
        if words[0] == "not":
            return "" if self._check(words[1:]) else f"it is so: {' '.join(words[1:])}"
        cells = _cells(words)
        if "=" in words[0]:
            return "; ".join(filter(None, (self._figure(name, text) for name, text in cells.items())))
        wrong: str = getattr(self, f"_check_{words[0]}")(**cells)
        return wrong

    def _check_mdr(self, id: str, direction: str = "outbound", **columns: str) -> str:
        rows = [r for r in self.worker.store.mdrs.values() if (r.message_id, r.direction) == (id, direction)]
        if len(rows) != 1:
            return f"{len(rows)} records of {id}"
        got = {name: _shown(name, rows[0]) for name in columns}
        wrong = [f"{name}={got[name]}" for name, text in columns.items() if got[name] != _expected(name, text)]
        return f"the record of {id} has {' '.join(wrong)}" if wrong else ""

    def _check_open(self, id: str) -> str:
        life = self.worker.partition._life(id)
        is_open = life is not None and life.send is not None and id in self.worker.partition.lives
        return "" if is_open else f"{id} is not open"

    def _check_orphan(self, id: str, event: str) -> str:
        known = sorted(key[:2] for key in self.worker.store.orphans())
        return "" if (id, event) in known else f"orphans are {known}"

    def _check_mark(self, topic: str, at: str) -> str:
        got = _clock(self.worker.partition.marks[topic])
        return "" if got == _clock(moment_ms(at)) else f"the watermark of {topic} stands at {got}"

    def _check_through(self, at: str) -> str:
        got = _clock(self.worker.store.points[0].settled_through)
        return "" if got == _clock(moment_ms(at)) else f"settled through {got}"

    def _figure(self, name: str, expected: str) -> str:
        worker = self.worker
        if name == "dead":
            buried = [letter.reason for letter in worker.partition.dead] + [
                reason for _, reason in worker.kafka.letters
            ]
            got, expected = ",".join(sorted(buried)), ",".join(sorted(expected.split(",")))
        elif name in Counts.__struct_fields__:
            got = str(getattr(worker.partition.counts, name))
        else:
            figures = {"rows": self.rows, "waiting": worker.partition.waiting, "asked": len(worker.store.looked_up)}
            got = str(figures[name])
        return "" if got == expected else f"{name} is {got}"


def _cells(words: list[str]) -> dict[str, Any]:
    return dict(word.split("=", 1) for word in words if "=" in word)


def _shown(name: str, row: Record) -> str:
    if name == "timeline":
        return ",".join(row.timeline_state)
    got = getattr(row, name)
    return _clock(got) if name in _TIMES else str(got)


def _expected(name: str, text: str) -> str:
    return _clock(moment_ms(text)) if name in _TIMES else text


def moment_ms(text: str) -> int:
    """`90s`, `-2h` or `1500ms` after noon in ms since the epoch; 0 of `never` and of `""`."""
    if text in ("", "never"):
        return 0
    match = re.fullmatch(r"(-?\d+)(ms|s|m|h)", text)
    if match is None:
        raise ValueError(f"no time {text}")
    return NOON_MS + int(match[1]) * _UNITS_MS[match[2]]


def _clock(ms: int | None) -> str:
    """An instant as a scenario writes it, in the largest unit that fits; `never` of none."""
    if ms is None or ms in (0, _NEVER_MS):
        return "never"
    unit = next(u for u in ("h", "m", "s", "ms") if not (ms - NOON_MS) % _UNITS_MS[u])
    return f"{(ms - NOON_MS) // _UNITS_MS[unit]}{unit}"
