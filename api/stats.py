"""Statistics over records in a range, exact, by any of a few groups."""

# ruff: noqa: S608  # every statement is made of allow-listed names and placeholders of bound parameters

from typing import Any, Final

from api import query
from api.query import Client, Range, Scope
from api.where import Binder, Condition, condition_sql, range_sql, scope_sql
from schemas.money import format_nanos

ROWS_MAX: Final = 10_000

# The name asked for, and what it is grouped by: result name to expression.
GROUPS: Final[dict[str, dict[str, str]]] = {
    "hour": {"hour": "toStartOfHour(occurred_at)"},
    "day": {"day": "toString(toDate(occurred_at, 'UTC'))"},
    "account": {"account_id": "account_id"},
    "direction": {"direction": "direction"},
    "provider": {"provider": "provider"},
    "mcc-mnc": {"mcc": "mcc", "mnc": "mnc"},
    "country": {"country": "country"},
    "error": {"error_code": "error_code"},
}

_OUT: Final = "direction = 'outbound'"
_DELIVERED: Final = "direction = 'outbound' AND state = 'delivered'"
MEASURES: Final = f"""
    count() AS messages, countIf(direction = 'inbound') AS inbound, countIf({_OUT}) AS outbound,
    countIf(record_type = 'complete') AS complete, countIf(record_type = 'error') AS error,
    countIf(record_type = 'incomplete') AS incomplete,
    countIf(record_type = 'complete' AND segments_failed > 0) AS partial,
    countIf({_DELIVERED}) AS delivered, sum(toUInt64(segments)) AS segments,
    if(outbound = 0, NULL, delivered / outbound) AS delivery_rate,
    if(outbound = 0, NULL, countIf({_OUT} AND record_type = 'incomplete') / outbound) AS unconfirmed_share,
    quantilesExactIf(0.5, 0.9, 0.99)(
        greatest(0, dateDiff('millisecond', occurred_at, ifNull(final_at, occurred_at))), {_DELIVERED}
    ) AS delays"""
# Beyond 64 bits, so never over more than one currency. The embedded build converts to Int128 in this way alone; no
# amount is below zero.
WIDE: Final = "reinterpretAsInt128(nanos)"


def rows(client: Client, scope: Scope, span: Range, where: Condition, by: tuple[str, ...]) -> list[dict[str, Any]]:
    """One row a group, and always one a currency, since amounts of different ones cannot be added; delays in ms."""
    columns = {name: sql for group in by for name, sql in GROUPS[group].items()} | {"currency": "currency"}
    b = Binder()
    # Inside, so that the names of groups never hide columns that the filters mean.
    matches = f"{scope_sql(scope, b)} AND {range_sql(span, b)} AND ({condition_sql(where, b)})"
    inner = f"SELECT *, amount_nanos AS nanos FROM mdr.mdrs FINAL WHERE {matches}"
    groups = ", ".join(f"{sql} AS `{name}`" if sql != name else sql for name, sql in columns.items())
    names = ", ".join(f"`{name}`" for name in columns)
    sql = (
        f"SELECT {groups}, {MEASURES}, sum({WIDE}) AS amount_nanos FROM ({inner})"
        f" GROUP BY {names} ORDER BY {names} LIMIT {ROWS_MAX + 1}"
    )
    found = [shaped(row) for row in query.select(client, sql, b)]
    return [row | {"amount": format_nanos(row["amount_nanos"]) or "0"} for row in found]


def shaped(row: dict[str, Any]) -> dict[str, Any]:
    """A row of `MEASURES` with its delays named; they are None where nothing was delivered."""
    delays = row.pop("delays")
    told = delays if row["delivered"] else [None] * 3
    return row | dict(zip(("delivery_ms_p50", "delivery_ms_p90", "delivery_ms_p99"), told, strict=True))
