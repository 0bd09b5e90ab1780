"""The limit and ours, each a process: `python -m benchmarks.runs raw|ours`, told by PEER_* what to read.

Times run from the first event to the last row acknowledged, ours with its offsets committed.
"""

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Final

import orjson
from aiokafka import AIOKafkaConsumer

from benchmarks import dataset
from schemas.events import TOPICS
from streams import kafka, running
from streams.agents import Worker
from streams.settings import Settings

_PATIENCE_S: Final = 900.0


async def raw(ready: Settings, events: int) -> dict[str, Any]:
    """The limit: `getmany` and `orjson.loads`, nothing else."""
    consumer: Any = AIOKafkaConsumer(
        *(ready.topic_prefix + topic for topic in TOPICS),
        **kafka.client_options(ready),
        group_id=f"raw-{os.getpid()}",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        max_partition_fetch_bytes=4 << 20,
    )
    await consumer.start()
    count, began = 0, 0.0
    while count < events:
        fetched = await consumer.getmany(timeout_ms=500, max_records=20_000)
        began = began or time.monotonic()
        for records in fetched.values():
            for record in records:
                try:
                    orjson.loads(record.value)
                except (orjson.JSONDecodeError, TypeError):
                    continue
            count += len(records)
    seconds = time.monotonic() - began
    await consumer.stop()
    return {"events": count, "seconds": seconds}


async def ours(ready: Settings, events: int) -> dict[str, Any]:
    """The worker: three topics joined, settled, inserted, acknowledged, offsets committed."""
    async with running.working(ready, f"bench-{os.getpid()}") as worker:
        return await _until_all_is_written(worker, events)


async def _until_all_is_written(worker: Worker, events: int) -> dict[str, Any]:
    began, open_peak = 0.0, 0
    while True:
        await asyncio.sleep(0.01)
        assert worker.failed is not None
        if worker.failed.done():
            worker.failed.result()
        parts = worker.flow.partitions.values()
        seen, open_ = sum(p.counts.events for p in parts), sum(len(p.lives) for p in parts)
        if seen and not began:
            began = time.monotonic()
        open_peak = max(open_peak, open_)
        if began and time.monotonic() - began > _PATIENCE_S:
            raise SystemExit(f"{open_} messages are still open after {_PATIENCE_S} s")
        if seen >= events and not open_ and not any(p.pending() for p in parts):
            await worker.barrier.write(checkpoint=True)
            if not any(len(p.lives) + p.pending() for p in parts):
                break
    return {"events": events, "seconds": time.monotonic() - began, "open_peak": open_peak}


def main() -> None:
    """Runs the one that is named; prints one JSON line."""
    told = {name.removeprefix("PEER_"): value for name, value in os.environ.items() if name.startswith("PEER_")}
    ready = dataset.ready(Path(told["HOME"]), told["KAFKA"], told["PREFIX"], "chdb")
    which = {"raw": raw, "ours": ours}[sys.argv[1]]
    print(json.dumps(asyncio.run(which(ready, int(told["EVENTS"])))), flush=True)


if __name__ == "__main__":
    main()
