"""Few messages, every trouble: what a seed has producers write, and when."""

import json
from datetime import UTC, datetime
from random import Random
from typing import Any, NamedTuple

from streams.kafka import partition_of

FINAL = ("delivered", "failed", "undelivered", "expired", "rejected")
BROKEN = (b"", b"{", b"[]", b'{"event_id":"e"}', b"\xff\xfe", None)


class Written(NamedTuple):
    """One entry to be: `at_ms` from the start, its broker time set by `behind_ms`."""

    at_ms: int
    topic: str
    shard: int
    key: bytes | None
    value: bytes | None
    behind_ms: int


class Traffic:
    """The entries of one seed, in the order of writing."""

    def __init__(self, random: Random, shards: int, window_ms: int, start_ms: int, span_ms: int, orderly: bool) -> None:
        """`orderly`: sends come first and in time, so that no receipt is ever an orphan."""
        self._random, self._shards, self._window_ms = random, shards, window_ms
        self._start_ms, self._span_ms = start_ms, span_ms
        self._events = 0
        # A producer that writes what happened long ago: time in the log is far behind the clock.
        self._behind_ms = 0 if orderly else random.choice((0, 0, 0, 60_000))
        self._orderly = orderly
        self.entries: list[Written] = []
        for number in range(random.randint(4, 14)):
            self._message(f"m{number}")
        for _ in range(random.randint(0, 3)):
            self._write(random.randrange(span_ms), "receipts", f"bad{random.randrange(9)}", random.choice(BROKEN))
        self.entries.sort(key=lambda e: e.at_ms)

    def _message(self, mid: str) -> None:
        random = self._random
        at_ms = random.randrange(self._span_ms // 2)
        # Some were accepted long before they are written: a replayed outbox, a back-fill over the end of a month.
        ago_ms = random.choice((0, 0, 0, 700_000, 3_000_000_000))
        kind = random.random()
        if kind < 0.12:
            self._inbound(mid, at_ms, ago_ms)
            return
        late_ms = random.choice((0, 0, 0, random.randrange(3 * self._window_ms), 4 * self._window_ms))
        if self._orderly:
            kind, late_ms = min(kind, 0.5), 0
        if kind < 0.9:
            self._sends(mid, at_ms + late_ms, ago_ms)
        for _ in range(random.choice((0, 1, 1, 2, 3, 6))):
            self._receipt(mid, at_ms + random.choice((0, 50, 500, self._window_ms, 3 * self._window_ms)), ago_ms)

    def _sends(self, mid: str, at_ms: int, ago_ms: int) -> None:
        random = self._random
        fields = self._fields(mid, at_ms, ago_ms) | {"account_id": "a", "from": "72345", "to": "+14155550100"}
        fields |= random.choice(({}, {"segments": 3}, {"rate": "0.004", "provider": "p0", "mcc": "310"}))
        self._event(at_ms, "sends", mid, fields)
        self._repeat(at_ms, "sends", mid, fields)

    def _inbound(self, mid: str, at_ms: int, ago_ms: int) -> None:
        fields = self._fields(mid, at_ms, ago_ms) | {"account_id": "a", "from": "+14155550100", "to": "72345"}
        self._event(at_ms, "receives", mid, fields)
        self._repeat(at_ms, "receives", mid, fields)

    def _repeat(self, at_ms: int, topic: str, mid: str, fields: dict[str, Any]) -> None:
        """The same again, the same with other content, or another event for a known message."""
        random = self._random
        while random.random() < 0.25:
            again_ms = at_ms + random.choice((1, 300, 2 * self._window_ms, 5 * self._window_ms))
            change = random.choice(({}, {"body": "altered"}, {"event_id": f"c{random.randrange(9)}", "body": "other"}))
            self._event(again_ms, topic, mid, fields | change)

    def _receipt(self, mid: str, at_ms: int, ago_ms: int) -> None:
        random = self._random
        at_ms += random.randrange(400)
        fields = self._fields(mid, at_ms, ago_ms)
        fields["state"] = random.choice(("queued", "sent", "sent", random.choice(FINAL), random.choice(FINAL)))
        more = ("error_code", "provider", "mnc", "carrier_fee", "segment")
        values: dict[str, Any] = {
            "error_code": f"E{random.randrange(3)}", "provider": f"p{random.randrange(3)}", "mnc": "01",
            "carrier_fee": "0.001", "segment": random.randint(1, 3),
        }  # fmt: skip
        fields |= {name: values[name] for name in more if random.random() < 0.2}
        self._event(at_ms, "receipts", mid, fields)
        while random.random() < 0.2:
            altered = {} if self._orderly else {"error_code": "altered", "rate": "0.99"}
            again = fields | random.choice(({}, {}, altered))
            self._event(at_ms + random.choice((1, 400, 4 * self._window_ms)), "receipts", mid, again)

    def _fields(self, mid: str, at_ms: int, ago_ms: int) -> dict[str, Any]:
        self._events += 1
        moment = datetime.fromtimestamp((self._start_ms + at_ms - ago_ms) / 1000, UTC)
        stamp = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return {"event_id": f"e{self._events}", "message_id": mid, "occurred_at": stamp}

    def _event(self, at_ms: int, topic: str, mid: str, fields: dict[str, Any]) -> None:
        self._write(at_ms, topic, mid, json.dumps(fields).encode())

    def _write(self, at_ms: int, topic: str, mid: str, value: bytes | None) -> None:
        key = mid.encode()
        behind_ms = self._behind_ms + self._random.choice((0, 0, 0, self._random.randrange(2_000)))
        self.entries.append(Written(at_ms, topic, partition_of(key, self._shards), key, value, behind_ms))
