"""Reports: built in the background, fetched by link, read again by others' readers (`api.reports`, `api.builder`)."""

from __future__ import annotations

import csv
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import openpyxl
import pandas
import pyarrow.parquet as pq
import pytest
from litestar.testing import TestClient
from msgspec import structs
from openpyxl.utils.escape import unescape

from api import auth, builder, extract, files, reports
from api.builder import Builder
from api.query import Range, Scope
from api.reports import Shelf
from api.where import EVERYTHING
from schemas.times import format_rfc3339, parse_rfc3339
from streams.simulate import Plan
from streams.store import Store, connect
from tests.api_support import OPERATOR, START_MS, Asker, Clock, Filled, basic, bearer, fill, served

NOW_MS = START_MS + 20 * 3_600_000
SPAN: dict[str, Any] = {"start": format_rfc3339(START_MS - 3_600_000), "end": format_rfc3339(NOW_MS)}
HOSTILE = [
    "=1+1",
    '+1 "x", y',
    "-2\r\n=3",
    "@cmd|' /C calc'!A0",
    "\t=1",
    "\r=1",
    'quote " and , comma\nline',
    "\x01\x1b<b>&amp;]]>",
    "_x0041_",
    "'",
]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    """Settled messages, some with texts that are formulas."""
    store = Store(f"chdb://{tmp_path_factory.mktemp('store')}")
    filled = fill(store, Plan(300, seed=3, rate_per_s=0.05))
    _add_hostile(store)
    yield filled
    store.close()


def _add_hostile(store: Store) -> None:
    for n, text in enumerate(HOSTILE):
        store.client.command(
            "INSERT INTO mdr.mdrs (message_id, account_id, direction, record_type, state, from_number, to_number, body,"
            " segments, user_data, provider, amount_nanos, currency, tags, attributes, occurred_at, settled_at, version)"
            " SELECT {id:String}, 'hostile', 'outbound', 'complete', 'delivered', {sender:String}, '+12025550123',"
            " {text:String}, 1, {text:String}, {text:String}, 9007199254740993, 'USD', [{text:String}], map('k', {text:String}),"
            " fromUnixTimestamp64Milli({at:Int64}, 'UTC'), now64(3), 1",
            parameters={
                "id": f"hostile-{n}",
                "text": text,
                "sender": "=SENDER" if n % 2 else "+4791234567",
                "at": START_MS + n,
            },
        )


@pytest.fixture(scope="module")
def http(filled: Filled, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient[Any]]:
    """The application upon that store."""
    with served(filled.store.url, tmp_path_factory.mktemp("data"), Clock(NOW_MS)) as client:
        yield client


def finished(asker: Asker, report: dict[str, Any]) -> dict[str, Any]:
    """The report once it is built."""
    return until(
        lambda: asker.get(f"/mdr/reports/{report['report_id']}"), lambda r: r["status"] not in ("pending", "running")
    )


