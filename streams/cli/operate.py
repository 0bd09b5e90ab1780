"""Commands for whoever keeps it running: `mdr check`, `mdr trace` and `mdr dead-letters`.

Each asks the process that serves this data directory when one answers, else the broker and the store.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Final

import click
from rich.progress import Progress, TaskID

from api import checks, dead_letters, query
from api.client import ClientError, HttpClient
from api.dead_letters import Filter, Redrive
from api.http import Refusal, segment
from api.where import Scope
from schemas.times import format_rfc3339, parse_rfc3339
from streams import settings
from streams.cli import asking
from streams.cli.common import cli, json_option, progress_bar
from streams.cli.letters import Desk
from streams.cli.reconciling import Check
from streams.settings import Settings
from streams.terminal import err, print_json, print_table, print_text, say

_PATH: Final = "/mdr/dead-letters"
_CHECK_TIMEOUT_S: Final = 3_600
_WHO: Final = "command line"
_SHOWN_CHARS: Final = 4_000
Told = dict[str, Any]


class _Bar:
    """Progress on stderr that begins when there is some."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task: TaskID | None = None

    def tell(self, what: str, done: int, total: int | None) -> None:
        """Shows how far it is."""
        if self._task is None:
            self._task = self._bar.add_task(what, total=total)
        self._bar.update(self._task, description=what, completed=done, total=total)

    def looked(self, done: int, total: int) -> None:
        """Shows how many dead letters were looked at, or sent."""
        self.tell("dead letters", done, total)


# ---- check -----------------------------------------------------------------------------------------------------


@cli.command("check")
@json_option
def check_command(as_json: bool) -> None:
    """Reconcile the log with the tables; exit 1 if anything is missing, too much, or there twice.

    By partition: events read = records' events + open + waiting + orphans + duplicates + dead letters. Reads every
    timeline and every dead letter, so it takes its time.
    """
    wanted = settings.load()
    with progress_bar() as bar:
        told = _checked(wanted, _Bar(bar))
    print_json(told) if as_json else _show_check(told)
    if not told["ok"]:
        raise click.exceptions.Exit(1)


def _checked(wanted: Settings, bar: _Bar) -> Told:
    client = asking.answering(wanted, _CHECK_TIMEOUT_S)
    if client is not None:
        bar.tell("checking", 0, None)
        return client.get("/mdr/check")
    asking.migrated(wanted).close()
    return Check(wanted, bar.tell)()


_CHECK_COLUMNS: Final = (
    "partition", "read", "events", "records", "open", "waiting", "orphans", "duplicates", "dead_letters", "again",
    "difference", "unread",
)  # fmt: skip


def _show_check(told: Told) -> None:
    print_table(
        [name.replace("_", " ") for name in _CHECK_COLUMNS],
        [[row[name] for name in _CHECK_COLUMNS] for row in told["partitions"]],
    )
    for finding in told["findings"]:
        where = "" if finding["partition"] is None else f"partition {finding['partition']}: "
        some = f" ({', '.join(finding['examples'])})" if finding["examples"] else ""
        say(f"wrong: {where}{finding['what']}{some}")
    for note in told["notes"]:
        say(f"note: {note}")
    say("fine: everything adds up" if told["ok"] else f"{len(told['findings'])} things are wrong")


# ---- trace -----------------------------------------------------------------------------------------------------


@cli.command("trace")
@click.argument("message_id")
@json_option
def trace_command(message_id: str, as_json: bool) -> None:
    """One message: its events with gaps and sources, and why it settled; of an unknown id what is known."""
    told = _traced(settings.load(), message_id)
    print_json(told) if as_json else _show_trace(told)
    if not (told["records"] or told["waiting"] or told["orphans"] or told["dead_letters"]):
        raise click.exceptions.Exit(1)


def _traced(wanted: Settings, message_id: str) -> Told:
    client = asking.answering(wanted)
    if client is not None:
        return client.get(f"/mdr/trace/{segment(message_id)}")
    with contextlib.closing(asking.migrated(wanted)) as store:
        told = checks.known(store.client, Scope(None), message_id, Desk(wanted), may_see=True)
        return told | {"settled_through": query.settled_through(store.client)}


def _show_trace(told: Told) -> None:
    for record in told["records"]:
        _show_record(record)
    if not told["records"]:
        say(f"{told['message_id']}: no record; everything before {told['settled_through']} is settled")
    if told["waiting"]:
        say(f"{told['waiting']} receipts wait for its send")
    if told["orphans"]:
        say("receipts that never met a message:")
        names = ("occurred_at", "state", "error_code", "provider", "event_id", "source", "orphaned_at")
        print_table(names, ([orphan[name] for name in names] for orphan in told["orphans"]))
    if told["dead_letters"]:
        say("dead letters with this key:")
        _show_letters(told["dead_letters"])
    if told["dead_letters_why"]:
        err.print(f"dead letters: {told['dead_letters_why']}")


