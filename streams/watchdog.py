"""When a worker that reads nothing, and a process that hangs, is to be started anew. Pure.

A consumer that hangs does not come back by itself, and says nothing. So: the log moves, we do not, and nothing holds us
up that will pass. A process hangs when its event loop stands, or when its end does not end.
"""

from typing import Final

STUCK_MS_MAX: Final = 120_000
# So long may an event loop stand still while its thread uses no processor, and so long when the process is ending.
STILL_S_MAX: Final = 30.0
ENDING_STILL_S_MAX: Final = 8.0
# So much processor time may it use in one step: on a machine with much to do that is minutes.
BUSY_S_MAX: Final = 60.0
# Below this share of a step a thread stands still.
_BUSY_SHARE: Final = 0.01


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


class Pulse:
    """Whether a process gets on: its event loop beats, and its end ends.

    Told in steps of whoever watches: a process that was frozen, or whose machine slept, did not hang meanwhile.
    """

    def __init__(self) -> None:
        self._beats = 0
        self._still_s = self._busy_s = 0.0
        self._left_s: float | None = None

    @property
    def ends(self) -> bool:
        """Whether the process is ending."""
        return self._left_s is not None

    def end_within(self, seconds: float) -> None:
        """Says that the process is ending; the shortest of several bounds holds."""
        self._left_s = seconds if self._left_s is None else min(self._left_s, seconds)

    def trouble(self, beats: int, step_s: float, used_s: float) -> str:
        """Why to end the process now, `""` for no reason; `used_s` is processor time that the loop's thread used."""
        self._count(beats, step_s, used_s)
        if self._left_s is not None:
            self._left_s -= step_s
            if self._left_s <= 0:
                return "the process did not end in time"
        if self._still_s >= (ENDING_STILL_S_MAX if self.ends else STILL_S_MAX):
            return f"its event loop has stood still for {self._still_s:.0f} s"
        if self._busy_s >= BUSY_S_MAX:
            return f"one step of its event loop has computed for {self._busy_s:.0f} s"
        return ""

    def _count(self, beats: int, step_s: float, used_s: float) -> None:
        if beats != self._beats:
            self._beats, self._still_s, self._busy_s = beats, 0.0, 0.0
        elif used_s > step_s * _BUSY_SHARE:
            self._busy_s += used_s
        else:
            self._still_s += step_s
