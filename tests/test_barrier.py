"""The barrier: what is durable before an offset moves, in which order, and what is never committed.

Real: the flow, the partitions and the barrier. Scripted: the store and Kafka, because how they fail is what is tested.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import pytest

from streams import aside, barrier
from streams.barrier import Barrier
from streams.effects import DeadLetter
from streams.flow import Flow
from streams.store import Unavailable, Unstorable
from tests.entries import NOON_MS, PREFIX, LogEntry, entry, event, read
from tests.simulation.store import MemoryStore, Tables

pytestmark = pytest.mark.usefixtures("way")
WINDOW_MS: Final = 5_000


class Outside:
    """The store and Kafka, and the order in which they were asked; `fails` says what goes wrong, once per entry."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.fails: list[tuple[str, Exception]] = []
        self.tables = Tables()
        self.store = MemoryStore(self.tables, self.point)
        self.committed: dict[tuple[str, int], int] = {}
        self.letters: list[str] = []
        self.unstorable: list[tuple[str, ...]] = []
        self.generation = 1
        self.commit_hangs: asyncio.Event | None = None

    def point(self, name: str) -> None:
        """Notes what is done, and fails if it is told to."""
        self.said.append(name)
        for n, (what, error) in enumerate(self.fails):
            if what == name:
                del self.fails[n]
                raise error

    async def commit(self, offsets: Mapping[tuple[str, int], int], generation: int) -> bool:
        """As Kafka decides."""
        self.point("commit")
        if self.commit_hangs is not None:
            await self.commit_hangs.wait()
        if generation != self.generation:
            return False
        self.committed |= offsets
        return True

    async def bury(self, letters: Sequence[DeadLetter]) -> None:
        """Acknowledges dead letters."""
        self.point("dead letters")
        self.letters += [letter.reason for letter in letters]

    async def bury_unstorable(self, bad: Sequence[Unstorable]) -> None:
        """Acknowledges the events of rows that cannot be stored."""
        self.point("unstorable")
        self.unstorable += [b.sources for b in bad]


class Bench:
    """One partition, a barrier over it, and time that stands still."""

    def __init__(self, flush_ms: int = 1, checkpoint_ms: int = 1) -> None:
        self.outside = Outside()
        self.flow = Flow(PREFIX, WINDOW_MS)
        self.partition = self.flow.open_partition(0, NOON_MS)
        store: Any = self.outside.store
        self.barrier = Barrier(self.flow, store, self.outside, lambda: NOON_MS, 1, flush_ms, checkpoint_ms)
        self.barrier.generation = 1
        self._offset = 0

    def read(self, topic: str, fields: dict[str, Any] | bytes) -> None:
        """One batch of one entry is worked off."""
        made = entry(self._offset, NOON_MS, fields) if isinstance(fields, dict) else self._broken(fields)
        self._offset += 1
        self.flow.batch(topic, 0, [made], NOON_MS)
        self.barrier.did(topic, 0, self._offset)

    def _broken(self, value: bytes) -> LogEntry:
        return LogEntry(self._offset, NOON_MS, b"k", value)


