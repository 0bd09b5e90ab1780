"""What a connection may cost before it is a request (`api.guard`), over real sockets."""

from __future__ import annotations

import asyncio
import http.client
import json
import resource
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import uvicorn

from api import guard as guards
from api.guard import Guard

PATIENCE_S: Final = 60
ROOT: Final = Path(__file__).parent.parent
BIG: Final = 8 << 20


_OPENED: Final[list[socket.socket]] = []


def dial(port: int, source: str = "", buffer: int = 0) -> socket.socket:
    """A connection from an address of this machine, closed when the test is over."""
    made = socket.socket()
    _OPENED.append(made)
    made.settimeout(PATIENCE_S)
    if buffer:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    if source:
        made.bind((source, 0))
    made.connect(("127.0.0.1", port))
    return made


class Time:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


async def answer(scope: Any, receive: Any, send: Any) -> None:
    """Says how long the body was; a lot at `/big`."""
    size = 0
    while True:
        message = await receive()
        size += len(message.get("body", b""))
        if not message.get("more_body", False):
            break
    body = b"x" * BIG if scope["path"] == "/big" else json.dumps(size).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Server:
    """A guarded server in a thread of its own, whose time is ours."""

    def __init__(self, bound: int) -> None:
        self.clock = Time()
        self.guard = Guard(bound, self.clock)
        config = uvicorn.Config(
            answer, port=0, log_level="warning", lifespan="off", http=self.guard.protocol(), timeout_keep_alive=600
        )
        self.server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        while not self.server.started:
            threading.Event().wait(0.01)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]

    def _run(self) -> None:
        with asyncio.Runner() as runner:
            self._loop = runner.get_loop()
            runner.run(self.server.serve())

    def stop(self) -> None:
        """Ends it."""
        self.server.should_exit = self.server.force_exit = True
        self._thread.join()

    def passes(self, seconds: float) -> None:
        """Lets time pass, and the guard look."""

        async def look() -> None:
            self.clock.now_s += seconds
            self.guard.sweep()

        asyncio.run_coroutine_threadsafe(look(), self._loop).result(PATIENCE_S)

    def open(self, count: int, sent: bytes = b"") -> list[socket.socket]:
        """So many connections, the server having seen each and what it sent."""
        made = [dial(self.port) for _ in range(count)]
        for each in made:
            each.sendall(sent)
        self.ask()
        return made

    def ask(self, path: str = "/", body: bytes = b"") -> tuple[int, bytes]:
        """What a new client is answered."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            connection.request("POST", path, body)
            told = connection.getresponse()
            return told.status, told.read()
        finally:
            connection.close()


@contextmanager
def serving(bound: int) -> Iterator[Server]:
    """A guarded server."""
    made = Server(bound)
    try:
        yield made
    finally:
        made.stop()


def cut(connections: list[socket.socket]) -> int:
    """How many of these the server has ended."""
    poll = select.poll()  # not select(), which takes no descriptor above 1,023
    for connection in connections:
        poll.register(connection, select.POLLIN)
    by_number = {connection.fileno(): connection for connection in connections}
    return sum(_is_over(by_number[number]) for number, _ in poll.poll(0))


def _is_over(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def wait_until_cut(connections: list[socket.socket]) -> None:
    """Returns when the server has ended each of them."""
    for connection in connections:
        assert _is_over(connection)


@pytest.fixture(autouse=True)
def files() -> Iterator[None]:
    """Enough descriptors for a test that opens hundreds."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(4096, hard)), hard))
    yield
    while _OPENED:
        _OPENED.pop().close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_idle_and_slow_connections_are_cut_and_others_are_served() -> None:
    """Three hundred that say nothing and a hundred that send a byte now and then have ten seconds for a header."""
    with serving(2_000) as server:
        idle, slow = server.open(300), server.open(100, b"GET / HT")
        server.passes(6)
        for each in slow:
            each.sendall(b"T")
        assert server.ask() == (200, b"0")
        assert cut([*idle, *slow]) == 0
        server.passes(4.5)
        wait_until_cut([*idle, *slow])
        assert server.ask(body=b"four") == (200, b"4")
        assert len(server.guard._peers) <= 1


