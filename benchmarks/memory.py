"""Memory of a message that is still open, as resident bytes: `python -m benchmarks.memory [N]`.

Simulated sends with ids of their own, half of them `sent`, are saved in snapshots as a worker does every few seconds;
what the second half of them adds to the resident memory is measured. Ends with a table and one JSON
line.
"""

import gc
import json
import sys
import uuid
from pathlib import Path
from typing import NamedTuple

import orjson

from benchmarks import tables
from streams import simulate
from streams.flow import RECEIPTS, SENDS, Flow

_STEP = 4_000
# A worker ticks four times a second: this is 1,800 sends a second in one partition.
_TICKS = 9
_START_MS = 1_795_000_000_000


class _Entry(NamedTuple):
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def main() -> None:
    """Opens the messages and prints what one of them holds."""
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    plan = simulate.Plan(3_000, 3, _START_MS, inbound_share=0.0, broken_share=0.0)
    models = [orjson.loads(e.value) for e in simulate.events(plan) if e.topic == SENDS]
    flow = Flow("mdr.", 4 * 3_600_000)
    partition = flow.open_partition(0, _START_MS)
    before = 0
    for first in range(0, wanted, _STEP):
        if not before and first >= wanted // 2:
            before, counted = _resident_bytes(), len(partition.lives)
        batch = [_send(n, models[n % len(models)]) for n in range(first, min(first + _STEP, wanted))]
        flow.batch(SENDS, 0, batch, _START_MS)
        flow.batch(RECEIPTS, 0, [_sent(e) for e in batch[::2]], _START_MS)
        for _ in range(_TICKS):
            flow.tick(_START_MS)
        partition.saved(partition.snapshot(_START_MS))
    gc.collect()
    held = _resident_bytes() - before
    each = round(held / (len(partition.lives) - counted))
    tables.show("memory of open messages", ("open", "bytes each"), [(len(partition.lives), each)])
    print(json.dumps({"open": len(partition.lives), "bytes_each": each}))


def _send(n: int, model: dict[str, object]) -> _Entry:
    mid = str(uuid.UUID(int=n * 0x9E3779B97F4A7C15F39CC0605CEDC835 % (1 << 128)))
    return _Entry(n, _START_MS, mid.encode(), orjson.dumps(model | {"message_id": mid, "event_id": f"{n:024x}"}))


def _sent(e: _Entry) -> _Entry:
    fields = orjson.loads(e.value or b"{}")
    receipt = {"event_id": fields["event_id"], "message_id": fields["message_id"], "state": "sent"}
    return e._replace(value=orjson.dumps(receipt | {"occurred_at": fields["occurred_at"], "provider": "harbour"}))


if __name__ == "__main__":
    main()
