"""What is done beside the work: counting, logging, decorating. It may fail, and the work goes on all the same."""

import contextlib
import logging
import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

log = logging.getLogger(__name__)
# How often each such thing failed in this process.
failures: Final[Counter[str]] = Counter()


def aside(what: str, call: Callable[..., object], *args: Any) -> None:
    """Call what only counts, logs or decorates; never raise.

    A failure is counted under `what`, and the first of each `what` is logged.
    """
    try:
        call(*args)
    except Exception as e:
        failures[what] += 1
        if failures[what] == 1:
            with contextlib.suppress(Exception):
                log.error("%s fails, the work goes on: %s", what, _where(e))


def _where(error: Exception) -> str:
    """Name the error and its line; its text may hold what an event says."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {frame.name} (line {frame.lineno} of {frame.filename.rsplit('/', 1)[-1]})"
