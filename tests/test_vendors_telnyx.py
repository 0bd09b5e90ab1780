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
from api.vendors import telnyx, telnyx_v1, telnyx_v2
from api.where import Condition
from schemas.times import format_rfc3339
from streams.simulate import Plan
from streams.store import Store
from tests.api_support import OPERATOR, START_MS, Asker, Clock, Filled, basic, bearer, fill, served
from tests.conditions import holds

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
    assert (
        isinstance(made["filters"], str) and isinstance(made["profiles"], str) and isinstance(made["connections"], list)
    )
    done = polled(asker, f"{V1}/{made['id']}", "", 1)
    assert done["status"] == 2
    lines = lines_of(http, done["report_url"])
    assert [line["Unique Mdr ID"] for line in lines] == [r["message_id"] for r in native]
    for line, row in zip(lines, native, strict=True):
        assert line["Originating Number"] == row["from_number"] and line["Terminating number"] == row["to_number"]
        assert line["CreateTimestamp(UTC)"] == row["occurred_at"][:19].replace("T", " ")
        assert line["SendTimestamp(UTC)"] == (row["sent_at"] or "")[:19].replace("T", " ")
        assert line["CompleteTimestamp(UTC)"] == (row["final_at"] or "")[:19].replace("T", " ")
        body_cell = f"'{row['body']}" if row["body"][:1] in tuple("=+-@\t\r") else row["body"]
        assert (
            line["Message Body"] == body_cell
            and line["Direction"] == row["direction"]
            and line["Status"]
            and line["Status_v2"]
        )
    assert list(lines[0]) == [cell.header for cell in telnyx.CELLS]
    assert any(r["id"] == made["id"] for r in asker.get(V1)) and any(r["id"] == made["id"] for r in asker.get(f"{V1}/"))
    assert asker.get(V1, page=1, per_page=1) == asker.get(V1)[:1] and asker.get(V1, page=99) == []
    assert asker.send("DELETE", f"{V1}/{made['id']}") == {"success": True}
    assert asker.send("DELETE", f"{V1}/{made['id']}") == {"success": False}
    asker.get(f"{V1}/{made['id']}", status=404)
    assert asker.send("POST", V1, {"start_time": START})["end_time"][:10] == format_rfc3339(NOW_MS)[:10]


def test_v2_from_asking_to_the_file_to_deleting(
    http: TestClient[Any], filled: Filled, native: list[dict[str, Any]]
) -> None:
    """Envelopes, words for numbers, `meta`; DELETE with a JSON content type and no body returns the report."""
    asker = Asker(http, bearer(auth.add_credential(filled.store.client, ACCOUNT)))
    body = {
        "start_time": START,
        "end_time": END,
        "directions": [2],
        "record_types": [1, 3],
        "connections": [],
        "profiles": [],
        "filters": [{"filter_type": "and", "cld": "+1", "cld_filter": "starts_with", "tags_list": ""}],
        "report_name": "out",
    }
    made = asker.send("POST", V2, body)["data"]
    assert made["status"] == "PENDING" and made["report_url"] is None and made["record_type"] == "mdr_report"
    assert made["directions"] == ["OUTBOUND"] and made["record_types"] == ["COMPLETED", "ERRORS"]
    assert made["filters"][0]["cld"] == "+1" and made["start_date"] == "2026-01-05T00:00:00Z"
    done = polled(asker, f"/v2/legacy_reporting/batch_detail_records/messaging/{made['id']}", "data", "PENDING")
    assert done["status"] == "COMPLETE"
    wanted = [
        r
        for r in native
        if r["direction"] == "outbound"
        and r["record_type"] in ("complete", "error")
        and r["to_number"].startswith("+1")
    ]
    lines = lines_of(http, done["report_url"])
    assert [line["Unique Mdr ID"] for line in lines] == [r["message_id"] for r in wanted] != []
    assert {line["Message Body"] for line in lines} == {""}
    told = asker.get(V2, ("page[number]", 1), ("page[size]", 1))
    assert told["meta"]["page_size"] == 1 and told["meta"]["total_results"] >= 1 and len(told["data"]) == 1
    answer = http.request("DELETE", f"{V2}/{made['id']}", headers=asker.headers | {"Content-Type": "application/json"})
    assert answer.status_code == 200 and answer.json()["data"]["id"] == made["id"]
    asker.get(f"{V2}/{made['id']}", status=404)


