"""Who comes in to the pages, and what each keeps: sessions, forged posts, escaping, tenancy, masks (`api.pages`)."""

from __future__ import annotations

import html as escapes
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from litestar.testing import TestClient

from api import auth
from api.pages import html
from tests.api_support import OPERATOR, Clock, Filled, served
from tests.pages_support import ALL, HOSTILE, LETTER, NOW_MS, ORIGIN, Browser, Letters, Watch, filled_store


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
def accounts(filled: Filled) -> tuple[str, str]:
    """Two accounts with records."""
    found = sorted({row["account_id"] for row in filled.truth.records.values()})
    return found[0], found[1]


@pytest.fixture(scope="module")
def tenant(http: TestClient[Any], filled: Filled, accounts: tuple[str, str]) -> Browser:
    """A key of one account without the scope for bodies, signed in."""
    issued = auth.add_credential(filled.store.client, accounts[0])
    return Browser(http, issued.key, issued.secret)


PAGES = ["/ui/flow", ALL, "/ui/records?range=30d&direction=outbound", "/ui/messages", "/ui/reports", "/ui/dead-letters",
         f"/ui/messages/{quote(HOSTILE, safe='')}", "/ui/messages/unknown", "/ui/dead-letters/mdr.dead-letters%3A0%3A7"]  # fmt: skip


# ---- the door --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [p for p in PAGES if "unknown" not in p])
def test_without_a_session_there_is_only_the_door(http: TestClient[Any], path: str) -> None:
    """Every page sends who is not signed in to the door, which leads back; no page says anything before."""
    http.cookies.clear()
    answer = http.get(path, follow_redirects=False)
    assert answer.status_code == 303 and answer.content == b""
    assert answer.headers["location"].startswith("/ui/sign-in?next=%2Fui%2F")
    assert http.get(answer.headers["location"]).status_code == 200


def test_basic_authentication_does_not_open_pages(http: TestClient[Any]) -> None:
    """A browser would send Basic credentials with forged posts too, so pages know sessions only."""
    http.cookies.clear()
    assert http.get("/ui/flow", auth=OPERATOR, follow_redirects=False).status_code == 303


def test_the_cookie_is_bound(operator: Browser) -> None:
    """The session cookie is out of reach of scripts and other sites, ends by itself and holds no secret."""
    for part in ("HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=43200"):
        assert part in operator.set_cookie
    assert OPERATOR[1] not in operator.set_cookie and "mdr_session_80=" in operator.set_cookie


@pytest.mark.parametrize(("key", "secret"), [("operator", "wrong"), ("nobody", "x"), ("", ""), ("operator", "")])
def test_a_wrong_secret_stays_outside(http: TestClient[Any], key: str, secret: str) -> None:
    """Who does not know the secret is told so, without a cookie."""
    answer = http.post("/ui/sign-in", data={"key": key, "secret": secret}, headers={"Origin": ORIGIN})
    assert answer.status_code == 403 and "set-cookie" not in answer.headers and "do not belong together" in answer.text


def test_a_changed_or_old_cookie_opens_nothing(filled: Filled, operator: Browser, tmp_path: Path) -> None:
    """A cookie with another key, another end or a broken seal is none; it ends with its time and with the secret."""
    name, _, value = operator.cookie.partition("=")
    key, until, seal = value.split(".")
    for forged in (
        f"root.{until}.{seal}",
        f"{key}.{int(until) + 1}.{seal}",
        f"{key}.{until}.{seal[:-1]}x",
        "x",
        "..",
        "",
    ):
        answer = operator.client.get("/ui/flow", headers={"Cookie": f"{name}={forged}"}, follow_redirects=False)
        assert answer.status_code == 303, forged
    clock = Clock(NOW_MS)
    with served(filled.store.url, tmp_path, clock, lag=Watch()) as client:
        browser = Browser(client, *OPERATOR)
        browser.get("/ui/flow")
        clock.now_ms += 12 * 3_600_000
        browser.get("/ui/flow", 303)
    with served(filled.store.url, tmp_path, Clock(NOW_MS), operator=("operator", "another")) as client:
        browser.client = client
        browser.get("/ui/flow", 303)


