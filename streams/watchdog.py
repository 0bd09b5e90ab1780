"""When a worker that reads nothing is to be started anew. Pure.

A consumer that hangs does not come back by itself, and says nothing. So: the log moves, we do not, and nothing holds us
up that will pass.
"""

from typing import Final

STUCK_MS_MAX: Final = 120_000


class Watchdog:
    """Watches one worker's progress."""

    def __init__(self, now_ms: int) -> None:
        self._at = 0
        self._moved_ms = now_ms

    def is_stuck(self, at: int, *, is_behind: bool, is_held_up: bool, now_ms: int) -> bool:
        """Whether there was something to read for `STUCK_MS_MAX` and nothing was read; `at` is the sum of offsets."""
        if at != self._at or not is_behind or is_held_up:
            self._at, self._moved_ms = at, now_ms
        return now_ms - self._moved_ms > STUCK_MS_MAX
