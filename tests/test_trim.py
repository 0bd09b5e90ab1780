"""What the compiled part leaves of a large value is read as the whole value is: the same event, or the same reason."""

import json
import random
from pathlib import Path
from typing import Any, Final

import pytest

from schemas import native
from schemas.events import DECODERS, TOPICS, Rejected
from tests.entries import NOON_MS, event, value
from tests.test_examples import BAD, GOOD, key_of

pytestmark = pytest.mark.native
LATER_MS: Final = NOON_MS + 10**12
PADDING: Final = b'"nobody reads it": ["' + b"x" * 1_100 + b'", [1.5e3, -0, null, {"a": {}}]]'


def padded(raw: bytes) -> bytes:
    """The same object with more than a KiB in it that no field holds."""
    head, brace, rest = raw.partition(b"{")
    return head + brace + PADDING + (b"}" if rest.strip() == b"}" else b"," + rest) if brace else raw + b" " * 1_100


def both(topic: str, raw: bytes, key: bytes = b"m1") -> tuple[Any, Any]:
    """What the trimmed and the whole value are read as."""
    with pytest.MonkeyPatch.context() as patch:
        trimmed = DECODERS[topic](key, raw, LATER_MS)
        patch.setattr(native, "enabled", False)
        return trimmed, DECODERS[topic](key, raw, LATER_MS)


def same(topic: str, raw: bytes, key: bytes = b"m1") -> Any:
    """What both are read as; where a value is no JSON its own words say so."""
    trimmed, whole = both(topic, raw, key)
    if isinstance(whole, Rejected) and whole.reason == "invalid_json":
        assert trimmed.reason == whole.reason, raw
    else:
        assert trimmed == whole, raw
    return trimmed


@pytest.mark.parametrize("path", [*GOOD, *BAD], ids=lambda path: f"{path.parent.parent.name}-{path.stem}")
def test_examples_are_read_the_same(path: Path) -> None:
    """Every good and every bad example, made larger than a KiB."""
    raw = path.read_bytes()
    topic = next(part for part in path.parts if part in TOPICS)
    same(topic, padded(raw), key_of(raw) or b"m1")


@pytest.mark.parametrize("seed", range(20))
def test_broken_bytes_are_read_the_same(seed: int) -> None:
    """Bytes changed, lost, doubled and cut anywhere: never another reason, never another event."""
    dice = random.Random(seed)
    whole = padded(value(event("sends", body="\u20ac\\\"x\x01", tags=["\U0001f600", "b"], attributes={"k": "v"}, segments=2)))
    for _ in range(150):
        raw = bytearray(whole)
        for _ in range(dice.choice([1, 1, 2, 5])):
            at, size = dice.randrange(len(raw)), dice.choice([0, 0, 1, 3])
            some = bytes(dice.choices(b'{}[]",:\\u0dD8 \n\t\x00\x1f-+.eE019tfn\xff\xc3\xa9\xed\xa0\x80\xf4\x90', k=size))
            raw[at : at + dice.randrange(4)] = some
        same("sends", bytes(raw))


BIG: Final = "x" * 65_537
ESCAPED: Final = "\\u0041"
PAIR: Final = "\\ud83d\\ude00"
BREAK: Final = "\\n"
AGAIN: Final = [f'"a": "{n}", "\\u0061": "{n}b"' for n in range(100)]
LARGE: Final[dict[str, str]] = {
    "a field's name with escapes": '"b\\u006fdy": "hello"',
    "the last of two": '"body": "a", "body": "b", "segments": 3, "segments": 4',
    "the last of two, absent": '"provider": "a", "provider": null',
    "a field that ends as it begins to be too long": f'"user_data": "{BIG[:8_192]}"',
    "one over": f'"user_data": "{BIG[:8_193]}"',
    "escapes that fit": f'"user_data": "{ESCAPED * 8_192}"',
    "escapes that do not": f'"user_data": "{ESCAPED * 80_000}"',
    "pairs that are cut": f'"user_data": "x{PAIR * 17_000}"',
    "characters that are cut": f'"user_data": "xy{"€" * 30_000}"',
    "a body that fits": f'"message_type": "mms", "body": "{BIG[:65_536]}"',
    "a body that does not": f'"message_type": "mms", "body": "{BIG}"',
    "a body of escapes that fits": f'"message_type": "mms", "body": "{BREAK * 65_536}"',
    "two that are too long: the first is told": f'"tags": ["{BIG}"], "provider": "{BIG}"',
    "64 entries": f'"tags": {json.dumps(["t"] * 64)}, "attributes": {json.dumps({str(n): "" for n in range(64)})}',
    "65 tags": f'"tags": {json.dumps(["t"] * 65)}',
    "65 attributes": f'"attributes": {json.dumps({str(n): "" for n in range(65)})}',
    "an attribute a hundred times": f'"attributes": {{{", ".join(AGAIN)}}}',
    "64 attributes, and the first again": f'"attributes": {{{", ".join(f""""{n % 64}": "{n}" """ for n in range(128))}}}',
    "no strings": '"tags": [1, [2, [3]], {"a": []}]',
    "spaces": '"tags" : [ "a" , "b" ] , "attributes" : { "a" : "b" , "c" : "d" } , "body" : "" ',
    "a number of a thousand digits": f'"segments": {"1" * 1_000}',
    "a fraction of a thousand digits": f'"segments": 1.{"0" * 1_000}',
    "a name as a value": '"provider": "body", "body": "provider"',
    "empty": '"tags": [ ], "attributes": { }, "provider": "", "rate": null',
}


@pytest.mark.parametrize("fields", LARGE.values(), ids=LARGE)
def test_what_fields_may_hold_is_left(fields: str) -> None:
    """At every limit, and where a value is told twice."""
    same("sends", padded(value(event("sends"))[:-1] + b", " + fields.encode() + b"}"))


def test_depth_is_counted_the_same() -> None:
    """To 64 levels, also in what nobody reads."""
    for depth in (62, 63, 64, 65):
        for inner in (b"", b"1", b'"["'):
            odd = b'"odd": ' + b"[" * depth + inner + b"]" * depth
            got = same("sends", padded(value(event("sends"))[:-1] + b", " + odd + b"}"))
            assert isinstance(got, Rejected) == (depth > 63)


def test_what_is_left_is_small() -> None:
    """Of what nobody reads, or no field may hold, the definition sees next to nothing."""
    assert native.module is not None
    odd = {"odd": [[]] * 9_999, "tags": list(range(9_999)), "body": ["x"] * 9_999, "attributes": {str(n): [n] * 99 for n in range(999)}}
    left = native.module.trim(json.dumps(odd).encode(), ("tags", "body", "attributes", "rate"))
    assert isinstance(left, bytes) and len(left) < 2_000
