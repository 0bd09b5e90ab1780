"""The fault suite's judge of offsets: one committed before its event was durable is told."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.structs import TopicPartition

from tests.faults.verdict import Verdict, _ahead

TP = TopicPartition("mdr.sends", 0)
VALUE = json.dumps({"event_id": "e"}).encode()


@pytest.mark.parametrize(
    ("committed", "durable_at", "ahead"),
    [([0, 5, 6], 2, 0), ([0, 6, 6], 2, 1), ([0, 6, 0], 3, 1), ([0, 5, 5], None, 0), ([0, 5, 6], None, 1)],
    ids=["after it was durable", "before", "before, and taken back", "never past it", "never durable"],
)
def test_an_offset_ahead_of_what_is_durable_is_told(committed: list[int], durable_at: int | None, ahead: int) -> None:
    """The event stands at offset 5; it is found in the store from a sample on, or never."""
    reader: Any = SimpleNamespace(
        prefix="mdr.", log={("sends", 0, 5): (0, b"m", VALUE)}, samples=[{TP: at} for at in committed],
        durable_since={} if durable_at is None else {"mdr.sends:0:5": durable_at},
    )  # fmt: skip
    verdict = Verdict()
    _ahead(verdict, reader, SimpleNamespace(dead_letters={}), set())  # type: ignore[arg-type]
    assert verdict.ahead == ahead