def until(ask: Callable[[], dict[str, Any]], done: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """What a question is answered with once it is as wanted, within a minute."""
    end = time.monotonic() + 60
    while True:
        told = ask()
        if done(told):
            return told
        assert time.monotonic() < end, told
        threading.Event().wait(0.05)


def ordered(client: Asker, **params: Any) -> list[dict[str, Any]]:
    """The records by account, time, id and direction, as reports have them."""
    rows = client.get("/mdr/records", limit=1000, **SPAN, **params)["records"]
    return sorted(rows, key=lambda r: (r["account_id"], r["occurred_at"], r["message_id"], r["direction"]))


def cells(row: dict[str, Any]) -> dict[str, str]:
    """A record as the cells of a flat file."""
    told = {}
    for name, value in row.items():
        if name == "timeline":
            continue
        text = (
            ""
            if value is None
            else json.dumps(value, separators=(",", ":"), ensure_ascii=False)
            if isinstance(value, list | dict)
            else str(value)
        )
        number = name in ("from_number", "to_number") and text[:1] == "+" and text[1:].isdigit()
        told[name] = f"'{text}" if isinstance(value, str) and text[:1] in tuple("=+-@\t\r") and not number else text
    return told


def parsed(line: dict[str, str]) -> dict[str, Any]:
    """The cells of a line, those of lists and maps as such."""
    return {
        name: json.loads(text) if name in ("tags", "attributes", "media_urls", "group_to") else text
        for name, text in line.items()
    }


def one_line_end(value: Any) -> Any:
    """A text with one kind of line end."""
    return value.replace("\r\n", "\n").replace("\r", "\n") if isinstance(value, str) else value


@pytest.mark.parametrize("format_", files.FORMATS)
def test_a_file_read_again_equals_the_records(http: TestClient[Any], format_: str) -> None:
    """Each format, read by an independent reader, holds the records in order, every column; formulas are disarmed."""
    asker = Asker(http, basic(*OPERATOR))
    made = asker.send("POST", "/mdr/reports", {"format": format_, "name": "all of it", **SPAN}, 202)
    assert made["status"] == "pending" and made["url"] is None
    done = finished(asker, made)
    rows = ordered(asker)
    assert (done["status"], done["progress"]) == ("complete", 1.0) and done["rows_done"] == done["rows_total"] == len(
        rows
    ) > 200
    answer = http.get(done["url"].removeprefix("http://testserver.local"))
    assert (
        answer.status_code == 200
        and answer.headers["content-type"].removesuffix("; charset=utf-8") == files.MEDIA_TYPES[format_]
    )
    assert answer.headers["content-disposition"] == f'attachment; filename="all-of-it.{format_}"'
    assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["cache-control"] == "no-store"
    if format_ == "jsonl":
        assert [json.loads(line) for line in answer.content.splitlines()] == rows
    elif format_ == "parquet":
        _compare_parquet(answer.content, rows)
    elif format_ == "csv":
        told = list(csv.DictReader(io.StringIO(answer.content.decode(), newline="")))
        assert [parsed(line) for line in told] == [parsed(cells(row)) for row in rows]
        frame = pandas.read_csv(io.BytesIO(answer.content), dtype=str, keep_default_na=False)
        assert len(frame) == len(rows) and answer.content.count(b"\r\n") >= len(rows)
    else:
        _compare_xlsx(answer.content, rows)


def _compare_parquet(content: bytes, rows: list[dict[str, Any]]) -> None:
    table = pq.read_table(io.BytesIO(content))
    assert table.num_rows == len(rows) and sum(table["amount_nanos"].to_pylist()) == sum(
        r["amount_nanos"] for r in rows
    )
    for name in ("message_id", "body", "tags", "segments", "account_id"):
        assert table[name].to_pylist() == [row[name] for row in rows], name
    stamps = [at.timestamp() * 1000 for at in table["occurred_at"].to_pylist()]
    assert [round(at) for at in stamps] == [parse_rfc3339(row["occurred_at"]) for row in rows]


def _compare_xlsx(content: bytes, rows: list[dict[str, Any]]) -> None:
    sheet = openpyxl.load_workbook(io.BytesIO(content), read_only=True).worksheets[0]
    head, *lines = [
        ["" if value is None else str(value) for value in line] for line in sheet.iter_rows(values_only=True)
    ]
    for line, row in zip(lines, rows, strict=True):
        wanted = parsed(cells(row))
        told = parsed(dict(zip(head, map(unescape, line), strict=True)))
        # XML readers make one line end of every kind of it (XML 1.0, section 2.11).
        for name, text in wanted.items():
            assert one_line_end(told[name]) == one_line_end(text), name


def test_a_report_holds_what_its_filters_say(http: TestClient[Any], filled: Filled) -> None:
    """Filters of a report are those of `/mdr/records`, and its rows stay within what the caller may see."""
    account = next(iter(filled.truth.records.values()))["account_id"]
    asker = Asker(http, bearer(auth.add_credential(filled.store.client, account)))
    body = {"format": "jsonl", "filters": {"direction": "outbound", "state": ["delivered", "failed"]}, **SPAN}
    done = finished(asker, asker.send("POST", "/mdr/reports", body, 202))
    rows = [
        json.loads(line) for line in http.get(done["url"].removeprefix("http://testserver.local")).content.splitlines()
    ]
    everything = ordered(Asker(http, basic(*OPERATOR)), account_id=account)
    assert rows == [r for r in everything if r["direction"] == "outbound" and r["state"] in ("delivered", "failed")]
    assert asker.get("/mdr/reports")["reports"][0]["report_id"] == done["report_id"]
    for bad, field in (
        ({"format": "pdf"}, "format"),
        ({"colour": 1}, "colour"),
        ({"filters": {"x": "y"}}, "x"),
        ({"start": 5}, "start"),
        ({"filters": []}, None),
        ({"filters": {"state": {}}}, "state"),
        ({"name": "x" * 201}, "name"),
    ):
        if field:
            assert asker.send("POST", "/mdr/reports", bad, 400)["field"] == field


def test_a_report_is_its_accounts_alone(http: TestClient[Any], filled: Filled) -> None:
    """Another account's report is a 404 to see and to delete, and so is one that covers more than the key may see."""
    client = filled.store.client
    auth.add_account(client, "child", "parent")
    wide = Asker(http, bearer(auth.add_credential(client, "parent", scopes=(auth.READ, auth.DESCENDANTS))))
    narrow = Asker(http, bearer(auth.add_credential(client, "parent")))
    other = Asker(http, bearer(auth.add_credential(client, "child")))
    done = finished(wide, wide.send("POST", "/mdr/reports", {"format": "csv", **SPAN}, 202))
    for asker in (narrow, other):
        asker.get(f"/mdr/reports/{done['report_id']}", status=404)
        asker.send("DELETE", f"/mdr/reports/{done['report_id']}", status=404)
        assert asker.get("/mdr/reports")["reports"] == []
    assert wide.send("DELETE", f"/mdr/reports/{done['report_id']}")["deleted"] is True
    wide.get(f"/mdr/reports/{done['report_id']}", status=404)
    assert http.get(done["url"].removeprefix("http://testserver.local")).status_code == 404


def test_a_link_ends_with_its_time_its_report_and_its_key(filled: Filled, tmp_path: Path) -> None:
    """A link is unguessable, lasts minutes, and dies with the report, the credential, or the report's days."""
    clock = Clock(NOW_MS)
    with served(filled.store.url, tmp_path, clock) as http:
        issued = auth.add_credential(filled.store.client, "hostile")
        asker = Asker(http, bearer(issued))
        done = finished(asker, asker.send("POST", "/mdr/reports", {"format": "csv", **SPAN}, 202))
        link = done["url"].removeprefix("http://testserver.local")
        assert http.get(link).status_code == 200
        for forged in (
            link[:-2] + ("0" if link[-2] != "0" else "1") + link[-1],
            link[:40] + ("0" if link[40] != "0" else "1") + link[41:],
            "/mdr/files/x",
            "/mdr/files/a.b.c.d",
        ):
            assert http.get(forged).status_code == 404
        clock.now_ms += (reports.LINK_S + 1) * 1000
        assert http.get(link).status_code == 404
        link = asker.get(f"/mdr/reports/{done['report_id']}")["url"].removeprefix("http://testserver.local")
        assert http.get(link).status_code == 200
        auth.revoke(filled.store.client, issued.key)
        assert http.get(link).status_code == 404
        clock.now_ms += 31 * reports.DAY_MS
        asker = Asker(http, bearer(auth.add_credential(filled.store.client, "hostile")))
        told = asker.get(f"/mdr/reports/{done['report_id']}")
        assert told["status"] == "expired" and told["url"] is None


def test_unfinished_reports_of_an_account_are_bounded(filled: Filled) -> None:
    """An account may have a few unfinished reports at a time; one more is refused with the bound."""
    client = filled.store.client
    caller = auth.Caller("k", "busy", frozenset({auth.READ}), Scope(("busy",)))
    request = reports.make_request(caller, "csv", Range(0, 1), EVERYTHING)
    made = [reports.create(client, caller, "native", request, NOW_MS, 30) for _ in range(reports.UNFINISHED_MAX)]
    with pytest.raises(reports.TooMany, match=str(reports.UNFINISHED_MAX)):
        reports.create(client, caller, "native", request, NOW_MS, 30)
    for report in made:
        reports.save(client, report, deleted=True)


def test_a_report_too_long_for_its_format_fails_and_names_the_bound(
    filled: Filled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the rows a format may have, the report fails with the bound in its detail."""
    monkeypatch.setitem(files.ROWS_MAX, "xlsx", 100)
    with served(filled.store.url, tmp_path, Clock(NOW_MS)) as http:
        asker = Asker(http, basic(*OPERATOR))
        told = finished(asker, asker.send("POST", "/mdr/reports", {"format": "xlsx", **SPAN}, 202))
    assert told["status"] == "failed" and "100" in told["detail"] and told["url"] is None


def _status(client: Any, report_id: str) -> dict[str, Any]:
    """A report's status, whoever may see it."""
    return {"status": getattr(reports.stored(client, report_id), "status", "")}


def test_of_two_builders_one_builds(filled: Filled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Builders that find the same report claim it one after the other; never two at a time, and never two files."""
    client = filled.store.client
    caller = auth.OPERATOR("operator")
    span = Range(START_MS, NOW_MS)
    wanted = [
        reports.create(client, caller, "native", reports.make_request(caller, "csv", span, EVERYTHING), NOW_MS, 30)
        for _ in range(4)
    ]
    built: list[str] = []
    build = files.build

    def counted(client: Any, wanted: Any, cuts: Any, format_: str, path: Path, progress: Any) -> int:
        built.append(path.name)
        return build(client, wanted, cuts, format_, path, progress)

    monkeypatch.setattr(files, "build", counted)
    shelf = Shelf(tmp_path)
    builders = [Builder(lambda: connect(filled.store.url), shelf, Clock(NOW_MS), {}) for _ in range(3)]
    for n, one in enumerate(builders):
        # In one process all would have the same name; as others of the same run they are alive.
        one._owner = f"elsewhere-{n}:1:x"
        one.start()
    try:
        for report in wanted:
            until(partial(_status, client, report.report_id), lambda t: t["status"] == "complete")
    finally:
        for one in builders:
            one.stop()
    assert len(built) == len(set(built)) == len(wanted)


def test_a_report_survives_the_end_of_its_process(filled: Filled, tmp_path: Path) -> None:
    """What a process that is gone had begun is begun anew and completed by the next, without waiting for a lease."""
    client = filled.store.client
    caller = auth.OPERATOR("operator")
    request = reports.make_request(caller, "jsonl", Range(START_MS, NOW_MS), EVERYTHING)
    report = reports.create(client, caller, "native", request, NOW_MS, 30)
    gone = Builder(lambda: connect(filled.store.url), Shelf(tmp_path), Clock(NOW_MS), {})
    gone._owner = gone._owner.rpartition(":")[0] + ":another-run"
    assert gone._claim(client, report.report_id)
    reports.save(client, structs.replace(report, status=reports.RUNNING, rows_done=10, version=5))
    with served(filled.store.url, tmp_path, Clock(NOW_MS)) as http:
        asker = Asker(http, basic(*OPERATOR))
        told = until(lambda: asker.get(f"/mdr/reports/{report.report_id}"), lambda r: r["status"] == "complete")
    assert told["rows_done"] == told["rows_total"] > 10


def test_a_claim_of_a_living_process_is_respected_until_its_lease_ends(
    filled: Filled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody builds what another machine's process claimed, before a minute without a sign of life."""
    client = filled.store.client
    first, second = (Builder(lambda: connect(filled.store.url), Shelf(tmp_path), Clock(NOW_MS), {}) for _ in range(2))
    first._owner, second._owner = "machine-a:1:x", "machine-b:1:x"
    assert first._claim(client, "some-report") and not second._claim(client, "some-report")
    monkeypatch.setattr(builder, "_LEASE_S", 0)
    assert second._claim(client, "some-report")


def _built(filled: Filled, shelf: Shelf, report: reports.Report) -> reports.Report:
    """A report after a builder was there for it alone."""
    client = connect(filled.store.url)
    Builder(lambda: client, shelf, Clock(NOW_MS), {})._build(client, report)
    client.close()
    told = reports.stored(filled.store.client, report.report_id)
    assert told is not None
    return told


def _asked(filled: Filled, account: str, format_: str = "csv") -> reports.Report:
    """A report of an account over all that the hostile one has."""
    caller = auth.Caller("k", account, frozenset({auth.READ}), Scope(("hostile",)))
    request = reports.make_request(caller, format_, Range(START_MS - 1, NOW_MS), EVERYTHING)
    return reports.create(filled.store.client, caller, "native", request, NOW_MS, 30)


def test_accounts_are_served_in_turn(filled: Filled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for one report waits for one of the others', not for all that another account asked for before."""
    made = [_asked(filled, account) for account in ("turn-a", "turn-a", "turn-a", "turn-b", "turn-c")]
    built: list[str] = []
    make = Builder._make

    def noted(self: Builder, client: Any, report: reports.Report, draft: Path) -> None:
        built.append(report.account_id)
        make(self, client, report, draft)

    monkeypatch.setattr(Builder, "_make", noted)
    one = Builder(lambda: connect(filled.store.url), Shelf(tmp_path), Clock(NOW_MS), {})
    client = connect(filled.store.url)
    while one._build_next(client) == 0:
        pass
    client.close()
    assert sorted(built[:3]) == ["turn-a", "turn-b", "turn-c"] and built[3:] == ["turn-a", "turn-a"]
    assert all(getattr(reports.stored(filled.store.client, r.report_id), "status", "") == "complete" for r in made)


def test_an_idle_builder_asks_nothing(filled: Filled, tmp_path: Path) -> None:
    """With nothing to build the store is looked at once, and again when a report is asked for, or in half a minute."""
    looked, waited = threading.Semaphore(0), []

    class Woken(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waited.append(timeout)
            looked.release()
            return super().wait(60)

    asked: list[str] = []

    class Counted:
        def __init__(self) -> None:
            self._client = connect(filled.store.url)

        def raw_query(self, sql: str, **more: Any) -> Any:
            asked.append(sql)
            return self._client.raw_query(sql, **more)

        def close(self) -> None:
            self._client.close()

    one = Builder(Counted, Shelf(tmp_path), Clock(NOW_MS), {})  # type: ignore[arg-type]
    one._woken = Woken()
    one.start()
    assert looked.acquire(timeout=60)
    assert (waited, len(asked)) == ([builder._IDLE_S], 2)
    one.wake()
    assert looked.acquire(timeout=60)
    assert (waited, len(asked)) == ([builder._IDLE_S] * 2, 3)  # the sweep is done once a minute
    one.stop()


@pytest.mark.parametrize("format_", files.FORMATS)
def test_a_full_disk_fails_a_report_once(filled: Filled, tmp_path: Path, format_: str) -> None:
    """Where no byte can be written the report has failed, says why, and leaves no file."""
    shelf, report = Shelf(tmp_path), _asked(filled, "disk", format_)
    (shelf.folder / f"{report.report_id}.{builder._RUN}.draft").symlink_to("/dev/full")
    told = _built(filled, shelf, report)
    assert (told.status, told.detail) == ("failed", "the file cannot be written: No space left on device")
    assert not list(shelf.folder.glob(f"{report.report_id}*"))


def test_a_folder_that_is_gone_fails_a_report_once(filled: Filled, tmp_path: Path) -> None:
    """Where no file can be made the report has failed and says why."""
    shelf, report = Shelf(tmp_path), _asked(filled, "folder")
    shelf.folder.rename(tmp_path / "elsewhere")
    told = _built(filled, shelf, report)
    assert (told.status, told.detail) == ("failed", "the file cannot be written: No such file or directory")


def test_the_store_keeps_room_on_the_disk(filled: Filled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report does not take the last of a disk that the store needs too; the bound is in its detail."""
    monkeypatch.setattr(reports, "FREE_BYTES_MIN", 1 << 60)
    told = _built(filled, Shelf(tmp_path), _asked(filled, "room"))
    assert told.status == "failed" and str(1 << 60) in told.detail


def test_the_bytes_of_an_account_are_bounded(filled: Filled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an account keeps and what is built together have a bound that the failed report names; others go on."""
    shelf = Shelf(tmp_path)
    first = _built(filled, shelf, _asked(filled, "heavy"))
    size = shelf.path(first).stat().st_size
    monkeypatch.setattr(reports, "BYTES_MAX", size + size // 2)
    second = _built(filled, shelf, _asked(filled, "heavy"))
    assert first.status == "complete" and second.status == "failed" and str(reports.BYTES_MAX) in second.detail
    assert _built(filled, shelf, _asked(filled, "light")).status == "complete"
    reports.save(filled.store.client, first, deleted=True)
    assert _built(filled, shelf, _asked(filled, "heavy")).status == "complete"


@pytest.mark.parametrize("size", [1, 7, 64, 10_000])
def test_pieces_are_the_whole_cut_without_gap_or_repeat(filled: Filled, size: int) -> None:
    """However small the pieces, together they are every row once and in order, across accounts."""
    wanted = extract.Wanted(Scope(None), Range(START_MS - 1, NOW_MS), EVERYTHING, extract.FLAT_CELLS[:2])
    cuts = extract.cut(filled.store.client, wanted, size)
    keys = cuts.keys if size > 1 else cuts.keys[:5]
    found = b"".join(extract.pieces(filled.store.client, wanted, keys, "CSV"))
    whole = b"".join(extract.pieces(filled.store.client, wanted, [], "CSV"))
    assert found == whole and cuts.rows == whole.count(b"\r\n")
