"""The compiled part: it takes what is surely sound, and says of it what the Python says, to the last attribute."""

import json
import random
from dataclasses import replace
from typing import Any, Final

import msgspec
import numpy as np
import pytest

from schemas import batches, native
from schemas.events import DECODERS, TOPICS, Receive, Rejected
from schemas.numbers import country
from schemas.record import COLUMNS
from streams import folding, simulate
from streams.effects import Rows
from streams.facts import identities
from streams.fold import records
from streams.join import Life
from streams.recent import hashes, hashes_in
from tests.entries import NOON_MS, LogEntry, event, value
from tests.rows import block_rows, blocks_of
from tests.test_examples import CLOCK_MS, GOOD, key_of
from tests.test_fetched import batch, own

pytestmark = pytest.mark.native
PLAN: Final = simulate.Plan(1_500, 5, NOON_MS, 50.0, settling_ms=14_400_000)
LATER_MS: Final = NOON_MS + 86_400_000


def compiled(topic: str, entries: list[LogEntry], clock_ms: int = LATER_MS) -> list[Any]:
    """What the compiled decoder makes of entries, None where it doubts."""
    pairs, doubts = batches._COMPILED[topic](entries, clock_ms, "x:")
    assert doubts == [n for n, pair in enumerate(pairs) if pair is None]
    return [None if pair is None else pair[0] for pair in pairs]


def defined(topic: str, entry: LogEntry, clock_ms: int = LATER_MS) -> Any:
    """What the definition makes of an entry, as batches leave it."""
    got = DECODERS[topic](entry.key, entry.value, clock_ms)
    if not isinstance(got, Rejected):
        got.source, got.occurred_at = f"x:{entry.offset}", ""
    return got


def simulated() -> dict[str, list[LogEntry]]:
    """Traffic with everything simulated traffic has, by topic."""
    logs: dict[str, list[LogEntry]] = {topic: [] for topic in TOPICS}
    for e in simulate.events(PLAN):
        log = logs[e.topic.rpartition(".")[2]]
        log.append(LogEntry(len(log), e.at_ms, e.key, e.value))
    return logs


def said(made: Any) -> dict[str, Any]:
    """Every attribute of an event, asked for one by one."""
    return {name: getattr(made, name) for name in batches.as_struct(made).__struct_fields__}


def test_simulated_traffic_is_taken_and_means_the_same() -> None:
    """Of sound events it doubts none; their attributes are the definition's, and so is the struct they stand for."""
    for topic, log in simulated().items():
        for entry, made in zip(log, compiled(topic, log), strict=True):
            expected = defined(topic, entry)
            if made is None:
                assert isinstance(expected, Rejected), entry.value
                continue
            assert said(made) == msgspec.structs.asdict(expected), entry.value
            assert batches.as_struct(made) == expected


@pytest.mark.parametrize("code", [1, 44, 39, 7])
def test_countries_are_found_the_same(code: int) -> None:
    """Also where the states of a calling code were walked before by other numbers."""
    draw, digits = random.Random(code), 11 - len(str(code))
    numbers = [f"+{code}{draw.randrange(10**digits):0{digits}}" for _ in range(3_000)]
    wanted = [country(number) for number in numbers]
    sends = [LogEntry(n, NOON_MS, b"m1", value(event("sends", to=number))) for n, number in enumerate(numbers)]
    assert [made.country for made in compiled("sends", sends)] == wanted
    assert len(set(wanted)) > 1


def test_an_entry_left_in_its_batch_means_the_same() -> None:
    """Whether a reader made bytes of its key and value or not: all attributes, and the ids' hashes."""
    assert native.enabled
    for topic, entries in simulated().items():
        data = batch([(e.timestamp, e.key, e.value, []) for e in entries])
        records: Any = own(data)
        made, of_records = compiled(topic, entries), compiled(topic, records)
        assert [m and said(m) for m in of_records] == [m and said(m) for m in made]
        pairs = [(m, None) for m in of_records if m]
        assert np.array_equal(hashes_in(native.module.hashes(pairs)), hashes(m.message_id for m, _ in pairs))


