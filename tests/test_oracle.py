"""The oracle is itself only trusted as far as these plain examples go."""

from __future__ import annotations

import ast
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from tests.oracle import Oracle, Outcome

NOON_MS = 1_767_614_400_000  # 2026-01-05T12:00:00Z
WINDOW_MS = 4 * 3_600_000

COMMON = {"event_id": "e1", "message_id": "m1", "occurred_at": "2026-01-05T12:00:00Z"}
SEND: dict[str, Any] = COMMON | {"account_id": "a", "from": "+12125550100", "to": "+14165550101"}
RECEIPT: dict[str, Any] = COMMON | {"event_id": "r1", "state": "delivered"}


def judge(*events: tuple[str, dict[str, Any] | bytes], clock_ms: int = NOON_MS) -> Outcome:
    """The outcome of events in one partition, in this order, each keyed by its message."""
    log = []
    for offset, (topic, event) in enumerate(events):
        value = event if isinstance(event, bytes) else json.dumps(event).encode()
        key = b"m1" if isinstance(event, bytes) else str(event.get("message_id")).encode()
        log.append((topic, 0, offset, NOON_MS, key, value, clock_ms))
    return Oracle(WINDOW_MS).judge(log)


def send(**fields: Any) -> tuple[str, dict[str, Any]]:
    return "sends", SEND | fields


def receipt(event_id: str, state: str, second: int = 0, **fields: Any) -> tuple[str, dict[str, Any]]:
    at = f"2026-01-05T12:00:{second:02d}Z"
    return "receipts", RECEIPT | {"event_id": event_id, "state": state, "occurred_at": at} | fields


def outbound(*events: tuple[str, dict[str, Any] | bytes]) -> dict[str, Any]:
    return judge(*events).records["outbound", "m1"]


@pytest.mark.parametrize("name", ["oracle.py", "oracle_events.py", "oracle_formats.py"])
def test_the_oracle_shares_no_code_with_the_product(name: str) -> None:
    """The oracle imports nothing of schemas, streams or api."""
    tree = ast.parse((Path(__file__).parent / name).read_text("utf-8"))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
    assert not {str(module).partition(".")[0] for module in imported} & {"schemas", "streams", "api"}


def test_an_outbound_record_has_every_column_of_the_message() -> None:
    """A minimal send alone gives an incomplete record with all defaults and its derived fields."""
    assert outbound(send(body="hé", rate="0.004", carrier_fee="0.003")) == {
        "message_id": "m1", "account_id": "a", "subaccount_id": "", "profile_id": "", "connection_id": "",
        "direction": "outbound", "record_type": "incomplete", "state": "queued", "message_type": "sms",
        "from_number": "+12125550100", "to_number": "+14165550101", "number_type": "", "body": "hé",
        "media_urls": [], "encoding": "gsm7", "segments": 1, "segments_delivered": 0, "segments_failed": 0,
        "mcc": "", "mnc": "", "country": "CA", "provider": "", "error_code": "", "vendor_error_code": "",
        "rate_nanos": 4_000_000, "carrier_fee_nanos": 3_000_000, "amount_nanos": 7_000_000,
        "currency": "USD", "campaign_id": "", "campaign_status": "", "powerpack_id": "",
        "conversation_id": "", "conversation_origin": "", "callback_url": "", "requester_ip": "",
        "user_data": "", "external_number": "", "billing_number": "", "group_to": [],
        "replaced_sender": "", "registration_type": "", "tags": [], "attributes": {},
        "occurred_at": NOON_MS, "sent_at": None, "final_at": None, "facts": 1,
        "timeline": [
            {"event_id": "e1", "state": "queued", "occurred_at": NOON_MS, "segment": 0, "error_code": ""}
        ],
    }  # fmt: skip


def test_an_inbound_record_is_final_when_it_occurs() -> None:
    """A receive is complete at once; with an error code it is an error, in its timeline too."""
    good = judge(("receives", SEND)).records["inbound", "m1"]
    bad = judge(("receives", SEND | {"error_code": "0"})).records["inbound", "m1"]
    assert (good["record_type"], good["state"], good["final_at"]) == ("complete", "received", NOON_MS)
    assert (bad["record_type"], bad["state"], bad["sent_at"]) == ("error", "failed", None)
    assert (good["country"], good["segments_delivered"], bad["timeline"][0]["state"]) == ("US", 0, "failed")


def test_the_reasons_have_an_order() -> None:
    """Invalid field comes before key mismatch, that before time in future, that before conflict."""
    far = {"occurred_at": "2999-01-01T00:00:00Z"}
    log = [
        ("sends", 0, 0, 0, b"m1", json.dumps(SEND).encode(), NOON_MS),
        ("sends", 0, 1, 0, b"no", json.dumps(SEND | far | {"segments": 0}).encode(), NOON_MS),
        ("sends", 0, 2, 0, None, json.dumps(SEND | far).encode(), NOON_MS),
        ("sends", 0, 3, 0, b"m1", json.dumps(SEND | far | {"event_id": "e2"}).encode(), NOON_MS),
        ("sends", 0, 4, 0, b"m1", json.dumps(SEND | {"event_id": "e2"}).encode(), NOON_MS),
    ]
    reasons = Oracle(WINDOW_MS).judge(log).dead_letters.values()
    assert list(reasons) == ["invalid_field", "key_mismatch", "time_in_future", "conflict"]


