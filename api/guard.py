"""What a connection may cost before it is a request: time for a header and a body, and a place among so many.

uvicorn times nothing but idle connections between two requests. Here a header has ten seconds from the moment it may
come, a body twenty, an answer goes on to be taken, and beyond the bound a new connection takes the place of the one
that waited longest with half a request or none: whoever sends a whole request at once is served, however many do not.
"""

import asyncio
import logging
import resource
import time
from collections.abc import Callable
from typing import Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from api.limits import network_of

log = logging.getLogger(__name__)

HEADER_S: Final = 10.0
BODY_S: Final = 20.0
TAKEN_S: Final = 30.0
_SWEEP_S: Final = 0.5
_READ_S: Final = 0.001
_CONNECTIONS_MAX: Final = 4_096
_CONNECTIONS_MIN: Final = 16
# Of all descriptors so many may be connections; the worker needs the rest for the log and the store.
_SHARE: Final = 8
# How many are accepted in one step of the event loop.
BACKLOG: Final = 256
_BUSY: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 5\r\ncontent-length: 0\r\n\r\n"
)


def connections_max() -> int:
    """How many connections there may be; raises this process's bound on descriptors as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        except (OSError, ValueError) as e:  # the kernel's own bound may be lower than what it tells
            log.warning("the bound on open files stays %d: %s", soft, e)
    return share_of(soft)


def share_of(files: int) -> int:
    """How many of a process's descriptors may be connections."""
    if files == resource.RLIM_INFINITY:
        return _CONNECTIONS_MAX
    return max(_CONNECTIONS_MIN, min(_CONNECTIONS_MAX, files // _SHARE))


class Guard:
    """Watches over the connections of one server; all of it runs in its event loop."""

    def __init__(self, bound: int, clock_s: Callable[[], float] = time.monotonic) -> None:
        self.bound = bound
        self.bound_each = bound * 3 // 4
        self.clock_s = clock_s
        self.alive: set[_Guarded] = set()
        # Who waits with half a request or none, or takes nothing of an answer: in the order they began to.
        self._idle: dict[_Guarded, None] = {}
        self._peers: dict[str, dict[_Guarded, None]] = {}

    def protocol(self) -> type[H11Protocol]:
        """What a server makes its connections of."""
        return type("Guarded", (_Guarded,), {"guard": self})

    async def watch(self) -> None:
        """Cuts what takes too long, until it is cancelled."""
        while True:
            await asyncio.sleep(_SWEEP_S)
            self.sweep()

    def sweep(self) -> None:
        """Cuts the connections whose header, body or taking of an answer has taken too long."""
        now_s = self.clock_s()
        for connection in [c for c in self._idle if now_s - c.since_s > _SECONDS[c.phase[0]]]:
            self._cut(connection)

    def admit(self, connection: "_Guarded") -> bool:
        """Whether a new connection has a place; the one that idles longest may lose its own."""
        others = self._peers.setdefault(connection.network, {})
        self.alive.add(connection)
        others[connection] = None
        if len(others) > self.bound_each:
            return self._make_room(others)
        return len(self.alive) <= self.bound or self._make_room(self._idle)

    def _make_room(self, among: "dict[_Guarded, None]") -> bool:
        """Cuts the one that idles longest: first who never sent a whole request, and nobody who was not read yet."""
        known = None
        for connection in among:
            if connection in self._idle and connection.is_read:
                if not connection.answered:
                    self._cut(connection)
                    return True
                known = known or connection
        if known is not None:
            self._cut(known)
        return known is not None

    def _cut(self, connection: "_Guarded") -> None:
        self.leave(connection)
        connection.transport.abort()

    def leave(self, connection: "_Guarded") -> None:
        """Forgets a connection."""
        self.alive.discard(connection)
        self._idle.pop(connection, None)
        others = self._peers.get(connection.network, {})
        others.pop(connection, None)
        if not others:
            self._peers.pop(connection.network, None)

    def note(self, connection: "_Guarded", *, is_idle: bool) -> None:
        """Says whether a connection idles, which costs it its place when others need one."""
        if not is_idle:
            self._idle.pop(connection, None)
        elif connection in self.alive:
            self._idle.setdefault(connection, None)


class _Guarded(H11Protocol):
    guard: Guard
    network = ""
    answered = 0
    is_read = False
    _resumed = 0
    phase: tuple[str, int] = ("", 0)
    since_s = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.network = network_of(self.client[0] if self.client else "")
        self.since_s = self.guard.clock_s()
        # What came with it is read in the next step of the event loop, before any timer.
        self.loop.call_later(_READ_S, setattr, self, "is_read", True)
        if not self.guard.admit(self):
            self.guard.leave(self)
            transport.write(_BUSY)
            transport.close()
            return
        self._note()

    def connection_lost(self, exc: Exception | None) -> None:
        self.guard.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._note()

    def on_response_complete(self) -> None:
        self.answered += 1
        super().on_response_complete()
        self.guard.note(self, is_idle=False)  # it goes to the end of the line of those that idle
        self.phase = ("", 0)
        self._note()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._note()

    def resume_writing(self) -> None:
        self._resumed += 1
        super().resume_writing()
        self._note()

    def _note(self) -> None:
        phase = self._now_in()
        if phase != self.phase:
            self.phase, self.since_s = phase, self.guard.clock_s()
            self.guard.note(self, is_idle=phase[0] in _SECONDS)

    def _now_in(self) -> tuple[str, int]:
        """What it does, and a number that changes when it does so anew."""
        if self.transport.is_closing() or self.flow.write_paused:
            return "taken", self._resumed
        if self.conn.their_state is h11.IDLE:
            return "header", self.answered
        if self.conn.their_state is h11.SEND_BODY and not self.flow.read_paused:
            return "body", self.answered
        return "answer", self.answered


_SECONDS: Final = {"header": HEADER_S, "body": BODY_S, "taken": TAKEN_S}
