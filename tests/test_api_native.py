"""The paths under `/mdr/`: records, statistics, credentials, probes, limits (`api.app`, `api.native`, `api.auth`)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from litestar.testing import TestClient

from api import auth
from schemas.times import format_rfc3339
from streams.simulate import Plan
from streams.store import Store
from tests.api_support import OPERATOR, START_MS, Asker, Clock, Filled, basic, bearer, fill, ids, served

CUT_MS = START_MS + 5 * 3_600_000
SPAN: dict[str, Any] = {"start": format_rfc3339(START_MS - 86_400_000), "end": format_rfc3339(CUT_MS)}


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    """Settled and open messages of several accounts."""
    store = Store(f"chdb://{tmp_path_factory.mktemp('store')}")
    yield fill(store, Plan(400, seed=11, rate_per_s=0.025), CUT_MS)
    store.close()


@pytest.fixture(scope="module")
def http(filled: Filled, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient[Any]]:
    """The application upon that store."""
    with served(filled.store.url, tmp_path_factory.mktemp("data"), Clock(CUT_MS)) as client:
        yield client


@pytest.fixture(scope="module")
def operator(http: TestClient[Any]) -> Asker:
    """Asks as the operator."""
    return Asker(http, basic(*OPERATOR))


def walk(asker: Asker, path: str, **params: Any) -> list[dict[str, Any]]:
    """Every record, following the `Link` header."""
    found: list[dict[str, Any]] = []
    response = asker.client.get(path, params=params, headers=asker.headers)
    while True:
        assert response.status_code == 200, response.text
        found += response.json()["records"]
        link = response.headers.get("Link")
        assert (link is None) == (response.json()["next_cursor"] is None)
        if link is None:
            return found
        match = re.fullmatch(r"<http://testserver.local(.*)>; rel=\"next\"", link)
        assert match
        response = asker.client.get(match[1], headers=asker.headers)


def test_link_pages_lead_to_every_record_once(operator: Asker, filled: Filled) -> None:
    """Following `Link: rel=next` gives every message once, whatever the page size."""
    for limit in (40, 1000):
        found = walk(operator, "/mdr/records", limit=limit, include="pending", **SPAN)
        assert len(found) == len(set(ids(found))) and set(ids(found)) == set(filled.truth.records)


def test_without_a_range_the_last_day_is_told(operator: Asker, filled: Filled) -> None:
    """The default range is the 24 hours before now."""
    told = operator.get("/mdr/records", include="pending", limit=1000)
    assert set(ids(told["records"])) == set(filled.truth.records)
    assert told["settled_through"].endswith("Z") and told["next_cursor"] is None


def test_filters_select_by_any_scalar_column_tags_and_attributes(operator: Asker) -> None:
    """Each filter gives the rows that hold the value; several values of one column are alternatives."""
    every = operator.get("/mdr/records", limit=1000, **SPAN)["records"]
    for name in (
        "state",
        "account_id",
        "from_number",
        "segments",
        "amount_nanos",
        "country",
        "occurred_at",
        "error_code",
    ):
        for value in {row[name] for row in every[::29]}:
            told = operator.get("/mdr/records", limit=1000, **SPAN, **{name: value})["records"]
            assert told == [row for row in every if row[name] == value], name
    both = operator.get("/mdr/records", ("state", "failed"), ("state", "received"), limit=1000, **SPAN)["records"]
    assert both == [row for row in every if row["state"] in ("failed", "received")]
    tags = {tag for row in every for tag in row["tags"]}
    for tag in tags:
        assert operator.get("/mdr/records", limit=1000, tags=tag, **SPAN)["records"] == [
            r for r in every if tag in r["tags"]
        ]
    attributes = {pair for row in every for pair in row["attributes"].items()}
    for key, value in sorted(attributes)[:3]:
        told = operator.get("/mdr/records", limit=1000, **SPAN, **{f"attributes.{key}": value})["records"]
        assert told and told == [r for r in every if r["attributes"].get(key) == value]


def test_a_plus_that_a_url_lost_is_found_again(operator: Asker) -> None:
    """`from_number=+1...` without percent-encoding means the number, and so does an offset of a time."""
    row = operator.get("/mdr/records", limit=1000, direction="inbound", **SPAN)["records"][0]
    lost = operator.client.get(
        f"/mdr/records?start=2026-01-04T00:00:00+00:00&end=2026-01-06T00:00:00+01:00&from_number={row['from_number']}",
        headers=operator.headers,
    )
    assert row["message_id"] in [r["message_id"] for r in lost.json()["records"]]


def test_a_number_is_found_in_each_form(operator: Asker) -> None:
    """With its `+`, without it, with a blank where a URL lost it, and by how it begins; a name as it is."""
    every = operator.get("/mdr/records", limit=1000, include="pending", **SPAN)["records"]
    number = next(row["to_number"] for row in every if row["to_number"].startswith("+"))
    wanted = [row for row in every if row["to_number"] == number]
    for form in (number, number[1:], f" {number[1:]}"):
        assert operator.get("/mdr/records", limit=1000, include="pending", to_number=form, **SPAN)["records"] == wanted
    begun = [row for row in every if row["to_number"].startswith(number[:4])]
    for form in (f"{number[:4]}*", f"{number[1:4]}*", f" {number[1:4]}*"):
        assert operator.get("/mdr/records", limit=1000, include="pending", to_number=form, **SPAN)["records"] == begun
    both = operator.get(
        "/mdr/records", ("to_number", number), ("to_number", "nobody"), limit=1000, include="pending", **SPAN
    )
    assert both["records"] == wanted and len(begun) >= len(wanted) > 0


def test_words_of_few_columns_ignore_case(operator: Asker) -> None:
    """`state`, `direction`, `record_type` and `country` are found in any case."""
    every = operator.get("/mdr/records", limit=1000, include="pending", **SPAN)["records"]
    for name in ("state", "direction", "record_type", "country"):
        for value in {row[name] for row in every}:
            for form in (value.upper(), value.lower()):
                told = operator.get("/mdr/records", (name, form), limit=1000, include="pending", **SPAN)["records"]
                assert told == [row for row in every if row[name] == value], (name, form)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("foo=1", "foo"),
        ("start=yesterday", "start"),
        ("end=2026-13-01", "end"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=ten", "limit"),
        ("limit=1&limit=2", "limit"),
        ("cursor=x", "cursor"),
        ("cursor=WzFd", "cursor"),
        ("include=all", "include"),
        ("start=2026-02-01T00:00:00Z&end=2026-01-01T00:00:00Z", "start"),
        ("start=2020-01-01T00:00:00Z", "start"),
        ("segments=two", "segments"),
        ("segments=99999999999999999999999", "segments"),
        ("timeline.state=sent", "timeline.state"),
        ("attributes.=x", "attributes."),
        ("facts=x", "facts"),
        ("shard=1", "shard"),
        ("media_urls=x", "media_urls"),
        ("state=%00", "state"),
        ("settled_at=now", "settled_at"),
        ("direction=inbound;%20DROP%20TABLE%20mdr.mdrs", "direction"),
        ("tags=x&x=1", "x"),
        ("state=lost", "state"),
        ("state=", "state"),
        ("record_type=done", "record_type"),
        ("direction=up", "direction"),
        ("country=USA", "country"),
        ("country=1", "country"),
        ("amount_nanos=9223372036854775808", "amount_nanos"),
        ("start=0000-01-01T00:00:00Z", "start"),
        ("occurred_at=10000-01-01T00:00:00Z", "occurred_at"),
    ],
)
def test_a_bad_parameter_is_named(operator: Asker, query: str, field: str) -> None:
    """What is wrong is a 400 of problem+json whose `field` names it."""
    response = operator.client.get(f"/mdr/records?{query}", headers=operator.headers)
    assert response.status_code == 400 and response.headers["content-type"] == "application/problem+json"
    told = response.json()
    assert told["field"] == field and field in told["detail"] and told["status"] == 400


@pytest.mark.parametrize(
    "text",
    ["'", "\\", "' OR 1=1 --", "'; DROP TABLE mdr.mdrs; --", "{p0:String}", "%", "\n\t", "\ud83d\ude00", "a\\'b"],
)
def test_a_hostile_value_is_a_value(operator: Asker, text: str) -> None:
    """SQL in a filter selects nothing and breaks nothing."""
    value = text.encode("utf-16", "surrogatepass").decode("utf-16")
    for name in ("account_id", "provider", "body", "attributes.x", "tags", "message_id", "from_number"):
        assert operator.get("/mdr/records", (name, value))["records"] == []
    operator.get(f"/mdr/records/{value.encode().hex()}", status=404)
    assert operator.get("/mdr/records", limit=1)["records"] != []


def test_one_record_by_its_id(operator: Asker, filled: Filled) -> None:
    """By id comes the record with its timeline, outbound first; an unknown id is a 404 in problem+json."""
    for direction, message_id in list(filled.truth.records)[::40]:
        told = operator.get(f"/mdr/records/{message_id}", direction=direction)
        assert (told["direction"], told["message_id"]) == (direction, message_id)
        assert told["timeline"] and "settled_through" in told and "facts" not in told
    operator.get("/mdr/records/nothing%2Fhere", status=404)
    assert operator.get("/mdr/records/x", status=400, direction="up")["field"] == "direction"


def test_statistics_add_up_to_the_records(operator: Asker) -> None:
    """Counts and amounts by any grouping sum to those of the records; rates and delays are exact."""
    every = operator.get("/mdr/records", limit=1000, **SPAN)["records"]
    for by in ("", "hour", "day", "account", "provider", "mcc-mnc", "country", "error", "day,account,direction"):
        rows = operator.get("/mdr/stats", by=by, **SPAN)["stats"]
        assert sum(r["messages"] for r in rows) == len(every)
        assert sum(r["amount_nanos"] for r in rows) == sum(r["amount_nanos"] for r in every)
        assert sum(r["delivered"] for r in rows) == sum(r["state"] == "delivered" for r in every)
    assert operator.get("/mdr/stats", by="colour", status=400)["field"] == "by"
    (one,) = operator.get("/mdr/stats", currency="USD", direction="outbound", **SPAN)["stats"][:1]
    out = [r for r in every if r["currency"] == "USD" and r["direction"] == "outbound"]
    assert one["delivery_rate"] == pytest.approx(sum(r["state"] == "delivered" for r in out) / len(out))
    assert one["unconfirmed_share"] == pytest.approx(sum(r["record_type"] == "incomplete" for r in out) / len(out))
    assert one["delivery_ms_p50"] <= one["delivery_ms_p90"] <= one["delivery_ms_p99"]


def test_a_credential_works_in_every_form_until_it_is_revoked(
    http: TestClient[Any], filled: Filled, operator: Asker
) -> None:
    """Basic, Bearer and the x-api headers are one credential; a wrong secret is a 401; revoking ends it at once."""
    account = next(iter(filled.truth.records.values()))["account_id"]
    made = operator.send("POST", "/mdr/credentials", {"account_id": account, "key": "MAXXXXXXXXXXXXXXXXXX"}, 201)
    forms = [
        basic(made["key"], made["secret"]),
        {"Authorization": f"Bearer {made['bearer']}"},
        {"x-api-user": made["key"], "x-api-token": made["secret"]},
    ]
    for headers in forms:
        rows = Asker(http, headers).get("/mdr/records", include="pending", limit=1000)["records"]
        assert rows and {row["account_id"] for row in rows} == {account}
    for headers in (
        basic(made["key"], "wrong"),
        basic("", ""),
        {"Authorization": "Bearer x"},
        {"Authorization": "Basic ?"},
        {},
    ):
        Asker(http, headers).get("/mdr/records", status=401)
    Asker(http, forms[0]).get("/mdr/credentials", status=403)
    listed = operator.get("/mdr/credentials")["credentials"]
    assert [c["account_id"] for c in listed if c["key"] == made["key"]] == [account]
    assert not any("secret" in name for c in listed for name in c)
    operator.send("DELETE", f"/mdr/credentials/{made['key']}")
    for headers in forms:
        Asker(http, headers).get("/mdr/records", status=401)
    operator.send("DELETE", f"/mdr/credentials/{made['key']}", status=404)
    operator.send("POST", "/mdr/credentials", {"account_id": account, "key": made["key"]}, 400)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "account_id"),
        ({"account_id": 1}, "account_id"),
        ({"account_id": "a", "x": 1}, "x"),
        ({"account_id": "a", "scopes": "sms.read"}, "scopes"),
        ({"account_id": "a", "scopes": ["all"]}, "scopes"),
        ({"account_id": "a", "key": "a.b"}, "key"),
        ({"account_id": "a", "parent_id": "a"}, "parent_id"),
        ({"account_id": "\n"}, "account_id"),
    ],
)
def test_a_bad_credential_is_refused(operator: Asker, body: dict[str, Any], field: str) -> None:
    """What a credential cannot be is a 400 that names the field."""
    assert operator.send("POST", "/mdr/credentials", body, 400).get("field", "") == field


def test_the_tree_of_accounts_stays_a_tree(filled: Filled) -> None:
    """An account cannot come below itself; a parent is made when it is missing."""
    client = filled.store.client
    auth.add_account(client, "leaf", "branch")
    auth.add_account(client, "branch", "root")
    assert auth.descendants("root", auth.tree(client)) == ("branch", "leaf")
    for account, parent in (("root", "leaf"), ("leaf", "leaf")):
        with pytest.raises(auth.AccessError):
            auth.add_account(client, account, parent)


def test_another_accounts_records_do_not_exist(http: TestClient[Any], filled: Filled) -> None:
    """Other accounts' ids are 404 and filters on them empty; with the descendant scope those below appear."""
    client = filled.store.client
    accounts = sorted({r["account_id"] for r in filled.truth.records.values()})[:3]
    auth.add_account(client, accounts[1], accounts[0])
    own = Asker(http, bearer(auth.add_credential(client, accounts[0])))
    wide = Asker(http, bearer(auth.add_credential(client, accounts[0], scopes=(auth.READ, auth.DESCENDANTS))))
    none = Asker(http, bearer(auth.add_credential(client, accounts[0], scopes=(auth.DESCENDANTS,))))
    for (_, message_id), row in filled.truth.records.items():
        if row["account_id"] in accounts[1:]:
            own.get(f"/mdr/records/{message_id}", status=404)
            wide.get(f"/mdr/records/{message_id}", status=200 if row["account_id"] == accounts[1] else 404)
    assert own.get("/mdr/records", account_id=accounts[1], include="pending")["records"] == []
    assert wide.get("/mdr/records", account_id=accounts[1], include="pending")["records"] != []
    assert wide.get("/mdr/records", account_id=accounts[2], include="pending")["records"] == []
    assert {r["account_id"] for r in wide.get("/mdr/stats", by="account", **SPAN)["stats"]} <= set(accounts[:2])
    none.get("/mdr/records", status=403)


