"""One message's life: the record is a function of the set of its events, however they came."""

from typing import Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.events import Receipt, Send
from schemas.record import Record
from streams import folding
from streams.effects import Rows
from streams.fold import inbound_row, outbound_row
from streams.join import RECEIPTS_MAX, Life, add_receipt, is_send_source, restore
from tests.entries import NOON_MS, event, read
from tests.histories import plain
from tests.oracle import Oracle
from tests.rows import rows_of

pytestmark = pytest.mark.usefixtures("way")
SHARD: Final = 3

TEXT: Final = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=4)
_MONEY = st.sampled_from(["0", "1", "0.0075", "1.50", "0.000000001"])
_CARRIER: Final = {
    "rate": _MONEY,
    "carrier_fee": _MONEY,
    "provider": TEXT,
    "mcc": st.just("310"),
    "mnc": st.sampled_from(["01", "260"]),
}
_CODES: Final = {"error_code": TEXT, "vendor_error_code": TEXT}
_TEXTS: Final = ("profile_id", "campaign_id", "user_data", "callback_url", "replaced_sender", "billing_number")
SENDS: Final = st.fixed_dictionaries(
    {"event_id": st.sampled_from(["b", "e1", "x"]), "at_ms": st.integers(NOON_MS, NOON_MS + 3)},
    optional={
        "segments": st.integers(1, 4),
        "body": st.text(st.characters(codec="utf-8"), max_size=3),
        "attributes": st.dictionaries(TEXT, TEXT, max_size=2),
        "tags": st.lists(TEXT, max_size=2),
        "message_type": st.sampled_from(["sms", "mms"]),
        "currency": st.just("NOK"),
        **_CARRIER,
        **dict.fromkeys(_TEXTS, TEXT),
    },
)
RECEIPTS: Final = st.fixed_dictionaries(
    {
        "event_id": st.sampled_from(["a", "b", "c"]),
        "at_ms": st.integers(NOON_MS - 2, NOON_MS + 5),
        "state": st.sampled_from(["queued", "sent", "expired", "undelivered", "failed", "rejected", "delivered"]),
    },
    optional={"segment": st.integers(1, 5), **_CODES, **_CARRIER},
)


def lived(send: dict[str, Any], receipts: list[dict[str, Any]]) -> Life:
    """The life of a message of which these events are known."""
    life = Life(read("sends", 0, **send), settled_ms=NOON_MS)
    for offset, receipt in enumerate(receipts):
        add_receipt(life, read("receipts", offset, **receipt))
    return life


def row_of(life: Life) -> Record:
    (row,) = rows_of(folding.records([Rows(SHARD, [life], [], [])], NOON_MS))
    return msgspec.convert(row, Record)


def judged(send: dict[str, Any], receipts: list[dict[str, Any]]) -> dict[str, Any]:
    """The record as the oracle has it."""
    events = [("sends", 0, send), *(("receipts", n, receipt) for n, receipt in enumerate(receipts))]
    log = [
        (topic, 0, n, NOON_MS, b"m1", msgspec.json.encode(event(topic, **fields)), NOON_MS)
        for topic, n, fields in events
    ]
    return Oracle(0).judge(log).records["outbound", "m1"]


@given(SENDS, st.lists(RECEIPTS, max_size=8))
def test_a_record_is_what_the_oracle_makes_of_the_same_events(send: dict[str, Any], receipts: list[Any]) -> None:
    """Every column of the record is that of an independent reading of the rules."""
    assert plain(row_of(lived(send, receipts))) == judged(send, receipts)


TIED: Final = [
    {"event_id": event_id, "state": state, "at_ms": NOON_MS} | more
    for event_id in ("a", "m1-1", "z")
    for state in ("queued", "sent", "failed", "rejected", "delivered")
    for more in ({}, {"segment": 1, "error_code": "1"}, {"segment": 2, "provider": "p", "vendor_error_code": "v"})
]


@pytest.mark.parametrize("first", TIED, ids=lambda it: "-".join(map(str, it.values())))
def test_ties_are_broken_alike(first: dict[str, Any]) -> None:
    """Of events of one instant, the send's too, winner and timeline go by state, then event id, then part."""
    send = {"at_ms": NOON_MS, "segments": 2}
    for second in TIED:
        assert plain(row_of(lived(send, [first, second]))) == judged(send, [first, second]), second


@given(st.data(), SENDS, st.lists(RECEIPTS, max_size=6, unique_by=lambda r: (r["event_id"], r["state"], r["at_ms"])))
def test_order_and_repeats_do_not_matter(data: st.DataObject, send: dict[str, Any], receipts: list[Any]) -> None:
    """Merging is commutative and idempotent: any order, any repeats, the same record."""
    twice = data.draw(st.permutations([*receipts, *receipts]))
    assert plain(row_of(lived(send, twice))) == plain(row_of(lived(send, receipts)))


def stripped(life: Life) -> tuple[Any, ...]:
    """What matters of a life: what it says when asked, and what it recognises as told before."""
    row = row_of(life)
    assert life.send is not None
    known = sorted((r.event_id, r.state, r.occurred_ms, r.segment, r.source) for r in life.receipts)
    return row, known, life.send.event_id, life.send.source, life.settled_ms, life.amended_ms, life.amendments


