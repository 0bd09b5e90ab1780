"""CarrierX: `/core/v2/sms/message_drs`. Result and field filtering, order, offset and keyset paging."""

import re
from typing import Any, Final, Literal, NamedTuple

from api.http import Answer, Refusal, json_answer, whole_number
from api.vendors.shared import bare, moment, money, ms_of, number_filter
from api.where import LIKE_MAX, Condition, Every, Is, Op, Range, Sort, Sql, pattern
from schemas.times import delay_ms

LIMIT_DEFAULT: Final = 10
LIMIT_MAX: Final = 1_000
OFFSET_MAX: Final = 1_000_000
DAYS_MAX: Final = 366
TERMS_MAX: Final = 30
_DAY_MS: Final = 86_400_000
_OPS: Final[dict[str, Op]] = {"eq": "eq", "ne": "ne", "gt": "gt", "ge": "ge", "lt": "lt", "le": "le", "like": "like"}
# Possessive: whatever the text, it is read once.
_TERM: Final = re.compile(
    r"\s*+([a-z_0-9]++)\s++([a-z]++)\s++(?:'((?:[^'\\]|\\.)*+)'|\"((?:[^\"\\]|\\.)*+)\"|(\S++))\s*+(\band\b|$)",
    re.IGNORECASE | re.DOTALL,
)
_WHOLE: Final = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_MONEY: Final = re.compile(r"(-?)([0-9]{1,9})(?:\.([0-9]{1,9})0{0,30})?", re.ASCII)


class Field(NamedTuple):
    """A field of an item: the column that it shows, or the value that it shows, null where it shows null."""

    value: str | Sql
    kind: Literal["text", "phone", "whole", "money", "time"] = "text"
    column: str = ""
    """Of a number, as it is stored."""


def _text(column: str) -> Field:
    return Field(Sql(f"nullIf({column}, '')"))


def _phone(column: str) -> Field:
    return Field(Sql(f"nullIf(replaceRegexpOne({column}, '^\\\\+([0-9]+)$', '\\\\1'), '')"), "phone", column)


def _attribute(name: str) -> Field:
    return Field(Sql(f"if(mapContains(attributes, '{name}'), attributes['{name}'], NULL)"))


def _whole(sql: str) -> Field:
    return Field(Sql(sql, "Int64"), "whole")


def _money(sql: str) -> Field:
    return Field(Sql(sql, "Int64"), "money")


def _time(column: str) -> Field:
    return Field(column, "time")


_CHANGED: Final = Sql(
    "if(record_type = 'pending', arrayMax(`timeline.occurred_at`), ifNull(amended_at, settled_at))", "Time"
)
_DELAY: Final = "toUnixTimestamp64Milli(assumeNotNull(sent_at)) - toUnixTimestamp64Milli(occurred_at)"

# The fields of an item in the order of the vendor's page; None can be neither filtered nor sorted by.
FIELDS: Final[dict[str, Field | None]] = {
    "a2p_campaign": _text("campaign_id"), "date_changed": Field(_CHANGED, "time"), "date_insert": _time("occurred_at"),
    "date_sent": _time("sent_at"), "date_start": _time("occurred_at"), "date_stop": _time("final_at"),
    "delay_sent": _whole(f"if(sent_at IS NULL, NULL, if({_DELAY} < 0, 0, intDiv({_DELAY}, 1000)))"),
    "direction": Field("direction"), "dr_sid": Field("message_id"), "mcc": _whole("toInt64OrNull(mcc)"),
    "mcc_mnc_price": _money("rate_nanos * segments"), "mcc_mnc_rate": _money("rate_nanos"),
    "media_urls": None, "message": _text("body"), "message_segments": _whole("segments"),
    "mnc": _whole("toInt64OrNull(mnc)"), "number_billing": _phone("billing_number"), "number_dst": _phone("to_number"),
    "number_external": _phone("external_number"), "number_group_dst": None, "number_src": _phone("from_number"),
    "p2p_nnid": _attribute("p2p_nnid"), "partner_sid": Field("account_id"),
    "passthrough_price": _money("nullIf(carrier_fee_nanos, 0) * segments"),
    "passthrough_rate": _money("nullIf(carrier_fee_nanos, 0)"), "price": _money("amount_nanos"),
    "provider": _text("provider"), "rate": _money("rate_nanos"), "registration_type": _text("registration_type"),
    "status": Field("state"), "type": Field("message_type"), "user_data": _text("user_data"),
    "vendor_error_code": _text("vendor_error_code"), "version": _attribute("version"),
}  # fmt: skip
# Any of them may be named with `after` and `before`; what orders is the time of insertion, which never changes.
_KEYSET_ORDERS: Final = frozenset({"date_insert", "date_start", "date_stop", "date_sent", "date_changed"})