def _show_record(record: Told) -> None:
    head = ("direction", "account_id", "record_type", "state", "settled_at", "amended_at", "amendments", "error_code")
    say(f"{record['message_id']}: " + ", ".join(f"{name} {record[name]}" for name in head if record[name]))
    rows = [
        (
            e["occurred_at"],
            _gap(e["gap_ms"]),
            e["state"],
            e["segment"] or "",
            e["error_code"],
            e["event_id"],
            e["source"],
        )
        for e in record["timeline"]
    ]
    print_table(("occurred_at", "gap", "state", "part", "error", "event_id", "source"), rows)
    for sentence in record["why"]:
        say(sentence)


def _gap(ms: int | None) -> str:
    return "" if ms is None else f"+{ms / 1000:g} s"


# ---- dead letters ----------------------------------------------------------------------------------------------


class _Served:
    """The dead letters, asked of the process that serves this data directory."""

    def __init__(self, client: HttpClient, tell: Callable[[int, int], None]) -> None:
        self._client = client
        self._tell = tell
        self._sent = 0

    def page(self, wanted: Filter, limit: int, cursor: str | None, may_see: bool) -> Told:
        more = {"limit": limit, "cursor": cursor, "masked": None if may_see else "true"}
        return self._client.get(_PATH, {name: v for name, v in (_asked(wanted) | more).items() if v is not None})

    def summary(self, wanted: Filter) -> Told:
        return self._client.get(f"{_PATH}/summary", _asked(wanted))

    def one(self, id_: str, may_see: bool) -> Told | None:
        try:
            return self._client.get(f"{_PATH}/{segment(id_)}")
        except ClientError as e:
            if e.status == 404:
                return None
            raise

    def redrive(self, asked: Redrive, who: str) -> Told:
        which: Told = {"ids": list(asked.ids)} if asked.filter is None else {"filter": _asked(asked.filter)}
        how = {"dry_run": asked.dry_run, "rate": asked.rate, "force": asked.force, "again": asked.again}
        told = self._client.send("POST", f"{_PATH}/redrive", body=which | how)
        self._sent += told.get("redriven", 0)
        self._tell(self._sent, self._sent + told["remaining"])
        return told


def _asked(wanted: Filter) -> dict[str, Any]:
    until = "" if wanted.until_ms is None else format_rfc3339(wanted.until_ms)
    told = {name: text for name, text in wanted._asdict().items() if text and name != "until_ms"}
    return told | {"until": until} if until else told


@contextlib.contextmanager
def _desk() -> Iterator[dead_letters.Letters]:
    wanted = settings.load()
    client = asking.answering(wanted)
    if client is None:
        asking.migrated(wanted).close()
    with progress_bar() as bar:
        tell = _Bar(bar).looked
        yield Desk(wanted, tell) if client is None else _Served(client, tell)


def _wanted(until: str | None, **which: str) -> Filter:
    until_ms = None if until is None else parse_rfc3339(until)
    if until is not None and until_ms is None:
        raise click.BadParameter(f"{until!r} is not an instant of RFC 3339", param_hint="--until")
    return Filter(**which, until_ms=until_ms)


def _filters(command: Any) -> Any:
    command = click.option("--until", help="Only letters that came before this instant.")(command)
    command = click.option("--key", default="", help="Only inputs with this key, which is their message's id.")(command)
    command = click.option("--fingerprint", default="", help="Only this kind of fault, as `list --kinds` shows it.")(
        command
    )
    command = click.option("--topic", default="", help="Only inputs of this topic.")(command)
    return click.option("--reason", default="", help="Only this reason.")(command)


@cli.group("dead-letters")
def group() -> None:
    """Inputs that could not be used: what they are, why, and sending them once more."""


