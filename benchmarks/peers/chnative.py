"""The join left to ClickHouse: events go in as the JSON they are, one pass at the end joins and settles them all.

Nothing is settled as it comes: the pass runs once, when every window has passed. It applies the whole merging rule, of
every receipt there is, late ones as well. Offsets are not committed.
"""

import asyncio
import json
import os
import time
from typing import Any, Final

import clickhouse_connect

from benchmarks.peers import reading, rows
from schemas.states import RANK, WORDS
from schemas.text import DEFAULT_ALPHABET, EXTENSION_TABLE

BATCH: Final = 100_000
TOPICS: Final = ("sends", "receives", "receipts")
_TEXTS: Final = (
    "event_id", "message_id", "occurred_at", "account_id", "profile_id", "connection_id", "from", "to", "message_type",
    "body", "encoding", "mcc", "mnc", "provider", "rate", "carrier_fee", "currency", "state", "error_code",
    "vendor_error_code",
)  # fmt: skip
_EVENT: Final = ", ".join(f"`{name}` String" for name in _TEXTS) + ", segments UInt8, segment UInt8, tags Array(String)"
# The first in the log counts: ids grow as rows are inserted, and the engine keeps the largest.
_FIRST: Final = "bitNot(generateSnowflakeID()) AS earliness"
_AT: Final = "toUnixTimestamp64Milli(parseDateTime64BestEffort(upper(occurred_at), 3, 'UTC')) AS at"


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _class_of(characters: str, *, negated: bool = False) -> str:
    inside = "".join(f"\\x{{{ord(c):x}}}" for c in characters)
    return _quoted(f"[{'^' if negated else ''}{inside}]")


def _nanos(name: str) -> str:
    return f"toInt64(toDecimal64(if({name} = '', '0', {name}), 9) * 1000000000)"


def _accepted(topic: str, direction: str) -> str:
    """Sends or receives as they are stored; parts are counted by size, which no escape or surrogate pair disturbs."""
    foreign = _class_of(DEFAULT_ALPHABET + EXTENSION_TABLE, negated=True)
    return f"""
        SELECT '{direction}' AS direction, message_id, account_id, profile_id, connection_id, `from` AS from_number,
            `to` AS to_number, if(message_type = '', 'sms', message_type) AS kind, body,
            if(encoding != '', encoding, if(match(body, {foreign}), 'ucs2', 'gsm7')) AS coding,
            coding = 'gsm7' AS gsm,
            lengthUTF8(body) + if(gsm, countMatches(body, {_class_of(EXTENSION_TABLE)}),
                countMatches(body, '[\\\\x{{10000}}-\\\\x{{10ffff}}]')) AS size,
            toUInt8(multiIf(segments > 0, segments, kind != 'sms', 1, size <= if(gsm, 160, 70), 1,
                ceil(size / if(gsm, 153, 67)))) AS parts,
            mcc, mnc, provider, error_code, vendor_error_code, {_nanos("rate")} AS rate_nanos,
            {_nanos("carrier_fee")} AS carrier_fee_nanos, if(currency = '', 'USD', currency) AS money, tags,
            {_AT}, {_FIRST}
        FROM {topic}"""


def _prepare(client: Any) -> None:
    states = f"[{', '.join(map(_quoted, WORDS))}], [{', '.join(map(_quoted, WORDS.values()))}]"
    for topic in TOPICS:
        client.command(f"CREATE TABLE {topic} ({_EVENT}) ENGINE = Null")
    client.command(f"""
        CREATE TABLE accepted ENGINE = ReplacingMergeTree(earliness) ORDER BY (message_id, direction) EMPTY AS
        {_accepted("sends", "outbound")}""")
    client.command(f"CREATE MATERIALIZED VIEW of_sends TO accepted AS {_accepted('sends', 'outbound')}")
    client.command(f"CREATE MATERIALIZED VIEW of_receives TO accepted AS {_accepted('receives', 'inbound')}")
    heard = f"""
        SELECT message_id, event_id, transform(upper(state), {states}, '') AS said, {_AT}, segment, mcc, mnc, provider,
            rate, carrier_fee, error_code, vendor_error_code, {_FIRST}
        FROM receipts"""
    order = "message_id, event_id, said, at, segment"
    client.command(f"CREATE TABLE heard ENGINE = ReplacingMergeTree(earliness) ORDER BY ({order}) EMPTY AS {heard}")
    client.command(f"CREATE MATERIALIZED VIEW of_receipts TO heard AS {heard}")
    client.command(rows.create("mdrs"))


