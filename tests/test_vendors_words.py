"""Money, moments and states as the vendors write them (`api.vendors`)."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from api.query import Range
from api.reports import Report, Request
from api.vendors import carrierx, flowroute, plivo, telnyx, telnyx_v1, telnyx_v2
from api.vendors.shared import moment, money
from api.where import TYPES
from schemas.times import format_rfc3339


@pytest.mark.parametrize(
    ("nanos", "decimals", "text"),
    [
        (26_000_000, 5, "0.02600"),
        (4_000_000, 4, "0.0040"),
        (7_550_001, 4, "0.007550001"),
        (0, 0, "0"),
        (0, 5, "0.00000"),
        (15_000_000, 0, "0.015"),
        (123_000_000_000, 0, "123"),
    ],
)
def test_money_is_never_rounded(nanos: int, decimals: int, text: str) -> None:
    """At least the decimals asked for, and as many as it takes."""
    assert money(nanos, decimals) == text


def test_moments_are_read_in_their_zone() -> None:
    """Without an offset a time is the zone's; with one it is what it says; nonsense is None."""
    for text, zone, wanted in (
        ("2026-01-05", "UTC", "2026-01-05T00:00:00.000Z"),
        ("2026-01-05T08:00:00", "America/Chicago", "2026-01-05T14:00:00.000Z"),
        ("2026-01-05T08:00:00+01:00", "America/Chicago", "2026-01-05T07:00:00.000Z"),
        ("2026-01-05 08:00", "UTC", "2026-01-05T08:00:00.000Z"),
        ("2026-01-05T08:00:00 01:00", "UTC", "2026-01-05T07:00:00.000Z"),
        ("2026-01-05 08:00:00.499871", "UTC", "2026-01-05T08:00:00.499Z"),
    ):
        at = moment(text, zone)
        assert at and format_rfc3339(at.ms) == wanted
    for text in ("", "soon", "2026-1-5", "2026-02-30", "2026-01-05T25:00", "2026-01-05T08:00:00+99:00", "2026-01-05x"):
        assert moment(text) is None


def test_every_state_has_a_word_in_every_view() -> None:
    """No state a record can be in is missing from a vendor's vocabulary."""
    states = ("queued", "sent", "delivered", "undelivered", "failed", "rejected", "expired", "received")
    assert set(flowroute._STATUS) == set(states)
    shown = {s for states_ in plivo._STATES.values() for s in states_}
    assert shown == set(states)
    assert carrierx.FIELDS["status"] == carrierx.Field("state")


def _rendered() -> set[str]:
    """Every name that any view's answer holds."""
    row = {name: "" for name in TYPES if not name.startswith("timeline.")} | {
        "attributes": {}, "media_urls": [], "group_to": [], "tags": [], "state": "sent", "direction": "outbound",
        "occurred_at": "2026-01-05T08:00:00.000Z", "sent_at": "2026-01-05T08:00:01.000Z", "record_type": "complete",
        "timeline": [{"state": "sent", "error_code": "", "occurred_at": "2026-01-05T08:00:01.000Z"}],
    } | dict.fromkeys(("rate_nanos", "carrier_fee_nanos", "amount_nanos", "segments"), 1)  # fmt: skip
    span, _, echo = telnyx_v2.parse({"start_time": "2026-01-05", "end_time": "2026-01-06"})
    assert span == Range(1_767_571_200_000, 1_767_657_600_000)
    request = Request("csv", *span, None, [], "k", echo=echo)
    report = Report("r", "a", "telnyx", request, "complete", "", 0, 0, 0, 0, 0, 1)
    told = [
        carrierx.render(row), plivo.render(row, "k"), flowroute.render(row, "2"), flowroute.render(row, "2.1"),
        telnyx_v1.render(report, None), telnyx_v2.render(report, None), {cell.header: "" for cell in telnyx.CELLS},
    ]  # fmt: skip
    return set(re.findall(r'"([^"]+)": ', json.dumps(told))) - {"attributes", "type", "data"}


def test_the_table_of_fields_names_every_field_and_state() -> None:
    """Whatever a view's answer holds, and each of our states, stands in the page on the vendors' views."""
    page = (Path(__file__).parents[1] / "docs" / "vendors.md").read_text()
    missing = [name for name in sorted(_rendered()) if not re.search(rf"\b{re.escape(name)}(?!\w)", page)]
    missing += [state for state in flowroute._STATUS if state not in page]
    assert not missing