def test_identities_tell_events_apart_as_python_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Events are one or not, left in their bytes or made structs, alone or in a message: as tuples of what tells them."""
    lives, structs = [], []
    for topic, entries in simulated().items():
        made = [m for m in compiled(topic, entries) if m]
        lives += [as_life(topic, m) for m in made]
        structs += [as_life(topic, batches.as_struct(m)) for m in made]
    receipts = tuple(r for life in lives for r in life.receipts)
    apart = identities(lives)
    assert np.array_equal(apart, identities(structs))
    assert set(identities([Life(lives[0].send, receipts)])) <= set(apart)
    monkeypatch.setattr(native, "enabled", False)
    defined = identities(structs)
    assert len(set(defined)) == len(set(apart)) == len(set(zip(defined, apart, strict=True)))
    assert len(structs) > len(set(defined)) > 0.9 * len(structs), "there are no copies"


@pytest.mark.parametrize("field", ["message_id", "event_id", "state", "occurred_ms", "segment"])
def test_an_event_that_differs_in_what_tells_it_is_another(field: str) -> None:
    """Each part counts; what else a receipt says does not."""
    one = batches.as_struct(compiled("receipts", [entry_of(event("receipts", segment=1))])[0])
    others = {"occurred_ms": 1, "segment": 2}
    other = msgspec.structs.replace(one, **{field: others.get(field, "sent")})
    altered = msgspec.structs.replace(one, error_code="1", source="y:1")
    first, second, third = identities([Life(None, (one, other, altered))])
    assert first != second and first == third


def as_life(topic: str, made: Any) -> Life:
    """A message of which only this event is known."""
    return Life(None, (made,)) if topic == "receipts" else Life(made)


def entry_of(told: dict[str, Any]) -> LogEntry:
    """An event as an entry of the log."""
    return LogEntry(0, NOON_MS, str(told["message_id"]).encode(), value(told))


@pytest.mark.parametrize("path", GOOD, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_good_examples_mean_the_same(path: Any) -> None:
    """Every golden example is what the definition makes of it, whether it is taken or doubted."""
    topic, raw = path.parent.name, path.read_bytes()
    entry = LogEntry(7, NOON_MS, key_of(raw), raw)
    taken, refused = batches.read(topic, [entry], CLOCK_MS, "x:")
    assert not refused and batches.as_struct(taken[0][0]) == defined(topic, entry, CLOCK_MS)


DOUBTED: Final = {
    "an escape in an id": value(event("sends")).replace(b"m1-1", b"m1\\u002d1"),
    "a field twice": value(event("sends"))[:-1] + b', "body": "a", "body": "b"}',
    "a value over 8 KiB": value(event("sends", body="x" * 8_200)),
    "an attribute twice": value(event("sends"))[:-1] + b', "attributes": {"a": "1", "a": "2"}}',
    "a tag with an escape": value(event("sends"))[:-1] + b', "tags": ["\\n"]}',
    "a name beyond ASCII": value(event("sends", é=1)),
}


@pytest.mark.parametrize("raw", DOUBTED.values(), ids=DOUBTED)
def test_what_it_doubts_is_left_to_the_definition(raw: bytes) -> None:
    """A doubt is no refusal: the event comes out as the definition reads it, in its place among the others."""
    first, last = (LogEntry(n, NOON_MS, b"m1", value(event("sends"))) for n in (0, 2))
    odd = LogEntry(1, NOON_MS, b"m1", raw)
    assert [made is None for made in compiled("sends", [first, odd, last])] == [False, True, False]
    taken, refused = batches.read("sends", [first, odd, last], LATER_MS, "x:")
    assert [entry.offset for _, entry in taken] == [0, 1, 2] and not refused
    assert batches.as_struct(taken[1][0]) == defined("sends", odd)


INSTANTS: Final = (
    "2024-02-29T00:00:00Z", "2000-01-01t00:00:00.000z", "2025-12-31T23:59:59.9999999+14:00", "2025-03-01T00:00:00.1-00:30",
    "2000-02-29T12:00:00.12Z", "2025-01-01T00:00:00.123456789-23:59",
)  # fmt: skip
NO_INSTANTS: Final = (
    "2023-02-29T00:00:00Z", "2100-02-29T00:00:00Z", "2025-04-31T00:00:00Z", "2025-13-01T00:00:00Z", "2025-00-01T00:00:00Z",
    "2025-01-00T00:00:00Z", "2025-01-01T24:00:00Z", "2025-01-01T00:60:00Z", "2025-01-01T00:00:60Z", "2025-01-01T00:00:00",
    "2025-01-01T00:00:00.Z", "2025-01-01T00:00:00+24:00", "2025-01-01T00:00:00+00:60", "2025-01-01 00:00:00Z",
    "2025-01-01T00:00:00+0000", "1999-12-31T23:59:59.999Z", "2000-01-01T00:00:00+00:01", "2025-1-01T00:00:00Z ",
)  # fmt: skip


@pytest.mark.parametrize("instant", [*INSTANTS, *NO_INSTANTS])
def test_instants_are_read_the_same(instant: str) -> None:
    """Every way RFC 3339 has to say a time is taken, to the same millisecond; what is none is doubted."""
    entry = LogEntry(0, NOON_MS, b"m1", value(event("sends", occurred_at=instant)))
    (made,) = compiled("sends", [entry])
    expected = defined("sends", entry)
    assert (made is None) == isinstance(expected, Rejected) == (instant in NO_INSTANTS)
    assert made is None or made.occurred_ms == expected.occurred_ms


MONEY: Final = ("0", "0.0075", "9999999.999999999", "1.000000001000000000", "0000001.5", "12345.6789")
NO_MONEY: Final = ("1.0000000001", "12345678", "1.", ".5", "-1", "+1", "1e3", "1.0000000000000000000", "1,5", " 1", "1" * 30)


@pytest.mark.parametrize("rate", [*MONEY, *NO_MONEY])
def test_money_is_read_the_same(rate: str) -> None:
    """A price is exact to the ninth decimal in the record, or it is doubted."""
    entry = LogEntry(0, NOON_MS, b"m1", value(event("sends", rate=rate, carrier_fee="0.000000001")))
    (made,) = compiled("sends", [entry])
    assert (made is None) == isinstance(defined("sends", entry), Rejected) == (rate in NO_MONEY)
    assert made is None or same([Rows(0, [Life(made, settled_ms=NOON_MS)], [], [])])


SENDERS: Final = ("12345", "+4791234567", "Acme", "A-1 & co.", "{^}~a", "abcdefghijk")
NO_SENDERS: Final = ("12", "123456789", "+0791234567", "+479123", "+4791234567890123", "`a", "a" * 12, "1-2-3", "a\tb")


@pytest.mark.parametrize("sender", [*SENDERS, *NO_SENDERS])
def test_senders_are_read_the_same(sender: str) -> None:
    """Numbers, short codes and names in printable ASCII are taken; the definition refuses what is doubted."""
    entry = LogEntry(0, NOON_MS, b"m1", value(event("sends") | {"from": sender}))
    (made,) = compiled("sends", [entry])
    assert (made is None) == isinstance(defined("sends", entry), Rejected) == (sender in NO_SENDERS)


BODIES: Final = (
    "", "plain", "a" * 160, "a" * 161, "{" * 80, "{" * 81, "a" * 152 + "\u20ac" + "a" * 10, "\u0436" * 70, "\u0436" * 71,
    "\U0001f600" * 35, "\U0001f600" * 36, "a" * 66 + "\U0001f600" + "\u0436" * 5, "`", "\x0c", "\x1b", "\u00e7\u00c7", "\x7f",
    "\u0394" * 161, "a" * 306, "a" * 307, "ж" * 134, "ж" * 135, "\\" * 160, "tab\there",
)  # fmt: skip


@pytest.mark.parametrize("stated", [{}, {"encoding": "gsm7"}, {"encoding": "ucs2"}, {"message_type": "mms"}])
@pytest.mark.parametrize("escaped", [False, True])
def test_segments_are_counted_the_same(stated: dict[str, Any], escaped: bool) -> None:
    """At every limit, with and without escapes on the wire, encoding and segments are the definition's."""
    for body in BODIES:
        fields = event("sends", body=body, **stated)
        raw = json.dumps(fields, ensure_ascii=escaped).encode()
        entry = LogEntry(0, NOON_MS, b"m1", raw)
        (made,) = compiled("sends", [entry])
        assert batches.as_struct(made) == defined("sends", entry), body


