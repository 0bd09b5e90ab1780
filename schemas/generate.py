"""The JSON Schemas of the events and the AsyncAPI document of the topics, made from `schemas.events`.

`python -m schemas.generate` writes them into this folder. The functions are pure and return documents.
"""

import json
from pathlib import Path
from typing import Any, Final

import msgspec

from schemas.events import (
    BODY_BYTES_MAX,
    FUTURE_MS_MAX,
    REASONS,
    STRING_BYTES_MAX,
    VALUE_BYTES_MAX,
    Receipt,
    Receive,
    Send,
)

CONTRACT_VERSION: Final = "1.0.0"
TOPIC_PREFIX: Final = "mdr."
PARTITIONS: Final = 8
INPUT_BYTES_MAX: Final = 2 << 20
DEAD_LETTER_BYTES_MAX: Final = 4 << 20

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_BINDING: Final = "0.5.0"
_EVENTS: Final = {"send": (Send, "sends"), "receive": (Receive, "receives"), "receipt": (Receipt, "receipts")}
_ABSENT: Final[dict[str, Any]] = {
    "description": "Counts as if the field were not there.",
    "enum": [None, "", [], {}],
}
_KEY: Final = {"type": "string", "minLength": 1, "description": "The UTF-8 `message_id` of the value."}

_MONEY: Final = "A decimal string, per segment; digits after the ninth decimal must be zeros."
DESCRIPTIONS: Final = {
    "account_id": "The account that the message belongs to.",
    "attributes": "Whatever else a view of the record shows, such as `dlt_*`.",
    "billing_number": "The number that is billed; not validated.",
    "body": f"The text, at most {BODY_BYTES_MAX} bytes of UTF-8.",
    "callback_url": "Not validated.",
    "campaign_id": "The campaign that the message is part of.",
    "campaign_status": "The state of that campaign.",
    "carrier_fee": f"What the carrier adds. {_MONEY}",
    "connection_id": "The connection, such as an SMPP bind, that the message came over.",
    "conversation_id": "The conversation that the message is part of.",
    "conversation_origin": "Who began that conversation.",
    "country": "ISO 3166-1 alpha-2; if absent, that of the far end's number.",
    "currency": "ISO 4217.",
    "encoding": "If absent, what the body needs by 3GPP TS 23.038.",
    "error_code": "Why it failed, in the platform's words.",
    "event_id": "Names this event; a repetition with the same id changes nothing.",
    "external_number": "Not validated.",
    "from": "E.164 with `+`, a short code of 3 to 8 digits, or 1 to 11 printable GSM 7-bit characters "
    "with at least one letter.",
    "group_to": "The other receivers of a group message; not validated.",
    "mcc": "The mobile country code of the network.",
    "media_urls": "Not validated.",
    "message_id": "Names the message, over all accounts; also the entry's key.",
    "message_type": "What kind of message it is.",
    "mnc": "The mobile network code of the network.",
    "number_type": "The kind of the account's own number.",
    "occurred_at": "RFC 3339 with an offset, from 2000-01-01; cut to the millisecond. "
    f"More than {FUTURE_MS_MAX // 60_000} minutes ahead is refused.",
    "powerpack_id": "The pool that the number was chosen from.",
    "profile_id": "The messaging profile.",
    "provider": "The provider or carrier that took the message.",
    "rate": f"The price. {_MONEY}",
    "registration_type": "How the sender is registered.",
    "replaced_sender": "The sender that was asked for, if another took its place.",
    "requester_ip": "Not validated.",
    "segment": "The part it is about, if the carrier confirms parts; if absent, all of them.",
    "segments": "If absent, counted by 3GPP TS 23.040; 1 for mms and whatsapp.",
    "state": "One of our states or an SMPP word or number for it, in any case.",
    "subaccount_id": "The part of the account.",
    "tags": "Words to find the record by.",
    "to": "E.164 with `+`, or a short code of 3 to 8 digits.",
    "user_data": "Kept as it is.",
    "vendor_error_code": "Why it failed, in the carrier's words.",
}


def json_schema(name: str) -> dict[str, Any]:
    """The JSON Schema (2020-12) of a `send`, `receive` or `receipt` value.

    It cannot say all: byte limits (a string's length is counted in characters), a calendar day that does not
    exist, times before 2000 or ahead of the clock, and that 2.0 is no integer.
    """
    schema = _value_schema(name, "#/$defs/absent")
    return {"$schema": _DIALECT, "$id": f"{name}.schema.json", **schema, "$defs": {"absent": _ABSENT}}


def asyncapi() -> dict[str, Any]:
    """The AsyncAPI 3.0 document of the four topics, with their default names."""
    topics = {topic: _input_channel(name, topic) for name, (_, topic) in _EVENTS.items()}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Message detail records",
            "version": CONTRACT_VERSION,
            "description": "The Kafka topics that message events come in on, and the one for what cannot be "
            f"used. Names begin with a prefix, `{TOPIC_PREFIX}` unless configured.",
        },
        "defaultContentType": "application/json",
        "channels": {**topics, "deadLetters": _dead_letter_channel()},
        "operations": {
            **{topic: _operation("receive", topic) for topic in topics},
            "deadLetters": _operation("send", "deadLetters"),
        },
        "components": {
            "messages": {**{name: _message(name) for name in _EVENTS}, "deadLetter": _dead_letter()},
            "schemas": {
                **{name: _value_schema(name, "#/components/schemas/absent") for name in _EVENTS},
                "absent": _ABSENT,
            },
        },
    }


