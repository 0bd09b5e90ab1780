"""Telnyx v1: `/reporting/mdr_requests`. Types are numbers; `filters` and `profiles` come back as strings."""

import json
from typing import Any, Final

import orjson

from api.http import Answer, Refusal, json_answer
from api.reports import COMPLETE, EXPIRED, FAILED, Report
from api.vendors import telnyx
from api.vendors.shared import all_of
from api.where import Condition, Range
from schemas.times import format_rfc3339

FIELDS: Final = (
    "start_time", "end_time", "call_types", "record_types", "connections", "profiles", "report_name", "filters",
    "directions", "timezone", "include_message_body",
)  # fmt: skip
_STATUS: Final = {COMPLETE: 2, FAILED: 3, EXPIRED: 4}


def parse(body: dict[str, Any], now_ms: int) -> tuple[Range, Condition, dict[str, Any]]:
    """The range, the filters and what is told again; only `start_time` must be there."""
    telnyx.known_fields(body, FIELDS)
    calls = telnyx.items(body, "call_types", lambda v: type(v) is int and v in telnyx.DIRECTIONS, "1 and 2")
    kinds = telnyx.items(body, "record_types", lambda v: type(v) is int and v in telnyx.RECORD_TYPES, "1, 2 and 3")
    ways = telnyx.items(body, "directions", lambda v: v in ("inbound", "outbound"), "`inbound` and `outbound`")
    connections = telnyx.items(body, "connections", _is_id, "connection ids")
    profiles = telnyx.items(body, "profiles", _is_id, "profile ids")
    entries = [_entry(v) for v in telnyx.items(body, "filters", lambda v: isinstance(v, dict | str), "filters")]
    where = all_of(
        telnyx.one_of("direction", [telnyx.DIRECTIONS[c] for c in calls]), telnyx.one_of("direction", ways),
        telnyx.one_of("record_type", [telnyx.RECORD_TYPES[k] for k in kinds]),
        telnyx.one_of("connection_id", connections), telnyx.one_of("profile_id", profiles), telnyx.filters(entries),
    )  # fmt: skip
    echo = {
        "directions": sorted({*calls, *(1 if w == "inbound" else 2 for w in ways)}), "record_types": kinds,
        "connections": [str(c) for c in connections], "profiles": [str(p) for p in profiles], "filters": entries,
        "include_message_body": telnyx.flag(body, "include_message_body"), "name": telnyx.text(body, "report_name"),
    }  # fmt: skip
    return telnyx.span(body, now_ms), where, echo


def render(report: Report, link: str | None) -> dict[str, Any]:
    """A request as v1 tells it; `report_url` is null until there is a file."""
    echo = report.request.echo
    return {
        "id": report.report_id,
        "start_time": _stamp(report.request.start_ms), "end_time": _stamp(report.request.end_ms),
        "call_types": echo["directions"], "record_types": echo["record_types"], "connections": echo["connections"],
        "report_name": report.request.name, "status": _STATUS.get(report.status, 1), "report_url": link,
        "filters": json.dumps(echo["filters"]) if echo["filters"] else "", "created_at": _stamp(report.created_ms),
        "updated_at": _stamp(report.updated_ms), "profiles": ",".join(echo["profiles"]),
    }  # fmt: skip


def refuse(refusal: Refusal) -> Answer:
    """An error as v1 tells it."""
    error = {"status": refusal.status, "error": refusal.detail}
    return json_answer(error | ({"field": refusal.field} if refusal.field else {}), refusal.status, refusal.headers)


def _stamp(ms: int) -> str:
    return format_rfc3339(ms)[:19] + "+00:00"


def _is_id(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool) and len(str(value)) <= 128


def _entry(value: Any) -> dict[str, Any]:
    """A filter; the page calls the list one of strings, so one that is JSON in a string is understood too."""
    try:
        entry = orjson.loads(value) if isinstance(value, str) else value
    except orjson.JSONDecodeError:
        entry = None
    if not isinstance(entry, dict):
        raise Refusal(400, "filters is not a list of objects", "filters")
    return entry
