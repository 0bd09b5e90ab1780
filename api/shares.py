"""Who is answered next: blocking work in few threads, in turn by who asks, in lines of bounded length.

For one event loop. Whoever asks much waits behind itself: of each line so many pieces run at once and no more, and a
thread that is free goes to the line that waited longest for its turn. Some threads are kept for quick work, so that
slow work never holds all of them.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, TypeVar

T = TypeVar("T")
LINE_MAX: Final = 64
WAITING_MAX: Final = 512


class Full(Exception):
    """A line is full, `is_own`, or all lines together are."""

    def __init__(self, *, is_own: bool) -> None:
        super().__init__("too much work waits")
        self.is_own = is_own


class _Job:
    def __init__(self, who: str, work: Callable[[], Any], *, is_quick: bool) -> None:
        self.who = who
        self.work = work
        self.is_quick = is_quick
        self.has_begun = False
        self.loop = asyncio.get_running_loop()
        self.done: asyncio.Future[Any] = self.loop.create_future()


class Shares:
    """So many threads, of which `kept` do quick work only; of each who asks, `each` pieces run at once."""

    def __init__(self, name: str, threads: int, each: int, kept: int = 0) -> None:
        self._threads = threads
        self._each = each
        self._kept = kept
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._lines: dict[tuple[str, bool], deque[_Job]] = {}
        self._waiting = 0
        self._running: dict[str, int] = {}
        self._slow = 0
        self._is_closed = False

    async def run(self, who: str, work: Callable[[], T], *, is_quick: bool = False) -> T:
        """The result of work in a thread; raises `Full`. Who is cancelled while it waits is forgotten."""
        line = self._lines.get((who, is_quick), ())
        if len(line) >= LINE_MAX or self._waiting >= WAITING_MAX:
            raise Full(is_own=len(line) >= LINE_MAX)
        job = _Job(who, work, is_quick=is_quick)
        self._lines.setdefault((who, is_quick), deque()).append(job)
        self._waiting += 1
        self._begin()
        try:
            result: T = await job.done
            return result
        finally:
            if not job.has_begun:
                self._lines[who, is_quick].remove(job)
                self._took_from(who, is_quick)

    def close(self) -> None:
        """Waits for what runs; what waits is let go."""
        self._is_closed = True
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _begin(self) -> None:
        while not self._is_closed and (job := self._next()) is not None:
            job.has_begun = True
            self._running[job.who] = self._running.get(job.who, 0) + 1
            self._slow += not job.is_quick
            self._pool.submit(job.work).add_done_callback(_telling(self, job))

    def _next(self) -> _Job | None:
        if sum(self._running.values()) >= self._threads:
            return None
        for (who, is_quick), line in self._lines.items():
            may_begin = is_quick or self._slow < self._threads - self._kept
            if may_begin and self._running.get(who, 0) < self._each:
                job = line.popleft()
                self._took_from(who, is_quick)
                return job
        return None

    def _took_from(self, who: str, is_quick: bool) -> None:
        self._waiting -= 1
        line = self._lines.pop((who, is_quick))
        if line:  # back at the end: the others are asked before it
            self._lines[who, is_quick] = line

    def _ended(self, job: _Job, ran: "Future[Any]") -> None:
        self._slow -= not job.is_quick
        self._running[job.who] -= 1
        if not self._running[job.who]:
            del self._running[job.who]
        self._begin()
        if job.done.done():
            return  # nobody waits any more
        if (error := ran.exception()) is not None:
            job.done.set_exception(error)
        else:
            job.done.set_result(ran.result())


def _telling(shares: Shares, job: _Job) -> "Callable[[Future[Any]], None]":
    def tell(ran: "Future[Any]") -> None:
        if not ran.cancelled() and not job.loop.is_closed():
            job.loop.call_soon_threadsafe(shares._ended, job, ran)

    return tell
