"""Who comes in to the pages, and what each keeps: sessions, forged posts, escaping, tenancy, masks (`api.pages`)."""

from __future__ import annotations

import base64
import html as escapes
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from litestar.testing import TestClient

from api import auth, query, seals, sessions
from api.app import create_app
from api.pages import html, session
from tests.api_support import OPERATOR, Clock, Filled, basic, config_of, served
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
    with served(filled.store.url, tmp_path_factory.mktemp("data"), Clock(NOW_MS), lag=Watch(), letters=letters) as client:
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


MINUTE_MS = 60_000
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
    for part in ("HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=3600"):
        assert part in operator.set_cookie
    assert OPERATOR[1] not in operator.set_cookie and operator.set_cookie.startswith("mdr_session_80=")


def test_over_https_the_cookie_is_the_hosts_alone(filled: Filled, tmp_path: Path) -> None:
    """Over https the cookie has the prefix `__Host-` and `Secure`, and one without the prefix opens nothing."""
    config = config_of(filled.store.url, tmp_path, Clock(NOW_MS), lag=Watch())
    origin = ORIGIN.replace("http:", "https:")
    with TestClient(create_app(config), base_url=origin) as client:
        form = dict(zip(("key", "secret"), OPERATOR, strict=True))
        kept = client.post("/ui/sign-in", data=form, headers={"Origin": origin}, follow_redirects=False)
        cookie = kept.headers["set-cookie"]
        assert cookie.startswith("__Host-mdr_session_443=") and "; Secure" in cookie and "Domain" not in cookie
        client.cookies.clear()
        name, _, rest = cookie.partition("=")
        value = rest.partition(";")[0]
        for given, status in ((name, 200), (name.removeprefix("__Host-"), 303)):
            answer = client.get("/ui/flow", headers={"Cookie": f"{given}={value}"}, follow_redirects=False)
            assert answer.status_code == status


@pytest.mark.parametrize(("key", "secret"), [("operator", "wrong"), ("nobody", "x"), ("", ""), ("operator", "")])
def test_a_wrong_secret_stays_outside(http: TestClient[Any], key: str, secret: str) -> None:
    """Who does not know the secret is told so, without a cookie."""
    answer = http.post("/ui/sign-in", data={"key": key, "secret": secret}, headers={"Origin": ORIGIN})
    assert answer.status_code == 403 and "set-cookie" not in answer.headers and "do not belong together" in answer.text