@pytest.mark.parametrize("unbuilt", [False, True])
def test_without_it_everything_is_read_by_the_definition(unbuilt: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch holds the same events and refusals, in the same order, whether it was built or not."""
    entries = [LogEntry(n, NOON_MS, b"m1", raw) for n, raw in enumerate([value(event("sends")), b"{", b"", value({})])]
    if unbuilt:
        monkeypatch.setattr(native, "enabled", False)
    taken, refused = batches.read("sends", entries, LATER_MS, "x:")
    assert [(batches.as_struct(e), entry.offset) for e, entry in taken] == [(defined("sends", entries[0]), 0)]
    assert [(r.reason, entry.offset) for r, entry in refused] == [
        ("invalid_json", 1), ("empty_value", 2), ("missing_field", 3),
    ]  # fmt: skip


# ---- records ---------------------------------------------------------------------------------------------------


def lives() -> list[Life]:
    """Settled messages of simulated traffic, some of their events left in their bytes and some as structs."""
    dice = random.Random(7)
    logs = simulated()
    receipts: dict[str, list[Any]] = {}
    for made in filter(None, compiled("receipts", logs["receipts"])):
        receipts.setdefault(made.message_id, []).append(made if dice.random() < 0.5 else batches.as_struct(made))
    found: list[Life] = []
    for made in filter(None, compiled("sends", logs["sends"])):
        own = receipts.get(made.message_id, [])
        dice.shuffle(own)
        send = made if dice.random() < 0.5 else batches.as_struct(made)
        amended = dice.choice([0, NOON_MS])
        found.append(Life(send, tuple(own), settled_ms=NOON_MS + len(found), amended_ms=amended, amendments=amended % 7))
    return found


def same(taken: list[Rows]) -> bool:
    """Whether both ways make the same rows of what was taken, not counting their order."""
    quick = sorted((row for block in blocks_of(taken) for row in block_rows(block)), key=str)
    return quick == sorted(zip(*records(taken, NOON_MS), strict=True), key=str)


def test_records_of_simulated_traffic_are_the_same() -> None:
    """Each column of each record is the fold's, whatever its events are kept as."""
    found = lives()
    inbound = [made for made in compiled("receives", simulated()["receives"]) if made is not None]
    assert sum(len(life.receipts) for life in found) > 1_000 and len(inbound) > 50
    assert same([Rows(3, found[::2], inbound, []), Rows(4, found[1::2], list(map(batches.as_struct, inbound)), [])])


OCCURRED_AT: Final = [column.name for column in COLUMNS].index("occurred_at")
STATES: Final = ("queued", "sent", "expired", "undelivered", "failed", "rejected", "delivered")


def read(topic: str, offset: int, **more: Any) -> Any:
    """A sound event as the compiled decoder leaves it."""
    (made,) = compiled(topic, [LogEntry(offset, NOON_MS, b"m1", value(event(topic, **more)))])
    return made


def test_records_of_odd_messages_are_the_same() -> None:
    """Receipts of every kind in every order, with parts, ties, prices and codes: the same winner, parts and timeline."""
    dice = random.Random(11)
    found = []
    for _ in range(400):
        send = read("sends", 0, segments=dice.randint(1, 4), rate="0.25", provider="p", at_ms=NOON_MS + dice.randint(0, 2))
        some = [
            read(
                "receipts", n, state=dice.choice(STATES), at_ms=NOON_MS + dice.randint(0, 2), event_id=dice.choice("ab"),
                **{k: v for k, v in (("segment", dice.randint(1, 4)), ("error_code", dice.choice("12")), ("mnc", "04"),
                    ("rate", "0"), ("provider", dice.choice("qr")), ("vendor_error_code", "v")) if dice.random() < 0.3},
            )
            for n in range(dice.randint(0, 5))
        ]  # fmt: skip
        found.append(Life(send, tuple(some), settled_ms=NOON_MS))
    assert same([Rows(0, found, [], [])])


def test_blocks_are_of_a_month_and_of_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """One insert into one partition is all of it or nothing; one is inserted while the next is made."""
    monkeypatch.setattr(folding, "_BLOCK_ROWS", 2_000)
    months = [NOON_MS, NOON_MS - 40 * 86_400_000]
    sends = [LogEntry(n, NOON_MS, b"m1", value(event("sends", at_ms=months[n % 2]))) for n in range(2_600)]
    taken = [Rows(1, [Life(send, settled_ms=NOON_MS) for send in compiled("sends", sends)], [], [])]
    blocks = blocks_of(taken)
    assert [block.rows for block in blocks] == [1_000, 1_000, 300, 300]
    for block in blocks:
        assert len({row[OCCURRED_AT] // 86_400_000 for row in block_rows(block)}) == 1


def test_a_column_of_nothing_but_its_default_is_left_out() -> None:
    """The table fills it in; the names are the table's."""
    (send,) = compiled("sends", [LogEntry(0, NOON_MS, b"m1", value(event("sends")))])
    (block,) = blocks_of([Rows(0, [Life(send, settled_ms=NOON_MS)], [], [])])
    left_out = {column.name for column in COLUMNS} - set(block.columns)
    assert {"tags", "attributes", "sent_at", "final_at", "amended_at", "rate_nanos", "facts", "mcc"} <= left_out
    assert {"timeline.segment", "timeline.error_code", "state", "currency"} <= set(block.columns)


@pytest.mark.parametrize("at", [0, 1, 2])
def test_what_it_does_not_expect_it_refuses(at: int) -> None:
    """A value of another type, a count that no column holds, too many receipts: refused alone, wherever it stands."""
    (send,) = compiled("sends", [LogEntry(0, NOON_MS, b"m1", value(event("sends")))])
    (receipt,) = compiled("receipts", [LogEntry(0, NOON_MS, b"m1", value(event("receipts", provider="p")))])
    no_receipts: Any = (None,)
    odd: Any = [
        Life(batches.as_struct(send), settled_ms=1), Life(batches.as_struct(send), settled_ms=1), Life(send, amendments=70_000),
        Life(send, (receipt,) * 321), Life(receipt), Receive, Life(send, no_receipts),
    ]  # fmt: skip
    odd[0].send.body, odd[1].send.segments = 5, 256
    good = [Life(made, (receipt,), settled_ms=NOON_MS) for made in (send, batches.as_struct(send))]
    for life in odd:
        builder = folding._new_builder()
        lives = [*good, *good]
        lives.insert(at, life)
        assert builder.outbound(0, lives) == [life] and builder.outbound(0, good) == []
        assert [rows for rows, _ in builder.finish()] == [6]


def test_of_a_month_whose_one_message_is_refused_there_is_no_block() -> None:
    """What it had put there half-way is taken back."""
    (send,) = compiled("sends", [LogEntry(0, NOON_MS, b"m1", value(event("sends")))])
    builder = folding._new_builder()
    odd = Life(send, amendments=70_000)
    assert builder.outbound(0, [odd]) == [odd] and builder.finish() == []


def test_entries_of_any_kind_are_read() -> None:
    """What has a key, a value and an offset is an entry; what is neither bytes nor sound is doubted, not an error."""
    good = LogEntry(0, NOON_MS, b"m1", value(event("sends")))
    odd: list[Any] = [replace(good, value=None), replace(good, key=None), replace(good, value=b"{}")]
    assert compiled("sends", odd) == [None, None, None]
    with pytest.raises(AttributeError):
        compiled("sends", [object()])  # type: ignore[list-item]
