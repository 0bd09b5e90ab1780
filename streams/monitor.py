"""Watches over one process: its lag every ten seconds, an hour of history, what /livez, /readyz and /metrics answer.

With a worker it knows watermarks and open messages as they are; without one it tells what the last checkpoints say.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple

import msgspec

from schemas import native
from schemas.events import TOPICS
from schemas.times import format_rfc3339
from streams import lag, running
from streams.agents import Worker
from streams.kafka import KafkaUnavailable
from streams.lag import Known, LagReader, Report, Settling
from streams.lag_rules import due, span
from streams.settings import Settings
from streams.store import Store
from streams.tasks import ended
from streams.telemetry import Live, Telemetry

log = logging.getLogger(__name__)
EVERY_S: Final = 10
_HISTORY_POINTS: Final = 3_600 // EVERY_S
_FRESH_MS: Final = 2_000
_STORE_TIMEOUT_S: Final = 5.0
_END_TIMEOUT_S: Final = 2.0
# All that is open is counted in the store seldom: it may be millions.
_STORED_FOR_MS: Final = 30_000
_FEEL_S: Final = 0.25


class _Totals(NamedTuple):
    at_ms: int
    events: Mapping[str, int]
    records: int
    dead_letters: int


class Monitor:
    """One for each process that serves HTTP; everything but `report` and `history` runs in its event loop."""

    def __init__(self, settings: Settings, worker: Worker | None, clock_ms: Callable[[], int]) -> None:
        self._settings = settings
        self._worker = worker
        self._clock = clock_ms
        self.telemetry = worker.telemetry if worker is not None else Telemetry(settings.topic_prefix)
        self.telemetry.live = self._live
        self._reader: LagReader | None = None
        self._store: Store | None = None
        self._thread = ThreadPoolExecutor(1, "monitor")
        self._asked: asyncio.Future[Known] | None = None
        self._stored = Known()
        self._stored_ms = 0
        self._report: Report | None = None
        self._read_ms = self._told_ms = 0
        self._reading = asyncio.Lock()
        self._broker_trouble = self._store_trouble = ""
        self._settled = (0, 0)
        self._totals: deque[_Totals] = deque(maxlen=2)
        self._points: deque[dict[str, Any]] = deque(maxlen=_HISTORY_POINTS)
        self._tasks: list[asyncio.Task[None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self) -> None:
        """Begins to watch."""
        self._loop = asyncio.get_running_loop()
        self._totals.append(self._count())
        self._tasks = [asyncio.create_task(self._watch()), asyncio.create_task(self._feel())]

    async def stop(self) -> None:
        """Lets go of broker and store."""
        await ended(self._tasks)
        if self._reader is not None:
            await self._reader.close()
        if self._asked is not None:
            await asyncio.wait([self._asked], timeout=_END_TIMEOUT_S)
        self._thread.shutdown(wait=False, cancel_futures=True)
        if self._store is not None and (self._asked is None or self._asked.done()):
            self._store.close()

    # ---- what is asked of it -------------------------------------------------------------------------------

    def health(self) -> dict[str, Any]:
        """Whether the process lives and is ready, with reasons in words, and what is alarming all the same."""
        if self._worker is None:  # an API reads records all the same when there is no broker
            return {"live": True, "ready": True, "reasons": [], "alarms": self._alarms()}
        told = self._worker.health()
        reasons = [*told["reasons"], *([self._broker_trouble] if self._broker_trouble else [])]
        return {"live": told["live"], "ready": not reasons, "reasons": reasons, "alarms": self._alarms()}

    def metrics(self) -> bytes:
        """The exposition for Prometheus."""
        return self.telemetry.exposition()

    def report(self) -> dict[str, Any]:
        """What `GET /mdr/lag` answers; for other threads."""
        assert self._loop is not None
        told: dict[str, Any] = asyncio.run_coroutine_threadsafe(self.lag(), self._loop).result()
        return told

    def history(self) -> dict[str, Any]:
        """The last hour, a point every ten seconds; for other threads."""
        return {"every_seconds": EVERY_S, "points": list(self._points)}

    async def lag(self) -> dict[str, Any]:
        """The lag as it is now, or was at most two seconds ago."""
        # While something is away every look takes its time out: those of the watch are enough.
        is_blind = self._broker_trouble or self._store_trouble
        await self._look(2 * EVERY_S * 1000 if is_blind else _FRESH_MS)
        told: dict[str, Any] = msgspec.to_builtins(self._report)
        return told

    # ---- watching ------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        while True:
            try:
                await self._look(_FRESH_MS)
                self._note()
            except Exception:  # nobody awaits this task: what it meets must be told, and it must go on
                log.exception("the lag could not be read")
            await asyncio.sleep(EVERY_S)

    async def _feel(self) -> None:
        while True:
            began_s = time.monotonic()
            await asyncio.sleep(_FEEL_S)
            self.telemetry.stall_seconds.observe(max(0.0, time.monotonic() - began_s - _FEEL_S))

    async def _look(self, fresh_for_ms: int) -> None:
        async with self._reading:
            if self._report is None or self._clock() - self._told_ms > fresh_for_ms:
                await self._read()

    async def _read(self) -> None:
        stored = await self._ask_store()
        now_ms = self._clock()
        known = self._known(stored, now_ms)
        if known.settled_through > self._settled[0] or not self._settled[1]:
            self._settled = (known.settled_through, now_ms)
        try:
            if self._reader is None:
                self._reader = LagReader(running.with_running_broker(self._settings))
            self._report = await self._reader.read(known, now_ms)
            self._broker_trouble, self._read_ms = "", now_ms
        except (KafkaUnavailable, running.NoBroker) as e:
            self._broker_trouble = str(e)
            self._report = self._blind(known, now_ms)
        self._told_ms = self._clock()

    def _blind(self, known: Known, now_ms: int) -> Report:
        """What can be said without the broker: what waited goes on waiting."""
        agents = self._report.agents if self._report is not None else []
        for agent in agents:
            if agent.lag_seconds:
                agent.lag_seconds += max(0, now_ms - self._told_ms) / 1000
            agent.status, agent.why = "stalled", self._broker_trouble
        trouble = [*known.trouble, self._broker_trouble]
        through = format_rfc3339(known.settled_through)
        at = format_rfc3339(now_ms)
        return Report("stalled", self._broker_trouble, at, through, agents, list(known.settling), known.rates, trouble)

    def _note(self) -> None:
        assert self._report is not None
        totals = self._count()
        rates = self._rates(totals) or {}
        self._totals.append(totals)
        agents = self._report.agents
        self._points.append({
            "at": self._report.at,
            "lag_events": sum(a.lag_events for a in agents),
            "lag_seconds": max((a.lag_seconds or 0.0 for a in agents), default=0.0),
            "open": sum(s.open for s in self._report.settling),
            "events_per_second": sum(rates.get("events_per_second", {}).values()),
            "records_per_second": rates.get("records_per_second", 0.0),
            "dead_letters_per_second": rates.get("dead_letters_per_second", 0.0),
        })  # fmt: skip

    # ---- what the worker knows -----------------------------------------------------------------------------

    def _known(self, stored: Known, now_ms: int) -> Known:
        worker = self._worker
        trouble = (*self._alarms(), *([self._store_trouble] if self._store_trouble else []))
        if worker is None:
            return stored._replace(trouble=trouble)
        marks = {(topic, shard): ms for shard, p in worker.flow.partitions.items() for topic, ms in p.marks.items()}
        settling = [self._settling(worker, shard, now_ms) for shard in sorted(worker.flow.partitions)]
        reasons = worker.health()["reasons"]
        return Known(
            {**stored.marks, **marks}, settling, stored.settled_through, self._rates(self._count()),
            reasons[0] if reasons else "", (*reasons, *trouble),
        )  # fmt: skip

    def _settling(self, worker: Worker, shard: int, now_ms: int) -> Settling:
        p = worker.flow.partitions[shard]
        oldest_ms = p.oldest_open_ms()
        ages = [(now_ms - at_ms) / 1000 if at_ms else None for at_ms in (worker.checkpointed_ms, worker.flushed_ms)]
        return Settling(
            shard, len(p.lives) - p.waiting, format_rfc3339(oldest_ms) if oldest_ms is not None else None,
            due(p.deadlines(), p.marks["receipts"]), *ages,
        )  # fmt: skip

    def _count(self) -> _Totals:
        tally = self.telemetry.tally
        return _Totals(self._clock(), dict(tally.events), sum(tally.records.values()), sum(tally.dead_letters.values()))

    def _rates(self, now: _Totals) -> dict[str, Any] | None:
        if self._worker is None or not self._totals:
            return None
        # The sample before the last, when the last has only just been taken.
        before = next((t for t in reversed(self._totals) if now.at_ms - t.at_ms >= _FRESH_MS), self._totals[0])
        seconds = max(0.001, (now.at_ms - before.at_ms) / 1000)
        prefix = self._settings.topic_prefix
        events = {prefix + t: (now.events.get(t, 0) - before.events.get(t, 0)) / seconds for t in TOPICS}
        return {
            "events_per_second": events,
            "records_per_second": (now.records - before.records) / seconds,
            "dead_letters_per_second": (now.dead_letters - before.dead_letters) / seconds,
        }

    def _alarms(self) -> list[str]:
        prefix = self._settings.topic_prefix
        tally = self.telemetry.tally
        told = (
            (tally.lost, "were deleted before they were read"),
            (tally.read_again, "are read again: the store was older than the offsets that were committed"),
        )
        gone = [f"{n:,} entries of {prefix}{topic} {what}" for counts, what in told for topic, n in counts.items() if n]
        return [*gone, *([native.missing] if native.missing and self._worker is not None else [])]

    def _live(self) -> Live:
        worker = self._worker
        return Live(
            self._report, self._read_ms, worker.flow.partitions if worker is not None else {}, *self._settled,
            self._settings.settling_window_ms,
            bool(self._store_trouble or (worker is not None and worker.barrier.trouble)), bool(self._broker_trouble),
            worker.flushed_ms if worker is not None else 0, worker.checkpointed_ms if worker is not None else 0,
        )  # fmt: skip

    # ---- what the store knows ------------------------------------------------------------------------------

    async def _ask_store(self) -> Known:
        """What the checkpoints say; what they said before while the store is away or slow."""
        fresh_for_ms = 0 if self._worker is not None else _STORED_FOR_MS
        if self._stored_ms and self._clock() - self._stored_ms < fresh_for_ms:
            return self._stored
        if self._asked is None or self._asked.done():
            self._asked = asyncio.get_running_loop().run_in_executor(self._thread, self._read_store)
            self._asked.add_done_callback(lambda asked: asked.cancelled() or asked.exception())
        try:
            self._stored = await asyncio.wait_for(asyncio.shield(self._asked), _STORE_TIMEOUT_S)
            self._stored_ms, self._store_trouble = self._clock(), ""
        except TimeoutError:
            self._store_trouble = f"ClickHouse has not answered for {span(_STORE_TIMEOUT_S)}"
        except Exception as e:  # whatever is wrong with the store, the lag is the broker's to tell
            self._store_trouble = f"ClickHouse cannot be read: {(str(e) or type(e).__name__).splitlines()[0][:200]}"
        return self._stored

    def _read_store(self) -> Known:
        if self._store is None:
            self._store = Store(self._settings.clickhouse_url)
        if self._worker is None:
            return lag.stored(self._store, self._clock())
        return Known(settled_through=lag.settled_through(self._store.checkpoints()))


@contextlib.asynccontextmanager
async def watching(settings: Settings, worker: Worker | None, clock_ms: Callable[[], int]) -> Any:
    """A monitor that watches until the block ends."""
    monitor = Monitor(settings, worker, clock_ms)
    await monitor.start()
    try:
        yield monitor
    finally:
        await monitor.stop()
