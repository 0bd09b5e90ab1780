"""Logs: one line a state change on stderr, for people on a terminal and as JSON lines otherwise.

No line holds a phone number, a body or a secret: nobody logs them, and a number that a library's error drags along is
masked here.
"""

import logging
import re
import sys
import time
from collections.abc import Callable, MutableMapping
from typing import Any, Final

import structlog

from streams.terminal import clean_lines

LINES_PER_MINUTE: Final = 20
_NUMBER: Final = re.compile(r"(?<![0-9A-Za-z])(\+|%2B)[1-9][0-9]{6,14}(?![0-9])")
_MASKED: Final = "+***"


class Rate(logging.Filter):
    """Lets a logger repeat one message only so often: clients repeat themselves in an outage.

    The first line after a minute with more says how many were `held_back`.
    """

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock_s = clock_s
        self._since: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is told."""
        key, now_s = (record.name, str(record.msg)), self._clock_s()
        began_s, count = self._since.get(key, (now_s, 0))
        if now_s - began_s > 60:
            if count > LINES_PER_MINUTE:
                record.held_back = count - LINES_PER_MINUTE
            began_s, count = now_s, 0
        self._since[key] = (began_s, count + 1)
        return count < LINES_PER_MINUTE


def set_up(level: int = logging.INFO) -> None:
    """Sends what we log, and warnings of the libraries, to stderr."""
    logging.basicConfig(level=logging.WARNING, handlers=[handler()], force=True)
    logging.getLogger("streams").setLevel(level)
    logging.getLogger("api").setLevel(level)
    # There Faust tells of every service that starts and stops.
    logging.getLogger("streams.transport").setLevel(logging.WARNING)
    # It reports each step of joining a group, and each failed attempt in an outage, as an error.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    logging.getLogger("faust").setLevel(logging.ERROR)
    logging.getLogger("mode").setLevel(logging.ERROR)
    # Each request that fails is a warning, with a traceback; who asked says it once.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    logging.getLogger("clickhouse_connect").setLevel(logging.ERROR)


def handler() -> logging.Handler:
    """Writes lines to stderr as it is now."""
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
    # JSON is ASCII alone.
    last: list[structlog.types.Processor] = (
        [_clean, structlog.dev.ConsoleRenderer()] if sys.stderr.isatty() else [structlog.processors.JSONRenderer()]
    )
    made = logging.StreamHandler(sys.stderr)
    made.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.stdlib.add_log_level, structlog.stdlib.add_logger_name, stamp, structlog.stdlib.ExtraAdder(),
                structlog.processors.format_exc_info, _mask,
            ],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )  # fmt: skip
    made.addFilter(Rate())
    return made


def _clean(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {name: clean_lines(value) if isinstance(value, str) else value for name, value in event.items()}


def _mask(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {name: _NUMBER.sub(_MASKED, value) if isinstance(value, str) else value for name, value in event.items()}
