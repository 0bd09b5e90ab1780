"""CarrierX: `/core/v2/sms/message_drs`. Result and field filtering, order, offset and keyset paging."""

import re
from typing import Any, Final, NamedTuple

from api.http import Answer, Refusal, json_answer, whole_number
from api.vendors.shared import bare, moment, money, ms_of, number_is
from api.where import NUMBERS, TIMES, Condition, Every, Is, Op, Range
from schemas.times import delay_ms

LIMIT_DEFAULT: Final = 10
LIMIT_MAX: Final = 1_000
OFFSET_MAX: Final = 1_000_000
DAYS_MAX: Final = 366
_DAY_MS: Final = 86_400_000
_OPS: Final[dict[str, Op]] = {"eq": "eq", "ne": "ne", "gt": "gt", "ge": "ge", "lt": "lt", "le": "le", "like": "like"}
_TERM: Final = re.compile(
    r"\s*([a-z_0-9]+)\s+([a-z]+)\s+(?:'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"|(\S+))\s*(\band\b|$)", re.IGNORECASE
)
TERMS_MAX: Final = 30

# The fields of an item in the order of the vendor's page, and the column that each filters and sorts by.
COLUMNS: Final[dict[str, str]] = {
    "a2p_campaign": "campaign_id", "date_changed": "settled_at", "date_insert": "occurred_at", "date_sent": "sent_at",
    "date_start": "occurred_at", "date_stop": "final_at", "delay_sent": "", "direction": "direction",
    "dr_sid": "message_id", "mcc": "mcc", "mcc_mnc_price": "", "mcc_mnc_rate": "rate_nanos", "media_urls": "",
    "message": "body", "message_segments": "segments", "mnc": "mnc", "number_billing": "billing_number",
    "number_dst": "to_number", "number_external": "external_number", "number_group_dst": "",
    "number_src": "from_number",
    "p2p_nnid": "attributes.p2p_nnid", "partner_sid": "account_id", "passthrough_price": "",
    "passthrough_rate": "carrier_fee_nanos", "price": "amount_nanos", "provider": "provider", "rate": "rate_nanos",
    "registration_type": "registration_type", "status": "state", "type": "message_type", "user_data": "user_data",
    "vendor_error_code": "vendor_error_code", "version": "attributes.version",
}  # fmt: skip
_PHONES: Final = frozenset({"from_number", "to_number", "billing_number", "external_number"})
# Any of them may be named with `after` and `before`; what orders is the time of insertion, which never changes.
_KEYSET_ORDERS: Final = frozenset({"date_insert", "date_start", "date_stop", "date_sent", "date_changed"})


class Asked(NamedTuple):
    """What a list request asks."""

    span: Range
    where: Condition
    limit: int
    offset: int
    order: tuple[tuple[str, bool], ...]
    descending: bool
    after: str
    before: str
    fields: tuple[str, ...]


def parse(asked: dict[str, str], now_ms: int) -> Asked:
    """A list request; without dates in the filter it is the last year."""
    fields = _fields(asked.get("fields") or asked.get("includeFields") or "")
    parts = _filter(asked.get("filter", ""))
    after, before = asked.get("after", ""), asked.get("before", "")
    if after and before:
        raise Refusal(400, "after and before exclude each other", "before")
    order, descending = _order(asked.get("order", ""), bool(after or before))
    limit = whole_number("limit", asked.get("limit"), LIMIT_DEFAULT, 1, LIMIT_MAX)
    offset = whole_number("offset", asked.get("offset"), 0, 0, OFFSET_MAX)
    span = Range(now_ms - DAYS_MAX * _DAY_MS, now_ms + _DAY_MS)
    return Asked(span, Every(tuple(parts)), limit, offset, order, descending, after, before, fields)


def _fields(text: str) -> tuple[str, ...]:
    names = tuple(filter(None, (name.strip() for name in text.split(","))))
    for name in names:
        if name not in COLUMNS:
            raise Refusal(400, f"{name[:64]} is not a field of an item", "fields")
    return names


def _order(text: str, keyset: bool) -> tuple[tuple[tuple[str, bool], ...], bool]:
    if not text.strip():
        return (), False
    name, _, way = text.strip().replace("+", " ").partition(" ")
    column = COLUMNS.get(name, "")
    if not column or column.startswith("attributes.") or way.strip() not in ("", "asc", "desc"):
        raise Refusal(400, "order is a field, alone or with asc or desc", "order")
    descending = way.strip() == "desc"
    if keyset and name not in _KEYSET_ORDERS:
        raise Refusal(400, "with after or before, order is date_insert", "order")
    return ((), descending) if keyset or column == "occurred_at" else (((column, descending),), descending)


