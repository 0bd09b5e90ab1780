"""The events that come in, and the decoder that accepts or refuses one.

`decode` is a total function: whatever the bytes, it returns an event or a `Rejected` with the first reason, in the
order of `REASONS`, that applies; it never raises. It is the definition. A worker reads batches (`batches.py`), whose
compiled way takes what is surely sound and leaves the rest to this one.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Final, Literal, NamedTuple, cast

import msgspec
from msgspec import Meta, Struct, field

from schemas.money import parse_nanos
from schemas.numbers import NAME_PATTERN, NUMBER_PATTERN, country, is_number, is_sender
from schemas.states import WORDS, parse_state
from schemas.strict_json import DEPTH_MAX, VALUE_BYTES_MAX, Rejected, read_object
from schemas.text import measure
from schemas.times import MILLENNIUM_MS, parse_rfc3339

REASONS: Final = (
    "empty_value", "too_large", "invalid_utf8", "invalid_json", "not_an_object", "missing_field", "invalid_field",
    "key_mismatch", "time_in_future", "conflict", "too_many_events", "unstorable",
)  # fmt: skip
STRING_BYTES_MAX: Final = 8 << 10
BODY_BYTES_MAX: Final = 64 << 10
ITEMS_MAX: Final = 64
ID_CHARS_MAX: Final = 128
FUTURE_MS_MAX: Final = 600_000
SEGMENTS_MAX: Final = 255


def _any_case(word: str) -> str:
    return "".join(f"[{c}{c.lower()}]" if c.isalpha() else c for c in word)


# For the generated JSON Schemas; the checks themselves are further down.
_ID: Final = {"not": {"pattern": r"[\u0000-\u001f\u007f-\u009f]"}}
_DATE: Final = r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
_TIME: Final = r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]+)?"
_INSTANT: Final = rf"^{_DATE}[Tt]{_TIME}([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$"
_MONEY: Final = r"^[0-9]{1,7}(\.[0-9]{1,9}0{0,9})?$"
Id = Annotated[str, Meta(min_length=1, max_length=ID_CHARS_MAX, extra_json_schema=_ID)]
Instant = Annotated[str, Meta(extra_json_schema={"format": "date-time", "pattern": _INSTANT})]
Text = Annotated[str, Meta(extra_json_schema={"minLength": 1})]
Money = Annotated[str, Meta(extra_json_schema={"pattern": _MONEY})]
Mcc = Annotated[str, Meta(extra_json_schema={"pattern": "^[0-9]{3}$"})]
Mnc = Annotated[str, Meta(extra_json_schema={"pattern": "^[0-9]{2,3}$"})]
Number = Annotated[str, Meta(extra_json_schema={"pattern": f"^{NUMBER_PATTERN}$"})]
Sender = Annotated[str, Meta(extra_json_schema={"pattern": f"^(?:{NUMBER_PATTERN}|{NAME_PATTERN})$"})]
State = Annotated[str, Meta(extra_json_schema={"pattern": f"^({'|'.join(map(_any_case, WORDS))})$"})]
Count = Annotated[int, Meta(ge=1, le=SEGMENTS_MAX)]
Strings = Annotated[tuple[str, ...], Meta(max_length=ITEMS_MAX)]
Attributes = Annotated[dict[str, str], Meta(max_length=ITEMS_MAX)]
NumberType = Literal["", "long-code", "toll-free", "short-code", "alphanumeric"]
Encoding = Literal["", "gsm7", "ucs2"]


def _enum(*words: str) -> Meta:
    return Meta(extra_json_schema={"type": "string", "enum": list(words)})


class Message(Struct, gc=False, omit_defaults=True, kw_only=True):
    """What a send and a receive share; absent optional strings are `""`, absent arrays `()`.

    The fields stand in the order of the record's columns, so that a row takes them over in runs.
    """

    event_id: Id
    occurred_at: Instant
    message_id: Id
    account_id: Text
    subaccount_id: str = ""
    profile_id: str = ""
    connection_id: str = ""
    message_type: Annotated[Literal["sms", "mms", "whatsapp"], _enum("sms", "mms", "whatsapp")] = "sms"
    from_number: Sender = field(name="from")
    to_number: Number = field(name="to")
    number_type: Annotated[NumberType, _enum("long-code", "toll-free", "short-code", "alphanumeric")] = ""
    body: str = ""
    media_urls: Strings = ()
    encoding: Annotated[Encoding, _enum("gsm7", "ucs2")] = ""
    segments: Count = 0
    mcc: Mcc = ""
    mnc: Mnc = ""
    country: Annotated[str, Meta(extra_json_schema={"pattern": "^[A-Z]{2}$"})] = ""
    provider: str = ""
    rate: Money = ""
    carrier_fee: Money = ""
    currency: Annotated[str, Meta(extra_json_schema={"pattern": "^[A-Z]{3}$"})] = "USD"
    campaign_id: str = ""
    campaign_status: str = ""
    powerpack_id: str = ""
    conversation_id: str = ""
    conversation_origin: str = ""
    callback_url: str = ""
    requester_ip: str = ""
    user_data: str = ""
    external_number: str = ""
    billing_number: str = ""
    group_to: Strings = ()
    replaced_sender: str = ""
    registration_type: str = ""
    tags: Strings = ()
    attributes: Attributes | None = None
    # Not on the wire: worked out by the decoder, and where in the log it stood (`topic:partition:offset`).
    occurred_ms: int = field(name="~ms", default=0)
    source: str = field(name="~at", default="")


class Send(Message, gc=False, omit_defaults=True, kw_only=True):
    """The platform accepted an outbound message."""


class Receive(Message, gc=False, omit_defaults=True, kw_only=True):
    """An inbound message arrived."""

    error_code: str = ""
    vendor_error_code: str = ""


class Receipt(Struct, gc=False, omit_defaults=True):
    """A delivery receipt or other status update; after decoding `state` is one of our words."""

    event_id: Id
    message_id: Id
    occurred_at: Instant
    state: State
    segment: Count = 0
    error_code: str = ""
    vendor_error_code: str = ""
    provider: str = ""
    mcc: Mcc = ""
    mnc: Mnc = ""
    rate: Money = ""
    carrier_fee: Money = ""
    occurred_ms: int = field(name="~ms", default=0)
    source: str = field(name="~at", default="")


__all__ = ["DEPTH_MAX", "VALUE_BYTES_MAX", "Receipt", "Receive", "Rejected", "Send", "decode"]
Event = Send | Receive | Receipt
_TYPES: Final[dict[str, type[Event]]] = {"sends": Send, "receives": Receive, "receipts": Receipt}
TOPICS: Final = tuple(_TYPES)


def decode(topic: str, key: bytes | None, value: bytes | None, clock_ms: int) -> Event | Rejected:
    """The event in one log entry of `sends`, `receives` or `receipts` (no prefix), or why there is none."""
    event: Event | Rejected = DECODERS[topic](key, value, clock_ms)
    return event


# ---- what a field may hold -------------------------------------------------------------------------------------

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SETS: Final[dict[str, re.Pattern[str]]] = {
    "mcc": re.compile("|[0-9]{3}"),
    "mnc": re.compile("|[0-9]{2,3}"),
    "country": re.compile("|[A-Z]{2}"),
    "currency": re.compile("[A-Z]{3}"),
}
def _message_problem(m: Message, far_end: str) -> str:
    """What is wrong with a message's fields, `""` if nothing; fills what is derived: times, segments, country."""
    problem = _common_problem(m)
    if problem:
        return problem
    if not m.account_id:
        return "account_id: empty"
    if not is_sender(m.from_number):
        return "from: neither E.164, nor a short code, nor an alphanumeric sender"
    region = "" if m.country else country(far_end)
    # What has a country is E.164.
    if not (region and far_end is m.to_number) and not is_number(m.to_number):
        return "to: neither E.164 nor a short code"
    problem = _network_problem((m.mcc, m.mnc, m.country, m.currency))
    if problem:
        return problem
    m.country = m.country or region
    if not m.segments or not m.encoding:
        problem = _measure(m)
        if problem:
            return problem
    return _money_problem(m) if m.rate or m.carrier_fee else ""


