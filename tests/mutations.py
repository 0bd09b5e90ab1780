"""Checks the checks: breaks one rule at a time in a copy of the code, and asks the suites that should notice.

    python -m tests.mutations [--jobs N] [WORD ...]

Each line says which suite noticed; words choose the breaks whose description or file holds one of them. A break of a C file
rebuilds the compiled part in the copy. Exit 1 when a break goes unnoticed, or when one no longer fits the code.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Final

from tests.breaks import BREAKS, Break
from tests.building import BuildFailed, build, copy_code

QUICK: Final = ("-p", "no:cacheprovider", "--hypothesis-profile=quick")
HUNG_S: Final = 600
SIMULATED_S: Final = "20"
# With its bytecode made beforehand, a run in a copy starts as quickly as one in the checkout.
_ENV: Final = os.environ | {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}


class Copy:
    """A copy of the code in which one thing at a time is broken."""

    def __init__(self, at: Path) -> None:
        """Copy the checkout, and build its compiled part."""
        self.at = at
        copy_code(at)
        build(at, "-O0")

    def noticed_by(self, it: Break) -> str:
        """The suite that goes red, what else tells of the break, or nothing."""
        broken = self.at / it.file
        text, times = broken.read_text(), broken.stat()
        if text.count(it.old) != 1:
            return f"GONE: its text is there {text.count(it.old)} times"
        broken.write_text(text.replace(it.old, it.new))
        try:
            build(self.at, "-O0")
            return self.red(it.suites, "native" if broken.parent.name == "native" else "")
        except BuildFailed as e:
            return f"GONE: does not compile: {e}"
        finally:
            broken.write_text(text)
            if broken.suffix == ".py":  # its bytecode fits again
                os.utime(broken, ns=(times.st_atime_ns, times.st_mtime_ns))

    def red(self, suites: str, way: str = "") -> str:
        """The first of some suites that is red, or nothing; of a break of the C only what goes its way is run."""
        names = [name for name in suites.split() if name != "simulation"]
        chosen = ["-k", way] if way else []
        red = self._run(["pytest", "-q", "-x", *QUICK, *(f"tests/test_{name}.py" for name in names), *chosen])
        if not red and "simulation" in suites:
            red = self._run(["tests.simulation", "--seconds", SIMULATED_S, "--until-wrong", "--jobs", "1"])
        return red

    def _run(self, arguments: list[str]) -> str:
        env = _ENV | {"PYTHONPATH": str(self.at)}
        command = [sys.executable, "-m", *arguments]
        try:
            done = subprocess.run(command, cwd=self.at, env=env, capture_output=True, text=True, timeout=HUNG_S, check=False)
        except subprocess.TimeoutExpired:
            return "hung"
        if done.returncode < 0:
            return "crashed"
        failed = re.findall(r"^(?:FAILED|ERROR) tests/test_(\w+)", done.stdout, re.MULTILINE)
        return (failed or [arguments[0]])[0] if done.returncode else ""


def main() -> int:
    """Break everything in turn."""
    options = argparse.ArgumentParser()
    options.add_argument("words", nargs="*")
    options.add_argument("--jobs", type=int, default=2)
    told = options.parse_args()
    chosen = [it for it in BREAKS if not told.words or any(w in f"{it.file} {it.what}" for w in told.words)]
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as there, ThreadPoolExecutor(told.jobs) as pool:
        copies: SimpleQueue[Copy] = SimpleQueue()
        for copy in pool.map(Copy, [Path(there) / str(n) for n in range(told.jobs)]):
            copies.put(copy)
        sound = _unbroken(copies, chosen, pool)
        if sound:
            print(f"unbroken, {sound} fails: nothing can be said")
            return 1
        bad = sum(pool.map(lambda it: _told(copies, it), chosen))
    print(f"{len(chosen)} breaks, {bad} unnoticed or gone, {time.monotonic() - began:.0f} s")
    return int(bool(bad))


def _unbroken(copies: "SimpleQueue[Copy]", chosen: list[Break], pool: ThreadPoolExecutor) -> str:
    """The suites that fail where nothing is broken."""

    def red(suites: list[str]) -> str:
        copy = copies.get()
        try:
            return copy.red(" ".join(suites))
        finally:
            copies.put(copy)

    suites = sorted({name for it in chosen for name in it.suites.split()})
    return " ".join(filter(None, pool.map(red, (suites[::2], suites[1::2]))))


def _told(copies: "SimpleQueue[Copy]", it: Break) -> bool:
    copy = copies.get()
    began = time.monotonic()
    try:
        by = copy.noticed_by(it)
    finally:
        copies.put(copy)
    print(f"{by or 'NOBODY':24} noticed in {time.monotonic() - began:3.0f} s: {it.file}: {it.what}", flush=True)
    return not by or by.startswith("GONE")


if __name__ == "__main__":
    sys.exit(main())
