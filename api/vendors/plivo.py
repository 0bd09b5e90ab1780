"""Plivo: `/v1/Account/{auth_id}/Message/`. Amounts with five decimals or more, numbers without `+`, times in UTC."""

from typing import Any, Final, NamedTuple

from api.http import Answer, Refusal, json_answer, segment, whole_number
from api.vendors.shared import Moment, bare, moment, money, number_filter
from api.where import Condition, Every, Is, Range
from schemas.numbers import country
from schemas.times import format_rfc3339

LIMIT_MAX: Final = 20
OFFSET_MAX: Final = 1_000_000
DAYS_MAX: Final = 90
_DAY_MS: Final = 86_400_000
_AHEAD_MS: Final = 600_000
_TIMES: Final = tuple(f"message_time{form}" for form in ("", "__gt", "__gte", "__lt", "__lte"))
_COLUMNS: Final = {
    "subaccount": "subaccount_id", "powerpack_id": "powerpack_id", "destination_country_iso2": "country",
    "tendlc_registration_status": "campaign_status", "tendlc_campaign_id": "campaign_id",
    "conversation_id": "conversation_id", "conversation_origin": "conversation_origin",
}  # fmt: skip
_STATES: Final = {
    state: (state,) for state in ("queued", "sent", "failed", "delivered", "received", "rejected")
} | {"undelivered": ("undelivered", "expired")}  # fmt: skip
_WORDS: Final = {"message_direction": ("inbound", "outbound"), "message_type": ("sms", "mms", "whatsapp")}
PARAMETERS: Final = (
    *_TIMES, *_COLUMNS, *_WORDS, "message_state", "error_code", "from_number", "to_number", "limit", "offset",
)  # fmt: skip


class Asked(NamedTuple):
    """What a list request asks; `pinned` is set when no time was given, so that following pages mean the same day."""

    span: Range
    where: Condition
    limit: int
    offset: int
    pinned: str


def parse(asked: dict[str, str], now_ms: int) -> Asked:
    """A list request; without a time filter it is the last 24 hours, and never more than 90 days back."""
    parts: list[Condition] = [Is(_COLUMNS[n], "eq", v) for n, v in asked.items() if n in _COLUMNS]
    for name, words in _WORDS.items():
        if name in asked:
            parts.append(Is(_word(name, asked[name], words), "eq", asked[name]))
    if "message_state" in asked:
        _word("message_state", asked["message_state"], tuple(_STATES))
        parts.append(Is("state", "in", _STATES[asked["message_state"]]))
    if "error_code" in asked:
        parts.append(Is("error_code", "in", _error_codes(asked["error_code"])))
    parts += [number_filter(name, asked[name]) for name in ("from_number", "to_number") if name in asked]
    limit = whole_number("limit", asked.get("limit"), LIMIT_MAX, 1, LIMIT_MAX)
    offset = whole_number("offset", asked.get("offset"), 0, 0, OFFSET_MAX)
    span = _span(asked, now_ms)
    pinned = "" if any(name in asked for name in _TIMES) else _stamp_of(span.start_ms)
    return Asked(span, Every(tuple(parts)), limit, offset, pinned)


def _word(name: str, value: str, words: tuple[str, ...]) -> str:
    if value not in words:
        raise Refusal(400, f"{name} is none of {', '.join(words)}", name)
    return name.removeprefix("message_") if name == "message_direction" else name


def _error_codes(text: str) -> list[str]:
    """Clients send the code as a number, which loses its zeros; `000` is no error."""
    if not (text.isascii() and text.isdigit()):
        return [text]
    bare_code = text.lstrip("0")
    return [text, bare_code.zfill(3), bare_code] if bare_code else ["", "000", "0", text]


def _span(asked: dict[str, str], now_ms: int) -> Range:
    at = {form: _time(form, asked[form]) for form in _TIMES if form in asked}
    low, high = now_ms - DAYS_MAX * _DAY_MS, now_ms + _AHEAD_MS
    if not at:
        return Range(now_ms - _DAY_MS, high)
    starts = [low]
    ends = [high]
    for form, when in at.items():
        if form == "message_time":
            starts.append(when.ms)
            ends.append(when.ms + when.precision_ms)
        elif form.endswith(("__gt", "__gte")):
            starts.append(when.ms + (form.endswith("__gt")))
        else:
            ends.append(when.ms + (form.endswith("__lte")))
    return Range(max(starts), min(ends))


def _time(name: str, text: str) -> Moment:
    at = moment(text)
    if at is None or at.ms < 0:
        raise Refusal(400, f"{name} is not YYYY-MM-DD HH:MM[:ss[.uuuuuu]]", name)
    return at


def messages_path(auth_id: str, message_id: str = "") -> str:
    """Return the path of an account's messages, or of one of them."""
    base = f"/v1/Account/{segment(auth_id)}/Message/"
    return f"{base}{segment(message_id)}/" if message_id else base


def render(row: dict[str, Any], auth_id: str) -> dict[str, Any]:
    """A record as Plivo tells it; what nobody said is `""`, or null where Plivo says null."""
    more = row["attributes"]
    units, rate, fee = row["segments"], row["rate_nanos"], row["carrier_fee_nanos"]
    home = country(row["from_number"])
    return {
        "message_uuid": row["message_id"], "from_number": bare(row["from_number"]), "to_number": bare(row["to_number"]),
        "message_direction": row["direction"],
        "message_state": "undelivered" if row["state"] == "expired" else row["state"],
        "message_time": f"{row['occurred_at'][:10]} {row['occurred_at'][11:23]}000+00:00",
        "message_type": row["message_type"], "total_amount": money(row["amount_nanos"], 5),
        "total_rate": money(rate + fee, 5), "units": units, "mcc": row["mcc"], "mnc": row["mnc"],
        "error_code": row["error_code"] or "000", "resource_uri": messages_path(auth_id, row["message_id"]),
        "carrier_fees": money(fee * units, 5), "carrier_fees_rate": money(fee, 5), "powerpack_id": row["powerpack_id"],
        "tendlc_campaign_id": row["campaign_id"] or None, "tendlc_registration_status": row["campaign_status"],
        "destination_country_iso2": row["country"], "is_domestic": bool(home) and home == country(row["to_number"]),
        "requester_ip": row["requester_ip"], "replaced_sender": bare(row["replaced_sender"]),
        "conversation_id": row["conversation_id"], "conversation_origin": row["conversation_origin"],
        "conversation_expiration_timestamp": more.get("conversation_expiration_timestamp", ""),
        "dlt_entity_id": more.get("dlt_entity_id", ""), "dlt_template_id": more.get("dlt_template_id", ""),
        "dlt_template_category": more.get("dlt_template_category", ""),
        "destination_network": more.get("destination_network", ""), "log": more.get("log", ""),
    }  # fmt: skip


def _stamp_of(ms: int) -> str:
    return format_rfc3339(ms)[:23].replace("T", " ")


def refuse_list(refusal: Refusal) -> Answer:
    """An error of the list; its client reads `objects` of any JSON, so there is one, and a 401 is plain text."""
    if refusal.status == 401:
        return Answer(b"Unauthorized", 401, "text/plain", refusal.headers)
    body = {"api_id": "", "error": refusal.detail, "objects": []}
    return json_answer(body, refusal.status, refusal.headers)


def refuse(refusal: Refusal) -> Answer:
    """An error of one message."""
    if refusal.status == 401:
        return refuse_list(refusal)
    return json_answer({"api_id": "", "error": refusal.detail}, refusal.status, refusal.headers)