def run(work: Callable[[Bench], Any], **options: Any) -> Bench:
    """Does the work on a bench, with a loop of its own."""

    async def all_of_it() -> Bench:
        bench = Bench(**options)
        try:
            await asyncio.wait_for(work(bench), 20)
        finally:
            bench.barrier.close()
        return bench

    return asyncio.run(all_of_it())


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries follow at once."""
    monkeypatch.setattr(barrier, "_BACKOFF_S", (0.0,))


async def until(is_true: Callable[[], bool]) -> None:
    """Lets the others have their turns until it is true."""
    while not is_true():  # noqa: ASYNC110  # there is no event for it
        await asyncio.sleep(0)


def settled(bench: Bench, message_id: str = "m1") -> None:
    """A message that is finished."""
    bench.read("sends", event("sends", message_id))
    bench.read("receipts", event("receipts", message_id, event_id="r"))


def test_offsets_move_last() -> None:
    """Dead letters, records, open messages, where the partition stands, and only then the commit."""

    async def work(bench: Bench) -> None:
        settled(bench)
        bench.read("sends", event("sends", "still-open"))
        bench.read("sends", b"{")
        await bench.barrier.write(checkpoint=True)

    outside = run(work).outside
    named = [s.removeprefix("after ") for s in outside.said if not s.startswith("before")]
    assert named == ["dead letters", "records", "open", "open records", "checkpoint", "commit"]
    assert outside.committed == {("sends", 0): 4, ("receipts", 0): 2}


def test_a_flush_moves_no_offset() -> None:
    """Between checkpoints finished rows are written and nothing is committed."""

    async def work(bench: Bench) -> None:
        settled(bench)
        await bench.barrier.write(checkpoint=False)

    outside = run(work).outside
    assert (len(outside.tables.mdrs), outside.committed) == (1, {})


FAILING: Final = (
    "dead letters", "before records", "after records", "before open", "after open", "before checkpoint",
    "after checkpoint", "before adopted", "after adopted", "before orphans", "after orphans", "commit",
)  # fmt: skip


@pytest.mark.parametrize("where", FAILING)
def test_what_fails_is_tried_again(where: str) -> None:
    """Whatever fails, before or after it was applied, is done again until it works; then the offsets move."""

    async def work(bench: Bench) -> None:
        bench.outside.fails = [(where, Unavailable("away"))] * 3
        bench.partition._orphans["m9"] = [(receipt("m9"), NOON_MS)]
        bench.partition._adopted.append(receipt("m8"))
        settled(bench)
        bench.read("sends", event("sends", "still-open"))
        bench.read("sends", b"{")
        await bench.barrier.write(checkpoint=True)

    bench = run(work)
    assert bench.outside.fails == []
    assert bench.outside.committed == {("sends", 0): 4, ("receipts", 0): 2}
    assert (len(bench.outside.tables.mdrs), len(bench.outside.tables.open)) == (1, 1)
    assert bench.outside.letters and bench.barrier.trouble == ""


def receipt(message_id: str) -> Any:
    """A receipt as the store takes it."""
    return read("receipts", message_id=message_id)


def test_trouble_is_told_while_it_lasts() -> None:
    """As long as a write fails, `trouble` says which and why."""

    async def work(bench: Bench) -> None:
        seen: list[str] = []
        settled(bench)
        bench.outside.fails = [("before records", Unavailable("nobody there"))] * 2

        def point(name: str) -> None:
            seen.append(bench.barrier.trouble)
            bench.outside.point(name)

        bench.outside.store._point = point
        await bench.barrier.write(checkpoint=True)
        assert seen[1] == "records: nobody there"

    run(work)


def test_an_error_that_does_not_pass_is_not_swallowed() -> None:
    """An error that is no `Unavailable` comes out of `write`, and nothing is committed, then or later."""

    async def work(bench: Bench) -> None:
        settled(bench)
        bench.outside.fails = [("before records", ValueError("a bug"))]
        with pytest.raises(ValueError, match="a bug"):
            await bench.barrier.write(checkpoint=True)
        await bench.barrier.write(checkpoint=True)

    assert run(work).outside.committed == {}


def test_what_comes_during_a_write_waits_for_the_next() -> None:
    """A batch that is worked off while a cut is written is neither in its rows nor in its offsets."""

    async def work(bench: Bench) -> None:
        settled(bench)
        bench.outside.commit_hangs = asyncio.Event()
        writing = asyncio.create_task(bench.barrier.write(checkpoint=True))
        await until(lambda: "commit" in bench.outside.said)
        settled(bench, "m2")
        bench.outside.commit_hangs.set()
        await writing
        assert bench.outside.committed == {("sends", 0): 1, ("receipts", 0): 2}
        assert [row[0] for row in bench.outside.tables.mdrs.values()] == ["m1"]
        await bench.barrier.write(checkpoint=True)

    assert run(work).outside.committed == {("sends", 0): 3, ("receipts", 0): 4}


def test_a_torn_checkpoint_is_never_committed() -> None:
    """After a last checkpoint that was cut off no write commits, not even the next, until the partitions are let go."""

    async def work(bench: Bench) -> None:
        bench.read("sends", event("sends", "open"))
        bench.outside.fails = [("before open", Unavailable("away"))] * 10_000
        assert not await bench.barrier.last(0.05)
        bench.outside.fails = []
        await bench.barrier.write(checkpoint=True)
        assert not await bench.barrier.last(0.05) or bench.outside.committed == {}

    assert run(work).outside.committed == {}


def test_a_write_that_was_waiting_for_a_torn_one_does_nothing() -> None:
    """What waits for its turn behind a checkpoint that is cut off must not cut again."""

    async def work(bench: Bench) -> None:
        settled(bench)
        bench.outside.fails = [("before records", Unavailable("away"))] * 10_000
        last = asyncio.create_task(bench.barrier.last(0.05))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        behind = asyncio.create_task(bench.barrier.write(checkpoint=True))
        assert not await last
        bench.outside.fails = []
        await behind

    assert run(work).outside.committed == {}


def test_a_generation_that_is_over_commits_nothing() -> None:
    """A checkpoint begun in one generation is not committed in another, though its rows are written."""

    async def work(bench: Bench) -> None:
        settled(bench)
        bench.outside.generation = 2
        await bench.barrier.write(checkpoint=True)

    outside = run(work).outside
    assert (outside.committed, len(outside.tables.mdrs)) == ({}, 1)


def test_the_generation_is_that_of_the_cut() -> None:
    """A rebalance during a write does not lend the new generation to the old cut."""

    async def work(bench: Bench) -> None:
        settled(bench)
        bench.outside.fails = [("before checkpoint", Unavailable("away"))]
        writing = asyncio.create_task(bench.barrier.write(checkpoint=True))
        await until(lambda: "before checkpoint" in bench.outside.said)
        bench.flow.partitions.clear()
        bench.barrier.forget()
        bench.barrier.generation = bench.outside.generation = 2
        await writing

    assert run(work).outside.committed == {}


def test_reading_waits_when_too_much_is_to_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """At twice the bound of finished rows `room` holds until a write got through."""
    monkeypatch.setattr(barrier, "ROWS_MAX", 2)

    async def work(bench: Bench) -> None:
        for n in range(4):
            settled(bench, f"m{n}")
        room = asyncio.create_task(bench.barrier.room())
        await asyncio.sleep(0)
        assert not room.done()
        await bench.barrier.write(checkpoint=False)
        await room

    run(work)


@pytest.mark.parametrize("value", [None, b"{"])
def test_reading_waits_for_open_messages_and_dead_letters_too(
    monkeypatch: pytest.MonkeyPatch, value: bytes | None
) -> None:
    """Messages that stay open, and dead letters, are bounded like finished rows."""
    monkeypatch.setattr(barrier, "UNSAVED_MAX", 2)

    async def work(bench: Bench) -> None:
        for n in range(4):
            bench.read("sends", value or event("sends", f"m{n}"))
        room = asyncio.create_task(bench.barrier.room())
        await asyncio.sleep(0)
        assert not room.done()
        await bench.barrier.write(checkpoint=True)
        await room

    run(work)


def test_a_bad_row_does_not_block_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the store refuses for good becomes dead letters, and may be sent again; the rest is written and committed."""

    async def work(bench: Bench) -> None:
        settled(bench)
        bad = Unstorable(("m1",), "refused", ("mdr.sends:0:7",))
        monkeypatch.setattr(bench.outside.store, "write_records", lambda rows: [bad])
        await bench.barrier.write(checkpoint=True)
        bench.read("receipts", event("receipts", event_id="r"))

    bench = run(work)
    assert bench.outside.unstorable == [("mdr.sends:0:7",)] and list(bench.partition.lives) == ["m1"]
    assert bench.outside.committed == {("sends", 0): 1, ("receipts", 0): 2}
    assert bench.outside.said.index("unstorable") < bench.outside.said.index("commit")


