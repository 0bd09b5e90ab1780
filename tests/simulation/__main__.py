"""`python -m tests.simulation SEED` tells one seed's story, `SEED SEED...` what went wrong in them; `--seconds N
[--from SEED]` runs as many as fit, even ones through the compiled part and odd ones through the Python."""

import argparse
import os
import sys
import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from functools import partial
from itertools import count
from typing import Final

from tests.simulation.run import Result, run

SPAN: Final = 20
SUMS: Final = ("events", "records", "stops", "terms", "rebalances", "refused", "restored")


def main() -> int:
    """Exit 1 if any seed went wrong."""
    options = argparse.ArgumentParser()
    options.add_argument("seeds", type=int, nargs="*", metavar="SEED")
    options.add_argument("--seconds", type=float, default=60)
    options.add_argument("--from", dest="first", type=int, default=1)
    options.add_argument("--until-wrong", action="store_true", help="end with the first seed that goes wrong")
    options.add_argument("--jobs", type=int, default=os.cpu_count(), help="seeds that run side by side")
    options.add_argument("--way", choices=("python", "native"), default="", help="for all seeds; else they take turns")
    told = options.parse_args()
    if len(told.seeds) == 1:
        result = run(told.seeds[0], print, told.way)
        print("\n".join(result.wrong) or f"seed {result.seed}: all as it must be ({result.steps} steps)")
        return bool(result.wrong)
    if told.seeds:
        return _these(told.seeds, told.jobs, told.way)
    return _many(told.first, told.seconds, told.until_wrong, told.jobs, told.way)


def _many(first: int, seconds: float, until_wrong: bool, jobs: int, way: str) -> int:
    began, seeds, bad = time.monotonic(), 0, 0
    kills, sums = Counter[str](), Counter[str]()
    with ProcessPoolExecutor(jobs) as pool:
        spans = count(first, SPAN)
        running = {pool.submit(_span, next(spans), way) for _ in range(2 * jobs)}
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for result in (result for future in done for result in future.result()):
                seeds += 1
                kills += result.kills
                sums.update({name: getattr(result, name) for name in SUMS})
                if result.wrong:
                    bad += 1
                    print(f"seed {result.seed}: {result.wrong[0]} ({len(result.wrong)} in all)", flush=True)
            if time.monotonic() - began < seconds and not (bad and until_wrong):
                running |= {pool.submit(_span, next(spans), way) for _ in done}
    took_s = time.monotonic() - began
    told = f"{bad} wrong; {sum(kills.values())} kills, {dict(sums)}"
    print(f"{seeds} seeds in {took_s:.0f} s, {seeds / took_s * 60:.0f} a minute, {told}")
    for name, times in kills.most_common():
        print(f"  killed {times:6} times: {name}")
    return bool(bad)


def _these(seeds: list[int], jobs: int, way: str) -> int:
    with ProcessPoolExecutor(jobs) as pool:
        results = list(pool.map(partial(run, way=way), seeds))
    for result in results:
        print(f"seed {result.seed}: {result.wrong[0] if result.wrong else 'all as it must be'} ({result.steps} steps)")
    return any(result.wrong for result in results)


def _span(first: int, way: str) -> list[Result]:
    return [run(seed, way=way) for seed in range(first, first + SPAN)]


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":  # the order of a set is part of the story
        os.execve(
            sys.executable,
            [sys.executable, "-m", "tests.simulation", *sys.argv[1:]],
            os.environ | {"PYTHONHASHSEED": "0"},
        )
    sys.exit(main())
