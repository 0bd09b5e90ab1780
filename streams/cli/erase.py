"""`mdr erase`: all records of a number or an account, in the `mdr up` that runs or in the store itself."""

import asyncio
import contextlib
from typing import Any

import click

from api import audit, erasure, erasure_paths, seals
from api.http import Refusal
from api.reports import Shelf
from streams import kafka, running, settings
from streams.cli import asking
from streams.cli.common import cli, json_option
from streams.clock import clock_ms
from streams.settings import Settings
from streams.terminal import err, print_json, say

_DAY_MS = 86_400_000


@cli.command("erase")
@click.argument("subject", metavar="NUMBER|ACCOUNT")
@click.option("--account", "is_account", is_flag=True, help="It is an account, also when it looks like a number.")
@click.option("--dry-run", is_flag=True, help="Say how much there is, and erase nothing.")
@json_option
def erase_command(subject: str, is_account: bool, dry_run: bool, as_json: bool) -> None:
    """Erase every record of a NUMBER or an ACCOUNT, with orphans and reports, and print the receipt.

    What still settles is erased when it has settled, by the process that serves. What lies in topics stays until its
    retention ends.
    """
    wanted = settings.load()
    found = erasure.subject_of(subject, is_account=is_account)
    if found is None:
        raise Refusal(400, "that is neither a number with its country code, a short code nor an account")
    told = _erased(wanted, found, dry_run) | {"topics": _topics(wanted)}
    print_json(told) if as_json else _show(told)


def _erased(wanted: Settings, subject: erasure.Subject, dry_run: bool) -> dict[str, Any]:
    client = asking.answering(wanted, erasure_paths.SECONDS)
    if client is not None:
        return client.send("POST", "/mdr/erasures", body={subject.kind: subject.forms[0], "dry_run": dry_run})
    with contextlib.closing(asking.migrated(wanted)) as store:
        if dry_run:
            counts = erasure.counted(store.client, subject, clock_ms())
            return {"dry_run": True, "kind": subject.kind} | counts
        act = audit.Entry(clock_ms(), audit.ERASE, key=audit.COMMAND_LINE)
        sealed, shelf = seals.load(wanted.data_dir), Shelf(wanted.data_dir)
        return {"dry_run": False} | erasure.erase(store.client, shelf, sealed, subject, act)


def _topics(wanted: Settings) -> dict[str, int | None]:
    """How long each topic keeps what lies in it, in ms, -1 for ever; empty when the broker cannot be asked."""
    try:
        return asyncio.run(kafka.retentions(running.with_running_broker(wanted)))
    except (kafka.KafkaUnavailable, running.NoBroker):
        return {}


def _show(told: dict[str, Any]) -> None:
    counts = told if told["dry_run"] else told["erased"]
    word = "there are" if told["dry_run"] else "erased"
    rows, orphans = counts["versions"], counts["orphan_receipts"]
    say(f"{word}: {counts['records']} records in {rows} rows, {orphans} orphaned receipts")
    if not told["dry_run"]:
        say(f"and {counts['reports']} reports that may have held some; receipt {told['erasure_id']} of {told['at']}")
    still = told["open_messages"]
    if still["messages"]:
        until = still["settled_by"]
        say(f"still open: {still['messages']} messages; each is erased when it has settled, the last about {until}")
    for name, kept_ms in told["topics"].items():
        say(f"stays in {name} {_kept(kept_ms)}")
    if not told["topics"]:
        err.print("the broker was not asked: what lies in topics stays until their retention ends")


def _kept(ms: int | None) -> str:
    if ms is None:
        return "until its retention ends"
    return "for ever: it has no retention" if ms < 0 else f"until it is {ms / _DAY_MS:g} days old"
