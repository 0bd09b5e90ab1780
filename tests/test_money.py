"""Decimal strings to nanos and back."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.money import format_nanos, parse_nanos

NANOS_MAX = 10**16 - 1


@given(st.integers(0, NANOS_MAX))
def test_formatting_and_parsing_are_inverse(nanos: int) -> None:
    """Every amount that can be stated comes back exactly."""
    assert parse_nanos(format_nanos(nanos)) == nanos


@given(st.from_regex(r"[0-9]{1,7}(\.[0-9]{1,18})?", fullmatch=True))
def test_an_amount_is_exact_or_refused(text: str) -> None:
    """Nanos are the decimal's own, and none are given when it has more than nine decimals that count."""
    exact = Decimal(text).scaleb(9)
    assert parse_nanos(text) == (int(exact) if exact == int(exact) else None)


@pytest.mark.parametrize(
    ("text", "nanos"),
    [("0", 0), ("", 0), ("0.0075", 7_500_000), ("0.000000001", 1), ("9999999.999999999", NANOS_MAX),
     ("1.100000000000000000", 1_100_000_000), ("007", 7 * 10**9)],
)  # fmt: skip
def test_amounts(text: str, nanos: int) -> None:
    """Zeros before and after change nothing; absent is nothing."""
    assert parse_nanos(text) == nanos


@pytest.mark.parametrize(
    "text",
    ["0.0000000001", "12345678", "1.", ".5", "-1", "+1", "1e3", "1,5", " 1", "1\n", "0." + "0" * 19, "١", "NaN", "1_0"],
)
def test_other_texts_are_no_amount(text: str) -> None:
    """Signs, exponents, other digits, too many digits or a tenth decimal that counts: None."""
    assert parse_nanos(text) is None