class Asked(NamedTuple):
    """What a list request asks."""

    span: Range
    where: Condition
    limit: int
    offset: int
    order: tuple[Sort, ...]
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
        if name not in FIELDS:
            raise Refusal(400, f"{name[:64]} is not a field of an item", "fields")
    return names


def _order(text: str, keyset: bool) -> tuple[tuple[Sort, ...], bool]:
    if not text.strip():
        return (), False
    name, _, way = text.strip().replace("+", " ").partition(" ")
    field = FIELDS.get(name)
    if field is None or way.strip() not in ("", "asc", "desc"):
        raise Refusal(400, "order is a field, alone or with asc or desc", "order")
    descending = way.strip() == "desc"
    if keyset and name not in _KEYSET_ORDERS:
        raise Refusal(400, "with after or before, order is date_insert", "order")
    is_key = keyset or field.value == "occurred_at"
    return () if is_key else (Sort(field.value, descending),), descending


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
    field = FIELDS.get(name)
    if field is None:
        raise Refusal(400, f"{name[:64]} is not a field to filter by", "filter")
    if word not in _OPS:
        raise Refusal(400, f"{word[:16]} is none of {', '.join(_OPS)}", "filter")
    if quoted is not None:
        return _test(name, field, _OPS[word], re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL))
    if match[5].lower() == "null" and word in ("eq", "ne"):
        return Is(field.value, "is_null" if word == "eq" else "is_not_null")
    if (name, word, match[5].lower()) == ("direction", "eq", "any"):
        return Every()
    return _test(name, field, _OPS[word], match[5])


def _test(name: str, field: Field, op: Op, text: str) -> Condition:
    """A test of the value that the item shows; of null none holds."""
    if field.kind == "phone" and op == "eq" and text:
        return number_filter(field.column, text)
    if field.kind in ("phone", "text"):
        shown = _unsigned(text) if field.kind == "phone" else text
        return Is(field.value, op, _like(name, shown) if op == "like" else shown)
    if op == "like":
        raise Refusal(400, f"{name} is no text: like is for texts", "filter")
    return Is(field.value, op, _READ[field.kind](name, text))


def _unsigned(text: str) -> str:
    """A number, or the beginning of one, as items show it: without its `+`, or the blank that it became in a URL."""
    return text[1:] if text[:1] in ("+", " ") and text[1:2] in _NUMBER_BEGINS else text


def _like(name: str, text: str) -> str:
    if len(text) > LIKE_MAX:
        raise Refusal(400, f"{name} is compared with a pattern of more than {LIKE_MAX} characters", "filter")
    found = pattern(text)
    if found is None:
        raise Refusal(400, f"{name} is compared with a pattern that ends in a backslash", "filter")
    return found


def _read_time(name: str, text: str) -> int:
    at = moment(text)
    if at is None or at.ms < 0:
        raise Refusal(400, f"{name} is compared with an instant such as 2025-04-14T10:32:17.279Z", "filter")
    return at.ms


def _read_whole(name: str, text: str) -> int:
    if not _WHOLE.fullmatch(text):
        raise Refusal(400, f"{name} is compared with a whole number of at most 18 digits", "filter")
    return int(text)


def _read_money(name: str, text: str) -> int:
    """Nanos; the items' strings of money are compared as the numbers that they are."""
    match = _MONEY.fullmatch(text)
    if match is None:
        raise Refusal(400, f"{name} is compared with a number of at most 9 digits and 9 decimals", "filter")
    nanos = int(match[2]) * 1_000_000_000 + int((match[3] or "").ljust(9, "0"))
    return -nanos if match[1] else nanos


_NUMBER_BEGINS: Final = frozenset("0123456789%_*")
_READ: Final = {"time": _read_time, "whole": _read_whole, "money": _read_money}


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
