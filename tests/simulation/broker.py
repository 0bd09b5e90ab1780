"""Kafka as a worker sees it: logs with holes, a consumer group with generations, commits that are fenced.

`App` stands where Faust's app stands and hands batches to the worker's own agents.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from random import Random
from typing import Any, NamedTuple

from aiokafka.errors import KafkaConnectionError, KafkaTimeoutError
from aiokafka.structs import RecordMetadata, TopicPartition

from schemas.events import TOPICS
from streams.record_batches import read
from streams.transport import Batch, Start
from tests.simulation.world import Killed, Process, World

PREFIX = "mdr."
SESSION_MS = 4_000
REBALANCE_MS = 15_000


class Entry(NamedTuple):
    """A log entry as the consumer hands it over."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


class Broker:
    """The logs, the dead letters and the group; it never dies, but it may fail to answer."""

    def __init__(self, world: World, shards: int) -> None:
        self.world = world
        self.shards = shards
        self.logs: dict[TopicPartition, list[Entry]] = {}
        self.ends: dict[TopicPartition, int] = {}
        for topic in TOPICS:
            for shard in range(shards):
                self.logs[TopicPartition(PREFIX + topic, shard)] = []
                self.ends[TopicPartition(PREFIX + topic, shard)] = 0
        self.letters: list[dict[str, Any]] = []
        self.committed: dict[TopicPartition, int] = {}
        self.generation = 0
        self.members: list[App] = []
        self.owners: dict[int, App] = {}
        self.failing = 0.0
        self._due = False
        self._joined: list[App] = []
        self.rebalances = 0
        self.refused = 0
        self.reread = 0
        self.wrong: list[str] = []
        self.may_go_back = False  # an older store was put back, so that what it lacks is read again

    def append(self, topic: str, shard: int, timestamp: int, key: bytes | None, value: bytes | None) -> None:
        """Writes one entry, at times after a hole as markers and compaction leave them."""
        tp, random = TopicPartition(PREFIX + topic, shard), self.world.random
        offset = self.ends[tp] + (random.randint(1, 3) if random.random() < 0.1 else 0)
        self.logs[tp].append(Entry(tp.topic, shard, offset, timestamp, key, value))
        self.ends[tp] = offset + 1 + (random.random() < 0.1)

    def read_back(self, source: str) -> list[Entry]:
        """The entry at `topic:partition:offset`."""
        topic, shard, offset = source.rsplit(":", 2)
        return [e for e in self.logs[TopicPartition(topic, int(shard))] if e.offset == int(offset)]

    # ---- the group ----

    def join(self, app: "App") -> None:
        """A member asks to take part."""
        if app not in self.members:
            self.members.append(app)
        self._rebalance_soon()

    def leave(self, app: "App") -> None:
        """A member says goodbye."""
        if app in self.members:
            self.members.remove(app)
            self._rebalance_soon()

    def gone(self, app: "App") -> None:
        """A member is not heard of from now on: after its session it is out."""

        def expire() -> None:
            if app in self.members and (not app.process.alive or app.process.stopped):
                app.expelled = True
                self.leave(app)

        self.world.after(SESSION_MS, expire)

    def _rebalance_soon(self) -> None:
        if not self._due:
            self._due = True
            self.world.after(self.world.random.randint(1, 300), self._prepare)

    def _prepare(self) -> None:
        """Every member that lives gives up its partitions, within bounds; then the next generation begins."""
        self.rebalances += 1
        waits = {app for app in self.members if app.process.alive and not app.process.stopped and not app.closing}

        def prepared(app: App) -> None:
            if round_ is self._round:
                self._joined.append(app)
            waits.discard(app)
            if not waits:
                self._begin_once(round_)

        round_ = self._round = object()
        self._joined.clear()
        for app in list(waits):
            app.process.spawn(app.give_up(prepared))
        if not waits:
            self._begin_once(round_)
        self.world.after(REBALANCE_MS, lambda: self._begin_once(round_))

    def _begin_once(self, round_: object) -> None:
        if round_ is not self._round:
            return
        self._round = object()
        self._due = False
        self.generation += 1
        self.owners = {}
        able = [a for a in self._joined if a.process.alive and not a.process.stopped and not a.closing]
        for app in set(self.members) - set(able):
            app.expelled = True
        self.members = list(able)
        for shard in range(self.shards):
            if able:
                self.owners[shard] = able[shard * len(able) // self.shards]
        for app in able:
            app.process.spawn(app.take([s for s, owner in self.owners.items() if owner is app], self.generation))

    def commit(self, app: "App", offsets: Mapping[TopicPartition, int], generation: int) -> bool:
        """As the coordinator decides: only a member of this generation may."""
        if generation != self.generation or app not in self.members or app.expelled:
            self.refused += 1
            return False
        for tp, offset in offsets.items():
            if not (self.may_go_back or self.committed.get(tp, 0) <= offset) or offset > self.ends[tp]:
                self.wrong.append(f"{tp.topic}:{tp.partition} committed at {offset} after {self.committed[tp]}")
            self.committed[tp] = offset
        return True


class App:
    """Faust's app, as far as the worker knows it."""

    crashed = False

    def __init__(self, process: Process, broker: Broker, point: Callable[[str], None]) -> None:
        self.process, self.broker, self.point = process, broker, point
        self.consumer = Consumer(self)
        self.consumer_generation_id = -1
        self.queues: dict[str, asyncio.Queue[Batch]] = {}
        self.agents: dict[str, Callable[[Any], Awaitable[None]]] = {}
        self.assigned: list[TopicPartition] = []
        self.at: dict[TopicPartition, int] = {}
        self.expelled = self.closing = False
        self.on_revoked: Any = None
        self.on_assigned: Any = None

    async def start(self) -> None:
        """Begins to consume."""
        for topic, agent in self.agents.items():
            self.queues[topic] = asyncio.Queue(4)
            self.process.spawn(agent(_stream(self.queues[topic])))
        self.process.spawn(self._fetch())
        self.process.spawn(self._beat())
        self.broker.join(self)

    async def stop(self) -> None:
        """Leaves the group."""
        self.closing = True
        self.assigned = []
        self.broker.leave(self)

    async def give_up(self, prepared: Callable[["App"], None]) -> None:
        """The rebalance listener of a member that is asked to rejoin."""
        await self._revoke()
        if not self.closing:
            prepared(self)

    async def _revoke(self) -> None:
        revoked, self.assigned = self.assigned, []
        self.point("revocation: before")
        self._prefetch(revoked)
        await self.on_revoked(self, revoked)
        self._prefetch(revoked)
        self.point("revocation: after")

    def _prefetch(self, tps: list[TopicPartition]) -> None:
        """What was fetched before a rebalance is handed out during and after it."""
        for tp in tps:
            queue = self.queues[tp.topic.removeprefix(PREFIX)]
            if not queue.full() and self.process.world.random.random() < 0.5:
                batch = self._batch(tp, self.process.world.random)
                if batch is not None:
                    queue.put_nowait(batch)

    async def take(self, shards: list[int], generation: int) -> None:
        """What follows the rejoining: positions are where the group committed, then the worker is told."""
        self.consumer_generation_id = generation
        self.consumer.generation = generation
        assigned = [TopicPartition(PREFIX + topic, shard) for topic in TOPICS for shard in shards]
        self.at = {tp: self.broker.committed.get(tp, 0) for tp in assigned}
        self.point("assignment: before")
        await self.on_assigned(self, assigned)
        self.point("assignment: after")
        if generation == self.consumer_generation_id:
            self.assigned = assigned

    async def _beat(self) -> None:
        """Finds out that it was expelled, and joins anew."""
        while not self.closing:
            await asyncio.sleep(self.process.world.random.uniform(0.1, 1.0))
            if self.expelled:
                self.expelled = False
                await self._revoke()
                self.broker.join(self)

    async def _fetch(self) -> None:
        random = self.process.world.random
        while not self.closing:
            await asyncio.sleep(random.uniform(0.05, 0.5))
            for tp in self.assigned:
                queue = self.queues[tp.topic.removeprefix(PREFIX)]
                if not queue.full() and random.random() < 0.7:
                    batch = self._batch(tp, random)
                    if batch is not None:
                        queue.put_nowait(batch)

    def _batch(self, tp: TopicPartition, random: Random) -> Batch | None:
        if random.random() < 0.01:
            self._batch(tp, random)  # as a rebalance may have it: fetched, and never handed over
        at = self.at[tp]
        records = [e for e in self.broker.logs[tp] if e.offset >= at][: random.choice((1, 2, 5, 50))]
        rest = bool(records) and self.broker.logs[tp][-1].offset > records[-1].offset
        end = records[-1].offset + 1 if rest else self.broker.ends[tp]
        self.at[tp] = end
        return Batch(tp.topic, tp.partition, self.consumer_generation_id, records, at, end) if end > at else None


async def _stream(queue: "asyncio.Queue[Batch]") -> Any:
    while True:
        yield await queue.get()


class Consumer:
    """The consumer of the batch transport."""

    def __init__(self, app: App) -> None:
        self._app = app
        self.generation = -1

    async def ends(self) -> dict[TopicPartition, int]:
        """The end offsets of what is assigned."""
        broker = self._app.broker
        ends: dict[TopicPartition, int] = await self._ask(lambda: {tp: broker.ends[tp] for tp in self._app.assigned})
        return ends

    async def starts(self) -> dict[TopicPartition, Start]:
        """Where the group stands; nothing is ever deleted here."""
        return {tp: Start(self._app.broker.committed.get(tp), 0) for tp in self._app.at}

    async def reread(self, tp: TopicPartition, offset: int, generation: int) -> int | None:
        """As the transport's."""
        if self.generation != generation:
            return None
        self._app.at[tp] = offset
        self._app.broker.reread += 1
        return offset

    def worked(self, tp: TopicPartition, until_ms: int) -> None:
        """Nothing follows: here any topic may be read ahead of any other."""

    async def commit_fenced(self, offsets: Mapping[TopicPartition, int], generation: int) -> bool:
        """As the transport's: checked by the client, then by the coordinator."""
        if self.generation != generation:
            return False
        return bool(await self._ask(lambda: self._commit(offsets, generation)))

    def _commit(self, offsets: Mapping[TopicPartition, int], generation: int) -> bool:
        self._app.point("before commit")
        done = self._app.broker.commit(self._app, offsets, generation)
        self._app.point("after commit")
        return done

    async def _ask(self, call: Callable[[], Any]) -> Any:
        return await ask(self._app.process, self._app.broker, call)


async def ask(process: Process, broker: Broker, call: Callable[[], Any]) -> Any:
    """The answer of the broker after a while; at times it fails, before or after it was done."""
    world = process.world
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def happen() -> None:
        fate = world.random.random()
        try:
            if fate < broker.failing / 2:
                raise KafkaConnectionError("nobody there")
            result = call()
            if fate < broker.failing:
                raise KafkaTimeoutError("no answer")
        except Killed:
            process.kill()
        except (KafkaConnectionError, KafkaTimeoutError) as e:
            if process.alive and not future.done():
                future.set_exception(e)
        else:
            world.after(world.latency_ms(), lambda: _resolve(process, future, result))

    # One connection: what is asked first is done first.
    process.asked_ms = max(process.asked_ms, world.now_ms + world.latency_ms())
    world.at(process.asked_ms, lambda: happen() if process.alive or world.random.random() < 0.5 else None)
    return await future


def _resolve(process: Process, future: "asyncio.Future[Any]", result: Any) -> None:
    if process.alive and not future.done():
        future.set_result(result)


class Producer:
    """Of dead letters."""

    def __init__(self, process: Process, broker: Broker, point: Callable[[str], None]) -> None:
        self._process, self._broker, self._point = process, broker, point

    async def start(self) -> None:
        """Connects."""

    async def stop(self) -> None:
        """Disconnects."""

    async def partitions_for(self, topic: str) -> set[int]:
        """One will do."""
        return {0}

    async def send_batch(self, batch: Any, topic: str, *, partition: int) -> "asyncio.Task[Any]":
        """Hands letters over; what is given back is done when they are durable."""
        letters, refused = read(bytes(batch._build()))
        assert not refused

        def put() -> RecordMetadata:
            self._point("before dead letter")
            for letter in letters:
                self._broker.letters.append({"key": letter.key, "value": letter.value, "headers": list(letter.headers)})
            self._point("after dead letter")
            return RecordMetadata(topic, partition, TopicPartition(topic, partition), 0, None, 0, None)

        return asyncio.ensure_future(ask(self._process, self._broker, put))
