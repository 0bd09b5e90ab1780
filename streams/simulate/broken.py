"""Events that cannot be used, at least one of every kind, each with the reason it must be given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle

import orjson

Fields = dict[str, object]
Broken = tuple[bytes, bytes, str]  # key, value, reason
Break = Callable[[Fields], Broken]

_WRONG_IN_ALL: list[tuple[str, object]] = [
    ("event_id", ""), ("event_id", "x" * 129), ("event_id", "a\tb"), ("event_id", 12345),
    ("occurred_at", "2026-01-05T12:00:00"), ("occurred_at", "2026-01-05 12:00:00Z"),
    ("occurred_at", "2026-01-05T12:00:60Z"), ("occurred_at", "2026-02-30T12:00:00Z"),
    ("occurred_at", "1999-12-31T23:59:59Z"), ("occurred_at", 1_767_614_400),
    ("mcc", 310), ("mnc", "1"), ("rate", "0.0000000001"), ("rate", 0.004), ("rate", "1e-3"),
    ("carrier_fee", "-0.003"), ("provider", ["northgate"]), ("provider", "p" * 8193),
]  # fmt: skip
_WRONG_IN_MESSAGES: list[tuple[str, object]] = [
    ("from", "+0441632960"), ("from", "TwelveLetters"), ("from", "12"), ("to", "Shop"), ("to", 12125550100),
    ("to", "+1 212 555 0100"), ("account_id", ""), ("account_id", {"id": 7}), ("segments", True),
    ("segments", "2"), ("segments", 2.0), ("segments", 0), ("segments", 256), ("encoding", "utf-8"),
    ("message_type", "SMS"), ("number_type", "longcode"), ("country", "us"), ("currency", "usd"),
    ("body", "x" * 65_537), ("body", 42), ("tags", "promo"), ("tags", ["t"] * 65), ("media_urls", [None]),
    ("attributes", {"dlt_entity_id": 1201}), ("attributes", ["dlt"]), ("user_data", False),
]  # fmt: skip
_WRONG_IN_RECEIPTS: list[tuple[str, object]] = [
    ("state", "DLVRD"),
    ("state", ""),
    ("state", 2),
    ("state", "10"),
    ("segment", 0),
    ("segment", 256),
    ("segment", "1"),
    ("segment", 1.0),
    ("error_code", 30003),
    ("vendor_error_code", True),
]
_REQUIRED_IN_MESSAGES = ("event_id", "message_id", "occurred_at", "account_id", "from", "to")
_REQUIRED_IN_RECEIPTS = ("event_id", "message_id", "occurred_at", "state")


def breaks(topic: str) -> Iterator[Break]:
    """Every way to break a good event of a topic, over and over in the same order."""
    receipt = topic == "receipts"
    wrong = _WRONG_IN_ALL + (_WRONG_IN_RECEIPTS if receipt else _WRONG_IN_MESSAGES)
    kinds = [_value(value, reason) for value, reason in _NO_OBJECTS] + [_spoil(*spoil) for spoil in _SPOILS]
    kinds += [_without(name) for name in (_REQUIRED_IN_RECEIPTS if receipt else _REQUIRED_IN_MESSAGES)]
    kinds += [_with("event_id", None, "missing_field"), _with("occurred_at", _FAR, "time_in_future")]
    kinds += [_with(name, value, "invalid_field") for name, value in wrong]
    kinds += [_long_id, _keyed(bytes.swapcase), _keyed(lambda key: b""), _keyed(lambda key: key + b" ")]
    return cycle(_mixed(kinds))


def _mixed(kinds: list[Break]) -> list[Break]:
    """The same kinds, the reasons no longer in runs."""
    return [kind for start in range(7) for kind in kinds[start::7]]


_FAR = "9999-12-31T23:59:59-23:59"
_NO_OBJECTS = [
    (b"", "empty_value"), (b"null", "not_an_object"), (b"[]", "not_an_object"), (b'"a"', "not_an_object"),
    (b"7", "not_an_object"), (b"   ", "invalid_json"), (b"\x00", "invalid_json"), (b"<e/>", "invalid_json"),
]  # fmt: skip
# What replaces a good event's opening brace, and its closing one.
_SPOILS = [
    (b'{"x":"' + b"x" * 1024 * 1024 + b'",', b"}", "too_large"),
    (b'{"x":"\xff",', b"}", "invalid_utf8"),
    (b'{"x":"\xed\xa0\x80",', b"}", "invalid_utf8"),
    (b"\xef\xbb\xbf{", b"}", "invalid_json"),
    (b'{"x":NaN,', b"}", "invalid_json"),
    (b'{"x":-Infinity,', b"}", "invalid_json"),
    (b'{"x":"\\ud83d",', b"}", "invalid_json"),
    (b'{"\\udc00":1,', b"}", "invalid_json"),
    (b'{"x":' + b"[" * 64 + b"]" * 64 + b",", b"}", "invalid_json"),
    (b'{"x":01,', b"}", "invalid_json"),
    (b'{"x":"\n",', b"}", "invalid_json"),
    (b"{'x':1,", b"}", "invalid_json"),
    (b"{", b",}", "invalid_json"),
    (b"{", b"", "invalid_json"),
    (b"{", b"}}", "invalid_json"),
    (b"{", b"}\x00", "invalid_json"),
    (b"[{", b"}]", "not_an_object"),
    (b"{", b',"segment":18446744073709551616,"segments":18446744073709551616}', "invalid_field"),
]


def _key(fields: Fields) -> bytes:
    return str(fields["message_id"]).encode()


def _value(value: bytes, reason: str) -> Break:
    return lambda fields: (_key(fields), value, reason)


def _spoil(opening: bytes, closing: bytes, reason: str) -> Break:
    return lambda fields: (_key(fields), opening + orjson.dumps(fields)[1:-1] + closing, reason)


def _with(name: str, value: object, reason: str) -> Break:
    return lambda fields: (_key(fields), orjson.dumps({**fields, name: value}), reason)


def _without(name: str) -> Break:
    def break_it(fields: Fields) -> Broken:
        rest = {key: value for key, value in fields.items() if key != name}
        return _key(fields), orjson.dumps(rest), "missing_field"

    return break_it


def _long_id(fields: Fields) -> Broken:
    name = "m" * 129
    return name.encode(), orjson.dumps({**fields, "message_id": name}), "invalid_field"


def _keyed(change: Callable[[bytes], bytes]) -> Break:
    """Another key than the message's own; swapping the case changes an id that holds letters."""
    return lambda fields: (change(_key(fields)), orjson.dumps(fields), "key_mismatch")
