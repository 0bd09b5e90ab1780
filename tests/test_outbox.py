"""Dead letters of receipts that were merged and let go: their bytes are the log's to give, as long as it has them."""

import asyncio
from pathlib import Path
from typing import Any

from schemas.events import decode
from streams import kafka, letters
from streams.clock import clock_ms
from streams.effects import DeadLetter
from streams.letters import Letter
from streams.outbox import Outbox
from streams.settings import Settings
from streams.telemetry import Tally
from tests import pipeline
from tests.entries import event, read, value


async def _bury(settings: Settings, receipts: list[Any]) -> list[Letter]:
    """The letters that become of them; the first receipt alone stands in the log."""
    await kafka.create_topics(settings)
    topic = settings.topic_prefix + "receipts"
    async with kafka.producing(settings) as client:
        await client.send_and_wait(topic, value(event("receipts", "m0")) + b" ", b"m0", partition=0)
    for offset, receipt in enumerate(receipts):
        receipt.source = f"{topic}:0:{offset}"
    tally = Tally()
    outbox = Outbox(settings, tally, lambda *_: None)
    await outbox.start()
    try:
        await outbox.bury([DeadLetter("receipts", 0, None, "too_many_events", "one too many", r) for r in receipts])
    finally:
        await outbox.stop()
    assert tally.dead_letters == {"too_many_events": len(receipts)}
    log = await pipeline.read_log(settings, (kafka.DEAD_LETTERS,))
    found = [letters.open_letter(entry.topic, entry.partition, entry) for _, entry in log]
    return sorted(found, key=lambda letter: letter.offset)


def test_what_the_log_dropped_becomes_a_letter_of_what_was_read(kafka_at: str, tmp_path: Path) -> None:
    """The log's own bytes where it has them; else the event they were decoded to, which decodes to the same."""
    settings = pipeline.make_settings(kafka_at, tmp_path, "left.")
    receipts = [
        read("receipts", message_id=f"m{n}", error_code="7", segment=2, state="failed", rate="0.01") for n in (0, 1)
    ]
    held, gone = asyncio.run(_bury(settings, receipts))
    assert (held.value, held.detail) == (value(event("receipts", "m0")) + b" ", "one too many")
    assert (gone.reason, gone.source, gone.key) == ("too_many_events", "left.receipts:0:1", b"m1")
    assert "dropped its bytes" in gone.detail
    again: Any = decode("receipts", gone.key, gone.value, clock_ms())
    again.source = receipts[1].source
    assert again == receipts[1]
