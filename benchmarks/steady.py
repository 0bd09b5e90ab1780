"""Steady traffic that is ready before it begins: `python -m benchmarks.steady RATE SECONDS`, for `benchmarks.latency`.

Each message is a send, a `sent` and a `delivered` receipt some hundred milliseconds apart; of one in a hundred `sent`
comes up to two seconds after `delivered`, of another one `delivered` comes twice. All batches are made and compressed
first; then they leave by the clock, whatever becomes of those before (open loop). Prints as JSON when each probe's
final receipt was due, and how late the producer itself was.
"""

import asyncio
import gc
import json
import sys
import time
from collections import defaultdict
from typing import Any, Final, NamedTuple

import orjson
from aiokafka import AIOKafkaProducer

from schemas.times import format_rfc3339
from streams import kafka, settings, simulate
from streams.flow import RECEIPTS, SENDS
from streams.settings import Settings

PROBE: Final = "probe"
WARM_UP_S: Final = 8.0
SLOT_S: Final = 0.05
EVENTS_A_MESSAGE: Final = 3
PROBE_EVERY: Final = 100
_SENT_AFTER_S: Final = 0.1
_DELIVERED_AFTER_S: Final = 0.5
# Of every hundred messages one is a probe, one has its receipts the wrong way round, and one has a receipt twice.
_REORDERED, _REPEATED = 1, 2
# What it takes to make an event ready, generously: the start is set before it is done.
_READY_S_AN_EVENT: Final = 60e-6

Slots = dict[int, dict[tuple[str, int], list[Any]]]


class Ready(NamedTuple):
    """Batches by slot of time, topic and partition, and when each probe's final receipt leaves."""

    slots: Slots
    finals: dict[str, float]


def one_segment_sends() -> list[dict[str, Any]]:
    """Sends with one segment, so that one `delivered` is final."""
    plan = simulate.Plan(3_000, 3, 1_700_000_000_000, 100.0, inbound_share=0.0, broken_share=0.0)
    sends = [orjson.loads(e.value) for e in simulate.events(plan) if e.topic == SENDS]
    plain = [s | {"body": "Your code is 123456.", "encoding": "gsm7", "segments": 1} for s in sends]
    return [s for s in plain if s.get("type", "sms") == "sms"]


class Course(NamedTuple):
    """What one partition gets, by slot of time from a start."""

    start_s: float
    slots: list[tuple[int, list[Any]]]


class _Maker:
    def __init__(self, client: AIOKafkaProducer, partitions: int, start_s: float) -> None:
        self._client = client
        self._partitions = partitions
        self.start_s = start_s
        self.slots: Slots = defaultdict(lambda: defaultdict(list))

    def add(self, topic: str, fields: dict[str, Any], after_s: float, occurred_s: float | None = None) -> float:
        """Puts an event into its slot; returns when that leaves."""
        slot, at_ms, key = int(after_s / SLOT_S), int((self.start_s + after_s) * 1000), fields["message_id"].encode()
        occurred_ms = at_ms if occurred_s is None else int((self.start_s + occurred_s) * 1000)
        value = orjson.dumps(fields | {"occurred_at": format_rfc3339(occurred_ms)})
        batches = self.slots[slot][topic, kafka.partition_of(key, self._partitions)]
        if not batches or batches[-1].append(key=key, value=value, timestamp=at_ms) is None:
            batches.append(self._client.create_batch())
            batches[-1].append(key=key, value=value, timestamp=at_ms)
        return self.start_s + (slot + 1) * SLOT_S

    def message(self, n: int, model: dict[str, Any], after_s: float) -> tuple[str, float]:
        """The events of a message; returns its id and when the final receipt leaves."""
        name, place, odd_s = f"{n:012d}-{self.start_s:.0f}", n % PROBE_EVERY, _DELIVERED_AFTER_S + n % 20_000 / 10_000
        self.add(SENDS, model | {"message_id": name, "event_id": f"{name}-q"}, after_s)
        self._receipt(name, "sent", after_s + (odd_s if place == _REORDERED else _SENT_AFTER_S))
        if place == _REPEATED:
            self._receipt(name, "delivered", after_s + odd_s, after_s + _DELIVERED_AFTER_S)
        return name, self._receipt(name, "delivered", after_s + _DELIVERED_AFTER_S)

    def _receipt(self, name: str, state: str, after_s: float, occurred_s: float | None = None) -> float:
        receipt = {"message_id": name, "event_id": f"{name}-{state}", "state": state}
        return self.add(RECEIPTS, receipt, after_s, occurred_s)


