"""Settled messages made into Arrow blocks: `fold` and `blocks` in one go where the compiled part is there. Pure.

`fold.py` says what a record is; the compiled builder (native/fold.c) says the same, from the bytes an event came in
straight into columns. What it does not expect it refuses, and the rows are then made, and halved, by the Python.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import pyarrow as pa

from schemas.batches import native
from schemas.events import Receipt, Receive, Send
from schemas.record import COLUMNS, Record
from streams import fold
from streams.effects import Rows
from streams.fold import Columns
from streams.join import Life

# What is folded at once: the lock is held for so long, and the event loop with it.
_AT_ONCE: Final = 1_000
# Rows of a block: fewer and larger ones are fewer parts to merge.
_BLOCK_ROWS: Final = 60_000

_LETTERS: Final = {
    "UInt8": "B", "UInt16": "H", "UInt64": "Q", "Int64": "q", "Array(UInt8)": "b", "Array(String)": "T",
    "Array(LowCardinality(String))": "T", "Map(String, String)": "X",
    "DateTime64(3, 'UTC')": "m", "Nullable(DateTime64(3, 'UTC'))": "M", "Array(DateTime64(3, 'UTC'))": "L",
}  # fmt: skip
_KINDS: Final = tuple(_LETTERS.get(column.type, "t") for column in COLUMNS)
_MS: Final = pa.timestamp("ms", tz="UTC")
_FIXED: Final = {"B": pa.uint8(), "H": pa.uint16(), "Q": pa.uint64(), "q": pa.int64(), "m": _MS}
_ITEMS: Final = {"L": _MS, "b": pa.uint8()}
_NAMES: Final = {field: column.name for field, column in zip(Record.__struct_fields__, COLUMNS, strict=True)}


class Folded:
    """Records as blocks, one a month and piece; their columns too, at the price of making them again."""

    def __init__(self, taken: Sequence[Rows], now_ms: int) -> None:
        """`taken` and `now_ms` are what the blocks are made of."""
        self._made_of = taken, now_ms
        self.blocks: list[pa.Table] = []

    def __iter__(self) -> Iterator[pa.Table]:
        """The blocks, once; raises what went wrong in making one."""
        for block in _blocks(*self._made_of):
            self.blocks.append(block)
            yield block

    def columns(self) -> Columns:
        """What `fold.records` makes of the same messages."""
        return fold.records(*self._made_of)


def records(taken: Sequence[Rows], now_ms: int) -> Columns | Folded:
    """The records of what partitions have finished; inbound ones are settled at `now_ms`."""
    return fold.records(taken, now_ms) if native is None else Folded(taken, now_ms)


def as_array(records: Columns | Folded, column: int) -> pa.Array:
    """One scalar column of `Record` by its place, of blocks as far as they were made: strings, or int64 (also ms)."""
    name, type_ = COLUMNS[column]
    kind = pa.string() if "String" in type_ else pa.int64()
    if not isinstance(records, Folded):
        return pa.array(records[column], kind)
    nothing = pa.scalar(None if "Nullable" in type_ else "" if kind == pa.string() else 0, kind)
    return pa.concat_arrays(
        block.column(name).combine_chunks().cast(kind)
        if name in block.column_names
        else pa.repeat(nothing, block.num_rows)
        for block in records.blocks
    )


def _blocks(taken: Sequence[Rows], now_ms: int) -> Iterator[pa.Table]:
    builder = native.Builder(Record.__struct_fields__, _KINDS, Send, Receive, Receipt, Life)
    rows = 0
    for count, add in _pieces(builder, taken, now_ms):
        add()
        rows += count
        if rows >= _BLOCK_ROWS:
            yield from _tables(builder)
            rows = 0
    yield from _tables(builder)


def _pieces(builder: Any, taken: Sequence[Rows], now_ms: int) -> Iterator[tuple[int, Callable[[], None]]]:
    for part in taken:
        for at in range(0, len(part.settled), _AT_ONCE):
            lives = part.settled[at : at + _AT_ONCE]
            yield len(lives), lambda lives=lives, shard=part.shard: builder.outbound(shard, lives)  # type: ignore[misc]
        for at in range(0, len(part.inbound), _AT_ONCE):
            receives = part.inbound[at : at + _AT_ONCE]
            yield len(receives), lambda new=receives, shard=part.shard: builder.inbound(shard, new, now_ms)  # type: ignore[misc]


def _tables(builder: Any) -> Iterator[pa.Table]:
    for rows, columns in builder.finish():
        arrays = [_array(rows, *buffers) for buffers in columns.values()]
        yield pa.Table.from_arrays(arrays, names=[_NAMES[name] for name in columns])


def _array(rows: int, kind: str, *buffers: bytes) -> pa.Array:
    if kind == "t":
        return _texts(rows, *buffers)
    if kind == "M":
        return pa.Array.from_buffers(_MS, rows, [pa.py_buffer(b) for b in buffers])
    if kind == "X":
        ends, *pairs = buffers
        names, values = _texts(-1, *pairs[:2]), _texts(-1, *pairs[2:])
        return pa.MapArray.from_arrays(_ends(rows, ends), names, values)
    if kind == "T":
        return pa.ListArray.from_arrays(_ends(rows, buffers[0]), _texts(-1, *buffers[1:]))
    if kind in _ITEMS:
        return pa.ListArray.from_arrays(_ends(rows, buffers[0]), _fixed(_ITEMS[kind], buffers[1]))
    return _fixed(_FIXED[kind], buffers[0])


def _texts(rows: int, ends: bytes, data: bytes) -> pa.Array:
    count = len(ends) // 4 - 1 if rows < 0 else rows
    return pa.Array.from_buffers(pa.string(), count, [None, pa.py_buffer(ends), pa.py_buffer(data)])


def _ends(rows: int, ends: bytes) -> pa.Array:
    return pa.Array.from_buffers(pa.int32(), rows + 1, [None, pa.py_buffer(ends)])


def _fixed(type_: Any, data: bytes) -> pa.Array:
    return pa.Array.from_buffers(type_, len(data) * 8 // type_.bit_width, [None, pa.py_buffer(data)])
