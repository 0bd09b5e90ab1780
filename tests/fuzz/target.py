"""Runs one target until its time is over: `python -m tests.fuzz.target NAME [libFuzzer's arguments]`."""

import sys

import atheris

with atheris.instrument_imports(include=["schemas", "streams"]):
    from schemas import native
    from tests.fuzz.targets import TARGETS

if __name__ == "__main__":
    assert native.enabled, "there is nothing to compare"
    atheris.Setup([sys.argv[0], *sys.argv[2:]], TARGETS[sys.argv[1]])
    atheris.Fuzz()