def test_too_many_requests_are_told_to_wait(filled: Filled, tmp_path: Path) -> None:
    """Beyond the rate of a credential the answer is 429 with Retry-After, until time has passed; others go on."""
    client, clock = filled.store.client, Clock(CUT_MS)
    one, other = auth.add_credential(client, "a"), auth.add_credential(client, "a")
    with served(filled.store.url, tmp_path, clock, requests_per_s=1.0, burst=3) as http:
        for status in (200, 200, 200, 429):
            response = http.get("/mdr/records", headers=bearer(one))
            assert response.status_code == status
        assert int(response.headers["Retry-After"]) >= 1 and "1 request" in response.json()["detail"]
        assert http.get("/mdr/records", headers=bearer(other)).status_code == 200
        clock.now_ms += 1000 * int(response.headers["Retry-After"])
        assert http.get("/mdr/records", headers=bearer(one)).status_code == 200


def test_unknown_paths_methods_and_large_bodies_are_problems(operator: Asker) -> None:
    """What no route takes is problem+json too."""
    for method, path, body, status in (
        ("GET", "/nothing", b"", 404),
        ("PUT", "/mdr/records", b"", 405),
        ("POST", "/mdr/reports", b" " * 1_100_000, 413),
        ("POST", "/mdr/reports", b"{", 400),
        ("POST", "/mdr/reports", b"[]", 400),
    ):
        headers = operator.headers | {"Content-Type": "application/json"}
        response = operator.client.request(method, path, headers=headers, content=body)
        assert response.status_code == status, path
        assert response.headers["content-type"] == "application/problem+json" and response.json()["status"] == status


