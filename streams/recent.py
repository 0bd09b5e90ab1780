"""What was settled lately, eight bytes each: message ids tell a repeated send from a new one. Pure.

A set of 64-bit hashes, held as sorted arrays that are merged when they are of similar size, so that a batch of ids is
checked in a handful of vectorised searches. Of ids a hit may be a collision: it only ever leads to a look in the store.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.int64]
# A merged run spans at most this, so that the oldest ids can be forgotten piecemeal.
_SPAN_MS_MAX: Final = 150_000


def hashes(ids: Iterable[str]) -> Hashes:
    """The hashes of message ids; they mean nothing outside this process."""
    return np.fromiter(map(hash, ids), np.int64)


def hashes_in(data: bytes) -> Hashes:
    """The same hashes, from what the compiled part makes of them."""
    return np.frombuffer(data, np.int64)


class _Run(NamedTuple):
    oldest_ms: int
    newest_ms: int
    mark_ms: int
    ids: Hashes


class Recent:
    """A set of hashes with the time each was settled, which forgets the oldest."""

    def __init__(self, ids_max: int) -> None:
        """Holds about `ids_max` ids at most; beyond that the oldest go first."""
        self._ids_max = ids_max
        self._runs: list[_Run] = []

    def __len__(self) -> int:
        return sum(len(run.ids) for run in self._runs)

    def add(self, new: Hashes, from_ms: int, to_ms: int, mark_ms: int) -> None:
        """Remembers hashes of what settled between two times by the clock, when the log was read up to `mark_ms`."""
        run = np.sort(new)
        if not len(run):
            return
        self._runs.append(_Run(from_ms, to_ms, mark_ms, run))
        while len(self._runs) > 1 and _alike(*self._runs[-2:]):
            a, b = self._runs[-2:]
            both = np.sort(np.concatenate((a.ids, b.ids)), kind="stable")
            self._runs[-2:] = [_Run(a.oldest_ms, b.newest_ms, max(a.mark_ms, b.mark_ms), both)]
        while len(self._runs) > 1 and len(self) > self._ids_max:
            del self._runs[0]

    def forget(self, added_before_ms: int, mark_before_ms: int) -> None:
        """Drops what both the clock and the log have left behind."""
        while self._runs and self._runs[0].newest_ms < added_before_ms and self._runs[0].mark_ms < mark_before_ms:
            del self._runs[0]

    def remembers_from_ms(self, otherwise_ms: int) -> int:
        """The time by the clock from which on ids must be read back to have this set again."""
        return self._runs[0].oldest_ms if self._runs else otherwise_ms

    def seen(self, wanted: Hashes) -> set[int]:
        """Those of the wanted hashes that are remembered."""
        hits: set[int] = set()
        ordered = np.sort(wanted) if self._runs else wanted[:0]
        for run in self._runs if len(ordered) else ():
            at = np.searchsorted(run.ids, ordered)
            at[at == len(run.ids)] = 0
            hits.update(ordered[run.ids[at] == ordered].tolist())
        return hits


def _alike(a: _Run, b: _Run) -> bool:
    return len(a.ids) <= 2 * len(b.ids) and b.newest_ms - a.oldest_ms <= _SPAN_MS_MAX
