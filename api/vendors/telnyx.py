"""What both versions of Telnyx's MDR requests share: the filter language, the lists, the columns of the csv.

The first filter says `and`; none says `and` after one that said `or`. Together they mean
(and1 AND and2 ...) OR or1 OR or2. `cli` is who sent, `cld` who received.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from api.extract import Cell
from api.http import Refusal
from api.vendors.shared import moment, number_filter, number_like
from api.where import Condition, Every, Is, Range, Some

RANGE_DAYS_MAX: Final = 366
LIST_MAX: Final = 100
RECORD_TYPES: Final = {1: "complete", 2: "incomplete", 3: "error"}
DIRECTIONS: Final = {1: "inbound", 2: "outbound"}
_FILTER_FIELDS: Final = ("filter_type", "cli", "cli_filter", "cld", "cld_filter", "tags_list")
_MATCHES: Final = ("contains", "starts_with", "ends_with")

_STATUS: Final = (
    ("queued", "DLR_UNCONFIRMED"), ("sent", "DLR_UNCONFIRMED"), ("delivered", "DELIVERED"), ("undelivered", "FAILED"),
    ("failed", "FAILED"), ("rejected", "GW_REJECT"), ("expired", "DLR_TIMEOUT"), ("received", "RECEIVED"),
)  # fmt: skip
_STATUS_V2: Final = (
    ("queued", "delivery_unconfirmed"), ("sent", "delivery_unconfirmed"), ("delivered", "delivered"),
    ("undelivered", "delivery_failed"), ("failed", "sending_failed"), ("rejected", "sending_failed"),
    ("expired", "delivery_failed"), ("received", "webhook_delivered"),
)  # fmt: skip
CELLS: Final = (
    Cell("Originating Number", "from_number"),
    Cell("Terminating number", "to_number"),
    Cell("CreateTimestamp(UTC)", "occurred_at", "second"),
    Cell("SendTimestamp(UTC)", "sent_at", "second"),
    Cell("CompleteTimestamp(UTC)", "final_at", "second"),
    Cell("Direction", "direction"),
    Cell("Status", "state", "words", _STATUS),
    Cell("Status_v2", "state", "words", _STATUS_V2),
    Cell("Unique Mdr ID", "message_id"),
    Cell("Message Type", "message_type"),
    Cell("Message Body", "body"),
    Cell("Total Media Size", "", "empty"),
)
CELLS_WITHOUT_BODY: Final = tuple(Cell(c.header, "", "empty") if c.column == "body" else c for c in CELLS)
VIEW: Final = "telnyx"
VIEW_WITHOUT_BODY: Final = "telnyx-no-body"


def known_fields(body: Mapping[str, Any], fields: Sequence[str]) -> None:
    """Refuses a field that no request has: what is not understood is not ignored."""
    for name in body:
        if name not in fields:
            raise Refusal(400, f"{name} is not a field of an MDR request", name)


def span(body: Mapping[str, Any], now_ms: int | None) -> Range:
    """The range asked for; `now_ms` is the end when none need be given, and None when it must be."""
    zone = _zone(body.get("timezone"))
    start_ms = _moment(body, "start_time", zone, None)
    end_ms = _moment(body, "end_time", zone, now_ms)
    if end_ms <= start_ms:
        raise Refusal(400, "start_time is not before end_time", "start_time")
    if end_ms - start_ms > RANGE_DAYS_MAX * 86_400_000:
        raise Refusal(400, f"start_time to end_time is longer than {RANGE_DAYS_MAX} days", "start_time")
    return Range(start_ms, end_ms)


def _zone(text: Any) -> str:
    if text in (None, ""):
        return "UTC"
    try:
        ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, TypeError, OSError):
        raise Refusal(400, "timezone is not a name such as UTC or America/Chicago", "timezone") from None
    return str(text)


def _moment(body: Mapping[str, Any], name: str, zone: str, default: int | None) -> int:
    value = body.get(name)
    if value in (None, ""):
        if default is None:
            raise Refusal(400, f"{name} is missing", name)
        return default
    at = moment(value, zone) if isinstance(value, str) else None
    if at is None or at.ms < 0:
        raise Refusal(400, f"{name} is not an instant such as 2024-02-22T00:00:00+00:00", name)
    return at.ms


def items(body: Mapping[str, Any], name: str, is_item: Callable[[Any], bool], what: str) -> list[Any]:
    """A list field; absent and null are empty."""
    value = body.get(name)
    if value is None or value == "":
        return []
    if not isinstance(value, list) or not all(is_item(v) for v in value):
        raise Refusal(400, f"{name} is not a list of {what}", name)
    if len(value) > LIST_MAX:
        raise Refusal(400, f"{name} has more than {LIST_MAX} entries", name)
    return value


def text(body: Mapping[str, Any], name: str, bound: int = 200) -> str:
    """A text field; absent is empty."""
    value = body.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > bound or "\x00" in value:
        raise Refusal(400, f"{name} is not a string of at most {bound} characters", name)
    return value


def flag(body: Mapping[str, Any], name: str) -> bool:
    """A boolean field; absent is false."""
    value = body.get(name)
    if value not in (None, True, False) or (isinstance(value, int) and not isinstance(value, bool)):
        raise Refusal(400, f"{name} is not true or false", name)
    return bool(value)


def one_of(column: str, values: Sequence[Any]) -> Is | None:
    """A filter on any of the values; no filter when there are none."""
    return Is(column, "in", [str(v) for v in values]) if values else None


def filters(entries: Sequence[Mapping[str, Any]]) -> Condition | None:
    """The condition of the `filters`; a bad one is refused with the reason."""
    ands: list[Condition] = []
    ors: list[Condition] = []
    for n, entry in enumerate(entries):
        where = f"filters[{n}]"
        kind = entry.get("filter_type")
        if kind not in ("and", "or"):
            raise Refusal(400, f"{where}.filter_type is not `and` or `or`", "filters")
        if n == 0 and kind != "and":
            raise Refusal(400, f"{where}.filter_type must be `and`: the first filter always is", "filters")
        if kind == "and" and ors:
            raise Refusal(400, f"{where}.filter_type is `and` after an `or`", "filters")
        (ands if kind == "and" else ors).append(_entry(where, entry))
    if not ands:
        return None
    return Some((Every(tuple(ands)), *ors)) if ors else Every(tuple(ands))


def _entry(where: str, entry: Mapping[str, Any]) -> Condition:
    for name in entry:
        if name not in _FILTER_FIELDS:
            raise Refusal(400, f"{where}.{name} is not a field of a filter", "filters")
    parts: list[Condition] = []
    for name, column in (("cli", "from_number"), ("cld", "to_number")):
        value, match = entry.get(name), entry.get(f"{name}_filter")
        if match is not None and match not in _MATCHES:
            raise Refusal(400, f"{where}.{name}_filter is none of {', '.join(_MATCHES)}", "filters")
        if value in (None, ""):
            continue
        if not isinstance(value, str) or len(value) > 100 or "\x00" in value:
            raise Refusal(400, f"{where}.{name} is not a string of at most 100 characters", "filters")
        parts.append(number_like(column, match, value) if match else number_filter(column, value))
    tags = _tags(where, entry.get("tags_list"))
    if tags:
        parts.append(Is("tags", "has_any", tags))
    if not parts:
        raise Refusal(400, f"{where} has neither cli, cld nor tags_list", "filters")
    return Every(tuple(parts))


def _tags(where: str, value: Any) -> list[str]:
    """The first version sends a list, the second a string with commas."""
    if value is None:
        return []
    tags = [t.strip() for t in value.split(",")] if isinstance(value, str) else value
    if (
        not isinstance(tags, list)
        or not all(isinstance(t, str) and "\x00" not in t for t in tags)
        or len(tags) > LIST_MAX
    ):
        raise Refusal(400, f"{where}.tags_list is not a list of at most {LIST_MAX} strings", "filters")
    return [t for t in tags if t]
