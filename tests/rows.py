"""Records in whatever shape they are written, as the rows that they are."""

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

from clickhouse_connect.driver.buffer import ResponseBuffer
from clickhouse_connect.driver.query import QueryContext
from clickhouse_connect.driver.transform import NativeTransform

from schemas.record import COLUMNS, Record
from streams.effects import Rows, Unstorable
from streams.fold import Columns
from streams.folding import Block, Folded
from tests.entries import NOON_MS


def rows_of(records: Columns | Folded) -> Iterator[tuple[Any, ...]]:
    """Rows in the order of `Record`, their values as `fold` gives them."""
    if not isinstance(records, Folded):
        yield from zip(*records, strict=True)
        return
    for piece in records:
        assert not isinstance(piece, Unstorable)
        yield from block_rows(piece) if isinstance(piece, Block) else zip(*piece, strict=True)


def blocks_of(taken: Sequence[Rows]) -> list[Block]:
    """The blocks of what was taken, of which the builder refuses nothing."""
    pieces = list(Folded(taken, NOON_MS))
    blocks = [piece for piece in pieces if isinstance(piece, Block)]
    assert len(blocks) == len(pieces)
    return blocks


def block_rows(block: Block) -> Iterator[tuple[Any, ...]]:
    """Rows of a block, read back by the client's own reader of the format."""
    whole: Any = SimpleNamespace(gen=iter([b"".join(block.pieces())]), close=lambda: None)
    source: Any = ResponseBuffer
    found: Any = NativeTransform().parse_response(source(whole), QueryContext(column_oriented=True))
    names, columns = found.column_names, dict(zip(found.column_names, found.result_columns, strict=True))
    assert list(names) == list(block.columns)
    assert all(len(values) == block.rows for values in columns.values())
    values = (columns.get(c.name, [_default(c.type)] * block.rows) for c in COLUMNS)
    yield from zip(*(map(_plain, column) for column in values), strict=True)


def began_with(record: Record) -> str:
    """The id of the event that a record began with: all others in its timeline are receipts."""
    steps = zip(record.timeline_event_id, record.timeline_source, strict=True)
    return next(event_id for event_id, source in steps if "receipts:" not in source)


def _default(type_: str) -> Any:
    if type_.startswith(("Array", "Map")):
        return () if type_.startswith("Array") else {}
    return None if type_.startswith("Nullable") else "" if "String" in type_ else 0


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(map(_plain, value))
    return round(value.timestamp() * 1000) if hasattr(value, "timestamp") else value
