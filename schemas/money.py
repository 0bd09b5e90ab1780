"""Money: decimal strings to integer billionths (nanos) and back, exact or refused. Pure."""

import re
from typing import Final

_DECIMAL: Final = re.compile(r"([0-9]{1,7})(?:\.([0-9]{1,18}))?")
_CACHE_MAX: Final = 10_000
_nanos: dict[str, int] = {"": 0}


def parse_nanos(text: str) -> int | None:
    """Integer nanos of a decimal string such as `0.0075`; `""` is 0.

    None when it is no such string, or when it has non-zero digits after the ninth decimal: money is never rounded.
    """
    known = _nanos.get(text)
    if known is not None:
        return known
    match = _DECIMAL.fullmatch(text)
    if match is None:
        return None
    fraction = (match[2] or "").ljust(9, "0")
    if fraction[9:].strip("0"):
        return None
    if len(_nanos) >= _CACHE_MAX:
        _nanos.clear()
        _nanos[""] = 0
    _nanos[text] = nanos = int(match[1]) * 1_000_000_000 + int(fraction[:9])
    return nanos


def format_nanos(nanos: int) -> str:
    """The decimal string of nanos without trailing zeros; 0 is `""`, as an absent field."""
    if not nanos:
        return ""
    whole, fraction = divmod(nanos, 1_000_000_000)
    return f"{whole}.{fraction:09d}".rstrip("0").rstrip(".")
