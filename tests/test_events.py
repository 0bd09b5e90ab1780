"""The decoder: which reason comes first, that it never raises, and that its compiled way and the oracle agree."""

import random
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.events import FUTURE_MS_MAX, REASONS, TOPICS, VALUE_BYTES_MAX, Rejected
from schemas.money import parse_nanos
from tests import oracle_events
from tests.entries import NOON_MS, decoded, event, value
from tests.oracle_formats import Refused

pytestmark = pytest.mark.usefixtures("way")
KEY: Final = b"m1"
MUTANTS: Final = 2_500


def reason(got: Any) -> str:
    return got.reason if isinstance(got, Rejected) else ""


def told(topic: str, raw: bytes | None, key: bytes | None = KEY) -> Any:
    return decoded(topic, key, raw, NOON_MS)


# ---- which reason comes first ----------------------------------------------------------------------------------


def test_the_first_reason_that_applies_is_given() -> None:
    """With everything wrong at once, mending one thing after the other gives the reasons in their order."""
    late = event("sends", at_ms=NOON_MS + FUTURE_MS_MAX + 1)
    without = {name: v for name, v in late.items() if name != "account_id"} | {"to": "x", "message_id": "m2"}
    told_in_order = [
        b"",
        b"[\xff" + b" " * VALUE_BYTES_MAX,
        b"[\xff",
        b"[1",
        b"[1]",
        value(without),
        value(without | {"account_id": "a1"}),
        value(late | {"message_id": "m2"}),
        value(late),
        value(event("sends")),
    ]
    assert [reason(told("sends", raw)) for raw in told_in_order] == [*REASONS[:9], ""]


def test_a_value_that_is_none_is_empty() -> None:
    """A tombstone has nothing to read."""
    assert told("receipts", None) == Rejected("empty_value", "")


def test_a_missing_key_is_a_mismatch() -> None:
    """An entry without a key cannot be where its message belongs."""
    assert reason(told("sends", value(event("sends")), None)) == "key_mismatch"


@pytest.mark.parametrize("topic", TOPICS)
def test_a_detail_starts_with_the_field_that_is_wrong(topic: str) -> None:
    """Whatever a field's reason, the detail begins with its name as it is on the wire."""
    good = event(topic)
    for name in good:
        missing = told(topic, value({n: v for n, v in good.items() if n != name}))
        invalid = told(topic, value(good | {name: 7}))
        assert (missing.reason, missing.detail.split(":")[0]) == ("missing_field", name)
        assert (invalid.reason, invalid.detail.split(":")[0]) == ("invalid_field", name)


def test_limits_of_a_value_are_inclusive() -> None:
    """1 MiB is taken, a byte more is too large; depth 64 is taken, 65 is not JSON we read."""
    good = value(event("sends"))
    assert reason(told("sends", good + b" " * (VALUE_BYTES_MAX - len(good)))) == ""
    assert reason(told("sends", good + b" " * (VALUE_BYTES_MAX - len(good) + 1))) == "too_large"
    for depth, expected in ((64, ""), (65, "invalid_json")):
        deep = b'{"x":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"," + good[1:]
        assert reason(told("sends", deep)) == expected


