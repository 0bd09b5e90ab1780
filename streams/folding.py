"""Settled messages made into blocks for the store, in one go where the compiled part is there. Pure.

`fold.py` says what a record is; the compiled builder (native/fold.c) says the same, from the bytes an event came in
straight into columns. What it does not expect it refuses, and the rows are then made, and halved, by the Python.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, Final, NamedTuple

import pyarrow as pa

from schemas import native
from schemas.events import Receipt, Receive, Send
from schemas.record import COLUMNS, Record
from streams import fold, native_format
from streams.effects import Rows
from streams.fold import Columns
from streams.join import Life
from streams.native_format import Values

# What is folded at once: the lock is held for so long, and the event loop with it.
_AT_ONCE: Final = 1_000
# Rows of a block: fewer and larger ones are fewer parts to merge.
_BLOCK_ROWS: Final = 60_000

_LETTERS: Final = {
    "LowCardinality(String)": "w", "UInt8": "B", "UInt16": "H", "UInt64": "Q", "Int64": "q", "Array(UInt8)": "b",
    "Array(String)": "T", "Array(LowCardinality(String))": "W", "Map(String, String)": "X",
    "DateTime64(3, 'UTC')": "m", "Nullable(DateTime64(3, 'UTC'))": "M", "Array(DateTime64(3, 'UTC'))": "L",
}  # fmt: skip
_KINDS: Final = tuple(_LETTERS.get(column.type, "t") for column in COLUMNS)
_BY_FIELD: Final = dict(zip(Record.__struct_fields__, COLUMNS, strict=True))


class Block(NamedTuple):
    """Records of one month, by column; a column of nothing but its default is left out, the table fills it in."""

    rows: int
    columns: dict[str, Values]

    def pieces(self) -> Generator[bytes, None, None]:
        """The block as an insert takes it, in pieces."""
        return native_format.block(self.rows, list(self.columns.values()))


class Folded:
    """Records as blocks, one a month and piece; their columns too, at the price of making them again."""

    def __init__(self, taken: Sequence[Rows], now_ms: int) -> None:
        """`taken` and `now_ms` are what the blocks are made of."""
        self._made_of = taken, now_ms
        self.blocks: list[Block] = []

    def __iter__(self) -> Iterator[Block]:
        """The blocks, once; raises what went wrong in making one."""
        for block in _blocks(*self._made_of):
            self.blocks.append(block)
            yield block

    def columns(self) -> Columns:
        """What `fold.records` makes of the same messages."""
        return fold.records(*self._made_of)


def records(taken: Sequence[Rows], now_ms: int) -> Columns | Folded:
    """The records of what partitions have finished; inbound ones are settled at `now_ms`."""
    return Folded(taken, now_ms) if native.enabled else fold.records(taken, now_ms)


def as_array(records: Columns | Folded, column: int) -> pa.Array:
    """One scalar column of `Record` by its place, of blocks as far as they were made: strings, or int64 (also ms)."""
    name, type_ = COLUMNS[column]
    kind = pa.string() if "String" in type_ else pa.int64()
    if not isinstance(records, Folded):
        return pa.array(records[column], kind)
    nothing = pa.scalar(None if "Nullable" in type_ else "" if kind == pa.string() else 0, kind)
    return pa.concat_arrays(
        native_format.as_array(block.columns[name]) if name in block.columns else pa.repeat(nothing, block.rows)
        for block in records.blocks
    )


def _blocks(taken: Sequence[Rows], now_ms: int) -> Iterator[Block]:
    builder = native.module.Builder(Record.__struct_fields__, _KINDS, Send, Receive, Receipt, Life)
    rows = 0
    for count, add in _pieces(builder, taken, now_ms):
        add()
        rows += count
        if rows >= _BLOCK_ROWS:
            yield from _finished(builder)
            rows = 0
    yield from _finished(builder)


def _pieces(builder: Any, taken: Sequence[Rows], now_ms: int) -> Iterator[tuple[int, Callable[[], None]]]:
    for part in taken:
        for at in range(0, len(part.settled), _AT_ONCE):
            lives = part.settled[at : at + _AT_ONCE]
            yield len(lives), lambda lives=lives, shard=part.shard: builder.outbound(shard, lives)  # type: ignore[misc]
        for at in range(0, len(part.inbound), _AT_ONCE):
            receives = part.inbound[at : at + _AT_ONCE]
            yield len(receives), lambda new=receives, shard=part.shard: builder.inbound(shard, new, now_ms)  # type: ignore[misc]


def _finished(builder: Any) -> Iterator[Block]:
    for rows, columns in builder.finish():
        found = (Values(*_BY_FIELD[field], kind, buffers) for field, (kind, *buffers) in columns.items())
        yield Block(rows, {values.name: values for values in found})
