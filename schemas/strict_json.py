"""One JSON object from bytes, or the reason why there is none: RFC 8259 to the letter, in linear time. Pure.

Of a value over a KiB the compiled part leaves only what fields may hold, without Python's lock: what nobody reads, or
is refused whatever it holds, costs a hundred times more here.
"""

import json
import math
import re
from typing import Any, Final, NamedTuple, NoReturn

from schemas import native

VALUE_BYTES_MAX: Final = 1 << 20
DEPTH_MAX: Final = 64
_TRIMMED_BYTES: Final = 1 << 10

# An unterminated string reaches to the end, and nothing is tried twice: the time is linear whatever the bytes.
_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\Z)', re.DOTALL)
# A pair, else a surrogate alone (captured), else any other escape.
_SURROGATE: Final = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\.", re.DOTALL
)


class Rejected(NamedTuple):
    """Why an input cannot be used: one of `REASONS`, and a detail that starts with the field's name if there is one."""

    reason: str
    detail: str


def read_object(value: bytes | None, names: tuple[str, ...]) -> dict[str, Any] | Rejected:
    """The object, of duplicate keys the last; numbers that no field could hold are infinite.

    At least the fields in `names` are in it. Of them a string over 64 KiB may be cut just above that, and a list or map
    of more than 64 entries may lack some of the others.
    """
    if not value:
        return Rejected("empty_value", "")
    if len(value) > VALUE_BYTES_MAX:
        return Rejected("too_large", f"{len(value)} bytes, more than {VALUE_BYTES_MAX}")
    if native.enabled and len(value) > _TRIMMED_BYTES:
        trimmed = native.module.trim(value, names)
        return Rejected(*trimmed) if isinstance(trimmed, tuple) else _parse(trimmed.decode())
    return _read(value)


def _read(value: bytes) -> dict[str, Any] | Rejected:
    try:
        text = value.decode()
    except UnicodeDecodeError as e:
        return Rejected("invalid_utf8", f"byte {e.start}")
    if _depth(text) > DEPTH_MAX:
        return Rejected("invalid_json", f"nested deeper than {DEPTH_MAX}")
    try:
        parsed = _parse(text)
    except ValueError as e:
        return Rejected("invalid_json", _json_detail(e))
    if "\\u" in text and any(escape[1] for escape in _SURROGATE.finditer(text)):
        return Rejected("invalid_json", "a lone surrogate")
    return parsed if isinstance(parsed, dict) else Rejected("not_an_object", "")


def _parse(text: str) -> Any:
    return json.loads(text, parse_constant=_refuse, parse_int=_parse_int)


def _json_detail(error: ValueError) -> str:
    return f"{error.msg}: character {error.pos}" if isinstance(error, json.JSONDecodeError) else str(error)


def _depth(text: str) -> int:
    if text.count("{") + text.count("[") <= DEPTH_MAX:
        return 0
    depth = deepest = 0
    for bracket in re.finditer(r"[\[\]{}]", _STRING.sub("", text)):
        depth += 1 if bracket[0] in "[{" else -1
        if depth > deepest:
            deepest = depth
            if deepest > DEPTH_MAX:
                break
    return deepest


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _parse_int(digits: str) -> int | float:
    # No field holds such a number; as a float it is refused where an integer belongs and ignored elsewhere.
    return int(digits) if len(digits) < 20 else math.inf
