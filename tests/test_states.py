"""The states a message can be in, their order, and the words for them."""

import pytest

from schemas.states import DELIVERED, FAILURES, FINAL_RANK, QUEUED, RANK, SENT, WORDS, parse_state
from tests import oracle_events


def test_the_rank_is_queued_sent_failures_delivered() -> None:
    """`queued` < `sent` < the four failures, which are equal < `delivered`; from the failures on it is final."""
    assert {"expired", "undelivered", "failed", "rejected"} == FAILURES
    failed = {RANK[state] for state in FAILURES}
    assert failed == {FINAL_RANK}
    assert RANK[QUEUED] < RANK[SENT] < FINAL_RANK < RANK[DELIVERED]
    assert len(RANK) == 7


def test_the_words_are_those_of_the_oracle() -> None:
    """Our own names and SMPP's words and numbers, each with its state, and no others."""
    assert {word.lower(): state for word, state in WORDS.items()} == oracle_events.STATES
    assert RANK == oracle_events.RANK


@pytest.mark.parametrize("word", ["delivrd", "DELIVRD", "Delivrd", "dElIvErEd", "2"])
def test_a_word_counts_in_any_case(word: str) -> None:
    """Upper, lower or mixed: it is the same state."""
    assert parse_state(word) == DELIVERED


@pytest.mark.parametrize("word", ["", " sent", "sent\n", "10", "-1", "ſent", "received", "２", "sentt"])
def test_other_words_are_no_state(word: str) -> None:
    """What is not a word we know is None, look-alikes and `received` among it."""
    assert parse_state(word) is None
