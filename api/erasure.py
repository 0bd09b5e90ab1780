"""Erasing all records of a number or an account, with a receipt; what still settles is erased when it has settled.

What a worker holds in memory cannot be taken from it: it would write it again. So an erasure lives in the table
`erasures` until everything that occurred before it is settled, and ten minutes more for what was flushed lately. While
it lives, it is applied again each minute; then its number is taken out of the table, too. Statements name the erasure
and not the number, since ClickHouse keeps the text of mutations.
"""

# ruff: noqa: S608  # every statement is made of constants and placeholders of bound parameters

import logging
import re
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec

from api import audit, query, reports
from api.audit import Entry
from api.query import Client
from api.reports import Report, Shelf
from api.seals import Seals
from api.where import Binder
from schemas.times import format_rfc3339, parse_rfc3339

log = logging.getLogger(__name__)

NUMBER: Final = "number"
ACCOUNT: Final = "account"
LIVE_MAX: Final = 1_000
# What was flushed lately may be written once more by a late receipt.
_GRACE_MS: Final = 10 * 60_000
_EVERY_S: Final = 60.0
_MUTATION_S_MAX: Final = 600.0
_LOOK_S: Final = 0.05
_NUMBER: Final = re.compile(r"[+0-9][0-9() ./-]*")
_SHORT_CODE_MAX: Final = 8
_DIGITS: Final = range(3, 16)
_SIGNS: Final = "[() ./-]"
_NUMBERS: Final = (
    f"arrayMap(n -> replaceRegexpAll(n, '{_SIGNS}', ''),"
    " arrayConcat([from_number, to_number, external_number, billing_number], group_to))"
)
_PURPOSE: Final = "erasure"


class Subject(NamedTuple):
    """Whom it is about: `forms` are the ways in which the number, or the account, may stand in a record."""

    kind: str
    forms: tuple[str, ...]


class Erasure(NamedTuple):
    """One that lives: `settled_ms` is when everything before it was first seen to be settled, 0 before."""

    erasure_id: str
    kind: str
    at_ms: int
    settled_ms: int
    version: int


def subject_of(text: str, *, is_account: bool = False) -> Subject | None:
    """Return whom text means: a number in any notation with its country code, a short code, else an account.

    None when it is neither.
    """
    text = text.strip()
    if is_account or not _NUMBER.fullmatch(text):
        return Subject(ACCOUNT, (text,)) if 0 < len(text) <= 128 and text.isprintable() else None
    digits = re.sub(r"[^0-9]", "", text).removeprefix("00")
    if len(digits) not in _DIGITS:
        return None
    is_short = len(digits) <= _SHORT_CODE_MAX and text[0] != "+" and not text.startswith("00")
    return Subject(NUMBER, (digits,) if is_short else _forms(digits))


def _forms(digits: str) -> tuple[str, ...]:
    forms = (f"+{digits}", f"00{digits}", f"+00{digits}")
    return (*forms, digits) if len(digits) > _SHORT_CODE_MAX else forms


# ---- what there is ---------------------------------------------------------------------------------------------


def counted(client: Client, subject: Subject, now_ms: int) -> dict[str, Any]:
    """Return how much there is of a subject, by table; nothing is changed."""
    b = Binder()
    mine = _mine(subject.kind, b.bind(list(subject.forms), "Array(String)"), b, now_ms)
    return _counts(client, mine, b) | {"open_messages": _open(client, subject, now_ms)}


def _mine(kind: str, forms: str, b: Binder, before_ms: int) -> str:
    """The predicate of the records of a subject that occurred before the erasure."""
    who = f"has({forms}, account_id)" if kind == ACCOUNT else f"hasAny({_NUMBERS}, {forms})"
    return f"{who} AND occurred_at < {b.instant(before_ms)}"


