"""Every bound of an event and of the joins from both of its sides, through the Python and through the compiled part."""

import json
from typing import Any, Final

import pytest

from schemas.events import Rejected
from streams import record_batches
from streams.join import RECEIPTS_MAX
from streams.lives import REMEMBER_MS
from streams.settle import Partition
from tests import oracle_events
from tests.entries import NOON_MS, LogEntry, decoded, event, value
from tests.oracle_formats import Refused

pytestmark = pytest.mark.usefixtures("way")
SEND: Final = value(event("sends"))


def said(topic: str, raw: bytes, key: bytes = b"m1") -> str:
    """The reason for which an entry is refused, `""` for none; the oracle must say the same."""
    got = decoded(topic, key, raw, NOON_MS)
    reason = got.reason if isinstance(got, Rejected) else ""
    try:
        oracle_events.read(oracle_events.Entry(topic, 0, 0, 0, key, raw, NOON_MS))
        judged = ""
    except Refused as refused:
        judged = str(refused)
    assert reason == judged, raw
    return reason


def with_member(member: bytes) -> bytes:
    """A good send with one member more."""
    return SEND[:-1] + b", " + member + b"}"


def with_field(topic: str, name: str, content: Any) -> bytes:
    """A good event whose field holds this."""
    return value(event(topic) | {name: content})


# ---- fields ----------------------------------------------------------------------------------------------------

IDS: Final = {
    "x" * 128: "", "x" * 129: "invalid_field", "é" * 128: "", "é" * 129: "invalid_field", "a\x7fb": "invalid_field",
    "\x7f": "invalid_field", "a~b": "", "a b": "", "a\x80b": "invalid_field", "a\x9fb": "invalid_field", "a\xa0b": "",
    "a\nb": "invalid_field", "a\x1fb": "invalid_field", "": "invalid_field",
}  # fmt: skip


@pytest.mark.parametrize("topic", ["sends", "receives", "receipts"])
@pytest.mark.parametrize(("id_", "reason"), IDS.items(), ids=map(ascii, IDS))
def test_ids(topic: str, id_: str, reason: str) -> None:
    """An id has 1 to 128 characters, and no control character wherever it stands."""
    for name in ("event_id", "message_id"):
        raw = with_field(topic, name, id_)
        assert said(topic, raw, id_.encode() if name == "message_id" else b"m1") == reason


WORDS: Final = [
    ("mnc", "1", "invalid_field"), ("mnc", "12", ""), ("mnc", "123", ""), ("mnc", "1234", "invalid_field"),
    ("mcc", "12", "invalid_field"), ("mcc", "123", ""), ("mcc", "1234", "invalid_field"), ("mcc", "12a", "invalid_field"),
    ("mnc", "1:", "invalid_field"), ("mnc", "1/", "invalid_field"), ("segments", 0, "invalid_field"), ("segments", 1, ""),
    ("segments", 255, ""), ("segments", 256, "invalid_field"), ("segments", -1, "invalid_field"),
    ("country", "N", "invalid_field"), ("country", "NO", ""), ("country", "NOR", "invalid_field"),
    ("country", "n0", "invalid_field"), ("country", "N[", "invalid_field"), ("country", "@N", "invalid_field"),
    ("currency", "NO", "invalid_field"), ("currency", "NOK", ""), ("currency", "NOKK", "invalid_field"),
    ("rate", "9999999", ""), ("rate", "99999999", "invalid_field"), ("rate", "1.123456789", ""),
    ("rate", "1.1234567891", "invalid_field"), ("rate", "1.123456789000000000", ""),
    ("rate", "1.1234567890000000000", "invalid_field"), ("carrier_fee", "1.0000000001", "invalid_field"),
    ("to", "12", "invalid_field"), ("to", "123", ""), ("to", "12345678", ""), ("to", "123456789", "invalid_field"),
    ("to", "+123456", "invalid_field"), ("to", "+1234567", ""), ("to", "+123456789012345", ""),
    ("to", "+1234567890123456", "invalid_field"), ("to", "+0234567", "invalid_field"),
    ("from", "abcdefghijk", ""), ("from", "abcdefghijkl", "invalid_field"), ("from", "@", "invalid_field"),
    ("from", "a[", ""), ("from", "1[", "invalid_field"), ("from", "1{", "invalid_field"), ("from", "Z", ""), ("from", "z", ""),
    ("message_type", "smss", "invalid_field"), ("message_type", "SMS", "invalid_field"),
    ("account_id", "x" * 8_000, ""), ("account_id", "", "invalid_field"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "reason"), WORDS, ids=lambda it: str(it)[:24])
