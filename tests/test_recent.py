"""The set of settled ids against a plain set."""

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.recent import Recent, hashes

pytestmark = pytest.mark.usefixtures("way")
IDS: Final = [f"m{n}" for n in range(60)]
BATCHES: Final = st.lists(st.lists(st.sampled_from(IDS), max_size=12), max_size=12)


def seen(recent: Recent, ids: list[str]) -> set[str]:
    """Which of the ids are remembered."""
    hits = recent.seen(hashes(ids))
    return {id_ for id_ in ids if hash(id_) in hits}


@given(BATCHES, st.lists(st.sampled_from(IDS), max_size=20))
def test_every_id_that_was_added_is_seen(batches: list[list[str]], wanted: list[str]) -> None:
    """However ids were added, exactly those are seen."""
    recent = Recent(10_000)
    for n, batch in enumerate(batches):
        recent.add(hashes(batch), n, n + 1, n + 1)
    assert seen(recent, wanted) == set(wanted) & {id_ for batch in batches for id_ in batch}
    assert len(recent) == sum(map(len, batches))


@given(BATCHES, st.integers(0, 12), st.integers(0, 12))
def test_nothing_is_forgotten_early(batches: list[list[str]], clock_s: int, mark_s: int) -> None:
    """An id is kept until both the clock and the log have left it behind, however runs were merged."""
    recent = Recent(10_000)
    for n, batch in enumerate(batches):
        recent.add(hashes(batch), n * 20_000, (n + 1) * 20_000, n * 20_000)
    recent.forget(clock_s * 20_000, mark_s * 20_000)
    kept = {
        id_ for n, batch in enumerate(batches) for id_ in batch if (n + 1) >= clock_s or n >= mark_s
    }  # fmt: skip
    assert kept <= seen(recent, IDS)


def test_what_is_left_behind_is_forgotten() -> None:
    """Ids are let go once the clock and the log have passed the span of their run."""
    recent = Recent(10_000)
    for n in range(100):
        recent.add(hashes([f"m{n}"]), n * 10_000, (n + 1) * 10_000, n * 10_000)
    recent.forget(900_000, 900_000)
    assert not seen(recent, [f"m{n}" for n in range(70)])
    assert seen(recent, [f"m{n}" for n in range(90, 100)]) == {f"m{n}" for n in range(90, 100)}


def test_it_says_from_when_on_ids_must_be_read_back() -> None:
    """The earliest time of what is remembered; another time when nothing is."""
    recent = Recent(10_000)
    assert recent.remembers_from_ms(7) == 7
    recent.add(hashes([]), 1, 2, 2)
    assert recent.remembers_from_ms(7) == 7
    recent.add(hashes(["m1"]), 3, 4, 4)
    recent.add(hashes(["m2"]), 4, 5, 5)
    assert recent.remembers_from_ms(7) == 3


def test_it_holds_no_more_than_it_may_and_lets_the_oldest_go_first() -> None:
    """Beyond its limit the oldest runs are dropped; the newest stay."""
    recent = Recent(100)
    for n in range(100):
        recent.add(hashes([f"m{n}-{i}" for i in range(10)]), n * 200_000, n * 200_000 + 1, 0)
    assert len(recent) <= 110
    assert len(seen(recent, [f"m99-{i}" for i in range(10)])) == 10
    assert not seen(recent, [f"m0-{i}" for i in range(10)])


def test_runs_of_similar_size_are_merged() -> None:
    """A thousand small batches in a short time end up in a handful of arrays."""
    recent = Recent(100_000)
    for n in range(1_000):
        recent.add(hashes([f"m{n}"]), n, n + 1, n)
    assert len(recent) == 1_000 and len(recent._runs) < 20