def test_adopted_orphans_leave_only_when_their_message_is_durable() -> None:
    """The row that takes an orphan out is written after the open message that holds it now."""

    async def work(bench: Bench) -> None:
        bench.partition._adopted.append(receipt("m8"))
        bench.read("sends", event("sends", "still-open"))
        await bench.barrier.write(checkpoint=False)
        assert "before adopted" not in bench.outside.said
        await bench.barrier.write(checkpoint=True)

    said = run(work).outside.said
    assert said.index("after open") < said.index("before adopted") < said.index("commit")


def test_run_flushes_often_and_checkpoints_seldom() -> None:
    """Left alone it writes what is finished and commits; told to finish it returns after the write it is in."""

    async def work(bench: Bench) -> None:
        settled(bench)
        clock = iter(range(NOON_MS, NOON_MS + 10_000_000, 400))
        bench.barrier._clock_ms = clock.__next__
        running = asyncio.create_task(bench.barrier.run())
        await until(lambda: bool(bench.outside.committed))
        bench.barrier.finish()
        await running

    said = run(work, flush_ms=1, checkpoint_ms=5_000).outside.said
    assert said.index("after records") < said.index("commit")


@pytest.mark.parametrize(("behind_ms", "flushes"), [(0, True), (9_000, True), (11_000, False)])
def test_far_behind_rows_wait_for_the_checkpoint(behind_ms: int, flushes: bool) -> None:
    """When even what was read last is over ten seconds old, rows are written with checkpoints only: in larger inserts."""
    seen: list[bool] = []

    async def work(bench: Bench) -> None:
        settled(bench)
        now_ms = [max(bench.partition.marks.values()) + behind_ms]
        bench.barrier._clock_ms = lambda: now_ms[0]
        running = asyncio.create_task(bench.barrier.run())
        await asyncio.sleep(0.05)
        seen.append("after records" in bench.outside.said)
        now_ms[0] += 5_000
        await until(lambda: bool(bench.outside.committed))
        bench.barrier.finish()
        await running

    outside = run(work, flush_ms=1, checkpoint_ms=5_000).outside
    assert seen == [flushes] and len(outside.tables.mdrs) == 1


def test_settled_messages_leave_what_is_open() -> None:
    """A message that was saved as open and then settled gets a tombstone, after its record."""

    async def work(bench: Bench) -> None:
        for topic in ("sends", "receipts"):
            bench.read(topic, event(topic, event_id="r"))
            await bench.barrier.write(checkpoint=True)

    tables = run(work).outside.tables
    assert [row.is_deleted for row in tables.open.values()] == [1]
    assert len(tables.mdrs) == 1


def test_what_only_tells_of_a_write_cannot_fail_it(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever is called after a write raises: the write stands, the next one is made, and one line says so."""
    aside.failures.clear()

    def raises(checkpoint: bool, took_ms: int) -> None:
        raise KeyError("a bug")

    async def work(bench: Bench) -> None:
        bench.barrier.on_written = raises
        for n in range(2):
            bench.read("sends", event("sends", f"m{n}"))
            await bench.barrier.write(checkpoint=True)

    bench = run(work)
    assert bench.outside.committed == {("sends", 0): 2}
    assert aside.failures == {"telling of a write": 2}
    assert [record.levelname for record in caplog.records if record.name == "streams.aside"] == ["ERROR"]