def test_a_body_has_its_time() -> None:
    """A hundred bodies that come a byte at a time are cut after twenty seconds; a whole one is taken."""
    with serving(2_000) as server:
        slow = server.open(100, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
        server.passes(guards.BODY_S - 1)
        for each in slow:
            each.sendall(b"x")
        assert server.ask(body=b"x" * 500_000) == (200, b"500000")
        assert cut(slow) == 0
        server.passes(2)
        wait_until_cut(slow)


def test_a_byte_after_an_answer_begins_a_header() -> None:
    """A connection that was answered and then sends half a request is cut as one that never sent a whole one."""
    with serving(2_000) as server:
        (kept,) = server.open(1, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert kept.recv(4_096).endswith(b"0")
        server.passes(100)
        assert server.ask() == (200, b"0")
        wait_until_cut([kept])
        (half,) = server.open(1, b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET")
        assert half.recv(4_096).endswith(b"0")
        server.passes(guards.HEADER_S + 1)
        wait_until_cut([half])


def test_an_answer_that_nobody_takes_is_let_go() -> None:
    """Who asks for much and reads nothing of it is cut after thirty seconds in which nothing moved."""
    with serving(2_000) as server:
        takes_nothing = dial(server.port, buffer=4_096)
        takes_nothing.sendall(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
        while not any(c.flow.write_paused for c in list(server.guard.alive)):
            server.ask()
        server.passes(guards.TAKEN_S - 1)
        assert len(server.ask("/big")[1]) == BIG
        assert any(c.flow.write_paused for c in list(server.guard.alive))
        server.passes(2)
        assert not any(c.flow.write_paused for c in list(server.guard.alive))


def test_beyond_the_bound_the_longest_idle_makes_room() -> None:
    """Of five hundred that say nothing only the newest stay; who sends whole requests is served and keeps its place."""
    with serving(64) as server:
        worker = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)
        worker.request("GET", "/")
        worker.getresponse().read()
        # Of those that come in one step of the event loop nobody is cut before it was read.
        idle = [each for _ in range(25) for each in server.open(20)]
        assert server.ask() == (200, b"0")
        wait_until_cut(idle[:400])
        assert len(server.guard.alive) <= 48
        held = worker.sock
        worker.request("GET", "/")
        assert worker.getresponse().read() == b"0" and worker.sock is held
        worker.close()


def test_the_bound_of_all_holds_over_many_addresses() -> None:
    """Addresses together have no more places than there are; none has more than three quarters of them."""
    with serving(40) as server:
        for n in range(300):
            dial(server.port, f"127.0.0.{2 + n // 30}")
            if n % 10 == 0:
                server.ask()
        assert server.ask() == (200, b"0")
        assert len(server.guard.alive) <= 40
        assert max(len(held) for held in list(server.guard._peers.values())) <= 30


def test_who_finds_every_place_at_work_is_told_so() -> None:
    """Where each connection waits for its answer, a new one is a 503 at once, and those at work are answered."""
    with serving(8) as server:
        begun, go = threading.Semaphore(0), threading.Event()

        async def hang(scope: Any, receive: Any, send: Any) -> None:
            begun.release()
            await asyncio.to_thread(go.wait)
            await answer(scope, receive, send)

        server.server.config.loaded_app = hang
        busy = [dial(server.port) for _ in range(6)]
        for each in busy:
            each.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert begun.acquire(timeout=PATIENCE_S)
        assert dial(server.port).recv(4_096).startswith(b"HTTP/1.1 503 ")
        go.set()
        for each in busy:
            assert each.recv(4_096).startswith(b"HTTP/1.1 200 ")


_PROGRAM: Final = """
import asyncio, os, resource, sys
soft, hard = map(int, sys.argv[1:3])
from streams.cli import serving
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        return await send({"type": "lifespan.shutdown.complete"})
    body = f'{resource.getrlimit(resource.RLIMIT_NOFILE)[0]} {len(os.listdir("/proc/self/fd"))}'.encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})

async def main():
    async with serving._listening(app, "127.0.0.1", int(sys.argv[3])):
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(("soft", "hard", "most"), [(64, 1_024, 400), (40, 40, 40)])
def test_connections_leave_descriptors_to_the_worker(soft: int, hard: int, most: int) -> None:
    """The soft bound is raised to the hard one, connections take a small share of it, and running out is survived."""
    port = _free_port()
    command = [sys.executable, "-c", _PROGRAM, str(soft), str(hard), str(port)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as process:
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline() == "ready\n"
        idle = [dial(port) for _ in range(700)]
        told = _told(port)
        assert told[0] == hard and told[1] <= most
        for each in idle:
            each.close()
        assert _told(port)[0] == hard
        process.stdin.close()
        assert process.wait(PATIENCE_S) == 0


def _told(port: int) -> tuple[int, int]:
    """What the process says of its descriptors; where a crowd came just before, when there is a place."""
    for _ in range(PATIENCE_S * 10):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        try:
            connection.request("GET", "/")
            answer = connection.getresponse()
            told = answer.read().split()
            if answer.status == 200:
                return int(told[0]), int(told[1])
        except ConnectionError:
            pass
        finally:
            connection.close()
        threading.Event().wait(0.1)
    raise AssertionError("there is no place")


def test_the_share_of_connections() -> None:
    """An eighth of the descriptors, at least sixteen and at most 4,096."""
    shares = {files: guards.share_of(files) for files in (64, 1_024, 4_096, 1 << 20, resource.RLIM_INFINITY)}
    assert list(shares.values()) == [16, 128, 512, 4_096, 4_096]
