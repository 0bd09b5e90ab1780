"""Reports: asked for once, built in the background, kept for some days. What was asked for lives in ClickHouse.

A report may be seen by its account's credentials that may see every account it covers, and by the operator. Its file is
fetched with a link that needs no credential, that nobody can guess, and that ends within minutes or with the report.
"""

# ruff: noqa: S608  # every statement is made of allow-listed names and placeholders of bound parameters

import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import orjson

from api import query, seals
from api.auth import Caller
from api.query import Client, Range, Scope
from api.where import Binder, Condition, dump, load, tests_in
from schemas.times import format_rfc3339, parse_rfc3339

PENDING: Final = "pending"
RUNNING: Final = "running"
COMPLETE: Final = "complete"
FAILED: Final = "failed"
EXPIRED: Final = "expired"

UNFINISHED_MAX: Final = 5
KEPT_MAX: Final = 1_000
BYTES_MAX: Final = 8 << 30
FREE_BYTES_MIN: Final = 256 << 20
TESTS_MAX: Final = 400
FILTER_BYTES_MAX: Final = 32_768
_SWEPT_MAX: Final = 1_000
LINK_S: Final = 900
_PURPOSE: Final = "report link"
DAY_MS: Final = 86_400_000
_DELETED: Final = 1 << 62
_COLUMNS: Final = (
    "report_id, account_id, kind, request, status, detail, rows_done, rows_total, created_at, updated_at, expires_at,"
    " version"
)


class Request(msgspec.Struct, frozen=True):
    """What a report holds, as it is stored. `accounts` None is every account; `echo` is what a view shows again."""

    format: str
    start_ms: int
    end_ms: int
    accounts: list[str] | None
    where: list[Any]
    key: str
    name: str = ""
    cells: str = ""
    echo: dict[str, Any] = {}  # a Struct copies it

    @property
    def scope(self) -> Scope:
        """The accounts it covers."""
        return Scope(None if self.accounts is None else tuple(self.accounts))

    @property
    def span(self) -> Range:
        """The range it covers."""
        return Range(self.start_ms, self.end_ms)

    @property
    def condition(self) -> Condition:
        """The filters."""
        return load(self.where)


class Report(msgspec.Struct, frozen=True):
    """A report as it stands; times in ms. `rows_total` is 0 until it was counted."""

    report_id: str
    account_id: str
    kind: str
    request: Request
    status: str
    detail: str
    rows_done: int
    rows_total: int
    created_ms: int
    updated_ms: int
    expires_ms: int
    version: int

    def at(self, now_ms: int) -> "Report":
        """As it is to be shown at an instant: expired when its time is over."""
        return msgspec.structs.replace(self, status=EXPIRED) if now_ms >= self.expires_ms else self


class TooMany(Exception):
    """A bound on reports is reached; one sentence that names it."""


class TooLarge(Exception):
    """A report is asked for with more filters than it may have; one sentence that names the bound."""


def make_request(caller: Caller, format_: str, span: Range, where: Condition, **more: Any) -> Request:
    """What a caller asks for, limited to what the caller sees now."""
    accounts = caller.scope.accounts
    return Request(
        format_,
        span.start_ms,
        span.end_ms,
        None if accounts is None else list(accounts),
        dump(where),
        caller.key,
        **more,
    )


def create(client: Client, caller: Caller, kind: str, request: Request, now_ms: int, days: int) -> Report:
    """Stores a report to be built; raises `TooMany` and `TooLarge`."""
    _refuse_too_large(request)
    own = [r for r in _stored(client, caller.account_id) if now_ms < r.expires_ms]
    if sum(r.status in (PENDING, RUNNING) for r in own) >= UNFINISHED_MAX:
        raise TooMany(f"an account may have {UNFINISHED_MAX} unfinished reports at a time")
    if len(own) >= KEPT_MAX:
        raise TooMany(f"an account may keep {KEPT_MAX} reports: delete some")
    report = Report(
        str(uuid.uuid4()),
        caller.account_id,
        kind,
        request,
        PENDING,
        "",
        0,
        0,
        now_ms,
        now_ms,
        now_ms + days * DAY_MS,
        1,
    )
    save(client, report)
    return report


def _refuse_too_large(request: Request) -> None:
    if tests_in(request.condition) > TESTS_MAX:
        raise TooLarge(f"the filters of a report are more than {TESTS_MAX} tests")
    if len(orjson.dumps([request.where, request.echo])) > FILTER_BYTES_MAX:
        raise TooLarge(f"the filters of a report are larger than {FILTER_BYTES_MAX} bytes")


def find(client: Client, caller: Caller, report_id: str, kind: str = "") -> Report | None:
    """One report the caller may see."""
    report = stored(client, report_id)
    return report if report and (not kind or report.kind == kind) and may_see(caller, report) else None


def find_all(client: Client, caller: Caller, kind: str = "") -> list[Report]:
    """Every report the caller may see, newest first."""
    found = _stored(client, None if caller.is_operator else caller.account_id)
    return [r for r in found if (not kind or r.kind == kind) and may_see(caller, r)]


def may_see(caller: Caller, report: Report) -> bool:
    """Whether a caller may see a report: its own account's, and nothing of an account it does not see."""
    if caller.is_operator:
        return True
    seen, held = caller.scope.accounts or (), report.request.accounts
    return report.account_id == caller.account_id and held is not None and set(held) <= set(seen)


