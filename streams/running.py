"""What runs until it is told to stop: the worker, alone or with its own broker and API."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from streams import broker, kafka
from streams.broker_login import MECHANISM
from streams.guard import CRASH_S, Guard
from streams.settings import Settings

if TYPE_CHECKING:
    from streams.agents import Worker

Say = Callable[[str], None]
_COLLECT_AFTER = 100_000


class NoBroker(Exception):
    """There is no broker to talk to; one sentence that says what to do."""


def with_running_broker(settings: Settings) -> Settings:
    """The settings with a broker: the configured one, else the local one that runs."""
    if settings.kafka:
        return settings
    found = broker.status(settings.data_dir)
    if found is None:
        raise NoBroker(
            f"no broker: MDR_KAFKA is not set and none runs in {settings.data_dir}; "
            "`mdr up` or `mdr broker start` starts one"
        )
    return _at(found, settings)


def with_own_broker(settings: Settings, say: Say, *, secure: bool = False) -> Settings:
    """The settings with a broker: the configured one, else a local one that ends with this process. Takes seconds."""
    if settings.kafka:
        return settings
    started = broker.start(settings.data_dir, cache_dir=settings.cache_dir, tied_to_parent=True, secure=secure, say=say)
    tell_open(started, say)
    return _at(started, settings)


def tell_open(found: broker.Broker, say: Say) -> None:
    """Says who can reach a broker that asks for no password."""
    if found.login is None:
        say("every user of this machine can read and write the local broker: --secure makes one with a password")


def _at(found: broker.Broker, settings: Settings) -> Settings:
    """The settings of somebody who speaks to a local broker."""
    login = found.login
    return msgspec.structs.replace(
        settings, kafka=found.bootstrap, kafka_security_protocol="PLAINTEXT" if login is None else "SASL_PLAINTEXT",
        kafka_security_mechanism=MECHANISM, kafka_security_username=login.user if login else "",
        kafka_security_password=login.password if login else "",
    )  # fmt: skip


@asynccontextmanager
async def working(settings: Settings, group: str = "") -> AsyncIterator[Worker]:
    """A worker that consumes, in the settings' group unless another is named; stopped in order at the end."""
    # Here, and not above: Faust takes long to import, and most commands end before they need it.
    from streams.agents import Worker

    await kafka.create_topics(settings)
    worker = Worker(settings, await kafka.check_topics(settings), group=group)
    await worker.start()
    # What is alive now stays, and batches make hundreds of thousands of tuples, none of them in a cycle.
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, 20, 50)
    try:
        yield worker
    except BaseException:
        with contextlib.suppress(Exception):  # the first reason is the one to tell
            await worker.stop()
        raise
    await worker.stop()


@asynccontextmanager
async def guarded() -> AsyncIterator[Guard]:
    """Watches the running event loop, and from the block's end on that the process ends; for the main thread."""
    with Guard() as guard:
        guard.beats(asyncio.get_running_loop())
        yield guard


async def until_stopped(worker: Worker | None, guard: Guard) -> None:
    """Returns on SIGINT or SIGTERM; raises what made the worker fail."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    guard.on_signal(lambda: loop.call_soon_threadsafe(stop.set))
    waits: set[asyncio.Future[Any]] = {asyncio.ensure_future(stop.wait())}
    if worker is not None and worker.failed is not None:
        waits.add(worker.failed)
        worker.failed.add_done_callback(lambda failed: guard.end_within(CRASH_S, _reason(failed)))
    done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in done:
        wait.result()


def _reason(failed: asyncio.Future[None]) -> str:
    return "" if failed.cancelled() else str(failed.exception())
