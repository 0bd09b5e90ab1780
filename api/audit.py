"""The audit log: who did what, when. It holds no number, no body and no secret; ids only as keyed hashes.

What reads is noted beside the request: a bounded queue, written in batches by a thread; a request never waits for it
and never fails by it, and what finds no room is counted in a row `audit.dropped`. What changes who may read, sends once
more or erases is durable first: a row `begun` before it is done, `done` or `failed` after it.
"""

# ruff: noqa: S608  # every statement is made of constants and placeholders of bound parameters

import contextlib
import logging
import re
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from api import auth, query
from api.http import Answer, Call
from api.query import Client
from api.seals import Seals
from api.where import Binder
from schemas import exact_json
from schemas.times import format_rfc3339

log = logging.getLogger(__name__)

SIGN_IN: Final = "sign_in"
SIGN_OUT: Final = "sign_out"
REFUSED: Final = "refused"
READ: Final = "read"
EXPORT: Final = "export"
REDRIVE: Final = "redrive"
KEY_ADD: Final = "key.add"
KEY_REVOKE: Final = "key.revoke"
ERASE: Final = "erase"
DROPPED: Final = "audit.dropped"
ACTIONS: Final = (SIGN_IN, SIGN_OUT, REFUSED, READ, EXPORT, REDRIVE, KEY_ADD, KEY_REVOKE, ERASE, DROPPED)
COMMAND_LINE: Final = "command line"
ROWS_MAX: Final = 1_000
QUEUE_MAX: Final = 10_000
_BATCH_MAX: Final = 1_000
_EVERY_S: Final = 1.0
# In a batch, so each second: who has no key cannot fill the table.
_REFUSALS_MAX: Final = 10
_CLOSE_S: Final = 2.0
_REFUSALS: Final = frozenset({401, 403})
# The parts of a path that name whom or what is asked for; others (a seal, a file's name) are secrets or nothing.
_IDS: Final = frozenset({"message_id", "message_uuid", "mdr_id", "dr_sid", "id", "key"})
# Parameters whose values say which records a list held, when they are instants.
_BOUNDS: Final = re.compile(r"start|end|start_date|end_date|message_time(__[a-z]+)?|range")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z_.\[\]-]{0,63}")
_NAMES_MAX: Final = 20
_INSTANT: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[0-9T:.Z+ -]{0,24}|[0-9]{1,3}[hd]")
_READS: Final = re.compile(
    r"/mdr/records|/mdr/trace|/mdr/dead-letters|/v2(\.1)?/messages|/v1/Account|(/core/v2)?/sms/message_drs"
    r"|/ui/(records|messages|dead-letters|dead-letter-values)"
)
_EXPORTS: Final = re.compile(r"/mdr/(reports|files)|/reporting/|/v2/legacy|/ui/reports")


class Entry(NamedTuple):
    """One row of the audit log."""

    at_ms: int
    action: str
    outcome: str = "done"
    key: str = ""
    account_id: str = ""
    client: str = ""
    method: str = ""
    path: str = ""
    status: int = 0
    ids: Sequence[str] = ()
    detail: Mapping[str, Any] = {}  # never changed in place


def action_of(method: str, path: str, status: int) -> str:
    """Return what a request to a route did, or `""` when that is not kept."""
    if status in _REFUSALS:
        return REFUSED
    if path.endswith("/sign-in") and method == "POST":
        return SIGN_IN if status < 400 else REFUSED
    if path.endswith("/sign-out"):
        return SIGN_OUT
    return READ if _READS.match(path) else EXPORT if _EXPORTS.match(path) and status < 400 else ""


def entry_of(call: Call, path: str, answer: Answer, seals: Seals) -> Entry | None:
    """Return the row of a request that was answered; `path` is that of its route, without ids."""
    action = action_of(call.method, path, answer.status)
    if not action:
        return None
    given = auth.presented(call.headers) if action == REFUSED and not call.caller.key else None
    key = call.caller.key or (auth.key_of(given[0]) if given else "")
    ids = [hashed(seals, value) for name, value in call.names.items() if name in _IDS]
    detail: dict[str, Any] = {}
    if call.query:
        detail["parameters"] = sorted({name for name, _ in call.query if _NAME.fullmatch(name)})[:_NAMES_MAX]
        detail |= {n: v for n, v in call.query if _BOUNDS.fullmatch(n) and _INSTANT.fullmatch(v)}
    outcome = "done" if answer.status < 400 else "refused" if action == REFUSED else "failed"
    return Entry(
        call.now_ms, action, outcome, key, call.caller.account_id, call.client, call.method, path, answer.status, ids,
        detail,
    )  # fmt: skip


def hashed(seals: Seals, id_: str) -> str:
    """Return the keyed hash by which an id stands in the log."""
    return seals.hashed("audit", id_)


