"""The test ClickHouse server as a context."""

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tests.chserver import Fault

ROOT = Path(__file__).parents[1]


@dataclass
class Served:
    """A server that runs."""

    process: "subprocess.Popen[bytes]"
    port: int
    control: int

    @property
    def url(self) -> str:
        """For a `Store`."""
        return f"http://default:@127.0.0.1:{self.port}"

    def fault(self, fault: Fault) -> None:
        """Puts a fault in force; `Fault()` ends it."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.control}/fault", msgspec.json.encode(fault), timeout=10):
            pass


@contextmanager
def serve(home: Path, port: int = 0) -> Iterator[Served]:
    """A server over the data in a directory, killed at the end."""
    ready = home / "ready.json"
    ready.unlink(missing_ok=True)
    command = [sys.executable, "-m", "tests.chserver", "--path", str(home / "data"), "--ready-file", str(ready)]
    process = subprocess.Popen([*command, "--port", str(port)], cwd=ROOT)
    try:
        while not ready.exists():
            assert process.poll() is None, "the test server died at its start"
            time.sleep(0.02)
        told = json.loads(ready.read_text())
        yield Served(process, told["port"], told["control"])
    finally:
        process.kill()
        process.wait()