def test_words_and_numbers(name: str, content: Any, reason: str) -> None:
    """Each field takes what is just within its bound, and refuses what is just beyond."""
    assert said("sends", with_field("sends", name, content)) == reason


@pytest.mark.parametrize(("state", "reason"), [("queued", ""), ("Sent", ""), ("DELIVRD", ""), ("dELIVRD", ""), ("8", ""), ("10", "invalid_field"), ("delivere", "invalid_field"), ("-1", "invalid_field")])  # fmt: skip
def test_states(state: str, reason: str) -> None:
    """A state is one of ours or of SMPP in any case, else it is refused."""
    assert said("receipts", with_field("receipts", "state", state)) == reason


@pytest.mark.parametrize("name", ["tags", "media_urls", "group_to"])
@pytest.mark.parametrize(("count", "reason"), [(0, ""), (1, ""), (64, ""), (65, "invalid_field")])
def test_lists(name: str, count: int, reason: str) -> None:
    """A list has up to 64 items."""
    assert said("sends", with_field("sends", name, ["x"] * count)) == reason


@pytest.mark.parametrize(("count", "reason"), [(0, ""), (1, ""), (64, ""), (65, "invalid_field")])
def test_attributes(count: int, reason: str) -> None:
    """A map has up to 64 entries; of entries of one name, wherever they stand, the last counts."""
    pairs = {f"k{n}": "v" for n in range(count)}
    assert said("sends", with_field("sends", "attributes", pairs)) == reason
    for again in [*pairs][:1] + [*pairs][-1:]:
        repeated = json.dumps(pairs)[:-1] + f', "{again}": "last"}}'
        got = decoded("sends", b"m1", with_member(f'"attributes": {repeated}'.encode()), NOON_MS)
        assert isinstance(got, Rejected) == bool(reason)
        assert isinstance(got, Rejected) or getattr(got, "attributes")[again] == "last"  # noqa: B009  # only some events have them


@pytest.mark.parametrize(("ahead_ms", "reason"), [(599_999, ""), (600_000, ""), (600_001, "time_in_future"), (601_000, "time_in_future")])  # fmt: skip
@pytest.mark.parametrize("topic", ["sends", "receives", "receipts"])
def test_the_future(topic: str, ahead_ms: int, reason: str) -> None:
    """Ten minutes ahead of the clock is taken, a millisecond more is not."""
    assert said(topic, value(event(topic, at_ms=NOON_MS + ahead_ms))) == reason


@pytest.mark.parametrize(("key", "reason"), [(b"m1", ""), (b"m2", "key_mismatch"), (b"m", "key_mismatch"), (b"m11", "key_mismatch"), (b"", "key_mismatch")])  # fmt: skip
def test_keys(key: bytes, reason: str) -> None:
    """The key is the message's id, neither its beginning nor more."""
    assert said("receipts", value(event("receipts")), key) == reason


@pytest.mark.parametrize("absent", [b"null", b'""', b"[]", b"{}"])
@pytest.mark.parametrize(("name", "is_required"), [("account_id", True), ("tags", False), ("body", False), ("segments", False)])
def test_absent(absent: bytes, name: str, is_required: bool) -> None:
    """An optional field that holds nothing is absent; a required one is missing or invalid."""
    fields = {n: v for n, v in event("sends").items() if n != name}
    raw = value(fields)[:-1] + b', "%b": %b}' % (name.encode(), absent)
    expected = "" if not is_required else "missing_field" if absent == b"null" else "invalid_field"
    assert said("sends", raw) == expected


# ---- JSON ------------------------------------------------------------------------------------------------------

