"""Events onto the topics: lines of JSON, and simulated traffic."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Final, NamedTuple

import msgspec
from aiokafka import AIOKafkaProducer

from schemas.events import Rejected, decode
from streams.settings import Settings
from streams.simulate import Event

_IN_FLIGHT_MAX: Final = 5_000
_PAUSE_EVERY: Final = 500


class Line(NamedTuple):
    """One line to produce, with what is wrong with it."""

    number: int
    key: bytes | None
    value: bytes
    rejected: Rejected | None


def read_lines(topic: str, lines: Iterable[bytes], clock_ms: int) -> Iterator[Line]:
    """The non-empty lines as log entries, keyed as they must be and checked as the worker will check them."""
    for number, line in enumerate(lines, start=1):
        value = line.rstrip(b"\r\n")
        if value:
            key = _key_of(value)
            event = decode(topic, key, value, clock_ms)
            yield Line(number, key, value, event if isinstance(event, Rejected) else None)


class _Keyed(msgspec.Struct):
    message_id: str


def _key_of(value: bytes) -> bytes | None:
    try:
        return msgspec.json.decode(value, type=_Keyed).message_id.encode()
    except Exception:  # no key can be had from it; the worker says what is wrong with it
        return None


class Outlet:
    """Produces with bounded memory; `flush` raises the first failure."""

    def __init__(self, client: AIOKafkaProducer, settings: Settings) -> None:
        self._client = client
        self._prefix = settings.topic_prefix
        self._in_flight: set[asyncio.Future[object]] = set()
        self.sent = 0

    async def send(self, topic: str, key: bytes | None, value: bytes, timestamp_ms: int | None = None) -> None:
        """Hands one entry over; waits when too many are on their way."""
        future = await self._client.send(self._prefix + topic, value, key, timestamp_ms=timestamp_ms)
        self._in_flight.add(future)
        future.add_done_callback(self._done)
        self.sent += 1
        if len(self._in_flight) >= _IN_FLIGHT_MAX:
            await asyncio.wait(self._in_flight, return_when=asyncio.FIRST_COMPLETED)
        if self.sent % _PAUSE_EVERY == 0:
            await asyncio.sleep(0)

    def _done(self, future: "asyncio.Future[object]") -> None:
        if future.exception() is None:
            self._in_flight.discard(future)

    async def flush(self) -> None:
        """Returns once the broker has acknowledged everything."""
        if self._in_flight:
            await asyncio.gather(*self._in_flight)


async def paced(events: Iterable[Event], rate_per_s: float | None) -> AsyncIterator[Event]:
    """The events, no faster than a rate."""
    began = time.monotonic()
    for count, event in enumerate(events):
        if rate_per_s:
            ahead_s = count / rate_per_s - (time.monotonic() - began)
            if ahead_s > 0.01:
                await asyncio.sleep(ahead_s)
        yield event


async def send_simulated(
    outlet: Outlet, events: Iterable[Event], rate_per_s: float | None, tell: Callable[[int], None]
) -> None:
    """Produces simulated events, stamped with the time at which their producer would have written them."""
    async for event in paced(events, rate_per_s):
        await outlet.send(event.topic, event.key, event.value, event.at_ms)
        if outlet.sent % _PAUSE_EVERY == 0:
            tell(outlet.sent)
    await outlet.flush()
    tell(outlet.sent)
