"""Ends a process that does not end by itself: a thread that waits for nobody.

It writes no log and asks no event loop, since those may be what hangs: it takes bytes from a pipe and counts its own
steps, and before it ends the process it says on stderr where every thread stands. `watchdog.Pulse` decides.
"""

import contextlib
import faulthandler
import os
import select
import signal
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

from streams.watchdog import Pulse

# From a signal or a crash to the end of the process.
STOP_S: Final = 20.0
CRASH_S: Final = 8.0
_BEAT_S: Final = 0.5
_STEP_S: Final = 0.5
# Processor time of the whole process in which the guard itself is not let in, for each processor.
_SHUT_OUT_S: Final = 30.0
_STDERR: Final = 2
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class Guard:
    """Watches the event loop that it is entered in, for the rest of the process; `with` from the main thread."""

    def __init__(self) -> None:
        self._pulse = Pulse()
        self._beats = 0
        self._why = ""
        self._on_signal: Callable[[], object] = lambda: None
        self._used_s = _processor_clock(threading.get_ident())
        self._signals, self._told = os.pipe()

    def __enter__(self) -> "Guard":
        os.set_blocking(self._told, False)
        # The interpreter's own handler writes there, whatever its threads are doing.
        signal.set_wakeup_fd(self._told, warn_on_full_buffer=False)
        faulthandler.register(signal.SIGPROF, all_threads=True, chain=True)
        threading.Thread(target=self._watch, name="guard", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.end_within(STOP_S, str(error) if error is not None else "")

    def beats(self, loop: Any) -> None:
        """Has an event loop say every half second that it runs."""
        self._beats += 1
        loop.call_later(_BEAT_S, self.beats, loop)

    def on_signal(self, call: Callable[[], object]) -> None:
        """Has the guard's thread call when the process is told to stop; the bound of its end begins then."""
        self._on_signal = call
        for number in _SIGNALS:
            signal.signal(number, lambda *_: None)
            signal.siginterrupt(number, False)

    def end_within(self, seconds: float, why: str) -> None:
        """Says that the process is ending, and why; it is ended when that takes longer."""
        self._why = self._why or why
        self._pulse.end_within(seconds)
        with contextlib.suppress(OSError, ValueError, AttributeError):
            # Should the guard be shut out of the interpreter: this clock needs nobody.
            faulthandler.dump_traceback_later(seconds + 4 * _STEP_S, exit=True, file=_STDERR)

    # ---- the thread ----------------------------------------------------------------------------------------

    def _watch(self) -> None:
        poll = select.poll()
        poll.register(self._signals, select.POLLIN)
        before_s, used_s = time.monotonic(), self._used_s()
        while True:
            # It ends the process should this thread be shut out for good, by code that computes and lets nobody in.
            signal.setitimer(signal.ITIMER_PROF, _SHUT_OUT_S * (os.cpu_count() or 1))
            if poll.poll(_STEP_S * 1000):
                self._heed(os.read(self._signals, 64))
            now_s, now_used_s = time.monotonic(), self._used_s()
            step_s = min(now_s - before_s, 2 * _STEP_S)
            trouble = self._pulse.trouble(self._beats, step_s, now_used_s - used_s)
            if trouble:
                _leave("; ".join(filter(None, (self._why, trouble))))
            before_s, used_s = now_s, now_used_s

    def _heed(self, numbers: bytes) -> None:
        if any(number in _SIGNALS for number in numbers):
            self.end_within(STOP_S, "")
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._on_signal()


def _processor_clock(thread: int) -> Callable[[], float]:
    """Seconds of processor time that a thread has used, or the whole process where one cannot tell."""
    if not hasattr(time, "pthread_getcpuclockid"):
        return time.process_time
    clock = time.pthread_getcpuclockid(thread)
    return lambda: time.clock_gettime(clock)


def _leave(reason: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        # Nobody may read it, which may be why the process hangs.
        os.set_blocking(_STDERR, False)
        os.write(_STDERR, f"mdr: {reason}\n".encode())
        faulthandler.dump_traceback(_STDERR, all_threads=True)
        os.set_blocking(_STDERR, True)
    os._exit(1)