def _counts(client: Client, mine: str, b: Binder) -> dict[str, Any]:
    ids = f"SELECT message_id FROM mdr.mdrs WHERE {mine}"
    orphans = f"SELECT count() FROM mdr.orphan_log FINAL WHERE message_id IN ({ids})"
    sql = (
        f"SELECT uniqExact(message_id, direction) AS records, count() AS versions, ({orphans}) AS orphan_receipts"
        f" FROM mdr.mdrs WHERE {mine}"
    )
    return query.select(client, sql, b, query.BULK_SETTINGS)[0]


def _open(client: Client, subject: Subject, before_ms: int) -> dict[str, Any]:
    """How many messages of a subject still settle, and when the last of them is given up at the latest."""
    b = Binder()
    if subject.kind == ACCOUNT:
        who = f"has({b.bind(list(subject.forms), 'Array(String)')}, account_id)"
    else:
        quoted = b.bind([f'"{form}"' for form in subject.forms], "Array(String)")
        who = f"arrayExists(form -> position(facts, form) > 0, {quoted})"
    sql = (
        f"SELECT count() AS messages, max(deadline) AS last FROM mdr.open_messages FINAL WHERE part = '' AND {who}"
        f" AND occurred_at < {b.instant(before_ms)}"
    )
    row = query.select(client, sql, b, query.BULK_SETTINGS)[0]
    return {"messages": row["messages"], "settled_by": row["last"] if row["messages"] else None}


# ---- erasing ---------------------------------------------------------------------------------------------------


def erase(client: Client, shelf: Shelf, seals: Seals, subject: Subject, act: Entry) -> dict[str, Any]:
    """Erase what is settled, keep the rest in mind, and return the receipt; it is in the audit log, too."""
    made = Erasure(secrets.token_hex(8), subject.kind, act.at_ms, 0, 1)
    hash_ = seals.hashed(_PURPOSE, subject.forms[0])
    told = {"erasure_id": made.erasure_id, "kind": subject.kind, "subject_hash": hash_}
    act = act._replace(account_id=subject.forms[0] if subject.kind == ACCOUNT else act.account_id, detail=told)
    with audit.recorded(client, act) as kept:
        _keep(client, made, "\n".join(subject.forms), hash_, act.key)
        done = apply(client, shelf, made)
        kept |= done
    at = format_rfc3339(act.at_ms)
    return told | {"at": at, "who": act.key, "erased": done, "open_messages": _open(client, subject, act.at_ms)}


def apply(client: Client, shelf: Shelf, erasure: Erasure, since_ms: int = 0) -> dict[str, int]:
    """Erase what there is now of an erasure and was settled since, and return how much that was."""
    b = Binder()
    mine = _mine(erasure.kind, _stored_forms(erasure, b), b, erasure.at_ms)
    mine += f" AND settled_at >= {b.instant(since_ms)}" if since_ms else ""
    counts = _counts(client, mine, b)
    removed = _drop_reports(client, shelf, erasure, (mine, b) if counts["versions"] else None)
    if not counts["versions"]:
        return counts | {"reports": removed}
    # Places without content, so that `mdr check` still adds up.
    query.command(
        client,
        "INSERT INTO mdr.erased_events (topic, shard, offset) SELECT DISTINCT at[1], toUInt16OrZero(at[2]),"
        " toInt64OrZero(at[3]) FROM (SELECT splitByChar(':', arrayJoin(`timeline.source`)) AS at"
        f" FROM mdr.mdrs WHERE {mine}) WHERE length(at) = 3", b,
    )  # fmt: skip
    _mutate(client, "orphan_log", f"message_id IN (SELECT message_id FROM mdr.mdrs WHERE {mine})", b)
    _mutate(client, "mdrs", mine, b)
    return counts | {"reports": removed}


def _stored_forms(erasure: Erasure, b: Binder) -> str:
    id_ = b.bind(erasure.erasure_id, "String")
    return f"splitByChar('\\n', (SELECT any(subject) FROM mdr.erasures FINAL WHERE erasure_id = {id_}))"


