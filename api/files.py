"""The bytes of a report: csv (RFC 4180), jsonl, parquet and xlsx, written piece by piece in bounded memory."""

import csv
import io
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final
from xml.sax.saxutils import escape

import pyarrow.parquet as pq

from api import extract
from api.extract import ALL_CELLS, FLAT_CELLS, Cell, Cuts, Wanted
from api.query import Client
from schemas import exact_json

FORMATS: Final = ("csv", "jsonl", "parquet", "xlsx")
MEDIA_TYPES: Final = {
    "csv": "text/csv",
    "jsonl": "application/jsonl",
    "parquet": "application/vnd.apache.parquet",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}
ROWS_MAX: Final = {"csv": 10_000_000, "jsonl": 10_000_000, "parquet": 10_000_000, "xlsx": 1_048_575}
_CELL_CHARACTERS_MAX: Final = 32_767
# XML 1.0 has no way to write these; a spreadsheet has its own (ECMA-376 part 1, section 22.9.2.19).
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]|_(?=x[0-9A-Fa-f]{4}_)")

Progress = Callable[[int], None]


def cells_of(format_: str, cells: tuple[Cell, ...] | None) -> tuple[Cell, ...]:
    """The cells a format shows when a view does not say which."""
    return cells or (FLAT_CELLS if format_ in ("csv", "xlsx") else ALL_CELLS)


def build(client: Client, wanted: Wanted, cuts: Cuts, format_: str, path: Path, progress: Progress) -> int:
    """Writes the file and returns its rows; `progress` is called with the rows so far and may raise to give up."""
    writers = {"csv": _csv, "jsonl": _jsonl, "parquet": _parquet, "xlsx": _xlsx}
    rows = 0
    for more in writers[format_](client, wanted, cuts, path):
        rows += more
        progress(rows)
    return rows


def _csv(client: Client, wanted: Wanted, cuts: Cuts, path: Path) -> Iterator[int]:
    head = io.StringIO()
    csv.writer(head, quoting=csv.QUOTE_ALL).writerow([cell.header for cell in wanted.cells])
    with path.open("wb") as file:
        file.write(head.getvalue().encode())
        for n, piece in enumerate(extract.pieces(client, wanted, cuts.keys, "CSV")):
            file.write(piece)
            expected = extract.PIECE_ROWS if n < len(cuts.keys) else cuts.rows - n * extract.PIECE_ROWS
            # As many line ends as rows were counted: none is inside a cell, and nothing need be looked at.
            yield expected if piece.count(b"\n") == expected else _csv_rows(piece)


def _csv_rows(piece: bytes) -> int:
    """Rows of quoted CSV: line ends outside quotes; a quote inside a cell is doubled and changes nothing."""
    return sum(part.count(b"\r\n") for part in piece.split(b'"')[::2])


def _jsonl(client: Client, wanted: Wanted, cuts: Cuts, path: Path) -> Iterator[int]:
    with path.open("wb") as file:
        for piece in extract.pieces(client, wanted, cuts.keys, "JSONEachRow"):
            file.write(piece)
            yield piece.count(b"\n")


def _parquet(client: Client, wanted: Wanted, cuts: Cuts, path: Path) -> Iterator[int]:
    writer = None
    try:
        for table in extract.tables(client, wanted, cuts.keys):
            writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
            writer.write_table(table.cast(writer.schema))
            yield table.num_rows
    finally:
        if writer is not None:
            writer.close()


# ---- xlsx: the smallest workbook that is one (ECMA-376), strings inline -----------------------------------------
# By hand: cell by cell through a library the same rows take five times as long, and that in the worker's process.

_PARTS: Final = {
    "[Content_Types].xml": (
        '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        '<Override PartName="/xl/workbook.xml"'
        ' ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"/>'
        '<Override PartName="/xl/worksheets/sheet1.xml"'
        ' ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.worksheet+xml"/></Types>'
    ),
    "_rels/.rels": (
        '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="r1"'
        ' Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"'
        ' Target="xl/workbook.xml"/></Relationships>'
    ),
    "xl/workbook.xml": (
        '<workbook xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
        ' xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships">'
        '<sheets><sheet name="records" sheetId="1" r:id="r1"/></sheets></workbook>'
    ),
    "xl/_rels/workbook.xml.rels": (
        '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="r1"'
        ' Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/worksheet"'
        ' Target="worksheets/sheet1.xml"/></Relationships>'
    ),
}
_HEAD: Final = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
_SHEET: Final = '<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>'


def _xlsx(client: Client, wanted: Wanted, cuts: Cuts, path: Path) -> Iterator[int]:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as book:
        for name, text in _PARTS.items():
            book.writestr(name, _HEAD + text)
        with book.open("xl/worksheets/sheet1.xml", "w", force_zip64=True) as sheet:
            sheet.write((_HEAD + _SHEET + _row([cell.header for cell in wanted.cells])).encode())
            for piece in extract.pieces(client, wanted, cuts.keys, "JSONCompactEachRow"):
                lines = [line for line in piece.split(b"\n") if line]
                sheet.write("".join(_row(exact_json.loads(line)) for line in lines).encode())
                yield len(lines)
            sheet.write(b"</sheetData></worksheet>")


def _row(values: list[Any]) -> str:
    return f"<row>{''.join(map(_cell, values))}</row>"


def _cell(value: Any) -> str:
    if value is None or value == "":
        return "<c/>"
    # Beyond 2^53 a spreadsheet would round: money is shown as text there.
    if isinstance(value, int) and abs(value) < 1 << 53:
        return f"<c><v>{value}</v></c>"
    text = _CONTROL.sub(lambda m: f"_x{ord(m[0]):04X}_", str(value)[:_CELL_CHARACTERS_MAX])
    return f'<c t="inlineStr"><is><t xml:space="preserve">{escape(text)}</t></is></c>'
