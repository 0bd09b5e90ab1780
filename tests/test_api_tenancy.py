"""Nobody sees a row outside what the tree of accounts and the scopes allow: on any path, filter, cursor or link."""

from __future__ import annotations

import csv
import io
import json
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from litestar.testing import TestClient

from api import auth, query
from api.query import Key, encode_cursor
from streams.simulate import Plan
from streams.store import Store
from tests.api_support import START_MS, Asker, Clock, Filled, bearer, fill, served

NOW_MS = START_MS + 5 * 3_600_000
SPAN: dict[str, Any] = {"start": "2026-01-05T00:00:00Z", "end": "2026-01-06T00:00:00Z"}
SCOPES = st.sampled_from(
    [(auth.READ,), (auth.MANAGE,), (auth.READ, auth.DESCENDANTS), (auth.MANAGE, auth.DESCENDANTS), (auth.DESCENDANTS,)]
)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    """Settled and open messages of many accounts."""
    store = Store(f"chdb://{tmp_path_factory.mktemp('store')}")
    yield fill(store, Plan(250, seed=13, rate_per_s=0.015), NOW_MS)
    store.close()


@pytest.fixture(scope="module")
def http(filled: Filled, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient[Any]]:
    """The application upon that store."""
    with served(filled.store.url, tmp_path_factory.mktemp("data"), Clock(NOW_MS)) as client:
        yield client


def below(parents: dict[str, str], account: str) -> set[str]:
    """The accounts below an account, by walking up from each."""
    found = set()
    for one in parents:
        at = parents[one]
        while at:
            if at == account:
                found.add(one)
            at = parents.get(at, "")
    return found


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
def test_nobody_sees_beyond_the_tree(filled: Filled, http: TestClient[Any], data: st.DataObject) -> None:
    """For random trees, scopes and ways to ask, what is seen is within what may be seen; a full walk sees all of it."""
    client = filled.store.client
    owners = {message_id: row["account_id"] for (_, message_id), row in filled.truth.records.items()}
    accounts = sorted(set(owners.values()))
    client.command("TRUNCATE TABLE mdr.accounts")
    parents: dict[str, str] = {}
    for n, account in enumerate(accounts):
        parents[account] = data.draw(st.sampled_from(["", *accounts[:n]]))
        auth.add_account(client, account, parents[account])
    me = data.draw(st.sampled_from(accounts))
    scopes = data.draw(SCOPES)
    asker = Asker(http, bearer(auth.add_credential(client, me, scopes=scopes)))
    if not set(scopes) & {auth.READ, auth.MANAGE}:
        for path in (
            "/mdr/records",
            "/v2.1/messages?start_date=2026-01-05",
            "/core/v2/sms/message_drs",
            "/reporting/mdr_requests",
            "/mdr/reports",
        ):
            asker.get(path, status=403)
        return
    allowed = {me} | (below(parents, me) if auth.DESCENDANTS in scopes else set())
    seen = {row["message_id"] for row in asker.get("/mdr/records", limit=1000, include="pending", **SPAN)["records"]}
    assert seen == {m for m, owner in owners.items() if owner in allowed}
    _ask_around(asker, data, owners, allowed)
    _report(asker, http, owners, allowed)