def test_ten_minutes_ahead_is_not_yet_the_future() -> None:
    """An event may be ten minutes ahead of the clock that read it, not a millisecond more."""
    assert not judge(send(), clock_ms=NOON_MS - 600_000).dead_letters
    assert judge(send(), clock_ms=NOON_MS - 600_001).dead_letters == {("sends", 0, 0): "time_in_future"}


def test_what_a_stated_encoding_and_a_type_do_to_the_parts() -> None:
    """A stated encoding is followed, mms counts one, a stated number is kept, the escape is no character."""
    assert outbound(send(body="ж" * 161, encoding="gsm7"))["segments"] == 2
    assert outbound(send(body="x" * 71, encoding="ucs2"))["segments"] == 2
    mms = outbound(send(body="ж" * 999, message_type="mms"))
    assert (mms["segments"], mms["encoding"]) == (1, "ucs2")
    assert outbound(send(body="x", segments=9))["segments"] == 9
    assert outbound(send(body="\x1b"))["encoding"] == "ucs2"
    assert outbound(send(body="x" * 39016, segments=255, rate="1"))["amount_nanos"] == 255 * 10**9


def test_of_duplicate_keys_the_last_counts() -> None:
    """A field given twice has its last value."""
    text = json.dumps(SEND | {"body": "two"})
    assert outbound(("sends", text.replace("{", '{"body":"one",', 1).encode()))["body"] == "two"


@pytest.mark.parametrize(
    ("number", "country"),
    [
        ("+442079460000", "GB"),
        ("+14165550101", "CA"),
        ("+80012345678", ""),
        ("+999123456", ""),
        ("12345", ""),
    ],
)
def test_the_country_is_that_of_the_far_end(number: str, country: str) -> None:
    """Outbound looks at `to`, inbound at `from`; what has no region has no country."""
    assert outbound(send(to=number))["country"] == country
    inbound = judge(("receives", SEND | {"from": number})).records["inbound", "m1"]
    assert inbound["country"] == country
    assert outbound(send(to=number, country="ZZ"))["country"] == "ZZ"


def test_every_smpp_word_has_its_state() -> None:
    """SMPP words and digits, in any case, are our states."""
    words = {
        "sent": "SCHEDULED 0 EnRoute 1 ACCEPTD accepted 6 Sent", "delivered": "DELIVRD 2 DELIVERED",
        "expired": "expired 3", "undelivered": "DELETED 4 UNDELIV UNDELIVERABLE 5 Undelivered",
        "failed": "UNKNOWN 7 SKIPPED 9 FAILED", "rejected": "REJECTD 8 rejected", "queued": "Queued",
    }  # fmt: skip
    for state, said in words.items():
        for word in said.split():
            assert outbound(send(), receipt("r", word))["timeline"][-1]["state"] == state


def test_the_strongest_state_wins_then_the_earliest_then_the_smallest() -> None:
    """Rank, then time, then event, state and segment decide, in whatever order the log is."""
    facts = [
        receipt("r9", "sent", 1), receipt("r2", "failed", 5, error_code="2"),
        receipt("r1", "rejected", 5), receipt("r0", "undelivered", 6), receipt("r1", "expired", 5, segment=2),
    ]  # fmt: skip
    for order in itertools.permutations(facts):
        row = outbound(*order, send())
        assert (row["state"], row["final_at"], row["record_type"]) == ("expired", NOON_MS + 5000, "error")
    late = outbound(send(), *facts, receipt("r8", "delivered", 9), receipt("r7", "delivered", 9))
    assert (late["state"], late["record_type"], late["sent_at"]) == ("delivered", "complete", NOON_MS + 1000)


def test_error_codes_come_from_the_winning_state_only() -> None:
    """The first receipt of the winning state that carries a code gives it, each code by itself."""
    failed = [receipt("r1", "failed", 3), receipt("r2", "failed", 4, vendor_error_code="0")]
    rest = [receipt("r3", "failed", 5, error_code="30003"), receipt("r0", "undelivered", 4, error_code="1")]
    row = outbound(send(), *failed, *rest)
    assert (row["error_code"], row["vendor_error_code"]) == ("30003", "0")
    row = outbound(send(), *failed, *rest, receipt("r9", "delivered", 9))
    assert (row["error_code"], row["vendor_error_code"]) == ("", "")


