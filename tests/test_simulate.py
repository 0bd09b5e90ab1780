"""Simulated traffic is reproducible, looks like the field's, and its truth is the oracle's."""

from __future__ import annotations

import ast
import itertools
import json
import zlib
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import phonenumbers
import pytest
import smsutil

from streams import simulate
from streams.simulate import Event, Plan, Truth, bodies, events, expected, records_jsonl, world
from tests.oracle import Oracle, Outcome

WINDOW_MS = 4 * 3_600_000
QUIET = Plan(
    messages=1000, missing_share=0, late_share=0, early_share=0, reordered_share=0, duplicate_share=0,
    altered_share=0, conflict_share=0, orphan_share=0, broken_share=0,
)  # fmt: skip
STORMY = Plan(
    messages=2000, late_share=0.05, early_share=0.05, reordered_share=0.05, duplicate_share=0.1,
    altered_share=0.05, conflict_share=0.02, orphan_share=0.02, broken_share=0.1, floods=2,
)  # fmt: skip


def changed(plan: Plan, **fields: Any) -> Plan:
    return Plan(**{name: getattr(plan, name) for name in Plan.__slots__} | fields)


def judged(log: list[Event], partitions: int = 4) -> tuple[Outcome, dict[tuple[str, int, int], Event]]:
    """The oracle's outcome, and which event lies where."""
    ends: Counter[tuple[str, int]] = Counter()
    places = {}
    for event in log:
        partition = zlib.crc32(event.key) % partitions
        places[event.topic, partition, ends[event.topic, partition]] = event
        ends[event.topic, partition] += 1
    entries = [(*place, event.at_ms, event.key, event.value, event.at_ms) for place, event in places.items()]
    return Oracle(WINDOW_MS).judge(entries), places


@pytest.mark.parametrize(
    "plan",
    [Plan(3000, seed=1), Plan(3000, seed=2, rate_per_s=2000.0, inbound_share=0.5), QUIET]
    + [changed(STORMY, seed=seed) for seed in (3, 4, 5)]
    + [changed(STORMY, seed=6, settling_ms=2000, account="solo")],
)  # fmt: skip
def test_the_truth_is_what_the_oracle_says(plan: Plan) -> None:
    """Two implementations apart from each other give equal records, orphans, duplicates and reasons."""
    log = list(events(plan))
    truth = expected(log)
    outcome, places = judged(log)
    records = {key: {n: v for n, v in row.items() if n != "facts"} for key, row in outcome.records.items()}
    assert records == truth.records
    assert outcome.orphans == truth.orphans
    assert outcome.duplicates == truth.duplicates
    broken = {place: event.broken for place, event in places.items() if event.broken}
    assert outcome.dead_letters == broken


def test_the_same_plan_gives_the_same_events() -> None:
    """Nothing but the plan decides a byte, and the seed decides them all."""
    again = list(events(STORMY))
    assert again == list(events(STORMY))
    other = {event.key for event in events(changed(STORMY, seed=99))}
    assert not other & {event.key for event in again if not event.broken}


def test_events_come_in_the_order_they_are_produced() -> None:
    """`at_ms` never goes back, nor before the start, and no event is dated after it was written."""
    log = list(events(STORMY))
    moments = [event.at_ms for event in log]
    assert moments == sorted(moments)
    for event in log:
        if not event.broken:
            at = datetime.fromisoformat(json.loads(event.value)["occurred_at"].upper())
            assert STORMY.start_ms - 1000 < at.timestamp() * 1000 < event.at_ms + 1


@pytest.mark.parametrize("settling_ms", [1000, 60_000, WINDOW_MS])
def test_the_last_event_is_not_far(settling_ms: int) -> None:
    """No event comes later than `tail_ms` after its message, however late, slow and replayed it is."""
    plan = changed(STORMY, settling_ms=settling_ms, late_share=1.0, duplicate_share=1.0, broken_share=0.0)
    firsts = dict[bytes, int]()
    for event in events(plan):
        assert event.at_ms - firsts.setdefault(event.key, event.at_ms) < plan.tail_ms


def test_traffic_is_a_stream() -> None:
    """The first events of an endless plan come without the rest being made."""
    endless = events(Plan(messages=10**12))
    assert len(list(itertools.islice(endless, 100))) == 100


