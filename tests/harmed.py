"""The command `mdr` with a fault in it that begins at SIGUSR1: `python -m tests.harmed HARM COMMAND...`."""

import asyncio
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from streams import agents, barrier, guard, monitor, transport, watchdog
from streams.cli import main

_begun: Final = threading.Event()


class _Broken(Exception):
    """What is raised."""


def _raise() -> None:
    raise _Broken("broken on purpose")


def _hang() -> None:
    time.sleep(1_000)


def _compute() -> None:
    """Lets no other thread in, like any long call of C code."""
    re.match("(a|aa)+$", "a" * 200 + "b")


# What is broken, and how.
HARMS: Final[dict[str, tuple[Any, str, Callable[[], None]]]] = {
    "fetcher": (transport._Thread, "_drain", _raise), "fetching": (transport._Thread, "_fetch_records", _raise),
    "agent": (agents.Worker, "_begin", _raise), "batch": (agents.Worker, "_work", _raise),
    "writing": (barrier.Barrier, "write", _raise), "tick": (agents.Worker, "_find_ends", _raise),
    "loop hangs": (agents.Worker, "_find_ends", _hang), "fetcher hangs": (transport._Thread, "_drain", _hang),
    "api hangs": (monitor.Monitor, "_look", _hang), "loop computes": (agents.Worker, "_find_ends", _compute),
}  # fmt: skip


def _break(owner: Any, name: str, harm: Callable[[], None]) -> None:
    whole = getattr(owner, name)

    async def harmed(*args: Any, **kwargs: Any) -> Any:
        if _begun.is_set():
            harm()
        return await whole(*args, **kwargs)

    assert asyncio.iscoroutinefunction(whole)
    setattr(owner, name, harmed)


if __name__ == "__main__":
    _break(*HARMS[sys.argv.pop(1)])
    # Shorter bounds for shorter tests.
    guard._SHUT_OUT_S, watchdog.STILL_S_MAX = 2.0, 10.0  # type: ignore[misc]
    signal.signal(signal.SIGUSR1, lambda *_: _begun.set())
    main()
