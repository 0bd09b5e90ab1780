"""Dead letters: opened, masked, judged, and sent once more through a real broker."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api import auth
from api import dead_letters as paths
from api.dead_letters import Filter, Redrive
from api.http import Call, Refusal
from api.where import Scope
from schemas.strict_json import Rejected
from streams import dead_letters, kafka, letters, record_batches
from streams.agents import Worker
from streams.cli.letters import Desk
from streams.clock import clock_ms
from streams.letters import Draft, Letter
from streams.record_batches import Part
from streams.settings import Settings
from streams.store import Store
from tests import pipeline
from tests.api_support import OPERATOR, Asker, Clock, basic, bearer, served
from tests.entries import LogEntry

GOOD: Final = (
    b'{"event_id":"e","message_id":"%s","occurred_at":"2026-01-31T09:15:04Z","account_id":"a",'
    b'"from":"+14155550100","to":"+12125550101","body":"hello there"}'
)
EVERY: Final = Filter()


def _letter(value: bytes = b"{", reason: str = "invalid_json", detail: str = "", **more: Any) -> Letter:
    return _opened(letters.entry_letter("mdr.sends", 2, LogEntry(7, 99, b"k", value, **more), reason, detail))


def _opened(made: Draft, most: int = letters.LETTER_BYTES_MAX) -> Letter:
    """A letter as it is read back."""
    return letters.open_letter("mdr.dead-letters", 1, LogEntry(4, 100, *made.within(most)))


def test_exactly_the_six_headers_that_were_added_come_off() -> None:
    """An input with headers of the same names keeps them; the redriven event is the input plus its count."""
    own = (("reason", b"mine"), ("offset", b"\xff"), ("topic", b"x"))
    opened = _letter(headers=own)
    assert (opened.source, opened.timestamp_ms, opened.headers) == ("mdr.sends:2:7", 99, own)
    assert letters.redriven(opened) == (b"k", b"{", [*own, ("mdr-redriven", b"1")])


def test_the_count_of_redrives_is_one_header() -> None:
    """What came back is sent with the next number in the place of the last; a count that is no number counts as one."""
    _, _, back = letters.redriven(_letter(headers=((letters.REDRIVEN, b"1"), ("h", b""))))
    assert back == [("h", b""), (letters.REDRIVEN, b"2")]
    assert _letter(headers=((letters.REDRIVEN, None),)).attempts == 1
    assert _letter(headers=((letters.REDRIVEN, b"many"),)).attempts == 1


def test_an_entry_without_the_six_headers_is_shown_and_never_sent() -> None:
    """Whatever lies on the topic is listed; what does not say where it came from cannot go back there."""
    strange = letters.open_letter("mdr.dead-letters", 1, LogEntry(4, 100, b"k", b"v", (("topic", b"mdr.sends"),)))
    assert (strange.reason, strange.source) == ("unknown", "mdr.dead-letters:1:4")
    assert letters.refusal(strange, letters.verdict(strange, "mdr.", 0), "", force=True, again=True)


some_bytes = st.one_of(st.none(), st.binary(max_size=60), st.integers(0, 4_000).map(bytes))
some_headers = st.lists(
    st.tuples(st.one_of(st.just("cut"), st.text(max_size=9), st.just("\udcff")), some_bytes), max_size=8
)


@given(some_bytes, some_bytes, some_headers, st.integers(-(1 << 63), (1 << 63) - 1), st.integers(300, 6_000))
def test_every_letter_fits(key: Any, value: Any, headers: Any, ms: int, most: int) -> None:
    """Value, then headers, then key are cut, said in a header; a letter that fits is the input, byte for byte."""
    entry = LogEntry(7, ms, key, value, headers)
    made = letters.entry_letter("mdr.sends", 2, entry, "invalid_json", "value: " + "é" * 40)
    sent = made.within(most)
    opened = _opened(made, most)
    base = record_batches.size_of(None, None, [("cut", b"*" * 200), *made.ours])
    assert len(record_batches.encode([sent], 1 << 42)) <= max(most, base)
    assert (opened.source, opened.timestamp_ms) == ("mdr.sends:2:7", ms)
    kept = (opened.key, opened.value, list(opened.headers))
    assert (opened.cut == "") == (kept == (key, value, headers)), opened.cut
    assert (key or b"").startswith(kept[0] or b"") and (value or b"").startswith(kept[1] or b"")
    assert headers[: len(kept[2])] == kept[2]
    if kept[0] != key:
        assert not kept[2] and not kept[1]
    letters.shown(opened, True, ())
    letters.shown(opened, False, ())


def test_what_was_cut_is_told_with_the_sizes_it_had() -> None:
    """Also of what was never read whole."""
    part = Part(3, 5, b"k", bytes(3_000), [("h", b"x")], 3, (1, 257 << 20, 9), Rejected("too_large", "value: x"))
    told = f"value {2_000} of {257 << 20} bytes, headers 1 of 9"
    made = letters.entry_letter("t", 0, part, "too_large", "value: x")
    room = 2_000 - len(_opened(made, 2_500).value or b"")
    assert _opened(made, 2_500 + room).cut == told
    assert _opened(letters.entry_letter("t", 0, LogEntry(1, 2, None, None), "empty_value", "")).cut == ""


def test_a_header_of_the_input_that_is_called_cut_is_not_ours() -> None:
    """Where there is one at the end, ours follows it and says nothing."""
    opened = _letter(headers=(("cut", b"value 1 of 2 bytes"),))
    assert (opened.cut, letters.is_cut(opened), opened.headers) == ("", False, (("cut", b"value 1 of 2 bytes"),))


@pytest.mark.parametrize(
    "ours",
    [
        [("reason", None)] * 6, [(name, None) for name in letters._OURS], [(name, b"9" * 5_000) for name in letters._OURS],
        [(name, b"-1") for name in letters._OURS], [(name, b"\xff") for name in letters._OURS], [("\udcff", None)],
    ],
)  # fmt: skip
def test_whatever_lies_on_the_topic_can_be_shown(ours: Any) -> None:
    """It is an entry that does not say where it came from."""
    opened = letters.open_letter("mdr.dead-letters", 1, LogEntry(4, -(1 << 63), None, None, ours))
    assert (opened.reason, opened.topic, opened.headers) == ("unknown", "", tuple(ours))
    assert letters.shown(opened, True, ())["landed"] == "0001-01-01T00:00:00.000Z"


def test_the_fingerprint_is_of_the_kind_of_fault() -> None:
    """Numbers and quoted values do not count, the field and the reason do."""
    print_ = letters.fingerprint
    assert print_("invalid_json", "byte 17") == print_("invalid_json", "byte 3")
    assert print_("unstorable", "cannot parse '12x' in row 5") == print_("unstorable", "cannot parse 'yy' in row 17")
    assert letters.kind("to: neither E.164 nor a short code") == "to: neither E.164 nor a short code"
    assert print_("missing_field", "to: required") != print_("missing_field", "from: required")
    assert print_("too_large", "9 bytes; value cut to 5 of 9 bytes") == print_("too_large", "9 bytes")


SAID: Final = Rejected("invalid_field", "to: not a number")


@pytest.mark.parametrize(
    ("letter", "said", "at", "flags", "why"),
    [
        (_letter(), None, "", (False, False), ""),
        (_letter(), SAID, "", (False, False), "it would come back: invalid_field to: not a number"),
        (_letter(), SAID, "", (True, False), ""),
        (_letter(), None, "2026Z", (True, False), "it was redriven at 2026Z already"),
        (_letter(), None, "2026Z", (False, True), ""),
        (_letter(headers=(("mdr-redriven", b"2"),)), None, "", (False, False), ""),
        (_letter(headers=(("mdr-redriven", b"3"),)), None, "", (False, True), "it came back 3 times"),
        (_letter(headers=(("mdr-redriven", b"3"),)), None, "", (True, False), ""),
        (_letter(detail="x; value cut to 1 of 2 bytes"), None, "", (True, True), "it was cut"),
        (_letter()._replace(cut="value 1 of 2 bytes"), None, "", (True, True), "it was cut"),
    ],
)
def test_what_speaks_against_sending_once_more(
    letter: Letter, said: Rejected | None, at: str, flags: tuple[bool, bool], why: str
) -> None:
    """Sent already, back too often, refused again, cut: each is a reason, and only the last cannot be overruled."""
    told = letters.refusal(letter, said, at, force=flags[0], again=flags[1])
    assert told.startswith(why) and bool(told) == bool(why)


@pytest.mark.parametrize(
    "value",
    [
        GOOD % b"m",
        GOOD[:-9] + b"\xff",
        b'{"to":14155550100,"x":["+14155550100"],"+14155550100":1}',
        b"+14155550100 hello",
    ],
)
def test_masked_shows_no_number_and_no_body(value: bytes) -> None:
    """Whether or not the value can be parsed."""
    shown = letters.masked(value)
    assert shown and not any(secret in shown for secret in ("5550100", "5550101", "hello", "there"))


def test_readable_is_text_with_escapes_or_base_16() -> None:
    """What cannot be seen is escaped, what is no text is in base 16."""
    assert letters.readable(b'{"a":"\xc3\xa9\x1b[2J\xff\n') == '{"a":"é\\x1b[2J\\xff\\n'
    assert letters.readable(b"\x00\x01\x02\xff") == "00 01 02 ff"
    assert letters.readable(None) is None


# ---- through a real broker -------------------------------------------------------------------------------------


async def _bury(settings: Settings, entries: Sequence[tuple[str, LogEntry, str, str]]) -> None:
    await kafka.create_topics(settings)
    topic = settings.topic_prefix + kafka.DEAD_LETTERS
    async with kafka.producing(settings) as client:
        for name, entry, reason, detail in entries:
            made = letters.entry_letter(settings.topic_prefix + name, 0, entry, reason, detail)
            await kafka.produce(client, [(topic, made.within())])


@pytest.fixture(scope="module")
def buried(kafka_at: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Settings, Desk]]:
    """A topic with thirty letters, one of them twice; and an empty store."""
    settings = pipeline.make_settings(kafka_at, tmp_path_factory.mktemp("dead"), "dead.")
    store = Store(settings.clickhouse_url)
    store.migrate(90, 30)
    bad = [("sends", LogEntry(n, 50 + n, b"b%d" % n, b"{%d" % n), "invalid_json", f"byte {n}") for n in range(27)]
    fine = ("receives", LogEntry(1, 1, b"fine", GOOD % b"fine", (("h", b"\x00"),)), "time_in_future", "occurred_at: x")
    back = ("receives", LogEntry(2, 2, b"back", GOOD % b"back", (("mdr-redriven", b"3"),)), "unstorable", "row 7")
    asyncio.run(_bury(settings, [*bad, fine, bad[0], back, ("sends", LogEntry(99, 9, None, b""), "empty_value", "")]))
    yield settings, Desk(settings)
    store.close()


def test_pages_hold_each_letter_once_newest_first(buried: tuple[Settings, Desk]) -> None:
    """However small the pages, together they are every input once, and the copy counts for nothing."""
    _, desk = buried
    found: list[dict[str, Any]] = []
    cursor = None
    while cursor is not None or not found:
        page = desk.page(EVERY, 7, cursor, True)
        found += page["dead_letters"]
        cursor = page["next_cursor"]
        assert (page["total"], page["scanned"], page["truncated"]) == (30, 31, False)
    places = [(letter["topic"], letter["offset"]) for letter in found]
    assert len(set(places)) == len(places) == 30
    assert found == sorted(found, key=lambda letter: letter["landed"], reverse=True)


def test_filters_choose_letters(buried: tuple[Settings, Desk]) -> None:
    """By reason, topic with or without prefix, fingerprint, key and time; a cursor of nobody is a ValueError."""
    _, desk = buried
    kind = letters.fingerprint("invalid_json", "byte 1")

    def count(**wanted: Any) -> int:
        return int(desk.page(Filter(**wanted), 1, None, True)["total"])

    assert (count(reason="invalid_json"), count(topic="receives"), count(topic="dead.receives")) == (27, 2, 2)
    assert (count(fingerprint=kind), count(key="fine"), count(until_ms=1), count(until_ms=1 << 42)) == (27, 1, 0, 30)
    with pytest.raises(ValueError, match="invalid literal"):
        desk.page(EVERY, 1, "next", True)


def test_a_scan_tells_when_it_did_not_see_all(buried: tuple[Settings, Desk], monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounded by a number of entries, it has the newest, and says that there are older ones."""
    monkeypatch.setattr(dead_letters, "_WINDOW", 2)
    scan = asyncio.run(dead_letters.scan(buried[0], dead_letters.Wanted(), most=8))
    assert scan.truncated and 8 <= scan.scanned < 31
    assert scan.letters[0].reason == "empty_value"


