"""`mdr query`."""

from collections.abc import Callable
from typing import Any, Final

import click

from api import formulas
from api.where import SCALARS
from schemas import exact_json
from schemas.record import PUBLIC
from streams import settings
from streams.cli import asking
from streams.cli.common import cli, json_option
from streams.terminal import err, print_csv, print_json, print_table


def _filter_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """An option for each column that records can be filtered by, named as in the HTTP API."""
    command = click.option("--attribute", "attributes", multiple=True, metavar="KEY=VALUE", help="An attribute.")(
        command
    )
    command = click.option("--tags", multiple=True, help="Any of these tags.")(command)
    for name in reversed(SCALARS):
        flags = {f"--{name.replace('_', '-')}", f"--{name}"}
        command = click.option(*sorted(flags), name, multiple=True, hidden=name not in _SHOWN_FILTERS)(command)
    return command


_SHOWN_FILTERS: Final = frozenset({
    "message_id", "account_id", "direction", "record_type", "state", "from_number", "to_number", "provider", "country",
    "error_code",
})  # fmt: skip
_SHOWN_COLUMNS: Final = (
    "occurred_at", "message_id", "account_id", "direction", "record_type", "state", "from_number", "to_number",
    "segments", "amount_nanos", "error_code",
)  # fmt: skip


@cli.command("query")
@click.option("--start", help="From this instant of occurred_at on (RFC 3339); 24 hours before the end by default.")
@click.option("--end", help="Before this instant; now by default.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="At most so many records.")
@click.option("--include-pending", is_flag=True, help="Also what is still open.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@json_option
@_filter_options
def query_command(
    start: str | None, end: str | None, limit: int, include_pending: bool, as_csv: bool, as_json: bool,
    tags: tuple[str, ...], attributes: tuple[str, ...], **filters: tuple[str, ...],
) -> None:  # fmt: skip
    """Records in a range of time, oldest first. Any column can be a filter: --state failed, --mcc 310."""
    pairs = [(name, value) for name, values in (*filters.items(), ("tags", tags)) for value in values]
    for given in attributes:
        key, equals, value = given.partition("=")
        if not equals:
            raise click.BadParameter(f"{given!r} is not KEY=VALUE", param_hint="--attribute")
        pairs.append((f"attributes.{key}", value))
    pairs += [(name, value) for name, value in (("start", start), ("end", end)) if value is not None]
    if include_pending:
        pairs.append(("include", "pending"))
    page = asking.records(settings.load(), pairs, limit)
    _show_records(page.records, as_csv, as_json)
    if not as_json and not as_csv:
        more = " (more: raise --limit)" if page.more else ""
        err.print(f"{len(page.records)} records{more}, settled through {page.settled_through}")


def _show_records(records: list[dict[str, Any]], as_csv: bool, as_json: bool) -> None:
    if as_json:
        for record in records:
            print_json(record)
    elif as_csv:
        names = list(records[0]) if records else [c.name for c in PUBLIC]
        print_csv([names, *([_cell(name, record[name]) for name in names] for record in records)])
    else:
        print_table(_SHOWN_COLUMNS, ([record[name] for name in _SHOWN_COLUMNS] for record in records))


def _cell(name: str, value: Any) -> Any:
    if isinstance(value, list | dict):
        return exact_json.dumps(value).decode()
    return formulas.safe(name, value) if isinstance(value, str) else value
