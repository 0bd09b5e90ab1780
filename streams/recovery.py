"""Partitions as they were saved last: what is read from the store when a worker takes them on."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from schemas.events import TOPICS
from streams.lives import REMEMBER_MS
from streams.settle import Partition
from streams.store import Store
from streams.tables import Checkpoint


class Recovered(NamedTuple):
    """Partitions, and the offsets that their checkpoints belong to, by (topic, partition)."""

    partitions: dict[int, Partition]
    offsets: dict[tuple[str, int], int]

    def begin(self, topic: str, shard: int, committed: int | None) -> int | None:
        """Where a partition is read from: what the store holds, where that is less than the group committed.

        A store that was put back, or a replica that lags, is older than the offsets. Where the group has committed
        nothing, the log says where it begins: None.
        """
        return None if committed is None else min(committed, self.offsets.get((topic, shard), 0))


def load(store: Store, shards: Sequence[int], window_ms: int, now_ms: int) -> Recovered:
    """Reads partitions back; blocks for the store, raises `Unavailable`."""
    stored = store.checkpoints()
    partitions = {shard: Partition(shard, window_ms, now_ms) for shard in shards}
    for shard, message_id, part, facts, deadline_ms, occurred_ms, settled, is_shown in store.open_rows(shards):
        mid = message_id.decode()
        if part:
            partitions[shard].restore_waiting(mid, part.decode(), facts)
        elif settled:
            partitions[shard].restore_settled(mid, facts, settled == 1)
        else:
            partitions[shard].restore(mid, facts, deadline_ms, occurred_ms, is_shown=is_shown)
    for shard, partition in partitions.items():
        _load_past(store, partition, stored.get(shard), now_ms)
    return Recovered(partitions, {at: offset for shard in shards for at, offset in _offsets(stored.get(shard))})


def _offsets(c: Checkpoint | None) -> list[tuple[tuple[str, int], int]]:
    if c is None:
        return []
    offsets = (c.sends_offset, c.receives_offset, c.receipts_offset)
    return [((topic, c.shard), at) for topic, at in zip(TOPICS, offsets, strict=True)]


def _load_past(store: Store, partition: Partition, stored: Any, now_ms: int) -> None:
    if stored is not None:
        partition.restore_progress(stored)
    since_ms = min(stored.remembers_from, now_ms - REMEMBER_MS) if stored else now_ms - REMEMBER_MS
    recent = store.recent_ids(partition.shard, since_ms)
    for direction in ("outbound", "inbound"):
        partition.remember(direction, [m for m, d in recent if d == direction], since_ms, now_ms)
    partition.remember_orphans(store.orphan_ids(partition.shard), now_ms)
