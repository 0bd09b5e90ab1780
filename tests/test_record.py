"""The one list of columns: the table, the inserts and the views agree because they come from it."""

import re
from typing import Final

from schemas.record import (
    COLUMNS,
    PRIVATE,
    PUBLIC,
    Record,
    public_columns,
    table_columns,
)

# What users query; a column that is renamed, retyped or lost breaks them.
_PROMISED: Final = """
message_id account_id subaccount_id profile_id connection_id direction record_type state message_type from_number
to_number number_type body media_urls encoding segments segments_delivered segments_failed mcc mnc country provider
error_code vendor_error_code rate_nanos carrier_fee_nanos amount_nanos currency campaign_id campaign_status powerpack_id
conversation_id conversation_origin callback_url requester_ip user_data external_number billing_number group_to
replaced_sender registration_type tags attributes occurred_at sent_at final_at settled_at amended_at amendments
timeline.event_id timeline.state timeline.occurred_at timeline.segment timeline.error_code timeline.source version
"""
PROMISED: Final = _PROMISED.split()
TYPES: Final = {c.name: c.type for c in COLUMNS}


def test_the_columns_are_those_that_users_query() -> None:
    """Every promised column in its order, and nothing more that a view shows."""
    assert [c.name for c in PUBLIC] == PROMISED
    assert [c.name for c in COLUMNS] == [*PROMISED, *PRIVATE]


def test_types_are_as_promised() -> None:
    """Counts are small integers, money and versions wide ones, times milliseconds in UTC."""
    assert {TYPES[n] for n in ("segments", "segments_delivered", "segments_failed")} == {"UInt8"}
    assert {t for n, t in TYPES.items() if n.endswith("_nanos")} == {"Int64"}
    assert (TYPES["amendments"], TYPES["version"]) == ("UInt16", "UInt64")
    assert all("DateTime64(3, 'UTC')" in t for n, t in TYPES.items() if n.endswith("_at"))
    assert TYPES["attributes"].startswith("Map(")


def test_only_three_times_may_be_null() -> None:
    """Nothing is Nullable but `sent_at`, `final_at` and `amended_at`."""
    assert [n for n, t in TYPES.items() if "Nullable" in t] == ["sent_at", "final_at", "amended_at"]


def test_small_sets_are_low_cardinality() -> None:
    """Columns with few values are `LowCardinality(String)`, ids and numbers are not."""
    small = {"direction", "record_type", "state", "message_type", "country", "provider", "error_code", "currency"}
    assert {TYPES[n] for n in small} == {"LowCardinality(String)"}
    assert {TYPES[n] for n in ("message_id", "from_number", "to_number", "body")} == {"String"}


def test_every_statement_has_the_same_columns_in_the_same_order() -> None:
    """Table and views are one list; none shows a private column but the table."""
    assert re.findall(r"^\s*`([\w.]+)`", table_columns(), re.MULTILINE) == [*PROMISED, *PRIVATE]
    assert re.findall(r"`([\w.]+)`", public_columns()) == PROMISED
    assert len(Record.__struct_fields__) == len(COLUMNS)
