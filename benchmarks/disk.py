"""What a record costs on disk, and which column how much of it: `python -m benchmarks.disk [MESSAGES]`.

Simulated traffic becomes records through the flow and the store. Told are the columns once all is one part a month, the
whole part with its indexes, the parts as they were inserted, and what a record is before compression. Ends with a table
and one JSON line.
"""

import asyncio
import json
import sys
import tempfile
from collections.abc import Sequence
from typing import Final

from benchmarks import tables
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
_WHOLE: Final = "SELECT sum(bytes_on_disk) / sum(rows) FROM system.parts WHERE active AND table = 'mdrs'{}"


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
        # As they are inserted: merges come afterwards.
        store.command("SYSTEM STOP MERGES mdrs", {})
        asyncio.run(fill(store, messages))
        ((fresh,),) = store.query(_WHOLE.format(" AND level = 0"), {})
        # Columns of small parts share a file, and nobody tells their sizes.
        store.command("ALTER TABLE mdrs MODIFY SETTING min_bytes_for_wide_part = 0", {})
        store.command("SYSTEM START MERGES mdrs", {})
        began_s = tables.cpu_s()
        store.command("OPTIMIZE TABLE mdrs FINAL", {})
        merged_s = tables.cpu_s() - began_s
        ((rows,),) = store.query("SELECT count() FROM mdrs", {})
        ((whole,),) = store.query(_WHOLE.format(""), {})
        columns = [(name, small / rows, large / rows) for name, small, large in store.query(_COLUMNS, {})]
        store.close()
    _, small, large = (sum(c[n] for c in columns) if n else 0 for n in range(3))
    ends = [("all columns", small, large), ("merged, with indexes", whole, ""), ("as inserted", fresh, "")]
    tables.show(f"bytes a record, {rows:,} records", ("column", "on disk", "uncompressed"), [*columns, *ends])
    told = {"bytes_a_record": small, "with_indexes": whole, "as_inserted": fresh, "uncompressed": large}
    told["merge_cpu_us"] = merged_s / rows * 1e6
    print(json.dumps({"records": rows} | {name: round(value, 1) for name, value in told.items()}))


if __name__ == "__main__":
    main()
