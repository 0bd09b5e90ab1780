"""Questions to the store: those that wait are put as one, each gets its own answer, none is lost by a failure."""

from collections.abc import Sequence, Set

import pytest

from streams.effects import Found
from streams.questions import Questions
from streams.store import Unavailable

KNOWN = {mid: Found({}, (), {"outbound": f"{mid}-1"}) for mid in ("a", "b", "c")}


class Store:
    """Knows three ids; notes what it is asked, the whole ones and those in brief; fails when told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[set[str], set[str]]] = []
        self.fails = False

    def lookup(self, ids: Sequence[str], brief: Set[str]) -> dict[str, Found]:
        """As `streams.store` does."""
        assert len(set(ids)) == len(ids)
        if self.fails:
            raise Unavailable("away")
        self.asked.append((set(ids) - set(brief), set(brief)))
        return {mid: KNOWN[mid] for mid in ids if mid in KNOWN}


def test_what_waits_is_one_question() -> None:
    """An id that one of them wants whole is asked about whole, once."""
    store = Store()
    questions = Questions(store.lookup)
    first, second, third = questions.put(["a", "x"], {"a"}), questions.put(["b"], {"b"}), questions.put(["a"], set())
    assert questions.answer(first) == {"a": KNOWN["a"]}
    assert questions.answer(second) == {"b": KNOWN["b"]}
    assert questions.answer(third) == {"a": KNOWN["a"]}
    assert store.asked == [({"a", "x"}, {"b"})]
    assert questions.answer(questions.put(["c"], set())) == {"c": KNOWN["c"]}
    assert store.asked[1:] == [({"c"}, set())]


def test_a_failure_loses_no_question() -> None:
    """They wait on, and whoever tries again first asks for all."""
    store = Store()
    questions = Questions(store.lookup)
    first, second = questions.put(["a"], set()), questions.put(["b"], set())
    store.fails = True
    for question in (first, second):
        with pytest.raises(Unavailable):
            questions.answer(question)
    store.fails = False
    third = questions.put(["c"], set())
    answers = [questions.answer(question) for question in (second, first, third)]
    assert answers == [{mid: KNOWN[mid]} for mid in "bac"]
    assert store.asked == [({"a", "b", "c"}, set())]


def test_a_question_under_way_is_answered_by_whoever_is_first() -> None:
    """While one look-up hangs, another may be asked for a question that is part of it."""
    store, hangs = Store(), [True]

    def lookup(ids: Sequence[str], brief: Set[str]) -> dict[str, Found]:
        if hangs.pop():
            hangs.append(False)
            assert questions.answer(second) == {"b": KNOWN["b"]}
        hangs.append(False)
        return store.lookup(ids, brief)

    questions = Questions(lookup)
    first, second = questions.put(["a"], set()), questions.put(["b"], set())
    assert questions.answer(first) == {"a": KNOWN["a"]}
    assert questions.answer(second) == {"b": KNOWN["b"]}
    assert store.asked == [({"b"}, set()), ({"a", "b"}, set())]
