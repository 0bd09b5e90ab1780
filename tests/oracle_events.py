"""The oracle's reading of single events: one log entry in, its fields or the reason of a dead letter out.

Slow and plain on purpose, and sharing no code with the product; see oracle.py for what follows.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from decimal import Decimal
from typing import Any, NamedTuple

from tests.oracle_formats import (
    BASIC,
    EXTENDED,
    Refused,
    country_of,
    encoding_of,
    moment_ms,
    parts_of,
    read_json,
    require,
)

Row = dict[str, Any]

AHEAD_MS = 600_000


class Entry(NamedTuple):
    """One entry of a log: `topic` is `sends`, `receives` or `receipts`, times are ms since the epoch."""

    topic: str
    partition: int
    offset: int
    broker_ms: int
    key: bytes | None
    value: bytes | None
    clock_ms: int  # what the worker's clock showed when it read the entry


# ---- one field: a check takes the JSON value and gives the normalised one ----

Check = Callable[[object], Any]


def text(value: object, most_bytes: int = 8 * 1024) -> str:
    if not isinstance(value, str) or len(value.encode()) > most_bytes:
        raise Refused("invalid_field")
    return value


def body(value: object) -> str:
    return text(value, 64 * 1024)


def filled(value: object) -> str:
    require(value != "")
    return text(value)


def identifier(value: object) -> str:
    name = filled(value)
    require(len(name) <= 128 and not any(unicodedata.category(char) == "Cc" for char in name))
    return name


def pattern(expression: str) -> Check:
    def check(value: object) -> str:
        word = text(value)
        require(re.fullmatch(expression, word))
        return word

    return check


def one_of(*words: str) -> Check:
    return pattern("|".join(words))


def segment_number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 255:
        raise Refused("invalid_field")
    return value


def money(value: object) -> int:
    """Nanos a segment, exact."""
    amount = text(value)
    require(re.fullmatch(r"[0-9]{1,7}(\.[0-9]{1,18})?", amount))
    nanos = Decimal(amount).scaleb(9)
    require(nanos == int(nanos))
    return int(nanos)


def strings(value: object) -> list[str]:
    if not isinstance(value, list) or len(value) > 64:
        raise Refused("invalid_field")
    return [text(item) for item in value]


def string_map(value: object) -> dict[str, str]:
    if not isinstance(value, dict) or len(value) > 64:
        raise Refused("invalid_field")
    return {text(name): text(item) for name, item in value.items()}


def moment(value: object) -> int:
    return moment_ms(text(value))


def number(value: object) -> str:
    word = text(value)
    require(re.fullmatch(r"\+[1-9][0-9]{6,14}|[0-9]{3,8}", word))
    return word


def sender(value: object) -> str:
    word = text(value)
    try:
        return number(word)
    except Refused:
        printable = all(char in BASIC + EXTENDED and char not in "\n\r\f" for char in word)
        require(1 <= len(word) <= 11 and printable and any(char.isalpha() for char in word))
    return word


# ---- states ----

RANK = {"queued": 0, "sent": 1, "expired": 2, "undelivered": 2, "failed": 2, "rejected": 2, "delivered": 3}
FINAL_RANK = 2
SMPP = {
    "sent": "scheduled 0 enroute 1 acceptd accepted 6",
    "delivered": "delivrd 2",
    "expired": "3",
    "undelivered": "deleted 4 undeliv undeliverable 5",
    "failed": "unknown 7 skipped 9",
    "rejected": "rejectd 8",
}
STATES = {word: word for word in RANK} | {word: name for name, said in SMPP.items() for word in said.split()}


def state(value: object) -> str:
    word = text(value)
    require(word.isascii() and word.lower() in STATES)
    return STATES[word.lower()]


# ---- events ----

COMMON: dict[str, Check] = {"event_id": identifier, "message_id": identifier, "occurred_at": moment}
REQUIRED: dict[str, dict[str, Check]] = {
    "sends": COMMON | {"account_id": filled, "from": sender, "to": number},
    "receives": COMMON | {"account_id": filled, "from": sender, "to": number},
    "receipts": COMMON | {"state": state},
}
TEXTS = [
    "subaccount_id", "profile_id", "connection_id", "provider", "campaign_id", "campaign_status",
    "powerpack_id", "conversation_id", "conversation_origin", "callback_url", "requester_ip", "user_data",
    "external_number", "billing_number", "replaced_sender", "registration_type",
]  # fmt: skip
NETWORK: dict[str, Check] = {
    "mcc": pattern("[0-9]{3}"),
    "mnc": pattern("[0-9]{2,3}"),
    "rate": money,
    "carrier_fee": money,
    "provider": text,
}
MESSAGE: dict[str, Check] = {
    **dict.fromkeys(TEXTS, text),
    **NETWORK,
    "message_type": one_of("sms", "mms", "whatsapp"),
    "body": body,
    "media_urls": strings,
    "encoding": one_of("gsm7", "ucs2"),
    "segments": segment_number,
    "number_type": one_of("long-code", "toll-free", "short-code", "alphanumeric"),
    "country": pattern("[A-Z]{2}"),
    "currency": pattern("[A-Z]{3}"),
    "group_to": strings,
    "tags": strings,
    "attributes": string_map,
}
ERRORS: dict[str, Check] = {"error_code": text, "vendor_error_code": text}
OPTIONAL: dict[str, dict[str, Check]] = {
    "sends": MESSAGE,
    "receives": MESSAGE | ERRORS,
    "receipts": NETWORK | ERRORS | {"segment": segment_number},
}
DEFAULTS: Row = dict.fromkeys([*TEXTS, *NETWORK, *MESSAGE, *ERRORS], "") | {
    "media_urls": [], "group_to": [], "tags": [], "attributes": {}, "rate": 0, "carrier_fee": 0,
    "message_type": "sms", "currency": "USD",
}  # fmt: skip


def read(entry: Entry) -> Row:
    """The entry's fields, normalised, absent optional ones as None; or Refused with the first reason."""
    if not entry.value:
        raise Refused("empty_value")
    if len(entry.value) > 1024 * 1024:
        raise Refused("too_large")
    fields = read_fields(entry.topic, read_object(entry.value))
    if entry.key != fields["message_id"].encode():
        raise Refused("key_mismatch")
    if fields["occurred_at"] > entry.clock_ms + AHEAD_MS:
        raise Refused("time_in_future")
    return fields