def make(client: AIOKafkaProducer, partitions: int, rate: float, seconds: float, start_s: float) -> Ready:
    """All traffic of so many events a second."""
    maker, models, finals = _Maker(client, partitions, start_s), one_segment_sends(), {}
    for n in range(int(rate * seconds / EVENTS_A_MESSAGE)):
        is_probe, after_s, model = n % PROBE_EVERY == 0, n * EVENTS_A_MESSAGE / rate, models[n % len(models)]
        name, leaves_s = maker.message(n, model | {"account_id": PROBE} if is_probe else model, after_s)
        if is_probe and after_s > WARM_UP_S:
            finals[name] = leaves_s
    for places in maker.slots.values():
        for batch in (batch for batches in places.values() for batch in batches):
            batch.close()
    return Ready(maker.slots, finals)


class _Lateness:
    """By how much batches missed their time, once the connections are there."""

    def __init__(self) -> None:
        self.left: list[float] = []
        self.acknowledged: list[float] = []

    def note(self, after_s: float, due_s: float, future: "asyncio.Future[Any]") -> None:
        """A batch was handed over that was due then; the future is its acknowledgement."""
        if after_s >= WARM_UP_S:
            self.left.append(time.time() - due_s)
            future.add_done_callback(lambda _: self.acknowledged.append(time.time() - due_s))


async def _send_place(client: AIOKafkaProducer, topic: str, partition: int, course: Course, late: _Lateness) -> None:
    """Sends what one partition gets by the clock, in order: a slow partition makes no other late."""
    waits = []
    for slot, batches in course.slots:
        due_s = course.start_s + (slot + 1) * SLOT_S
        await asyncio.sleep(max(0.0, due_s - time.time()))
        for batch in batches:
            waits.append(await client.send_batch(batch, topic, partition=partition))
            late.note(slot * SLOT_S, due_s, waits[-1])
    await asyncio.gather(*waits)


async def send(client: AIOKafkaProducer, ready: Ready, prefix: str, start_s: float) -> _Lateness:
    """Sends everything by the clock; returns how late it left and was acknowledged."""
    late, places = _Lateness(), sorted({place for slot in ready.slots.values() for place in slot})
    courses = {
        place: Course(
            start_s, [(slot, ready.slots[slot][place]) for slot in sorted(ready.slots) if place in ready.slots[slot]]
        )
        for place in places
    }
    await asyncio.gather(*(_send_place(client, prefix + t, n, course, late) for (t, n), course in courses.items()))
    return late


async def produce(options: Settings, rate: float, seconds: float) -> dict[str, Any]:
    """Makes everything ready, sends it, tells how that went."""
    async with kafka.producing(options) as client:
        partitions = len(await client.partitions_for(options.topic_prefix + SENDS))
        start_s = time.time() + 3 + rate * seconds * _READY_S_AN_EVENT
        ready = make(client, partitions, rate, seconds, start_s)
        gc.freeze()  # there is much of it, and none is garbage
        spare_s = start_s - time.time()
        late = await send(client, ready, options.topic_prefix, start_s)
    told = {"start_s": start_s, "end_s": start_s + seconds, "finals": ready.finals, "ready_early_s": round(spare_s, 1)}
    lateness = {f"late_ms_{name}": _ms(late.left, share) for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))}
    return told | lateness | {"acknowledged_ms_p99": _ms(late.acknowledged, 0.99)}


def _ms(values: list[float], share: float) -> int:
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(produce(settings.load(), float(sys.argv[1]), float(sys.argv[2])))))
