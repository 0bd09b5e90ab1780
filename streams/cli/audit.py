"""`mdr audit`: who did what, in the `mdr up` that runs or in the store itself."""

import contextlib
from typing import Any, Final

import click

from api import audit, audit_paths, seals
from streams import settings
from streams.cli import asking
from streams.cli.common import cli, json_option
from streams.settings import Settings
from streams.terminal import err, print_json, print_table

_COLUMNS: Final = ("at", "action", "outcome", "key", "account_id", "client", "method", "path", "status")


@cli.command("audit")
@click.option("--key", default="", help="Only what this key did.")
@click.option("--account", default="", help="Only what keys of this account did.")
@click.option("--action", default="", type=click.Choice(("", *audit.ACTIONS)), help="Only this kind of act.")
@click.option("--id", "id_", default="", help="Only what was done with this id, which is kept as a hash.")
@click.option("--since", default="", help="From this day or instant on.")
@click.option("--until", default="", help="Before this day or instant.")
@click.option("--limit", type=click.IntRange(1, audit.ROWS_MAX), default=100, help="At most so many.")
@json_option
def audit_command(id_: str, limit: int, as_json: bool, **which: str) -> None:
    """Keys made and ended, sign-ins and refusals, records read, exports, redrives, erasures; newest first."""
    given = {name: text for name, text in (*which.items(), ("id", id_)) if text} | {"limit": str(limit)}
    rows = _rows(settings.load(), given)
    if as_json:
        for row in rows:
            print_json(row)
        return
    print_table((*_COLUMNS, "detail"), ([*(row[name] for name in _COLUMNS), _told(row["detail"])] for row in rows))
    if not rows:
        err.print("nothing of this kind was done")


def _rows(wanted: Settings, given: dict[str, str]) -> list[dict[str, Any]]:
    client = asking.answering(wanted)
    if client is not None:
        return list(client.get("/mdr/audit", given)["audit"])
    with contextlib.closing(asking.migrated(wanted)) as store:
        return audit.rows(store.client, audit_paths.wanted(given, seals.load(wanted.data_dir)))


def _told(detail: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in detail.items())
