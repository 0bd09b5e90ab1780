"""The pages as a browser gets them: what each shows, and what an empty one says (`api.pages`)."""

from __future__ import annotations

import base64
import html as escapes
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
import pytest
from litestar.testing import TestClient

from api import auth, query
from api.dead_letters import Filter
from api.pages import figures, flow
from schemas.times import format_rfc3339
from tests.api_support import OPERATOR, Asker, Clock, Filled, basic, served
from tests.pages_support import ALL, HOSTILE, LETTER, NOW_MS, Browser, Letters, Watch, filled_store


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    """A store with records."""
    with filled_store(tmp_path_factory.mktemp("store")) as done:
        yield done


@pytest.fixture(scope="module")
def letters() -> Letters:
    """The dead letters."""
    return Letters(LETTER)


@pytest.fixture(scope="module")
def http(filled: Filled, letters: Letters, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient[Any]]:
    """The application upon that store."""
    data = tmp_path_factory.mktemp("data")
    with served(filled.store.url, data, Clock(NOW_MS), lag=Watch(), letters=letters) as client:
        yield client


@pytest.fixture(scope="module")
def operator(http: TestClient[Any]) -> Browser:
    """The operator, signed in."""
    return Browser(http, *OPERATOR)


@pytest.fixture(scope="module")
def told(http: TestClient[Any]) -> list[dict[str, Any]]:
    """Every record and open message, as the API tells them."""
    ask: dict[str, Any] = {"include": "pending", "limit": 1000, "start": format_rfc3339(NOW_MS - 86_400_000)}
    rows: list[dict[str, Any]] = Asker(http, basic(*OPERATOR)).get("/mdr/records", **ask)["records"]
    assert {row["record_type"] for row in rows} == {"complete", "incomplete", "error", "pending"}
    return rows


@pytest.fixture(scope="module")
def tenant(http: TestClient[Any], filled: Filled) -> Browser:
    """A key of an account with records, signed in."""
    account = sorted({row["account_id"] for row in filled.truth.records.values()})[0]
    issued = auth.add_credential(filled.store.client, account)
    return Browser(http, issued.key, issued.secret)


def test_the_flow_says_what_is_wrong(operator: Browser) -> None:
    """Status, reasons, lag in events and seconds, backlog and history are there; what is not known is a dash."""
    text = operator.get("/ui/flow")
    for said in (
        "Stalled",
        "ClickHouse &lt;away&gt;",
        "1,234",
        "1 min 5 s",
        "oldest",
        "&lt; 10 min",
        "<polyline",
        "nothing was committed",
    ):
        assert said in text
    assert '<p class="big">– <small>records/s</small>' in text


def test_the_flow_of_a_process_that_knows_none_is_honest(filled: Filled, tmp_path: Path) -> None:
    """Without anybody who watches, the page says that it does not know; settled-through is known all the same."""
    with served(filled.store.url, tmp_path, Clock(NOW_MS)) as client:
        browser = Browser(client, *OPERATOR)
        text = browser.get("/ui/flow")
        assert "Not known" in text and "Nobody watches the lag in this process." in text and "2026-01-05" in text
        assert "cannot be read" in browser.get("/ui/dead-letters", 503)


def test_rows_and_figures_are_those_of_the_records(operator: Browser, told: list[dict[str, Any]]) -> None:
    """Every record of a range is on one of its pages once, newest first, and the totals count them."""
    path, found = ALL, []
    while path:
        text = operator.get(path)
        found += re.findall(r'href="/ui/messages/([^"?]+)\?direction=(\w+)"', text)
        more = re.search(r'<a href="([^"]+)" rel="next">', text)
        path = escapes.unescape(more[1]) if more else ""
    newest = sorted(told, key=lambda r: (r["occurred_at"], r["message_id"], r["direction"]), reverse=True)
    assert found == [(quote(r["message_id"], safe=""), r["direction"]) for r in newest]
    settled = sum(row["record_type"] != "pending" for row in told)
    assert f"<h2>Records</h2><p>{settled}</p>" in operator.get(ALL)


def test_the_volume_adds_up(operator: Browser, told: list[dict[str, Any]]) -> None:
    """The legend's counts are the records by state, and the open messages."""
    counted = {m[1].strip(): int(m[2]) for m in re.finditer(r"</i>([a-z, ]+) <b>(\d+)</b>", operator.get(ALL))}
    assert counted["delivered"] == sum(r["state"] == "delivered" for r in told)
    assert counted["open"] == sum(r["record_type"] == "pending" for r in told)
    assert sum(counted.values()) == len(told)


def test_blanks_of_the_form_leave_the_url(operator: Browser) -> None:
    """A form's blank fields are taken out, a column chosen by name becomes a filter, the range gives way to bounds."""
    where = operator.get("/ui/records?range=24h&start=2026-01-05T00:00&end=&state=&also=mcc&is=310", 303)
    assert where == "/ui/records?start=2026-01-05T00%3A00&mcc=310"
    assert "mcc = 310" in operator.get(where)


