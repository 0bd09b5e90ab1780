"""The checks themselves: what they must not let pass."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from schemas import batches
from tests.breaks import BREAKS
from tests.entries import NOON_MS, entry, event, value
from tests.fuzz.targets import TARGETS, seeds

ROOT: Final = Path(__file__).parents[1]
CORPUS: Final = sorted((ROOT / "tests" / "fuzz" / "corpus").glob("*/*"))


def run(arguments: list[str], **changes: str) -> "subprocess.CompletedProcess[str]":
    """A test run in a process of its own."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    env = {n: v for n, v in os.environ.items() if n != "CI" and not n.startswith("PYTEST_")} | changes
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("ci", "code"), [("", 0), ("true", 1)])
def test_nothing_is_skipped_in_ci(ci: str, code: int, tmp_path: Path) -> None:
    """A program that is missing leaves a test out on a desk, and fails it in CI."""
    done = run(["tests/test_ops.py", "-k", "alerts_fire"], PATH=str(tmp_path), CI=ci)
    assert done.returncode == code, done.stdout
    assert ("nothing is skipped in CI" in done.stdout) == bool(code)


def test_without_the_compiled_part_nothing_of_it_is_there() -> None:
    """The option leaves no way to it: suites go the way of the Python, tests of the C itself are left out."""
    done = run(["--without-native", "--collect-only", "tests/test_native.py", "tests/test_money.py", "tests/test_join.py"])
    assert done.returncode == 0, done.stdout
    assert "test_join.py" in done.stdout and "[python" in done.stdout
    assert "native" not in re.sub(r"--without-native", "", done.stdout)


@pytest.mark.parametrize("it", BREAKS, ids=lambda it: it.what)
def test_a_break_fits_the_code(it: Any) -> None:
    """Each break of `make mutations` changes exactly one place, and its suites are there."""
    assert (ROOT / it.file).read_text().count(it.old) == 1
    assert it.old != it.new
    assert all((ROOT / "tests" / f"test_{name}.py").is_file() or name == "simulation" for name in it.suites.split())


@pytest.mark.native
@pytest.mark.parametrize("name", TARGETS)
def test_what_fuzzing_has_found_goes_both_ways_alike(name: str) -> None:
    """Every kept input, and every one that fuzzing begins with, comes out the same by both ways."""
    kept = [path.read_bytes() for path in CORPUS if path.parent.name == name]
    for data in (*kept, *seeds(name)):
        TARGETS[name](data)


@pytest.mark.native
def test_fuzzing_sees_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiled decoder that takes every value for another is found."""
    real, other = batches._COMPILED["sends"], entry(0, NOON_MS, event("sends", body="another"))
    monkeypatch.setitem(batches._COMPILED, "sends", lambda entries, *more: real([other], *more))
    with pytest.raises(AssertionError, match="in a batch"):
        TARGETS["decode"](b"\0" + value(event("sends")))
