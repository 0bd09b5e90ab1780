"""The query model: ranges, filters, keyset pages, tenancy, open messages (`api.query`, `api.where`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clickhouse_connect.driver.exceptions import ClickHouseError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api import query
from api.query import BadCursor, Key, Listing, decode_cursor, encode_cursor
from api.where import EVERYTHING, Binder, Condition, Every, Is, Range, Scope, Some, Sort, condition_sql, dump, load
from schemas.times import format_rfc3339
from streams.simulate import Plan
from streams.store import Store
from tests.api_support import START_MS, Filled, fill, ids
from tests.conditions import holds

ALL = Scope(None)
EVER = Range(START_MS - 86_400_000, START_MS + 30 * 86_400_000)
# Four hours of traffic, cut in the middle: some is settled, some is open.
CUT_MS = START_MS + 5 * 3_600_000


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    """A store with settled and open messages of several accounts."""
    store = Store(f"chdb://{tmp_path_factory.mktemp('store')}")
    yield fill(store, Plan(600, seed=7, rate_per_s=0.04, late_share=0.05), CUT_MS)
    store.close()


def all_pages(
    filled: Filled, where: Condition, limit: int, scope: Scope = ALL, pending: bool = False
) -> list[dict[str, Any]]:
    """Every record of a range, page by page."""
    found: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = query.records_page(filled.store.client, scope, EVER, where, limit, cursor, pending, "")
        found += page.records
        assert len(page.records) == limit or page.next_cursor is None
        cursor = page.next_cursor
        if cursor is None:
            return found


def as_instant(row: dict[str, Any], name: str) -> Any:
    """A truth's time as the API shows it."""
    return None if row[name] is None else format_rfc3339(row[name])


def test_pages_hold_every_record_once_and_in_order(filled: Filled) -> None:
    """Settled pages to the end and pending ones together are all messages, each once, by time."""
    settled = all_pages(filled, EVERYTHING, 37)
    every = all_pages(filled, EVERYTHING, 41, pending=True)
    assert len(set(ids(settled))) == len(settled) > 200
    assert len(set(ids(every))) == len(every) > len(settled)
    assert set(ids(every)) == set(filled.truth.records)
    keys = [query.key_of(row) for row in every]
    assert keys == sorted(keys)
    assert {row["record_type"] for row in every if row not in settled} == {"pending"}


def test_what_is_open_is_the_same_in_the_view(filled: Filled) -> None:
    """The view `messages` has the records of a listing with what is open, and `record` finds each open one."""
    every = all_pages(filled, EVERYTHING, 1000, pending=True)
    viewed = query.select(filled.store.client, "SELECT * FROM mdr.messages", Binder())
    assert sorted(viewed, key=query.key_of) == every
    opened = [row for row in every if row["record_type"] == "pending"]
    assert len(opened) > 10
    for row in opened[::5]:
        assert query.record(filled.store.client, ALL, row["message_id"]) == row


def test_a_record_is_what_the_truth_says(filled: Filled) -> None:
    """Every column of every settled or open record equals the truth's; times are `...123Z`."""
    for row in all_pages(filled, EVERYTHING, 1000, pending=True):
        truth = filled.truth.records[row["direction"], row["message_id"]]
        for name, value in truth.items():
            if name == "timeline":
                shown = [{k: v for k, v in entry.items() if k != "source"} for entry in row["timeline"]]
                assert shown == [
                    {
                        **{k: v for k, v in entry.items() if k != "source"},
                        "occurred_at": format_rfc3339(entry["occurred_at"]),
                    }
                    for entry in value
                ]
            elif name in ("occurred_at", "sent_at", "final_at"):
                assert row[name] == as_instant(truth, name)
            elif name not in ("record_type", "state") or row["record_type"] != "pending":
                assert row[name] == value, name


def test_one_record_is_found_by_its_id_within_the_scope_alone(filled: Filled) -> None:
    """By id a record or an open message is found, and not from another account's scope."""
    for row in all_pages(filled, EVERYTHING, 1000, pending=True)[::97]:
        found = query.record(filled.store.client, ALL, row["message_id"], row["direction"])
        assert found == row
        assert query.record(filled.store.client, Scope((row["account_id"],)), row["message_id"]) is not None
        assert query.record(filled.store.client, Scope(("somebody-else",)), row["message_id"]) is None


