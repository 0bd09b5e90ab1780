"""Message ids by time, in buckets: which come due, and which is the earliest. Pure.

Most messages settle long before their deadline, so an id that is done stays in its bucket's list until half of the
list is done, and then the list is swept: two list slots an id, and no work that grows with what is open.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

_SWEEP_MIN: Final = 64


class Wheel:
    """Ids by a time in ms. What it hands out is a hint: the owner checks each id against what it holds."""

    def __init__(self, bucket_ms: int, stands: Callable[[str], bool]) -> None:
        """`stands(id)` says whether an id is held at all; others are swept away."""
        self._bucket_ms = bucket_ms
        self._stands = stands
        self._ids: dict[int, list[str]] = {}
        self._live: dict[int, int] = {}

    def __len__(self) -> int:
        return sum(self._live.values())

    def add(self, at_ms: int, id_: str) -> None:
        """Enters an id."""
        bucket = at_ms // self._bucket_ms
        if bucket in self._ids:
            self._ids[bucket].append(id_)
            self._live[bucket] += 1
        else:
            self._ids[bucket] = [id_]
            self._live[bucket] = 1

    def remove(self, at_ms: int) -> None:
        """Says that one id entered at `at_ms` stands no longer."""
        bucket = at_ms // self._bucket_ms
        live = self._live[bucket] = self._live[bucket] - 1
        if not live:
            del self._ids[bucket], self._live[bucket]
        elif len(self._ids[bucket]) > max(_SWEEP_MIN, 2 * live):
            self._ids[bucket] = [i for i in self._ids[bucket] if self._stands(i)]

    def upto(self, at_ms: int) -> list[str]:
        """The ids that stand in buckets which begin at or before `at_ms`; some may be due a little later."""
        last = at_ms // self._bucket_ms
        return [i for b in sorted(b for b in self._ids if b <= last) for i in self._standing(b)]

    def ascending(self) -> Iterator[tuple[int, int, Callable[[], list[str]]]]:
        """Bucket by bucket, earliest first: when it begins in ms, how many ids stand in it, and what tells them."""
        for bucket in sorted(self._ids):
            yield bucket * self._bucket_ms, self._live[bucket], partial(self._standing, bucket)

    def _standing(self, bucket: int) -> list[str]:
        ids = self._ids[bucket] = list(dict.fromkeys(i for i in self._ids[bucket] if self._stands(i)))
        return list(ids)

    def counts(self) -> dict[int, int]:
        """How many ids stand in each bucket, by the ms it begins at."""
        return {b * self._bucket_ms: n for b, n in self._live.items()}
