"""A condition decided in Python, apart from the SQL that the product makes of it: what tests compare answers with."""

import hashlib
import operator
from collections.abc import Callable, Sequence
from typing import Any, Final

from api.where import ATTRIBUTES, TIMES, Condition, Every, Op, Some, Value
from schemas.times import format_rfc3339


def holds(condition: Condition, row: dict[str, Any]) -> bool:
    """Whether a record as the API shows it fulfils a condition."""
    if isinstance(condition, Every):
        return all(holds(part, row) for part in condition.parts)
    if isinstance(condition, Some):
        return any(holds(part, row) for part in condition.parts)
    name, op, value = condition.column, condition.op, condition.value
    assert isinstance(name, str)
    held = row["attributes"].get(name.removeprefix(ATTRIBUTES), "") if name.startswith(ATTRIBUTES) else row[name]
    if name in TIMES:
        value = [format_rfc3339(int(v)) for v in _listed(value)] if op == "in" else format_rfc3339(int(value))  # type: ignore[arg-type]
    return held is not None and bool(_DECISIONS[op](held, value))


def like(held: str, pattern: str) -> bool:
    """Whether a text is like a pattern: `%` any characters, `_` one, a backslash takes the next one literally."""
    signs: list[tuple[str, bool]] = []
    rest = iter(pattern)
    for sign in rest:
        signs.append((next(rest), False) if sign == "\\" else (sign, sign in "%_"))
    # Which beginnings of the pattern match what was read so far.
    states = _skip({0}, signs)
    for letter in held:
        read = {at for at in states if at < len(signs)}
        stay = {at for at in read if signs[at] == ("%", True)}
        on = {at + 1 for at in read - stay if signs[at] in (("_", True), (letter, False))}
        states = _skip(stay | on, signs)
    return len(signs) in states


def _skip(states: set[int], signs: list[tuple[str, bool]]) -> set[int]:
    """Any characters may be none."""
    found = set(states)
    for at in sorted(found):
        while at < len(signs) and signs[at] == ("%", True):
            at += 1
            found.add(at)
    return found


def _listed(value: Value) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else [value]


_DECISIONS: Final[dict[Op, Callable[[Any, Any], bool]]] = {
    "eq": operator.eq, "ne": operator.ne, "gt": operator.gt, "ge": operator.ge, "lt": operator.lt, "le": operator.le,
    "like": like, "contains": lambda held, value: value in held,
    "starts_with": lambda held, value: held.startswith(value),
    "ends_with": lambda held, value: held.endswith(value), "in": lambda held, value: held in value,
    "has_any": lambda held, value: not set(held).isdisjoint(value),
    "md5": lambda held, value: hashlib.md5(held.encode(), usedforsecurity=False).hexdigest() == value,
}  # fmt: skip
