"""READ THIS FIRST: how a batch of log entries becomes rows.

    entries --decode--> events --join, settle--> Partition --take, snapshot--> rows --store--> ClickHouse
                 \\-> dead letters                    \\-> ids the store must be asked about

Pure: bytes and the time go in, effects come out. `agents.py` feeds it, `barrier.py` writes what it yields and only
then lets the offsets move.
"""

from collections.abc import Sequence
from typing import Any, Final

from schemas import batches
from schemas.events import TOPICS
from streams.effects import DeadLetter, Entry, Found, Held
from streams.settle import Partition

__all__ = ["TOPICS", "DeadLetter", "Entry", "Flow", "Found", "Held"]

SENDS: Final = "sends"
RECEIVES: Final = "receives"
RECEIPTS: Final = "receipts"


class Flow:
    """All partitions this worker owns, and the way of a batch through them."""

    def __init__(self, topic_prefix: str, window_ms: int) -> None:
        self._prefix = topic_prefix
        self._window_ms = window_ms
        self.partitions: dict[int, Partition] = {}

    def open_partition(self, shard: int, now_ms: int) -> Partition:
        """Begins with an empty partition; recovery fills it before its first batch."""
        partition = self.partitions[shard] = Partition(shard, self._window_ms, now_ms)
        return partition

    def batch(self, topic: str, shard: int, entries: Sequence[Entry], now_ms: int) -> list[Held]:
        """Takes one fetched batch of `sends`, `receives` or `receipts`.

        Returns the events that the store must be asked about; `resume` goes on with them, and until then the batch
        is not done.
        """
        partition = self.partitions[shard]
        events = self._decode(partition, topic, entries, now_ms)
        if topic == RECEIPTS:
            partition.add_receipts(events, now_ms)
            held: list[Held] = []
        elif topic == SENDS:
            held = partition.add_sends(events, now_ms)
        else:
            held = partition.add_receives(events, now_ms)
        # A held event counts once something is done with it, so that a checkpoint in between adds up.
        partition.counts.events += len(entries) - len(held)
        if not held:
            partition.advance(topic, entries, now_ms)
        return held

    def resume(
        self, topic: str, shard: int, entries: Sequence[Entry], held: list[Held], found: dict[str, Found], now_ms: int
    ) -> None:
        """Finishes a batch whose held events the store was asked about."""
        partition = self.partitions[shard]
        resolve = partition.resolve_sends if topic == SENDS else partition.resolve_receives
        resolve(held, found, now_ms)
        partition.counts.events += len(held)
        partition.advance(topic, entries, now_ms)

    def brief(self, shard: int, held: Sequence[Held]) -> set[str]:
        """Of held events the ids where it is enough to know how their record began: no receipts may have to join it."""
        lives = self.partitions[shard].lives
        ids = {h.event.message_id for h in held} - {h.event.message_id for h in held if h.orphans}
        return ids.difference(lives)

    def _decode(
        self, partition: Partition, topic: str, entries: Sequence[Entry], now_ms: int
    ) -> list[tuple[Any, Entry]]:
        events, refused = batches.read(topic, entries, now_ms, f"{self._prefix}{topic}:{partition.shard}:")
        for rejected, entry in refused:
            partition.refuse(topic, entry, rejected.reason, rejected.detail)
        return events

    def tick(self, now_ms: int, *, ask: bool = True) -> dict[int, list[str]]:
        """Lets time pass; returns by partition the ids of waiting receipts to ask the store about, if it may be."""
        return {shard: ids for shard, p in self.partitions.items() if (ids := p.tick(now_ms, ask=ask))}
