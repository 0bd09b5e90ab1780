"""Telnyx's MDR requests in both versions (`api.telnyx_paths`, `api.vendors.telnyx*`)."""

from __future__ import annotations

import csv
import io
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from litestar.testing import TestClient

from api import auth
from api.http import Refusal
from api.vendors import telnyx_v1, telnyx_v2
from schemas.times import format_rfc3339
from streams.simulate import Plan
from streams.store import Store
from tests.api_support import OPERATOR, START_MS, Asker, Clock, Filled, basic, bearer, fill, served

NOW_MS = START_MS + 20 * 3_600_000
ACCOUNT = "northbank"
START, END = "2026-01-05T00:00:00Z", "2026-01-06T00:00:00+00:00"
V1 = "/reporting/mdr_requests"
V2 = "/v2/legacy/reporting/batch_detail_records/messaging"


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    """Settled messages of one account."""
    store = Store(f"chdb://{tmp_path_factory.mktemp('store')}")
    yield fill(store, Plan(200, seed=9, rate_per_s=0.05, account=ACCOUNT))
    store.close()


@pytest.fixture(scope="module")
def http(filled: Filled, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient[Any]]:
    """The application upon that store."""
    with served(filled.store.url, tmp_path_factory.mktemp("data"), Clock(NOW_MS)) as client:
        yield client


@pytest.fixture(scope="module")
def asker(http: TestClient[Any], filled: Filled) -> Asker:
    """Asks as the account, with the headers of v1."""
    issued = auth.add_credential(filled.store.client, ACCOUNT)
    return Asker(http, {"x-api-user": issued.key, "x-api-token": issued.secret})


@pytest.fixture(scope="module")
def native(http: TestClient[Any]) -> list[dict[str, Any]]:
    """Every settled record, oldest first."""
    rows: list[dict[str, Any]] = Asker(http, basic(*OPERATOR)).get(
        "/mdr/records", start=START, end="2026-01-06T00:00:00Z", account_id=ACCOUNT, limit=1000
    )["records"]
    assert len(rows) > 150
    return rows


def polled(asker: Asker, path: str, key: str, pending: Any) -> dict[str, Any]:
    """A request once it is no longer pending."""
    end = time.monotonic() + 60
    while True:
        told = asker.get(path)
        one: dict[str, Any] = told["data"] if key == "data" else told
        if one["status"] != pending:
            return one
        assert time.monotonic() < end and one["report_url"] is None
        threading.Event().wait(0.05)


def lines_of(http: TestClient[Any], url: str) -> list[dict[str, str]]:
    """The csv of a report link, fetched without a credential."""
    answer = http.get(url.removeprefix("http://testserver.local"))
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/csv")
    return list(csv.DictReader(io.StringIO(answer.content.decode(), newline="")))


def test_v1_from_asking_to_the_file_to_deleting(
    asker: Asker, http: TestClient[Any], native: list[dict[str, Any]]
) -> None:
    """A bare object, status 1 then 2, a link, a csv as real exports have it; delete tells success."""
    body = {
        "start_time": START,
        "end_time": END,
        "connections": [],
        "profiles": [],
        "include_message_body": True,
        "report_name": "all",
    }
    made = asker.send("POST", V1, body)
    assert made["status"] == 1 and made["report_url"] is None and made["start_time"] == "2026-01-05T00:00:00+00:00"
    assert " ".join(made) == (
        "id start_time end_time call_types record_types connections report_name status report_url filters created_at"
        " updated_at profiles"
    )
    assert isinstance(error["code"], str) and field in error["detail"]


def test_v2_needs_both_ends_and_v1_one() -> None:
    """v1 takes now for an absent end; v2 refuses."""
    assert telnyx_v1.parse({"start_time": START}, NOW_MS)[0].end_ms == NOW_MS
    with pytest.raises(Refusal, match="end_time"):
        telnyx_v2.parse({"start_time": START})


def test_times_without_an_offset_are_the_zones() -> None:
    """`timezone` says what a time without an offset means, and nothing of one with."""
    body = {"start_time": "2026-01-05T00:00:00", "end_time": "2026-01-06T00:00:00Z", "timezone": "America/Chicago"}
    span = telnyx_v2.parse(body)[0]
    assert (
        format_rfc3339(span.start_ms) == "2026-01-05T06:00:00.000Z"
        and format_rfc3339(span.end_ms) == "2026-01-06T00:00:00.000Z"
    )


def test_call_types_and_directions_both_select(
    asker: Asker, http: TestClient[Any], native: list[dict[str, Any]]
) -> None:
    """Numbers or words: inbound is 1, outbound 2; profiles and connections select too."""
    profile = next(r["profile_id"] for r in native if r["profile_id"])
    for body, wanted in (
        ({"call_types": [1]}, [r for r in native if r["direction"] == "inbound"]),
        ({"directions": ["outbound"]}, [r for r in native if r["direction"] == "outbound"]),
        ({"profiles": [profile]}, [r for r in native if r["profile_id"] == profile]),
        ({"record_types": [2]}, [r for r in native if r["record_type"] == "incomplete"]),
    ):
        made = asker.send("POST", V1, {"start_time": START, "end_time": END, **body})
        done = polled(asker, f"{V1}/{made['id']}", "", 1)
        assert [line["Unique Mdr ID"] for line in lines_of(http, done["report_url"])] == [
            r["message_id"] for r in wanted
        ]


def test_managed_accounts_are_those_below_and_visible(
    http: TestClient[Any], filled: Filled, native: list[dict[str, Any]]
) -> None:
    """By default a v2 report is of one's own account; managed ones come when asked for, seen only with the scope."""
    client = filled.store.client
    auth.add_account(client, ACCOUNT, "bank")
    wide = Asker(http, bearer(auth.add_credential(client, "bank", scopes=(auth.READ, auth.DESCENDANTS))))
    narrow = Asker(http, bearer(auth.add_credential(client, "bank")))
    for asker, more, rows in (
        (wide, {}, 0),
        (wide, {"managed_accounts": [ACCOUNT]}, len(native)),
        (wide, {"select_all_managed_accounts": True}, len(native)),
        (wide, {"managed_accounts": ["other"]}, 0),
        (narrow, {"managed_accounts": [ACCOUNT]}, 0),
        (narrow, {"select_all_managed_accounts": True}, 0),
    ):
        made = asker.send("POST", V2, {"start_time": START, "end_time": END, **more})["data"]
        done = polled(asker, f"{V2}/{made['id']}", "data", "PENDING")
        assert len(lines_of(http, done["report_url"])) == rows


def test_no_credential_is_a_401_in_the_vendors_shape(http: TestClient[Any]) -> None:
    """401, 404 and 405 come in the version's own error shape, with its codes."""
    assert "error" in Asker(http, {}).get(V1, status=401)
    assert Asker(http, {"Authorization": "Bearer x.y"}).get(V2, status=401)["errors"][0]["code"] == "10009"
    assert json.loads(http.put(V2).content)["errors"]
