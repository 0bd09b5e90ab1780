"""The checks are checked: breaks what keeps events safe, one thing at a time in a copy, and asks the fast suites.

    python -m tests.mutations

Each line says which suite noticed. Exit 1 when a break goes unnoticed, or when one no longer fits the code.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[1]


class Break(NamedTuple):
    """What is broken, and how: in `file`, `old` becomes `new`."""

    what: str
    file: str
    old: str
    new: str


WRITE_ROWS: Final = "        bad = await self._write_rows(cuts, now_ms)\n"
BREAKS: Final = (
    Break(
        "offsets are committed before the rows are written", "streams/barrier.py", WRITE_ROWS,
        "        if checkpoint:\n            await self._kafka.commit(offsets, generation)\n" + WRITE_ROWS,
    ),
    Break(
        "the generation of the cut is not compared", "streams/barrier.py",
        "self._kafka.commit(offsets, generation))", "self._kafka.commit(offsets, self.generation))",
    ),
    Break(
        "a batch of an earlier generation is worked off", "streams/agents.py",
        "        shard = batch.partition\n        if batch.generation != self.barrier.generation:",
        "        shard = batch.partition\n        if shard not in self.flow.partitions:",
    ),
    Break(
        "a write that fails is not tried again", "streams/barrier.py",
        "            except Unavailable as e:\n", "            except Unavailable as e:\n                return None\n",
    ),
    Break(
        "a settled message leaves no tombstone", "streams/lives.py",
        'self._gone.append((mid, "", saved_version(life) + 1))', "pass",
    ),
    Break(
        "a tombstone outranks what another owner saved since", "streams/lives.py",
        'self._gone.append((mid, "", saved_version(life) + 1))', 'self._gone.append((mid, "", 1 << 32))',
    ),
    Break(
        "a record of another owner is not remembered", "streams/settle.py",
        'self._recent["outbound"].add(hashes(recorded), ', 'self._recent["outbound"].add(hashes(()), ',
    ),
    Break(
        "the store is not asked about late and repeated sends", "streams/agents.py",
        "found = await self._lookup([h.event.message_id for h in held], self.flow.brief(shard, held))", "found = {}",
    ),
    Break(
        "the store is not asked about waiting receipts", "streams/agents.py",
        "found = await self._lookup([mid for ids in asked.values() for mid in ids]) if asked else {}",
        "found: dict[str, Found] = {}",
    ),
    Break(
        "a batch counts as done when it is handed out, as Faust's own `take` has it", "streams/agents.py",
        "        ready = self._ready.get(batch.partition)\n",
        "        ready = self._ready.get(batch.partition)\n"
        "        self.barrier.did(topic, batch.partition, batch.next_offset)\n",
    ),
    Break(
        "a batch that is missing is not noticed", "streams/agents.py",
        "        if batch.first_offset > at:\n", "        if False:\n",
    ),
    Break(
        "a torn checkpoint is followed by another", "streams/barrier.py",
        "            if self._torn:\n                return\n", "",
    ),
)  # fmt: skip
SUITES: Final = {
    "the worker by example": ["-m", "pytest", "-q", "-x", "tests/test_worker.py"],
    "the barrier by example": ["-m", "pytest", "-q", "-x", "tests/test_barrier.py"],
    "a partition's histories": ["-m", "pytest", "-q", "-x", "tests/test_settle.py"],
    "the simulation": ["-m", "tests.simulation", "--seconds", "30", "--until-wrong"],
}


def main() -> int:
    """Breaks everything in turn."""
    sound = noticed(None)
    if sound:
        print(f"unbroken, {sound} fails: nothing can be said")
        return 1
    bad = 0
    for it in BREAKS:
        by = noticed(it)
        print(f"{by or 'NOBODY':24} noticed: {it.what}", flush=True)
        bad += not by
    return int(bool(bad))


def noticed(it: Break | None) -> str:
    """The suites that go red, or none."""
    with tempfile.TemporaryDirectory() as there:
        copy = Path(there)
        for name in ("streams", "schemas", "tests", "api"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        if it is not None:
            broken = copy / it.file
            text = broken.read_text()
            assert text.count(it.old) == 1, f"{it.what}: no longer fits {it.file}"
            broken.write_text(text.replace(it.old, it.new))
        env = os.environ | {"PYTHONHASHSEED": "0", "PYTHONPATH": str(copy)}
        for suite, arguments in SUITES.items():
            done = subprocess.run([sys.executable, *arguments], cwd=copy, env=env, capture_output=True, check=False)
            if done.returncode:
                return suite
    return ""


if __name__ == "__main__":
    sys.exit(main())
