"""What a contender costs: CPU and memory of its whole process tree, and what the broker did meanwhile."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_SAMPLE_S: Final = 0.2


class Cost(NamedTuple):
    """A finished run: what it printed, and its cost."""

    status: int
    lines: list[str]
    wall_s: float
    cpu_s: float
    peak_mb: int
    broker_cpu_s: float
    other_cpu_s: float


def run(command: Sequence[str], environ: Mapping[str, str], log: Path, broker_pid: int, patience_s: float) -> Cost:
    """Runs a command to its end, or ends it when patience is over; its errors go to the log."""
    before, broker_before, busy_before = time.monotonic(), _cpu_s(broker_pid), _busy_s()
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command, env=dict(environ), stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
        )
    watch = _Watch(process.pid, before + patience_s)
    watch.start()
    assert process.stdout is not None
    with process.stdout as told:
        lines = told.read().splitlines()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    watch.over.set()
    watch.join()
    # The kernel's own account, unless a child was never waited for and is not in it.
    cpu_s = max(usage.ru_utime + usage.ru_stime, watch.cpu_s)
    broker_cpu_s = _cpu_s(broker_pid) - broker_before
    other_cpu_s = max(0.0, _busy_s() - busy_before - cpu_s - broker_cpu_s)
    peak_mb = max(watch.peak_kb, usage.ru_maxrss) >> 10
    wall_s = time.monotonic() - before
    return Cost(process.returncode, lines, wall_s, cpu_s, peak_mb, broker_cpu_s, other_cpu_s)


class _Watch(threading.Thread):
    """Samples the process and its descendants; ends them when the deadline has passed."""

    def __init__(self, pid: int, deadline_s: float) -> None:
        super().__init__(daemon=True)
        self._pid, self._deadline_s = pid, deadline_s
        self.over = threading.Event()
        self.peak_kb, self.cpu_s = 0, 0.0

    def run(self) -> None:
        while not self.over.wait(_SAMPLE_S):
            tree = list(_tree(self._pid))
            self.peak_kb = max(self.peak_kb, sum(map(_rss_kb, tree)))
            self.cpu_s = max(self.cpu_s, sum(map(_cpu_s, tree)))
            if time.monotonic() > self._deadline_s:
                os.killpg(self._pid, signal.SIGKILL)
                return


def _tree(pid: int) -> list[int]:
    """A process and its descendants; any of them may end meanwhile."""
    found = [pid]
    with contextlib.suppress(OSError):
        for task in list(Path(f"/proc/{pid}/task").glob("*/children")):
            with contextlib.suppress(OSError):
                found += [one for child in task.read_text().split() for one in _tree(int(child))]
    return found


def _cpu_s(pid: int) -> float:
    """CPU of a process and of those of its children that it waited for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / _TICKS_PER_S


def _rss_kb(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmRSS")), 0)


def _busy_s() -> float:
    """CPU that everything on the machine has used."""
    user, nice, system, _, _, irq, soft = map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:8])
    return (user + nice + system + irq + soft) / _TICKS_PER_S
