"""What the pages count, beyond what `/mdr/stats` tells: always within the caller's scope, values as parameters."""

# ruff: noqa: S608  # every statement is made of allow-listed names and placeholders of bound parameters

from typing import Any, Final

from api import query, stats
from api.query import Client, Range, Scope
from api.where import Binder, Condition, condition_sql, range_sql, scope_sql

GROUPS: Final = ("provider", "country", "error_code")
TOP: Final = 8


def totals(client: Client, scope: Scope, span: Range, where: Condition) -> dict[str, Any]:
    """The measures of `/mdr/stats` over everything; `amounts` by currency in nanos, delays in ms."""
    b = Binder()
    sql = (
        f"SELECT {stats.MEASURES}, sumMap(map(currency, {stats.WIDE})) AS amounts"
        f" FROM (SELECT *, amount_nanos AS nanos FROM ({_records(scope, span, where, b)}))"
    )
    row = stats.shaped(query.select(client, sql, b)[0])
    return row | {"amounts": dict(sorted(row["amounts"].items()))}


def volume(
    client: Client, scope: Scope, span: Range, where: Condition, step_ms: int
) -> list[tuple[int, str, str, int]]:
    """Bucket in ms, record type, state and count of the records in a range."""
    b = Binder()
    bucket = f"intDiv(toUnixTimestamp64Milli(occurred_at), {b.bind(step_ms, 'Int64')}) * {b.bind(step_ms, 'Int64')}"
    sql = (
        f"SELECT {bucket} AS bucket, record_type, state, count() AS n FROM ({_records(scope, span, where, b)})"
        " GROUP BY bucket, record_type, state"
    )
    return [(r["bucket"], r["record_type"], r["state"], r["n"]) for r in query.select(client, sql, b)]


def open_volume(client: Client, scope: Scope, span: Range, step_ms: int) -> dict[int, int]:
    """Bucket in ms and count of the messages that are still open."""
    b = Binder()
    bucket = f"intDiv(toUnixTimestamp64Milli(occurred_at), {b.bind(step_ms, 'Int64')}) * {b.bind(step_ms, 'Int64')}"
    inside = f"{scope_sql(scope, b)} AND {range_sql(span, b)}"
    sql = (
        f"SELECT {bucket} AS bucket, count() AS n FROM mdr.open_records FINAL WHERE {inside}"
        f" AND (account_id, occurred_at, message_id) NOT IN (SELECT account_id, occurred_at, message_id FROM mdr.mdrs"
        f" WHERE direction = 'outbound' AND {inside} AND (account_id, occurred_at, message_id) IN ("
        f"SELECT account_id, occurred_at, message_id FROM mdr.open_records WHERE is_deleted = 0 AND {inside}))"
        " GROUP BY bucket"
    )
    return {r["bucket"]: r["n"] for r in query.select(client, sql, b)}


def breakdown(client: Client, scope: Scope, span: Range, where: Condition) -> dict[str, list[dict[str, Any]]]:
    """For each of `GROUPS` its largest values: `value`, `messages`, `outbound`, `delivered`."""
    b = Binder()
    inner = _records(scope, span, where, b)
    told = ", ".join(f"toString({name}) AS `{name}_value`" for name in GROUPS)
    place = " + ".join(f"{n} * (1 - grouping({name}))" for n, name in enumerate(GROUPS))
    sql = (
        f"SELECT {place} AS place, {told}, count() AS messages, countIf(direction = 'outbound') AS outbound,"
        " countIf(direction = 'outbound' AND state = 'delivered') AS delivered"
        f" FROM ({inner}) GROUP BY GROUPING SETS ({', '.join(f'({name})' for name in GROUPS)})"
        " ORDER BY place, messages DESC, provider_value, country_value, error_code_value"
        f" LIMIT {TOP + 1} BY place"
    )
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in GROUPS}
    for row in query.select(client, sql, b):
        name = GROUPS[row["place"]]
        found[name].append({"value": row[f"{name}_value"]} | {k: row[k] for k in ("messages", "outbound", "delivered")})
    return found


def _records(scope: Scope, span: Range, where: Condition, b: Binder) -> str:
    matches = f"{scope_sql(scope, b)} AND {range_sql(span, b)} AND ({condition_sql(where, b)})"
    return f"SELECT * FROM mdr.mdrs FINAL WHERE {matches}"
