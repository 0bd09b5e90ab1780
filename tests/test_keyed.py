"""Nobody can choose texts that meet in one place of a table: hashes are keyed anew in every process."""

import os
import subprocess
import sys
import time
from typing import Any, Final

import msgspec
import numpy as np
import pytest

from schemas.record import Record
from streams import folding
from streams.effects import Rows
from streams.join import Life
from tests.entries import NOON_MS, read
from tests.rows import blocks_of

pytestmark = pytest.mark.native
WORDS: Final = 12_000
# The hash that tables of words once had, which anybody can turn round.
_MIX: Final = np.uint64(0xD6E8FEB86659FD93)
_BEGIN: Final = np.uint64((16 * 0x9E3779B97F4A7C15) % (1 << 64))


def colliding(count: int) -> list[str]:
    """Words of 16 bytes in ASCII that had all one hash of 64 bits."""
    dice, found = np.random.default_rng(5), set[str]()
    target = np.frombuffer(b"ABCDEFGH", np.uint64) ^ _step(np.frombuffer(b"abcdefgh", np.uint64))
    while len(found) < count:
        heads = dice.integers(0x61, 0x7B, (1 << 20, 8), dtype=np.uint8)
        tails = (_step(heads.reshape(-1).view(np.uint64)) ^ target).view(np.uint8).reshape(-1, 8)
        good = (tails < 0x80).all(axis=1)
        found.update(bytes(row).decode() for row in np.hstack((heads[good], tails[good])))
    return sorted(found)[:count]


def _step(words: Any) -> Any:
    mixed = (_BEGIN ^ words) * _MIX
    return mixed ^ mixed >> np.uint64(32)


def seconds(words: list[str]) -> float:
    """The CPU time that a block of records with these words takes, the best of three."""
    first, lives = read("sends"), []
    for word in words:
        lives.append(Life(msgspec.structs.replace(first, callback_url=word), settled_ms=NOON_MS))
    took = []
    for _ in range(3):
        began_s = time.process_time()
        list(folding.records([Rows(0, lives, [], [])], NOON_MS))
        took.append(time.process_time() - began_s)
    return min(took)


def test_words_that_were_chosen_cost_what_others_cost() -> None:
    """With a hash that can be turned round they cost thirty times more, and a thousand times with five times as many."""
    others = [f"{n:016x}" for n in range(WORDS)]
    assert seconds(colliding(WORDS)) < 5 * seconds(others)


def test_words_are_told_apart_whatever_their_size() -> None:
    """All bytes of a word count, at every size, also where only its middle differs."""
    words = [f"{'a' * n}{c}{'b' * m}" for n in range(20) for m in range(20) for c in ("x", "y", "\u00e9", "")]
    first = read("sends")
    lives = [Life(msgspec.structs.replace(first, callback_url=word), settled_ms=NOON_MS) for word in words]
    (block,) = blocks_of([Rows(0, lives, [], [])])
    assert folding.as_array([block], Record.__struct_fields__.index("callback_url")).to_pylist() == words


def test_identities_mean_nothing_in_another_process() -> None:
    """Also where Python's own hashes are told to be the same in all."""
    program = (
        "from streams.facts import identities; from streams.join import Life; from tests.entries import read;"
        "print(identities([Life(read('sends'))])[0])"
    )
    environ = {**os.environ, "PYTHONHASHSEED": "0"}
    told = {subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, check=True).stdout for _ in "ab"}
    assert len(told) == 2
