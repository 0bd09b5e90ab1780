"""Instants: RFC 3339 text to milliseconds since the epoch (UTC) and back. Pure."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

MILLENNIUM_MS: Final = 946_684_800_000  # 2000-01-01T00:00:00Z
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_MS: Final = -62_135_596_800_000  # 0001-01-01T00:00:00Z
_LAST_MS: Final = 253_402_300_799_999  # 9999-12-31T23:59:59.999Z
_MINUTE: Final = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt]([0-9]{2}:[0-9]{2}):")
_TAIL: Final = re.compile(r"([0-5][0-9])(?:\.([0-9]+))?(?:[Zz]|([+-])([01][0-9]|2[0-3]):([0-5][0-9]))")

# An instant is a minute (`2026-01-31T09:15:`), which traffic repeats, and a tail, mostly `04.250Z`.
_CACHE_MAX: Final = 100_000
_minutes: dict[str, int] = {}
_tails: dict[str, int] = {}
_SECONDS: Final = {f"{s:02d}.": s * 1000 for s in range(60)}
_MILLIS: Final = {f"{ms:03d}": ms for ms in range(1000)}


def parse_rfc3339(text: str) -> int | None:
    """Milliseconds since the epoch, cut (not rounded); None unless it is RFC 3339 with an offset.

    Leap seconds (`:60`) have no millisecond of their own in Unix time and are refused.
    """
    minute = _minutes.get(text[:17])
    if minute is None:
        minute = _parse_minute(text[:17])
        if minute is None:
            return None
    seconds, millis = _SECONDS.get(text[17:20]), _MILLIS.get(text[20:23])
    if seconds is not None and millis is not None and (text[23:] == "Z" or _is_finer(text[23:])):
        return minute + seconds + millis
    tail = _tails.get(text[17:])
    if tail is None:
        tail = _parse_tail(text[17:])
        if tail is None:
            return None
    return minute + tail


def _is_finer(end: str) -> bool:
    """Whether it is decimals beyond the milliseconds, and `Z`."""
    return end[-1:] == "Z" and end[:-1].isdecimal() and end.isascii()


def format_rfc3339(ms: int) -> str:
    """`2026-01-31T09:15:04.250Z` of milliseconds since the epoch; the nearest there is of those without a year."""
    moment = _EPOCH + timedelta(milliseconds=max(_FIRST_MS, min(ms, _LAST_MS)))
    return moment.strftime("%Y-%m-%dT%H:%M:%S.").zfill(20) + f"{moment.microsecond // 1000:03d}Z"


def delay_ms(start_ms: int, end_ms: int) -> int:
    """Return the time from one instant to another, never below 0: carriers that tell minutes stamp before the send."""
    return max(0, end_ms - start_ms)


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
    match = _TAIL.fullmatch(text)
    if match is None:
        return None
    fraction = match[2] or ""
    ms = int(match[1]) * 1000 + int(fraction[:3].ljust(3, "0"))
    if match[3]:
        offset_ms = (int(match[4]) * 60 + int(match[5])) * 60_000
        ms += -offset_ms if match[3] == "+" else offset_ms
    # Finer fractions hardly repeat: keeping them would only push the others out.
    return ms if len(fraction) > 3 else _remember(_tails, text, ms)


def _remember(cache: dict[str, int], text: str, ms: int) -> int:
    if len(cache) >= _CACHE_MAX:
        cache.clear()
    cache[text] = ms
    return ms
