"""Builds the reports that were asked for, one at a time, in a thread of its own.

Two builders never make the same report: each writes a claim and goes on only when it then sees no other live one. Of
two that wrote before either looked, both withdraw and try again later. A claim lives until it is withdrawn, its process
is gone, or nothing was heard of it for a minute.

Accounts are served in turn. While there is nothing to build nothing is asked of the store: whoever asks for a report
wakes the builder, and what another process left unfinished is looked for twice a minute.
"""

# ruff: noqa: S608  # every statement is made of allow-listed names and placeholders of bound parameters

import contextlib
import logging
import os
import random
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from api import extract, files, query, reports
from api.extract import Cell, Wanted
from api.query import Client
from api.reports import COMPLETE, FAILED, RUNNING, Report, Shelf
from api.where import Binder

log = logging.getLogger(__name__)

_IDLE_S: Final = 30.0
_AGAIN_S: Final = 2.0
_SWEEP_MS: Final = 60_000
_LEASE_S: Final = 60
_HEARTBEAT_MS: Final = 10_000
_PROGRESS_MS: Final = 500
_RUN: Final = secrets.token_hex(8)
_FINISHED: Final = 1 << 40


class _Gone(Exception):
    """The report was deleted, or this process is told to stop."""


class _Refused(Exception):
    """The report cannot be built; one sentence that says why."""


