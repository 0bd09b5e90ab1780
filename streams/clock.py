"""The wall clock, apart from what is heavy to import."""

import time


def clock_ms() -> int:
    """Milliseconds since the epoch by the wall clock."""
    return time.time_ns() // 1_000_000
