"""Queries that end with whoever waits for them: no more is asked for nobody, and what runs is ended by its mark.

The driver of the embedded store takes no id for a query, so the mark is a comment before the statement. A query that
cannot be ended (the store is away, or another server of a cluster has it) ends by its `max_execution_time`.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from api import query
from api.query import Client
from api.where import Binder

log = logging.getLogger(__name__)

_FRESH_S: Final = 2.0
_LOOK_S_MAX: Final = 1.0
_ENDINGS_MAX: Final = 100


class Wait:
    """Whether somebody still waits for an answer, and the mark of the queries that are made for it."""

    def __init__(self) -> None:
        self.is_over = False
        self.has_asked = False
        self.mark = f"/* mdr {secrets.token_hex(8)} */"


class Patient:
    """A client for one answer: its queries carry the mark, and none is made when nobody waits any more."""

    def __init__(self, client: Client, wait: Wait) -> None:
        self._client = client
        self._wait = wait

    def raw_query(self, sql: str, **more: Any) -> bytes:
        """The bytes of a query; raises `TooSlow` when nobody waits."""
        if self._wait.is_over:
            raise query.TooSlow("nobody waits for the answer any more")
        self._wait.has_asked = True
        return self._client.raw_query(f"{self._wait.mark} {sql}", **more)

    def command(self, sql: str, **more: Any) -> Any:
        """Runs a statement that writes: what was begun is not left half written."""
        return self._client.command(sql, **more)

    def raw_insert(self, *given: Any) -> Any:
        """Insert rows: what was begun is not left half written."""
        return self._client.raw_insert(*given)


class Side:
    """A thread beside those that answer: looks whether the store is there, and ends queries that nobody waits for."""

    def __init__(self, connect: Callable[[], Client], look: Callable[[Client], object]) -> None:
        self._connect = connect
        self._look_at = look
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="mdr-side")
        self._client: Client | None = None
        self._looking: asyncio.Future[str] | None = None
        self._looked_s = 0.0
        self._endings = 0

    async def reason(self) -> str:
        """Why the store cannot be read, or `""`: as it was at most two seconds ago, and told within a second."""
        now_s = time.monotonic()
        if self._looking is None or (self._looking.done() and now_s - self._looked_s > _FRESH_S):
            self._looked_s = now_s
            self._looking = asyncio.get_running_loop().run_in_executor(self._thread, self._look)
        done, _ = await asyncio.wait([self._looking], timeout=_LOOK_S_MAX)
        if not done:
            return f"ClickHouse has not answered for {time.monotonic() - self._looked_s:.0f} s"
        return self._looking.result()

    def end(self, wait: Wait) -> None:
        """Says that nobody waits any more, and ends the query that runs; of very many some end by their own time."""
        wait.is_over = True
        if wait.has_asked and self._endings < _ENDINGS_MAX:
            self._endings += 1
            self._thread.submit(self._end, wait.mark)

    def close(self) -> None:
        """Lets go of the store."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        if self._client is not None:
            self._client.close()

    def _connected(self) -> Client:
        if self._client is None:
            self._client = self._connect()
        return self._client

    def _look(self) -> str:
        try:
            self._look_at(self._connected())
        except query.QueryError as e:
            return str(e)
        except Exception:
            return "ClickHouse cannot be reached"
        return ""

    def _end(self, mark: str) -> None:
        self._endings -= 1
        b = Binder()
        try:
            sql = f"KILL QUERY WHERE startsWith(query, {b.bind(mark, 'String')}) ASYNC"
            query.run(self._connected(), sql, b, "JSONEachRow")
        except Exception as e:
            log.debug("a query that nobody waits for goes on until its time is over: %s", e)
