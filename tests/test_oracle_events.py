"""What the oracle reads and refuses, value by value."""

from __future__ import annotations

import json
from typing import Any

import pytest
import smsutil

from tests.oracle import Oracle
from tests.oracle_formats import encoding_of, moment_ms, parts_of

NOON_MS = 1_767_614_400_000  # 2026-01-05T12:00:00Z

COMMON = {"event_id": "e1", "message_id": "m1", "occurred_at": "2026-01-05T12:00:00Z"}
SEND: dict[str, Any] = COMMON | {"account_id": "a", "from": "+12125550100", "to": "+14165550101"}
RECEIPT: dict[str, Any] = COMMON | {"state": "delivered"}


def reason(topic: str, event: dict[str, Any] | bytes) -> str:
    """The reason of the only entry of a log, "" when it is good."""
    value = event if isinstance(event, bytes) else json.dumps(event).encode()
    key = b"m1" if isinstance(event, bytes) else str(event.get("message_id")).encode()
    outcome = Oracle(0).judge([(topic, 0, 0, NOON_MS, key, value, NOON_MS)])
    return outcome.dead_letters.get((topic, 0, 0), "")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"", "empty_value"),
        (b" " * (1024 * 1024 + 1), "too_large"),
        (b" " * 1024 * 1024, "invalid_json"),
        (b'{"a":"\xff"}', "invalid_utf8"),
        (b'{"a":"\xed\xa0\x80"}', "invalid_utf8"),
        (b"\xef\xbb\xbf{}", "invalid_json"),
        (b'{"a":1', "invalid_json"),
        (b'{"a":NaN}', "invalid_json"),
        (b'{"a":-Infinity}', "invalid_json"),
        (b'{"a":"\\ud800"}', "invalid_json"),
        (b'{"a":["\\udc00\\ud800"],"a":1}', "invalid_json"),
        (b'["\\ud800"]', "invalid_json"),
        (b'{"a":"\x01"}', "invalid_json"),
        (b'{"a":01}', "invalid_json"),
        (b'{"a":1.}', "invalid_json"),
        (b'{"a":"\\x"}', "invalid_json"),
        (b'{"a":"\\u+123"}', "invalid_json"),
        (b"{'a':1}", "invalid_json"),
        (b'{"a":1,}', "invalid_json"),
        (b"{}{}", "invalid_json"),
        (b"{}\x0c", "invalid_json"),
        (b"[" * 65 + b"]" * 65, "invalid_json"),
        (b"[" * 64 + b"]" * 64, "not_an_object"),
        (b'{"a":' * 64 + b"0" + b"}" * 64, "missing_field"),
        (b'{"a":"' + b"[{" * 99 + b'\\"["}', "missing_field"),
        (b'{"a":1e999,"b":' + b"9" * 5000 + b',"c":"\\ud83d\\ude00\\u0000"}', "missing_field"),
        (b"null", "not_an_object"),
        (b'"m1"', "not_an_object"),
    ],
)
def test_only_strict_json_objects_are_read(value: bytes, expected: str) -> None:
    """RFC 8259 to the letter, no BOM, no lone surrogate, 64 levels; anything else names its reason."""
    assert reason("sends", value) == expected


LONG = "x" * 8192
BAD_SENDS: dict[str, list[Any]] = {
    "event_id": ["", 1, "a\n", "a\x7f", "a\x85", "x" * 129, [], {}],
    "message_id": ["", 1, True, "\x00", "é" * 129],
    "account_id": ["", 7, LONG + "x"],
    "occurred_at": [
        "", 1767614400, "2026-01-05T12:00:00", "2026-01-05 12:00:00Z", "2026-01-05T12:00Z",
        "2026-1-05T12:00:00Z",
        "2026-02-29T12:00:00Z", "2026-01-05T24:00:00Z", "2026-01-05T12:60:00Z", "2026-01-05T12:00:60Z",
        "2026-01-05T12:00:00.Z", "2026-01-05T12:00:00+24:00", "2026-01-05T12:00:00+01:60",
        "2026-01-05T12:00:00+0100", "1999-12-31T23:59:59.999Z", "2000-01-01T00:00:00+00:01",
        "0000-01-01T00:00:00Z", "２026-01-05T12:00:00Z", "2026-01-05T12:00:00Z\n",
    ],
    "from": [
        "", "+0123456789", "+123456", "+1234567890123456", "12", "123456789", "---", "ABCDEFGHIJKL", "A\n",
        "çedille", 12345,
    ],
    "to": ["", "12", "123456789", "Shop", "+0123456789", "+１2125550100", "+12125550100 "],
    "body": [1, "x" * 65537, "é" * 32769, "x" * 39016, ["x"]],
    "message_type": ["SMS", "rcs", 1],
    "encoding": ["gsm-7", "UCS2"],
    "segments": [True, False, "2", 2.0, 0, -1, 256, 10**30, 1e0],
    "number_type": ["longcode"],
    "mcc": ["31", "3100", 310, "３10"],
    "mnc": ["1", "1234", 26],
    "country": ["us", "USA", "U"],
    "rate": ["1.", ".1", "-1", "1e3", "+1", "12345678", "0.0000000001", "0." + "0" * 19, 0.004, "1,0"],
    "carrier_fee": ["x", 1],
    "currency": ["usd", "US"],
    "provider": [1, LONG + "x"],
    "tags": ["x", [1], [None], ["x"] * 65, [LONG + "x"], {"a": "b"}],
    "media_urls": [[["x"]]],
    "group_to": [[1]],
    "attributes": [["x"], {"a": 1}, {"a": None}, {str(n): "" for n in range(65)}, {LONG + "x": "a"}],
    "user_data": [{"a": 1}, True, 0],
}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, values in BAD_SENDS.items() for v in values])
def test_a_bad_field_of_a_send_or_receive_is_refused(name: str, value: object) -> None:
    """Types are exact, limits are limits and patterns match whole ASCII strings."""
    assert reason("sends", SEND | {name: value}) == "invalid_field"
    assert reason("receives", SEND | {name: value}) == "invalid_field"


