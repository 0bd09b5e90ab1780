"""Log entries for tests: events as JSON, with everything a test does not care about filled in."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

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
    headers: Sequence[tuple[str, bytes]] = field(default=())


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


def read(topic: str, offset: int = 0, **fields: Any) -> Any:
    """A decoded good event, as the join takes it."""
    known = event(topic, **fields)
    got: Event | Rejected = decode(topic, str(known["message_id"]).encode(), value(known), NOON_MS + 10**12)
    assert not isinstance(got, Rejected), got
    got.source = f"{PREFIX}{topic}:0:{offset}"
    return got
