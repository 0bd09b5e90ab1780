"""Log entries for tests: events as JSON, with everything a test does not care about filled in."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from schemas import batches, native
from schemas.events import Event, Rejected, decode
from schemas.times import format_rfc3339

NOON_MS: Final = 1_767_614_400_000  # 2026-01-05T12:00:00Z
PREFIX: Final = "mdr."


@dataclass
class LogEntry:
    """One entry of a partition, as a consumer hands it over."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = field(default=())


def event(topic: str, message_id: str = "m1", at_ms: int = NOON_MS, **fields: Any) -> dict[str, Any]:
    """A good event of a topic, with `fields` on top."""
    common = {"event_id": f"{message_id}-1", "message_id": message_id, "occurred_at": format_rfc3339(at_ms)}
    own = {"state": "delivered"} if topic == "receipts" else {"account_id": "a1", "from": "12345", "to": "+4791234567"}
    return common | own | fields


def value(fields: dict[str, Any]) -> bytes:
    """An event's bytes on the wire."""
    return json.dumps(fields, ensure_ascii=False).encode()


def entry(offset: int, broker_ms: int, fields: dict[str, Any]) -> LogEntry:
    """The entry an event makes in its partition, keyed by its message."""
    return LogEntry(offset, broker_ms, str(fields["message_id"]).encode(), value(fields))


def decoded(topic: str, key: bytes | None, raw: bytes | None, clock_ms: int) -> Event | Rejected:
    """What the definition makes of an entry; a batch that holds it, by whichever way, must make the same of it."""
    with by(is_native=False):
        alone = decode(topic, key, raw, clock_ms)
    taken, refused = batches.read(topic, [LogEntry(7, clock_ms, key, raw)], clock_ms, f"{PREFIX}{topic}:0:")
    got = refused[0][0] if refused else batches.as_struct(taken[0][0])
    assert len(taken) + len(refused) == 1
    if isinstance(alone, Rejected):
        assert isinstance(got, Rejected) and _refusal(got) == _refusal(alone), f"{got} in a batch, {alone} alone: {raw!r}"
    else:
        left = msgspec.structs.replace(alone, source=f"{PREFIX}{topic}:0:7", occurred_at="")
        assert _fields(got) == _fields(left), f"{got} in a batch, {left} alone: {raw!r}"
    return alone


@contextmanager
def by(is_native: bool) -> Iterator[None]:
    """Send everything one way for a while."""
    before, native.enabled = native.enabled, is_native
    try:
        yield
    finally:
        native.enabled = before


def _refusal(rejected: Rejected) -> tuple[str, str]:
    """The reason and the field; where bytes are no JSON each reader says in its own words."""
    field, colon, _ = rejected.detail.partition(":")
    return rejected.reason, field if colon and rejected.reason != "invalid_json" else ""


def _fields(event: Any) -> Any:
    # No attributes are told either way.
    return event if isinstance(event, Rejected) else {n: v or None for n, v in msgspec.structs.asdict(event).items()}


def read(topic: str, offset: int = 0, **fields: Any) -> Any:
    """A decoded good event, as the join takes it."""
    known = event(topic, **fields)
    got: Event | Rejected = decode(topic, str(known["message_id"]).encode(), value(known), NOON_MS + 10**12)
    assert not isinstance(got, Rejected), got
    got.source = f"{PREFIX}{topic}:0:{offset}"
    return got