def documents() -> dict[str, dict[str, Any]]:
    """Every generated document by its path in this folder."""
    schemas = {f"json/{name}.schema.json": json_schema(name) for name in _EVENTS}
    return {**schemas, "asyncapi.json": asyncapi()}


def render(document: dict[str, Any]) -> str:
    """The text of a document's file."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _value_schema(name: str, absent_ref: str) -> dict[str, Any]:
    kind, _ = _EVENTS[name]
    _, components = msgspec.json.schema_components([kind], ref_template="#/{name}")
    whole = components[kind.__name__]
    required = whole["required"]
    properties = {
        field: _property(field, content, "" if field in required else absent_ref)
        for field, content in whole["properties"].items()
        if not field.startswith("~")
    }
    return {
        "title": name,
        "description": f"{whole['description']} Unknown fields are ignored. At most {VALUE_BYTES_MAX} bytes.",
        "type": "object",
        "properties": properties,
        "required": required,
    }


def _property(field: str, content: dict[str, Any], absent_ref: str) -> dict[str, Any]:
    """One field's schema; with `absent_ref` it is optional, and may hold what counts as absent."""
    default = content.get("default")
    content = {k: v for k, v in content.get("anyOf", [content])[0].items() if k != "default"}
    if "enum" in content:
        content["enum"] = [word for word in content["enum"] if word]
    _limit_strings(content, BODY_BYTES_MAX if field == "body" else STRING_BYTES_MAX)
    described: dict[str, Any] = {"description": DESCRIPTIONS[field]}
    if not absent_ref:
        return {**described, **content}
    if default:
        described["default"] = default
    return {**described, "anyOf": [content, {"$ref": absent_ref}]}


def _limit_strings(content: dict[str, Any], chars_max: int) -> None:
    """No string has more characters than bytes."""
    if content["type"] == "string" and not content.keys() & {"enum", "pattern", "maxLength"}:
        content["maxLength"] = chars_max
    if content["type"] == "array":
        content["items"] = {**content["items"], "maxLength": chars_max}
    if content["type"] == "object":
        content["propertyNames"] = {"maxLength": chars_max}
        content["additionalProperties"] = {**content["additionalProperties"], "maxLength": chars_max}


def _input_channel(name: str, topic: str) -> dict[str, Any]:
    kind, _ = _EVENTS[name]
    return {
        "address": TOPIC_PREFIX + topic,
        "description": f"{kind.__doc__} One message's entries meet in one partition: key, partitioner "
        "(murmur2, as in the Java client) and number of partitions are the same on all three topics.",
        "messages": {name: {"$ref": f"#/components/messages/{name}"}},
        "bindings": {"kafka": _topic(topic, INPUT_BYTES_MAX)},
    }


def _dead_letter_channel() -> dict[str, Any]:
    return {
        "address": f"{TOPIC_PREFIX}dead-letters",
        "description": "Inputs that could not be used, at least once each; the headers `topic`, `partition` "
        "and `offset` tell which.",
        "messages": {"deadLetter": {"$ref": "#/components/messages/deadLetter"}},
        "bindings": {"kafka": _topic("dead-letters", DEAD_LETTER_BYTES_MAX)},
    }


def _topic(topic: str, bytes_max: int) -> dict[str, Any]:
    return {
        "topic": TOPIC_PREFIX + topic,
        "partitions": PARTITIONS,
        "topicConfiguration": {"max.message.bytes": bytes_max},
        "bindingVersion": _BINDING,
    }


def _operation(action: str, channel: str) -> dict[str, Any]:
    return {"action": action, "channel": {"$ref": f"#/channels/{channel}"}}


def _message(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "contentType": "application/json",
        "payload": {"$ref": f"#/components/schemas/{name}"},
        "bindings": {"kafka": {"key": _KEY, "bindingVersion": _BINDING}},
    }


def _dead_letter() -> dict[str, Any]:
    decimal = {"type": "string", "pattern": "^-?[0-9]+$"}
    headers = {
        "reason": {"type": "string", "enum": list(REASONS), "description": "The first that applies."},
        "detail": {"type": "string", "description": "Begins with the field's name if it is about one."},
        "topic": {"type": "string", "description": "The input's topic."},
        "partition": {**decimal, "description": "The input's partition."},
        "offset": {**decimal, "description": "The input's offset."},
        "timestamp": {**decimal, "description": "The input's, in milliseconds since the epoch."},
    }
    return {
        "name": "deadLetter",
        "description": "Key, value and headers of the input byte for byte; these headers come after its own.",
        "contentType": "application/octet-stream",
        "headers": {"type": "object", "properties": headers, "required": list(headers)},
        "payload": {"description": "The bytes of the input's value; null if it had none."},
        "bindings": {"kafka": {"key": {"description": "The bytes of the input's key."}, "bindingVersion": _BINDING}},
    }


def main() -> None:
    """Writes every document beside this file."""
    folder = Path(__file__).parent
    for path, document in documents().items():
        file = folder / path
        file.parent.mkdir(exist_ok=True)
        file.write_text(render(document), encoding="utf-8")


if __name__ == "__main__":
    main()
