"""The way of a batch through one partition: the scenarios, and whatever order, batches and crashes may do to them."""

from pathlib import Path
from typing import Final

import pytest

from streams.effects import DeadLetter
from streams.flow import Flow
from tests.entries import NOON_MS, PREFIX, LogEntry, entry, event
from tests.table import Scenario, play, scenarios

FILES: Final = sorted((Path(__file__).parent / "scenarios").glob("*.txt"))
SCENARIOS: Final = [pytest.param(s, id=f"{path.stem}-{s.rule[:70]}") for path in FILES for s in scenarios(path)]


pytestmark = pytest.mark.usefixtures("way")


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario(scenario: Scenario) -> None:
    """What a scenario's sentence says is what its lines show, with and without the compiled part."""
    play(scenario)


def test_a_failing_scenario_shows_itself_with_the_line_that_failed() -> None:
    """The failure of a scenario names its rule, marks the line, and says what was found instead."""
    wrong = Scenario("A rule.", [(7, "at=0s send id=m1"), (8, "at=1s receipt id=m1"), (9, "tick -> rows=2; dead=")])
    with pytest.raises(AssertionError) as failure:
        play(wrong)
    shown = str(failure.value)
    assert (
        "# A rule." in shown
        and ">>>    9 tick -> rows=2" in shown
        and "rows is 1" in shown
        and "dead" not in shown[-12:]
    )


def test_a_scenario_line_that_makes_no_sense_fails() -> None:
    """A verb, a time or a figure that does not exist is a failure, never a line that is passed over."""
    for line in ("sned id=m1", "at=soon tick", "tick -> rowz=1", "tick -> mrd id=m1", "send"):
        with pytest.raises(AssertionError):
            play(Scenario("A rule.", [(1, line)]))


def test_a_watermark_waits_for_what_the_store_is_asked_about() -> None:
    """A batch with a send that must be looked up is read only when the answer was acted upon."""
    flow = Flow(PREFIX, 5_000)
    partition = flow.open_partition(0, NOON_MS)
    late = entry(0, NOON_MS, event("sends", at_ms=NOON_MS - 7_200_000))
    held = flow.batch("sends", 0, [late], NOON_MS)
    assert [h.event.message_id for h in held] == ["m1"]
    assert (partition.marks["sends"], partition.counts.events) == (0, 0)
    flow.resume("sends", 0, [late], held, {}, NOON_MS)
    assert (partition.marks["sends"], partition.counts.events) == (NOON_MS, 1)


def test_a_flow_keeps_its_partitions_apart() -> None:
    """Events and time of one partition change nothing in another."""
    flow = Flow(PREFIX, 5_000)
    first, second = flow.open_partition(0, NOON_MS), flow.open_partition(7, NOON_MS)
    flow.batch("sends", 7, [entry(3, NOON_MS, event("sends"))], NOON_MS)
    assert (first.counts.events, second.counts.events) == (0, 1)
    life = second.lives["m1"]
    assert not isinstance(life, bytes) and life.send is not None and life.send.source == "mdr.sends:7:3"


def test_a_dead_letter_keeps_its_entry_whole() -> None:
    """What cannot be used keeps its key, value, headers and offset, with the reason and a detail."""
    flow = Flow(PREFIX, 5_000)
    partition = flow.open_partition(4, NOON_MS)
    bad = LogEntry(9, NOON_MS, b"k", b"{", [("trace", b"1")])
    flow.batch("receipts", 4, [bad], NOON_MS)
    [letter] = partition.dead
    assert isinstance(letter, DeadLetter) and letter.entry is bad
    assert (letter.topic, letter.shard, letter.reason) == ("receipts", 4, "invalid_json") and letter.detail