def test_the_summary_counts_by_kind(buried: tuple[Settings, Desk]) -> None:
    """One group for each reason, fingerprint and topic, with an example that can be shown."""
    _, desk = buried
    groups = desk.summary(EVERY)["groups"]
    told = [(g["reason"], g["count"]) for g in groups]
    assert told == [("invalid_json", 27), ("empty_value", 1), ("time_in_future", 1), ("unstorable", 1)]
    assert groups[0]["detail"] == "byte *"
    shown = desk.one(groups[2]["example_id"], True)
    assert shown is not None and shown["now"] == "ok"
    assert shown["dead_letter"]["headers"] == [{"name": "h", "value": "00"}]
    assert desk.one("dead.dead-letters:0:999", True) is None
    assert desk.one("dead.sends:0:0", True) is None


def test_a_redriven_letter_becomes_its_record_and_is_not_sent_twice(buried: tuple[Settings, Desk]) -> None:
    """A dry run changes nothing; what is sent is byte for byte the input; who asks again is refused, by name."""
    settings, desk = buried
    every = Redrive(filter=EVERY)
    dry = desk.redrive(every._replace(dry_run=True), "me")
    assert (dry["would"], dry["outcomes"]) == (1, {"invalid_json": 27, "ok": 2, "empty_value": 1})
    assert {"it came back 3 times"} < {refused["why"] for refused in dry["refused"]}
    assert asyncio.run(pipeline.read_log(settings)) == []
    assert desk.redrive(every, "me")["redriven"] == 1
    ((topic, sent),) = asyncio.run(pipeline.read_log(settings))
    assert (topic, sent.key, sent.value) == ("receives", b"fine", GOOD % b"fine")
    assert sent.headers == (("h", b"\x00"), ("mdr-redriven", b"1"))
    assert desk.redrive(every, "me")["redriven"] == 0
    letter = desk.page(Filter(key="fine"), 1, None, True)["dead_letters"][0]
    assert letter["redriven"] == 1 and letter["redriven_at"]
    again = desk.redrive(Redrive(ids=(letter["id"], "nowhere"), again=True), "you")
    assert (again["redriven"], again["refused"]) == (1, [{"id": "nowhere", "why": "there is no such dead letter"}])
    _assert_audit_and_record(settings)


