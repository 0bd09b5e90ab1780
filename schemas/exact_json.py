"""JSON whose integers are exact however large. Pure.

orjson refuses to write an integer beyond 64 bits and reads one as a float; sums of money go beyond.
"""

from collections.abc import Callable
from typing import Any

import msgspec


def dumps(value: Any, default: Callable[[Any], Any] | None = None) -> bytes:
    """Return a value as compact JSON; `default` makes something of a type that JSON does not know."""
    return msgspec.json.encode(value, enc_hook=default)


def loads(text: bytes | str) -> Any:
    """Return the value of a JSON text; raises `ValueError` when it is none."""
    return msgspec.json.decode(text)