def stored(client: Client, report_id: str) -> Report | None:
    """A report by its id, whoever may see it."""
    b = Binder()
    sql = f"SELECT {_COLUMNS} FROM mdr.report_requests FINAL WHERE report_id = {b.bind(report_id, 'String')}"
    rows = query.select(client, sql, b)
    return _report(rows[0]) if rows else None


def unfinished(client: Client) -> list[Report]:
    """What is still to be built, oldest first."""
    sql = (
        f"SELECT {_COLUMNS} FROM mdr.report_requests FINAL WHERE status IN ('{PENDING}', '{RUNNING}')"
        " ORDER BY created_at, report_id"
    )
    return [_report(row) for row in query.select(client, sql, Binder())]


def over(client: Client, now_ms: int) -> list[Report]:
    """Reports whose time is over, the oldest first; of very many the next time."""
    b = Binder()
    sql = (
        f"SELECT {_COLUMNS} FROM mdr.report_requests FINAL WHERE expires_at <= {b.instant(now_ms)}"
        f" ORDER BY expires_at, report_id LIMIT {_SWEPT_MAX:d}"
    )
    return [_report(row) for row in query.select(client, sql, b)]


def every(client: Client) -> list[Report]:
    """All reports there are."""
    return _stored(client, None)


def complete(client: Client, account_id: str) -> list[Report]:
    """The reports of an account that have a file."""
    return [report for report in _stored(client, account_id) if report.status == COMPLETE]


def _stored(client: Client, account_id: str | None) -> list[Report]:
    b = Binder()
    where = "1" if account_id is None else f"account_id = {b.bind(account_id, 'String')}"
    sql = f"SELECT {_COLUMNS} FROM mdr.report_requests FINAL WHERE {where} ORDER BY created_at DESC, report_id"
    return [_report(row) for row in query.select(client, sql, b)]


def save(client: Client, report: Report, *, deleted: bool = False) -> None:
    """Writes a report; what is deleted stays so, whatever a builder still writes."""
    # What was asked for goes with it.
    request = "" if deleted else orjson.dumps(msgspec.to_builtins(report.request)).decode()
    values = {
        "report_id": (report.report_id, "String"), "account_id": (report.account_id, "String"),
        "kind": (report.kind, "String"), "request": (request, "String"),
        "status": (report.status, "String"), "detail": (report.detail, "String"),
        "rows_done": (report.rows_done, "UInt64"), "rows_total": (report.rows_total, "UInt64"),
        "version": (_DELETED if deleted else report.version, "UInt64"), "is_deleted": (int(deleted), "UInt8"),
    }  # fmt: skip
    times = {"created_at": report.created_ms, "updated_at": report.updated_ms, "expires_at": report.expires_ms}
    query.write(client, "report_requests", values, times)


def _report(row: dict[str, Any]) -> Report:
    created, updated, expires = (parse_rfc3339(row[name]) or 0 for name in ("created_at", "updated_at", "expires_at"))
    request = msgspec.json.decode(row["request"], type=Request)
    return Report(
        row["report_id"], row["account_id"], row["kind"], request, row["status"], row["detail"], row["rows_done"],
        row["rows_total"], created, updated, expires, row["version"],
    )  # fmt: skip


def shown(report: Report, link: str | None) -> dict[str, Any]:
    """A report as our own API tells it."""
    r = report.request
    done = 1.0 if report.status in (COMPLETE, EXPIRED) else report.rows_done / (report.rows_total or 1)
    return {
        "report_id": report.report_id, "kind": report.kind, "name": r.name, "format": r.format, "status": report.status,
        "detail": report.detail, "start": format_rfc3339(r.start_ms), "end": format_rfc3339(r.end_ms),
        "filters": r.echo.get("filters", {}), "rows_done": report.rows_done,
        "rows_total": report.rows_total if report.rows_total or report.status == COMPLETE else None,
        "progress": round(min(1.0, done), 4), "created_at": format_rfc3339(report.created_ms),
        "updated_at": format_rfc3339(report.updated_ms), "expires_at": format_rfc3339(report.expires_ms), "url": link,
    }  # fmt: skip


# ---- files and links -------------------------------------------------------------------------------------------


class Link(NamedTuple):
    """What a link to a file is for, and whose it is."""

    report_id: str
    key: str
    is_operator: bool


class Shelf:
    """The directory of finished files and the seals of their links; processes that share it serve each other's."""

    def __init__(self, data_dir: Path) -> None:
        self.folder = data_dir / "reports"
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._seals = seals.load(data_dir)

    def path(self, report: Report) -> Path:
        """Where a report's file is, or will be."""
        return self.folder / f"{report.report_id}.{report.request.format}"

    def held(self, found: Iterable[Report]) -> int:
        """How many bytes the files of reports have."""
        return sum(path.stat().st_size for path in map(self.path, found) if path.exists())

    def remove(self, report: Report) -> None:
        """Removes a report's file, if there is one."""
        self.path(report).unlink(missing_ok=True)

    def token(self, report: Report, caller: Caller, now_ms: int) -> str:
        """The secret part of a link, made for one caller."""
        until_ms = min(now_ms + LINK_S * 1000, report.expires_ms)
        return self._seals.seal(_PURPOSE, [report.report_id, caller.key, caller.is_operator, until_ms], now_ms)

    def opened(self, token: str, now_ms: int) -> Link | None:
        """What a link is for and whose it is; None when it is forged or its time is over."""
        found = self._seals.opened(_PURPOSE, token, now_ms, LINK_S)
        if found is None:
            return None
        report_id, key, is_operator, until_ms = found.value
        return Link(report_id, key, is_operator) if now_ms < until_ms else None
