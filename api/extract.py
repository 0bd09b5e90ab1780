"""All records of a range in pieces of bounded size: the rows of a report.

The pieces are cut by key once, so every one of them is a statement of its own that reads its part of the table and no
more; how many rows there will be is known from the start.
"""

# ruff: noqa: S608  # every statement is made of allow-listed names and placeholders of bound parameters

from collections.abc import Iterator, Sequence
from typing import Final, Literal, NamedTuple

import pyarrow as pa

from api import formulas, query
from api.query import BULK_SETTINGS, Client, Key, Range, Scope
from api.where import EVERYTHING, TYPES, Binder, Condition, condition_sql, range_sql, scope_sql

PIECE_ROWS: Final = 50_000
_KEY: Final = "account_id, occurred_at, message_id, direction"
_TUPLE: Final = (
    "Array(Tuple(event_id String, state String, occurred_at DateTime64(3, \\'UTC\\'), segment UInt8, error_code String,"
    " source String))"
)
_TIMELINE: Final = (
    "CAST(arrayZip(timeline.event_id, timeline.state, timeline.occurred_at, timeline.segment, timeline.error_code,"
    f" timeline.source), '{_TUPLE}')"
)

Kind = Literal["raw", "safe", "second", "words", "empty"]


class Cell(NamedTuple):
    """One column of a file: its header, the record's column, how it is shown.

    `safe` keeps a spreadsheet from reading a formula; `second` is `YYYY-MM-DD HH:MM:SS`; `words` translates values.
    """

    header: str
    column: str = ""
    kind: Kind = "safe"
    words: tuple[tuple[str, str], ...] = ()


class Wanted(NamedTuple):
    """Which records, by whom, and which cells of them."""

    scope: Scope
    span: Range
    where: Condition
    cells: tuple[Cell, ...]


FLAT_CELLS: Final = tuple(Cell(name) for name in TYPES if not name.startswith("timeline."))
"""What fits into one line of a table: every column but the timeline."""
ALL_CELLS: Final = (*FLAT_CELLS, Cell("timeline"))


class Cuts(NamedTuple):
    """How many rows there are, and the keys after which a new piece begins."""

    rows: int
    keys: list[Key]


def cut(client: Client, wanted: Wanted, size: int = PIECE_ROWS) -> Cuts:
    """Counts the rows and finds the last key of every full piece."""
    b = Binder()
    rows = f"SELECT {_KEY} FROM mdr.mdrs FINAL WHERE {_matches(wanted, b)} ORDER BY {_KEY}"
    numbered = f"SELECT {_KEY}, rowNumberInAllBlocks() + 1 AS n FROM ({rows})"
    sql = (
        "SELECT max(n) AS total, groupArrayIf((toUnixTimestamp64Milli(occurred_at), message_id, direction, account_id),"
        f" n % {size:d} = 0) AS keys FROM ({numbered})"
    )
    found = query.rows_of(query.run(client, sql + BULK_SETTINGS, b, "JSONEachRow"))[0]
    keys = [Key(*key) for key in found["keys"]]
    return Cuts(found["total"], sorted(keys, key=lambda k: (k.account_id, k.occurred_ms, k.message_id, k.direction)))


def pieces(client: Client, wanted: Wanted, keys: Sequence[Key], format_: str) -> Iterator[bytes]:
    """Every piece in a ClickHouse format: `CSV`, `JSONEachRow`, `JSONCompactEachRow`, `Arrow`."""
    for after, upto in zip([None, *keys], [*keys, None], strict=True):
        b = Binder()
        yield query.run(client, _piece_sql(wanted, after, upto, format_, b) + BULK_SETTINGS, b, format_)


def tables(client: Client, wanted: Wanted, keys: Sequence[Key]) -> Iterator[pa.Table]:
    """Every piece as an Arrow table; times are UTC timestamps in ms."""
    for piece in pieces(client, wanted, keys, "ArrowStream"):
        yield pa.ipc.open_stream(piece).read_all()


def _piece_sql(wanted: Wanted, after: Key | None, upto: Key | None, format_: str, b: Binder) -> str:
    if format_ in ("CSV", "JSONCompactEachRow"):
        shown = [_cell_sql(cell, b) for cell in wanted.cells]
    else:
        shown = [_plain_sql(cell) for cell in wanted.cells]
    span = f"{scope_sql(wanted.scope, b)} AND {range_sql(wanted.span, b)}{_between(after, upto, b)}"
    where = span
    if wanted.where != EVERYTHING:
        # Filters decide on latest versions only, and those are found on few columns.
        where += (
            f" AND ({_KEY}) IN (SELECT {_KEY} FROM mdr.mdrs FINAL WHERE {span} AND ({condition_sql(wanted.where, b)}))"
        )
    # FINAL would merge wide rows one by one; sorting them by version is ten times faster and selects the same.
    return f"SELECT {', '.join(shown)} FROM mdr.mdrs WHERE {where} ORDER BY {_KEY}, version DESC LIMIT 1 BY {_KEY}"


def _matches(wanted: Wanted, b: Binder) -> str:
    return f"{scope_sql(wanted.scope, b)} AND {range_sql(wanted.span, b)} AND ({condition_sql(wanted.where, b)})"


def _between(after: Key | None, upto: Key | None, b: Binder) -> str:
    """The keys of a piece, said so that the table's index understands it."""
    parts: list[str] = []
    for key, beyond, bound in ((after, ">", ">"), (upto, "<", "<=")):
        if key is not None:
            account, at = b.bind(key.account_id, "String"), b.instant(key.occurred_ms)
            words = f"{b.bind(key.message_id, 'String')}, {b.bind(key.direction, 'String')}"
            inside = f"occurred_at {beyond}= {at} AND (occurred_at, message_id, direction) {bound} ({at}, {words})"
            parts.append(f"(account_id {beyond} {account} OR (account_id = {account} AND {inside}))")
    return "".join(f" AND {part}" for part in parts)


def _plain_sql(cell: Cell) -> str:
    return f"{_TIMELINE} AS timeline" if cell.header == "timeline" else f"`{cell.header}`"


def _cell_sql(cell: Cell, b: Binder) -> str:
    name = cell.column or cell.header
    column = f"`{name}`"
    if cell.kind == "empty":
        return "''"
    if cell.kind == "second":
        return f"ifNull(formatDateTime({column}, '%F %T', 'UTC'), '')"
    if cell.kind == "words":
        froms, tos = [w for w, _ in cell.words], [w for _, w in cell.words]
        return f"transform(toString({column}), {b.bind(froms, 'Array(String)')}, {b.bind(tos, 'Array(String)')}, '')"
    type_ = TYPES[name]
    if type_.startswith(("Array", "Map")):
        return f"toJSONString({column})"
    if "String" not in type_:
        return column
    return formulas.safe_sql(name)
