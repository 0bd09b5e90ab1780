"""What a record costs on disk, and which column how much of it: `python -m benchmarks.disk [MESSAGES]`.

Simulated traffic becomes records through the flow and the store, in one part a month. Ends with one JSON line.
"""

import asyncio
import json
import sys
import tempfile
from collections.abc import Sequence
from typing import Final

from benchmarks.query import Entry
from benchmarks.recovery import NoKafka
from schemas.events import TOPICS
from streams import kafka, simulate
from streams.barrier import Barrier
from streams.effects import DeadLetter
from streams.flow import Flow
from streams.store import Store

START_MS: Final = 1_795_000_000_000
PARTITIONS: Final = 8
_STEP: Final = 100_000
_COLUMNS: Final = (
    "SELECT column, sum(column_data_compressed_bytes), sum(column_data_uncompressed_bytes) FROM system.parts_columns"
    " WHERE active AND table = 'mdrs' GROUP BY column ORDER BY 2 DESC"
)


class _NoLetters(NoKafka):
    async def bury(self, letters: Sequence[DeadLetter]) -> None:
        """What cannot be used makes no record."""


async def fill(store: Store, messages: int) -> None:
    """Simulated messages of half an hour, all settled."""
    flow = Flow("mdr.", 600_000)
    for shard in range(PARTITIONS):
        flow.open_partition(shard, START_MS)
    end_ms = START_MS + 86_400_000
    barrier = Barrier(flow, store, _NoLetters(), lambda: end_ms, PARTITIONS, 1_000, 5_000)
    log = list(simulate.events(simulate.Plan(messages, 11, START_MS, 200.0, broken_share=0.0)))
    for first in range(0, len(log), _STEP):
        some = list(enumerate(log[first : first + _STEP], first))
        for topic in TOPICS:
            for shard in range(PARTITIONS):
                mine = [e for e in some if e[1].topic == topic and kafka.partition_of(e[1].key, PARTITIONS) == shard]
                flow.batch(topic, shard, [Entry(n, e.at_ms, e.key, e.value) for n, e in mine], end_ms)
        await barrier.write(checkpoint=False)
    for p in flow.partitions.values():
        for topic in TOPICS:
            p.caught_up(topic, end_ms)
    flow.tick(end_ms)
    await barrier.write(checkpoint=False)
    barrier.close()


def main() -> None:
    """Fills a store, merges it, prints."""
    messages = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    with tempfile.TemporaryDirectory(prefix="mdr-disk-") as home:
        store = Store(f"chdb://{home}/chdb")
        store.migrate(3_650, 3_650)
        asyncio.run(fill(store, messages))
        store.command("OPTIMIZE TABLE mdrs FINAL", {})
        ((rows,),) = store.query("SELECT count() FROM mdrs", {})
        columns = [(name, small / rows, large / rows) for name, small, large in store.query(_COLUMNS, {})]
        store.close()
    print(f"{'column':24} {'bytes':>7} {'uncompressed':>13}", file=sys.stderr)
    for name, small, large in columns:
        print(f"{name:24} {small:7.1f} {large:13.1f}", file=sys.stderr)
    total = sum(small for _, small, _ in columns)
    print(json.dumps({"records": rows, "bytes_a_record": round(total, 1)}))


if __name__ == "__main__":
    main()