def _assert_audit_and_record(settings: Settings) -> None:
    store = Store(settings.clickhouse_url)
    rows = store.query("SELECT who, outcome, topic, offset, placed_at FROM redrives ORDER BY at, outcome", {})
    place = "dead.receives", 1
    assert [tuple(row[:4]) for row in rows] == [
        ("me", "begun", *place), ("me", "redriven", *place), ("you", "begun", *place), ("you", "redriven", *place),
    ]  # fmt: skip
    assert rows[1][4].startswith("dead.receives:")

    async def work() -> None:
        worker = Worker(settings, await kafka.check_topics(settings))
        await worker.start()
        await pipeline.settle_all(worker, 2)
        await worker.stop()

    asyncio.run(work())
    assert store.query("SELECT message_id FROM mdr", {}) == [("fine",)]
    store.close()


def test_a_begun_redrive_counts_as_done(buried: tuple[Settings, Desk]) -> None:
    """A crash between the audit and the broker leaves `begun`: sent perhaps, so not again; one that failed was not."""
    settings, _ = buried
    store = Store(settings.clickhouse_url)
    letter = asyncio.run(dead_letters.scan(settings, dead_letters.Wanted(key=b"back"))).letters[0]
    assert not dead_letters.audit(store, [letter])
    dead_letters.write_audit(store, [letter], 1_000, "me", [("begun", "", "")])
    dead_letters.write_audit(store, [letter], 1_000, "me", [("failed", "no", "")])
    assert not dead_letters.audit(store, [letter])
    dead_letters.write_audit(store, [letter], 2_000, "me", [("begun", "", "")])
    assert dead_letters.audit(store, [letter]) == {("dead.receives", 0, 2): ["1970-01-01T00:00:02.000Z"]}
    store.close()


