"""Where the time of a worker goes: ours on the loaded topics, sampled by py-spy, as a table.

`python -m benchmarks.profile [--home data/bench]` needs topics that `python -m benchmarks.bench --keep` has loaded. A
sample counts for the deepest of our own functions on its stack, with all that this function calls outside of our code.
uv fetches py-spy when it is first needed. It reads the memory of its child: where that is not allowed, it says so.
"""

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks import dataset
from benchmarks.bench import Field, measure
from benchmarks.contenders import RAW, contenders

_PY_SPY: Final = ("-m", "uv", "tool", "run", "py-spy==0.4.1", "record", "--subprocesses", "--threads", "--function")
_OWN: Final = re.compile(r"\S+ \((?:streams|schemas|benchmarks)/")
_LINE: Final = re.compile(r":[0-9]+(?=\)$)")
_THREAD: Final = re.compile(r"thread \(\w+\): (.*?)[-_]?[0-9]*$")


class Line(NamedTuple):
    """A line of the table: its share of all samples, and what this function of ours was mostly busy with."""

    share: float
    thread: str
    where: str
    mostly: str


def table(stacks: Iterable[str]) -> list[Line]:
    """The table of stacks with their counts, the largest share first."""
    leaves: dict[tuple[str, str], Counter[str]] = {}
    for line in stacks:
        stack, _, count = line.rpartition(" ")
        frames = [_LINE.sub("", frame) for frame in stack.split(";")]
        where = next((frame for frame in reversed(frames) if _OWN.match(frame)), "none of ours")
        leaves.setdefault((_thread(frames), where), Counter())[frames[-1]] += int(count)
    whole = sum(counts.total() for counts in leaves.values())
    lines = [
        Line(counts.total() / whole, thread, where, "" if (leaf := counts.most_common(1)[0][0]) == where else leaf)
        for (thread, where), counts in leaves.items()
    ]
    return sorted(lines, reverse=True)


def _thread(frames: list[str]) -> str:
    """Which thread; those of a pool are as one."""
    names = [match[1] for frame in frames[:4] if (match := _THREAD.match(frame))]
    return names[-1] if names else ""


def main() -> None:
    """Runs ours under the sampler; prints the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--home", type=Path, default=Path("data/bench"))
    options.add_argument("--rate", type=int, default=100, help="samples a second")
    options.add_argument("--least", type=float, default=0.01, help="smallest share that is shown")
    options.add_argument("--raw", action="store_true", help="the limit instead of ours")
    chosen = options.parse_args()
    home = chosen.home.absolute()
    with dataset.serving(home) as broker:
        what = dataset.kept(home, "mdr.")
        who = contenders(home)[RAW if chosen.raw else "ours"]
        stacks = home / "profile.txt"
        spy = (sys.executable, *_PY_SPY, "--rate", str(chosen.rate), "--format", "raw", "-o", str(stacks), "--")
        field = Field(home, broker, {what.prefix: what}, threads=1, commit_ms=1_000)
        run = measure(who._replace(command=spy + who.command, ends=""), field)
    print(json.dumps(run), file=sys.stderr)
    lines = table(stacks.read_text().splitlines())
    for thread in sorted({line.thread for line in lines}):
        print(f"{sum(line.share for line in lines if line.thread == thread):6.1%}  {thread}")
    for line in lines:
        if line.share >= chosen.least:
            print(f"{line.share:6.1%}  {line.thread:24} {line.where:52} {line.mostly}")


if __name__ == "__main__":
    main()