def test_every_message_ends_as_one_record() -> None:
    """`messages` is the number of records, whatever is repeated, lost or broken beside them."""
    for plan in (QUIET, STORMY):
        truth = expected(events(plan))
        assert len(truth.records) == plan.messages
        inbound = sum(direction == "inbound" for direction, _ in truth.records)
        assert 0.1 < inbound / plan.messages < 0.26


def test_a_quiet_plan_has_nothing_odd() -> None:
    """With every share at zero all outbound messages are final and no event is lost or twice."""
    truth = expected(events(QUIET))
    assert (truth.duplicates, truth.dead_letters, truth.orphans) == (0, [], set())
    assert {row["record_type"] for row in truth.records.values()} == {"complete", "error"}


def receipt_lags_ms(plan: Plan) -> list[int]:
    """How long after its send each message's last receipt is written."""
    written: dict[str, dict[bytes, int]] = {"sends": {}, "receives": {}, "receipts": {}}
    for event in events(plan):
        written[event.topic][event.key] = event.at_ms
    return [at_ms - written["sends"][key] for key, at_ms in written["receipts"].items()]


def test_shares_do_what_they_say() -> None:
    """Late, early, missing, orphaned and copied events appear when asked for."""
    ordinary = max(receipt_lags_ms(QUIET))
    assert ordinary < WINDOW_MS < min(receipt_lags_ms(changed(QUIET, late_share=1.0)))
    records = expected(events(changed(QUIET, missing_share=1.0, inbound_share=0.0))).records.values()
    assert {row["record_type"] for row in records} == {"incomplete"}
    assert len({key for key, *_ in expected(events(changed(QUIET, orphan_share=0.5))).orphans}) > 400
    firsts = dict[bytes, str]()
    for event in events(changed(QUIET, early_share=1.0, inbound_share=0.0)):
        firsts.setdefault(event.key, event.topic)
    assert set(firsts.values()) == {"receipts"}
    assert expected(events(changed(QUIET, duplicate_share=0.5))).duplicates > 300
    assert expected(events(changed(QUIET, altered_share=0.5))).duplicates > 300
    assert expected(events(changed(QUIET, conflict_share=1.0))).reasons == {"conflict": QUIET.messages}


def test_every_reason_a_topic_can_have_occurs() -> None:
    """A stormy plan holds a dead letter of every reason, on every topic where it can be."""
    reasons = {"empty_value", "too_large", "invalid_utf8", "invalid_json", "not_an_object", "missing_field"}
    reasons |= {"invalid_field", "key_mismatch", "time_in_future"}
    seen = {(event.topic, event.broken) for event in events(changed(STORMY, broken_share=0.3)) if event.broken}
    for topic in ("sends", "receives"):
        assert {reason for where, reason in seen if where == topic} == reasons | {"conflict"}
    assert {reason for where, reason in seen if where == "receipts"} == reasons | {"too_many_events"}


def test_a_flood_keeps_320_receipts() -> None:
    """Each flood loses its last ten receipts and no others."""
    truth = expected(events(changed(QUIET, floods=3)))
    assert truth.reasons == {"too_many_events": 30}
    assert sorted(len(row["timeline"]) for row in truth.records.values())[-3:] == [321] * 3


def test_the_order_between_topics_does_not_matter() -> None:
    """The truth is the same when all receipts come first or last."""
    log = list(events(STORMY))
    truth = expected(log)
    for order in (["receipts", "sends", "receives"], ["receives", "sends", "receipts"]):
        other = expected(sorted(log, key=lambda event: order.index(event.topic)))
        assert (other.records, other.orphans) == (truth.records, truth.orphans)
        assert (other.duplicates, other.reasons) == (truth.duplicates, truth.reasons)


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    """The records of an ordinary plan."""
    return list(expected(events(Plan(6000, seed=11))).records.values())