def test_a_broker_that_is_away_is_told(tmp_path: Path) -> None:
    """The desk answers with a sentence and 503."""
    with pytest.raises(Refusal, match="cannot be reached") as told:
        Desk(pipeline.make_settings("127.0.0.1:1", tmp_path, "x.")).summary(EVERY)
    assert told.value.status == 503


def test_the_paths_are_the_operators(buried: tuple[Settings, Desk], tmp_path: Path) -> None:
    """Page, summary, one and redrive over HTTP; masked when asked for; an account may not; mistakes are named."""
    settings, desk = buried
    store = Store(settings.clickhouse_url)
    account = auth.add_credential(store.client, "acme", scopes=list(auth.SCOPES))
    with served(store.url, tmp_path, Clock(1), letters=desk) as client:
        ask = Asker(client, basic(*OPERATOR))
        page = ask.get("/mdr/dead-letters", reason="time_in_future")
        assert page["dead_letters"][0]["value_text"] == (GOOD % b"fine").decode()
        masked = ask.get("/mdr/dead-letters", reason="time_in_future", masked="true")["dead_letters"][0]
        assert (masked["masked"], masked["value_base64"], "5550100" in masked["value_text"]) == (True, None, False)
        assert ask.get(f"/mdr/dead-letters/{masked['id']}")["dead_letter"]["id"] == masked["id"]
        assert ask.get("/mdr/dead-letters/x:0:0", status=404)["field"] == "id"
        assert ask.get("/mdr/dead-letters/summary")["scanned"] == 31
        dry = {"filter": {"topic": "sends"}, "dry_run": True}
        assert ask.send("POST", "/mdr/dead-letters/redrive", dry)["would"] == 0
        for body, field in _MISTAKES:
            assert ask.send("POST", "/mdr/dead-letters/redrive", body, 400)["field"] == field
        assert ask.get("/mdr/dead-letters", cursor="next", status=400)["field"] == "cursor"
        Asker(client, bearer(account)).get("/mdr/dead-letters", status=403)
    with served(store.url, tmp_path, Clock(1)) as client:
        Asker(client, basic(*OPERATOR)).get("/mdr/dead-letters", status=503)
    store.close()