def _mutate(client: Client, table: str, where: str, b: Binder) -> None:
    """Delete rows in one mutation, and return when it is done; raises `QueryError` when it takes too long."""
    query.command(client, f"ALTER TABLE mdr.{table} DELETE WHERE {where}", b)
    end_s = time.monotonic() + _MUTATION_S_MAX
    ask = f"SELECT count() AS n FROM system.mutations WHERE database = 'mdr' AND table = '{table}' AND NOT is_done"
    while query.select(client, ask, Binder())[0]["n"]:
        if time.monotonic() > end_s:
            raise query.TooSlow(f"rows of {table} are not deleted within {_MUTATION_S_MAX:.0f} s; ClickHouse goes on")
        time.sleep(_LOOK_S)


def _drop_reports(client: Client, shelf: Shelf, erasure: Erasure, mine: tuple[str, Binder] | None) -> int:
    """Delete each report that may hold what is erased (of an account of it, over a time of it) or that asks for it."""
    forms = _forms_of(client, erasure)
    held = _held(client, *mine) if mine else (set(), 0, 0)
    found = [r for r in reports.every(client) if _may_hold(r, *held) or _names(r, erasure.kind, forms)]
    for report in found:
        reports.save(client, report, deleted=True)
        shelf.remove(report)
    if found:
        gone = Binder()
        ids = gone.bind([r.report_id for r in found], "Array(String)")
        # The older versions hold the filters that were asked for.
        _mutate(client, "report_requests", f"report_id IN {ids} AND is_deleted = 0", gone)
    return len(found)


def _forms_of(client: Client, erasure: Erasure) -> list[str]:
    b = Binder()
    forms: list[str] = query.select(client, f"SELECT {_stored_forms(erasure, b)} AS forms", b)[0]["forms"]
    return forms


def _held(client: Client, mine: str, b: Binder) -> tuple[set[str], int, int]:
    """The accounts whose records are erased, and the first and last time of them."""
    sql = (
        "SELECT groupUniqArray(account_id) AS accounts, min(occurred_at) AS a, max(occurred_at) AS z"
        f" FROM mdr.mdrs WHERE {mine}"
    )
    row = query.select(client, sql, b, query.BULK_SETTINGS)[0]
    return set(row["accounts"]), _ms(row["a"]), _ms(row["z"])


def _may_hold(report: Report, accounts: set[str], first_ms: int, last_ms: int) -> bool:
    held = report.request.accounts
    in_time = report.request.start_ms <= last_ms and first_ms < report.request.end_ms
    return bool(accounts) and in_time and (held is None or bool(accounts & set(held)))


def _names(report: Report, kind: str, forms: list[str]) -> bool:
    """Whether a report is the account's own, or its request names the account or number."""
    text = msgspec.json.encode(report.request).decode()
    return (kind == ACCOUNT and report.account_id in forms) or any(f'"{form}"' in text for form in forms)


# ---- until nothing comes back ----------------------------------------------------------------------------------


def live(client: Client) -> list[Erasure]:
    """Return the erasures that live, oldest first."""
    sql = (
        "SELECT erasure_id, kind, at, settled_at, version FROM mdr.erasures FINAL WHERE is_done = 0"
        f" ORDER BY at, erasure_id LIMIT {LIVE_MAX}"
    )
    return [
        Erasure(r["erasure_id"], r["kind"], _ms(r["at"]), _ms(r["settled_at"]), r["version"])
        for r in query.select(client, sql, Binder())
    ]


def go_on(client: Client, shelf: Shelf, now_ms: int) -> None:
    """Apply the erasures that live once more, and end those of which nothing can come back."""
    lives = live(client)
    settled_ms = _ms(query.settled_through(client)) if lives else 0
    for erasure in lives:
        is_last = bool(erasure.settled_ms) and now_ms >= erasure.settled_ms + _GRACE_MS
        # What is written since was settled since, so the whole table is looked through at the end only.
        done = apply(client, shelf, erasure, 0 if is_last else erasure.at_ms - _GRACE_MS)
        if done["versions"]:
            detail = {"erasure_id": erasure.erasure_id, "kind": erasure.kind} | done
            audit.write(client, [Entry(now_ms, audit.ERASE, key="mdr", detail=detail)])
        if not erasure.settled_ms and settled_ms >= erasure.at_ms:
            _change(client, erasure, now_ms, is_done=False)
        elif is_last:
            _finish(client, erasure)
    if lives:
        _sweep(client, shelf)


