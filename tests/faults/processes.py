"""The processes: how each is started, stopped, frozen and killed."""

import asyncio
import contextlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

import msgspec

from streams import broker
from tests.chserver import Fault

ROOT: Final = Path(__file__).parents[2]
CACHE: Final = Path.home() / ".cache" / "mdr"
_MDR: Final = [sys.executable, "-c", "from streams.cli import main; main()"]


def in_own_directory(prefix: str, run: Callable[[Path], Coroutine[Any, Any, int]]) -> int:
    """Run a suite in a directory that is kept when something went wrong; returns its exit code."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    home = Path(tempfile.mkdtemp(prefix=prefix))
    code = asyncio.run(run(home))
    if code:
        print(f"logs are kept in {home}", file=sys.stderr)
    else:
        shutil.rmtree(home, ignore_errors=True)
    return code


class Killable:
    """A process that ends with us, its output in a file."""

    def __init__(self, name: str, command: list[str], env: dict[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as out:
            self._process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=out, stderr=out)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def code(self) -> int:
        """Its exit code, below zero for a signal; once it has ended."""
        assert self._process.returncode is not None
        return self._process.returncode

    def runs(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def signal(self, number: int) -> None:
        """Sends a signal if it still runs."""
        if self.runs():
            self._process.send_signal(number)

    async def ended(self, timeout_s: float) -> float | None:
        """How long it took to end; None if it did not."""
        began = time.monotonic()
        while time.monotonic() - began < timeout_s:
            if not self.runs():
                return time.monotonic() - began
            await asyncio.sleep(0.02)
        return None

    async def kill(self) -> None:
        """Ends it by force."""
        self.signal(signal.SIGKILL)
        await self.ended(10)

    def rss_mb(self) -> int:
        """Its resident memory."""
        with contextlib.suppress(OSError, IndexError, ValueError):
            pages = Path(f"/proc/{self.pid}/statm").read_text().split()[1]
            return int(pages) * os.sysconf("SC_PAGE_SIZE") >> 20
        return 0


class Clickhouse:
    """The test server; its port stays the same over restarts."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self.port = 0
        self._control = 0
        self.process: Killable | None = None

    async def start(self) -> None:
        """Returns once it answers."""
        ready = self._home / "clickhouse.json"
        ready.unlink(missing_ok=True)
        command = [sys.executable, "-m", "tests.chserver", "--path", str(self._home / "clickhouse")]
        command += ["--port", str(self.port), "--ready-file", str(ready)]
        self.process = Killable("clickhouse", command, dict(os.environ), self._home / "clickhouse.log")
        while not ready.exists():
            assert self.process.runs(), f"the ClickHouse server died: see {self.process.log}"
            await asyncio.sleep(0.05)
        told = json.loads(ready.read_text())
        self.port, self._control = told["port"], told["control"]

    async def close(self) -> None:
        """Ends it for good."""
        if self.process is not None:
            await self.process.kill()

    def fault(self, kind: str, **more: Any) -> None:
        """Puts a fault in force; `none` ends it."""
        body = msgspec.json.encode(Fault(kind, **more))
        with urllib.request.urlopen(f"http://127.0.0.1:{self._control}/fault", body, timeout=10):
            pass

    def stats(self) -> dict[str, Any]:
        """What it did so far."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._control}/stats", timeout=10) as answer:
            told: dict[str, Any] = json.load(answer)
            return told

    @property
    def url(self) -> str:
        """For `MDR_CLICKHOUSE_URL`."""
        return f"http://default:@127.0.0.1:{self.port}"


class Kafka:
    """The broker, on one port for good."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.bootstrap = ""

    async def start(self) -> None:
        """Returns once it answers."""
        port = int(self.bootstrap.rsplit(":", 1)[1]) if self.bootstrap else None
        found = await asyncio.to_thread(broker.start, self.home, cache_dir=CACHE, tied_to_parent=True, port=port)
        self.bootstrap = found.bootstrap

    def signal(self, number: int) -> None:
        """Sends it a signal."""
        os.kill(int((self.home / "broker" / "pid").read_text()), number)


class Workers:
    """The supervisor: keeps a number of workers running."""

    def __init__(self, home: Path, env: dict[str, str], command: str) -> None:
        self._home, self._env, self._command = home, env, command
        self.running: list[Killable] = []
        self.wanted = 0
        self.born = 0
        self.gave_up: list[str] = []
        self.rss_mb_max = 0
        self.expected_ends: set[int] = set()

    def start(self) -> Killable:
        """One more."""
        self.born += 1
        name = f"worker{self.born}"
        env = os.environ | self._env
        worker = Killable(name, [*_MDR, self._command], env, self._home / f"{name}.log")
        self.running.append(worker)
        return worker

    async def watch(self) -> None:
        """Replaces what ended, and notes what ended by itself."""
        while True:
            await asyncio.sleep(0.2)
            for worker in list(self.running):
                self.rss_mb_max = max(self.rss_mb_max, worker.rss_mb())
                if not worker.runs():
                    self.running.remove(worker)
                    if worker.pid not in self.expected_ends:
                        self.gave_up.append(f"{worker.name}: {_last_line(worker.log)}")
            while len(self.running) < self.wanted:
                self.start()

    async def kill(self, worker: Killable) -> None:
        """kill -9."""
        self.expected_ends.add(worker.pid)
        await worker.kill()

    async def terminate(self, worker: Killable, timeout_s: float) -> float | None:
        """SIGTERM; how long it took to end."""
        self.expected_ends.add(worker.pid)
        worker.signal(signal.SIGTERM)
        return await worker.ended(timeout_s)

    async def stop_all(self) -> None:
        """In order; by force after half a minute."""
        self.wanted = 0
        for worker in list(self.running):
            worker.signal(signal.SIGCONT)
            if await self.terminate(worker, 30) is None:
                await worker.kill()


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"