def test_wrong_secrets_are_slowed_counted_and_logged_without_them(
    filled: Filled, tmp_path: Path, accounts: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    """After a few wrong secrets of a key comes a 429 that says how long to wait; the right secret is let in."""
    issued = auth.add_credential(filled.store.client, accounts[0])
    with served(filled.store.url, tmp_path, Clock(NOW_MS)) as client:
        form = {"key": issued.key, "secret": "a-wrong-secret"}
        answers = [client.post("/ui/sign-in", data=form, headers={"Origin": ORIGIN}) for _ in range(8)]
        assert [a.status_code for a in answers] == [403] * 5 + [429] * 3
        assert [a.headers.get("retry-after") for a in answers[4:]] == [None, "1", "2", "4"]
        assert "wait 4 s" in answers[-1].text and "mdr_sign_ins_failed_total 8\n" in client.get("/metrics").text
        Browser(client, issued.key, issued.secret).get(ALL)
    assert "sign-ins are refused: 1 from testclient" in caplog.text and "a-wrong-secret" not in caplog.text


def test_a_changed_cookie_opens_nothing(operator: Browser) -> None:
    """A cookie with another content, another time or a broken seal is none."""
    name, _, value = operator.cookie.partition("=")
    content, at, seal = value.rsplit(".", 2)
    later = base64.urlsafe_b64encode((NOW_MS // 1000 + 9).to_bytes(4, "big")).decode().rstrip("=")
    forged = (f"{content}x.{at}.{seal}", f"{content}.{later}.{seal}", f"{content}.{at}.{seal[:-1]}_", "x", "..", "")
    for one in forged:
        answer = operator.client.get("/ui/flow", headers={"Cookie": f"{name}={one}"}, follow_redirects=False)
        assert answer.status_code == 303, one


def test_a_seal_of_another_purpose_is_no_session(filled: Filled, tmp_path: Path) -> None:
    """A link to a report, sealed with the same keys, signs nobody in."""
    with served(filled.store.url, tmp_path, Clock(NOW_MS), lag=Watch()) as client:
        for purpose, status in (("session", 200), ("report link", 303)):
            browser = Browser(client, *OPERATOR)
            mine = session.opened(seals.load(tmp_path), browser.cookie.partition("=")[2], NOW_MS)
            assert mine is not None
            sealed = seals.load(tmp_path).seal(purpose, list(mine.session), NOW_MS)
            browser.cookie = f"mdr_session_80={sealed}"
            browser.get("/ui/flow", status)


def test_an_idle_session_ends(filled: Filled, tmp_path: Path, accounts: tuple[str, str]) -> None:
    """An hour without a page asked for ends a session; pages keep it alive, a page that refreshes itself does not."""
    clock = Clock(NOW_MS)
    issued = auth.add_credential(filled.store.client, accounts[0])
    with served(filled.store.url, tmp_path, clock, lag=Watch()) as client:
        for credential, path in ((OPERATOR, "/ui/flow"), ((issued.key, issued.secret), ALL)):
            browser = Browser(client, *credential)
            for _ in range(3):
                clock.now_ms += 59 * MINUTE_MS
                browser.use(path)
            for _ in range(2):
                clock.now_ms += 29 * MINUTE_MS
                assert "set-cookie" not in browser.refresh(path).headers
            clock.now_ms += 2 * MINUTE_MS
            browser.get(path, 303)


def test_a_session_ends_after_twelve_hours(filled: Filled, tmp_path: Path) -> None:
    """However much it is used, a session has an end."""
    clock = Clock(NOW_MS)
    with served(filled.store.url, tmp_path, clock, lag=Watch()) as client:
        browser = Browser(client, *OPERATOR)
        for _ in range(23):
            clock.now_ms += 30 * MINUTE_MS
            browser.use("/ui/flow")
        clock.now_ms += 30 * MINUTE_MS
        browser.get("/ui/flow", 303)


def test_a_revoked_or_expired_key_is_out_at_once(filled: Filled, tmp_path: Path, accounts: tuple[str, str]) -> None:
    """A session ends with the key it began with, whether that is revoked or expires."""
    clock = Clock(NOW_MS)
    revoked = auth.add_credential(filled.store.client, accounts[0])
    expiring = auth.add_credential(filled.store.client, accounts[0], expires_ms=NOW_MS + 5)
    with served(filled.store.url, tmp_path, clock) as client:
        browsers = [Browser(client, issued.key, issued.secret) for issued in (revoked, expiring)]
        for browser in browsers:
            browser.get(ALL)
        auth.revoke(filled.store.client, revoked.key)
        clock.now_ms += 5
        for browser in browsers:
            browser.get(ALL, 303)
        form = {"key": expiring.key, "secret": expiring.secret}
        assert client.post("/ui/sign-in", data=form, headers={"Origin": ORIGIN}).status_code == 403


def test_signing_out_ends_the_session_everywhere(filled: Filled, tmp_path: Path, accounts: tuple[str, str]) -> None:
    """A cookie that was copied before is dead after signing out: in this process, in another, and after a restart."""
    issued = auth.add_credential(filled.store.client, accounts[0])
    with served(filled.store.url, tmp_path, Clock(NOW_MS)) as one, served(filled.store.url, tmp_path, Clock(NOW_MS)) as two:
        thief, other = Browser(one, issued.key, issued.secret), Browser(one, issued.key, issued.secret)
        leaver, elsewhere = Browser.with_cookie(one, thief.cookie), Browser.with_cookie(two, thief.cookie)
        for browser in (thief, elsewhere, other):
            browser.get(ALL)
        assert "Max-Age=0" in leaver.post("/ui/sign-out").headers["set-cookie"]
        for browser in (thief, elsewhere):
            browser.get(ALL, 303)
        other.get(ALL)
    with served(filled.store.url, tmp_path, Clock(NOW_MS)) as again:
        Browser.with_cookie(again, thief.cookie).get(ALL, 303)
        Browser.with_cookie(again, other.cookie).get(ALL)


def test_the_operators_session_is_one_processs(filled: Filled, tmp_path: Path) -> None:
    """The operator's session ends by signing out, and with the process that it began in, whoever copied its cookie."""
    with served(filled.store.url, tmp_path, Clock(NOW_MS), lag=Watch()) as client:
        browser, kept = Browser(client, *OPERATOR), Browser(client, *OPERATOR)
        browser.post("/ui/sign-out")
        browser.get("/ui/flow", 303)
        kept.get("/ui/flow")
    with served(filled.store.url, tmp_path, Clock(NOW_MS), lag=Watch()) as client:
        Browser.with_cookie(client, kept.cookie).get("/ui/flow", 303)


def test_signing_in_again_ends_the_session_before(http: TestClient[Any], filled: Filled, accounts: tuple[str, str]) -> None:
    """Whoever signs in anew gets another session, and the one that the browser had is dead."""
    issued = auth.add_credential(filled.store.client, accounts[0])
    browser = Browser(http, issued.key, issued.secret)
    before = Browser.with_cookie(http, browser.cookie)
    assert browser.post("/ui/sign-in", key=issued.key, secret=issued.secret).status_code == 303
    before.get(ALL, 303)


def test_a_key_has_a_bounded_number_of_sessions(filled: Filled, tmp_path: Path, accounts: tuple[str, str]) -> None:
    """One session more than a key may have ends the oldest; the operator's are bounded too."""
    issued, clock = auth.add_credential(filled.store.client, accounts[0]), Clock(NOW_MS)
    with served(filled.store.url, tmp_path, clock, lag=Watch()) as http:
        for credential, path in (((issued.key, issued.secret), ALL), (OPERATOR, "/ui/flow")):
            browsers = []
            for _ in range(sessions.LIVE_MAX + 1):
                clock.now_ms += 1
                browsers.append(Browser(http, *credential))
            found = [http.get(path, headers={"Cookie": b.cookie}, follow_redirects=False).status_code for b in browsers]
            assert found == [303] + [200] * sessions.LIVE_MAX


def test_sessions_are_not_begun_without_end(filled: Filled, tmp_path: Path, accounts: tuple[str, str]) -> None:
    """A key that signs in again and again is told to wait: each session is a row in the store."""
    issued = auth.add_credential(filled.store.client, accounts[0])
    with served(filled.store.url, tmp_path, Clock(NOW_MS)) as http:
        form = {"key": issued.key, "secret": issued.secret}
        answers = [http.post("/ui/sign-in", data=form, headers={"Origin": ORIGIN}, follow_redirects=False) for _ in range(32)]
        assert [a.status_code for a in answers] == [303] * 30 + [429] * 2 and "retry-after" in answers[-1].headers


@pytest.mark.parametrize("name", ["operator", "Operator", "OPERATOR"])
def test_no_stored_key_is_the_operator(filled: Filled, tmp_path: Path, accounts: tuple[str, str], name: str) -> None:
    """No key of the operator's name is made, and one that an older version stored opens nothing, but can be revoked."""
    client = filled.store.client
    with pytest.raises(auth.AccessError, match="operator is no name for a key"):
        auth.add_credential(client, accounts[0], key=name)
    values = {"key": (name, "String"), "account_id": (accounts[0], "String"), "version": (1, "UInt64"),
              "secret_hash": (auth._hash("s"), "String"), "scopes": (list(auth.SCOPES), "Array(String)")}  # fmt: skip
    query.write(client, "credentials", values)
    with served(filled.store.url, tmp_path, Clock(NOW_MS), lag=Watch()) as http:
        form = {"key": name, "secret": "s"}
        assert http.post("/ui/sign-in", data=form, headers={"Origin": ORIGIN}).status_code == 403
        for path in ("/mdr/records", "/mdr/lag", "/mdr/credentials"):
            assert http.get(path, headers=basic(name, "s")).status_code == 401
        # Nor does a session, were there one of that key.
        made = session.begun(session.KEY, name, NOW_MS)
        sessions.begin(client, name, made.session_id, NOW_MS)
        browser = Browser.with_cookie(http, f"mdr_session_80={session.sealed(seals.load(tmp_path), made, NOW_MS)}")
        for path in ("/ui/flow", ALL):
            browser.get(path, 303)
    assert auth.revoke(client, name) and not auth.revoke(client, name)


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
