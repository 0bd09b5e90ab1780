"""Who is answered next, and what ends with whoever waits: `api.shares`, `api.attending`, `api.patience`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from api import attending, query, shares
from api.attending import End, Left, attended
from api.http import Refusal
from api.patience import Patient, Side, Wait
from api.query import Client
from api.shares import Full, Shares
from api.where import Binder
from streams.store import Store, connect


class Stage:
    """Work that says when it begins and goes on until it is let go."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self._ends: dict[str, threading.Event] = {}
        self._news = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def work(self, name: str) -> Callable[[], str]:
        """A piece of work; its name tells it."""
        self._ends[name] = threading.Event()

        def play() -> str:
            self._loop.call_soon_threadsafe(self._begin, name)
            self._ends[name].wait()
            return name

        return play

    def _begin(self, name: str) -> None:
        self.begun.append(name)
        self._news.set()

    def let_go(self, *names: str) -> None:
        """Ends pieces of work, all of them when none is named."""
        for name in names or self._ends:
            self._ends[name].set()

    async def until_begun(self, *names: str) -> None:
        """Returns when these have begun."""
        while not set(names) <= set(self.begun):
            self._news.clear()
            await asyncio.wait_for(self._news.wait(), 30)


async def settled() -> None:
    """Lets the event loop do all that it can do by itself."""
    for _ in range(20):
        await asyncio.sleep(0)


def ask(
    held: Shares, stage: Stage, who: str, names: list[str], *, is_quick: bool = False
) -> list[asyncio.Task[str]]:
    """So many pieces of work of one who asks, in this order."""
    return [asyncio.create_task(held.run(who, stage.work(name), is_quick=is_quick)) for name in names]


@pytest.fixture
def held() -> Iterator[Shares]:
    """Four threads, two for each who asks, one kept for what is quick."""
    made = Shares("test", 4, 2, 1)
    yield made
    made.close()


def test_who_asks_much_waits_behind_itself(held: Shares) -> None:
    """Of fifty pieces of one tenant two run at once, and another tenant's begins at once."""

    async def play() -> None:
        stage = Stage()
        many = ask(held, stage, "a", [f"a{n}" for n in range(50)])
        await stage.until_begun("a0", "a1")
        await settled()
        assert stage.begun == ["a0", "a1"]
        other = ask(held, stage, "b", ["b0"])
        await stage.until_begun("b0")
        assert stage.begun == ["a0", "a1", "b0"]
        stage.let_go()
        assert await asyncio.gather(*many, *other) == [f"a{n}" for n in range(50)] + ["b0"]

    asyncio.run(play())


def test_threads_are_given_in_turn() -> None:
    """With one thread, three who ask are answered one after the other, however much the first asked before."""

    async def play() -> None:
        held, stage = Shares("test", 1, 1), Stage()
        tasks = [t for who in "abc" for t in ask(held, stage, who, [f"{who}{n}" for n in range(3)])]
        await settled()
        # The first found nobody before it, so its line waited longest when it was asked for the second time.
        order = ["a0", "a1", "b0", "c0", "a2", "b1", "c1", "b2", "c2"]
        for name in order:
            await stage.until_begun(name)
            stage.let_go(name)
        await asyncio.gather(*tasks)
        assert stage.begun == order
        held.close()

    asyncio.run(play())


def test_what_is_slow_leaves_a_thread_for_what_is_quick(held: Shares) -> None:
    """However many ask for slow work, it holds all threads but one, where quick work runs."""

    async def play() -> None:
        stage = Stage()
        tasks = [t for who in "abcd" for t in ask(held, stage, who, [f"{who}0", f"{who}1"])]
        await stage.until_begun("a0", "b0", "a1")
        await settled()
        assert len(stage.begun) == 3
        tasks += ask(held, stage, "e", ["quick"], is_quick=True)
        await stage.until_begun("quick")
        assert len(stage.begun) == 4
        stage.let_go()
        await asyncio.gather(*tasks)

    asyncio.run(play())