def _told(place: int, own: str) -> str:
    """What the strongest, then earliest receipt says that says anything of it; else the send's word."""
    said = f"(arrayFirst(x -> x.{place} != '', told) AS t{place}).{place}"
    return f"if({said} != '', t{place}.{place}, {own})"


def _told_money(place: int, own: str) -> str:
    said = f"(arrayFirst(x -> x.{place} != '', told) AS t{place}).{place}"
    return f"if({said} != '', {_nanos(f't{place}.{place}')}, {own})"


def _settling() -> str:
    ranks = f"[{', '.join(map(_quoted, RANK))}], [{', '.join(str(-rank) for rank in RANK.values())}]"
    return f"""
        INSERT INTO mdrs ({", ".join(rows.COLUMNS)})
        SELECT message_id, account_id, profile_id, connection_id, direction,
            multiIf(direction = 'inbound', if(error_code = '', 'complete', 'error'), won.1 = -3, 'complete',
                won.1 = -2, 'error', 'incomplete') AS record_type,
            multiIf(direction = 'inbound', if(error_code = '', 'received', 'failed'), empty(told), 'queued',
                won.4) AS state,
            kind, from_number, to_number, body, coding, parts, {_told(6, "mcc")}, {_told(7, "mnc")},
            {_told(8, "provider")},
            if(direction = 'inbound', error_code, arrayFirst(x -> x.4 = won.4 AND x.11 != '', told).11),
            if(direction = 'inbound', vendor_error_code, arrayFirst(x -> x.4 = won.4 AND x.12 != '', told).12),
            {_told_money(9, "rate_nanos")} AS rate, {_told_money(10, "carrier_fee_nanos")} AS fee, (rate + fee) * parts,
            money, tags,
            fromUnixTimestamp64Milli(at, 'UTC'),
            if(arrayFirst(x -> x.4 = 'sent', told).1 = 0, NULL,
                fromUnixTimestamp64Milli(arrayFirst(x -> x.4 = 'sent', told).2, 'UTC')),
            multiIf(direction = 'inbound', fromUnixTimestamp64Milli(at, 'UTC'), won.1 > -2, NULL,
                fromUnixTimestamp64Milli(won.2, 'UTC')),
            now64(3, 'UTC')
        FROM (SELECT *, told[1] AS won FROM (SELECT * FROM accepted FINAL) AS a LEFT JOIN (
            SELECT message_id, 'outbound' AS direction, arraySort(groupArray((toInt8(transform(said, {ranks}, 0)), at,
                event_id, said, segment, mcc, mnc, provider, rate, carrier_fee, error_code, vendor_error_code))) AS told
            FROM heard FINAL GROUP BY message_id) AS h USING (message_id, direction))"""


async def main() -> None:
    """Reads the topics to their end, joins and settles; prints one JSON line."""
    prefix, count = os.environ["PEER_PREFIX"], int(os.environ["PEER_EVENTS"])
    client = clickhouse_connect.get_client(interface="chdb", path=os.environ["PEER_HOME"] + "/chdb")
    _prepare(client)
    waiting: dict[str, list[bytes]] = {topic: [] for topic in TOPICS}
    began, read = 0.0, 0
    async for values in reading.batches([prefix + topic for topic in TOPICS], count):
        began = began or time.monotonic()
        for topic, some in values.items():
            waiting[topic.removeprefix(prefix)] += some
            read += len(some)
        for topic, lines in waiting.items():
            if len(lines) >= BATCH or (read >= count and lines):
                block, waiting[topic] = b"\n".join(lines), []
                await asyncio.to_thread(client.raw_insert, topic, insert_block=block, fmt="JSONEachRow")
    read_s = time.monotonic() - began
    await asyncio.to_thread(client.command, _settling())
    seconds = time.monotonic() - began
    print(json.dumps({"events": read, "seconds": seconds, "read_s": round(read_s, 2)}), flush=True)
    client.close()


if __name__ == "__main__":
    asyncio.run(main())
