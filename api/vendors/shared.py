"""What several vendors' views have in common: instants, numbers, money."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from api.where import Every, Is, Some

_MOMENT: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[T ]([0-9]{2}:[0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,9}))?)?(?: ?(Z|z|[+ -][0-9]{2}:?[0-9]{2}))?)?"
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)
_NANOS: Final = 1_000_000_000


class Moment(NamedTuple):
    """An instant in ms, and how long the shortest instant its text can tell is."""

    ms: int
    precision_ms: int


def moment(text: str, zone: str = "UTC") -> Moment | None:
    """`YYYY-MM-DD`, with `T` or a blank a time to the minute, second or finer, with or without an offset.

    Without an offset it is a time of the zone. A `+` that a URL turned into a blank is one. None for any other text.
    """
    match = _MOMENT.fullmatch(text)
    if match is None:
        return None
    day, minute, second, fraction, offset = match.groups()
    clock = f"{minute or '00:00'}:{second or '00'}.{(fraction or '').ljust(6, '0')[:6]}"
    shift = "+00:00" if offset in ("Z", "z") else (offset or "").replace(" ", "+")
    try:
        at = datetime.fromisoformat(f"{day}T{clock}{shift}")
        at = (at if at.tzinfo else at.replace(tzinfo=ZoneInfo(zone))).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    precision_ms = 86_400_000 if minute is None else 60_000 if second is None else 1_000 if not fraction else 1
    return Moment((at - _EPOCH) // _MS, precision_ms)


def as_datetime(stamp: str) -> datetime:
    """A record's `...123Z` as a datetime in UTC."""
    return datetime.fromisoformat(stamp)


def ms_of(stamp: str) -> int:
    """A record's `...123Z` in ms."""
    return (as_datetime(stamp) - _EPOCH) // _MS


def bare(number: str) -> str:
    """A number without its `+`; a sender's name stays as it is."""
    return number[1:] if number.startswith("+") and number[1:].isascii() and number[1:].isdigit() else number


def number_filter(column: str, text: str) -> Is | Some:
    """A filter on a number that comes with its `+`, without it, or with a blank where a URL lost it.

    With a `*` at its end it is how the number begins.
    """
    digits = text[1:] if text[:1] in ("+", " ") else text
    begin = digits.removesuffix("*")
    if not (begin.isascii() and begin.isdigit()):
        return Is(column, "eq", text)
    if digits.endswith("*"):
        return Some((Is(column, "starts_with", begin), Is(column, "starts_with", f"+{begin}")))
    return Is(column, "in", [f"+{digits}", digits])


def number_like(column: str, op: str, text: str) -> Is | Some:
    """`contains`, `starts_with` or `ends_with` of a number; a beginning may leave out the `+`."""
    text = f"+{text[1:]}" if re.match(r" [0-9]", text) else text
    if op == "starts_with" and text[:1].isdigit():
        return Some((Is(column, "starts_with", text), Is(column, "starts_with", f"+{text}")))
    return Is(column, op, text)  # type: ignore[arg-type]  # checked by who parsed it


def money(nanos: int, decimals: int) -> str:
    """Nanos as a decimal string with at least so many decimals, and as many as it takes: money is never rounded."""
    whole, rest = divmod(abs(nanos), _NANOS)
    fraction = f"{rest:09d}".rstrip("0").ljust(decimals, "0")
    sign = "-" if nanos < 0 else ""
    return f"{sign}{whole}.{fraction}" if fraction else f"{sign}{whole}"


def all_of(*parts: Is | Some | Every | None) -> Every:
    """Every part that is there."""
    return Every(tuple(part for part in parts if part is not None))
