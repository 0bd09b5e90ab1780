"""`mdr check`, as the HTTP side and the command line run it."""

import asyncio
import contextlib
import threading
from typing import Any

from api.http import Refusal
from streams import checking, running
from streams.checking import Tell
from streams.cli.letters import told
from streams.clock import clock_ms
from streams.settings import Settings
from streams.store import Store


class Check:
    """Compares log and store when called; the answer is the body of `/mdr/check`. One at a time."""

    def __init__(self, settings: Settings, tell: Tell = lambda *_: None) -> None:
        self._settings = settings
        self._tell = tell
        self._running = threading.Lock()

    def __call__(self) -> dict[str, Any]:
        """Takes as long as it takes to read every timeline and every dead letter."""
        if not self._running.acquire(blocking=False):
            raise Refusal(409, "another check is under way")
        try:
            with told(), contextlib.closing(Store(self._settings.clickhouse_url)) as store:
                return asyncio.run(checking.run(self._ready(), store, clock_ms, self._tell))
        finally:
            self._running.release()

    def _ready(self) -> Settings:
        try:
            return running.with_running_broker(self._settings)
        except running.NoBroker:
            return self._settings