NUMBERS: Final = {
    **dict.fromkeys([b"0", b"-0", b"10", b"0.0", b"-0.5", b"1e5", b"1E+5", b"1e-05", b"0e0", b"0e00"], ""),
    **dict.fromkeys(
        [b"01", b"00", b"-01", b"-00", b"01.5", b"1.", b".5", b"-", b"+1", b"1e", b"1e+", b"0x1", b"1.e1", b"--1", b"1_0", b"Infinity"],
        "invalid_json",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("number", "reason"), NUMBERS.items(), ids=str)
@pytest.mark.parametrize("within", [b"%b", b"[%b]", b"[1, %b]", b'{"a": %b}'])
def test_numbers_that_nobody_reads(number: bytes, reason: str, within: bytes) -> None:
    """A number in an unknown field must be one of JSON."""
    assert said("sends", with_member(b'"x": ' + within % number)) == reason


@pytest.mark.parametrize("digits", [b"01", b"00", b"1.0", b"1e0", b"-1", b"0001", b"1000000", b"1234567"])
def test_counts_that_are_none(digits: bytes) -> None:
    """Segments are a whole number without sign, point, exponent or leading zeros."""
    expected = "invalid_json" if digits.startswith(b"0") else "invalid_field"
    assert said("sends", with_member(b'"segments": ' + digits)) == expected


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}"), (b"[1,", b"]")])
@pytest.mark.parametrize(("depth", "reason"), [(63, ""), (64, ""), (65, "invalid_json"), (66, "invalid_json")])
def test_depth(opening: bytes, closing: bytes, depth: int, reason: str) -> None:
    """The value itself is the first of 64 levels, in unknown fields too."""
    deep = opening * (depth - 1) + b"1" + closing * (depth - 1)
    assert said("sends", with_member(b'"x": ' + deep)) == reason


UTF8: Final = [
    "\x80".encode(), "\u07ff".encode(), "\u0800".encode(), "\ud7ff".encode(), "\ue000".encode(), "\uffff".encode(),
    "\U00010000".encode(), "\U0010ffff".encode(),
]  # fmt: skip
NO_UTF8: Final = [
    b"\x80", b"\xbf", b"\xc0\x80", b"\xc1\xbf", b"\xc2", b"\xc2A", b"\xe0\x80\x80", b"\xe0\x9f\xbf", b"\xe0\xa0", b"\xe1\x80A",
    b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xf0\x80\x80\x80", b"\xf0\x8f\xbf\xbf", b"\xf0\x90\x80", b"\xf0\x90\x80A",
    b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xff", b"\xfe",
]  # fmt: skip


@pytest.mark.parametrize("raw", [*UTF8, *NO_UTF8], ids=bytes.hex)
@pytest.mark.parametrize("member", [b'"body": "%b"', b'"x": "%b"', b'"x": ["a", "%b"]', b'"%b": 1', b'"tags": ["%b"]', b'"attributes": {"%b": "a"}'])  # fmt: skip
def test_utf8(raw: bytes, member: bytes) -> None:
    """The shortest form of a character that is no surrogate is taken; all else is no UTF-8, wherever it stands."""
    for padded in (raw, b"1234567" + raw, b"12345678" + raw, raw + b"1234567"):
        assert said("sends", with_member(member % padded)) == ("invalid_utf8" if raw in NO_UTF8 else "")


ESCAPES: Final = {
    **dict.fromkeys([rb"\n", rb"\/", rb"\u0041", rb"\ud83d\ude00", rb"\uD83D\uDE00", rb"\u00e9", rb"\\", rb"\""], ""),
    **dict.fromkeys(
        [rb"\x", rb"\u12", rb"\u12g4", rb"\ud83d", rb"\ude00", rb"\ud83d\ud83d", rb"\ude00\ud83d", rb"\ud83dx", rb"\ud83d\n", rb"\U0041", b"\\\x00"],
        "invalid_json",
    ),
    **dict.fromkeys([b"\x00", b"\x1f", b"\n", b"\t", b'"'], "invalid_json"),
}  # fmt: skip


@pytest.mark.parametrize(("raw", "reason"), ESCAPES.items(), ids=ascii)
@pytest.mark.parametrize("member", [b'"body": "%b"', b'"x": "%b"', b'"%b": 1'])
def test_escapes(raw: bytes, reason: str, member: bytes) -> None:
    """Escapes are those of JSON, surrogates come in pairs, and a control character must be escaped."""
    for padded in (raw, b"1234567" + raw, b"12345678" + raw):
        assert said("sends", with_member(member % padded)) == reason


ROUGH: Final = [b"", b" ", b"{}", b"[]", b"{", SEND + b"x", SEND + b"}", SEND[:-1], SEND[:-1] + b",}", b"\xef\xbb\xbf" + SEND, SEND + b"\x00", SEND * 2, b"[" + SEND + b"]", SEND.replace(b":", b"", 1), SEND.replace(b",", b"", 1), SEND.replace(b",", b",,", 1)]  # fmt: skip