@pytest.mark.parametrize(
    "query", ["start=yesterday", "foo=1", "range=2w", "cursor=x", "include=all", "segments=two", "empty=foo"]
)
def test_a_bad_filter_is_told_on_the_page(operator: Browser, query: str) -> None:
    """What is wrong with the URL is a 400 in words, above the form."""
    assert 'role="alert"' in operator.get(f"/ui/records?{query}", 400)


def test_the_copied_sql_gives_the_same_rows(operator: Browser, filled: Filled) -> None:
    """`Copy as SQL` is a statement that lists what the page lists."""
    for more in (
        "&state=delivered&direction=outbound",
        "&empty=provider",
        f"&message_id={quote(HOSTILE)}",
        "&tags=promo&state=failed&state=sent",
    ):
        text = operator.get(ALL + more)
        listed = [m[1] for m in re.finditer(r'href="/ui/messages/([^"?]+)\?direction=', text)]
        sql = escapes.unescape(re.findall(r"<pre[^>]*>(.*?)</pre>", text, re.DOTALL)[0])
        rows = filled.store.client.query(sql.replace("SELECT *", "SELECT message_id")).result_rows
        assert [escapes.unescape(mid) for mid in listed] == [quote(row[0], safe="") for row in rows]


def test_a_message_has_its_life(operator: Browser, told: list[dict[str, Any]]) -> None:
    """Events with gaps and sources, the rule that settled it and its versions are told for every kind of record."""
    rules = {"pending": "Still open", "incomplete": "No final receipt came", "error": "ettled", "complete": "ettled"}
    for row in {(r["record_type"], r["direction"], r["amendments"] > 0): r for r in told}.values():
        text = operator.get(f"/ui/messages/{quote(row['message_id'], safe='')}?direction={row['direction']}")
        assert rules[row["record_type"]] in text and 'class="life"' in text
        assert ("Versions" in text) == (row["record_type"] != "pending")
        assert ("Amended" in text) == (row["amendments"] > 0)
        assert all(event["source"] in text for event in row["timeline"])


def test_of_an_unknown_id_what_is_known_is_told(operator: Browser) -> None:
    """Orphans of an id, its dead letters, or that there is nothing at all."""
    assert "Receipts that never met their message" in operator.get("/ui/messages/lost", 404)
    key = quote(HOSTILE, safe="")
    assert "Dead letters with this key" in operator.get(f"/ui/messages/{key}")
    assert "no dead letter" in operator.get("/ui/messages/unknown", 404)
    assert operator.get("/ui/messages?id=%20a%2Fb%20", 303) == "/ui/messages/a%2Fb"
    assert "There is no message" in operator.get("/ui/messages?id=..", 404)


def test_a_report_is_asked_for_fetched_and_deleted(operator: Browser, tenant: Browser) -> None:
    """A form asks, the page shows it, the file is its rows, another account does not find it, deleting removes it."""
    asked = operator.post(
        "/ui/reports", name="All <of it>", format="jsonl", range="24h", filters="direction = outbound"
    )
    assert asked.status_code == 303
    end = time.monotonic() + 60
    while "Download" not in (text := operator.get("/ui/reports")):
        assert time.monotonic() < end and "data-refresh" in text
    match = re.search(r'href="(/ui/reports/[^"]+/file)"', text)
    assert match and "All &lt;of it&gt;" in text and "direction = outbound" in text
    operator.client.cookies.clear()
    lines = operator.client.get(match[1], headers={"Cookie": operator.cookie}).content.splitlines()
    assert lines and all(orjson.loads(line)["direction"] == "outbound" for line in lines)
    tenant.get(match[1], 404)
    assert operator.post(match[1].replace("/file", "/delete")).status_code == 303
    assert "All &lt;of it&gt;" not in operator.get("/ui/reports")


def test_a_report_that_cannot_be_says_why(operator: Browser) -> None:
    """A filter that is none is told above the form, which keeps what was typed."""
    answer = operator.post("/ui/reports", format="csv", filters="what is this")
    assert (
        answer.status_code == 400
        and "is not column = value" in answer.text
        and "what is this</textarea>" in answer.text
    )
    assert operator.post("/ui/reports", format="csv", filters="foo = 1").status_code == 400
    assert operator.post("/ui/reports", format="doc").status_code == 400