class Builder:
    """The thread that builds; `wake` tells it that there is something to do."""

    def __init__(
        self,
        connect: Callable[[], Client],
        shelf: Shelf,
        clock_ms: Callable[[], int],
        views: dict[str, tuple[Cell, ...]],
    ) -> None:
        self._connect = connect
        self._shelf = shelf
        self._clock = clock_ms
        self._views = views
        self._owner = f"{socket.gethostname()}:{os.getpid()}:{_RUN}"
        self._woken = threading.Event()
        self._stopping = False
        self._turns: dict[str, int] = {}
        self._swept_ms: int | None = None
        self._thread = threading.Thread(target=self._run, name="mdr-reports", daemon=True)

    def start(self) -> None:
        """Begins to build what is unfinished."""
        self._thread.start()

    def stop(self) -> None:
        """Ends after the piece at hand; what is unfinished is begun anew by the next one."""
        self._stopping = True
        self._woken.set()
        self._thread.join()

    def wake(self) -> None:
        """Says that a report was asked for."""
        self._woken.set()

    def _run(self) -> None:
        client = None
        while not self._stopping:
            wait_s = _AGAIN_S
            try:
                client = client or self._connect()
                self._sweep(client)
                wait_s = self._build_next(client)
            except Exception as e:
                log.warning("reports cannot be built now, trying again: %s", type(e).__name__ if client else "no store")
                log.debug("building failed", exc_info=e)
            if wait_s:
                self._woken.wait(wait_s)
            self._woken.clear()
        if client is not None:
            client.close()

    def _build_next(self, client: Client) -> float:
        """Builds a report, if there is one that nobody else builds; how long to wait before the next look."""
        now_ms = self._clock()
        waiting = [r for r in reports.unfinished(client) if r.at(now_ms).status != reports.EXPIRED]
        for report in self._in_turn(waiting):
            if not self._claim(client, report.report_id):
                continue
            self._turns[report.account_id] = 1 + max(self._turns.values())
            try:
                self._build(client, report)
            finally:
                self._note(client, report.report_id, is_live=False)
            return 0
        return _AGAIN_S if waiting else _IDLE_S

    def _in_turn(self, waiting: list[Report]) -> list[Report]:
        """First the accounts that were not served for longest, and of each what it asked for first."""
        self._turns = {r.account_id: self._turns.get(r.account_id, 0) for r in waiting}
        return sorted(waiting, key=lambda r: (self._turns[r.account_id], r.created_ms, r.report_id))

    def _sweep(self, client: Client) -> None:
        """Removes files of reports that are over, and their rows after as long again; once a minute."""
        now_ms = self._clock()
        if self._swept_ms is not None and 0 <= now_ms - self._swept_ms < _SWEEP_MS:
            return
        self._swept_ms = now_ms
        for report in reports.over(client, now_ms):
            with contextlib.suppress(OSError):  # what cannot be removed keeps nobody from what can be built
                self._shelf.remove(report)
            if now_ms >= 2 * report.expires_ms - report.created_ms:
                reports.save(client, report, deleted=True)

    # ---- one report --------------------------------------------------------------------------------------------

    def _build(self, client: Client, report: Report) -> None:
        draft = self._shelf.folder / f"{report.report_id}.{_RUN}.draft"
        try:
            current = reports.stored(client, report.report_id)
            if current is None or current.status not in (reports.PENDING, RUNNING):
                return
            self._make(client, current, draft)
        except _Gone:
            log.info("report %s is given up: it was deleted, or the process ends", report.report_id)
        except query.Unavailable:
            raise
        except (_Refused, query.QueryError) as e:
            self._fail(client, report, str(e))
        except OSError as e:
            why = os.strerror(e.errno) if e.errno else "an error of the disk"
            log.warning("report %s fails: %s", report.report_id, why)
            self._fail(client, report, f"the file cannot be written: {why}")
        except Exception:
            log.exception("report %s fails", report.report_id)
            self._fail(client, report, "the report could not be built; the log says why")
        finally:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)

    def _make(self, client: Client, report: Report, draft: Path) -> None:
        ask, path = report.request, self._shelf.path(report)
        wanted = Wanted(ask.scope, ask.span, ask.condition, files.cells_of(ask.format, self._views.get(ask.cells)))
        held = self._shelf.held(reports.complete(client, report.account_id))
        self._refuse_heavy(held)
        cuts = extract.cut(client, wanted)
        bound = files.ROWS_MAX[ask.format]
        if cuts.rows > bound:
            raise _Refused(f"the report would have {cuts.rows} rows; a {ask.format} may have {bound}")
        teller = _Teller(self, client, replace(report, rows_total=cuts.rows, status=RUNNING))

        def tell(rows: int) -> None:
            self._refuse_heavy(held + draft.stat().st_size)
            teller(rows)

        rows = files.build(client, wanted, cuts, ask.format, draft, tell)
        self._refuse_heavy(held + draft.stat().st_size)
        if reports.stored(client, report.report_id) is None:
            raise _Gone
        draft.replace(path)
        done = replace(
            report, status=COMPLETE, rows_done=rows, rows_total=rows, updated_ms=self._clock(), version=_FINISHED
        )
        reports.save(client, done)
        if reports.stored(client, report.report_id) is None:
            path.unlink(missing_ok=True)

    def _refuse_heavy(self, size: int) -> None:
        if size >= reports.BYTES_MAX:
            raise _Refused(f"the reports of an account may have {reports.BYTES_MAX} bytes: delete some")
        if shutil.disk_usage(self._shelf.folder).free < reports.FREE_BYTES_MIN:
            raise _Refused(f"the file cannot be written: {reports.FREE_BYTES_MIN} bytes of the disk stay free")

    def _fail(self, client: Client, report: Report, detail: str) -> None:
        reports.save(client, replace(report, status=FAILED, detail=detail, updated_ms=self._clock(), version=_FINISHED))

    def check(self, client: Client, report: Report) -> None:
        """Raises `_Gone` when nobody waits for the report any more."""
        if self._stopping or reports.stored(client, report.report_id) is None:
            raise _Gone

    def beat(self, client: Client, report_id: str) -> None:
        """Says that the claim still lives."""
        self._note(client, report_id, is_live=True)

    def now_ms(self) -> int:
        """The clock."""
        return self._clock()

    # ---- claims ------------------------------------------------------------------------------------------------

    def _claim(self, client: Client, report_id: str) -> bool:
        if self._others(client, report_id):
            return False
        self._note(client, report_id, is_live=True)
        if not self._others(client, report_id):
            return True
        self._note(client, report_id, is_live=False)
        time.sleep(random.random() * 0.5)  # so that two do not meet again and again
        return False

    def _note(self, client: Client, report_id: str, *, is_live: bool) -> None:
        values = {
            "report_id": (report_id, "String"), "owner": (self._owner, "String"), "is_live": (int(is_live), "UInt8"),
        }  # fmt: skip
        query.write(client, "report_claims", values)

    def _others(self, client: Client, report_id: str) -> list[str]:
        b = Binder()
        sql = (
            "SELECT owner, argMax(is_live, claimed_at) AS live FROM mdr.report_claims"
            f" WHERE report_id = {b.bind(report_id, 'String')} AND claimed_at > now64(3) - INTERVAL {_LEASE_S:d} SECOND"
            " GROUP BY owner HAVING live = 1"
        )
        owners = [row["owner"] for row in query.select(client, sql, b)]
        return [owner for owner in owners if owner != self._owner and not _is_dead(owner)]


def _is_dead(owner: str) -> bool:
    """Whether a claim's process is known to be gone: it ran here and does no more."""
    host, pid, run = owner.rsplit(":", 2)
    if host != socket.gethostname():
        return False
    if int(pid) == os.getpid():
        return run != _RUN
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


class _Teller:
    """Tells progress, not too often, and gives up what nobody waits for."""

    def __init__(self, builder: Builder, client: Client, report: Report) -> None:
        self._builder = builder
        self._client = client
        self._report = report
        self._version = report.version
        self._told_ms = 0
        self._beat_ms = builder.now_ms()
        self(0)

    def __call__(self, rows: int) -> None:
        now_ms = self._builder.now_ms()
        self._builder.check(self._client, self._report)
        if now_ms - self._beat_ms >= _HEARTBEAT_MS:
            self._beat_ms = now_ms
            self._builder.beat(self._client, self._report.report_id)
        if rows == 0 or now_ms - self._told_ms >= _PROGRESS_MS:
            self._told_ms = now_ms
            self._version += 1
            reports.save(self._client, replace(self._report, rows_done=rows, updated_ms=now_ms, version=self._version))