@pytest.mark.parametrize(("name", "bytes_max"), [("account_id", 8_192), ("user_data", 8_192), ("body", 65_536)])
def test_limits_of_a_field_are_in_bytes_and_inclusive(name: str, bytes_max: int) -> None:
    """8 KiB a string and 64 KiB a body are taken, one more byte is refused, whatever the number of characters."""
    for fits in ("x" * bytes_max, "é" * (bytes_max // 2)):
        good = event("sends", message_type="mms") | {name: fits}
        assert reason(told("sends", value(good))) == ""
        assert reason(told("sends", value(good | {name: fits + "x"}))) == "invalid_field"


def test_ten_minutes_ahead_of_the_clock_is_the_limit() -> None:
    """Exactly ten minutes ahead is taken, a millisecond more is the future."""
    assert reason(told("sends", value(event("sends", at_ms=NOON_MS + 600_000)))) == ""
    assert reason(told("sends", value(event("sends", at_ms=NOON_MS + 600_001)))) == "time_in_future"


def test_an_event_knows_its_milliseconds_and_what_was_derived() -> None:
    """Time in ms, encoding, segments and country are filled in; a stated one stays."""
    send = told("sends", value(event("sends", at_ms=NOON_MS + 7, body="ж" * 71)))
    assert (send.occurred_ms, send.encoding, send.segments, send.country) == (NOON_MS + 7, "ucs2", 2, "NO")
    stated = told("sends", value(event("sends", body="ж", encoding="gsm7", segments=9, country="ZZ")))
    assert (stated.encoding, stated.segments, stated.country) == ("gsm7", 9, "ZZ")


@pytest.mark.parametrize(
    "private", [b'"~ms":5,"~at":"x",', b'"~ms":"5",', b'"~at":7,', b'"occurred_ms":5,"source":[],']
)
def test_what_the_decoder_works_out_is_not_taken_from_the_wire(private: bytes) -> None:
    """Fields with a private name are unknown ones: they change neither the event nor its time."""
    got = told("sends", b"{" + private + value(event("sends"))[1:])
    assert (reason(got), got.occurred_ms) == ("", NOON_MS)


# ---- on anything -----------------------------------------------------------------------------------------------

_ODD: Final = (
    b'"\\ud800"', b'"\\ud83d\\ude00"', b"\xff", b"\xed\xa0\x80", b"null", b"true", b"NaN", b"1e999", b"2.0", b"-0",
    b"[]", b"{}", b'""', b'"\x00"', b"[[", b"]", b"\\", b'"', b",", b":", b"\xef\xbb\xbf", b'{"a":1,"a":', b"1" * 400,
    b"[1,null]", b'"0.0000000001"', b'"1.50"', b'["x"]', b'{"k":"v"}', b'"DELIVRD"', b'"+4791234567"', "é".encode(),
    b"\n", b"01", b"3",
)  # fmt: skip


def _full(topic: str) -> dict[str, Any]:
    """A good event that says everything its topic may say."""
    more: dict[str, Any] = {"rate": "0.0075", "carrier_fee": "1", "mcc": "242", "mnc": "01", "provider": "p"}
    if topic == "receipts":
        return event(topic, **more, segment=2, error_code="7", vendor_error_code="v", unknown={"a": [1, "é"]})
    return event(
        topic, **more, body="hé {}", tags=["a", "b"], attributes={"k": "v"}, segments=3, currency="NOK",
        encoding="gsm7", message_type="mms", number_type="long-code", country="NO", media_urls=["u"], error_code="8",
        unknown=[None, 2.5],
    )  # fmt: skip


def _mutant(dice: random.Random, topic: str) -> bytes:
    """A good event with up to three small things done to its bytes or its fields."""
    fields = _full(topic)
    if dice.random() < 0.5:
        for name in dice.sample(sorted(fields), dice.randint(0, 4)):
            del fields[name]
    raw = value(fields)
    for _ in range(dice.randint(0, 3)):
        at, to = sorted(dice.randrange(len(raw) + 1) for _ in range(2))
        match dice.randrange(5):
            case 0:  # something odd in place of a field's content
                start = raw.find(b": ", at) + 2
                raw = raw[:start] + dice.choice(_ODD) + raw[start + dice.randint(0, 8) :]
            case 1:
                raw = raw[:at] + dice.choice(_ODD) + raw[at:]
            case 2:
                raw = raw[:at] + raw[min(to, at + 9) :]
            case 3:  # a member again, or one of another event
                raw = raw[:-1] + b", " + value({dice.choice(sorted(_full(topic))): dice.choice(["", None, "x", 2])})[1:]
            case _:
                raw = raw[:at] + bytes([dice.randrange(256)]) + raw[at + 1 :]
    return raw


def _judged(topic: str, key: bytes | None, raw: bytes | None) -> Any:
    try:
        return oracle_events.read(oracle_events.Entry(topic, 0, 0, 0, key, raw, NOON_MS))
    except Refused as refused:
        return str(refused)


def _as_judged(got: Any) -> Any:
    """An event with the oracle's names and types: amounts in nanos, absent fields of receipts None."""
    fields = {f.encode_name: getattr(got, f.name) for f in msgspec.structs.fields(got)}
    fields["occurred_at"] = fields.pop("~ms")
    return {name: list(v) if isinstance(v, tuple) else v for name, v in fields.items() if name != "~at"}


def _same(got: Any, judged: Any) -> bool:
    if isinstance(got, Rejected) or isinstance(judged, str):
        return bool(reason(got) == judged)
    fields = _as_judged(got)
    for name, expected in judged.items():
        found = fields[name]
        if name in ("rate", "carrier_fee"):
            found = parse_nanos(found) if expected is not None else found or None
        if (found or None) != (expected or None):
            return False
    return True


@pytest.mark.parametrize("topic", TOPICS)
def test_batches_and_the_oracle_agree_on_mutants(topic: str) -> None:
    """Of thousands of damaged events the compiled way, the definition and an independent reading say the same."""
    dice = random.Random(f"mutants of {topic}")
    reasons = set()
    for _ in range(MUTANTS):
        raw = _mutant(dice, topic)
        event = told(topic, raw, KEY)
        assert _same(event, _judged(topic, KEY, raw)), (raw, event, _judged(topic, KEY, raw))
        reasons.add(reason(event))
    assert reasons >= {"", "invalid_utf8", "invalid_json", "missing_field", "invalid_field", "key_mismatch"}


_JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
_VALUES: Final = st.none() | st.binary(max_size=40) | _JSON.map(msgspec.json.encode)


@given(st.sampled_from(TOPICS), st.none() | st.binary(max_size=5), _VALUES)
def test_any_bytes_are_an_event_or_a_reason(topic: str, key: bytes | None, raw: bytes | None) -> None:
    """The decoder never raises: what it does not take it refuses with one of its reasons."""
    got = told(topic, raw, key)
    assert reason(got) in REASONS and reason(got) == _judged(topic, key, raw)


@given(st.data(), st.sampled_from(TOPICS))
def test_any_content_of_any_field_is_judged_as_the_oracle_does(data: st.DataObject, topic: str) -> None:
    """A known field with any JSON in it is taken or refused as by an independent reading."""
    name = data.draw(st.sampled_from(sorted(_full(topic))))
    raw = msgspec.json.encode(_full(topic) | {name: data.draw(_JSON)})
    assert _same(told(topic, raw), _judged(topic, KEY, raw)), raw


def test_decoding_takes_time_in_proportion() -> None:
    """A megabyte of escapes, brackets or open strings is refused after one pass, not after one a byte."""
    for raw in (b"\\" * VALUE_BYTES_MAX, b'["' * (VALUE_BYTES_MAX // 2), b'"\\' * (VALUE_BYTES_MAX // 2)):
        assert reason(told("sends", raw)) == "invalid_json"
