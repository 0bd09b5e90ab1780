"""Every bound of the HTTP side: what lies beyond is refused in the shape of its face, and the answer names the bound."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from litestar.testing import TestClient

from api import attending, auth, native, query, reports
from api.vendors import carrierx, flowroute, plivo, telnyx
from api.where import EVERYTHING, Binder, Range, Scope
from streams.simulate import Plan
from streams.store import Store
from tests.api_support import OPERATOR, START_MS, Asker, Clock, Filled, basic, bearer, fill, served

NOW_MS = START_MS + 20 * 3_600_000
KEY = "MALLLLLLLLLLLLLLLLLL"
PLIVO = f"/v1/Account/{KEY}/Message/"
CARRIERX = "/core/v2/sms/message_drs"
FILTER = {"filter_type": "and", "cli": "1", "cli_filter": "contains", "cld": "2", "cld_filter": "contains"}
SPAN = {"start_time": "2026-01-01", "end_time": "2026-01-02"}
TELNYX = "/v2/legacy/reporting/batch_detail_records/messaging"


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    """A few settled messages."""
    store = Store(f"chdb://{tmp_path_factory.mktemp('store')}")
    yield fill(store, Plan(20, seed=3, rate_per_s=0.05))
    store.close()


@pytest.fixture(scope="module")
def http(filled: Filled, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient[Any]]:
    """The application upon that store."""
    with served(filled.store.url, tmp_path_factory.mktemp("data"), Clock(NOW_MS)) as client:
        yield client


@pytest.fixture(scope="module")
def headers(filled: Filled) -> dict[str, str]:
    """The credential of an account."""
    return bearer(auth.add_credential(filled.store.client, "bounded", key=KEY))


@pytest.mark.parametrize(
    ("target", "status", "bound"),
    [
        (f"/mdr/records?limit={native.LIMIT_MAX + 1}", 400, native.LIMIT_MAX),
        ("/mdr/records?start=2024-01-01T00:00:00Z&end=2025-01-02T00:00:01Z", 400, native.RANGE_DAYS_MAX),
        ("/mdr/stats?start=2024-01-01T00:00:00Z&end=2025-01-02T00:00:01Z", 400, native.RANGE_DAYS_MAX),
        ("/mdr/records?" + "&".join(f"state=s{n}" for n in range(native.VALUES_MAX + 1)), 400, native.VALUES_MAX),
        ("/mdr/records?" + "&".join(f"attributes.a{n}=1" for n in range(201)), 400, 200),
        (f"/v2.1/messages?start_date=2026-01-05&limit={flowroute.LIMIT_MAX + 1}", 422, flowroute.LIMIT_MAX),
        (f"/v2/messages?start_date=2026-01-05&offset={flowroute.OFFSET_MAX + 1}", 422, flowroute.OFFSET_MAX),
        ("/v2/messages?start_date=2024-01-05&end_date=2026-01-05", 422, flowroute.RANGE_DAYS_MAX),
        (f"{PLIVO}?limit={plivo.LIMIT_MAX + 1}", 400, plivo.LIMIT_MAX),
        (f"{PLIVO}?offset={plivo.OFFSET_MAX + 1}", 400, plivo.OFFSET_MAX),
        (f"{CARRIERX}?limit={carrierx.LIMIT_MAX + 1}", 400, carrierx.LIMIT_MAX),
        (f"{CARRIERX}?offset={carrierx.OFFSET_MAX + 1}", 400, carrierx.OFFSET_MAX),
        (f"{CARRIERX}?filter=" + "+and+".join(["status+eq+sent"] * (carrierx.TERMS_MAX + 1)), 400, carrierx.TERMS_MAX),
        ("/reporting/mdr_requests?per_page=251", 400, 250),
        (f"{TELNYX}?page[size]=251", 400, 250),
    ],
)  # fmt: skip
def test_beyond_the_bound_of_a_parameter(
    http: TestClient[Any], headers: dict[str, str], target: str, status: int, bound: int
) -> None:
    """A page, range, offset or list that is too long is refused, and its bound is in the answer."""
    answer = http.get(target, headers=headers)
    assert (answer.status_code, str(bound) in answer.text) == (status, True), answer.text


@pytest.mark.parametrize(
    ("path", "body", "bound"),
    [
        ("/mdr/reports", {"start": "2024-01-01T00:00:00Z", "end": "2026-01-05T00:00:00Z"}, native.RANGE_DAYS_MAX),
        ("/mdr/reports", {"filters": {"state": ["s"] * (native.VALUES_MAX + 1)}}, native.VALUES_MAX),
        ("/mdr/reports", {"name": "x" * 201}, 200),
        ("/mdr/reports", {"filters": {"provider": ["x" * 800] * 60}}, reports.FILTER_BYTES_MAX),
        ("/mdr/reports", {"filters": {f"attributes.{n}": "x" for n in range(401)}}, reports.TESTS_MAX),
        (TELNYX, SPAN | {"filters": [FILTER | {"cli": "x" * 100, "cld": "y" * 100}] * 100}, reports.FILTER_BYTES_MAX),
        (TELNYX, SPAN | {"filters": [FILTER] * 101}, telnyx.LIST_MAX),
        (TELNYX, {"start_time": "2024-01-01", "end_time": "2026-01-01"}, telnyx.RANGE_DAYS_MAX),
        ("/reporting/mdr_requests", {"start_time": "2024-01-01"}, telnyx.RANGE_DAYS_MAX),
        (TELNYX, {"start_time": "2026-01-01", "end_time": "2026-01-02", "profiles": ["p"] * 101}, telnyx.LIST_MAX),
        (TELNYX, {"start_time": "2026-01-01", "end_time": "2026-01-02", "report_name": "x" * 201}, 200),
    ],
)  # fmt: skip
def test_beyond_the_bound_of_a_body(
    http: TestClient[Any], headers: dict[str, str], path: str, body: dict[str, Any], bound: int
) -> None:
    """A report of too long a range, name or list is a 400 that names the bound."""
    answer = http.post(path, headers=headers, json=body)
    assert (answer.status_code, str(bound) in answer.text) == (400, True), answer.text


@pytest.mark.parametrize("path", ["/mdr/reports", TELNYX, "/reporting/mdr_requests"])
def test_a_body_that_is_too_large(http: TestClient[Any], headers: dict[str, str], path: str) -> None:
    """A body beyond its bytes is a 413 that names them, in the shape of its face."""
    answer = http.post(path, headers=headers, content=b'{"name": "' + b"x" * attending.BODY_BYTES_MAX + b'"}')
    assert answer.status_code == 413 and str(attending.BODY_BYTES_MAX) in answer.text


def test_a_credential_that_asks_too_often(filled: Filled, tmp_path: Path) -> None:
    """Beyond the rate of one credential comes a 429 with Retry-After that names the rate; another goes on."""
    issued = [auth.add_credential(filled.store.client, "hasty") for _ in range(2)]
    with served(filled.store.url, tmp_path, Clock(NOW_MS), requests_per_s=0.5, burst=2) as http:
        answers = [http.get("/mdr/stats", headers=bearer(issued[0])) for _ in range(3)]
        assert [a.status_code for a in answers] == [200, 200, 429]
        assert answers[2].headers["retry-after"] == "2" and "0.5 requests a second" in answers[2].text
        assert http.get("/mdr/stats", headers=bearer(issued[1])).status_code == 200


@pytest.mark.parametrize("path", ["/mdr/reports", TELNYX, "/reporting/mdr_requests"])
def test_an_account_with_too_many_unfinished_reports(
    filled: Filled, http: TestClient[Any], headers: dict[str, str], path: str
) -> None:
    """One report more than an account may have unfinished is a 429 with Retry-After that names the bound."""
    client = filled.store.client
    caller = auth.Caller(KEY, "bounded", frozenset({auth.READ}), Scope(("bounded",)))
    request = reports.make_request(caller, "csv", Range(0, 1), EVERYTHING)
    made = []
    for _ in range(reports.UNFINISHED_MAX):
        report = reports.create(client, caller, "native", request, NOW_MS, 30)
        # Claimed by a process elsewhere, so that nobody here finishes it.
        values = {"report_id": (report.report_id, "String"), "owner": ("a:1:b", "String"), "is_live": (1, "UInt8")}
        query.write(client, "report_claims", values)
        made.append(report)
    body = {} if path == "/mdr/reports" else {"start_time": "2026-01-01", "end_time": "2026-01-02"}
    answer = http.post(path, headers=headers, json=body)
    for report in made:
        reports.save(client, report, deleted=True)
    assert (answer.status_code, answer.headers.get("retry-after")) == (429, "5"), answer.text
    assert str(reports.UNFINISHED_MAX) in answer.text


def test_an_account_that_keeps_too_many_reports(filled: Filled, monkeypatch: pytest.MonkeyPatch) -> None:
    """An account keeps so many reports and no more; the refusal names the bound."""
    monkeypatch.setattr(reports, "KEPT_MAX", 2)
    client = filled.store.client
    caller = auth.Caller("k", "keeper", frozenset({auth.READ}), Scope(("keeper",)))
    request = reports.make_request(caller, "csv", Range(0, 1), EVERYTHING)
    made = [reports.create(client, caller, "native", request, NOW_MS, 30) for _ in range(2)]
    with pytest.raises(reports.TooMany, match="keep 2 reports"):
        reports.create(client, caller, "native", request, NOW_MS, 30)
    for report in made:
        reports.save(client, report, deleted=True)


@pytest.mark.parametrize("path", ["/mdr/records", "/mdr/stats", CARRIERX, PLIVO, "/v2.1/messages?start_date=2026-01-05"])
def test_a_query_that_takes_too_long(
    http: TestClient[Any], headers: dict[str, str], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ClickHouse cannot answer in its time is a 503 with Retry-After that names the seconds, on every face."""
    assert http.get(path, headers=headers).status_code == 200
    slow = "SELECT sum(sipHash64(number)) FROM numbers(100000000000) SETTINGS max_execution_time = 1"
    run = query.run

    def slowed(client: Any, sql: str, binder: Any, format_: str) -> bytes:
        if "FROM mdr.mdrs" in sql:
            return run(client, slow, Binder(), format_)
        return run(client, sql, binder, format_)

    monkeypatch.setattr(query, "run", slowed)
    answer = http.get(path, headers=headers)
    assert answer.status_code == 503 and answer.headers["retry-after"] == "1"
    assert f"{query.QUERY_SECONDS_MAX} s" in answer.text


def test_groups_and_rows_have_bounds(http: TestClient[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Statistics of too many groups are a 400 that names the bound."""
    monkeypatch.setattr("api.stats.ROWS_MAX", 2)
    told = Asker(http, basic(*OPERATOR)).get("/mdr/stats", status=400, by="hour,account,provider")
    assert "more than 2 groups" in told["detail"] and told["field"] == "by"
