"""Figures and instants as people read them. Pure."""

from typing import Any, Final

from schemas.money import format_nanos
from schemas.times import parse_rfc3339

UNKNOWN: Final = "–"
_SECOND: Final = 1_000
_MINUTE: Final = 60 * _SECOND
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR
_COMPACT: Final = ((1e9, "G"), (1e6, "M"), (1e4, "k"))


def ms_of(at: str | None) -> int | None:
    """Milliseconds since the epoch of an instant as the API tells it; None for none and for 1970."""
    return (parse_rfc3339(at) or None) if at else None


def whole(n: float | None) -> str:
    """`12,345`; a dash for what is not known."""
    return UNKNOWN if n is None else f"{round(n):,}"


def compact(n: float | None) -> str:
    """`12,345` as `12.3k`, for axes and tight places."""
    if n is None:
        return UNKNOWN
    for size, sign in _COMPACT:
        if abs(n) >= size:
            unit = 1e3 if sign == "k" else size
            return f"{n / unit:.1f}".removesuffix(".0") + sign
    return f"{n:,.0f}" if abs(n) >= 10 or float(n).is_integer() else f"{n:.1f}"


def rate(n: float | None) -> str:
    """A rate a second."""
    if n is None:
        return UNKNOWN
    return (
        "0" if n == 0 else f"{n:.2f}" if abs(n) < 1 else f"{n:.1f}".removesuffix(".0") if abs(n) < 100 else compact(n)
    )


def share(part: float | None, of: float | None = 1) -> str:
    """`97.3 %`; all and nothing are said only when they are exactly so."""
    if part is None or not of:
        return UNKNOWN
    percent = 100 * part / of
    if 0 < percent < 0.1:
        return "< 0.1 %"
    if 99.9 < percent < 100:
        return "> 99.9 %"
    return f"{percent:.1f}".removesuffix(".0") + " %"


def duration(ms: float | None) -> str:
    """`340 ms`, `2.4 s`, `3 min 20 s`, `4 h 2 min`, `2 d 3 h`."""
    if ms is None:
        return UNKNOWN
    sign, ms = ("-" if ms < 0 else ""), abs(round(ms))
    if ms < _SECOND:
        return f"{sign}{ms} ms"
    if ms < _MINUTE:
        return f"{sign}{ms / _SECOND:.1f}".removesuffix(".0") + " s"
    for size, big, small_size, small in ((_DAY, "d", _HOUR, "h"), (_HOUR, "h", _MINUTE, "min")):
        if ms >= size:
            rest = ms % size // small_size
            return f"{sign}{ms // size} {big}" + (f" {rest} {small}" if rest else "")
    rest = ms % _MINUTE // _SECOND
    return f"{sign}{ms // _MINUTE} min" + (f" {rest} s" if rest else "")


def ago(at: str | None, now_ms: int) -> str:
    """`3 s ago`, in whole units."""
    ms = ms_of(at)
    if ms is None:
        return UNKNOWN
    gap = now_ms - ms
    if gap < -_SECOND:
        return f"in {duration(-gap // _SECOND * _SECOND)}"
    return f"{duration(gap // _SECOND * _SECOND)} ago" if gap >= _SECOND else "now"


def clock(at: str | None) -> str:
    """`14:02:11`, UTC."""
    return UNKNOWN if ms_of(at) is None or at is None else at[11:19]


def day(at: str | None) -> str:
    """`2026-01-05`, UTC."""
    return UNKNOWN if ms_of(at) is None or at is None else at[:10]


def day_clock(at: str | None) -> str:
    """`2026-01-05 14:02:11`, UTC."""
    return UNKNOWN if ms_of(at) is None or at is None else f"{at[:10]} {at[11:19]}"


def exact(at: str | None) -> str:
    """`2026-01-05 14:02:11.250`, UTC."""
    return UNKNOWN if ms_of(at) is None or at is None else f"{at[:10]} {at[11:23]}"


def money(nanos: int | None) -> str:
    """The decimal of an amount in nanos."""
    return UNKNOWN if nanos is None else format_nanos(nanos) or "0"


def plural(n: int, one: str, many: str = "") -> str:
    """`1 message`, `2 messages`."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def sentence(text: str) -> str:
    """What an error or a reason says, as a sentence; names keep their first letter."""
    first = text.split(" ", 1)[0]
    head = text[:1].upper() + text[1:] if first.isalpha() else text
    return head if head.endswith((".", "!", "?")) or not head else f"{head}."


FILTERS: Final[dict[str, Any]] = {
    "whole": whole, "compact": compact, "rate": rate, "share": share, "duration": duration, "ago": ago, "clock": clock,
    "day": day,
    "day_clock": day_clock, "exact": exact, "money": money, "plural": plural, "sentence": sentence,
}  # fmt: skip