_MISTAKES: Final[list[tuple[dict[str, Any], str]]] = [
    ({}, "ids"),
    ({"ids": [], "filter": {}}, "ids"),
    ({"ids": [1]}, "ids"),
    ({"filter": {"key": "x"}}, "filter"),
    ({"filter": {"until": "yesterday"}}, "until"),
    ({"filter": {}, "again": True}, "again"),
    ({"ids": [], "rate": 0}, "rate"),
    ({"ids": [], "force": "yes"}, "force"),
    ({"ids": [], "loud": True}, "loud"),
]


def test_a_redrive_ends_in_time_and_tells_what_remains(buried: tuple[Settings, Desk]) -> None:
    """What would take longer than a request may is left for the next one; the rate is kept."""
    settings, _ = buried
    store = Store(settings.clickhouse_url)
    found = asyncio.run(dead_letters.scan(settings, dead_letters.Wanted(topic="receives"))).letters
    with pytest.raises(Refusal, match="at most 3 ids"):
        ids = tuple(letter["id"] for letter in buried[1].page(EVERY, 9, None, True)["dead_letters"])
        buried[1].redrive(Redrive(ids=ids, rate=0.1, force=True, again=True), "me")
    assert asyncio.run(dead_letters.send(settings, store, found, "me", 10.0, clock_ms, 0.0)) == 0
    assert asyncio.run(dead_letters.send(settings, store, found[:1] * 3, "me", 1.0, clock_ms, 1.5)) == 2
    store.close()


def test_who_may_not_see_bodies_sees_none(buried: tuple[Settings, Desk]) -> None:
    """Without the scope `bodies.read` a letter is masked, whatever is asked for."""
    blind = auth.Caller("k", "", frozenset({auth.READ}), Scope(None))
    call = Call("GET", "/", {}, [("reason", "time_in_future"), ("masked", "false")], {}, b"", "", blind, 1)
    context: Any = SimpleNamespace(letters=buried[1])
    letter = json.loads(paths.listed(call, context).body)["dead_letters"][0]
    assert letter["masked"] and "5550100" not in letter["value_text"]