def test_a_revoked_key_is_out_at_once(http: TestClient[Any], filled: Filled, accounts: tuple[str, str]) -> None:
    """A session ends with the key it began with."""
    issued = auth.add_credential(filled.store.client, accounts[0])
    browser = Browser(http, issued.key, issued.secret)
    browser.get(ALL)
    auth.revoke(filled.store.client, issued.key)
    browser.get(ALL, 303)


@pytest.mark.parametrize(
    "where", ["//evil.example/ui/", "https://evil.example", "/ui/\\evil", "/mdr/records", "/ui/\r\nx: y"]
)
def test_signing_in_leads_to_our_pages_only(http: TestClient[Any], where: str) -> None:
    """`next` cannot lead elsewhere."""
    form = {"key": OPERATOR[0], "secret": OPERATOR[1], "next": where}
    answer = http.post("/ui/sign-in", data=form, headers={"Origin": ORIGIN}, follow_redirects=False)
    assert answer.headers["location"] == "/ui/flow"


@pytest.mark.parametrize(
    "path", ["/ui/sign-in", "/ui/sign-out", "/ui/reports", "/ui/reports/x/delete", "/ui/dead-letters/redrive"]
)
@pytest.mark.parametrize("origin", ["", "null", "http://evil.example", "http://testserver.local:81"])
def test_a_post_from_elsewhere_is_refused(operator: Browser, letters: Letters, path: str, origin: str) -> None:
    """A form that no page of this server sent does nothing, other ports of the host included."""
    before = len(letters.asked)
    assert operator.post(path, origin, key=OPERATOR[0], secret=OPERATOR[1], format="csv").status_code == 403
    assert len(letters.asked) == before


def test_signing_out_ends_the_session_in_the_browser(operator: Browser) -> None:
    """The cookie is taken back."""
    answer = operator.post("/ui/sign-out")
    assert answer.status_code == 303 and "Max-Age=0" in answer.headers["set-cookie"]


def test_the_root_leads_to_the_pages(http: TestClient[Any]) -> None:
    """`/` is a way in."""
    assert http.get("/", follow_redirects=False).headers["location"] == "/ui/flow"


# ---- what every page keeps -------------------------------------------------------------------------------------


class Tags(HTMLParser):
    """Tags, names and values of attributes, and the text inside of scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, str, str]] = []
        self.scripts = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes a tag."""
        self.seen += [(tag, name, value or "") for name, value in attrs or [("", "")]]

    def handle_data(self, data: str) -> None:
        """Notes what a browser would run."""
        self.scripts += data if self.cdata_elem == "script" else ""


@pytest.mark.parametrize("path", PAGES)
def test_every_page_is_safe_html(operator: Browser, path: str) -> None:
    """Hostile texts are escaped everywhere; nothing inline could run, and the browser is told to run nothing."""
    operator.client.cookies.clear()
    answer = operator.client.get(path, headers={"Cookie": operator.cookie})
    assert answer.status_code == (404 if "unknown" in path else 200)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert answer.headers["cache-control"] == "no-store" and answer.headers["x-content-type-options"] == "nosniff"
    found = Tags()
    found.feed(answer.text)
    assert not {"img", "style", "iframe", "base", "object"} & {tag for tag, _, _ in found.seen}
    assert not [name for _, name, _ in found.seen if name == "style" or name.startswith("on")]
    assert [value for tag, name, value in found.seen if tag == "script"] == [html.asset("app.js"), ""]
    links = [value for _, name, value in found.seen if name in ("src", "href", "action")]
    assert all(re.match(r"/(?!/)|[?#]", link) for link in links), "everything is our own"
    assert found.scripts == "" and OPERATOR[1] not in answer.text


