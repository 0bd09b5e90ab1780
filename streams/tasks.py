"""Ending the tasks of an event loop."""

import asyncio
import logging
from collections.abc import Iterable
from typing import Any, Final

log = logging.getLogger(__name__)
_TRIES: Final = 6
_TRY_S: Final = 0.5


async def ended(tasks: Iterable["asyncio.Task[Any]"]) -> None:
    """Cancels tasks until they are done, however they end.

    One cancellation may be lost: `wait_for` of Python 3.11 drops it when what it waits for is done in the same step,
    and client libraries take it for a connection that failed.
    """
    waiting = set(tasks)
    for _ in range(_TRIES):
        if not waiting:
            break
        for task in waiting:
            task.cancel()
        done, waiting = await asyncio.wait(waiting, timeout=_TRY_S)
        await asyncio.gather(*done, return_exceptions=True)
    for task in waiting:
        log.warning("%s does not end", task.get_name())
