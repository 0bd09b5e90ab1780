"""Open messages as records: the facts as they are stored, folded by the same code that will settle them.

The fold itself is given by who runs the API. The view `pending` says the same in SQL, in fifty times the time.
"""

# ruff: noqa: S608  # every statement is made of allow-listed names and placeholders of bound parameters

from collections.abc import Callable, Sequence
from typing import Any, Final

from api.where import TIMES, Binder, Condition, Scope, holds, scope_sql
from schemas.record import COLUMNS, PRIVATE
from schemas.times import format_rfc3339

Fold = Callable[[bytes], Sequence[Any]]
"""From the `facts` of an open message to its row in column order; instants in ms."""
Select = Callable[[str, Binder], list[dict[str, Any]]]

SOURCE: Final = (
    "(SELECT account_id, occurred_at, message_id, 'outbound' AS direction, facts FROM mdr.open_messages FINAL"
    " WHERE part = '')"
)
_PLAIN: Final = tuple(
    (n, c.name, c.name in TIMES)
    for n, c in enumerate(COLUMNS)
    if c.name not in PRIVATE and not c.name.startswith("timeline.")
)
_STEPS: Final = tuple(
    (n, c.name.removeprefix("timeline.")) for n, c in enumerate(COLUMNS) if c.name.startswith("timeline.")
)
_AT: Final = [name for _, name in _STEPS].index("occurred_at")


def shown(row: Sequence[Any]) -> dict[str, Any]:
    """A row of an open message as the API shows a record."""
    told = {name: _told(row[n], is_time) for n, name, is_time in _PLAIN}
    steps = zip(*(row[n] for n, _ in _STEPS), strict=True)
    told["timeline"] = [
        {
            name: format_rfc3339(v) if at == _AT else v
            for at, ((_, name), v) in enumerate(zip(_STEPS, step, strict=True))
        }
        for step in steps
    ]
    return told | {"record_type": "pending"}


def _told(value: Any, is_time: bool) -> Any:
    if is_time:
        return None if value is None else format_rfc3339(value)
    return list(value) if isinstance(value, tuple) else value


def fresh(select: Select, scope: Scope, where: Condition, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of folded rows those that fulfil a condition and are no records yet."""
    kept = [row for row in rows if holds(where, row)]
    if not kept:
        return []
    b = Binder()
    at = [row["occurred_at"] for row in kept]
    sql = (
        "SELECT account_id, message_id, occurred_at FROM mdr.mdrs"
        f" WHERE {scope_sql(scope, b)} AND direction = 'outbound'"
        f" AND occurred_at >= parseDateTime64BestEffort({b.bind(min(at), 'String')}, 3, 'UTC')"
        f" AND occurred_at <= parseDateTime64BestEffort({b.bind(max(at), 'String')}, 3, 'UTC')"
        f" AND message_id IN {b.bind([row['message_id'] for row in kept], 'Array(String)')}"
    )
    settled = {(row["account_id"], row["message_id"], row["occurred_at"]) for row in select(sql, b)}
    return [row for row in kept if (row["account_id"], row["message_id"], row["occurred_at"]) not in settled]
