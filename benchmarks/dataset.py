"""The topics all contenders read: simulated traffic, loaded once into a broker of its own, and what must come of it."""

import asyncio
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

import msgspec
from aiokafka.admin import AIOKafkaAdminClient

from benchmarks import expect
from streams import broker, kafka, settings, simulate
from streams.broker import Broker
from streams.produce import Outlet, send_simulated
from streams.settings import Settings

RATE_PER_S: Final = 200.0
_HOUR_MS: Final = 3_600_000
_CHUNK: Final = 2_000
# The local broker is made small; here it is given what a broker has. The last word among a JVM's options.
_BROKER_JVM: Final = "-Xmx1g -XX:TieredStopAtLevel=4"


class Dataset(msgspec.Struct, frozen=True):
    """Topics of one prefix, as they are in the broker."""

    prefix: str
    messages: int
    events: int
    records: int
    partitions: int


@contextmanager
def serving(home: Path) -> Iterator[Broker]:
    """A broker under the directory while the block runs."""
    before = os.environ.get("_JAVA_OPTIONS")
    os.environ["_JAVA_OPTIONS"] = _BROKER_JVM
    try:
        started = broker.start(home, cache_dir=_base(home).cache_dir, tied_to_parent=True)
    finally:
        os.environ.pop("_JAVA_OPTIONS")
        if before is not None:
            os.environ["_JAVA_OPTIONS"] = before
    try:
        yield started
    finally:
        broker.stop(home)


def _base(home: Path) -> Settings:
    return settings.load({"MDR_DATA_DIR": str(home), "HOME": os.environ["HOME"]}, home)


def ready(home: Path, kafka_at: str, prefix: str, store: str = "") -> Settings:
    """The settings of a worker on these topics, its store in a directory of that name."""
    return msgspec.structs.replace(
        _base(home), kafka=kafka_at, topic_prefix=prefix, clickhouse_url=f"chdb://{home / (store or 'store')}"
    )


def plan(messages: int, clock_ms: int) -> simulate.Plan:
    """Made long ago enough that every window has passed once it is read to its end; of sound events, for all to use."""
    start_ms = clock_ms - int(messages / RATE_PER_S * 1000) - 14 * _HOUR_MS
    return simulate.Plan(messages, 11, start_ms, RATE_PER_S, settling_ms=4 * _HOUR_MS, broken_share=0.0)


def loaded(home: Path, kafka_at: str, prefix: str, messages: int) -> Dataset:
    """The topics of that prefix: as a former run left them, else loaded now, with what must come of them."""
    note = home / f"{prefix}dataset.json"
    if note.exists():
        found = kept(home, prefix)
        if found.messages == messages:
            return found
        raise SystemExit(f"{home} holds {found.messages:,} messages: name that number, or another --home")
    here, what = ready(home, kafka_at, prefix), plan(messages, time.time_ns() // 1_000_000)
    events = asyncio.run(load(here, what))
    began = time.monotonic()
    records = expect.write(here, expect_file(home, prefix))
    print(f"  what must come of them: {time.monotonic() - began:.0f} s", file=sys.stderr)
    made = Dataset(prefix, messages, events, records, here.partitions)
    note.write_bytes(msgspec.json.encode(made))
    return made


def kept(home: Path, prefix: str) -> Dataset:
    """The topics that a former run left."""
    return msgspec.json.decode((home / f"{prefix}dataset.json").read_bytes(), type=Dataset)


def expect_file(home: Path, prefix: str) -> Path:
    """Where it is written what must come of the topics."""
    return home / f"{prefix}expected.msgpack"


async def load(here: Settings, what: simulate.Plan) -> int:
    """Loads topics, empty or half loaded, with what the plan says; returns how many events that were."""
    await _forget_half_loaded(here)
    await kafka.create_topics(here)
    began = time.monotonic()

    def tell(n: int) -> None:
        if n % 200_000 == 0:
            print(f"  loaded {n:,} events, {n / (time.monotonic() - began):,.0f}/s", file=sys.stderr)

    async with kafka.producing(here) as client:
        outlet = Outlet(client, here)
        await send_simulated(outlet, _simulated(what), None, tell)
    return outlet.sent


def _simulated(what: simulate.Plan) -> Iterator[simulate.Event]:
    """The plan's events, made by another process: making them takes longer than producing them."""
    ours, its = get_context("spawn").Pipe(duplex=False)
    maker = get_context("spawn").Process(target=_make, args=(what, its), daemon=True)
    maker.start()
    its.close()
    while chunk := ours.recv():
        yield from map(simulate.Event._make, chunk)
    maker.join()


def _make(what: simulate.Plan, to: Connection) -> None:
    events = map(tuple, simulate.events(what))
    while chunk := list(islice(events, _CHUNK)):
        to.send(chunk)
    to.send([])


async def _forget_half_loaded(here: Settings) -> None:
    """What a run that was broken off has left."""
    admin = AIOKafkaAdminClient(bootstrap_servers=here.kafka)
    await admin.start()
    while left := [topic for topic in await admin.list_topics() if topic.startswith(here.topic_prefix)]:
        await admin.delete_topics(left)
        await asyncio.sleep(1)
    await admin.close()
