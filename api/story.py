"""One message's story: its events with their gaps, what settled it, and what else the store knows of its id."""

# ruff: noqa: S608  # every statement is made of allow-listed names and placeholders of bound parameters

from typing import Any, Final

from api import query
from api.query import Client, Scope
from api.where import Binder, scope_sql
from schemas.times import parse_rfc3339

ROWS_MAX: Final = 320


def events_of(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The merged events by time, each with the gaps to the one before and to the first, and whether it won."""
    at = [parse_rfc3339(event["occurred_at"]) or 0 for event in record["timeline"]]
    winner = _winner(record)
    return [
        event | {
            "ms": at[n], "gap_ms": at[n] - at[n - 1] if n else None, "after_ms": at[n] - at[0], "won": n == winner,
        }
        for n, event in enumerate(record["timeline"])
    ]  # fmt: skip


def _winner(record: dict[str, Any]) -> int | None:
    """The event whose state the record has: among equals the first, as the merge decides."""
    ranked = [
        (e["occurred_at"], e["event_id"], e["segment"], n)
        for n, e in enumerate(record["timeline"])
        if e["state"] == record["state"]
    ]
    return min(ranked)[-1] if ranked else None


def rule(record: dict[str, Any], deadline: str | None) -> list[str]:
    """What settled a message, in sentences."""
    type_, settled = record["record_type"], _exact(record["settled_at"])
    if type_ == "pending":
        until = f"{_exact(deadline)} UTC" if deadline else "its deadline"
        return [
            "Still open: no final receipt yet.",
            f"It becomes incomplete once the receipts of its partition are read past {until}.",
        ]
    if record["direction"] == "inbound":
        return [f"An inbound message is settled as soon as it is read: {settled} UTC."]
    told = [_settled_by(record, settled)]
    if record["amendments"]:
        times = f"{record['amendments']} time{'s' if record['amendments'] > 1 else ''}"
        last = _exact(record["amended_at"])
        told.append(f"Amended {times} by receipts that came after it was settled, last at {last} UTC.")
    if record["record_type"] == "complete" and record["segments_failed"]:
        told.append(f"Partial: {record['segments_failed']} of its {record['segments']} parts failed.")
    return told


def _settled_by(record: dict[str, Any], settled: str) -> str:
    if record["record_type"] == "incomplete":
        return (
            f"No final receipt came before its deadline: the receipts of its partition were read past it, and it was"
            f" settled at {settled} UTC."
        )
    winner = _winner(record)
    source = f" ({record['timeline'][winner]['source']})" if winner is not None else ""
    if record["amendments"]:
        return f"Settled first at {settled} UTC; the state it has now comes from the receipt {record['state']}{source}."
    return f"Settled at once by the final receipt {record['state']}{source}, at {settled} UTC."


def _exact(at: str) -> str:
    return f"{at[:10]} {at[11:23]}"


# ---- what the store knows ---------------------------------------------------------------------------------------


def versions(client: Client, scope: Scope, message_id: str) -> list[dict[str, Any]]:
    """The versions of a message's records that the store still holds, oldest first; older ones were merged away."""
    b = Binder()
    sql = (
        "SELECT direction, record_type, state, settled_at, amended_at, amendments,"
        f" length(`timeline.event_id`) AS events, version"
        f" FROM mdr.mdrs PREWHERE message_id = {b.bind(message_id, 'String')} WHERE {scope_sql(scope, b)}"
        f" ORDER BY direction DESC, version, settled_at LIMIT {ROWS_MAX}"
    )
    return query.select(client, sql, b)


def deadline(client: Client, scope: Scope, message_id: str) -> str | None:
    """When an open message is given up, by the receipts watermark; None when it is not open."""
    b = Binder()
    sql = (
        f"SELECT deadline FROM mdr.open_messages FINAL WHERE message_id = {b.bind(message_id, 'String')} AND part = ''"
        f" AND {scope_sql(scope, b)} LIMIT 1"
    )
    rows = query.select(client, sql, b)
    return str(rows[0]["deadline"]) if rows else None


def orphans(client: Client, message_id: str) -> list[dict[str, Any]]:
    """The receipts of an id that never met a message; they belong to no account, so only the operator may ask."""
    b = Binder()
    sql = (
        "SELECT event_id, state, occurred_at, error_code, provider, source, orphaned_at FROM mdr.orphan_receipts"
        f" WHERE message_id = {b.bind(message_id, 'String')} ORDER BY occurred_at, event_id LIMIT {ROWS_MAX}"
    )
    return query.select(client, sql, b)


def waiting(client: Client, message_id: str) -> int:
    """How many receipts of an id wait for their send; only the operator may ask."""
    b = Binder()
    sql = (
        "SELECT count() AS n FROM mdr.open_messages FINAL"
        f" WHERE message_id = {b.bind(message_id, 'String')} AND part != ''"
    )
    return int(query.select(client, sql, b)[0]["n"])
