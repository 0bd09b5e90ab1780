"""The same job as Faust's documentation has one do it: an agent a topic, an event at a time, a table with a changelog.

Tuned by settings alone (batches, lz4, poll size). Its rules are those of `java/common/.../Join.java`: the first final
receipt in the log settles, what comes later is forgotten. Acknowledged rows may be lost with the process.
"""

import json
import logging
import os
import sys
import time
from typing import Any

import clickhouse_connect
import faust
import orjson

from benchmarks.peers import rows
from schemas.states import FINAL_RANK, RANK, parse_state
from schemas.times import parse_rfc3339

EVENTS = int(os.environ["PEER_EVENTS"])
PREFIX, PARTITIONS = os.environ["PEER_PREFIX"], int(os.environ["PEER_PARTITIONS"])
BATCH = 20_000
WINDOW_MS = 4 * 3_600_000
TELLS = {"mcc", "mnc", "provider", "rate", "carrier_fee"}
Held = dict[str, Any]

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


def settle(held: Held, final: rows.Row | None) -> Held:
    emit(rows.outbound(held["send"], held.get("sent"), held.get("teller"), final))
    return {"settled": True}


async def count() -> None:
    global began, seen
    began = began or time.monotonic()
    seen += 1
    if seen == EVENTS:
        for held in list(state.values()):
            if "send" in held:
                settle(held, None)
        insert()
        seconds = time.monotonic() - began
        print(json.dumps({"events": seen, "seconds": seconds}), file=sys.__stdout__, flush=True)
        client.close()
        os._exit(0)


def take_send(held: Held, event: rows.Row, written_ms: int) -> Held:
    if "send" in held or "settled" in held:
        return held
    due_ms = max(parse_rfc3339(event["occurred_at"]) or 0, written_ms) + WINDOW_MS
    held = held | {"send": event, "due": due_ms}
    final = held.pop("final", None)
    return settle(held, final) if final and held["written"] < due_ms else held


def take_receipt(held: Held, event: rows.Row, written_ms: int) -> Held:
    if "settled" in held or "final" in held or written_ms >= held.get("due", written_ms + 1):
        return held
    said = parse_state(event["state"]) or ""
    if RANK[said] >= FINAL_RANK:
        return settle(held, event) if "send" in held else held | {"final": event, "written": written_ms}
    if said != "sent":
        return held
    at_ms, heard = parse_rfc3339(event["occurred_at"]) or 0, held.get("heard", [])
    if [at_ms, event["event_id"]] in heard:  # a copy: what the first one said counts
        return held
    is_first = not heard or at_ms < held["sent"]
    tells = not TELLS.isdisjoint(event) and (is_first or "teller" not in held)
    held = held | {"heard": [*heard, [at_ms, event["event_id"]]]}
    return held | ({"sent": at_ms} if is_first else {}) | ({"teller": event} if tells else {})


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
        event = orjson.loads(value)
        mid, held = event["message_id"], state.get(event["message_id"]) or {}
        now = take_send(held, event, round(stream.current_event.message.timestamp * 1000))
        if now is not held:
            state[mid] = now
        await count()


@app.agent(receipts)
async def on_receipt(stream: Any) -> None:
    async for value in stream:
        event = orjson.loads(value)
        mid, held = event["message_id"], state.get(event["message_id"]) or {}
        now = take_receipt(held, event, round(stream.current_event.message.timestamp * 1000))
        if now is not held:
            state[mid] = now
        await count()


if __name__ == "__main__":
    app.main()
