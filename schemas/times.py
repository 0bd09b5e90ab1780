"""Instants: RFC 3339 text to milliseconds since the epoch (UTC) and back. Pure."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

MILLENNIUM_MS: Final = 946_684_800_000  # 2000-01-01T00:00:00Z
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MINUTE: Final = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt]([0-9]{2}:[0-9]{2}):")
_TAIL: Final = re.compile(r"([0-5][0-9])(?:\.([0-9]+))?(?:[Zz]|([+-])([01][0-9]|2[0-3]):([0-5][0-9]))")

# An instant is a minute (`2026-01-31T09:15:`) and a tail (`04.250Z`): traffic repeats both, so each is worked out once.
_CACHE_MAX: Final = 100_000
_minutes: dict[str, int] = {}
_tails: dict[str, int] = {}


def parse_rfc3339(text: str) -> int | None:
    """Milliseconds since the epoch, cut (not rounded); None unless it is RFC 3339 with an offset.

    Leap seconds (`:60`) have no millisecond of their own in Unix time and are refused.
    """
    minute = _minutes.get(text[:17])
    if minute is None:
        minute = _parse_minute(text[:17])
        if minute is None:
            return None
    tail = _tails.get(text[17:])
    if tail is None:
        tail = _parse_tail(text[17:])
        if tail is None:
            return None
    return minute + tail


def format_rfc3339(ms: int) -> str:
    """`2026-01-31T09:15:04.250Z` of milliseconds since the epoch."""
    moment = _EPOCH + timedelta(milliseconds=ms)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def _parse_minute(text: str) -> int | None:
    match = _MINUTE.fullmatch(text)
    if match is None:
        return None
    try:
        moment = datetime.fromisoformat(f"{match[1]}T{match[2]}:00+00:00")
    except ValueError:
        return None
    return _remember(_minutes, text, (moment - _EPOCH) // timedelta(milliseconds=1))


def _parse_tail(text: str) -> int | None:
    if text[6:-1].isdecimal() and text.isascii():
        # Finer than a millisecond, and hardly ever twice the same: what is cut off says nothing.
        coarse = _tails.get(text[:6] + text[-1])
        if coarse is not None:
            return coarse
    match = _TAIL.fullmatch(text)
    if match is None:
        return None
    fraction = match[2] or ""
    ms = int(match[1]) * 1000 + int(fraction[:3].ljust(3, "0"))
    if match[3]:
        offset_ms = (int(match[4]) * 60 + int(match[5])) * 60_000
        ms += -offset_ms if match[3] == "+" else offset_ms
    return _remember(_tails, text if len(fraction) <= 3 else text[:6] + text[3 + len(fraction) :], ms)


def _remember(cache: dict[str, int], text: str, ms: int) -> int:
    if len(cache) >= _CACHE_MAX:
        cache.clear()
    cache[text] = ms
    return ms
