"""The compiled part is built by any C compiler without a warning, and where it is missing that is said everywhere."""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any, Final

import pytest

import hatch_build
from schemas import native
from streams import agents
from streams.agents import Worker
from streams.monitor import Monitor
from tests.pipeline import make_settings

ROOT: Final = Path(__file__).parent.parent
SOURCES: Final = sorted((ROOT / "native").glob("*.[ch]"))
MISSING: Final = "the compiled part is missing, everything is several times slower"


@pytest.mark.native
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_any_compiler_builds_it_without_a_warning(compiler: str, tmp_path: Path) -> None:
    """A warning here is often an error of the next compiler."""
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler} is installed")
    sources = [str(path) for path in SOURCES if path.suffix == ".c"]
    out = tmp_path / f"_native{sysconfig.get_config_var('EXT_SUFFIX')}"
    command = [compiler, *hatch_build._FLAGS, "-Werror", f"-I{sysconfig.get_path('include')}", *sources, "-o", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import _native; print(_native.Decoder.__name__)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ran.stdout == "Decoder\n", ran.stderr


def test_on_a_big_endian_machine_it_does_not_compile() -> None:
    """Numbers are written as they lie in memory: wrong records would be worse than slow ones."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc is installed")
    command = ["gcc", "-fsyntax-only", "-U__BYTE_ORDER__", "-D__BYTE_ORDER__=__ORDER_BIG_ENDIAN__"]
    done = subprocess.run(
        [*command, f"-I{sysconfig.get_path('include')}", str(ROOT / "native" / "module.c")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode and "needs a little-endian machine" in done.stderr


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_nothing_private_of_python_is_called(path: Path) -> None:
    """A name that begins with `_Py` may change its meaning, or go, in any version."""
    assert not re.findall(r"\b_Py\w+", path.read_text())


@pytest.mark.parametrize("compiler", ["false", "no-such-compiler"])
def test_a_build_that_fails_warns_and_leaves_nothing(
    compiler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an older build, too: it might not fit the Python beside it."""
    (tmp_path / "schemas").mkdir()
    old = tmp_path / "schemas" / f"_native{sysconfig.get_config_var('EXT_SUFFIX')}"
    old.write_bytes(b"")
    monkeypatch.setenv("CC", compiler)
    warned: list[str] = []
    hook: Any = object.__new__(hatch_build.CustomBuildHook)
    app = type("App", (), {"display_warning": staticmethod(warned.append)})
    monkeypatch.setattr(hatch_build.CustomBuildHook, "root", str(tmp_path))
    monkeypatch.setattr(hatch_build.CustomBuildHook, "app", app)
    told: dict[str, Any] = {"artifacts": []}
    hook.initialize("standard", told)
    assert "several times slower" in warned[0] and not old.exists() and told == {"artifacts": []}


def test_settings_say_whether_it_is_there(tmp_path: Path) -> None:
    """With and without it, as a line of its own."""
    program = "import sys; {}; import streams.cli as c; sys.argv = ['mdr', 'settings', '--json']; c.main()"
    for block, value in (("pass", "yes"), ("sys.modules['schemas._native'] = None", "no")):
        command = [sys.executable, "-c", program.format(block)]
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        run = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=True)
        line = json.loads(run.stdout.splitlines()[-1])
        assert (line["name"], line["origin"]) == ("compiled part", "build")
        if block != "pass" or native.enabled:
            assert line["value"] == value and (MISSING in line["meaning"]) == (value == "no")


def test_a_worker_without_it_says_so_and_is_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its first line is a warning, and /readyz tells an alarm; it works all the same."""
    monkeypatch.setattr(native, "missing", MISSING)
    settings = make_settings("127.0.0.1:1", tmp_path, "build.")

    async def begin() -> list[str]:
        worker = Worker(settings, 1)
        monkeypatch.setattr(worker, "_check_store", _stop)
        with pytest.raises(InterruptedError):
            await worker.start()
        watch = Monitor(settings, worker, lambda: 0)
        alarms: list[str] = watch.health()["alarms"]
        worker.store.close()
        worker._reader.close()
        return alarms

    assert asyncio.run(begin()) == [MISSING]
    assert [r.getMessage() for r in caplog.records if r.name == agents.__name__] == [MISSING]


async def _stop() -> None:
    raise InterruptedError
