"""What the peers that end in a topic still owe: their rows from the topic into chDB, the JSON read by ClickHouse."""

import asyncio
import json
import os
import time

import clickhouse_connect

from benchmarks.peers import reading, rows

BATCH = 50_000


async def main() -> None:
    """Reads the topic to its end; prints one JSON line."""
    count = int(os.environ["PEER_RECORDS"])
    client = clickhouse_connect.get_client(interface="chdb", path=os.environ["PEER_HOME"] + "/chdb")
    client.command(rows.create("mdrs"))
    # Integers would be read as seconds: they land as they are, and a view makes times of them.
    landing = rows.create("landing", "ENGINE = Null").replace("DateTime64(3, 'UTC')", "Int64")
    client.command(landing)
    made = ", ".join(f"fromUnixTimestamp64Milli({name}, 'UTC') AS {name}" for name in rows.TIMES)
    client.command(f"CREATE MATERIALIZED VIEW to_mdrs TO mdrs AS SELECT * REPLACE ({made}) FROM landing")
    began, read, waiting = 0.0, 0, []
    async for values in reading.batches([os.environ["PEER_OUT"]], count):
        began = began or time.monotonic()
        for some in values.values():
            waiting += some
            read += len(some)
        if len(waiting) >= BATCH or read >= count:
            block, waiting = b"\n".join(waiting), []
            await asyncio.to_thread(client.raw_insert, "landing", insert_block=block, fmt="JSONEachRow")
    print(json.dumps({"events": read, "seconds": time.monotonic() - began}), flush=True)
    client.close()


if __name__ == "__main__":
    asyncio.run(main())
