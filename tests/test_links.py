"""Links that are made from ids lead back to what they are of, whatever an id holds (`api.http.segment`)."""

from __future__ import annotations

import html
import json
import random
import re
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import parse_qsl, urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from litestar.testing import TestClient

from api.http import routed, segment
from api.pages.html import message_href
from streams.fold import columns_of
from streams.store import Store
from tests.api_support import OPERATOR, Asker, Clock, basic, served
from tests.entries import NOON_MS
from tests.pages_support import Browser
from tests.test_sums import row

# Of each a few, so that ids are mostly made of what is special in a URL.
_SIGNS: Final = "#?%/\\&=+;:@!$'\"()*,<>[]{}|^`~ .\xa0é\u2028\u202e\ufffd😀a2F"
_ODD: Final = (
    "k#1", "k?x=1", "k a", "k%2F1", "/", "//", "a/", "/a", ".", "..", "...", "../x", "a/../b", "a/.", "%", "%2e%2e", " ",
    "%F0%9F", "\ufeff", "a" * 128, "/" * 128,
)  # fmt: skip


def ids() -> list[str]:
    """Return ids that are hard to put into a path."""
    chance = random.Random(16)
    made = ("".join(chance.choices(_SIGNS, k=chance.randint(1, 6))) for _ in range(40))
    return list(dict.fromkeys((*_ODD, *made)))


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient[Any]]:
    """The application upon a record of each id; the account's own id is hard, too."""
    home = tmp_path_factory.mktemp("links")
    store = Store(f"chdb://{home / 'store'}")
    store.migrate(3_650, 3_650)
    rows = [row(id_, event_id="e", account_id="a/c#me", at_ms=NOON_MS + n) for n, id_ in enumerate(ids())]
    assert store.write_records(columns_of(rows)) == []
    with served(store.url, home, Clock(NOON_MS + 60_000)) as client:
        yield client
    store.close()


@pytest.fixture(scope="module")
def asker(http: TestClient[Any]) -> Asker:
    """Asks as the operator."""
    return Asker(http, basic(*OPERATOR))


def follow(http: TestClient[Any], url: str) -> Any:
    """Return the JSON that a link leads to."""
    answer = http.get(url, headers=basic(*OPERATOR))
    assert answer.status_code == 200, (url, answer.text[:200])
    return json.loads(answer.content)


def test_plivo_links_lead_back(http: TestClient[Any]) -> None:
    """Each `resource_uri` is that of its message, and `next` and `previous` lead over every page there and back."""
    seen, url = [], "/v1/Account/a%2Fc%23me/Message/?limit=20&message_time__gt=2026-01-05 00:00"
    while url:
        page = follow(http, url)
        for told in page["objects"]:
            assert follow(http, told["resource_uri"])["message_uuid"] == told["message_uuid"]
            seen.append(told["message_uuid"])
        if page["meta"]["previous"]:
            assert follow(http, page["meta"]["previous"])["objects"][-1]["message_uuid"] == seen[-len(page["objects"]) - 1]
        url = page["meta"]["next"]
    assert sorted(seen) == sorted(ids())


@pytest.mark.parametrize("path", ["/core/v2/sms/message_drs", "/sms/message_drs"])
def test_carrierx_links_lead_over_every_page(http: TestClient[Any], path: str) -> None:
    """The keyset in CarrierX's links is an id; it may hold anything."""
    seen, url = [], f"{path}?limit=20&filter=date_start ge 2026-01-05"
    while url:
        page = follow(http, url)
        seen += [item["dr_sid"] for item in page["items"]]
        url = page["pagination"].get("next")
    assert sorted(seen) == sorted(ids())


def test_flowroute_links_lead_over_every_page(http: TestClient[Any]) -> None:
    """An id as Flowroute tells it finds its message, and `links.next` goes on."""
    seen, url = [], "/v2.1/messages?limit=20&start_date=2026-01-05"
    while url:
        page = follow(http, url)
        for told in page["data"]:
            assert follow(http, f"/v2.1/messages/{segment(told['id'])}")["data"] == told
        seen += [told["id"] for told in page["data"]]
        url = page["links"].get("next")
    assert len(set(seen)) == len(ids())


@pytest.mark.parametrize("path", ["/mdr/records/{}", "/core/v2/sms/message_drs/{}", "/mdr/trace/{}"])
def test_an_id_in_a_path_is_that_id(http: TestClient[Any], path: str) -> None:
    """A path with an id as one segment answers for this id, and never for a list."""
    for id_ in ids():
        told = follow(http, path.format(segment(id_)))
        assert told.get("message_id", told.get("dr_sid")) == id_


def test_links_of_pages_lead_to_their_message(http: TestClient[Any]) -> None:
    """Each row of the records links to the page of its message, as a browser resolves the link."""
    browser = Browser(http, *OPERATOR)
    seen, url = [], "/ui/records?start=2026-01-05T00:00:00Z&end=2026-01-06T00:00:00Z"
    while url:
        page = browser.get(url)
        for title, href in re.findall(r'title="([^"]*)"><a href="([^"]*)">', page):
            link, id_ = html.unescape(href), html.unescape(title)
            assert urlsplit(urljoin("http://h/ui/records", link)).path.startswith("/ui/messages"), link
            (shown,) = re.findall(r'<h1 class="id">(.*?)</h1>', browser.get(link), re.DOTALL)
            assert html.unescape(shown) == id_
            seen.append(id_)
        more = re.search(r'<a href="([^"]*)" rel="next">Older', page)
        url = html.unescape(more[1]) if more else ""
    assert sorted(seen) == sorted(ids())


def test_a_report_is_where_its_location_says(http: TestClient[Any], asker: Asker) -> None:
    """The `Location` of a new report and the link of its file lead to it."""
    answer = http.post("/mdr/reports", headers=asker.headers, json={"format": "jsonl"})
    assert follow(http, answer.headers["location"])["report_id"] == answer.json()["report_id"]


@given(text=st.text(min_size=1, max_size=128))
def test_a_segment_stays_one_segment(text: str) -> None:
    """What is made a segment of has no separator of a URL in it, is told apart by the routes, and is read again."""
    made = segment(text.encode("utf-8", "replace").decode())
    assert re.fullmatch(r"(?:[A-Za-z0-9_.~-]|%[0-9A-F]{2})+", made) and made not in (".", "..")
    assert routed(f"/mdr/records/{made}?a=/".encode()).count("/") == 3
    assert message_href("..", "outbound") == "/ui/messages?id=..&direction=outbound"
    assert dict(parse_qsl(urlsplit(message_href(".")).query)) == {"id": "."}