def condition(filters: list[dict[str, Any]]) -> Condition:
    """What filters mean."""
    found = telnyx.filters(filters)
    assert found is not None
    return found


def row(sender: str, receiver: str, *tags: str) -> dict[str, Any]:
    """A record of a sender, a receiver and tags."""
    return {"from_number": sender, "to_number": receiver, "tags": list(tags), "attributes": {}}


def test_filters_join_as_the_page_says() -> None:
    """(and1 AND and2 ...) OR or1 OR or2, with contains, starts_with, ends_with, and any of the tags."""
    both = condition(
        [
            {"filter_type": "and", "cli": "+1555", "cli_filter": "starts_with"},
            {"filter_type": "and", "cld": "99", "cld_filter": "ends_with"},
            {"filter_type": "or", "tags_list": ["vip", "new"]},
            {"filter_type": "or", "cld": "444", "cld_filter": "contains"},
        ]
    )
    for sender, receiver, tags, wanted in (
        ("+15551234567", "+4799", (), True),
        ("+15551234567", "+4798", (), False),
        ("+16661234567", "+4799", (), False),
        ("x", "+4798", ("vip",), True),
        ("x", "+4444", (), True),
        ("x", "y", ("old",), False),
    ):
        assert holds(both, row(sender, receiver, *tags)) is wanted
    lost = condition([{"filter_type": "and", "cli": " 1555", "cli_filter": "starts_with"}])
    bare = condition([{"filter_type": "and", "cli": "1555", "cli_filter": "starts_with"}])
    exact = condition([{"filter_type": "and", "cli": "15551234567"}])
    for one in (lost, bare, exact):
        assert holds(one, row("+15551234567", "y")) and not holds(one, row("+25551234567", "y"))
    assert holds(condition([{"filter_type": "and", "tags_list": "a, b"}]), row("x", "y", "b"))


@pytest.mark.parametrize(
    "filters",
    [
        [{"filter_type": "or", "cli": "1", "cli_filter": "contains"}],
        [{"cli": "1"}],
        [{"filter_type": "and"}],
        [{"filter_type": "and", "colour": "1"}],
        [{"filter_type": "and", "cli": "1", "cli_filter": "is"}],
        [{"filter_type": "and", "cli": 5}],
        [{"filter_type": "and", "tags_list": [1]}],
        [{"filter_type": "and", "cli": "1"}, {"filter_type": "or", "cli": "2"}, {"filter_type": "and", "cli": "3"}],
        ["x"],
        "x",
        [5],
    ],
)
def test_a_bad_filter_is_a_400_that_says_why(asker: Asker, filters: Any) -> None:
    """The first filter says `and`, none says `and` after an `or`, and what is not understood is refused."""
    told = asker.send("POST", V1, {"start_time": START, "filters": filters}, 400)
    assert told["field"] == "filters" and "filter" in told["error"]
    if filters not in (["x"],):
        told = asker.send("POST", V2, {"start_time": START, "end_time": END, "filters": filters}, 400)
        assert told["errors"][0]["code"] == "10015" and "filter" in told["errors"][0]["detail"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("start_time", "soon"),
        ("start_time", 5),
        ("start_time", None),
        ("end_time", "2025-01-01T00:00:00Z"),
        ("record_types", [4]),
        ("record_types", ["1"]),
        ("connections", {}),
        ("profiles", [None]),
        ("timezone", "Mars/Base"),
        ("timezone", "../etc/passwd"),
        ("report_name", 5),
        ("colour", 1),
        ("start_time", "2020-01-01"),
        ("include_message_body", "yes"),
        ("directions", ["up"]),
        ("connections", ["1"] * 101),
    ],
)
def test_a_bad_field_is_a_400_that_names_it(asker: Asker, field: str, value: Any) -> None:
    """Both versions name the field in their own shape."""
    body = {"start_time": START, "end_time": END, field: value}
    told = asker.send("POST", V1, body, 400)
    assert (told["field"] if field != "end_time" else "end_time") == field and field in told["error"]
    if field != "connections" or isinstance(value, dict):
        error = asker.send("POST", V2, body, 400)["errors"][0]
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
