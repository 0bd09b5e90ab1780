"""Builds the compiled part for checks: with their own flags, in a copy of the code, so that the checkout stays as it is."""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
COPIED: Final = ("streams", "schemas", "tests", "api", "native")
NAME: Final = f"_native{sysconfig.get_config_var('EXT_SUFFIX')}"
_FLAGS: Final = ("-std=c11", "-fno-strict-aliasing", "-fPIC", f"-I{sysconfig.get_path('include')}")


class BuildFailed(Exception):
    """The compiler refuses the sources."""


def copy_code(at: Path) -> None:
    """Copy all that tests run, without what was built, and make its bytecode beforehand."""
    for name in COPIED:
        shutil.copytree(ROOT / name, at / name, ignore=shutil.ignore_patterns("__pycache__", "_native*.so", "*.o"))
    shutil.copy(ROOT / "pyproject.toml", at)
    subprocess.run([sys.executable, "-m", "compileall", "-q", *COPIED[:4]], cwd=at, check=True)


def build(root: Path, *flags: str, compiler: str = "") -> None:
    """Compile what is new in `root`/native for the code beside it; raise `BuildFailed` with what the compiler says."""
    command = [compiler or shutil.which("cc") or "gcc", *_FLAGS, *flags]
    headers_ns = max(path.stat().st_mtime_ns for path in (root / "native").glob("*.h"))
    objects = []
    for source in sorted((root / "native").glob("*.c")):
        made = source.with_suffix(".o")
        objects.append(str(made))
        if not made.exists() or made.stat().st_mtime_ns < max(headers_ns, source.stat().st_mtime_ns):
            made.unlink(missing_ok=True)
            _run([*command, "-c", str(source), "-o", str(made)])
    _run([*command, "-shared", *objects, "-o", str(root / "schemas" / NAME)])


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildFailed(done.stderr)
