"""`python -m tests.simulation SEED` tells one seed's story; `--seconds N [--from SEED]` runs as many as fit."""

import argparse
import os
import sys
import time
from collections import Counter

from tests.simulation.run import run


def main() -> int:
    """Exit 1 if any seed went wrong."""
    options = argparse.ArgumentParser()
    options.add_argument("seed", type=int, nargs="?")
    options.add_argument("--seconds", type=float, default=60)
    options.add_argument("--from", dest="first", type=int, default=1)
    options.add_argument("--until-wrong", action="store_true", help="end with the first seed that goes wrong")
    told = options.parse_args()
    if told.seed is not None:
        result = run(told.seed, print)
        print("\n".join(result.wrong) or f"seed {told.seed}: all as it must be ({result.steps} steps)")
        return bool(result.wrong)
    return _many(told.first, told.seconds, told.until_wrong)


def _many(first: int, seconds: float, until_wrong: bool) -> int:
    began, seed, bad = time.monotonic(), first, 0
    kills, sums = Counter[str](), Counter[str]()
    while time.monotonic() - began < seconds and not (bad and until_wrong):
        result = run(seed)
        kills += result.kills
        for name in ("events", "records", "stops", "terms", "rebalances", "refused"):
            sums[name] += getattr(result, name)
        if result.wrong:
            bad += 1
            print(f"seed {seed}: {result.wrong[0]} ({len(result.wrong)} in all)")
        seed += 1
    took_s = time.monotonic() - began
    print(f"{seed - first} seeds in {took_s:.0f} s, {bad} wrong; {sum(kills.values())} kills, {dict(sums)}")
    for name, count in kills.most_common():
        print(f"  killed {count:6} times: {name}")
    return bool(bad)


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":  # the order of a set is part of the story
        os.execve(
            sys.executable,
            [sys.executable, "-m", "tests.simulation", *sys.argv[1:]],
            os.environ | {"PYTHONHASHSEED": "0"},
        )
    sys.exit(main())
