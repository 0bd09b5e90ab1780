"""The plan, the event, and the heap on which events wait for the moment they are produced."""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heappush
from random import Random
from typing import NamedTuple

from orjson import dumps

HOUR_MS = 3_600_000

Fields = dict[str, object]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to simulate. `messages` counts distinct sends and receives; a share is of messages, in [0, 1].

    Times are event time: `rate_per_s` messages a second from `start_ms` on. `settling_ms` is the settling
    window the traffic is made for: ordinary receipts come well inside it, late ones after it.
    """

    messages: int
    seed: int = 1
    start_ms: int = 1_767_600_000_000  # 2026-01-05T08:00:00Z
    rate_per_s: float = 100.0
    account: str | None = None  # all traffic on one account
    settling_ms: int = 4 * HOUR_MS
    inbound_share: float = 0.18
    missing_share: float = 0.02  # no final receipt ever
    late_share: float = 0.005  # the final receipt after the window
    early_share: float = 0.01  # a receipt before its send
    reordered_share: float = 0.01  # the final receipt before the intermediate one
    duplicate_share: float = 0.01  # an event twice, byte for byte
    altered_share: float = 0.001  # an event twice, the second time with other content
    conflict_share: float = 0.0005  # a second, different event for a known message
    orphan_share: float = 0.002  # receipts of a message nobody sent
    broken_share: float = 0.002  # an event that cannot be used
    floods: int = 0  # messages with more receipts than are kept

    @property
    def tail_ms(self) -> int:
        """No event is written later than this after the last message: a replay of a late, slow receipt."""
        return int(3.3 * self.settling_ms) + 60_000


class Event(NamedTuple):
    """One event: `at_ms` is when its producer writes it, `broken` the expected dead letter reason or ""."""

    topic: str
    key: bytes
    value: bytes
    at_ms: int
    broken: str


class Outbox:
    """What is still to be produced: `waiting` is a heap by `at_ms`, then by the order of writing."""

    def __init__(self, plan: Plan, rng: Random) -> None:
        self.random = rng.random
        self.bits = rng.getrandbits
        self.settling_ms = plan.settling_ms
        self.waiting: list[tuple[int, int, Event]] = []
        self.written = 0
        # Copies are drawn per event; a message has about two and a half.
        self.copy_share = (plan.duplicate_share + plan.altered_share) / 2.5
        self.altered_from = plan.duplicate_share / ((plan.duplicate_share + plan.altered_share) or 1)

    def push(self, topic: str, key: bytes, fields: Fields, at_ms: int) -> None:
        """Writes the event at `at_ms`, and perhaps a copy of it later."""
        value = dumps(fields)
        self.written = place = self.written + 1
        heappush(self.waiting, (at_ms, place, Event(topic, key, value, at_ms, "")))
        if self.random() < self.copy_share:
            self._copy(topic, key, fields, at_ms)

    def write(self, topic: str, key: bytes, value: bytes, at_ms: int, broken: str) -> None:
        """Writes these bytes at `at_ms`, and no copy."""
        self.written += 1
        heappush(self.waiting, (at_ms, self.written, Event(topic, key, value, at_ms, broken)))

    def contradict(self, topic: str, key: bytes, fields: Fields, at_ms: int) -> None:
        """Writes another event for the same message, soon after the one written at `at_ms`."""
        value = dumps(fields | {"event_id": f"{self.bits(96):024x}", "body": "another one"})
        self.write(topic, key, value, at_ms + 1 + int(self.random() * 30_000), "conflict")

    def _copy(self, topic: str, key: bytes, fields: Fields, at_ms: int) -> None:
        """The event again, as it was or with other content; a replay may come when all is settled."""
        again_ms = at_ms + 1 + int(self.random() * 30_000)
        if self.random() >= self.altered_from:
            fields = fields | {"body": "altered", "error_code": "altered", "rate": "0.99"}
        elif self.random() < 0.2:
            again_ms += int(self.settling_ms * self.random())
        self.write(topic, key, dumps(fields), again_ms, "")
