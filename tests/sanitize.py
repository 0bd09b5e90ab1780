"""Runs the suites of the compiled part under the address and undefined behaviour sanitizers.

    python -m tests.sanitize [PYTEST ARGUMENTS]

Every read beyond its bytes, use after free, overflow of a signed integer, shift too far or misaligned access ends the run with
its place in the C. Python's own allocator is replaced by malloc, so that its objects are watched too. Leaks are not looked
for: the interpreter itself leaves what it holds to the end of the process.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.building import build, copy_code

FLAGS: Final = ("-g", "-O1", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")
SUITES: Final = ("native", "trim", "keyed", "bounds", "fetched", "record_batches", "events", "examples", "join", "settle", "flow", "barrier", "folding")
# The embedded store has an allocator of its own, which the sanitizer does not know.
WITHOUT_STORE: Final = ("-k", "native and not no_column_can_hold and not no_record_can_be_made and not the_store_refuses")


def main() -> int:
    """Build in a copy, and run; the exit code is that of the tests."""
    given = sys.argv[1:] or [f"tests/test_{name}.py" for name in SUITES]
    with tempfile.TemporaryDirectory() as there:
        copy_code(Path(there))
        compiler = shutil.which("gcc") or "gcc"
        build(Path(there), *FLAGS, compiler=compiler)
        env = os.environ | {
            "LD_PRELOAD": " ".join(_library(compiler, name) for name in ("libasan.so", "libubsan.so")),
            "ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1", "PYTHONMALLOC": "malloc",
            "PYTHONPATH": there,
        }  # fmt: skip
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *given, *WITHOUT_STORE]
        return subprocess.run(command, cwd=there, env=env, check=False).returncode


def _library(compiler: str, name: str) -> str:
    return subprocess.run([compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
