"""The geometry of charts, in percent of their width and height; the templates draw it. Pure."""

import math
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from api.pages import words
from schemas.times import format_rfc3339

_LEAST: Final = 1e-6
_LINE_POINTS_MAX: Final = 120
_TICKS: Final = 4
_STEPS: Final = ("1", "2", "25", "5")
_SECOND: Final = 1_000
_HOUR_MS: Final = 3_600_000
_DAY_MS: Final = 24 * _HOUR_MS
_STEPS_MS: Final = tuple(
    _SECOND * s
    for s in (
        1, 5, 10, 30, 60, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400, 2 * 86_400, 7 * 86_400,
        14 * 86_400, 28 * 86_400, 91 * 86_400,
    )
)  # fmt: skip
_BARS_MAX: Final = 125


class Tick(NamedTuple):
    """A label on an axis."""

    at: float
    label: str


class Bar(NamedTuple):
    """One part of a stack; `kind` names its series."""

    x: float
    y: float
    width: float
    height: float
    kind: str


class Slot(NamedTuple):
    """A bucket of time as a whole: what hovering tells, and the range it leads to."""

    x: float
    width: float
    told: str
    start: str
    end: str


class Stacks(NamedTuple):
    """A chart of stacked bars over time."""

    bars: list[Bar]
    slots: list[Slot]
    x_ticks: list[Tick]
    y_ticks: list[Tick]


class Line(NamedTuple):
    """A line over time: points in a box of 1000 x 100 from its top left; `area` closes them to the ground."""

    points: str
    area: str
    slots: list[Slot]
    x_ticks: list[Tick]
    top: float
    last: float | None


def step_ms(span_ms: int) -> int:
    """The width of a bucket with which a range has a readable number of them."""
    return next((step for step in _STEPS_MS if span_ms / step <= _BARS_MAX), _STEPS_MS[-1])


def round_up(value: float) -> float:
    """The next of 1, 2, 2.5, 4, 5, 8 times a power of ten: the top of an axis."""
    if value < _LEAST:
        return 1
    power = 10.0 ** math.floor(math.log10(value))
    return next((m * power for m in (1, 2, 2.5, 4, 5, 8) if value <= m * power * (1 + 1e-9)), 10 * power)