@group.command("list")
@_filters
@click.option("--kinds", is_flag=True, help="Count them by what is wrong instead.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="At most so many, newest first.")
@json_option
def list_command(kinds: bool, limit: int, as_json: bool, **which: Any) -> None:
    """Dead letters, newest first; each input once."""
    wanted = _wanted(**which)
    with _desk() as desk:
        told = desk.summary(wanted) if kinds else _pages(desk, wanted, limit)
    rows = told["groups" if kinds else "dead_letters"]
    if as_json:
        for row in rows:
            print_json(row)
    elif kinds:
        names = ("count", "reason", "detail", "topic", "fingerprint", "first", "last", "example_id")
        print_table(names, ([row[name] for name in names] for row in rows))
    else:
        _show_letters(rows)
    if not rows:
        err.print("no dead letters" + (" fit" if wanted != Filter() else ": nothing was refused"))
    if told["truncated"]:
        looked = f"{told['scanned']} entries were looked at; there are older ones: --until TIME shows them"
        err.print(looked)


def _pages(desk: dead_letters.Letters, wanted: Filter, limit: int) -> Told:
    page = desk.page(wanted, min(limit, dead_letters.LIMIT_MAX), None, may_see=True)
    found = page["dead_letters"]
    while page["next_cursor"] is not None and len(found) < limit:
        page = desk.page(wanted, min(limit - len(found), dead_letters.LIMIT_MAX), page["next_cursor"], may_see=True)
        found = found + page["dead_letters"]
    return page | {"dead_letters": found}


def _show_letters(rows: list[Told]) -> None:
    names = ("landed", "reason", "detail", "source", "key", "size", "redriven", "id")
    shown = (row | {"source": f"{row['topic']}:{row['partition']}:{row['offset']}"} for row in rows)
    print_table(names, ([row[name] for name in names] for row in shown))


@group.command("show")
@click.argument("letter_id")
@json_option
def show_command(letter_id: str, as_json: bool) -> None:
    """One dead letter: key, value and headers as they were, why it was refused, what the decoder says of it now."""
    with _desk() as desk:
        found = desk.one(letter_id, may_see=True)
    if found is None:
        raise Refusal(404, f"there is no dead letter {letter_id}")
    if as_json:
        print_json(found)
        return
    letter = found["dead_letter"]
    for name in ("id", "reason", "detail", "fingerprint", "topic", "partition", "offset", "timestamp", "landed", "key"):
        say(f"{name:<12} {letter[name]}")
    for header in letter["headers"]:
        say(f"{'header':<12} {header['name']}: {header['value']}")
    say(f"{'redriven':<12} {letter['redriven']} {letter['redriven_at'] or ''}".rstrip())
    say(f"{'now':<12} {found['now']}")
    text = letter["value_text"] or ""
    print_text(text[:_SHOWN_CHARS])
    if len(text) > _SHOWN_CHARS:
        err.print(f"the first {_SHOWN_CHARS:,} of {len(text):,} characters; --json tells all")


@group.command("redrive")
@click.argument("ids", nargs=-1)
@_filters
@click.option("--all", "every", is_flag=True, help="Every letter that can be found.")
@click.option("--dry-run", is_flag=True, help="Ask the real decoder what would come of it, and send nothing.")
@click.option("--rate", type=click.FloatRange(0.1, dead_letters.RATE_MAX), default=dead_letters.RATE, show_default=True,
              help="At most so many a second.")  # fmt: skip
@click.option("--force", is_flag=True, help="Also what would be refused again, or came back too often.")
@click.option("--again", is_flag=True, help="Also what was sent once more already; only with ids.")
@json_option
def redrive_command(
    ids: tuple[str, ...], every: bool, dry_run: bool, rate: float, force: bool, again: bool, as_json: bool, **which: Any
) -> None:
    """Send dead letters to the topic they came from, as they were; by id, by filter, or --all.

    Each gets a header that counts how often it was sent once more, and a row in the audit. Exit 1 if a letter that was
    named was refused.
    """
    wanted = _wanted(**which)
    if bool(ids) == (every or wanted != Filter()):
        raise click.UsageError("say which letters: ids, or filters, or --all")
    if (again or wanted.key) and not ids:
        raise click.UsageError("--again and --key need ids")
    asked = Redrive(ids, None if ids else wanted, dry_run, rate, force, again)
    with _desk() as desk:
        told = _redriven(desk, asked)
    print_json(told) if as_json else _show_redrive(told)
    if ids and told["refused_total"]:
        raise click.exceptions.Exit(1)


def _redriven(desk: dead_letters.Letters, asked: Redrive) -> Told:
    """Asks until nothing remains; what was refused at first is what is refused."""
    most = max(1, min(dead_letters.IDS_MAX, int(asked.rate * dead_letters.REQUEST_S)))
    parts = [asked._replace(ids=asked.ids[at : at + most]) for at in range(0, len(asked.ids), most)] or [asked]
    answers = [desk.redrive(part, _WHO) for part in parts]
    while answers[-1]["remaining"] and not asked.dry_run:
        answers.append(desk.redrive(asked, _WHO) | {"refused": [], "refused_total": 0, "outcomes": {}})
    name = "would" if asked.dry_run else "redriven"
    outcomes: dict[str, int] = {}
    for answer in answers:
        for outcome, count in answer["outcomes"].items():
            outcomes[outcome] = outcomes.get(outcome, 0) + count
    return answers[0] | {
        name: sum(a[name] for a in answers), "refused": [r for a in answers for r in a["refused"]],
        "refused_total": sum(a["refused_total"] for a in answers), "outcomes": outcomes, "remaining": 0,
    }  # fmt: skip


def _show_redrive(told: Told) -> None:
    if told["refused"]:
        print_table(("id", "refused because"), ([line["id"], line["why"]] for line in told["refused"]))
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in sorted(told["outcomes"].items())) or "nothing"
    sent = f"would send {told['would']}" if told["dry_run"] else f"sent {told['redriven']} once more"
    say(f"{sent}, {told['refused_total']} refused; the decoder says: {outcomes}")
    if told["truncated"]:
        say("there are older letters that were not looked at: --until TIME reaches them")
