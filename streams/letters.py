"""Dead letters as log entries: the input byte for byte, then headers that say why and whence. Pure."""

from typing import Any, Final

from streams.effects import Entry

_CUT_BYTES: Final = 1 << 20


def entry_letter(topic: str, partition: int, entry: Entry, reason: str, detail: str) -> dict[str, Any]:
    """The key, value and headers of a dead letter."""
    headers = _headers(reason, detail, topic, partition, entry.offset, entry.timestamp)
    return {"key": entry.key, "value": entry.value, "headers": [*entry.headers, *headers]}


def cut_letter(letter: dict[str, Any]) -> dict[str, Any]:
    """A letter the broker takes: input that was compressed far below its size may be more than a topic allows."""
    kept = (letter["value"] or b"")[:_CUT_BYTES]
    told = f"; value cut to {len(kept)} of {len(letter['value'] or b'')} bytes".encode()
    headers = [(name, value + told if name == "detail" else value) for name, value in letter["headers"]]
    return letter | {"value": kept, "headers": headers}


def _headers(
    reason: str, detail: str, topic: str, partition: int, offset: int, timestamp_ms: int
) -> list[tuple[str, bytes]]:
    told = {
        "reason": reason, "detail": detail, "topic": topic, "partition": partition, "offset": offset,
        "timestamp": timestamp_ms,
    }  # fmt: skip
    return [(name, str(value).encode("ascii", "backslashreplace")) for name, value in told.items()]