def test_letters_are_sent_again_as_the_form_says(operator: Browser, letters: Letters) -> None:
    """A dry run asks for a dry run; sending names the letter or the filter, the rate and who sent it."""
    letters.asked.clear()
    dry = operator.post("/ui/dead-letters/redrive", do="dry", reason="invalid_field", fingerprint="f1")
    assert "1 letter would be sent once more" in dry.text
    sent = operator.post("/ui/dead-letters/redrive", do="redrive", reason="invalid_field", fingerprint="f1", rate="5")
    assert "1 letter was sent once more" in sent.text
    operator.post("/ui/dead-letters/redrive", do="redrive", id=str(LETTER["id"]))
    (first, _), (second, who), (third, _) = letters.asked
    assert first.dry_run and not second.dry_run and who == "operator" and second.rate == 5
    assert second.filter == Filter("invalid_field", "", "f1") and third.ids == (LETTER["id"],) and third.filter is None
    assert "Nothing was sent" in operator.post("/ui/dead-letters/redrive", do="redrive", rate="0").text


def test_a_letter_is_shown_within_bounds_and_fetched_whole(filled: Filled, tmp_path: Path) -> None:
    """Of a long value its beginning is shown, so that no browser chokes on it; all of its bytes are a file."""
    value = b"\xff" + b"x" * 1_100_000
    long = LETTER | {
        "value_text": "x" * 1_100_000,
        "value_base64": base64.b64encode(value).decode(),
        "size": len(value),
    }
    with served(filled.store.url, tmp_path, Clock(NOW_MS), letters=Letters(long)) as client:
        operator = Browser(client, *OPERATOR)
        path = f"/ui/dead-letters/{quote(str(long['id']), safe='')}"
        text = operator.get(path)
        assert len(text) < 60_000 and path.replace("letters", "letter-values", 1) in text
        assert "Only the first 16,384 characters" in text and "the first 2,048" in text
        client.cookies.clear()
        file = client.get(path.replace("letters", "letter-values", 1), headers={"Cookie": operator.cookie})
        assert file.content == value and file.headers["content-type"] == "application/octet-stream"
        assert file.headers["content-disposition"] == 'attachment; filename="mdr.dead-letters-0-7.bin"'


def test_what_only_the_worker_finds_is_not_called_mended(filled: Filled, tmp_path: Path) -> None:
    """The decoder never minded a conflict: that it would read it does not mean that the reason is gone."""
    conflict = LETTER | {"id": "mdr.dead-letters:0:8", "reason": "conflict", "value_base64": None}
    with served(filled.store.url, tmp_path, Clock(NOW_MS), letters=Letters(LETTER, conflict)) as client:
        operator = Browser(client, *OPERATOR)
        assert "The reason is gone" in operator.get("/ui/dead-letters/mdr.dead-letters%3A0%3A7")
        shown = operator.get("/ui/dead-letters/mdr.dead-letters%3A0%3A8")
        assert "The reason is gone" not in shown and "Sent once more it may come back." in shown
        assert "may come back" in operator.post("/ui/dead-letters/redrive", do="dry", reason="conflict").text
        operator.get("/ui/dead-letter-values/mdr.dead-letters%3A0%3A8", 404)


def test_empty_pages_say_what_to_do(filled: Filled, tmp_path: Path) -> None:
    """With nothing there yet each page says what comes next."""
    issued = auth.add_credential(filled.store.client, "newcomer")
    with served(filled.store.url, tmp_path, Clock(NOW_MS), letters=Letters()) as client:
        newcomer, operator = Browser(client, issued.key, issued.secret), Browser(client, *OPERATOR)
        assert "mdr simulate" in newcomer.get(ALL) and "mdr simulate" in newcomer.get("/ui/messages")
        assert "Ask for one above" in newcomer.get("/ui/reports")
        assert "mdr simulate" in operator.get("/ui/dead-letters")
        assert "fits the filters" in newcomer.get(ALL + "&country=ZZ")
    agents = [
        {"end": 0, "topic": f"mdr.{topic}", "agent": topic, "status": "ok", "why": "", "owner": ""}
        for topic in flow.TOPICS
    ]
    unknown: dict[str, Any] = dict.fromkeys(("lag_events", "lag_seconds", "trend_events_per_second", "watermark"))
    assert flow.view({"status": "ok", "why": "", "agents": [a | unknown for a in agents]}, "", None, "", NOW_MS)[
        "is_fresh"
    ]


def test_the_flow_is_there_while_the_store_is_away(tmp_path: Path) -> None:
    """The operator comes in and sees the lag when ClickHouse cannot be reached; other pages say that it is away."""

    def away() -> Any:
        raise OSError("refused")

    with served("", tmp_path, Clock(NOW_MS), connect=away, lag=Watch()) as client:
        browser = Browser(client, *OPERATOR)
        assert "Stalled" in browser.get("/ui/flow")
        assert "ClickHouse cannot be reached" in browser.get(ALL, 503)


def test_rows_are_there_when_the_figures_take_too_long(operator: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    """A range that is too large to be added up still lists its newest rows, and says what is missing."""

    def slow(*_: Any) -> Any:
        raise query.TooSlow("the query took longer than 30 s")

    monkeypatch.setattr(figures, "totals", slow)
    text = operator.get(ALL)
    assert "The figures are not shown: the query took longer than 30 s." in text and 'class="rows"' in text
