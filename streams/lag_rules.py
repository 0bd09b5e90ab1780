"""How far behind is too far: a partition's lag in words, and what was seen of it lately. Pure.

status           when, the first that applies
---------------  ---------------------------------------------------------------------------------------------
stopped          no member of the group has the partition
ok               nothing waits, or not for longer than the floor: a checkpoint's worth of lag is no lag, also when
                 its events were stamped long ago (a back-fill that is read as it comes)
stalled          writing is held up, or the committed offset has not moved for so long while something waits
catching_up      what waits gets less, or it is too early to say
falling_behind   it does not get less
"""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

STATUSES: Final = ("ok", "catching_up", "falling_behind", "stalled", "stopped")
DUE: Final = (("1m", 60_000), ("10m", 600_000), ("1h", 3_600_000))
LATER: Final = "later"
_SEEN_S_MIN: Final = 60.0
_TREND_S_MIN: Final = 4.0
_STALLED_S_MIN: Final = 60.0
_FLOOR_S_MIN: Final = 10.0


class Behind(NamedTuple):
    """What is known of a partition; None: unknown.

    `still_s`: how long its offset stood while something waited; `there_s`: since when at most what waits was there.
    """

    events: int
    seconds: float | None
    trend_per_s: float | None
    owner: str
    still_s: float | None
    trouble: str = ""
    there_s: float | None = None


class Bounds(NamedTuple):
    """What follows from how often offsets are committed.

    Lag below the floor is none; an offset that stands for `stalled_s` has stalled; a trend is told over at least
    `trend_s` and at most `seen_s`.
    """

    floor_s: float
    stalled_s: float
    trend_s: float
    seen_s: float


def bounds(checkpoint_interval_ms: int) -> Bounds:
    """The bounds for offsets that are committed at an interval."""
    interval_s = checkpoint_interval_ms / 1000
    return Bounds(
        max(_FLOOR_S_MIN, 3 * interval_s), max(_STALLED_S_MIN, 4 * interval_s), max(_TREND_S_MIN, interval_s),
        max(_SEEN_S_MIN, 4 * interval_s),
    )  # fmt: skip


def judge(b: Behind, bound: Bounds) -> tuple[str, str]:
    """The status of a partition, and why, in words."""
    behind = f"{b.events:,} {'event' if b.events == 1 else 'events'}"
    behind += (f" ({span(b.seconds)})" if b.seconds is not None else "") + " behind"
    if not b.owner:
        return "stopped", "no worker has this partition" + (f"; {behind}" if b.events else "")
    if not b.events:
        return "ok", "nothing waits to be read"
    if b.seconds is not None and b.seconds <= bound.floor_s:
        return "ok", behind
    if b.there_s is not None and b.there_s <= bound.floor_s:
        return "ok", f"{behind} by their stamps, and there for less than {span(b.there_s)}"
    if b.trouble:
        return "stalled", f"{behind}, {b.trouble}"
    if b.still_s is not None and b.still_s > bound.stalled_s:
        return "stalled", f"{behind}, and nothing was committed for {span(b.still_s)}"
    if b.trend_per_s is None:
        return "catching_up", f"{behind}; too early to say whether it gets less"
    if b.trend_per_s < 0:
        left = span(b.events / -b.trend_per_s)
        return "catching_up", f"{behind}, {-b.trend_per_s:,.0f} fewer each second: done in about {left}"
    return "falling_behind", f"{behind}, {b.trend_per_s:,.0f} more each second"


def overall(told: Iterable[tuple[str, str, str]]) -> tuple[str, str]:
    """The worst of (name, status, why), and how many are as bad."""
    partitions = list(told)
    if not partitions:
        return "stopped", "nothing is known of any partition"
    worst = max((status for _, status, _ in partitions), key=STATUSES.index)
    if worst == "ok":
        return "ok", "every agent keeps up"
    as_bad = [f"{name}: {why}" for name, status, why in partitions if status == worst]
    return worst, as_bad[0] + (f" (and {len(as_bad) - 1} more partitions)" if len(as_bad) > 1 else "")


def span(seconds: float) -> str:
    """A length of time for people."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if minutes < 48 * 60 else f"{minutes // (24 * 60)} days"


def due(deadlines: Mapping[int, int], mark_ms: int) -> dict[str, int]:
    """How many of the messages by deadline settle within a minute, ten, an hour, later, if nothing settles them before.

    Deadlines run on the receipts watermark, `mark_ms`, not on the clock.
    """
    told = dict.fromkeys((*(name for name, _ in DUE), LATER), 0)
    for deadline_ms, count in deadlines.items():
        told[next((name for name, ms in DUE if deadline_ms - mark_ms < ms), LATER)] += count
    return told


class Track:
    """What was seen of one partition's lag lately."""

    def __init__(self, bound: Bounds) -> None:
        self._bound = bound
        self._seen: deque[tuple[int, int, int | None]] = deque()
        self._committed: int | None = None
        self._stood_from_ms: int | None = None
        self._is_first = True

    def see(self, at_ms: int, events: int, committed: int | None) -> None:
        """Notes the lag at a time and the offset it was counted from."""
        if self._stood_from_ms is None or not events or committed != self._committed:
            self._committed, self._stood_from_ms = committed, at_ms
            self._is_first = not self._seen
        else:
            self._is_first = False
        self._seen.append((at_ms, events, committed))
        while at_ms - self._seen[0][0] > self._bound.seen_s * 1000:
            self._seen.popleft()

    def trend_per_s(self) -> float | None:
        """By how much the lag grew each second; None while it was not seen for long enough."""
        if not self._seen:
            return None
        (from_ms, first, _), (to_ms, last, _) = self._seen[0], self._seen[-1]
        if to_ms - from_ms < self._bound.trend_s * 1000:
            return None
        return (last - first) / (to_ms - from_ms) * 1000

    def still_s(self, now_ms: int) -> float | None:
        """How long the offset has stood while something waited; None before it was seen twice."""
        if self._stood_from_ms is None or self._is_first:
            return None
        return (now_ms - self._stood_from_ms) / 1000

    def there_s(self) -> float | None:
        """At most so long what waits now was there: since the last look at whose end it had not come yet."""
        if not self._seen or (committed := self._seen[-1][2]) is None:
            return None
        ends = ((at_ms, was + events) for at_ms, events, was in reversed(self._seen) if was is not None)
        from_ms = next((at_ms for at_ms, end in ends if end <= committed), None)
        return None if from_ms is None else (self._seen[-1][0] - from_ms) / 1000
