"""The same job as Faust's documentation has one do it: an agent a topic, an event at a time, a table with a changelog.

Tuned by settings alone (batches, lz4, poll size). Its rules are in `once.py`. Acknowledged rows may be lost with the
process.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import clickhouse_connect
import faust
import orjson

from benchmarks.peers import once, rows

EVENTS = int(os.environ["PEER_EVENTS"])
PREFIX, PARTITIONS = os.environ["PEER_PREFIX"], int(os.environ["PEER_PARTITIONS"])
BATCH = 20_000
Take = Callable[[once.Held, rows.Row, int], tuple[once.Held, rows.Row | None]]

logging.disable(logging.INFO)
app = faust.App(
    os.environ["PEER_RUN"],
    broker=f"kafka://{os.environ['PEER_KAFKA']}",
    store="memory://",
    datadir=os.environ["PEER_HOME"],
    topic_partitions=PARTITIONS,
    topic_replication_factor=1,
    consumer_auto_offset_reset="earliest",
    web_enabled=False,
    topic_disable_leader=True,
    value_serializer="json",
    producer_linger_ms=50,
    producer_max_batch_size=1 << 18,
    producer_compression_type="lz4",
    broker_max_poll_records=5_000,
)
sends, receives, receipts = (
    app.topic(PREFIX + name, key_type=str, key_serializer="raw", value_type=bytes, value_serializer="raw")
    for name in ("sends", "receives", "receipts")
)
state = app.Table("state", partitions=PARTITIONS)
client = clickhouse_connect.get_client(interface="chdb", path=os.environ["PEER_HOME"] + "/chdb")
client.command(rows.create("mdrs"))
buffer: list[list[Any]] = []
began = 0.0
seen = 0


def insert() -> None:
    if buffer:
        client.insert("mdrs", buffer, column_names=list(rows.COLUMNS))
        buffer.clear()


def emit(row: rows.Row) -> None:
    buffer.append([row[name] for name in rows.COLUMNS])
    if len(buffer) >= BATCH:
        insert()


async def count() -> None:
    global began, seen
    began = began or time.monotonic()
    seen += 1
    if seen == EVENTS:
        for held in list(state.values()):
            if "send" in held:
                emit(once.expire(held))
        insert()
        seconds = time.monotonic() - began
        print(json.dumps({"events": seen, "seconds": seconds}), file=sys.__stdout__, flush=True)
        client.close()
        os._exit(0)


@app.agent(receives)
async def on_receive(stream: Any) -> None:
    async for value in stream:
        event = orjson.loads(value)
        # An answer may have the id of the message it answers.
        mid = "in " + event["message_id"]
        if mid not in state:
            state[mid] = {"settled": True}
            emit(rows.inbound(event))
        await count()


@app.agent(sends)
async def on_send(stream: Any) -> None:
    async for value in stream:
        take(once.send, orjson.loads(value), stream.current_event.message.timestamp)
        await count()


@app.agent(receipts)
async def on_receipt(stream: Any) -> None:
    async for value in stream:
        take(once.receipt, orjson.loads(value), stream.current_event.message.timestamp)
        await count()


def take(how: Take, event: rows.Row, written_s: float) -> None:
    held = state.get(event["message_id"]) or {}
    now, row = how(held, event, round(written_s * 1000))
    if now is not held:
        state[event["message_id"]] = now
    if row:
        emit(row)


if __name__ == "__main__":
    app.main()
