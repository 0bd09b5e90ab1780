"""Columns as Arrow blocks, the shape in which they are inserted. No driver, no clock, no IO."""

import sys
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import accumulate, chain
from types import ModuleType
from typing import Any, Final

import pyarrow as pa

from schemas.record import COLUMNS, Column
from streams.fold import Columns

_OCCURRED_AT: Final = [c.name for c in COLUMNS].index("occurred_at")
_DAY_MS: Final = 86_400_000


def _keep_pandas_out() -> None:
    """Arrow looks for pandas at its first array, which takes a second and 60 MB; once it found none it never asks."""
    if "pandas" in sys.modules:
        return
    too_old = ModuleType("pandas")
    too_old.__version__ = "0"  # type: ignore[attr-defined]
    sys.modules["pandas"] = too_old
    try:
        with warnings.catch_warnings(action="ignore"):
            pa.array([""])
    finally:
        del sys.modules["pandas"]


_keep_pandas_out()


def block_of(columns: Sequence[Column], data: Columns) -> pa.Table:
    """A block of a table; raises what Arrow raises for a value that its column cannot hold.

    A column that holds nothing but its default is left out: the table fills it in.
    """
    filled = [(c.name, _array(values, c.type)) for c, values in zip(columns, data, strict=True) if any(values)]
    return pa.Table.from_arrays([array for _, array in filled], names=[name for name, _ in filled])


def by_month(records: Columns) -> list[Columns]:
    """Columns of `Record` cut by month: one insert into one partition is one part, all of it or nothing."""
    days = [at // _DAY_MS for at in records[_OCCURRED_AT]] if records else []
    if not days or _month(min(days)) == _month(max(days)):
        return [records]
    months: dict[tuple[int, int], list[int]] = {}
    for n, day in enumerate(days):
        months.setdefault(_month(day), []).append(n)
    return [[[values[n] for n in rows] for values in records] for rows in months.values()]


def month_of(at_ms: int) -> tuple[int, int]:
    """The year and month of an instant, UTC."""
    return _month(at_ms // _DAY_MS)


@lru_cache(4096)
def _month(day: int) -> tuple[int, int]:
    moment = datetime.fromtimestamp(day * 86_400, UTC)
    return moment.year, moment.month


def _array(values: Sequence[Any], type_: str) -> Any:
    if type_.startswith("Array("):
        # Much quicker than to let Arrow find its way through sequence after sequence.
        flat = _array(list(chain.from_iterable(values)), type_[6:-1])
        return pa.ListArray.from_arrays(pa.array([0, *accumulate(map(len, values))], pa.int32()), flat)
    return pa.array(values, _type(type_))


@lru_cache
def _type(type_: str) -> Any:
    if type_.startswith("Map("):
        return pa.map_(pa.string(), pa.string())
    if "DateTime64" in type_:
        return pa.timestamp("ms", tz="UTC")
    integers = {"UInt8": pa.uint8(), "UInt16": pa.uint16(), "UInt64": pa.uint64(), "Int64": pa.int64()}
    return integers.get(type_, pa.string())
