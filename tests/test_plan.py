"""The plan past one machine: the document says what is computed, and the simulations behave as what they simulate."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import pytest

from benchmarks import merging, plan, rebalance
from benchmarks.merging import MIB, Engine, Load
from benchmarks.rebalance import Group, Times

DOCUMENT: Final = Path(__file__).parents[1] / "docs" / "SCALING.md"
SMALL: Final = Group(4, 16, 40_000.0, 4_000_000.0)
STATIC: Final = SMALL._replace(static=True)
TIMES: Final = Times()
ENGINE: Final = Engine(merge_bytes_per_s=10e6)


def shown(name: str) -> str:
    """A table of the document, between its marks."""
    return DOCUMENT.read_text("utf-8").split(f"<!-- {name} -->\n")[1].split("\n<!-- end -->")[0]


def test_the_document_shows_the_plan_that_is_computed() -> None:
    """`docs/SCALING.md` holds the costs and the table that they give: a new measurement changes both."""
    assert shown("costs") == plan.costs_table()
    assert shown("plan") == plan.plan_table()


def test_the_document_shows_the_rebalances_that_are_simulated() -> None:
    """So it does with the rebalances, which are simulated from a seed."""
    assert shown("rebalances") == plan.rebalance_table()


@pytest.mark.parametrize("size", plan.SIZES)
def test_a_plan_carries_its_load(size: int) -> None:
    """No worker is planned beyond its share, no shard beyond its disk, and partitions share out evenly."""
    p = plan.plan(size)
    assert p.load_share <= p.costs.load_share
    assert p.disk_bytes_a_day * p.costs.retention_days / p.groups <= p.costs.shard_bytes
    assert p.group().partitions % p.workers == 0


def test_half_the_cost_takes_half_the_workers() -> None:
    """The workers of a plan follow from what an event costs; half a worker is one."""
    quick = plan.COSTS._replace(worker_events_per_s=2 * plan.COSTS.worker_events_per_s)
    assert plan.plan(1_000_000, quick, groups=1).workers == -(-plan.plan(1_000_000, groups=1).workers // 2)


# ---- merges -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "merged"), [(14, None), (15, (0, 15)), (20, (0, 20))])
def test_young_parts_of_one_size_merge_fifteen_or_more_at_once(count: int, merged: tuple[int, int] | None) -> None:
    """Fewer than the base of sixteen, which falls from ten parts on, wait while they are young; of more, all are merged."""
    found = merging.select(np.full(count, 10.0 * MIB), np.zeros(count), 1e12)
    assert (found and found[1:]) == merged


def test_old_parts_merge_two_at_a_time() -> None:
    """What has lain for long merges with as few as one other."""
    assert merging.select(np.full(2, 10.0 * MIB), np.full(2, 30 * 86_400.0), 1e12) is not None


def test_a_large_part_is_not_merged_with_a_few_small_ones() -> None:
    """A merge that would write a large part again for a little more is left, and the small ones merge alone."""
    found = merging.select(np.array([1000.0] + [1.0] * 18) * MIB, np.zeros(19), 1e12)
    assert found is not None and found[1:] == (1, 19)


def test_small_parts_merge_though_one_of_them_is_larger() -> None:
    """Each part costs something whatever its size, so among parts of less than some megabytes size hardly counts."""
    found = merging.select(np.array([1.0] + [0.3] * 15) * MIB, np.zeros(16), 1e12)
    assert found is not None and found[1:] == (0, 16)


def test_a_full_pool_takes_small_merges_only() -> None:
    """The fewer tasks are free, the smaller a merge may be; with none free there is none."""
    most = [merging.largest_merge(ENGINE, running) for running in (0, 24, 28, 31, 32)]
    assert most == sorted(most, reverse=True)
    assert most[0] == ENGINE.merge_bytes_max and most[-1] == 0


def test_parts_stay_few_while_merges_keep_up_and_pile_up_when_they_do_not() -> None:
    """Five parts a second of a megabyte stay some tens; with a tenth of the processors for merging they do not."""
    load = Load(MIB, 0.2, 300)
    course = merging.simulate(ENGINE, load)
    assert max(course.parts) < 60 and course.refused == 0
    slow = merging.simulate(ENGINE._replace(cores=0.1), load)
    assert max(slow.parts) > 3 * max(course.parts)


def test_every_byte_inserted_is_merged_some_times() -> None:
    """What merges write is the bytes inserted, times how often they were merged: the cost of a plan's shard."""
    course = merging.simulate(ENGINE, Load(MIB, 1.0, 600))
    assert 1 < course.write_amplification < 10


# ---- rebalances -------------------------------------------------------------------------------------------------


def test_every_member_stops_for_one_that_was_killed() -> None:
    """Once its successor asks to join, all stand until the dead one's session is over, and read everything back."""
    o = rebalance.simulate(SMALL, TIMES, rebalance.loss)
    share_s = SMALL.open_messages / SMALL.workers / 1e6 * TIMES.recover_s_per_million
    assert TIMES.session_s + share_s <= o.longest_s <= TIMES.session_s + share_s + TIMES.save_max_s
    assert o.rebalances == 1 and o.stood_still_s > (o.longest_s - TIMES.start_s - TIMES.heartbeat_s)


def test_a_static_member_that_comes_back_in_time_stops_nobody_else() -> None:
    """Only its own partitions wait, for its start and for their open messages."""
    o = rebalance.simulate(STATIC, TIMES, rebalance.loss)
    assert o.rebalances == 0
    assert o.longest_s == pytest.approx(TIMES.start_s + 6.0, abs=1)
    assert o.stood_still_s == pytest.approx(o.longest_s / SMALL.workers, rel=0.1)


def test_a_static_member_that_does_not_come_back_in_time_is_replaced() -> None:
    """Its session runs out, and the others stop for a rebalance as for any other."""
    assert rebalance.simulate(STATIC, TIMES._replace(start_s=30), rebalance.loss).rebalances >= 1


def test_a_rolling_deploy_stops_everybody_twice_for_each_worker() -> None:
    """One rebalance when it leaves and one when it comes; so the time a group stands still grows with its square."""
    o = rebalance.simulate(SMALL, TIMES, rebalance.rolling)
    assert o.rebalances >= 2 * SMALL.workers - 1
    twice = SMALL._replace(workers=8, partitions=32, events_per_s=80_000, open_messages=8_000_000)
    assert rebalance.simulate(twice, TIMES, rebalance.rolling).stood_still_s > 1.5 * o.stood_still_s
    assert rebalance.simulate(STATIC, TIMES, rebalance.rolling).rebalances == 0


def test_what_waited_is_caught_up_by_the_headroom() -> None:
    """At 55 % of what a worker can do, a stand of a minute takes a bit more than a minute to work off."""
    o = rebalance.simulate(SMALL, TIMES, rebalance.whole_group)
    after_s = o.caught_up_s - o.longest_s
    assert after_s == pytest.approx(o.longest_s * SMALL.headroom / (1 - SMALL.headroom), rel=0.25)


def test_without_headroom_nothing_is_caught_up() -> None:
    """A group that is just able to carry its load stays behind for good."""
    busy = SMALL._replace(headroom=1.0)
    assert rebalance.simulate(busy, TIMES, rebalance.whole_group, seconds_max=600).caught_up_s == float("inf")
