"""A topic's entries as they are, for the peers that leave the work to ClickHouse."""

import os
from collections.abc import AsyncIterator, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer


async def batches(topics: Sequence[str], count: int) -> AsyncIterator[dict[str, list[bytes]]]:
    """The next values by topic, until that many were read."""
    consumer: Any = AIOKafkaConsumer(
        *topics, bootstrap_servers=os.environ["PEER_KAFKA"], group_id=os.environ["PEER_RUN"],
        auto_offset_reset="earliest", enable_auto_commit=False, max_partition_fetch_bytes=4 << 20,
    )  # fmt: skip
    await consumer.start()
    read = 0
    while read < count:
        fetched = await consumer.getmany(timeout_ms=500, max_records=20_000)
        values: dict[str, list[bytes]] = {}
        for place, records in fetched.items():
            values.setdefault(place.topic, []).extend(record.value for record in records)
            read += len(records)
        if values:
            yield values
    await consumer.stop()