@pytest.mark.parametrize("raw", ROUGH, ids=lambda raw: ascii(raw)[:30])
def test_an_object_is_whole_and_alone(raw: bytes) -> None:
    """What is before, after or missing makes it none."""
    assert said("sends", raw)


@pytest.mark.parametrize("space", [b" ", b"\n", b"\r", b"\t", b" \n\r\t" * 3])
def test_space_is_of_four_kinds(space: bytes) -> None:
    """Blanks, tabs and ends of lines may stand between any two tokens; nothing else may."""
    between = b'{"x":[1,{"a":"b"},[]],"tags":["a","b"],"attributes":{"k":"v"},"segments":2,' + SEND[1:].replace(b" ", b"")
    tokens = [between[:1], between[1:]]
    for mark in (b"{", b"}", b"[", b"]", b",", b":"):
        tokens = [part for token in tokens for part in _cut(token, mark)]
    assert said("sends", space + space.join(tokens) + space) == ""
    assert said("sends", b"\x0b" + between) == said("sends", between + b"\xa0".decode("latin1").encode()) == "invalid_json"


def _cut(token: bytes, mark: bytes) -> list[bytes]:
    """A token around a mark; what holds a time is left as it is."""
    if b"T12:00" in token and mark == b":":
        first, _, rest = token.partition(b":")
        return [first, b":", rest] if first.endswith(b'"') else [token]
    parts = token.split(mark)
    return [piece for n, part in enumerate(parts) for piece in (([mark] if n else []) + ([part] if part else []))]


# ---- joins -----------------------------------------------------------------------------------------------------


def made(topic: str, offset: int, broker_ms: int, **fields: Any) -> list[Any]:
    """A batch of one event as it is read, by whichever way."""
    from schemas import batches

    known = event(topic, **fields)
    entry = LogEntry(offset, broker_ms, str(known["message_id"]).encode(), value(known))
    taken, refused = batches.read(topic, [entry], NOON_MS + 10**10, f"mdr.{topic}:0:")
    assert not refused
    return taken


@pytest.mark.parametrize(("late_ms", "is_asked"), [(0, False), (REMEMBER_MS, False), (REMEMBER_MS + 1, True), (2 * REMEMBER_MS, True)])  # fmt: skip
def test_a_send_is_late_after_ten_minutes(late_ms: int, is_asked: bool) -> None:
    """Up to ten minutes after it occurred it opens its message; a millisecond later the store is asked first."""
    partition = Partition(0, 5_000, NOON_MS + late_ms)
    held = partition.add_sends(made("sends", 0, NOON_MS + late_ms), NOON_MS + late_ms)
    assert (len(held), "m1" in partition.lives) == (int(is_asked), not is_asked)


def test_a_receipt_is_one_too_many_after_320() -> None:
    """The 320th joins, the next is a dead letter, and a copy of one of them is a duplicate."""
    partition = Partition(0, 5_000, NOON_MS)
    partition.add_sends(made("sends", 0, NOON_MS), NOON_MS)
    for n in range(RECEIPTS_MAX):
        partition.add_receipts(made("receipts", n, NOON_MS, event_id=f"r{n}", state="sent"), NOON_MS)
    assert (partition.counts.merged, partition.counts.dead_letters) == (RECEIPTS_MAX + 1, 0)
    for event_id in ("one-too-many", "r7"):
        partition.add_receipts(made("receipts", 999, NOON_MS, event_id=event_id, state="sent"), NOON_MS)
    assert (partition.counts.dead_letters, partition.counts.duplicates) == (1, 1)
    assert [letter.reason for letter in partition.dead] == ["too_many_events"]


def saved(partition: Partition, is_durable: bool = True) -> None:
    """Take a checkpoint, which becomes durable or is still being written."""
    snapshot = partition.snapshot(NOON_MS)
    if is_durable:
        partition.saved(snapshot)


