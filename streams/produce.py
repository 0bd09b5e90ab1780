"""Events onto the topics: lines of JSON, and simulated traffic."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Final, NamedTuple

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.producer.message_accumulator import BatchBuilder

from schemas.events import Rejected, decode
from streams import kafka
from streams.settings import Settings
from streams.simulate import Event

_IN_FLIGHT_MAX: Final = 64
_PAUSE_EVERY: Final = 500
_AHEAD_MS: Final = 10


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
    """Produces in whole batches, with bounded memory; `submit` and `flush` raise the first failure.

    A batch costs the client one future, however many entries it holds: several times faster than entry by entry.
    """

    def __init__(self, client: AIOKafkaProducer, settings: Settings) -> None:
        self._client = client
        self._prefix = settings.topic_prefix
        self._partitions: dict[str, int] = {}
        self._filling: dict[tuple[str, int], BatchBuilder] = {}
        self._in_flight: set[asyncio.Future[object]] = set()
        self.sent = 0

    async def send(self, topic: str, key: bytes | None, value: bytes, timestamp_ms: int | None = None) -> None:
        """Hands one entry over; it is on its way when its batch is full, or at the next `submit`."""
        count = self._partitions.get(topic) or await self._count(topic)
        place = topic, self.sent % count if key is None else kafka.partition_of(key, count)
        batch = self._filling.get(place)
        if batch is None or batch.append(key=key, value=value, timestamp=timestamp_ms) is None:
            if batch is not None:
                await self._submit(place, batch)
            batch = self._filling[place] = self._client.create_batch()
            # The first entry always goes in; whether it is too large is for the broker to say.
            batch.append(key=key, value=value, timestamp=timestamp_ms)
        self.sent += 1
        if self.sent % _PAUSE_EVERY == 0:
            await asyncio.sleep(0)

    async def submit(self) -> None:
        """Puts everything on its way."""
        filling, self._filling = self._filling, {}
        for place, batch in filling.items():
            await self._submit(place, batch)

    async def flush(self) -> None:
        """Returns once the broker has acknowledged everything."""
        await self.submit()
        await asyncio.gather(*self._in_flight)

    async def _count(self, topic: str) -> int:
        count = self._partitions[topic] = len(await self._client.partitions_for(self._prefix + topic))
        return count

    async def _submit(self, place: tuple[str, int], batch: BatchBuilder) -> None:
        topic, partition = place
        batch.close()
        future = await self._client.send_batch(batch, self._prefix + topic, partition=partition)
        self._in_flight.add(future)
        future.add_done_callback(self._done)
        while len(self._in_flight) >= _IN_FLIGHT_MAX:
            done, _ = await asyncio.wait(self._in_flight, return_when=asyncio.FIRST_COMPLETED)
            for ended in done:
                ended.result()

    def _done(self, future: "asyncio.Future[object]") -> None:
        if not future.cancelled() and future.exception() is None:
            self._in_flight.discard(future)


async def in_time(
    events: Iterable[Event], clock_ms: Callable[[], int], before_waiting: Callable[[], Awaitable[None]]
) -> AsyncIterator[Event]:
    """The events, none before the time at which its producer writes it."""
    for event in events:
        ahead_ms = event.at_ms - clock_ms()
        if ahead_ms > _AHEAD_MS:
            await before_waiting()
            await asyncio.sleep(ahead_ms / 1000)
        yield event


async def _at_once(events: Iterable[Event]) -> AsyncIterator[Event]:
    for event in events:
        yield event


async def send_simulated(
    outlet: Outlet, events: Iterable[Event], clock_ms: Callable[[], int] | None, tell: Callable[[int], None]
) -> None:
    """Produces simulated events, stamped with the time at which their producer would have written them.

    With a clock each is sent at that time, without one as fast as can be.
    """

    async def submit() -> None:
        await outlet.submit()
        tell(outlet.sent)

    async for event in _at_once(events) if clock_ms is None else in_time(events, clock_ms, submit):
        await outlet.send(event.topic, event.key, event.value, event.at_ms)
        if outlet.sent % _PAUSE_EVERY == 0:
            tell(outlet.sent)
    await outlet.flush()
    tell(outlet.sent)
