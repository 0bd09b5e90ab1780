"""Records in whatever shape they are written, as the rows that they are."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from schemas.record import COLUMNS, Record
from streams.fold import Columns
from streams.folding import Folded


def rows_of(records: Columns | Folded) -> Iterator[tuple[Any, ...]]:
    """Rows in the order of `Record`, their values as `fold` gives them."""
    if not isinstance(records, Folded):
        yield from zip(*records, strict=True)
        return
    for block in records:
        yield from zip(*(_values(block, column.name, column.type) for column in COLUMNS), strict=True)


def began_with(record: Record) -> str:
    """The id of the event that a record began with: all others in its timeline are receipts."""
    steps = zip(record.timeline_event_id, record.timeline_source, strict=True)
    return next(event_id for event_id, source in steps if "receipts:" not in source)


def _values(block: pa.Table, name: str, type_: str) -> list[Any]:
    if name not in block.column_names:
        return [_default(type_)] * block.num_rows
    column = block.column(name)
    if type_.startswith("Map"):
        return [dict(pairs) for pairs in column.to_pylist()]
    if type_.startswith("Array"):
        return [tuple(map(_plain, values)) for values in column.to_pylist()]
    return list(map(_plain, column.to_pylist()))


def _default(type_: str) -> Any:
    if type_.startswith(("Array", "Map")):
        return () if type_.startswith("Array") else {}
    return None if type_.startswith("Nullable") else "" if "String" in type_ else 0


def _plain(value: Any) -> Any:
    return round(value.timestamp() * 1000) if hasattr(value, "timestamp") else value
