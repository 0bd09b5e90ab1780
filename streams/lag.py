"""How far each agent is behind, exactly: read from the broker and the store, so that it can be asked of a dead worker.

An agent's lag in a partition is what lies between the group's committed offset and the end of the log, in events and in
seconds: the age of the first entry that was not read and kept. What the worker alone knows, it says itself (`Known`).
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.errors import KafkaConnectionError, KafkaError
from aiokafka.structs import TopicPartition

from schemas.events import TOPICS
from schemas.times import format_rfc3339
from streams import kafka, security
from streams.lag_rules import DUE, LATER, Behind, Track, bounds, judge, overall
from streams.settings import Settings
from streams.store import Store
from streams.tables import Checkpoint

READ_TIMEOUT_S: Final = 6.0
_TIMESTAMPS_TIMEOUT_S: Final = 2.0
# A fetch brings at least one whole batch whatever this says; more of it is of no use here.
_FETCH_BYTES: Final = 1 << 14
_FOREVER_MS: Final = 1 << 62


class AgentLag(msgspec.Struct):
    """One agent's lag in one partition; None where it could not be known."""

    agent: str
    topic: str
    partition: int
    owner: str
    committed: int | None
    end: int
    lag_events: int
    lag_seconds: float | None
    trend_events_per_second: float | None
    watermark: str | None
    status: str
    why: str
    lost_events: int


class Settling(msgspec.Struct):
    """What still settles in one partition number; `due` by the time that is left until the window ends it."""

    partition: int
    open: int
    oldest_open: str | None
    due: dict[str, int]
    checkpoint_age_seconds: float | None
    flush_age_seconds: float | None


class Report(msgspec.Struct):
    """What `mdr lag` prints and `GET /mdr/lag` answers."""

    status: str
    why: str
    at: str
    settled_through: str
    agents: list[AgentLag]
    settling: list[Settling]
    rates: dict[str, Any] | None
    trouble: list[str]


class Known(NamedTuple):
    """What the broker does not know; times in ms. `held_up` says why nothing is written, if nothing is."""

    marks: Mapping[tuple[str, int], int] = {}
    settling: Sequence[Settling] = ()
    settled_through: int = 0
    rates: dict[str, Any] | None = None
    held_up: str = ""
    trouble: tuple[str, ...] = ()


class Place(NamedTuple):
    """Where the group stands in one partition; `next_ms` is the broker's time of the next entry, None if unknown."""

    owner: str
    committed: int | None
    begin: int
    end: int
    next_ms: int | None = None

    @property
    def at(self) -> int:
        """The offset that reading goes on from."""
        return self.begin if self.committed is None else max(self.committed, self.begin)

    @property
    def events(self) -> int:
        """How many entries were not read and kept."""
        return max(0, self.end - self.at)

    @property
    def lost(self) -> int:
        """How many entries the broker deleted before they were read."""
        return 0 if self.committed is None else max(0, self.begin - self.committed)


