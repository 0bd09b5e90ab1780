"""What is shown of numbers and bodies to those who may not see them. Pure."""

from typing import Any, Final

_DOT: Final = "•"
NUMBERS: Final = ("from_number", "to_number", "external_number", "billing_number", "replaced_sender")
TEXTS: Final = ("body", "user_data", "requester_ip", "callback_url")
LISTS: Final = ("media_urls", "group_to")


def number(text: str) -> str:
    """A number with its first digits and its last two; a short code or a name only with its first character."""
    if not text:
        return ""
    shown = 3 if len(text) > 8 else 1
    tail = text[-2:] if len(text) > 8 else ""
    return text[:shown] + _DOT * (len(text) - shown - len(tail)) + tail


def hidden(text: str) -> str:
    """That there is a text, and how long it is."""
    return f"{_DOT * 3} {len(text)} characters" if text else ""


def record(row: dict[str, Any], may_see: bool) -> dict[str, Any]:
    """A record, with what identifies people and what they wrote masked unless it may be seen."""
    if may_see:
        return row
    masked: dict[str, Any] = {name: number(row[name]) for name in NUMBERS}
    masked |= {name: hidden(row[name]) for name in TEXTS}
    masked |= {name: [_DOT * 3] * len(row[name]) for name in LISTS}
    return row | masked | {"attributes": dict.fromkeys(row["attributes"], _DOT * 3)}
