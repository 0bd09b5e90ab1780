"""Telnyx v2: `/v2/legacy/reporting/batch_detail_records/messaging`. Envelopes, words instead of numbers, real lists."""

from typing import Any, Final

from api.http import TITLES, Answer, Refusal, json_answer
from api.reports import COMPLETE, EXPIRED, FAILED, Report
from api.vendors import telnyx
from api.vendors.shared import all_of
from api.where import Condition, Range
from schemas.times import format_rfc3339

FIELDS: Final = (
    "start_time", "end_time", "directions", "record_types", "connections", "profiles", "filters", "report_name",
    "timezone", "include_message_body", "managed_accounts", "select_all_managed_accounts",
)  # fmt: skip
_STATUS: Final = {COMPLETE: "COMPLETE", FAILED: "FAILED", EXPIRED: "EXPIRED"}
_DIRECTIONS: Final = {1: "INBOUND", 2: "OUTBOUND"}
_RECORD_TYPES: Final = {1: "COMPLETED", 2: "INCOMPLETE", 3: "ERRORS"}
_CODES: Final = {
    400: "10015", 401: "10009", 403: "10010", 404: "10005", 405: "10006", 413: "10013", 429: "10011", 500: "10007",
    503: "10016",
}  # fmt: skip


def parse(body: dict[str, Any]) -> tuple[Range, Condition, dict[str, Any]]:
    """The range, the filters and what is told again; both ends of the range must be there."""
    telnyx.known_fields(body, FIELDS)
    ways = telnyx.items(body, "directions", lambda v: type(v) is int and v in telnyx.DIRECTIONS, "1 and 2")
    kinds = telnyx.items(body, "record_types", lambda v: type(v) is int and v in telnyx.RECORD_TYPES, "1, 2 and 3")
    connections = telnyx.items(body, "connections", lambda v: type(v) is int, "whole numbers")
    profiles = telnyx.items(body, "profiles", lambda v: isinstance(v, str), "profile ids")
    accounts = telnyx.items(body, "managed_accounts", lambda v: isinstance(v, str), "account ids")
    entries = telnyx.items(body, "filters", lambda v: isinstance(v, dict), "objects")
    where = all_of(
        telnyx.one_of("direction", [telnyx.DIRECTIONS[w] for w in ways]),
        telnyx.one_of("record_type", [telnyx.RECORD_TYPES[k] for k in kinds]),
        telnyx.one_of("connection_id", connections), telnyx.one_of("profile_id", profiles), telnyx.filters(entries),
    )  # fmt: skip
    echo = {
        "directions": ways, "record_types": kinds, "connections": [str(c) for c in connections], "profiles": profiles,
        "filters": entries, "include_message_body": telnyx.flag(body, "include_message_body"),
        "name": telnyx.text(body, "report_name"), "managed_accounts": accounts,
        "select_all_managed_accounts": telnyx.flag(body, "select_all_managed_accounts"),
    }  # fmt: skip
    return telnyx.span(body, None), where, echo


def render(report: Report, link: str | None) -> dict[str, Any]:
    """A request as v2 tells it; an empty list of directions or types asked for all of them."""
    echo = report.request.echo
    return {
        "id": report.report_id,
        "start_date": _stamp(report.request.start_ms), "end_date": _stamp(report.request.end_ms),
        "directions": [_DIRECTIONS[d] for d in echo["directions"] or _DIRECTIONS],
        "record_types": [_RECORD_TYPES[k] for k in echo["record_types"] or _RECORD_TYPES],
        "connections": [int(c) for c in echo["connections"] if c.isascii() and c.isdigit()],
        "profiles": echo["profiles"], "filters": [_filter(f) for f in echo["filters"]],
        "report_name": report.request.name, "status": _STATUS.get(report.status, "PENDING"), "report_url": link,
        "record_type": "mdr_report", "created_at": _stamp(report.created_ms), "updated_at": _stamp(report.updated_ms),
    }  # fmt: skip


def refuse(refusal: Refusal) -> Answer:
    """An error as v2 tells it; the code is a string."""
    title = TITLES.get(refusal.status, "Error")
    error: dict[str, Any] = {"code": _CODES.get(refusal.status, "10007"), "title": title, "detail": refusal.detail}
    if refusal.field:
        error["source"] = {"pointer": f"/{refusal.field}"}
    return json_answer({"errors": [error]}, refusal.status, refusal.headers)


def _filter(entry: dict[str, Any]) -> dict[str, Any]:
    """A filter of either version; here the tags are one string."""
    tags = entry.get("tags_list")
    return entry | ({"tags_list": ",".join(tags)} if isinstance(tags, list) else {})


def _stamp(ms: int) -> str:
    return format_rfc3339(ms)[:19] + "Z"
