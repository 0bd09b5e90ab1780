"""Compiles native/ into `schemas/_native`: with the C compiler that is there, else with one from a wheel.

Where neither works (no headers of this Python, say) the package is built without it: everything runs, slower, and the
worker's first log line, its alarms, `mdr settings` and the metric `mdr_build_info` say so.
"""

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_FLAGS = (
    "-std=c11", "-O2", "-fno-strict-aliasing", "-fvisibility=hidden", "-fPIC", "-shared", "-Wall", "-Wextra",
    "-Wno-unused-parameter",
)  # fmt: skip


def _compiler() -> list[str]:
    named = shlex.split(os.environ.get("CC", ""))
    found = named or [path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))][:1]
    return found or [sys.executable, "-m", "ziglang", "cc"]


def _trouble(command: list[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as e:  # no such compiler
        return str(e)
    return done.stderr if done.returncode else None


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Hatchling's hook: see the head of this file."""

    def dependencies(self) -> list[str]:
        """What building needs besides hatchling."""
        return ["ziglang==0.17.1"] if "ziglang" in _compiler() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compiles before files are collected, in place also for an editable install."""
        root = Path(self.root)
        made = root / "schemas" / f"_native{sysconfig.get_config_var('EXT_SUFFIX')}"
        sources = sorted(str(path) for path in (root / "native").glob("*.c"))
        command = [*_compiler(), *_FLAGS, f"-I{sysconfig.get_path('include')}", *sources, "-o", str(made)]
        if sys.platform == "darwin":
            command += ["-undefined", "dynamic_lookup"]
        trouble = _trouble(command)
        if trouble is not None:
            self.app.display_warning(f"built without its compiled part, so several times slower:\n{trouble}")
            made.unlink(missing_ok=True)
            return
        build_data["artifacts"].append("schemas/_native*")
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
