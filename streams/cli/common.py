"""What the commands share: the group they belong to, and how they print."""

import asyncio
import sys
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final

import click
import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

DISTRIBUTION: Final = "message-detail-records"
err = Console(stderr=True)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name=DISTRIBUTION, prog_name="mdr")
def cli() -> None:
    """Message detail records: joins message events from Kafka, keeps the records in ClickHouse."""


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Runs the asynchronous part of a command."""
    return asyncio.run(work)


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """The flag `--json`, which every command that prints data has."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON (lines for lists).")(command)


def print_json(value: object) -> None:
    """One JSON value on a line of its own."""
    click.echo(orjson.dumps(value, default=str).decode())


def print_table(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """A table for people."""
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
    console().print(table)


def console() -> Console:
    """Where tables go."""
    # Into a pipe nothing is cut to a width.
    return Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else 4_000)


def progress_bar() -> Progress:
    """Progress on stderr, gone when it is done."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=err,
        transient=True,
    )
