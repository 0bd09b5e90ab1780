"""Logs: one line a state change on stderr, for people on a terminal and as JSON lines otherwise."""

import logging
import sys
import time
from typing import Final

import structlog

_LINES_PER_MINUTE: Final = 20


class _Rate(logging.Filter):
    """Lets a logger repeat one message only so often: clients repeat themselves in an outage."""

    def __init__(self) -> None:
        super().__init__()
        self._since: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        key = (record.name, str(record.msg))
        began, count = self._since.get(key, (time.monotonic(), 0))
        if time.monotonic() - began > 60:
            began, count = time.monotonic(), 0
        self._since[key] = (began, count + 1)
        return count < _LINES_PER_MINUTE


def set_up(level: int = logging.INFO) -> None:
    """Sends what we log, and warnings of the libraries, to stderr."""
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
    shared: list[structlog.types.Processor] = [structlog.stdlib.add_log_level, structlog.stdlib.add_logger_name, stamp]
    last: structlog.types.Processor = (
        structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.processors.format_exc_info],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
        )
    )
    handler.addFilter(_Rate())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("streams").setLevel(level)
    logging.getLogger("api").setLevel(level)
    # There Faust tells of every service that starts and stops.
    logging.getLogger("streams.transport").setLevel(logging.WARNING)
    # It reports each step of joining a group, and each failed attempt in an outage, as an error.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    logging.getLogger("faust").setLevel(logging.ERROR)
    logging.getLogger("mode").setLevel(logging.ERROR)
