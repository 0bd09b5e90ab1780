"""The private names that the batch transport leans on."""

import asyncio
from typing import Any

import faust.streams
import pytest

from streams import transport


def test_every_private_name_is_what_it_was() -> None:
    """Faust, mode and aiokafka are the pinned versions, and each name takes what the transport gives it."""
    transport.check_private_names()


def test_faust_is_compiled() -> None:
    """Its pure Python streams acknowledge stale messages; the compiled ones skip them."""
    assert faust.streams._CStreamIterator is not None


class _Moved:
    def kept(self, a: int, b: int) -> None:
        """As it was."""

    def changed(self, a: int) -> None:
        """Takes less than it did."""


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("gone", "gone is gone, and the batch transport"), ("changed", r"changed takes \(self, a\) now")],
)
def test_a_name_that_moved_is_told(name: str, sentence: str) -> None:
    """The start is refused with the name that is gone or takes something else."""
    with pytest.raises(transport.TransportMoved, match=sentence):
        transport.check_name(_Moved, name, "(self, a, b)")


def test_another_version_is_refused(monkeypatch: Any) -> None:
    """A version the transport was not made for is named with the one it was made for."""
    monkeypatch.setattr(transport, "version", lambda package: "9.9.9")
    with pytest.raises(transport.TransportMoved, match=r"is 9\.9\.9, but the batch transport was made for"):
        transport.check_private_names()


class _EndingThread:
    def commit_fenced(self) -> None:
        """Never called."""

    async def call_thread(self, *_: Any) -> None:
        """Gives up what it was asked, as it does when it ends."""
        raise asyncio.CancelledError


def test_a_commit_that_the_ending_consumer_gives_up_is_refused() -> None:
    """As a cancellation of its caller it would stop a rebalance half-way, and the process would never end."""
    consumer = transport._Consumer.__new__(transport._Consumer)
    consumer._thread = _EndingThread()
    assert asyncio.run(consumer.commit_fenced({}, 1)) is False


def test_a_commit_whose_caller_is_cancelled_is_cancelled() -> None:
    """A checkpoint that takes too long is torn, not refused."""

    class Slow(_EndingThread):
        async def call_thread(self, *_: Any) -> None:
            await asyncio.Event().wait()

    async def bounded() -> None:
        consumer = transport._Consumer.__new__(transport._Consumer)
        consumer._thread = Slow()
        await asyncio.wait_for(consumer.commit_fenced({}, 1), 0.01)

    with pytest.raises(TimeoutError):
        asyncio.run(bounded())
