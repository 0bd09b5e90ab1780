"""The way of a batch through one partition: the scenarios, and whatever order, batches and crashes may do to them."""

from pathlib import Path
from typing import Final

import pytest

from tests.table import Scenario, play, scenarios

FILES: Final = sorted((Path(__file__).parent / "scenarios").glob("*.txt"))
SCENARIOS: Final = [pytest.param(s, id=f"{path.stem}-{s.rule[:70]}") for path in FILES for s in scenarios(path)]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario(scenario: Scenario) -> None:
    """What a scenario's sentence says is what its lines show."""
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