class LagReader:
    """Asks one broker for one group's lag, again and again; its clients are kept and made anew when they fail."""

    def __init__(self, settings: Settings, group: str = "") -> None:
        self._settings = settings
        self._group = group or settings.group
        self._clients: tuple[AIOKafkaAdminClient, AIOKafkaConsumer] | None = None
        self._bounds = bounds(settings.checkpoint_interval_ms)
        self._tracks: dict[TopicPartition, Track] = {}

    async def close(self) -> None:
        """Lets go of the broker."""
        clients, self._clients = self._clients, None
        if clients is not None:
            await asyncio.gather(clients[0].close(), clients[1].stop(), return_exceptions=True)

    async def read(self, known: Known, now_ms: int) -> Report:
        """The lag of every partition; raises `KafkaUnavailable` when the broker does not answer in time."""
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                places = await self._places()
        except (TimeoutError, KafkaError, OSError) as e:
            await self.close()
            reason = await security.why(self._settings) or _reason(e)
            raise kafka.KafkaUnavailable(f"the Kafka broker at {self._settings.kafka} is away: {reason}") from None
        return self._report(places, known, now_ms)

    # ---- asking the broker ---------------------------------------------------------------------------------

    async def _connected(self) -> tuple[AIOKafkaAdminClient, AIOKafkaConsumer]:
        if self._clients is None:
            options = kafka.client_options(self._settings)
            admin = AIOKafkaAdminClient(**options, request_timeout_ms=5_000)
            consumer = kafka.consumer(
                self._settings, isolation_level="read_committed", auto_offset_reset="earliest",
                max_partition_fetch_bytes=_FETCH_BYTES, request_timeout_ms=5_000,
            )  # fmt: skip
            self._clients = admin, consumer
            await admin.start()
            await consumer.start()
        return self._clients

    async def _places(self) -> dict[TopicPartition, Place]:
        admin, consumer = await self._connected()
        tps = await self._partitions(admin)
        # In this order: what is committed can only grow, so a lag is never told too small for what was read first.
        committed = await admin.list_consumer_group_offsets(self._group, partitions=tps) if tps else {}
        owners = await self._owners(admin)
        begins, ends = await consumer.beginning_offsets(tps), await consumer.end_offsets(tps)
        places = {}
        for tp in tps:
            offset = committed[tp].offset if tp in committed else -1
            places[tp] = Place(owners.get(tp, ""), offset if offset >= 0 else None, begins[tp], ends[tp])
        waiting = {tp: place.at for tp, place in places.items() if place.events}
        times = await _timestamps(consumer, waiting) if waiting else {}
        return {tp: place._replace(next_ms=times.get(tp)) for tp, place in places.items()}

    async def _partitions(self, admin: AIOKafkaAdminClient) -> list[TopicPartition]:
        described = await admin.describe_topics([self._settings.topic_prefix + topic for topic in TOPICS])
        return [
            TopicPartition(topic["topic"], partition["partition"])
            for topic in described
            if not topic["error_code"]
            for partition in sorted(topic["partitions"], key=lambda p: p["partition"])
        ]

    async def _owners(self, admin: AIOKafkaAdminClient) -> dict[TopicPartition, str]:
        owners: dict[TopicPartition, str] = {}
        for response in await admin.describe_consumer_groups([self._group]):
            for _, _, _, _, _, members in response.groups:
                for member_id, client_id, host, _, assignment in members:
                    if assignment:
                        name = f"{client_id or member_id} at {host.lstrip('/')}"
                        assigned = ConsumerProtocolMemberAssignment.decode(assignment)
                        owners |= dict.fromkeys(assigned.partitions(), name)
        return owners

    # ---- telling -------------------------------------------------------------------------------------------

    def _report(self, places: Mapping[TopicPartition, Place], known: Known, now_ms: int) -> Report:
        agents = [self._agent(tp, place, known, now_ms) for tp, place in places.items()]
        status, why = overall((f"{a.topic} partition {a.partition}", a.status, a.why) for a in agents)
        lost = [
            f"{a.topic} partition {a.partition}: the broker deleted {a.lost_events:,} entries that were never read"
            for a in agents
            if a.lost_events
        ]
        return Report(
            status, why, format_rfc3339(now_ms), format_rfc3339(known.settled_through), agents, list(known.settling),
            known.rates, [*known.trouble, *lost],
        )  # fmt: skip

    def _agent(self, tp: TopicPartition, place: Place, known: Known, now_ms: int) -> AgentLag:
        track = self._tracks.setdefault(tp, Track(self._bounds))
        track.see(now_ms, place.events, place.committed)
        agent = tp.topic.removeprefix(self._settings.topic_prefix)
        seconds = 0.0 if not place.events else None
        if place.events and place.next_ms is not None:
            seconds = max(0, now_ms - place.next_ms) / 1000
        trend = track.trend_per_s()
        still_s, there_s = track.still_s(now_ms), track.there_s()
        behind = Behind(place.events, seconds, trend, place.owner, still_s, known.held_up, there_s)
        status, why = judge(behind, self._bounds)
        mark_ms = known.marks.get((agent, tp.partition))
        return AgentLag(
            agent, tp.topic, tp.partition, place.owner, place.committed, place.end, place.events, seconds, trend,
            format_rfc3339(mark_ms) if mark_ms else None, status, why, place.lost,
        )  # fmt: skip


