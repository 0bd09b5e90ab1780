"""Text that a worker once ended of, through a real Kafka and the embedded store: it becomes records, and the worker goes on."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any, Final

import pytest

from streams import aside, kafka
from streams.clock import clock_ms
from streams.settings import Settings
from tests import pipeline
from tests.entries import event, value

UGLY: Final = 'Absent "sub\\scriber"\x00\t'
MONTHS: Final = 70
MONTH_MS: Final = 2_678_400_000


def produced(now_ms: int) -> list[tuple[str, dict[str, Any]]]:
    """An ugly receipt, an ugly send, and receives of more months than a flush once held."""
    first = event("sends", "q1", now_ms - 9_000)
    second = event("sends", "q2", now_ms - 9_000, provider=UGLY)
    receipts = [
        event("receipts", "q1", now_ms - 4_000, state="UNDELIV", error_code="27", vendor_error_code=UGLY),
        event("receipts", "q2", now_ms - 4_000, mcc="310", mnc="410"),
    ]
    months = [event("receives", f"b{n}", now_ms - n * MONTH_MS) for n in range(MONTHS)]
    return [("sends", first), ("sends", second), *(("receipts", r) for r in receipts), *(("receives", m) for m in months)]


async def _written(settings: Settings) -> tuple[list[tuple[Any, ...]], Counter[str]]:
    await kafka.create_topics(settings)
    events = produced(clock_ms())
    async with kafka.producing(settings) as client:
        for topic, fields in events:
            await client.send(settings.topic_prefix + topic, value(fields), key=fields["message_id"].encode())
        await client.flush()
    async with pipeline.working(settings) as worker:
        await worker.start()
        await pipeline.settle_all(worker, len(events))
        sql = "SELECT message_id, vendor_error_code, provider FROM mdr WHERE direction = 'outbound' ORDER BY message_id"
        found = await asyncio.to_thread(worker.store.query, sql, {})
        assert worker.health()["live"]
        return [tuple(row) for row in found], worker.telemetry.tally.records


@pytest.mark.usefixtures("way")
def test_ugly_text_and_many_months_end_no_worker(kafka_at: str, tmp_path: Path, way: str) -> None:
    """All are records, all are counted, and nothing failed on the way."""
    aside.failures.clear()
    found, counted = asyncio.run(_written(pipeline.make_settings(kafka_at, tmp_path, f"quotes.{way}.")))
    assert found == [("q1", UGLY, ""), ("q2", "", UGLY)]
    assert counted == {"complete": 1 + MONTHS, "error": 1}
    assert not aside.failures