def _send_problem(m: Send) -> str:
    return _message_problem(m, m.to_number)


def _receive_problem(m: Receive) -> str:
    return _message_problem(m, m.from_number)


def _receipt_problem(r: Receipt) -> str:
    problem = _common_problem(r)
    if problem:
        return problem
    state = parse_state(r.state)
    if state is None:
        return "state: not a state or SMPP word we know"
    r.state = state
    if r.mcc or r.mnc:
        problem = _network_problem((r.mcc, r.mnc, "", "USD"))
        if problem:
            return problem
    return _money_problem(r) if r.rate or r.carrier_fee else ""


def _common_problem(e: Message | Receipt) -> str:
    # Printable is more than asked and quick to tell; only what is not is searched.
    if not e.event_id.isprintable() and _CONTROL.search(e.event_id):
        return "event_id: has a control character"
    if not e.message_id.isprintable() and _CONTROL.search(e.message_id):
        return "message_id: has a control character"
    at_ms = parse_rfc3339(e.occurred_at)
    if at_ms is None:
        return "occurred_at: not RFC 3339 with an offset"
    if at_ms < MILLENNIUM_MS:
        return "occurred_at: before the year 2000"
    e.occurred_ms = at_ms
    return ""


def _network_problem(values: tuple[str, ...]) -> str:
    for (name, pattern), value in zip(_SETS.items(), values, strict=True):
        if pattern.fullmatch(value) is None:
            return f"{name}: not {pattern.pattern.lstrip('|')}"
    return ""


