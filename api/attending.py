"""The other end of a request: its body when it is wanted, and whether it is still there. Knows ASGI, no framework."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Final, TypeVar

from api.http import Refusal

T = TypeVar("T")
Receive = Callable[[], Awaitable[Any]]
BODY_BYTES_MAX: Final = 1 << 20
HEADERS_MAX: Final = 100
HEADER_BYTES_MAX: Final = 16_384


class Left(Exception):
    """The client has gone; nobody reads an answer."""


class End:
    """A client that waits for its answer. Of a request that takes no body what comes is thrown away."""

    def __init__(self, receive: Receive, *, takes_body: bool) -> None:
        self._receive = receive
        self._wanted = asyncio.Event()
        self._body: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        if not takes_body:
            self._wanted.set()
            self._body.set_result(b"")

    async def body(self) -> bytes:
        """The body, which nobody receives before this is called; raises `Refusal` when it is too large."""
        self._wanted.set()
        return await self._body

    async def gone(self) -> None:
        """Returns when the client has gone, or when it is answered."""
        await self._wanted.wait()
        body = bytearray()
        while (message := await self._receive())["type"] == "http.request":
            if self._body.done():
                continue
            body += message.get("body", b"")
            if len(body) > BODY_BYTES_MAX:
                body.clear()
                self._body.set_exception(too_large())
            elif not message.get("more_body", False):
                self._body.set_result(bytes(body))


async def attended(work: Coroutine[Any, Any, T], end: End, seconds: float) -> T:
    """The result of work, which ends with its client and with its time; raises `Left` and `TimeoutError`."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(end.gone())
    try:
        await asyncio.wait([task, gone], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise Left if gone.done() else TimeoutError
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


def refuse_oversize(scope_headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Refuses by its headers what would be too much, before anything of it is read."""
    headers = list(scope_headers)
    size = sum(len(name) + len(value) for name, value in headers)
    if len(headers) > HEADERS_MAX or size > HEADER_BYTES_MAX:
        raise Refusal(431, f"the header has more than {HEADERS_MAX} fields or {HEADER_BYTES_MAX} bytes")
    length = next((value for name, value in headers if name == b"content-length"), b"0")
    if len(length) > 15 or int(length) > BODY_BYTES_MAX:
        raise too_large()


def too_large() -> Refusal:
    """What a body beyond its bytes is refused with."""
    return Refusal(413, f"the body is larger than {BODY_BYTES_MAX} bytes")