@given(SENDS, st.lists(RECEIPTS, max_size=8))
def test_a_record_gives_back_the_life_it_was_made_of(send: dict[str, Any], receipts: list[Any]) -> None:
    """A restored life makes the same row again, to the last column, and knows the same events."""
    life = lived(send, receipts)
    life.amendments, life.amended_ms = 2, NOON_MS + 7
    assert stripped(restore(row_of(life))) == stripped(life)


@given(SENDS, st.lists(RECEIPTS, max_size=6), st.lists(RECEIPTS, max_size=6))
def test_a_restored_life_goes_on_merging_where_it_stopped(send: Any, before: list[Any], after: list[Any]) -> None:
    """Events merged before and after a record was written give the record of all of them."""
    resumed = restore(row_of(lived(send, before)))
    for offset, receipt in enumerate(after):
        add_receipt(resumed, read("receipts", 100 + offset, **receipt))
    assert plain(row_of(resumed)) == plain(row_of(lived(send, before + after)))


@given(SENDS, st.lists(RECEIPTS, max_size=8))
def test_a_version_grows_with_every_fact(send: dict[str, Any], receipts: list[Any]) -> None:
    """Each merged receipt makes the version larger, each duplicate leaves it."""
    life = lived(send, [])
    version = row_of(life).version
    for offset, fields in enumerate(receipts):
        outcome = add_receipt(life, read("receipts", offset, **fields))
        grown = row_of(life).version
        assert grown > version if outcome == "merged" else grown == version
        version = grown


@given(SENDS, st.lists(RECEIPTS, max_size=4))
def test_an_open_life_survives_being_saved(send: dict[str, Any], receipts: list[Any]) -> None:
    """A life encoded as it is kept in `open_messages` and decoded again holds the same facts."""
    life = lived(send, receipts)
    again = msgspec.json.decode(msgspec.json.encode(life), type=Life)
    assert msgspec.to_builtins(again) == msgspec.to_builtins(life)


def test_a_stronger_state_outranks_any_number_of_facts() -> None:
    """A row in a stronger state has a higher version than one with 320 receipts in a weaker one."""
    weak = lived({}, [{"event_id": f"r{n}", "state": "failed"} for n in range(RECEIPTS_MAX)])
    assert len(weak.receipts) == RECEIPTS_MAX
    assert row_of(lived({}, [{"state": "delivered"}])).version > row_of(weak).version


def test_the_321st_receipt_is_refused_and_a_repeat_is_not() -> None:
    """A message takes 320 receipts; the next is `too_many_events`, one of the 320 again a `duplicate`."""
    life = lived({}, [{"event_id": f"r{n}", "state": "sent"} for n in range(RECEIPTS_MAX)])
    assert RECEIPTS_MAX == 320
    assert add_receipt(life, read("receipts", event_id="r320", state="sent")) == "too_many_events"
    assert add_receipt(life, read("receipts", event_id="r319", state="sent")) == "duplicate"
    assert len(life.receipts) == 320


def test_a_row_has_every_column_of_the_record_in_order() -> None:
    """Rows are tuples in the order of the table's columns."""
    send, receive = read("sends", body="b", mcc="242"), read("receives", error_code="7")
    assert isinstance(send, Send)
    for row in (outbound_row(Life(send, settled_ms=5), send, SHARD), inbound_row(receive, 5, SHARD)):
        assert len(row) == len(Record.__struct_fields__)
        record = msgspec.convert(row, Record)
        assert (record.message_id, record.account_id, record.settled_at, record.shard) == ("m1", "a1", 5, SHARD)


def test_an_inbound_record_says_where_it_was_read_and_when_it_was_settled() -> None:
    """An inbound row settles when it is written, with one entry in its timeline."""
    row = msgspec.convert(inbound_row(read("receives", 9, error_code="30007"), NOON_MS + 1, SHARD), Record)
    assert (row.settled_at, row.amended_at, row.amendments) == (NOON_MS + 1, None, 0)
    assert (row.timeline_source, row.timeline_state, row.timeline_error_code) == (
        ("mdr.receives:0:9",),
        ("failed",),
        ("30007",),
    )


def test_a_timeline_names_the_topic_partition_and_offset_of_each_event() -> None:
    """`source` is where in the log the first copy stood."""
    row = row_of(lived({}, [{"state": "sent"}, {"state": "sent"}, {"state": "delivered", "at_ms": NOON_MS + 1}]))
    assert row.timeline_source == ("mdr.sends:0:0", "mdr.receipts:0:0", "mdr.receipts:0:2")
    assert [is_send_source(source) for source in row.timeline_source] == [True, False, False]


def test_a_receipt_carries_nothing_it_does_not_say() -> None:
    """Merging a bare receipt leaves the send's own values in place."""
    send = {"rate": "1", "carrier_fee": "2", "provider": "p", "mcc": "242", "mnc": "01"}
    row = row_of(lived(send, [{}]))
    assert (row.rate_nanos, row.carrier_fee_nanos, row.provider, row.mcc, row.mnc) == (
        10**9,
        2 * 10**9,
        "p",
        "242",
        "01",
    )
    assert row.facts == "", "nothing private is needed"
    assert isinstance(restore(row).receipts[0], Receipt)
