"""What is asked of records, as SQL with bound parameters. Pure.

A condition is a tree of tests on columns. Values only ever travel as parameters (`{p0:String}`); columns come from the
record's own list, so nothing a caller wrote becomes SQL text. Conditions are decided by ClickHouse alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from schemas.record import PUBLIC

Op = Literal[
    "eq", "ne", "gt", "ge", "lt", "le", "like", "contains", "starts_with", "ends_with", "in", "has_any", "md5",
    "is_null", "is_not_null",
]  # fmt: skip
Value = str | int | Sequence[str] | Sequence[int]
Kind = Literal["String", "Int64", "Time"]

TYPES: Final = {c.name: c.type for c in PUBLIC}
SCALARS: Final = tuple(c.name for c in PUBLIC if not c.type.startswith(("Array", "Map")))
TIMES: Final = frozenset(name for name in SCALARS if "DateTime64" in TYPES[name])
NUMBERS: Final = frozenset(name for name in SCALARS if "Int" in TYPES[name])
ATTRIBUTES: Final = "attributes."

_TEMPLATES: Final[dict[Op, str]] = {
    "eq": "{c} = {p}",
    "ne": "{c} != {p}",
    "gt": "{c} > {p}",
    "ge": "{c} >= {p}",
    "lt": "{c} < {p}",
    "le": "{c} <= {p}",
    "like": "{c} LIKE {p}",
    "contains": "position({c}, {p}) > 0",
    "starts_with": "startsWith({c}, {p})",
    "ends_with": "endsWith({c}, {p})",
    "in": "{c} IN {p}",
    "has_any": "hasAny({c}, {p})",
    "md5": "lower(hex(MD5({c}))) = {p}",
    "is_null": "{c} IS NULL",
    "is_not_null": "{c} IS NOT NULL",
}
LIKE_MAX: Final = 256


class Sql(NamedTuple):
    """A value worked out from a record's columns, written in the code; `kind` is what it is compared with."""

    text: str
    kind: Kind = "String"


class Sort(NamedTuple):
    """A column or value to sort by."""

    by: str | Sql
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Is:
    """One test of a column or value; `attributes.KEY` names an entry of the map. Times are compared in ms."""

    column: str | Sql
    op: Op
    value: Value = ""


@dataclass(frozen=True, slots=True)
class Every:
    """All of the parts hold; none at all is true."""

    parts: "tuple[Condition, ...]" = ()


@dataclass(frozen=True, slots=True)
class Some:
    """At least one of the parts holds; none at all is false."""

    parts: "tuple[Condition, ...]" = ()


Condition = Is | Every | Some
EVERYTHING: Final = Every()


class Scope(NamedTuple):
    """The accounts a caller may see; None is every account, and only the operator has it."""

    accounts: tuple[str, ...] | None


class Range(NamedTuple):
    """Instants of `occurred_at` in ms: from `start_ms`, before `end_ms`."""

    start_ms: int
    end_ms: int


class Binder:
    """Collects the parameters of one statement; each `bind` returns the placeholder of a value."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def bind(self, value: Any, type_: str) -> str:
        """The placeholder `{pN:Type}` of a value."""
        name = f"p{len(self.values)}"
        self.values[name] = value
        return f"{{{name}:{type_}}}"

    def instant(self, ms: int) -> str:
        """The expression of an instant given in ms."""
        return f"fromUnixTimestamp64Milli({self.bind(ms, 'Int64')}, 'UTC')"


def condition_sql(condition: Condition, binder: Binder) -> str:
    """The SQL of a condition; raises KeyError for a column that no record has."""
    match condition:
        case Is():
            return _test_sql(condition, binder)
        case Every(parts):
            return " AND ".join(f"({condition_sql(p, binder)})" for p in parts) or "1"
        case Some(parts):
            return " OR ".join(f"({condition_sql(p, binder)})" for p in parts) or "0"


def order_sql(by: str | Sql) -> str:
    """The SQL of what is sorted by."""
    return by.text if isinstance(by, Sql) else f"`{by}`"


def pattern(text: str) -> str | None:
    """A pattern as `LIKE` of ClickHouse reads it, None when it ends within an escape.

    `%` is any characters, `_` one, and a backslash takes the next one literally. Neighbouring `%` are one.
    """
    parts: list[str] = []
    rest = iter(text)
    for sign in rest:
        if sign == "\\":
            sign = next(rest, "")
            if not sign:
                return None
            parts.append(f"\\{sign}" if sign in "%_\\" else sign)
        elif sign != "%" or parts[-1:] != ["%"]:
            parts.append(sign)
    return "".join(parts)


def dump(condition: Condition) -> list[Any]:
    """A condition as JSON can hold it; `load` makes it again."""
    if isinstance(condition, Is):
        return ["is", condition.column, condition.op, condition.value]
    return ["every" if isinstance(condition, Every) else "some", *map(dump, condition.parts)]


def tests_in(condition: Condition) -> int:
    """How many tests of a column a condition has."""
    return 1 if isinstance(condition, Is) else sum(map(tests_in, condition.parts))


def load(value: list[Any]) -> Condition:
    """The condition that `dump` wrote."""
    kind, *rest = value
    if kind == "is":
        return Is(*rest)
    return (Every if kind == "every" else Some)(tuple(map(load, rest)))


def scope_sql(scope: Scope, binder: Binder) -> str:
    """The tenancy predicate: the only place where what a caller may see becomes SQL."""
    if scope.accounts is None:
        return "1"
    if len(scope.accounts) == 1:
        return f"account_id = {binder.bind(scope.accounts[0], 'String')}"
    return f"account_id IN {binder.bind(list(scope.accounts), 'Array(String)')}"


def range_sql(span: Range, binder: Binder) -> str:
    """The predicate of a range of `occurred_at`."""
    return f"occurred_at >= {binder.instant(span.start_ms)} AND occurred_at < {binder.instant(span.end_ms)}"


def _test_sql(test: Is, binder: Binder) -> str:
    column, kind = _column(test.column, binder)
    return _TEMPLATES[test.op].replace("{c}", column).replace("{p}", _bound(test, kind, binder))


def _column(name: str | Sql, binder: Binder) -> tuple[str, Kind]:
    if isinstance(name, Sql):
        return f"({name.text})", name.kind
    if name.startswith(ATTRIBUTES):
        return f"attributes[{binder.bind(name.removeprefix(ATTRIBUTES), 'String')}]", "String"
    TYPES[name]  # an unknown name ends here
    return f"`{name}`", "Time" if name in TIMES else "Int64" if name in NUMBERS else "String"


def _listed(value: Value) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else [value]


def _bound(test: Is, kind: Kind, binder: Binder) -> str:
    if test.op in ("is_null", "is_not_null"):
        return ""
    many = test.op in ("in", "has_any")
    if kind == "Time":
        values: Sequence[str | int] = test.value if isinstance(test.value, list | tuple) else [test.value]  # type: ignore[list-item]  # a scalar
        placed = [binder.instant(int(v)) for v in values]
        return f"({', '.join(placed)})" if many else placed[0]
    return binder.bind(list(_listed(test.value)), f"Array({kind})") if many else binder.bind(test.value, kind)
