"""A record's place among others, and the opaque text that names it. Pure."""

import base64
import binascii
from typing import Any, NamedTuple

import orjson

from schemas.times import parse_rfc3339


class BadCursor(ValueError):
    """The text is no cursor of ours."""


class Key(NamedTuple):
    """A record's place among others."""

    occurred_ms: int
    message_id: str
    direction: str
    account_id: str


def key_of(row: dict[str, Any]) -> Key:
    """The key of a record."""
    at_ms = parse_rfc3339(row["occurred_at"])
    assert at_ms is not None
    return Key(at_ms, row["message_id"], row["direction"], row["account_id"])


def encode_cursor(key: Key) -> str:
    """The opaque text of a place among records."""
    return base64.urlsafe_b64encode(orjson.dumps(list(key))).decode().rstrip("=")


def decode_cursor(text: str) -> Key:
    """The place a cursor names; it grants nothing. Raises `BadCursor`."""
    try:
        at_ms, *words = orjson.loads(base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True))
    except (ValueError, TypeError, binascii.Error):
        raise BadCursor from None
    if type(at_ms) is not int or len(words) != 3 or not all(isinstance(w, str) for w in words):
        raise BadCursor
    if abs(at_ms) > 1 << 47:
        raise BadCursor
    return Key(at_ms, *words)