def write(client: Client, entries: Sequence[Entry]) -> None:
    """Insert rows; raises `QueryError`."""
    if not entries:
        return
    query.insert(client, "audit_log", [_row(entry) for entry in entries])


def _row(entry: Entry) -> dict[str, Any]:
    told = entry._asdict()
    detail = exact_json.dumps(entry.detail, str).decode() if entry.detail else ""
    return {"at": format_rfc3339(told.pop("at_ms"))} | told | {"ids": list(entry.ids), "detail": detail}


@contextlib.contextmanager
def recorded(client: Client, entry: Entry) -> Iterator[dict[str, Any]]:
    """Keep an act in the log before and after it is done; what is put into the yielded detail is kept after.

    When the row before cannot be written the act is not done, and `QueryError` is raised.
    """
    write(client, [entry._replace(outcome="begun")])
    detail = dict(entry.detail)
    try:
        yield detail
    except BaseException:
        with contextlib.suppress(query.QueryError):
            write(client, [entry._replace(outcome="failed", detail=detail)])
        raise
    write(client, [entry._replace(detail=detail)])


def of_call(call: Call, action: str, **detail: Any) -> Entry:
    """Return the row of an act that a request asks for."""
    return Entry(
        call.now_ms, action, "done", call.caller.key, call.caller.account_id, call.client, call.method, "", 0, (),
        detail,
    )  # fmt: skip


# ---- reading ---------------------------------------------------------------------------------------------------


class Wanted(msgspec.Struct, frozen=True):
    """Which rows: each part that is given must fit; `since_ms` is inclusive, `until_ms` exclusive."""

    key: str = ""
    account_id: str = ""
    action: str = ""
    id_hash: str = ""
    since_ms: int = 0
    until_ms: int = 0
    limit: int = 100


def rows(client: Client, wanted: Wanted) -> list[dict[str, Any]]:
    """Return rows, newest first; `detail` is an object."""
    b = Binder()
    parts = [f"at >= {b.instant(wanted.since_ms)}"]
    for column in ("key", "account_id", "action"):
        value = getattr(wanted, column)
        parts += [f"{column} = {b.bind(value, 'String')}"] if value else []
    parts += [f"at < {b.instant(wanted.until_ms)}"] if wanted.until_ms else []
    parts += [f"has(ids, {b.bind(wanted.id_hash, 'String')})"] if wanted.id_hash else []
    sql = (
        "SELECT at, action, outcome, key, account_id, client, method, path, status, ids, detail FROM mdr.audit_log"
        f" WHERE {' AND '.join(parts)} ORDER BY at DESC, action LIMIT {b.bind(wanted.limit, 'UInt32')}"
    )
    found = query.select(client, sql, b)
    return [row | {"detail": exact_json.loads(row["detail"]) if row["detail"] else {}} for row in found]


# ---- beside requests -------------------------------------------------------------------------------------------


class AuditLog:
    """Writes rows beside requests: `note` never blocks and never raises."""

    def __init__(self, connect: Callable[[], Client], clock_ms: Callable[[], int]) -> None:
        self._connect = connect
        self._clock_ms = clock_ms
        self._waiting: deque[Entry] = deque()
        self._lock = threading.Lock()
        self._woken = threading.Event()
        self._stopping = False
        self._refused = 0
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="mdr-audit", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self) -> None:
        """Write what waits, for at most two seconds."""
        self._stopping = True
        self._woken.set()
        self._thread.join(_CLOSE_S)

    def note(self, entry: Entry) -> None:
        """Take a row to be written; without room, or of too many refusals, it is counted only."""
        refused = entry.action == REFUSED
        with self._lock:
            if len(self._waiting) < QUEUE_MAX and (not refused or self._refused < _REFUSALS_MAX):
                self._waiting.append(entry)
                self._refused += refused
                return
            self.dropped += 1
            first = self.dropped == 1
        if first:
            log.warning("the audit log cannot be written as fast as requests come: rows are left out and counted")

    def _run(self) -> None:
        client = None
        while True:
            self._woken.wait(_EVERY_S)
            last = self._stopping
            try:
                client = client or self._connect()
                while self._write_some(client):
                    pass
            except Exception as e:  # the store is away: what waits, waits on
                log.debug("the audit log cannot be written now", exc_info=e)
            if last:
                break
        if client is not None:
            client.close()

    def _write_some(self, client: Client) -> bool:
        """Write the oldest rows; return whether there were any."""
        with self._lock:
            some, dropped = list(self._waiting)[:_BATCH_MAX], self.dropped
        if not some:
            return False
        lost = [Entry(self._clock_ms(), DROPPED, detail={"rows": dropped})] if dropped else []
        write(client, [*some, *lost])
        with self._lock:
            for _ in some:
                self._waiting.popleft()
            self.dropped -= dropped
            self._refused -= sum(entry.action == REFUSED for entry in some)
        return True
