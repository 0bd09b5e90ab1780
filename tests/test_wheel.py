"""The wheel against a plain dict of ids and times."""

from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from streams.wheel import Wheel

BUCKET_MS: Final = 10
_ID = st.sampled_from([f"m{n}" for n in range(200)])
# Few buckets and many ids, so that buckets are swept; an id that stands is removed, another is entered.
TOUCHES: Final = st.lists(st.tuples(_ID, st.integers(0, 40)), max_size=300)


def play(touches: list[tuple[str, int]]) -> tuple[Wheel, dict[str, int]]:
    """A wheel after these touches, and the ids that stand with their times."""
    held: dict[str, int] = {}
    wheel = Wheel(BUCKET_MS, held.__contains__)
    for id_, at_ms in touches:
        if id_ in held:
            wheel.remove(held.pop(id_))
        else:
            held[id_] = at_ms
            wheel.add(at_ms, id_)
    return wheel, held


@given(TOUCHES, st.integers(-5, 60))
def test_whatever_is_due_is_handed_out(touches: list[tuple[str, int]], at_ms: int) -> None:
    """`upto` hands out every id that is due and none that does not stand."""
    wheel, held = play(touches)
    got = set(wheel.upto(at_ms))
    assert {id_ for id_, due_ms in held.items() if due_ms <= at_ms} <= got <= set(held)


@given(TOUCHES)
def test_the_earliest_come_first(touches: list[tuple[str, int]]) -> None:
    """`ascending` hands out every id that stands, bucket by bucket: the earliest is in the first that is not empty."""
    wheel, held = play(touches)
    groups = [group for _, _, standing in wheel.ascending() if (group := standing())]
    assert {id_ for group in groups for id_ in group} == set(held)
    if held:
        assert min(held.values()) == min(held[id_] for id_ in groups[0])


@given(TOUCHES)
def test_the_counts_are_of_what_stands(touches: list[tuple[str, int]]) -> None:
    """Length and counts by bucket are those of the ids that stand."""
    wheel, held = play(touches)
    begins = [due_ms // BUCKET_MS * BUCKET_MS for due_ms in held.values()]
    assert len(wheel) == len(held)
    assert wheel.counts() == {begin: begins.count(begin) for begin in begins}


def test_what_came_and_went_takes_no_room() -> None:
    """A bucket that most ids have left is swept: its list stays in proportion to what stands."""
    held: set[str] = set()
    wheel = Wheel(BUCKET_MS, held.__contains__)
    for n in range(10_000):
        held.add(f"m{n}")
        wheel.add(5, f"m{n}")
        if n >= 10:
            held.remove(f"m{n - 10}")
            wheel.remove(5)
    assert set(wheel.upto(5)) == held and len(wheel) == 10
    assert sum(map(len, wheel._ids.values())) < 200