def _finish(client: Client, erasure: Erasure) -> None:
    """Take out what tombstones already hide, then the number itself."""
    for table in _tables(client, ("open_messages", "open_records")):
        b = Binder()
        forms = _stored_forms(erasure, b)
        if table == "open_messages" and erasure.kind == NUMBER:
            who = f"arrayExists(form -> position(facts, concat('\"', form, '\"')) > 0, {forms})"
            mine = f"{who} AND occurred_at < {b.instant(erasure.at_ms)}"
        else:
            mine = _mine(erasure.kind, forms, b, erasure.at_ms)
        _mutate(client, table, f"{mine} AND message_id NOT IN (SELECT message_id FROM mdr.{table} FINAL)", b)
    _change(client, erasure, erasure.settled_ms, is_done=True)
    query.command(client, "OPTIMIZE TABLE mdr.erasures FINAL", Binder())


def _tables(client: Client, names: tuple[str, ...]) -> list[str]:
    b = Binder()
    sql = f"SELECT name FROM system.tables WHERE database = 'mdr' AND name IN {b.bind(list(names), 'Array(String)')}"
    return sorted(row["name"] for row in query.select(client, sql, b))


def _keep(client: Client, erasure: Erasure, subject: str, hash_: str, who: str) -> None:
    values = {
        "erasure_id": (erasure.erasure_id, "String"), "kind": (erasure.kind, "String"), "subject": (subject, "String"),
        "subject_hash": (hash_, "String"), "who": (who, "String"), "version": (1, "UInt64"),
    }  # fmt: skip
    query.write(client, "erasures", values, {"at": erasure.at_ms})


def _change(client: Client, erasure: Erasure, settled_ms: int, *, is_done: bool) -> None:
    """Write the next version of an erasure; one that is done holds its subject no more."""
    b = Binder()
    subject = "''" if is_done else "subject"
    query.command(
        client,
        "INSERT INTO mdr.erasures (erasure_id, kind, subject, subject_hash, who, at, settled_at, is_done, version)"
        f" SELECT erasure_id, kind, {subject}, subject_hash, who, at, {b.instant(settled_ms)},"
        f" {b.bind(int(is_done), 'UInt8')}, version + 1 FROM mdr.erasures FINAL"
        f" WHERE erasure_id = {b.bind(erasure.erasure_id, 'String')}", b,
    )  # fmt: skip


def _sweep(client: Client, shelf: Shelf) -> None:
    """Remove files here of reports that another process deleted."""
    there = {report.report_id for report in reports.every(client)}
    for path in shelf.folder.glob("*.*"):
        if re.fullmatch(r"[0-9a-f-]{32,36}\.(csv|jsonl|parquet|xlsx)", path.name) and path.stem not in there:
            path.unlink(missing_ok=True)


def _ms(at: str) -> int:
    return parse_rfc3339(at) or 0


class Eraser:
    """Applies the erasures that live each minute, in a thread of its own."""

    def __init__(self, connect: Callable[[], Client], shelf: Shelf, clock_ms: Callable[[], int]) -> None:
        self._connect = connect
        self._shelf = shelf
        self._clock_ms = clock_ms
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mdr-eraser", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; a statement that runs is not waited for long."""
        self._stopping.set()
        self._thread.join(2)

    def _run(self) -> None:
        client = None
        while not self._stopping.wait(_EVERY_S):
            try:
                client = client or self._connect()
                go_on(client, self._shelf, self._clock_ms())
            except Exception as e:
                log.warning("erasures cannot be applied now, trying again: %s", type(e).__name__)
                log.debug("erasing failed", exc_info=e)
        if client is not None:
            client.close()
