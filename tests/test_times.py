"""RFC 3339 to milliseconds and back."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.times import MILLENNIUM_MS, format_rfc3339, parse_rfc3339
from tests.entries import NOON_MS
from tests.oracle_formats import Refused, moment_ms

OFFSETS: Final = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(st.datetimes(datetime(2000, 1, 3), datetime(9999, 12, 29), timezones=OFFSETS))
def test_an_instant_is_its_milliseconds_in_utc(moment: datetime) -> None:
    """Any offset; what is finer than a millisecond is cut, not rounded."""
    expected_ms = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    assert parse_rfc3339(moment.isoformat(timespec="microseconds")) == expected_ms


@given(st.integers(MILLENNIUM_MS, 253_402_300_799_999))
def test_formatting_and_parsing_are_inverse(ms: int) -> None:
    """What is formatted parses to the same millisecond."""
    assert parse_rfc3339(format_rfc3339(ms)) == ms


def test_a_time_is_shown_in_utc_with_milliseconds() -> None:
    """Always three decimals and a `Z`."""
    assert format_rfc3339(NOON_MS) == "2026-01-05T12:00:00.000Z"
    assert format_rfc3339(NOON_MS + 7) == "2026-01-05T12:00:00.007Z"


@pytest.mark.parametrize(
    "text",
    [
        "", "2026-01-05", "2026-01-05T12:00:00", "2026-01-05 12:00:00Z", "2026-01-05T12:00Z", "2026-01-05T12:00:60Z",
        "2026-01-05T24:00:00Z", "2026-02-29T12:00:00Z", "2026-13-01T00:00:00Z", "2026-01-05T12:00:00.Z",
        "2026-01-05T12:00:00+0100", "2026-01-05T12:00:00+24:00", "2026-01-05T12:00:00Z ", "２026-01-05T12:00:00Z",
        "2026-01-05T12:00:00,5Z", "0000-01-01T00:00:00Z", "2026-01-05T12:00:00z\n", "2026-W02-1T12:00:00Z",
    ],
)  # fmt: skip
def test_whatever_is_not_rfc_3339_with_an_offset_is_refused(text: str) -> None:
    """Dates alone, local times, ISO 8601's other forms, leap seconds, other digits: None."""
    assert parse_rfc3339(text) is None


_PIECES: Final = st.sampled_from(
    [
        "2026-01-05T12:00:00", "1999-12-31", "2024-02-29", "T", "t", "23:59:59", "Z", "z", ".5", ".9999", "+01:00",
        "-23:59", "0", "60", ":", "-", "+", " ", "\n", "٣",
    ]
)  # fmt: skip


@given(st.lists(_PIECES, max_size=6).map("".join))
@example("2000-01-01T00:00:00+00:01")
@example("2026-01-05t12:00:00.9999z")
def test_it_reads_what_the_oracle_reads(text: str) -> None:
    """Of any text it says what an independent reading says; what lies before 2000 is the decoder's to refuse."""
    got = parse_rfc3339(text)
    try:
        expected: int | None = moment_ms(text)
    except Refused:
        expected = None
    assert (got if got is None or got >= MILLENNIUM_MS else None) == expected