def read_object(value: bytes) -> dict[str, object]:
    try:
        event = read_json(value.decode("utf-8"))
    except UnicodeDecodeError:
        raise Refused("invalid_utf8") from None
    if not isinstance(event, dict):
        raise Refused("not_an_object")
    return event


def read_fields(topic: str, event: dict[str, object]) -> Row:
    if any(event.get(name) is None for name in REQUIRED[topic]):
        raise Refused("missing_field")
    fields: Row = {name: check(event[name]) for name, check in REQUIRED[topic].items()}
    for name, check in OPTIONAL[topic].items():
        value = event.get(name)
        absent = value is None or value in ("", [], {})
        fields[name] = None if absent else check(value)
    return fields if topic == "receipts" else derive(topic, fields)


def derive(topic: str, fields: Row) -> Row:
    words = fields["body"] or ""
    far_end = fields["to"] if topic == "sends" else fields["from"]
    full = fields | {name: DEFAULTS[name] for name, value in fields.items() if value is None}
    full["encoding"] = fields["encoding"] or encoding_of(words)
    counted = parts_of(words, full["encoding"]) if full["message_type"] == "sms" else 1
    full["segments"] = fields["segments"] or counted
    require(full["segments"] <= 255)
    full["country"] = fields["country"] or country_of(far_end)
    return full
