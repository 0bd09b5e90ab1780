"""The automaton of regions beside regular expressions that say the same."""

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.regions import ASK, NOTHING, Way, enter, parse, walk

# Few digits, so that many numbers match and often in more than one way.
atoms = st.sampled_from([r"\d", "[0-2]", "[12]", "(?:0|1)", "(?:0(?:1|2)|2)", "(1|20)", "0", "1", "2"])
repeats = st.sampled_from(["", "", "", "?", "{2}", "{1,3}", "{0,2}"])
sequences = st.lists(st.builds("{}{}".format, atoms, repeats), min_size=1, max_size=4).map("".join)
patterns = st.lists(sequences, min_size=1, max_size=3).map("|".join)
ways = st.lists(st.tuples(st.booleans(), patterns, patterns), min_size=1, max_size=4)


def expected(ways: list[Any], digits: str) -> Any:
    """The number of the first way that matches, by the library's own matching."""
    for n, (begins, one, other) in enumerate(ways):
        if begins and re.match(one, digits):
            return n
        if not begins and re.fullmatch(one, digits) and re.fullmatch(other, digits):
            return n
    return ""


@settings(max_examples=400)
@given(ways, st.text("012", min_size=1, max_size=7), st.data())
def test_the_first_way_that_matches_decides(ways: list[Any], digits: str, data: st.DataObject) -> None:
    """Whatever order patterns are in and whether they speak of the whole number or of how it begins; asked twice."""
    made = [Way(n, b, (parse(one),) if b else (parse(one), parse(other))) for n, (b, one, other) in enumerate(ways)]
    root = enter(tuple(made), len(digits), {})
    for asked in (data.draw(st.text("012", min_size=len(digits), max_size=len(digits))), digits, digits):
        assert walk(root, asked) == expected(ways, asked)


def test_one_that_begins_so_stays_matched_while_an_earlier_one_is_open() -> None:
    """The second way has matched at the first digit, and is only heard when the first fails at the last."""
    root = enter((Way("A", False, (parse(r"1\d2"), parse(r"\d{3}"))), Way("B", True, (parse("1"),))), 3, {})
    assert [walk(root, digits) for digits in ("132", "133", "233")] == ["A", "B", ""]


def test_what_only_the_library_can_tell() -> None:
    """Its outcome is none of the regions."""
    assert walk(enter((Way(ASK, True, (parse("0"),)),), 2, {}), "01") is ASK


@pytest.mark.parametrize("pattern", ["1+", "(?=1)", "a", "1*", "[^1]"])
def test_a_pattern_that_is_not_understood_is_told(pattern: str) -> None:
    """Should the library's metadata ever hold more than they do."""
    with pytest.raises(ValueError, match="not understood"):
        parse(pattern)


def test_no_pattern_matches_nothing() -> None:
    """A region without any type has no number."""
    assert walk(enter((Way("A", False, (NOTHING,)),), 2, {}), "12") == ""
