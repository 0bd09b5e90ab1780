"""The clocks, apart from what is heavy to import."""

import time


def clock_ms() -> int:
    """Milliseconds since the epoch by the wall clock."""
    return time.time_ns() // 1_000_000


def monotonic_ms() -> int:
    """Milliseconds by a clock that nobody sets; it says how long, not when."""
    return time.monotonic_ns() // 1_000_000
