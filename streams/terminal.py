"""Everything that is printed for people goes through here: text from outside cannot move the cursor or hide itself.

Ids, headers, bodies and errors are made by others. What is not printable (ANSI sequences, C0 and C1, bidirectional
overrides, line ends within a cell) is shown escaped, as in a Python string; markup of rich means nothing.
"""

import csv
import re
import sys
from collections.abc import Callable, Iterable
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from schemas import exact_json

_WIDTH_OF_A_PIPE: Final = 4_000
_OUTSIDE_ASCII: Final = re.compile(r"[^\x20-\x7e]")


def clean(value: object) -> str:
    """Return a value as text on one line, with everything unprintable escaped; None is empty."""
    text = "" if value is None else str(value)
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def clean_lines(text: str) -> str:
    """Return text of several lines, each of them clean."""
    return "\n".join(map(clean, text.split("\n")))


def clean_json(text: str) -> str:
    """Return the same JSON with everything unprintable as `\\uXXXX`."""
    return text if text.isprintable() else _OUTSIDE_ASCII.sub(_json_escaped, text)


def _json_escaped(match: re.Match[str]) -> str:
    char = match[0]
    units = char.encode("utf-16-be", "surrogatepass")
    return char if char.isprintable() else "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


class Terminal(Console):
    """A console that cleans each string it is given, and takes no markup in it."""

    def __init__(self, *, stderr: bool = False, width: int | None = None) -> None:
        super().__init__(stderr=stderr, width=width, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a string as rich shows it: cells, titles and lines all come by here."""
        return super().render_str(clean(text), **options)


err: Final = Terminal(stderr=True)


def console() -> Terminal:
    """Return where tables go; into a pipe nothing is cut to a width."""
    return Terminal(width=None if sys.stdout.isatty() else _WIDTH_OF_A_PIPE)


def say(text: object) -> None:
    """Print one line."""
    click.echo(clean(text))


def complain(text: str) -> None:
    """Print lines on stderr."""
    click.echo(clean_lines(text), err=True)


def styled(text: str, style: str) -> Text:
    """Return text in a style."""
    return Text(clean(text), style)


def print_json(value: object, default: Callable[[Any], Any] = str) -> None:
    """Print one JSON value on a line of its own."""
    click.echo(clean_json(exact_json.dumps(value, default).decode()))


def print_table(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Print a table for people."""
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*map(clean, row))
    console().print(table)


def print_text(text: str) -> None:
    """Print text of somebody else, indented: none of its lines is taken for one of ours."""
    for line in text.splitlines():
        click.echo(f"  {clean(line)}")


def print_csv(rows: Iterable[Iterable[object]]) -> None:
    """Print CSV: as it is into a pipe, clean on a terminal."""
    writer = csv.writer(sys.stdout)
    shown: Callable[[object], object] = clean if sys.stdout.isatty() else lambda cell: cell
    writer.writerows(map(shown, row) for row in rows)