@pytest.mark.parametrize("is_durable", [False, True], ids=["being saved", "saved"])
@pytest.mark.parametrize("is_thawed", [False, True], ids=["in its bytes", "thawed"])
def test_a_saved_message_leaves_a_tombstone(is_thawed: bool, is_durable: bool) -> None:
    """Settled after a checkpoint, whether a receipt touched it in between or not, its open row is taken back."""
    partition = Partition(0, 5_000, NOON_MS)
    partition.add_sends(made("sends", 0, NOON_MS), NOON_MS)
    saved(partition, is_durable)
    if is_thawed:
        partition.add_receipts(made("receipts", 0, NOON_MS, event_id="r1", state="sent"), NOON_MS)
    partition.add_receipts(made("receipts", 1, NOON_MS, event_id="r2"), NOON_MS)
    assert "m1" in partition.fresh and not partition.lives
    (row,) = partition.snapshot(NOON_MS).rows
    assert (row.message_id, row.part, row.is_deleted) == ("m1", "", 1)
    assert row.version == 2 * (2 + is_thawed) + 1, "it outranks every row that knows no more"
    assert not partition.deadlines(), "its deadline is kept"


@pytest.mark.parametrize("is_durable", [False, True], ids=["being saved", "saved"])
def test_receipts_that_waited_leave_tombstones(is_durable: bool) -> None:
    """Their rows are taken back when their send has come and the message settles before the next checkpoint."""
    partition = Partition(0, 5_000, NOON_MS)
    partition.add_receipts(made("receipts", 0, NOON_MS, event_id="r1", state="sent"), NOON_MS)
    saved(partition, is_durable)
    partition.add_sends(made("sends", 0, NOON_MS), NOON_MS)
    partition.add_receipts(made("receipts", 1, NOON_MS, event_id="r2"), NOON_MS)
    rows = partition.snapshot(NOON_MS).rows
    assert [(row.part.split("\0")[0], row.is_deleted) for row in rows] == [("r1", 1)]


def test_a_settled_message_leaves_what_is_due() -> None:
    """One that was entered among the deadlines is taken out of them, with its time, when a receipt settles it."""
    partition = Partition(0, 5_000, NOON_MS)
    for n, message_id in enumerate(("m1", "m2")):
        partition.add_sends(made("sends", n, NOON_MS + n, message_id=message_id, at_ms=NOON_MS + n * 5_000), NOON_MS + n)
    assert sum(partition.deadlines().values()) == 2
    partition.add_receipts(made("receipts", 0, NOON_MS), NOON_MS)
    assert sum(partition.deadlines().values()) == 1
    assert partition.oldest_open_ms() == NOON_MS + 5_000


def test_a_receipt_amends_what_is_not_yet_written() -> None:
    """It counts as one amendment at that time, and the message is not open again."""
    partition = Partition(0, 5_000, NOON_MS)
    partition.add_sends(made("sends", 0, NOON_MS), NOON_MS)
    for n in range(3):
        partition.add_receipts(made("receipts", n, NOON_MS, event_id=f"r{n}"), NOON_MS + n)
    life = partition.fresh["m1"]
    assert (life.settled_ms, life.amended_ms, life.amendments) == (NOON_MS, NOON_MS + 2, 2)
    assert (partition.counts.amended, partition.counts.merged, len(partition.lives)) == (2, 4, 0)


@pytest.mark.parametrize(("first", "second"), [({}, {"event_id": "r2"}), ({}, {"at_ms": NOON_MS + 1}), ({}, {"state": "failed"}), ({"segment": 1}, {"segment": 2}), ({}, {"segment": 1})])  # fmt: skip
def test_receipts_are_one_by_four_things(first: dict[str, Any], second: dict[str, Any]) -> None:
    """Event id, state, time and part tell them apart; what else they say does not."""
    for other, merged in ((second, 3), (first | {"error_code": "7"}, 2)):
        partition = Partition(0, 5_000, NOON_MS)
        partition.add_sends(made("sends", 0, NOON_MS), NOON_MS)
        for n, fields in enumerate((first, other)):
            told = {"event_id": "r1", "state": "sent"} | fields
            partition.add_receipts(made("receipts", n, NOON_MS, **told), NOON_MS)
        assert partition.counts.merged == merged, other


@pytest.mark.parametrize(("record", "count"), [(b"\x0c\0\0\0\1\1\0", 1), (b"\x0e\0\0\0\1\1\0\0", 0), (b"\x0a\0\0\0\1\1\0", 0), (b"\x0c\0\0\0\1\1", 0)])  # fmt: skip
def test_a_record_is_as_long_as_what_is_in_it(record: bytes, count: int) -> None:
    """A byte more or fewer than key, value and headers take, and it is none."""
    found, end = record_batches.records_of(record, 0, 10, (0, NOON_MS, False, 0, True), -1)
    assert (len(found), end) == (count, count * len(record))
