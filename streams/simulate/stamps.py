"""RFC 3339 in the shapes that producers write it."""

from __future__ import annotations

from datetime import date
from functools import lru_cache

_EPOCH = date(1970, 1, 1).toordinal()
_SECONDS = tuple(f"{second:02d}." for second in range(60))
_MILLIS = tuple(f"{milli:03d}Z" for milli in range(1000))


@lru_cache(maxsize=4096)
def _minute(minutes: int) -> str:
    days, minute = divmod(minutes, 1440)
    return f"{date.fromordinal(_EPOCH + days).isoformat()}T{minute // 60:02d}:{minute % 60:02d}:"


def milli(at_ms: int) -> str:
    """`2026-01-05T12:00:00.123Z`"""
    minutes, rest_ms = divmod(at_ms, 60_000)
    return _minute(minutes) + _SECONDS[rest_ms // 1000] + _MILLIS[rest_ms % 1000]


def micro(at_ms: int) -> str:
    """`2026-01-05T12:00:00.123999+00:00`: the last three digits are cut by whoever reads milliseconds."""
    return milli(at_ms)[:-1] + "999+00:00"


def nano(at_ms: int) -> str:
    """`2026-01-05T12:00:00.123000456z`"""
    return milli(at_ms)[:-1] + "000456z"


def second(at_ms: int) -> str:
    """`2026-01-05T12:00:00Z`, the milliseconds lost."""
    return milli(at_ms)[:-5] + "Z"


def east(at_ms: int) -> str:
    """`2026-01-05T17:30:00.123+05:30`"""
    return milli(at_ms + 19_800_000)[:-1] + "+05:30"