def test_traffic_looks_like_the_field(rows: list[dict[str, Any]]) -> None:
    """Few of twenty accounts send most; countries, types, states, sizes and errors are mixed."""
    accounts = [count for _, count in Counter(row["account_id"] for row in rows).most_common()]
    assert len(accounts) == 20
    assert accounts[0] > 8 * accounts[-1]
    for column, least in {
        "country": 10, "state": 7, "segments": 4, "encoding": 2, "message_type": 3, "number_type": 4,
        "mcc": 10, "mnc": 12, "provider": 6, "error_code": 10, "currency": 2, "campaign_id": 5,
        "subaccount_id": 10, "profile_id": 25, "connection_id": 20, "callback_url": 5,
        "segments_delivered": 4, "body": 500,
    }.items():  # fmt: skip
        assert len({row[column] for row in rows}) >= least, column
    assert any(row["media_urls"] for row in rows)
    assert any("dlt_entity_id" in row["attributes"] for row in rows)
    assert any(row["segments_failed"] for row in rows if row["record_type"] == "complete")
    assert 0.9 < sum(row["record_type"] == "complete" for row in rows) / len(rows) < 0.97


def test_delivery_delays_have_a_long_tail(rows: list[dict[str, Any]]) -> None:
    """Half the deliveries take seconds, the slowest many minutes."""
    delivered = [row for row in rows if row["state"] == "delivered"]
    delays = sorted(row["final_at"] - row["occurred_at"] for row in delivered)
    assert 1000 < delays[len(delays) // 2] < 10_000
    assert delays[-1] > 600_000


def test_one_account_can_take_all_the_traffic() -> None:
    """`account` replaces every account and leaves the rest of the world as it is."""
    truth = expected(events(changed(QUIET, account="acme")))
    assert {row["account_id"] for row in truth.records.values()} == {"acme"}
    assert len({row["provider"] for row in truth.records.values()}) > 3


@pytest.mark.parametrize("country", ["US", "CA", "GB", "FR", "DE", "SE", "IE", "IN", "BR", "MX", "JP"])
def test_numbers_are_fictitious_and_of_their_country(country: str) -> None:
    """Every number parses, and has its country's region unless that region has no such range."""
    numbers = world.numbers(country)
    regions = {phonenumbers.region_code_for_number(phonenumbers.parse(number)) for number in numbers}
    assert regions == ({"GB", None} if country == "GB" else {country})
    assert len(set(numbers)) == len(numbers) >= 95


def test_texts_have_the_size_a_published_library_counts() -> None:
    """Encoding and parts of every text are those of smsutil."""
    for kind, by_language in bodies.KINDS.items():
        for text in itertools.chain(*(bodies.texts(kind, language) for language in by_language)):
            split = smsutil.split(text.body.replace("#", "000000"))
            assert text.encoding == {"gsm0338": "gsm7", "utf_16_be": "ucs2"}[split.encoding]
            assert text.segments == len(split.parts)


def test_records_are_written_as_json_lines_in_order() -> None:
    """One object a line by message, with times as the API shows them."""
    send = b'{"event_id":"e","message_id":"%s","occurred_at":"2026-01-05T13:00:00.1239+01:00",' \
        b'"account_id":"a","from":"72345","to":"+12125550100"}'  # fmt: skip
    log = [Event("sends", key, send % key, 0, "") for key in (b"m2", b"m1")]
    lines = [json.loads(line) for line in records_jsonl(expected(log))]
    assert [line["message_id"] for line in lines] == ["m1", "m2"]
    assert lines[0]["occurred_at"] == lines[0]["timeline"][0]["occurred_at"] == "2026-01-05T12:00:00.123Z"
    assert lines[0]["final_at"] is None
    assert list(records_jsonl(Truth())) == []


def test_the_simulator_shares_no_code_with_the_rest_of_the_product() -> None:
    """Nothing in streams/simulate imports schemas, api or another part of streams, nor time or a driver."""
    allowed = {"orjson", "phonenumbers", "streams"} | {"collections", "dataclasses", "datetime", "functools"}
    allowed |= {"heapq", "itertools", "math", "random", "statistics", "typing", "__future__"}
    for path in Path(simulate.__file__).parent.glob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        modules = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        modules |= {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
        assert {module.partition(".")[0] for module in modules} <= allowed
        own = [module for module in modules if module.startswith("streams")]
        assert all(module.startswith("streams.simulate") for module in own)
