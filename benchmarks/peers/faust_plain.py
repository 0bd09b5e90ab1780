"""The same job as Faust's documentation has one do it: an agent a topic, an event at a time, a table with a changelog.

Tuned by settings alone (batches, lz4, poll size). It is let off lightly: its record has a third of our columns and no
timeline, what comes after the first final receipt is forgotten, bad events are skipped, acknowledged rows may be lost
with the process. `python -m benchmarks.bench` runs it; it reads PEER_* from the environment and ends with a JSON line.
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

from schemas.times import parse_rfc3339

EVENTS = int(os.environ["PEER_EVENTS"])
PREFIX, PARTITIONS = os.environ["PEER_PREFIX"], int(os.environ["PEER_PARTITIONS"])
BATCH = 20_000
FINAL = {"delivered", "undelivered", "failed", "rejected", "expired", "deleted"}
COLUMNS = (
    "message_id", "account_id", "profile_id", "connection_id", "direction", "record_type", "state", "from_number",
    "to_number", "body", "segments", "mcc", "mnc", "error_code", "rate", "currency", "tags", "occurred_at", "sent_at",
    "final_at", "settled_at",
)  # fmt: skip
TABLE = """
CREATE TABLE mdrs (
    message_id String, account_id LowCardinality(String), profile_id LowCardinality(String),
    connection_id LowCardinality(String), direction LowCardinality(String), record_type LowCardinality(String),
    state LowCardinality(String), from_number String, to_number String, body String, segments UInt8,
    mcc LowCardinality(String), mnc LowCardinality(String), error_code LowCardinality(String), rate String,
    currency LowCardinality(String), tags Array(LowCardinality(String)), occurred_at DateTime64(3, 'UTC'),
    sent_at Nullable(DateTime64(3, 'UTC')), final_at Nullable(DateTime64(3, 'UTC')), settled_at DateTime64(3, 'UTC')
) ENGINE = ReplacingMergeTree PARTITION BY toYYYYMM(occurred_at) ORDER BY (account_id, occurred_at, message_id)"""

logging.disable(logging.INFO)
app = faust.App(
    f"faust-plain-{os.getpid()}",
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
client.command(TABLE)
rows: list[list[Any]] = []
began = 0.0
seen = written = 0


def insert() -> None:
    global written
    if rows:
        client.insert("mdrs", rows, column_names=COLUMNS)
        written += len(rows)
        rows.clear()


def row(event: dict[str, Any], direction: str, said: str, sent_ms: int | None, final: dict[str, Any]) -> list[Any]:
    done = final or direction == "inbound"
    kind = "complete" if said in ("delivered", "received") else "error" if done else "incomplete"
    return [
        event["message_id"], event["account_id"], event.get("profile_id", ""), event.get("connection_id", ""),
        direction, kind, said, event["from"], event["to"], event.get("body", ""), event.get("segments", 1),
        event.get("mcc", ""), event.get("mnc", ""), final.get("error_code", ""), event.get("rate", ""),
        event.get("currency", "USD"), event.get("tags") or [], parse_rfc3339(event["occurred_at"]), sent_ms,
        parse_rfc3339(final["occurred_at"]) if final else None, int(time.time() * 1000),
    ]  # fmt: skip


def emit(made: list[Any]) -> None:
    rows.append(made)
    if len(rows) >= BATCH:
        insert()


async def count() -> None:
    global began, seen
    began = began or time.monotonic()
    seen += 1
    if seen == EVENTS:
        for held in list(state.values()):
            if held["send"]:
                emit(row(held["send"], "outbound", "sent", held["sent"], {}))
        insert()
        seconds = time.monotonic() - began
        print(json.dumps({"events": seen, "seconds": seconds, "records": written}), file=sys.__stdout__, flush=True)
        os._exit(0)


def decoded(value: bytes) -> dict[str, Any] | None:
    try:
        event = orjson.loads(value)
        return event if event["message_id"] and parse_rfc3339(event["occurred_at"]) else None
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return None


@app.agent(receives)
async def on_receive(stream: Any) -> None:
    async for value in stream:
        event = decoded(value)
        if event is not None and "from" in event and "account_id" in event:
            emit(row(event, "inbound", event.get("status", "received"), None, {}))
        await count()


@app.agent(sends)
async def on_send(stream: Any) -> None:
    async for value in stream:
        event = decoded(value)
        if event is not None and "from" in event and "account_id" in event:
            held = state.get(event["message_id"])
            if held and held["final"]:
                state.pop(event["message_id"])
                emit(row(event, "outbound", held["final"]["state"], held["sent"], held["final"]))
            else:
                state[event["message_id"]] = {"send": event, "sent": held["sent"] if held else None, "final": None}
        await count()


@app.agent(receipts)
async def on_receipt(stream: Any) -> None:
    async for value in stream:
        event = decoded(value)
        if event is not None and "state" in event:
            mid, said = event["message_id"], event["state"]
            held = state.get(mid) or {"send": None, "sent": None, "final": None}
            if said not in FINAL:
                state[mid] = held | {"sent": parse_rfc3339(event["occurred_at"])}
            elif held["send"]:
                state.pop(mid)
                emit(row(held["send"], "outbound", said, held["sent"], event))
            else:
                state[mid] = held | {"final": event}
        await count()


if __name__ == "__main__":
    app.main()