WORDS = st.sampled_from(
    ["delivered", "sent", "failed", "outbound", "+1", "", "US", "'", "\\", "a' OR 1=1 --", "%", "{p0:String}"]
)
TESTS = st.one_of(
    st.builds(
        Is,
        st.sampled_from(["state", "direction", "country", "body", "from_number", "attributes.k", "provider"]),
        st.sampled_from(["eq", "ne", "gt", "ge", "lt", "le", "contains", "starts_with", "ends_with"]),
        WORDS,
    ),
    st.builds(Is, st.sampled_from(["state", "error_code", "account_id"]), st.just("in"), st.lists(WORDS, max_size=3)),
    st.builds(
        Is,
        st.sampled_from(["segments", "amount_nanos"]),
        st.sampled_from(["eq", "ne", "gt", "le"]),
        st.integers(-2, 300),
    ),
    st.builds(Is, st.just("occurred_at"), st.sampled_from(["gt", "le"]), st.integers(START_MS, CUT_MS)),
    st.builds(Is, st.just("tags"), st.just("has_any"), st.lists(st.sampled_from(["otp", "x'"]), max_size=2)),
)
CONDITIONS = st.recursive(
    TESTS,
    lambda c: (
        st.builds(Every, st.lists(c, max_size=3).map(tuple)) | st.builds(Some, st.lists(c, max_size=3).map(tuple))
    ),
    max_leaves=6,
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(condition=CONDITIONS, pending=st.booleans())
def test_a_condition_selects_what_it_says(filled: Filled, condition: Condition, pending: bool) -> None:
    """Any tree of tests, with hostile values too, gives the rows for which it holds in Python."""
    everything = all_pages(filled, EVERYTHING, 1000, pending=pending)
    found = all_pages(filled, condition, 1000, pending=pending)
    assert ids(found) == ids([row for row in everything if holds(condition, row)])
    ask = Listing(ALL, EVER, condition, pending)
    assert load(dump(condition)) == condition
    assert query.count(filled.store.client, ask) == len(found)


def test_nobody_sees_what_is_outside_the_scope(filled: Filled) -> None:
    """A listing holds exactly the scope's accounts, with one, several and no accounts in it."""
    every = all_pages(filled, EVERYTHING, 1000, pending=True)
    accounts = sorted({row["account_id"] for row in every})
    for seen in (accounts[:1], accounts[:2], accounts, [], ["nobody"]):
        found = all_pages(filled, EVERYTHING, 50, Scope(tuple(seen)), pending=True)
        assert ids(found) == ids([row for row in every if row["account_id"] in seen])
        other = Is("account_id", "in", accounts)
        assert ids(all_pages(filled, Every((other,)), 50, Scope(tuple(seen)), pending=True)) == ids(found)


def test_offset_order_and_keyset_agree(filled: Filled) -> None:
    """Descending, ordered and offset listings are slices of the same whole, with open messages too."""
    client = filled.store.client
    for pending in (False, True):
        every = all_pages(filled, EVERYTHING, 1000, pending=pending)
        for offset in (0, 7, len(every) - 3):
            assert (
                query.listing(client, Listing(ALL, EVER, EVERYTHING, pending, 10, offset=offset))
                == every[offset : offset + 10]
            )
        down = query.listing(client, Listing(ALL, EVER, EVERYTHING, pending, 10, descending=True))
        assert down == every[::-1][:10]
        after = query.listing(client, Listing(ALL, EVER, EVERYTHING, pending, 5, after=query.key_of(every[20])))
        assert after == every[21:26]
        before = query.listing(
            client,
            Listing(ALL, EVER, EVERYTHING, pending, 5, after=query.key_of(every[20]), descending=True),
        )
        assert before == every[15:20][::-1]
        ordered = query.listing(
            client, Listing(ALL, EVER, EVERYTHING, pending, 10_000, order=(Sort("state", descending=True),))
        )
        assert [r["state"] for r in ordered] == sorted((r["state"] for r in every), reverse=True)
        assert sorted(ids(ordered)) == sorted(ids(every))


@given(
    st.builds(
        Key,
        st.integers(0, 1 << 46),
        st.text(max_size=128),
        st.sampled_from(["inbound", "outbound"]),
        st.text(max_size=20),
    )
)
def test_a_cursor_comes_back_as_the_key_it_was(key: Key) -> None:
    """Any key survives the way through a cursor."""
    assert decode_cursor(encode_cursor(key)) == key


@given(st.text(max_size=60))
def test_a_cursor_that_is_none_is_refused(text: str) -> None:
    """Any text is a cursor or `BadCursor`, nothing else."""
    try:
        decode_cursor(text)
    except BadCursor:
        return


def test_an_unknown_column_never_becomes_sql() -> None:
    """A column that no record has is a KeyError before anything is asked."""
    with pytest.raises(KeyError):
        condition_sql(Is("1; DROP TABLE mdrs", "eq", ""), Binder())


def test_a_query_that_takes_too_long_names_the_bound(filled: Filled) -> None:
    """Beyond its time a query ends with `TooSlow`, whose sentence has no SQL in it."""
    slow, bound = "SELECT sum(sipHash64(number)) FROM numbers(100000000000)", " SETTINGS max_execution_time = 0.1"
    with pytest.raises(query.TooSlow) as told:
        query.select(filled.store.client, slow, Binder(), bound)
    assert "30 s" in str(told.value) and "SELECT" not in str(told.value)


def test_a_query_that_takes_too_much_names_the_bound(filled: Filled) -> None:
    """Beyond its memory a query ends with `TooSlow`, whose sentence has no SQL in it."""
    large, bound = "SELECT groupArray(toString(number)) FROM numbers(10000000)", " SETTINGS max_memory_usage = 10000000"
    with pytest.raises(query.TooSlow) as told:
        query.select(filled.store.client, large, Binder(), bound)
    assert "1024 MiB" in str(told.value) and "SELECT" not in str(told.value)


def test_a_store_without_tables_says_so(tmp_path: Path) -> None:
    """An error of the store is one sentence without SQL."""
    assert "migrate" in str(query._told(ClickHouseError("Code: 60. DB::Exception: SELECT 1 FROM x")))
