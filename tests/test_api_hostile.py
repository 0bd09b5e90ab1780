"""Words made to break out: in every filter, cursor, id and body; nothing leaks, nothing fails, no SQL is told."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote, urlencode

import pytest
from litestar.testing import TestClient

from api import auth, query
from api.cursor import Key, encode_cursor
from api.vendors import carrierx, plivo
from api.where import SCALARS, Range, Scope
from streams.simulate import Plan
from streams.store import Store
from tests.api_support import START_MS, Clock, Filled, bearer, fill, served

NOW_MS: Final = START_MS + 20 * 3_600_000
KEY: Final = "MAHHHHHHHHHHHHHHHHHH"
WORDS: Final = ("' OR 1=1 --", "\\' OR '1'='1", "'); DROP TABLE mdr.mdrs; --", "{p0:String}", "%' OR '%'='")
TELNYX: Final = "/v2/legacy/reporting/batch_detail_records/messaging"
SPAN: Final = {"start_time": "2026-01-05", "end_time": "2026-01-06"}


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    """Settled messages of others."""
    store = Store(f"chdb://{tmp_path_factory.mktemp('store')}")
    yield fill(store, Plan(60, seed=8, rate_per_s=0.05))
    store.close()


@pytest.fixture(scope="module")
def http(filled: Filled, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient[Any]]:
    """The application upon that store."""
    with served(filled.store.url, tmp_path_factory.mktemp("data"), Clock(NOW_MS)) as client:
        yield client


@pytest.fixture(scope="module")
def headers(filled: Filled) -> dict[str, str]:
    """The credential of an account that has no records."""
    return bearer(auth.add_credential(filled.store.client, "nobody", key=KEY))


def harmless(answer: Any) -> Any:
    """The JSON of an answer that neither failed nor tells how it was made."""
    assert answer.status_code < 500, answer.text
    for sign in ("SELECT", "FROM mdr", "ClickHouse", "Traceback", "DB::", ".py"):
        assert sign not in answer.text, answer.text
    return json.loads(answer.content)


@pytest.mark.parametrize("word", WORDS)
def test_sql_in_every_filter(http: TestClient[Any], headers: dict[str, str], filled: Filled, word: str) -> None:
    """Whatever a filter holds is compared, never run: no row of another account, and all of them are still there."""
    asks = [("/mdr/records", name) for name in (*SCALARS, "tags", f"attributes.{word}")]
    asks += [("/mdr/stats", "state"), ("/mdr/stats", f"attributes.{word}")]
    asks += [(f"/v1/Account/{KEY}/Message/", name) for name in plivo.PARAMETERS]
    for path, name in asks:
        told = harmless(http.get(f"{path}?{urlencode({name: word})}", headers=headers))
        assert not any(told.get(rows) for rows in ("records", "stats", "objects")), (path, name)
    text = word.replace("'", "\\'")
    for field in carrierx.FIELDS:
        terms = [f"{field} {op} '{text}'" for op in ("eq", "ne", "like")]
        # All in one statement; where one of them is refused, each by itself.
        for asked in (" and ".join(terms), *terms):
            answer = http.get(f"/core/v2/sms/message_drs?{urlencode({'filter': asked})}", headers=headers)
            assert not harmless(answer).get("items"), asked
            if " and " in asked and answer.status_code == 200:
                break
    assert query.count(filled.store.client, query.Listing(Scope(None), Range(0, 1 << 42))) == len(filled.truth.records)


@pytest.mark.parametrize("word", WORDS)
def test_sql_in_every_body(http: TestClient[Any], headers: dict[str, str], word: str) -> None:
    """A report's fields are values too: it is refused by name, or built without a row of another account."""
    entry = {"filter_type": "and", "cli": word, "cli_filter": "contains", "tags_list": word}
    bodies = [(TELNYX, SPAN | {"filters": [entry]}), (TELNYX, SPAN | {"profiles": [word], "report_name": word}),
              (TELNYX, SPAN | {"timezone": word}), (TELNYX, SPAN | {"managed_accounts": [word]}),
              ("/reporting/mdr_requests", SPAN | {"connections": [word]}), ("/mdr/reports", {"filters": {"state": word}}),
              ("/mdr/reports", {"filters": {f"attributes.{word}": word}}), ("/mdr/reports", {"filters": {word: "x"}}),
              ("/mdr/reports", {"format": word}), ("/mdr/reports", {"name": word})]  # fmt: skip
    for path, body in bodies:
        told = harmless(http.post(path, headers=headers, json=body))
        made = told.get("data", told)
        name = made.get("report_id") or made.get("id")
        if name:
            harmless(http.delete(f"{path}/{name}", headers=headers))


def test_tampered_cursors(http: TestClient[Any], headers: dict[str, str], filled: Filled) -> None:
    """A cursor that was changed is refused, and one that was made up grants nothing."""
    account = next(iter(filled.truth.records.values()))["account_id"]
    forged = encode_cursor(Key(0, "", "", account))
    told = harmless(http.get(f"/mdr/records?start=2026-01-05&cursor={forged}", headers=headers))
    assert told["records"] == []
    values: list[Any] = [
        [], {}, 1, None, "x", [1], ["1", "a", "b", "c"], [1, "a", "b"], [1, "a", "b", 2], [1.5, "a", "b", "c"],
        [1 << 60, "a", "b", "c"], [-1 << 60, "a", "b", "c"], [True, "a", "b", "c"], [1, "a", "b", "c", "d"],
    ]  # fmt: skip
    texts = [base64.urlsafe_b64encode(json.dumps(v).encode()).decode().rstrip("=") for v in values]
    texts += [forged[:-3], forged + "AAAA", forged[::-1], "%", "A" * 5_000, "../../etc/passwd", "\u202e"]
    for text in texts:
        answer = http.get(f"/mdr/records?{urlencode({'cursor': text})}", headers=headers)
        assert (answer.status_code, harmless(answer).get("field")) == (400, "cursor"), text


def test_ids_of_others_and_of_nobody(http: TestClient[Any], headers: dict[str, str], filled: Filled) -> None:
    """Another account's id, and any made-up one, is the same 404 on every face, link and report."""
    other = next(m for _, m in filled.truth.records)
    made_up = "11111111-1111-4111-8111-111111111111"
    places = [
        "/mdr/records/{}", "/core/v2/sms/message_drs/{}", "/sms/message_drs/{}", f"/v1/Account/{KEY}/Message/{{}}/",
        "/mdr/reports/{}", "/mdr/files/{}", "/reporting/mdr_requests/{}", TELNYX + "/{}", "/mdr/credentials/{}",
    ]  # fmt: skip
    for place in places:
        answers = [http.get(place.format(quote(name, safe="")), headers=headers) for name in (other, made_up, *WORDS)]
        told = {(a.status_code, a.text.replace(other, "")) for a in answers if a.status_code != 405}
        assert len({status for status, _ in told} | {404}) == 1, place
        assert len({a.text for a in answers[:2]}) == 1, place
    for version, prefix in (("v2", "mdr1"), ("v2.1", "mdr2")):
        path = f"/{version}/messages/{prefix}-"
        texts = {http.get(path + name.replace("-", ""), headers=headers).text for name in (other, made_up)}
        assert len(texts) == 1 and "404" in texts.pop()
    assert http.get("/mdr/credentials", headers=headers).status_code == 403