def test_probes_tell_the_workers_state(filled: Filled, tmp_path: Path) -> None:
    """`/livez` and `/readyz` need no credential; what the worker says decides, and the reasons are told."""
    told: dict[str, Any] = {"live": True, "ready": False, "reasons": ["recovering"]}

    with served(filled.store.url, tmp_path, Clock(CUT_MS), health=lambda: told, metrics=lambda: b"one 1\n") as http:
        assert http.get("/livez").status_code == 200
        response = http.get("/readyz")
        assert response.status_code == 503 and response.json()["reasons"] == ["recovering"]
        told["ready"] = True
        assert http.get("/readyz").status_code == 200
        assert http.get("/metrics").text.startswith("one 1\n")
        assert http.get("/metrics").headers["content-type"].startswith("text/plain; version=0.0.4")


class Watcher:
    """Somebody who watches the lag."""

    def report(self) -> dict[str, Any]:
        return {"status": "ok", "agents": []}

    def history(self) -> dict[str, Any]:
        return {"every_seconds": 10, "points": []}


def test_lag_is_told_to_the_operator_alone(filled: Filled, tmp_path: Path) -> None:
    """Who watches the lag is asked for it; an account's credential is refused, and so is nobody's."""
    key = auth.add_credential(filled.store.client, "acme-of-lag")
    with served(filled.store.url, tmp_path, Clock(CUT_MS), lag=Watcher()) as http:
        asker = Asker(http, basic(*OPERATOR))
        assert asker.get("/mdr/lag") == {"status": "ok", "agents": []}
        history = asker.get("/mdr/lag/history")
        assert history["points"] == [] and "settled_through" in history
        assert http.get("/mdr/lag").status_code == 401
        refused = http.get("/mdr/lag", headers=basic(key.key, key.secret))
        assert refused.status_code == 403 and refused.headers["content-type"] == "application/problem+json"
