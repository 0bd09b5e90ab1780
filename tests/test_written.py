"""What a partition still knows of what was written: hashes for ten minutes, messages for two flushes."""

import pytest

from streams import barrier
from streams.settle import Partition
from tests.entries import NOON_MS, entry, event, read
from tests.test_barrier import Bench, run, settled


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("refused", [set(), {"m1"}])
def test_what_the_store_refused_may_be_sent_again(refused: set[str], keep: bool) -> None:
    """Events of a row that was written are known as copies; those of one that was refused are not."""
    partition, at = Partition(0, 5_000, NOON_MS), entry(0, NOON_MS, event("sends"))
    for _ in range(2):
        asked = partition.add_sends([(read("sends"), at)], NOON_MS)
        asked += partition.add_receives([(read("receives"), at)], NOON_MS)
        partition.add_receipts([(read("receipts"), at)], NOON_MS)
        partition.take(NOON_MS)
        partition.written(NOON_MS, refused, keep=keep)
    known = (0, 2, 1) if refused else (3, 0, 0)
    assert (partition.counts.duplicates, len(asked), partition.waiting) == known


@pytest.mark.parametrize(("messages", "waiting"), [(2, 0), (3, 1)])
def test_messages_of_a_large_flush_are_not_kept(monkeypatch: pytest.MonkeyPatch, messages: int, waiting: int) -> None:
    """A receipt that comes after a flush of many, as in a backlog, waits for the store's answer."""
    monkeypatch.setattr(barrier, "KEEP_ROWS_MAX", 2)

    async def work(bench: Bench) -> None:
        for n in range(messages):
            settled(bench, f"m{n}")
        await bench.barrier.write(checkpoint=False)
        bench.read("receipts", event("receipts", "m0", event_id="overtaken", state="sent"))

    partition = run(work).partition
    assert partition.waiting == waiting and partition.counts.amended == 1 - waiting


def test_an_older_version_is_not_amended() -> None:
    """What a small flush kept is no longer the message once a large one has written more of it."""
    partition = Partition(0, 5_000, NOON_MS)
    at = entry(0, NOON_MS, event("sends"))
    partition.add_sends([(read("sends"), at)], NOON_MS)
    for event_id, keep in (("r1", True), ("r2", False)):
        partition.add_receipts([(read("receipts", event_id=event_id), at)], NOON_MS)
        partition.take(NOON_MS)
        partition.written(NOON_MS, keep=keep)
    partition.add_receipts([(read("receipts", event_id="r3"), at)], NOON_MS)
    assert partition.waiting == 1 and not partition.fresh, "a version without r2 was amended"
