"""Fuzzes the compiled part against the Python: `python -m tests.fuzz [--seconds N] [TARGET ...]`.

In a copy, the C is built by clang with the address sanitizer and coverage of its branches; atheris leads inputs to new ones,
from the kept corpus (corpus/) and the golden examples. Says how many inputs ran and what was found; exit 1 when something was.
What a long run finds goes into the corpus with `--keep`, minimised, and is run by tests/test_fuzz.py for ever.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import atheris

from tests.building import ROOT, build, copy_code
from tests.fuzz.targets import TARGETS, seeds

CORPUS: Final = Path(__file__).parent / "corpus"
FLAGS: Final = ("-g", "-O1", "-fno-omit-frame-pointer", "-fsanitize=address,fuzzer-no-link")


def main() -> int:
    """Fuzz each target for a time, two side by side."""
    options = argparse.ArgumentParser()
    options.add_argument("targets", nargs="*", choices=[[], *TARGETS])
    options.add_argument("--seconds", type=int, default=60)
    options.add_argument("--keep", action="store_true", help="minimise what led to new branches into the kept corpus")
    told = options.parse_args()
    with tempfile.TemporaryDirectory() as there:
        copy_code(Path(there))
        build(Path(there), *FLAGS, compiler="clang")
        with ThreadPoolExecutor(2) as pool:
            found = pool.map(lambda name: _fuzz(Path(there), name, told.seconds, told.keep), told.targets or TARGETS)
            return int(any(list(found)))


def _fuzz(at: Path, name: str, seconds: int, keep: bool) -> bool:
    """Whether a target found something; its inputs are left in data/fuzz."""
    work, kept, crashes = at / f"{name}.corpus", CORPUS / name, ROOT / "data" / "fuzz" / name
    for folder in (work, kept, crashes):
        folder.mkdir(parents=True, exist_ok=True)
    for n, seed in enumerate(seeds(name)):
        (work / f"seed-{n}").write_bytes(seed)
    command = [sys.executable, "-m", "tests.fuzz.target", name]
    limits = [f"-max_total_time={seconds}", "-max_len=4096", "-timeout=60", "-rss_limit_mb=4096", f"-artifact_prefix={crashes}/"]
    env = os.environ | {
        "LD_PRELOAD": str(Path(atheris.path()) / "asan_with_fuzzer.so"), "PYTHONPATH": str(at),
        "ASAN_OPTIONS": "detect_leaks=0:handle_segv=1:allocator_may_return_null=1", "PYTHONHASHSEED": "0",
    }  # fmt: skip
    done = subprocess.run([*command, *limits, str(work), str(kept)], cwd=at, env=env, capture_output=True, text=True, errors="replace", check=False)
    runs = re.findall(r"^Done (\d+) runs", done.stderr, re.MULTILINE) or re.findall(r"^#(\d+)", done.stderr, re.MULTILINE) or ["0"]
    coverage = re.findall(r"cov: (\d+) ft: (\d+)", done.stderr) or [("0", "0")]
    print(f"{name}: {runs[-1]} inputs in {seconds} s, {coverage[-1][0]} branches, exit {done.returncode}", flush=True)
    if done.returncode:
        print(done.stderr[-6_000:] + done.stdout[-2_000:])
    elif keep:
        _keep(command, env, at, work, kept)
    return bool(done.returncode)


def _keep(command: list[str], env: dict[str, str], at: Path, work: Path, kept: Path) -> None:
    """Replace the kept corpus by the fewest and smallest inputs that reach all that was reached."""
    least = at / f"{kept.name}.least"
    shutil.rmtree(least, ignore_errors=True)
    least.mkdir()
    subprocess.run([*command, "-merge=1", str(least), str(kept), str(work)], cwd=at, env=env, capture_output=True, check=True)
    shutil.rmtree(kept)
    shutil.copytree(least, kept)


if __name__ == "__main__":
    sys.exit(main())