def test_hostile_texts_are_shown_as_they_are(operator: Browser) -> None:
    """Escaping hides nothing: the texts are on the pages, as texts."""
    shown = escapes.unescape(operator.get(f"/ui/messages/{quote(HOSTILE, safe='')}"))
    assert shown.count(HOSTILE) > 5
    assert HOSTILE in escapes.unescape(operator.get("/ui/dead-letters"))
    assert HOSTILE in escapes.unescape(operator.get(ALL + f"&account_id={quote('acme')}"))


@pytest.mark.parametrize("name", ["app.css", "app.js", "icon.svg"])
def test_assets_may_be_kept_and_name_no_other_host(http: TestClient[Any], name: str) -> None:
    """Style, script and icon come from the wheel, may be kept for ever under their name, and load nothing."""
    answer = http.get(f"/ui/static/{name}")
    assert answer.status_code == 200 and "immutable" in answer.headers["cache-control"]
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", answer.text)
    assert http.get(f"/ui/static/{name}x").status_code == 404
    assert http.get("/ui/static/..%2Fhtml.py").status_code == 404


def test_what_is_not_there_is_a_page(operator: Browser) -> None:
    """An unknown path below /ui, a page for others and a bad parameter are told as pages."""
    assert "Not found" in operator.get("/ui/nowhere", 404)
    assert "direction is inbound or outbound" in operator.get("/ui/messages/x?direction=up", 400).lower()


# ---- tenancy and masks -----------------------------------------------------------------------------------------


def test_an_account_sees_its_own_only(tenant: Browser, filled: Filled, accounts: tuple[str, str]) -> None:
    """A key of an account sees neither others' records nor what is the operator's, also when it asks for it."""
    own, other = accounts
    theirs = [mid for (_, mid), row in filled.truth.records.items() if row["account_id"] == other]
    for path in (ALL, ALL + f"&account_id={other}"):
        text = tenant.get(path)
        assert not [mid for mid in theirs if mid in text]
    assert f"<td>{own}</td>" in tenant.get(ALL)
    for mid in theirs[:3]:
        assert "There is no message with this id" in tenant.get(f"/ui/messages/{mid}", 404)
    for path in ("/ui/flow", "/ui/dead-letters", "/ui/dead-letters/mdr.dead-letters%3A0%3A7"):
        assert "operator" in tenant.get(path, 403)
    assert tenant.post("/ui/dead-letters/redrive", do="redrive").status_code == 403


def test_totals_count_what_may_be_seen(tenant: Browser, filled: Filled, accounts: tuple[str, str]) -> None:
    """The figures of an account are those of its own records."""
    rows = [
        r for r in filled.truth.records.values() if r["account_id"] == accounts[0] and r["record_type"] != "pending"
    ]
    for path in (ALL, ALL + f"&account_id={accounts[1]}"):
        count = len(rows) if path == ALL else 0
        assert f"<h2>Records</h2><p>{count}</p>" in tenant.get(path)


def test_numbers_and_bodies_are_masked_without_the_scope(
    tenant: Browser, http: TestClient[Any], filled: Filled, accounts: tuple[str, str]
) -> None:
    """Without `bodies.read` neither a number nor a body is on any page; with it both are."""
    issued = auth.add_credential(filled.store.client, accounts[0], scopes=[auth.READ, auth.BODIES])
    seer = Browser(http, issued.key, issued.secret)
    own = [(d, mid, r) for (d, mid), r in filled.truth.records.items() if r["account_id"] == accounts[0] and r["body"]]
    for direction, mid, row in own[:4]:
        path = f"/ui/messages/{mid}?direction={direction}"
        secret = [row["from_number"], row["to_number"], escapes.escape(row["body"][:20])]
        masked, shown = tenant.get(path), seer.get(path)
        assert not [text for text in secret if text in masked] and "masked" in masked
        assert escapes.escape(row["to_number"]) in shown
    numbers = {row["to_number"] for _, _, row in own if len(row["to_number"]) > 8}
    page = tenant.get(ALL)
    assert not [n for n in numbers if n in page] and "numbers and bodies are masked" in page
    assert [n for n in numbers if n in seer.get(ALL)]