def stacks(counts: dict[int, dict[str, int]], series: Sequence[str], start_ms: int, end_ms: int, step: int) -> Stacks:
    """Stacked counts by the start of their bucket in ms; `series` from the ground up."""
    span = end_ms - start_ms
    top = round_up(max((sum(parts.values()) for parts in counts.values()), default=0))
    bars: list[Bar] = []
    slots: list[Slot] = []
    for at in range(start_ms // step * step, end_ms, step):
        left, right = max(at, start_ms), min(at + step, end_ms)
        x, width = 100 * (left - start_ms) / span, 100 * (right - left) / span
        parts, below = counts.get(at, {}), 0.0
        for kind in series:
            height = 100 * parts.get(kind, 0) / top
            if height:
                bars.append(Bar(x + width * 0.08, 100 - below - height, width * 0.84, height, kind))
                below += height
        told = ", ".join(f"{words.whole(parts[k])} {k}" for k in reversed(series) if parts.get(k))
        slots.append(Slot(x, width, f"{_between(left, right)}  {told or 'none'}", *map(format_rfc3339, (left, right))))
    return Stacks(bars, slots, time_ticks(start_ms, end_ms), value_ticks(top))


def line(
    points: Sequence[tuple[int, float | None]], start_ms: int, end_ms: int, told: Callable[[float | None], str]
) -> Line:
    """A line through values at instants in ms, thinned to the highest of neighbours; None is a gap, drawn as zero."""
    span = max(1, end_ms - start_ms)
    kept = _thinned([(at, v) for at, v in points if start_ms <= at <= end_ms], start_ms, span)
    top = round_up(max((v for _, v in kept if v is not None), default=0))
    placed = [(1000 * (at - start_ms) / span, 100 - 100 * (v or 0) / top) for at, v in kept]
    text = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
    area = f"{placed[0][0]:.1f},100 {text} {placed[-1][0]:.1f},100" if placed else ""
    width = 100 / _LINE_POINTS_MAX
    slots = [
        Slot(100 * (at - start_ms) / span - width / 2, width, f"{format_rfc3339(at)[11:19]}  {told(v)}", "", "")
        for at, v in kept
    ]
    return Line(text, area, slots, time_ticks(start_ms, end_ms, 3), top, points[-1][1] if points else None)


def _thinned(points: Sequence[tuple[int, float | None]], start_ms: int, span: int) -> list[tuple[int, float | None]]:
    best: dict[int, tuple[int, float | None]] = {}
    for at, value in points:
        slot = (at - start_ms) * _LINE_POINTS_MAX // (span + 1)
        held = best.get(slot)
        if held is None or (value is not None and (held[1] is None or value > held[1])):
            best[slot] = (at, value)
    return [best[slot] for slot in sorted(best)]


def value_ticks(top: float) -> list[Tick]:
    """Labels from the top down to zero."""
    parts = [_TICKS, 5, 2, 1] if top >= _TICKS else [1]
    # Steps of one digit, or of two that end in five: 5k, 10k, not 6,250.
    count = next((n for n in parts if (top / n).is_integer() and f"{top / n:.0f}".rstrip("0") in _STEPS), 1)
    return [Tick(100 - 100 * n / count, words.compact(top * n / count)) for n in range(count, -1, -1)]


def time_ticks(start_ms: int, end_ms: int, most: int = 6) -> list[Tick]:
    """Round instants of a range, in UTC."""
    span = end_ms - start_ms
    step = next((s for s in _STEPS_MS if span / s <= most), span)
    first = -(-start_ms // step) * step
    return [Tick(100 * (at - start_ms) / span, _label(at, step)) for at in range(first, end_ms + 1, step)]


def _label(at_ms: int, step: int) -> str:
    text = format_rfc3339(at_ms)
    if step >= _DAY_MS or (step > _HOUR_MS and at_ms % _DAY_MS == 0):
        return text[5:10]
    return text[11:19] if step < 60_000 else text[11:16]


def _between(start_ms: int, end_ms: int) -> str:
    start, end = format_rfc3339(start_ms), format_rfc3339(end_ms)
    cut = 16 if not (start_ms % 60_000 or end_ms % 60_000) else 19
    tail = end[11:cut] if start[:10] == end[:10] else f"{end[:10]} {end[11:cut]}"
    return f"{start[:10]} {start[11:cut]} to {tail}"


# ---- a message's life: time from its first event, on a logarithmic axis ----------------------------------------

_LIFE_FLOOR_MS: Final = 10
_LIFE_MARKS: Final = (
    (100, "100 ms"), (_SECOND, "1 s"), (10 * _SECOND, "10 s"), (60 * _SECOND, "1 min"), (600 * _SECOND, "10 min"),
    (3_600 * _SECOND, "1 h"), (36_000 * _SECOND, "10 h"), (86_400 * _SECOND, "1 d"), (864_000 * _SECOND, "10 d"),
)  # fmt: skip


def life_scale(longest_ms: int) -> float:
    """What `life_at` divides by, so that the longest of a life is at the right end."""
    return math.log10(max(longest_ms, _LIFE_FLOOR_MS * 10) / _LIFE_FLOOR_MS + 1)


def life_at(after_ms: int, scale: float) -> float:
    """Where an event so long after the first lies, in percent."""
    return 100 * math.log10(max(0, after_ms) / _LIFE_FLOOR_MS + 1) / scale


def life_ticks(longest_ms: int) -> list[Tick]:
    """The marks of the axis of a life, without those that would touch its ends."""
    scale = life_scale(longest_ms)
    placed = [Tick(life_at(ms, scale), label) for ms, label in _LIFE_MARKS if ms < longest_ms]
    return [tick for tick in placed if 8 < tick.at < 94]