async def _timestamps(consumer: AIOKafkaConsumer, waiting: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
    """The broker's time of the first entry at or after an offset, of as many partitions as can be had in time."""
    consumer.assign(list(waiting))
    found: dict[TopicPartition, int] = {}
    try:
        for tp, offset in waiting.items():
            consumer.seek(tp, offset)
        async with asyncio.timeout(_TIMESTAMPS_TIMEOUT_S):
            while missing := [tp for tp in waiting if tp not in found]:
                for tp, records in (await consumer.getmany(*missing, timeout_ms=500, max_records=1)).items():
                    found[tp] = records[0].timestamp
                    consumer.pause(tp)
    except TimeoutError:
        pass
    finally:
        consumer.unsubscribe()
    return found


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {READ_TIMEOUT_S:.0f} s"
    return "nothing answers there" if isinstance(error, KafkaConnectionError) else str(error) or type(error).__name__


# ---- asking the store --------------------------------------------------------------------------------------

_OPEN: Final = """
SELECT shard, count(), toUnixTimestamp64Milli(min(occurred_at)),
    countIf(left_ms < {first:Int64}), countIf(left_ms >= {first:Int64} AND left_ms < {second:Int64}),
    countIf(left_ms >= {second:Int64} AND left_ms < {third:Int64}), countIf(left_ms >= {third:Int64})
FROM (
    SELECT o.shard AS shard, o.occurred_at AS occurred_at,
        toUnixTimestamp64Milli(o.deadline) - toUnixTimestamp64Milli(c.receipts_mark) AS left_ms
    FROM (SELECT shard, occurred_at, deadline FROM open_messages FINAL WHERE part = '') AS o
    LEFT JOIN (SELECT shard, receipts_mark FROM checkpoints FINAL) AS c ON c.shard = o.shard
)
GROUP BY shard
"""


def stored(store: Store, now_ms: int) -> Known:
    """What the last checkpoints say; blocks for the store. Raises `Unavailable`."""
    checkpoints = store.checkpoints()
    rows = store.query(_OPEN, dict(zip(("first", "second", "third"), (ms for _, ms in DUE), strict=True)))
    opened = {row[0]: row[1:] for row in rows}
    marks: dict[tuple[str, int], int] = {}
    settling = []
    for shard, c in sorted(checkpoints.items()):
        at = dict(zip(("sends", "receives", "receipts"), (c.sends_mark, c.receives_mark, c.receipts_mark), strict=True))
        marks |= {(topic, shard): ms for topic, ms in at.items()}
        settling.append(_settling(shard, opened.get(shard), (now_ms - c.updated_at) / 1000))
    return Known(marks, settling, settled_through(checkpoints))


def settled_through(checkpoints: Mapping[int, Checkpoint]) -> int:
    """How far all partitions are settled, in ms; 0 while there is one that was never heard of."""
    partitions = max((c.partitions for c in checkpoints.values()), default=1)
    return min(c.settled_through for c in checkpoints.values()) if len(checkpoints) >= partitions else 0


def _settling(shard: int, row: Sequence[int] | None, age_s: float) -> Settling:
    count, oldest_ms, *counts = row or (0, 0, *(0 for _ in DUE), 0)
    due = dict(zip((*(name for name, _ in DUE), LATER), counts, strict=True))
    return Settling(shard, count, format_rfc3339(oldest_ms) if count else None, due, age_s, None)


def exceeds(agents: Iterable[Mapping[str, Any]], seconds_max: float) -> bool:
    """Whether any agent is further behind than that, or behind by nobody knows how much."""
    seconds = [_FOREVER_MS if a["lag_seconds"] is None else a["lag_seconds"] for a in agents]
    return any(s > seconds_max for s in seconds)
