"""A process that is broken in one place, from outside: it ends in time, with its reason, for a supervisor to restart."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from streams import kafka
from tests import pipeline
from tests.faults.processes import Killable
from tests.test_stopping import _send, free_port, get, until

CRASH_S_MAX = 10.0
# Above the bounds of the guard, which `harmed` makes shorter, by what a machine with much to do needs.
STILL_S = 60.0
TERM_S = 25.0


async def _run(harm: str, command: str, kafka_at: str, home: Path, *, term: bool) -> tuple[float | None, int, str]:
    """How long a process lives from the harm, or from SIGTERM after it, its exit code, and what it said."""
    port, prefix = free_port(), f"harmed.{harm.replace(' ', '.')}.{command}.{term}."
    settings = pipeline.make_settings(kafka_at, home, prefix)
    environ = {
        "MDR_KAFKA": kafka_at, "MDR_TOPIC_PREFIX": prefix, "MDR_PARTITIONS": "2", "MDR_DATA_DIR": str(home / "data"),
        "MDR_HTTP": f"127.0.0.1:{port}",
    }  # fmt: skip
    process = Killable(harm, [sys.executable, "-m", "tests.harmed", harm, command], os.environ | environ, home / "log")
    try:
        await until(lambda: get(port, "/readyz")[0] == 200, process)
        process.signal(signal.SIGUSR1)
        if harm in ("agent", "batch"):
            async with kafka.producing(settings) as client:
                await client.send_and_wait(prefix + "sends", _send(1), b"1")
        if term:
            await asyncio.sleep(1)  # the fault has its way
            process.signal(signal.SIGTERM)
        took_s = await process.ended(90)
        return took_s, process.code, process.log.read_text()
    finally:
        await process.kill()


CRASHES = ("fetcher", "fetching", "agent", "batch", "writing", "tick")


@pytest.mark.parametrize("harm", CRASHES)
def test_a_crash_ends_the_process(harm: str, kafka_at: str, tmp_path: Path) -> None:
    """Within ten seconds, with exit code 1 and the reason in the last line, whatever crashed."""
    took_s, code, log = asyncio.run(_run(harm, "worker", kafka_at, tmp_path, term=False))
    assert took_s is not None and took_s < CRASH_S_MAX, log
    assert code == 1, log
    assert any(line.startswith("mdr: ") and "broken on purpose" in line for line in log.splitlines()), log


@pytest.mark.parametrize(
    ("harm", "command", "why"),
    [
        ("loop hangs", "worker", "its event loop has stood still"), ("api hangs", "api", "its event loop has stood still"),
    ],
)  # fmt: skip
def test_a_loop_that_stands_ends_the_process(harm: str, command: str, why: str, kafka_at: str, tmp_path: Path) -> None:
    """It says where every thread stands, and exits with 1."""
    took_s, code, log = asyncio.run(_run(harm, command, kafka_at, tmp_path, term=False))
    assert took_s is not None and took_s < STILL_S, log
    assert code == 1 and f"mdr: {why}" in log, log
    assert "Current thread" in log and "in _hang" in log


@pytest.mark.parametrize("harm", ["fetcher", "writing", "loop hangs", "fetcher hangs", "loop computes"])
def test_sigterm_ends_it_whatever_hangs(harm: str, kafka_at: str, tmp_path: Path) -> None:
    """Nobody needs kill -9, be it the loop that hangs, the consumer's thread, or code that lets nobody else in."""
    command = "up" if harm in ("fetcher", "loop hangs") else "worker"
    took_s, code, log = asyncio.run(_run(harm, command, kafka_at, tmp_path, term=True))
    assert took_s is not None and took_s < TERM_S, log
    if harm == "loop hangs":
        assert code == 1 and "mdr: its event loop has stood still" in log, log
    if harm == "loop computes":
        assert code == -signal.SIGPROF and "in _compute" in log
    if harm in CRASHES:
        # The interpreter gives the signal back to the system at its very end.
        assert code in (0, 1, -signal.SIGTERM), log


_SLEEPER = """
import asyncio
from streams import watchdog
from streams.running import guarded
watchdog.STILL_S_MAX = 1.5
async def main():
    async with guarded():
        print("ready", flush=True)
        await asyncio.sleep(6)
asyncio.run(main())
"""


def test_a_frozen_process_goes_on() -> None:
    """The guard counts its own steps: what a debugger, a frozen container or Ctrl-Z takes is no hang."""
    with subprocess.Popen([sys.executable, "-c", _SLEEPER], stdout=subprocess.PIPE) as sleeper:
        assert sleeper.stdout is not None and sleeper.stdout.readline() == b"ready\n"
        sleeper.send_signal(signal.SIGSTOP)
        time.sleep(4)  # longer than an event loop may stand there
        sleeper.send_signal(signal.SIGCONT)
        assert sleeper.wait(60) == 0


def test_a_full_pipe_on_stderr_keeps_nobody_alive() -> None:
    """Nobody reads what a hanging process says: it ends all the same."""
    hung = _SLEEPER.replace("await asyncio.sleep(6)", "sys.stderr.write('x' * 1_000_000)").replace("1.5", "1.0")
    with subprocess.Popen(
        [sys.executable, "-c", "import sys\n" + hung], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        assert process.wait(60) == 1
