"""`docs/PRODUCING.md`: what it shows is what is accepted."""

import asyncio
import json
import re
from pathlib import Path
from typing import Final

import pytest

from schemas.events import REASONS, TOPICS, Rejected, decode
from schemas.states import WORDS
from streams.produce import in_time
from streams.simulate import Event

PAGE: Final = (Path(__file__).parent.parent / "docs" / "PRODUCING.md").read_text(encoding="utf-8")
CLOCK_MS: Final = 1_790_000_000_000


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize(("topic", "value"), list(zip(TOPICS, blocks("json"), strict=True)))
def test_the_events_on_the_page_are_accepted(topic: str, value: str) -> None:
    """The page shows a send, a receive and a receipt, and each can be produced as it is."""
    key = json.loads(value)["message_id"].encode()
    assert not isinstance(decode(topic, key, value.encode(), CLOCK_MS), Rejected)


@pytest.mark.parametrize("block", blocks("python"))
def test_the_programs_on_the_page_compile(block: str) -> None:
    """The Python examples are Python."""
    compile(block, "PRODUCING.md", "exec")


def test_the_page_has_every_state_word() -> None:
    """The table of states has each word that is understood, in the row of the state it means."""
    rows = re.findall(r"^\| `([a-z]+)` \|(.*)\|$", PAGE, re.MULTILINE)
    told = {word.upper(): state for state, words in rows for word in (state, *re.findall("`(.+?)`", words))}
    assert told == WORDS


def test_the_page_has_every_reason_in_order() -> None:
    """The reasons are those of the decoder, in the order in which they apply."""
    sentence = PAGE[PAGE.index("Reasons, the first") :]
    assert tuple(re.findall("`([a-z_0-9]+)`", sentence))[: len(REASONS)] == REASONS


async def _sent_live(at_ms: tuple[int, ...]) -> list[tuple[int, int, int]]:
    now_ms, waits = 1_000, 0

    def clock_ms() -> int:
        return now_ms

    async def before_waiting() -> None:
        nonlocal now_ms, waits
        now_ms, waits = now_ms + 40, waits + 1

    events = [Event("sends", b"k", b"{}", at, "") for at in at_ms]
    return [(event.at_ms, now_ms, waits) async for event in in_time(events, clock_ms, before_waiting)]


def test_live_traffic_is_sent_when_it_happens() -> None:
    """What is due is sent at once, what is not only after what is due is on its way and the time has come."""
    assert asyncio.run(_sent_live((900, 1_000, 1_040, 1_041, 1_080))) == [
        (900, 1_000, 0), (1_000, 1_000, 0), (1_040, 1_040, 1), (1_041, 1_040, 1), (1_080, 1_080, 2),
    ]  # fmt: skip
