"""Settled messages made into blocks for the store, in one go where the compiled part is there. Pure.

`fold.py` says what a record is; the compiled builder (native/fold.c) says the same, from the bytes an event came in
straight into columns. A message that it does not expect it refuses: only that message is folded by the Python.
"""

from collections.abc import Generator, Iterator, Sequence, Set
from typing import Any, Final, NamedTuple

import pyarrow as pa

from schemas import native
from schemas.events import Receipt, Receive, Send
from schemas.record import COLUMNS, Record
from streams import fold, native_format
from streams.blocks import by_month, month_of
from streams.effects import Rows, Unstorable
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
_OCCURRED_AT: Final = [column.name for column in COLUMNS].index("occurred_at")
_KINDS: Final = tuple(_LETTERS.get(column.type, "t") for column in COLUMNS)
_BY_FIELD: Final = dict(zip(Record.__struct_fields__, COLUMNS, strict=True))


class Block(NamedTuple):
    """Records of one month, by column; a column of nothing but its default is left out, the table fills it in."""

    rows: int
    columns: dict[str, Values]
    # Messages among which are those it was made of, and when inbound ones settled.
    taken: Sequence[Rows]
    now_ms: int

    def only(self, names: Set[str]) -> "Block":
        """The block without other columns."""
        return self._replace(columns={name: values for name, values in self.columns.items() if name in names})

    def pieces(self) -> Generator[bytes, None, None]:
        """The block as an insert takes it, in pieces."""
        return native_format.block(self.rows, list(self.columns.values()))

    def again(self) -> Columns:
        """Return the same records, in any order, as `fold.records` makes them."""
        month = month_of(native_format.as_array(self.columns["occurred_at"])[0].as_py())
        whole = by_month(fold.records(self.taken, self.now_ms))
        return next(part for part in whole if month_of(part[_OCCURRED_AT][0]) == month)


Piece = Block | Columns


class Folded:
    """Records in pieces: compiled blocks, one a month; columns by the fold of what the builder refuses."""

    def __init__(self, taken: Sequence[Rows], now_ms: int) -> None:
        """`taken` and `now_ms` are what the pieces are made of."""
        self._taken, self._now_ms = taken, now_ms

    def __iter__(self) -> Iterator[Piece | Unstorable]:
        """The pieces, and messages of which no record can be made."""
        refused: list[Rows] = []
        yield from _blocks(self._taken, self._now_ms, refused)
        yield from _columns(refused, self._now_ms)


def records(taken: Sequence[Rows], now_ms: int) -> Folded:
    """The records of what partitions have finished; inbound ones are settled at `now_ms`."""
    return Folded(taken, now_ms)


def as_array(pieces: Sequence[Piece], column: int) -> pa.Array:
    """One scalar column of `Record` by its place, of pieces: strings, or int64 (also ms)."""
    kind = pa.string() if "String" in COLUMNS[column].type else pa.int64()
    return pa.chunked_array([_array(piece, column, kind) for piece in pieces], kind).combine_chunks()


def _array(piece: Piece, column: int, kind: pa.DataType) -> pa.Array:
    name, type_ = COLUMNS[column]
    if not isinstance(piece, Block):
        return pa.array(piece[column], kind)
    if name in piece.columns:
        return native_format.as_array(piece.columns[name])
    nothing = None if "Nullable" in type_ else "" if kind == pa.string() else 0
    return pa.repeat(pa.scalar(nothing, kind), piece.rows)


# ---- by the compiled builder -----------------------------------------------------------------------------------


def _blocks(taken: Sequence[Rows], now_ms: int, refused: list[Rows]) -> Iterator[Block]:
    """Yield blocks; put into `refused` what is left to the fold."""
    if not native.enabled:
        refused += taken
        return
    builder = _new_builder()
    added: list[Rows] = []
    for part in _parts(taken):
        odd = part._replace(
            settled=builder.outbound(part.shard, part.settled),
            inbound=builder.inbound(part.shard, part.inbound, now_ms),
        )
        if _count(odd):
            refused.append(odd)
            part = _without(part, odd)
        added.append(part)
        if sum(map(_count, added)) >= _BLOCK_ROWS:
            yield from _finished(builder, added, now_ms)
            added = []
    yield from _finished(builder, added, now_ms)


def _new_builder() -> Any:
    return native.module.Builder(Record.__struct_fields__, _KINDS, Send, Receive, Receipt, Life)


def _parts(taken: Sequence[Rows]) -> Iterator[Rows]:
    """Cut what was taken into parts of so many messages that the builder takes at once."""
    for part in taken:
        for at in range(0, len(part.settled), _AT_ONCE):
            yield Rows(part.shard, part.settled[at : at + _AT_ONCE], [], [])
        for at in range(0, len(part.inbound), _AT_ONCE):
            yield Rows(part.shard, [], part.inbound[at : at + _AT_ONCE], [])


def _count(part: Rows) -> int:
    return len(part.settled) + len(part.inbound)


def _without(part: Rows, odd: Rows) -> Rows:
    gone = set(map(id, (*odd.settled, *odd.inbound)))
    settled = [life for life in part.settled if id(life) not in gone]
    return part._replace(settled=settled, inbound=[receive for receive in part.inbound if id(receive) not in gone])


def _finished(builder: Any, added: list[Rows], now_ms: int) -> Iterator[Block]:
    for rows, columns in builder.finish():
        found = (Values(*_BY_FIELD[field], kind, buffers) for field, (kind, *buffers) in columns.items())
        yield Block(rows, {values.name: values for values in found}, added, now_ms)


# ---- by the fold -----------------------------------------------------------------------------------------------


def _columns(taken: Sequence[Rows], now_ms: int) -> Iterator[Columns | Unstorable]:
    """Fold messages; halve them where the fold raises, until the message that makes it raise is alone."""
    count = sum(map(_count, taken))
    if not count:
        return
    try:
        columns = fold.records(taken, now_ms)
    except Exception as e:
        singles = [single for part in taken for single in _singles(part)]
        if count == 1:
            yield _unstorable(singles[0], e)
            return
        yield from _columns(singles[: count // 2], now_ms)
        yield from _columns(singles[count // 2 :], now_ms)
    else:
        yield columns


def _singles(part: Rows) -> Iterator[Rows]:
    for life in part.settled:
        yield Rows(part.shard, [life], [], [])
    for receive in part.inbound:
        yield Rows(part.shard, [], [receive], [])


def _unstorable(single: Rows, error: Exception) -> Unstorable:
    lives = (event for life in single.settled for event in (life.send, *life.receipts))
    events: list[Any] = [*lives, *single.inbound]
    detail = f"no record can be made: {type(error).__name__}"
    return Unstorable((events[0].message_id,), detail, tuple(event.source for event in events))
