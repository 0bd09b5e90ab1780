"""Runs a command outside of the caller's session; a tied one is stopped when the caller is gone.

A script, run by path so that only the standard library is loaded: `broker_watch.py detached|tied PID_FILE
COMMAND...`. The command's pid is in PID_FILE once standard output is closed. A tied caller holds the other
end of standard input: however it dies, the kernel closes that, which no signal handler could promise.
"""

import os
import select
import subprocess
import sys
from pathlib import Path

_POLL_S = 0.2
_STOP_S = 30.0


def main(mode: str, pid_file: Path, command: list[str]) -> None:
    """Starts the command; returns at once when detached, with the command's end when tied."""
    if mode == "tied" and os.fork():
        # The caller waits for this process only; the watcher goes on without being its child.
        return
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=sys.stderr, stderr=sys.stderr, start_new_session=True
    )
    pid_file.write_text(f"{child.pid}\n")
    if mode == "tied":
        _let_go_of_outputs()
        _watch(child, pid_file)
    # No wait for a detached command: it outlives this process on purpose.
    os._exit(0)


def _let_go_of_outputs() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


def _watch(child: subprocess.Popen[bytes], pid_file: Path) -> None:
    while child.poll() is None:
        # Nobody writes to this pipe: readable means that the caller is gone.
        if select.select([0], [], [], _POLL_S)[0]:
            pid_file.unlink(missing_ok=True)
            return _stop(child)
    return None


def _stop(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        child.kill()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