def _measure(m: Message) -> str:
    encoding, segments = measure(m.body, m.encoding, m.message_type)
    m.encoding = cast(Encoding, encoding)
    m.segments = m.segments or segments
    if m.segments > SEGMENTS_MAX:
        return f"segments: the body takes {segments}, more than {SEGMENTS_MAX}"
    return ""


def _money_problem(e: Message | Receipt) -> str:
    if parse_nanos(e.rate) is None:
        return "rate: not a decimal string of at most 9 decimals"
    if parse_nanos(e.carrier_fee) is None:
        return "carrier_fee: not a decimal string of at most 9 decimals"
    return ""


# ---- which reason applies first --------------------------------------------------------------------------------

_PATH: Final = re.compile(r" - at `\$\.?([A-Za-z_]*)")
_ABSENT: Final[tuple[object, ...]] = (None, "", [], {})


class _Kind(NamedTuple):
    type: type[Event]
    names: tuple[str, ...]
    required: dict[str, bool]


def _kind_of(type_: type[Event]) -> _Kind:
    required = {f.encode_name: f.required for f in msgspec.structs.fields(type_) if not f.encode_name.startswith("~")}
    return _Kind(type_, tuple(required), required)


def _decode(
    kind: _Kind, problem: Callable[[Any], str], key: bytes | None, value: bytes | None, clock_ms: int
) -> Event | Rejected:
    fields = read_object(value, kind.names)
    if isinstance(fields, Rejected):
        return fields
    event = _build(kind, problem, fields)
    if isinstance(event, Rejected):
        return event
    if event.message_id.encode() != key:
        return Rejected("key_mismatch", "message_id: not the entry's key")
    if event.occurred_ms > clock_ms + FUTURE_MS_MAX:
        return Rejected("time_in_future", f"occurred_at: more than {FUTURE_MS_MAX // 60_000} minutes ahead")
    return event


def _build(kind: _Kind, problem: Callable[[Any], str], fields: dict[str, Any]) -> Event | Rejected:
    known = kind.required
    for name, required in known.items():
        if required and fields.get(name) is None:
            return Rejected("missing_field", f"{name}: required")
    present = {n: v for n, v in fields.items() if n in known and (known[n] or v not in _ABSENT)}
    for name, content in present.items():
        if _bytes_max(content) > (BODY_BYTES_MAX if name == "body" else STRING_BYTES_MAX):
            return Rejected("invalid_field", f"{name}: longer than its limit in UTF-8 bytes")
    try:
        event = msgspec.convert(present, kind.type)
    except msgspec.ValidationError as e:
        path = _PATH.search(str(e))
        return Rejected("invalid_field", f"{path[1] if path else ''}: {str(e).split(' - at ')[0]}")
    detail = problem(event)
    return Rejected("invalid_field", detail) if detail else event


def _bytes_max(content: Any) -> int:
    """Bytes of the longest string in a field's content."""
    if isinstance(content, str):
        return len(content.encode())
    if isinstance(content, dict):
        return max((_bytes_max(s) for pair in content.items() for s in pair), default=0)
    if isinstance(content, list):
        return max(map(_bytes_max, content), default=0)
    return 0


DECODERS: Final[dict[str, Callable[[bytes | None, bytes | None, int], Any]]] = {
    "sends": partial(_decode, _kind_of(Send), _send_problem),
    "receives": partial(_decode, _kind_of(Receive), _receive_problem),
    "receipts": partial(_decode, _kind_of(Receipt), _receipt_problem),
}