BAD_RECEIPTS: dict[str, list[Any]] = {
    "state": ["", 2, "DELIVERD", " sent", "10", "ſent", "s\u212aipped", ["sent"]],
    "segment": [0, 256, "1", True, 1.0],
    "error_code": [1, LONG + "x"],
    "vendor_error_code": [False],
    "mcc": ["31"], "mnc": ["1"], "rate": ["x"], "carrier_fee": [0], "provider": [["x"]],
}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, values in BAD_RECEIPTS.items() for v in values])
def test_a_bad_field_of_a_receipt_is_refused(name: str, value: object) -> None:
    """A receipt's fields are checked as strictly as a send's."""
    assert reason("receipts", RECEIPT | {name: value}) == "invalid_field"


GOOD_SENDS: dict[str, list[Any]] = {
    "event_id": ["x", "é" * 128, " ", "\u2028"],
    "occurred_at": ["2026-01-05t12:00:00z", "2026-01-05T12:00:00.123456789-00:00", "2000-01-01T00:00:00Z"],
    "from": ["123", "12345678", "+1234567", "+123456789012345", "A", "Ångström €", "12 Monkeys", "ΔΦ"],
    "to": ["123", "+1234567"],
    "account_id": [LONG, "\x00"],
    "body": ["x" * 39015, None, "", [], {}],
    "segments": [1, 255, None, "", [], {}],
    "rate": ["0", "9999999.999999999", "0.100000000000000000", ""],
    "mnc": ["01", "001"],
    "tags": [["x"] * 64, [""], {}],
    "attributes": [{str(n): "" for n in range(64)}, {"": ""}, []],
    "error_code": [1, None, {}],
    "state": [[]],
    "unknown": [{"a": [1, 2.5, None]}],
}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, values in GOOD_SENDS.items() for v in values])
def test_a_good_field_at_its_limit_is_taken(name: str, value: object) -> None:
    """Empty optional fields are absent, unknown ones ignored and limits inclusive."""
    assert reason("sends", SEND | {name: value}) == ""


def test_required_fields_are_missing_or_invalid() -> None:
    """Null and absent are missing, and any missing field comes before any invalid one."""
    for name in SEND:
        rest = {key: value for key, value in SEND.items() if key != name}
        assert reason("sends", rest) == reason("sends", SEND | {name: None}) == "missing_field"
        assert reason("sends", rest | {"segments": 0}) == "missing_field"
    assert reason("receipts", RECEIPT | {"state": None}) == "missing_field"


@pytest.mark.parametrize(
    ("text", "expected_ms"),
    [
        ("2026-01-05T12:00:00Z", NOON_MS),
        ("2026-01-05T12:00:00.0019999Z", NOON_MS + 1),
        ("2026-01-05T12:00:00.5z", NOON_MS + 500),
        ("2026-01-05T17:30:00+05:30", NOON_MS),
        ("2026-01-04T12:01:00-23:59", NOON_MS),
        ("2024-02-29T00:00:00Z", 1_709_164_800_000),
        ("9999-12-31T23:59:59-23:59", 253_402_387_139_000),
    ],
)
def test_times_are_utc_milliseconds_cut_not_rounded(text: str, expected_ms: int) -> None:
    """RFC 3339 text becomes ms since the epoch with the rest cut off."""
    assert moment_ms(text) == expected_ms


BODIES = [
    "x", "x" * 160, "x" * 161, "x" * 306, "x" * 307, "€" * 80, "x" + "€" * 80, "x" * 152 + "€" * 5,
    "ж" * 70, "ж" * 71, "ж" * 134, "ж" * 135, "😀" * 35, "😀" * 36, "ж" * 66 + "😀" * 3, "ж" * 133 + "😀",
    "ç", "Ç", "\f", "a\r\nb", "`", "~", "ß", "ẞ", "’", "\t",
]  # fmt: skip


@pytest.mark.parametrize("text", BODIES)
def test_encoding_and_parts_agree_with_a_published_library(text: str) -> None:
    """3GPP TS 23.038/23.040 as smsutil has it, for characters both know."""
    split = smsutil.split(text)
    assert encoding_of(text) == {"gsm0338": "gsm7", "utf_16_be": "ucs2"}[split.encoding]
    assert parts_of(text, encoding_of(text)) == len(split.parts)