def test_lines_are_bounded(held: Shares, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond its own line one who asks is refused, and beyond all lines everybody is; what waits is still answered."""
    monkeypatch.setattr(shares, "LINE_MAX", 3)
    monkeypatch.setattr(shares, "WAITING_MAX", 5)

    async def play() -> None:
        stage = Stage()
        tasks = ask(held, stage, "a", [f"a{n}" for n in range(5)])
        await stage.until_begun("a0", "a1")
        with pytest.raises(Full) as own:
            await held.run("a", lambda: "")
        tasks += ask(held, stage, "b", ["b0", "b1", "b2"])
        await stage.until_begun("b0")
        with pytest.raises(Full) as everybody:
            await held.run("c", lambda: "")
        assert (own.value.is_own, everybody.value.is_own) == (True, False)
        stage.let_go()
        await asyncio.gather(*tasks)
        assert (held._waiting, held._lines, held._running, held._slow) == (0, {}, {}, 0)

    asyncio.run(play())


def test_who_leaves_is_not_worked_for(held: Shares) -> None:
    """Work whose asker has gone before its turn never begins, and those behind it move up."""

    async def play() -> None:
        stage = Stage()
        tasks = ask(held, stage, "a", ["a0", "a1", "a2", "a3"])
        await stage.until_begun("a0", "a1")
        tasks[2].cancel()
        await settled()
        stage.let_go()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert [done[0], done[1], done[3]] == ["a0", "a1", "a3"] and stage.begun == ["a0", "a1", "a3"]
        assert (held._waiting, held._lines, held._running, held._slow) == (0, {}, {}, 0)

    asyncio.run(play())


def test_an_error_is_its_askers_alone(held: Shares) -> None:
    """What work raises comes to who asked for it, and its thread goes on with the next."""

    def fail() -> str:
        raise ValueError("no")

    async def play() -> None:
        results = await asyncio.gather(
            *(held.run("a", fail) for _ in range(6)), held.run("a", lambda: "yes"), return_exceptions=True
        )
        assert [type(r) for r in results] == [ValueError] * 6 + [str]

    asyncio.run(play())


# ---- the other end ---------------------------------------------------------------------------------------------


class Line:
    """What a server hands over of a request: parts of a body, then nothing until the client goes."""

    def __init__(self, *parts: bytes) -> None:
        self.received = 0
        self.left = asyncio.Event()
        self._messages = [
            {"type": "http.request", "body": part, "more_body": n < len(parts) - 1} for n, part in enumerate(parts)
        ]

    async def receive(self) -> dict[str, Any]:
        """The next message."""
        self.received += 1
        if self._messages:
            return self._messages.pop(0)
        await self.left.wait()
        return {"type": "http.disconnect"}


def test_a_body_is_received_when_it_is_wanted() -> None:
    """Nothing of a body is received before somebody asks for it, and then it is whole."""

    async def play() -> None:
        line = Line(b"one ", b"two ", b"three")
        end = End(line.receive, takes_body=True)

        async def work() -> bytes:
            await settled()
            assert line.received == 0
            return await end.body()

        assert await attended(work(), end, 30) == b"one two three"

    asyncio.run(play())


def test_a_body_beyond_its_bound_is_refused_and_let_go() -> None:
    """A body that does not say its length is refused as soon as it is larger than it may be."""

    async def play() -> None:
        line = Line(*[b"x" * 65_536] * 40)
        end = End(line.receive, takes_body=True)
        with pytest.raises(Refusal) as refused:
            await attended(end.body(), end, 30)
        assert (refused.value.status, str(attending.BODY_BYTES_MAX) in str(refused.value)) == (413, True)

    asyncio.run(play())


@pytest.mark.parametrize("takes_body", [True, False])
def test_work_ends_with_its_client(takes_body: bool) -> None:
    """When the client goes, with or without a body that it still sends, what is done for it is cancelled."""

    async def play() -> None:
        line = Line(b"begun", b"") if not takes_body else Line(b"begun")
        line._messages[0]["more_body"] = True
        end = End(line.receive, takes_body=takes_body)
        ended = asyncio.Event()

        async def work() -> None:
            try:
                await (end.body() if takes_body else asyncio.Event().wait())
            finally:
                ended.set()

        waiting = asyncio.create_task(attended(work(), end, 30))
        await settled()
        assert not ended.is_set()
        line.left.set()
        with pytest.raises(Left):
            await waiting
        assert ended.is_set()

    asyncio.run(play())


def test_work_ends_with_its_time() -> None:
    """Beyond its time a request is over, whatever it waits for."""

    async def play() -> None:
        line = Line(b"")
        with pytest.raises(TimeoutError):
            await attended(cast(Any, asyncio.Event().wait()), End(line.receive, takes_body=False), 0.01)

    asyncio.run(play())


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([(b"a", b"b")] * 101, 431),
        ([(b"a", b"b" * 16_384)], 431),
        ([(b"content-length", b"1048577")], 413),
        ([(b"content-length", b"9" * 400)], 413),
        ([(b"a", b"b")] * 99 + [(b"content-length", b"1048576")], None),
    ],
)
def test_a_request_is_refused_by_its_headers(headers: list[tuple[bytes, bytes]], status: int | None) -> None:
    """Too many or too large headers, and a body that says it is too large, are refused before a byte of it is read."""
    if status is None:
        attending.refuse_oversize(headers)
        return
    with pytest.raises(Refusal) as refused:
        attending.refuse_oversize(headers)
    assert refused.value.status == status


# ---- queries that end ------------------------------------------------------------------------------------------

_ENDLESS = "SELECT sum(sipHash64(number)) FROM numbers(1000000000000) SETTINGS max_execution_time = 60"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An embedded store."""
    store = Store(f"chdb://{tmp_path_factory.mktemp('store')}")
    yield store.url
    store.close()


def test_a_query_ends_with_whoever_waits_for_it(url: str) -> None:
    """A query that runs is ended when nobody waits any more, others go on, and no further one is made."""

    async def play() -> None:
        side = Side(lambda: connect(url), lambda _: None)
        client, wait = connect(url), Wait()
        patient = cast(Client, Patient(client, wait))
        loop = asyncio.get_running_loop()
        running = loop.run_in_executor(None, query.run, patient, _ENDLESS, Binder(), "JSONEachRow")
        looker = connect(url)
        while not query.rows_of(query.run(looker, _MARKED, _bound(wait.mark), "JSONEachRow")):
            assert not running.done()
        side.end(wait)
        with pytest.raises(query.QueryError, match="394"):
            await asyncio.wait_for(running, 50)
        with pytest.raises(query.TooSlow, match="nobody waits"):
            query.run(patient, "SELECT 1", Binder(), "JSONEachRow")
        assert query.run(looker, "SELECT 1 AS n", Binder(), "JSONEachRow") == b'{"n":1}\n'
        await asyncio.to_thread(side.close)
        client.close()
        looker.close()

    asyncio.run(play())


_MARKED = "SELECT 1 FROM system.processes WHERE startsWith(query, {p0:String})"


def _bound(mark: str) -> Binder:
    b = Binder()
    b.bind(mark, "String")
    return b


def test_the_store_is_looked_at_beside_what_waits_for_it(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that hangs is told within the bound, is asked once however many want to know, and what is fresh is told again."""
    monkeypatch.setattr("api.patience._LOOK_S_MAX", 0.01)
    hangs, looks = threading.Event(), []

    def look(_: Client) -> None:
        looks.append(1)
        hangs.wait()

    async def play() -> None:
        side = Side(lambda: connect(url), look)
        told = await asyncio.gather(*(side.reason() for _ in range(20)))
        assert all("has not answered" in reason for reason in told) and len(looks) <= 1
        hangs.set()
        assert side._looking is not None
        await side._looking
        assert await side.reason() == "" and len(looks) == 1
        await asyncio.to_thread(side.close)

    asyncio.run(play())