def _ask_around(asker: Asker, data: st.DataObject, owners: dict[str, str], allowed: set[str]) -> None:
    other = data.draw(st.sampled_from(sorted(owners)))
    cursor = encode_cursor(Key(START_MS, other, "outbound", owners[other]))
    told = asker.get("/mdr/records", limit=50, include="pending", cursor=cursor, **SPAN)
    assert {owners[r["message_id"]] for r in told["records"]} <= allowed
    told = asker.get("/mdr/records", include="pending", account_id=owners[other], **SPAN)
    assert bool(told["records"]) == (owners[other] in allowed)
    asker.get(f"/mdr/records/{other}", status=200 if owners[other] in allowed else 404)
    told = asker.get("/v2.1/messages", start_date="2026-01-05", limit=1000)
    assert {i["id"][5:] for i in told["data"]} == {
        m.replace("-", "") for m, owner in owners.items() if owner in allowed
    }
    asker.get(f"/v2/messages/mdr1-{other.replace('-', '')}", status=200 if owners[other] in allowed else 404)
    told = asker.get("/core/v2/sms/message_drs", limit=1000, filter=f"partner_sid eq {owners[other]}")
    assert {i["partner_sid"] for i in told["items"]} == ({owners[other]} & allowed) and told["total"] == told["count"]
    asker.get("/core/v2/sms/message_drs", after=other, status=200 if owners[other] in allowed else 400)
    asker.get(f"/core/v2/sms/message_drs/{other}", status=200 if owners[other] in allowed else 404)
    key = asker.headers["Authorization"].removeprefix("Bearer ").partition(".")[0]
    told = asker.get(f"/v1/Account/{key}/Message/", message_time__gte="2026-01-05")
    assert {owners[o["message_uuid"]] for o in told["objects"]} <= allowed
    asker.get(f"/v1/Account/{key}/Message/{other}/", status=200 if owners[other] in allowed else 404)
    told = asker.get("/mdr/stats", by="account", **SPAN)
    assert {row["account_id"] for row in told["stats"]} <= allowed


def _report(asker: Asker, http: TestClient[Any], owners: dict[str, str], allowed: set[str]) -> None:
    told = asker.send("POST", "/mdr/reports", {"format": "csv", **SPAN}, 202)
    end = time.monotonic() + 60
    while told["status"] in ("pending", "running"):
        assert time.monotonic() < end
        threading.Event().wait(0.02)
        told = asker.get(f"/mdr/reports/{told['report_id']}")
    content = http.get(told["url"].removeprefix("http://testserver.local")).content.decode()
    rows = list(csv.DictReader(io.StringIO(content, newline="")))
    assert {row["account_id"] for row in rows} <= allowed and all(owners[row["message_id"]] in allowed for row in rows)


def test_hostile_words_leak_nothing_anywhere(filled: Filled, http: TestClient[Any]) -> None:
    """SQL, formulas, tampered ids and cursors: no 5xx, no other account's row, no SQL in an answer."""
    issued = auth.add_credential(filled.store.client, "nobody-at-all", key="MAZZZZZZZZZZZZZZZZZZ")
    words = [
        "' OR 1=1 --",
        "\\' OR 1=1",
        "'; DROP TABLE mdr.mdrs; --",
        "{p0:String}",
        "%",
        "_",
        "\\",
        "a\tb",
        "1) OR (1=1",
        "`",
        "\u202e",
        "null",
    ]
    paths = (
        ("/mdr/records", ("account_id", "state", "attributes.x", "tags", "cursor", "start", "include", "segments")),
        ("/mdr/stats", ("by", "state")),
        ("/v2.1/messages", ("start_date", "limit")),
        ("/v1/Account/MAZZZZZZZZZZZZZZZZZZ/Message/", ("from_number", "error_code", "message_time", "subaccount")),
        ("/core/v2/sms/message_drs", ("filter", "order", "fields", "after", "before")),
        ("/reporting/mdr_requests", ("page",)),
    )
    for path, names in paths:
        for name in names:
            for word in (*words, *(f"status eq '{w}" for w in words[:3])):
                answer = http.get(f"{path}?{urlencode({name: word})}", headers=bearer(issued))
                assert answer.status_code < 500, (path, name, word, answer.text)
                assert "SELECT" not in answer.text and "ClickHouse" not in answer.text
                told = json.loads(answer.content)
                rows = (
                    told
                    if isinstance(told, list)
                    else told.get("records") or told.get("data") or told.get("items") or told.get("objects")
                )
                assert not rows, (path, name, word)
    for word in words:
        for path in (
            "/mdr/records/",
            "/v2.1/messages/",
            "/core/v2/sms/message_drs/",
            "/reporting/mdr_requests/",
            "/mdr/reports/",
            "/mdr/files/",
        ):
            answer = http.get(f"{path}{urlencode({'': word})[1:]}", headers=bearer(issued))
            assert answer.status_code == 404, (path, word)
    assert query.count(filled.store.client, query.Listing(query.Scope(None), query.Range(0, 1 << 42))) > 100
