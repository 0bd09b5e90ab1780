"""What the worker makes of batches that outlived their generation: the group may move on at any point of their way."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
from aiokafka.structs import TopicPartition

from schemas.events import TOPICS
from streams.tables import Checkpoint
from streams.transport import Batch, Start
from tests.entries import NOON_MS, PREFIX, entry, event
from tests.simulation.broker import App, Broker
from tests.simulation.run import SETTINGS, SimWorker, environment
from tests.simulation.store import MemoryStore, Tables
from tests.simulation.world import World

pytestmark = pytest.mark.usefixtures("way")
NOW: Final = 7


class Bench:
    """A worker that owns partition 0 in generation `NOW`; its clock stands, its store answers at once."""

    def __init__(self) -> None:
        self.asked: Callable[[str], None] = lambda what: None
        world = World(0)
        app = App(world.process("worker"), Broker(world, 1), lambda name: None)
        with environment() as held:
            held.run = self
            self.worker = SimWorker(SETTINGS, 1, app, lambda: NOON_MS)
        self.worker.flow.open_partition(0, NOON_MS)
        self.worker.barrier.generation = NOW
        self.worker._next["sends", 0] = 0
        self.app = app

    def store(self) -> Any:
        """As the worker opens it."""
        return MemoryStore(Tables(), self._point)

    def _point(self, what: str) -> None:
        self.asked(what)

    def producer(self) -> Any:
        """Nothing is produced here."""

    def work(self, generation: int, **more: Any) -> None:
        """One send is worked off as an agent does it."""
        made: Any = entry(0, NOON_MS, event("sends", **more))
        self.hand(Batch(PREFIX + "sends", 0, generation, [made], 0, 1))

    def hand(self, batch: Batch) -> None:
        """A batch comes as it comes from Faust."""
        asyncio.run(self._handed(batch))

    async def _handed(self, batch: Batch) -> None:
        await self.worker._begin("sends", batch)
        under_way = self.worker._under_way["sends"]
        await asyncio.gather(*under_way)

    def seen(self) -> tuple[list[str], dict[tuple[str, int], int]]:
        """What is open, and how far the partition is worked off."""
        return list(self.worker.flow.partitions[0].lives), self.worker.barrier.done


@pytest.fixture
def bench() -> Iterator[Bench]:
    """One bench, its threads ended."""
    made = Bench()
    yield made
    made.worker.barrier.close()
    made.worker._reading.shutdown()


def test_a_batch_of_this_generation_is_worked_off(bench: Bench) -> None:
    """Its event is merged, and the partition is done up to its end."""
    bench.work(NOW)
    assert bench.seen() == (["m1"], {("sends", 0): 1})


def test_a_batch_of_an_earlier_generation_is_left(bench: Bench) -> None:
    """Its partition may have gone and come back: the new owner, even if it is this worker, reads it again."""
    bench.work(NOW - 1)
    assert bench.seen() == ([], {})


def test_a_batch_whose_generation_ends_while_it_is_looked_up_is_left(bench: Bench) -> None:
    """What the store says of a late send is not acted upon for a partition that was let go meanwhile."""

    def rebalance(what: str) -> None:
        if what == "lookup":
            bench.worker.barrier.generation = NOW + 1

    bench.asked = rebalance
    bench.work(NOW, at_ms=NOON_MS - 7_200_000)
    assert bench.seen() == ([], {})


def test_while_one_partition_waits_for_an_answer_others_go_on(bench: Bench) -> None:
    """Its own later batches come after it, in order; a batch of another partition is worked off at once."""
    answered = threading.Event()

    def ask(what: str) -> None:
        if what == "lookup":
            answered.wait(10)

    bench.asked = ask
    worker = bench.worker
    worker.flow.open_partition(1, NOON_MS)
    worker._next["sends", 1] = 0
    late: Any = entry(0, NOON_MS, event("sends", "late", NOON_MS - 7_200_000))

    async def work() -> None:
        await worker._begin("sends", Batch(PREFIX + "sends", 0, NOW, [late], 0, 1))
        await worker._begin("sends", sends(1, 3))
        await worker._begin("sends", sends(0, 2)._replace(partition=1))
        assert worker.barrier.done == {("sends", 1): 2} and not worker.flow.partitions[0].lives
        answered.set()
        await asyncio.gather(*worker._under_way["sends"])

    asyncio.run(work())
    assert worker.barrier.done == {("sends", 1): 2, ("sends", 0): 3}
    assert list(worker.flow.partitions[0].lives) == ["late", "m1", "m2"] and not worker._under_way["sends"]


def test_a_batch_whose_generation_ends_while_it_waits_for_room_is_left(bench: Bench) -> None:
    """Reading is held up for as long as the store is away; the group moves on meanwhile."""

    async def room() -> None:
        bench.worker.barrier.generation = NOW + 1

    bench.worker.barrier.room = room  # type: ignore[method-assign]
    bench.work(NOW)
    assert bench.seen() == ([], {})


def _recover(bench: Bench, stored: dict[str, int], committed: int | None, begin: int) -> tuple[int, int, int]:
    """Where sends are read on, how many are lost and how many read again, after recovery of partition 0."""
    tps = {TopicPartition(PREFIX + topic, 0): Start(None, 0) for topic in TOPICS}
    starts = tps | {TopicPartition(PREFIX + "sends", 0): Start(committed, begin)}

    async def told() -> dict[TopicPartition, Start]:
        return starts

    async def reread(tp: TopicPartition, offset: int, generation: int) -> int:
        return max(offset, begin)

    bench.app.consumer.starts, bench.app.consumer.reread = told, reread  # type: ignore[method-assign]
    if stored:
        mark = Checkpoint(**(dict.fromkeys(Checkpoint._fields, 0) | {"partitions": 1} | stored))
        bench.worker._reader.tables.checkpoints[0] = mark  # type: ignore[attr-defined]
    bench.worker._ready = {0: asyncio.Event()}
    asyncio.run(bench.worker._recover([0], NOW))
    tally = bench.worker.telemetry.tally
    return bench.worker._next["sends", 0], tally.lost["sends"], tally.read_again["sends"]


@pytest.mark.parametrize(
    ("stored", "committed", "begin", "wanted"),
    [
        (10, 50, 0, (10, 0, 40)), (10, 50, 20, (20, 10, 30)), (10, 50, 60, (60, 50, 0)), (50, 50, 0, (50, 0, 0)),
        (50, 10, 0, (10, 0, 0)), (50, 10, 20, (20, 10, 0)), (None, 50, 0, (0, 0, 50)), (None, None, 20, (20, 0, 0)),
        (0, None, 20, (20, 0, 0)), (0, 0, 20, (20, 20, 0)),
    ],
    ids=[
        "an older store", "the log holds a part", "the log holds nothing", "as it must be",
        "the commit was refused", "and deleted", "an empty store", "never committed", "never read", "never saved",
    ],
)  # fmt: skip
def test_where_reading_begins(
    bench: Bench, stored: int | None, committed: int | None, begin: int, wanted: tuple[int, int, int]
) -> None:
    """At the smaller of what the store holds and what was committed, as far as the log still has it."""
    told = {} if stored is None else {"sends_offset": stored}
    assert _recover(bench, told, committed, begin) == wanted


def sends(first: int, next_offset: int) -> Batch:
    """A batch with a message for each offset, named after it."""
    made: Any = [
        entry(n, NOON_MS, event("sends", event_id=f"e{n}", message_id=f"m{n}")) for n in range(first, next_offset)
    ]
    return Batch(PREFIX + "sends", 0, NOW, made, first, next_offset)


def test_where_a_batch_is_missing_the_log_is_read_again(bench: Bench) -> None:
    """Faust drops batches around a rebalance without a word: none of its successors may count as done."""
    bench.app.consumer.generation = NOW
    bench.hand(sends(0, 2))
    bench.hand(sends(4, 6))
    assert bench.seen() == (["m0", "m1"], {("sends", 0): 2})
    assert bench.app.at == {TopicPartition(PREFIX + "sends", 0): 2}
    bench.hand(sends(2, 6))
    assert bench.seen() == ([f"m{n}" for n in range(6)], {("sends", 0): 6})


def test_what_is_handed_over_again_is_not_worked_off_again(bench: Bench) -> None:
    """Reading that went back too far costs nothing, and what is done stays done."""
    for batch in (sends(0, 3), sends(0, 2), sends(1, 5)):
        bench.hand(batch)
    assert bench.seen() == ([f"m{n}" for n in range(5)], {("sends", 0): 5})
    assert bench.worker.telemetry.tally.events["sends"] == 5


def test_what_the_log_dropped_meanwhile_is_counted_as_lost(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """Retention that overtakes a running worker is told, and reading goes on where the log begins."""

    async def reread(tp: TopicPartition, offset: int, generation: int) -> int:
        return 40

    bench.app.consumer.reread = reread  # type: ignore[method-assign]
    bench.hand(sends(45, 46))
    assert "40 entries were deleted before they were read" in caplog.text
    assert bench.worker.telemetry.tally.lost["sends"] == 40
    bench.hand(sends(40, 46))
    assert bench.seen()[1] == {("sends", 0): 46}