def test_network_fields_come_from_the_strongest_receipt_that_carries_them() -> None:
    """Each field by itself: highest rank, then earliest, then smallest event; else the send's."""
    row = outbound(
        send(mcc="310", mnc="260", rate="1", carrier_fee="2", provider="p"),
        receipt("r1", "sent", 1, mcc="311", provider="q"),
        receipt("r3", "delivered", 3, rate="0", mcc=""),
        receipt("r2", "delivered", 3, rate="5", carrier_fee="0.5"),
    )
    assert (row["mcc"], row["mnc"], row["provider"]) == ("311", "260", "q")
    assert (row["rate_nanos"], row["carrier_fee_nanos"]) == (5 * 10**9, 5 * 10**8)
    assert row["amount_nanos"] == 55 * 10**8


def test_a_part_counts_once_by_its_strongest_state() -> None:
    """A final receipt without a segment speaks for all parts; one beyond the last part for none."""
    three = send(segments=3)
    row = outbound(three, receipt("r1", "failed"), receipt("r2", "delivered", 1, segment=2))
    assert (row["segments_delivered"], row["segments_failed"], row["state"]) == (1, 2, "delivered")
    row = outbound(three, receipt("r1", "delivered", segment=4), receipt("r2", "expired", segment=1))
    assert (row["segments_delivered"], row["segments_failed"]) == (0, 1)
    row = outbound(three, receipt("r1", "sent", segment=1), receipt("r2", "delivered", 2))
    assert (row["segments_delivered"], row["segments_failed"]) == (3, 0)


def test_the_timeline_is_in_time_order_with_ties_by_rank() -> None:
    """Every merged event shows, by time, then rank, event, state and segment."""
    row = outbound(receipt("a", "delivered"), receipt("b", "sent"), receipt("z", "sent", 1), send())
    assert [(f["event_id"], f["state"]) for f in row["timeline"]] == [
        ("e1", "queued"), ("b", "sent"), ("a", "delivered"), ("z", "sent"),
    ]  # fmt: skip
    assert row["facts"] == 4


def test_repeats_change_nothing_and_the_first_copy_counts() -> None:
    """The same event again is a duplicate, whatever else it says; after normalising the state and time."""
    outcome = judge(
        send(body="one"), send(body="two"), receipt("r", "delivered", error_code="1"),
        receipt("r", "DELIVRD", error_code="2", occurred_at="2026-01-05T13:00:00.0001+01:00"),
        ("receives", SEND), ("receives", SEND),
    )  # fmt: skip
    row = outcome.records["outbound", "m1"]
    assert (row["body"], row["error_code"], outcome.duplicates) == ("one", "1", 3)
    assert outcome.records.keys() == {("outbound", "m1"), ("inbound", "m1")}


def test_another_event_for_a_known_message_conflicts() -> None:
    """The first send in the log is kept; each later one with another event id is a dead letter."""
    outcome = judge(send(), send(event_id="e2"), send(event_id="e2"), send())
    assert outcome.dead_letters == {("sends", 0, 1): "conflict", ("sends", 0, 2): "conflict"}
    assert outcome.duplicates == 1


def test_the_first_320_receipts_of_a_message_stay() -> None:
    """The 321st distinct receipt is a dead letter, each time; repeats of kept ones and the send are not."""
    flood = [receipt(f"r{n}", "sent") for n in range(322)]
    outcome = judge(*flood, flood[0], flood[321], send())
    assert list(outcome.dead_letters.values()) == ["too_many_events"] * 3
    assert (outcome.records["outbound", "m1"]["facts"], outcome.duplicates) == (321, 1)


def test_receipts_without_a_good_send_are_orphans() -> None:
    """Receipts join outbound records only, and a dead send leaves them alone."""
    outcome = judge(receipt("r", "2", 1, segment=3), send(segments=0), ("receives", SEND))
    assert outcome.orphans == {("m1", "r", "delivered", NOON_MS + 1000, 3)}
    assert judge(receipt("r", "2"), send()).orphans == set()


def test_a_deadline_is_the_later_of_event_and_broker_time_plus_the_window() -> None:
    """The broker's time counts only as far as the worker's clock."""
    for broker_ms, clock_ms, expected_ms in [(1, 10**13, NOON_MS), (NOON_MS + 9, 10**13, NOON_MS + 9)]:
        log = [("sends", 0, 0, broker_ms, b"m1", json.dumps(SEND).encode(), clock_ms)]
        assert Oracle(WINDOW_MS).judge(log).deadlines_ms == {"m1": expected_ms + WINDOW_MS}
    capped = [("sends", 0, 0, 10**14, b"m1", json.dumps(SEND).encode(), NOON_MS + 5)]
    assert Oracle(WINDOW_MS).judge(capped).deadlines_ms == {"m1": NOON_MS + 5 + WINDOW_MS}


def test_the_first_in_the_log_is_by_partition_and_offset() -> None:
    """The order in which entries are handed over does not matter."""
    entries = []
    for partition, offset in [(0, 7), (1, 0), (0, 9)]:
        value = json.dumps(SEND | {"body": f"{partition}{offset}"}).encode()
        entries.append(("sends", partition, offset, 0, b"m1", value, NOON_MS))
    for order in itertools.permutations(entries):
        assert Oracle(WINDOW_MS).judge(order).records["outbound", "m1"]["body"] == "07"