def _filter(text: str) -> list[Condition]:
    parts: list[Condition] = []
    at = 0
    while text[at:].strip():
        match = _TERM.match(text, at)
        if match is None or len(parts) >= TERMS_MAX:
            raise Refusal(400, f"filter is not at most {TERMS_MAX} times `field op value`, joined by `and`", "filter")
        at = match.end()
        if match[6] and not text[at:].strip():
            raise Refusal(400, "filter ends with `and`", "filter")
        parts.append(_term(match))
    return parts


def _term(match: re.Match[str]) -> Condition:
    name, word = match[1].lower(), match[2].lower()
    quoted = match[3] if match[3] is not None else match[4]
    value = match[5] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
    column = COLUMNS.get(name, "")
    if not column or name not in COLUMNS:
        raise Refusal(400, f"{name[:64]} is not a field to filter by", "filter")
    if word not in _OPS:
        raise Refusal(400, f"{word[:16]} is none of {', '.join(_OPS)}", "filter")
    op = _OPS[word]
    if value.lower() == "null" and quoted is None and op in ("eq", "ne") and column not in TIMES | NUMBERS:
        return Is(column, op, "")
    if column in TIMES:
        return Is(column, _plain(op), _instant(name, value))
    if column in NUMBERS:
        return Is(column, _plain(op), _number(name, column, value))
    if column in _PHONES and op == "eq":
        return number_is(column, value)
    if column in _PHONES and op == "ne":
        return Every(tuple(Is(column, "ne", v) for v in number_is(column, value).value))  # type: ignore[union-attr]
    if column in ("mcc", "mnc") and op == "eq" and value.isdigit():
        return Is(column, "in", [value, value.lstrip("0"), value.zfill(2), value.zfill(3)])
    return Is(column, op, value)


def _plain(op: Op) -> Op:
    if op == "like":
        raise Refusal(400, "like is for texts", "filter")
    return op


def _instant(name: str, value: str) -> int:
    at = moment(value)
    if at is None or at.ms < 0:
        raise Refusal(400, f"{name} is compared with an instant such as 2025-04-14T10:32:17.279Z", "filter")
    return at.ms


def _number(name: str, column: str, value: str) -> int:
    whole, _, fraction = value.partition(".")
    nanos = column.endswith("_nanos")
    if (
        not whole.isascii()
        or not whole.isdigit()
        or len(whole) > 9
        or (fraction and not (nanos and fraction.isdigit()))
    ):
        raise Refusal(400, f"{name} is compared with a number", "filter")
    return int(whole) * 1_000_000_000 + int(fraction[:9].ljust(9, "0")) if nanos else int(whole)


def render(row: dict[str, Any]) -> dict[str, Any]:
    """A record as CarrierX tells it, its keys in the order of the vendor's page."""
    more, units, rate, fee = row["attributes"], row["segments"], row["rate_nanos"], row["carrier_fee_nanos"]
    latest = max([entry["occurred_at"] for entry in row["timeline"]] or [row["occurred_at"]])
    settled = latest if row["record_type"] == "pending" else row["amended_at"] or row["settled_at"]
    return {
        "a2p_campaign": row["campaign_id"] or None, "date_changed": settled, "date_insert": row["occurred_at"],
        "date_sent": row["sent_at"], "date_start": row["occurred_at"], "date_stop": row["final_at"],
        "delay_sent": _delay_s(row), "direction": row["direction"], "dr_sid": row["message_id"],
        "mcc": _code(row["mcc"]),
        "mcc_mnc_price": money(rate * units, 0), "mcc_mnc_rate": money(rate, 0), "media_urls": row["media_urls"],
        "message": row["body"] or None, "message_segments": units, "mnc": _code(row["mnc"]),
        "number_billing": bare(row["billing_number"]) or None, "number_dst": bare(row["to_number"]),
        "number_external": bare(row["external_number"]) or None,
        "number_group_dst": [bare(number) for number in row["group_to"]], "number_src": bare(row["from_number"]),
        "p2p_nnid": more.get("p2p_nnid"), "partner_sid": row["account_id"],
        "passthrough_price": money(fee * units, 0) if fee else None, "passthrough_rate": money(fee, 0) if fee else None,
        "price": money(row["amount_nanos"], 0), "provider": row["provider"] or None, "rate": money(rate, 0),
        "registration_type": row["registration_type"] or None, "status": row["state"], "type": row["message_type"],
        "user_data": row["user_data"] or None, "vendor_error_code": row["vendor_error_code"] or None,
        "version": more.get("version"),
    }  # fmt: skip


def _delay_s(row: dict[str, Any]) -> int | None:
    """Whole seconds from insertion to sending; null when it was not told to be sent."""
    return None if row["sent_at"] is None else delay_ms(ms_of(row["occurred_at"]), ms_of(row["sent_at"])) // 1000


def _code(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None


def refuse(refusal: Refusal) -> Answer:
    """An error as CarrierX tells it."""
    error = {"message": refusal.detail, "type": refusal.field or "request"}
    return json_answer({"errors": [error]}, refusal.status, refusal.headers)
