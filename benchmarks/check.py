"""Whether what a contender wrote is what must come of the topics: a process of its own, as it takes memory.

`python -m benchmarks.check EXPECTED KIND ours|chdb|topic PLACE KAFKA PARTITIONS` prints one JSON line.
"""

import asyncio
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import orjson

from benchmarks.expect import Expected, Kind, digest, topic_values
from benchmarks.peers import rows
from schemas.record import COLUMNS
from streams.demo import comparable
from streams.store import Store, connect
from streams.tables import select_columns

Found = Iterator[tuple[str, str, bytes]]


def whole(url: str) -> Found:
    """Our records, all columns; a partition's at a time."""
    store, names = Store(url), [column.name for column in COLUMNS]
    shards = sorted(shard for (shard,) in store.query("SELECT DISTINCT shard FROM mdrs", {}))
    for shard in shards:
        sql = f"SELECT {select_columns(COLUMNS)} FROM mdrs AS t FINAL WHERE shard = %(shard)s"  # noqa: S608  # our own column names
        for row in store.query(sql, {"shard": shard}):
            record = dict(zip(names, row, strict=True))
            shown = comparable(record)
            yield f"{record['direction']} {record['message_id']}", record["record_type"], digest(shown, sorted(shown))
    store.close()


def part(found: Iterable[dict[str, Any]]) -> Found:
    """The columns that peers write."""
    for row in found:
        yield f"{row['direction']} {row['message_id']}", row["record_type"], digest(row, rows.COMPARED)


def main() -> None:
    """Compares."""
    expected, kind, ends, place, kafka_at, partitions = sys.argv[1:]
    wanted = Expected(Path(expected), cast(Kind, kind))
    if ends == "topic":
        values = asyncio.run(topic_values(kafka_at, place, int(partitions)))
        told = wanted.compare(part(map(orjson.loads, values)))
    else:
        told = wanted.compare(whole(place) if ends == "ours" else part(rows.read(connect(place), "mdrs")))
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
