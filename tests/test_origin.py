"""Where a request was sent to and where it comes from: hosts, proxies, other sites (`api.origin`, `api.app`)."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from litestar.testing import TestClient

from api import auth
from api.http import Refusal
from api.origin import Came, Origins, is_loopback, parse_host
from api.pages.routes import PAGES
from api.routes import ROUTES
from streams.store import Store
from tests.api_support import OPERATOR, START_MS, Clock, basic, bearer, served

OWN = "http://testserver.local"
PROXIES = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
WRITES = [(r.method, r.path) for r in ROUTES if r.method not in ("GET", "HEAD", "OPTIONS")]
FORMS = [p.path for p in PAGES if p.method == "POST"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """An empty store."""
    made = Store(f"chdb://{tmp_path_factory.mktemp('store')}")
    made.migrate(3650, 3650)
    yield made
    made.close()


@pytest.fixture(scope="module")
def http(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient[Any]]:
    """The application upon that store."""
    with served(store.url, tmp_path_factory.mktemp("data"), Clock(START_MS)) as client:
        yield client


@pytest.fixture(scope="module")
def tenant(store: Store) -> dict[str, str]:
    """The credential of an account."""
    return bearer(auth.add_credential(store.client, "tenant"))


# ---- hosts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("example.com", ("example.com", None)), ("EXAMPLE.com:8080", ("example.com", 8080)),
        ("127.0.0.1:1", ("127.0.0.1", 1)), ("[::1]:65535", ("[::1]", 65535)), ("[0:0::1]", ("[::1]", None)),
        ("my_host", ("my_host", None)), ("a-b.c", ("a-b.c", None)),
    ],
)  # fmt: skip
def test_a_host_is_understood(text: str, parsed: tuple[str, int | None]) -> None:
    """Names, addresses and IPv6 literals, with a port or without one, in one spelling."""
    assert parse_host(text) == parsed


@pytest.mark.parametrize(
    "text",
    ["", ":80", "a:", "a:0", "a:65536", "a:99999", "a:-1", "a:8o", "a:80:80", "a b", "a/b", "a?b", "a#b", "a@b", "u:p@a", "a\\b",
     "::1", "[::1", "::1]", "[::1]x", "[::g]", "[fe80::1%25eth0]", "[1.2.3.4]", "1.2.3.256", "1.2.3", "a..b", ".a", "-a", "a-",
     "a,b", "a\r\nx: y", "a\x00", "a\"><script>", "ä.example", "a" * 64 + ".b", ".".join(["a" * 60] * 5), "a:٣"],
)  # fmt: skip
def test_a_malformed_host_is_refused(http: TestClient[Any], tenant: dict[str, str], text: str) -> None:
    """What is no host with a port in bounds is a 400, on our paths, vendors' paths and pages; no link ever holds it."""
    assert parse_host(text) is None
    if text and text.isascii() and text.isprintable():
        for path in ("/mdr/records", "/v2.1/messages", "/ui/sign-in", "/mdr/reports", "/docs"):
            assert http.get(path, headers=tenant | {"Host": text}).status_code == 400, path


@given(st.text(max_size=40))
def test_whatever_a_host_says_links_stay_one_address(text: str) -> None:
    """Any text is refused, or is an address of nothing but a scheme, a host and a port."""
    try:
        came = Origins("http://0.0.0.0:8080").of("http", "192.0.2.1", [("Host", text)])
    except Refusal as refusal:
        assert refusal.status == 400
        return
    assert not set(came.base_url.removeprefix("http://")) & set(" /?#@\\\"'<>\r\n\t,")


@pytest.mark.parametrize(
    ("own", "host", "is_ours"),
    [
        ("http://127.0.0.1:8080", "127.0.0.1:8080", True), ("http://127.0.0.1:8080", "localhost:8080", True),
        ("http://127.0.0.1:8080", "[::1]:8080", True), ("http://127.0.0.1:8080", "mdr.localhost", True),
        ("http://127.0.0.1:8080", "evil.example:8080", False), ("http://127.0.0.1:8080", "192.0.2.1", False),
        ("http://localhost:8080", "127.0.0.1.evil.example", False), ("http://[::1]:8080", "localhost", True),
        ("http://mdr.example:8080", "mdr.example", True), ("http://mdr.example:8080", "evil.example", False),
        ("http://0.0.0.0:8080", "whatever.example", True), ("http://192.0.2.1:8080", "mdr.example", True),
    ],
)  # fmt: skip
def test_a_foreign_host_is_refused_where_ours_is_known(own: str, host: str, is_ours: bool) -> None:
    """On loopback only its names are ours, under a name only that; an address that others reach may have any name."""
    try:
        Origins(own).of("http", "192.0.2.9", [("host", host)])
    except Refusal as refusal:
        assert not is_ours and refusal.status == 400
    else:
        assert is_ours


def test_two_hosts_are_none() -> None:
    """A request with two `Host` headers is refused; one without any gets our own address."""
    with pytest.raises(Refusal):
        Origins(OWN).of("http", "", [("host", "testserver.local"), ("Host", "testserver.local")])
    assert Origins(OWN).of("http", "", []) == Came(OWN, "")


@pytest.mark.parametrize(("host", "is_ours"), [("127.9.9.9", True), ("::1", True), ("[::1]", True), ("localhost", True),
                                               ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("mdr.example", False)])  # fmt: skip
def test_loopback_is_known(host: str, is_ours: bool) -> None:
    """Loopback is 127.0.0.0/8, ::1 and localhost; a wildcard is not."""
    assert is_loopback(host) is is_ours


# ---- proxies ---------------------------------------------------------------------------------------------------

FORWARDED = [("host", "mdr.example"), ("x-forwarded-proto", "https"), ("x-forwarded-host", "public.example"),
             ("x-forwarded-for", "6.6.6.6, 203.0.113.7, 10.1.1.1")]  # fmt: skip


def test_forwarding_headers_count_from_trusted_proxies_only() -> None:
    """By default nobody's are heeded; a trusted proxy's tell scheme, host, and the last address that is no proxy."""
    for trusted, peer in (((), "10.0.0.1"), ((), "127.0.0.1"), (PROXIES, "203.0.113.9"), (PROXIES, "not-an-address")):
        assert Origins("http://0.0.0.0:1", trusted).of("http", peer, FORWARDED) == Came("http://mdr.example", peer)
    told = Origins("http://127.0.0.1:1", PROXIES).of("http", "10.0.0.1", FORWARDED)
    assert told == Came("https://public.example", "203.0.113.7")
    assert Origins("http://127.0.0.1:1", PROXIES).of("http", "fd00::1", FORWARDED) == told


@pytest.mark.parametrize(("forwarded", "client"), [("", "10.0.0.1"), ("garbage", "10.0.0.1"), ("6.6.6.6, garbage", "10.0.0.1"),
                                                   ("10.2.2.2", "10.0.0.1"), ("2001:db8::1", "2001:db8::1")])  # fmt: skip
def test_a_forwarded_address_is_believed_as_far_as_proxies_wrote_it(forwarded: str, client: str) -> None:
    """What is no address ends the list; when only proxies are in it, the nearest counts."""
    headers = [("host", "a.example"), ("x-forwarded-for", forwarded)]
    assert Origins("http://0.0.0.0:1", PROXIES).of("http", "10.0.0.1", headers).client == client


@pytest.mark.parametrize("header", [("x-forwarded-proto", "javascript"), ("x-forwarded-host", "a b"), ("x-forwarded-host", "")])
def test_a_proxys_nonsense_is_refused(header: tuple[str, str]) -> None:
    """A scheme other than http and https or a malformed host is a 400 from a proxy too."""
    with pytest.raises(Refusal):
        Origins("http://0.0.0.0:1", PROXIES).of("http", "10.0.0.1", [("host", "a.example"), header])


# ---- other sites -----------------------------------------------------------------------------------------------


def filled_in(path: str) -> str:
    """A path with something in each of its places."""
    return path.replace("{", "").replace("}", "")


@pytest.mark.parametrize(("method", "path"), WRITES)
def test_no_other_site_can_write(http: TestClient[Any], method: str, path: str) -> None:
    """Every unsafe path refuses a foreign origin, with good credentials too; our own and programs pass."""
    target = filled_in(path)
    foreign = [{"Origin": o} for o in ("http://evil.example", "null", "http://testserver.local:81", "https://testserver.local")]
    foreign += [{"Sec-Fetch-Site": site} for site in ("cross-site", "same-site")]
    own: list[dict[str, str]] = [{}, {"Origin": OWN}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}]
    for headers, is_foreign in [*((h, True) for h in foreign), *((h, False) for h in own)]:
        answer = http.request(method, target, headers=basic(*OPERATOR) | headers, json={})
        assert ("another site" in answer.text and answer.status_code == 403) is is_foreign, (headers, answer.text)


@pytest.mark.parametrize(("method", "path"), WRITES)
def test_a_body_is_json_or_refused(http: TestClient[Any], method: str, path: str) -> None:
    """What a form of another site can send without being asked first is a 415; a body may be absent."""
    target, json_body = filled_in(path), b"{}"
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "application/jsonx"):
        headers = basic(*OPERATOR) | ({"Content-Type": kind} if kind else {})
        assert http.request(method, target, headers=headers, content=json_body).status_code == 415, kind
    for kind in ("application/json", "Application/JSON; charset=utf-8", "application/vnd.api+json"):
        headers = basic(*OPERATOR) | {"Content-Type": kind}
        assert http.request(method, target, headers=headers, content=json_body).status_code != 415, kind
    for headers in ({"Content-Type": "application/json"}, {}, {"Content-Type": "text/plain"}):
        assert http.request(method, target, headers=basic(*OPERATOR) | headers).status_code != 415


@pytest.mark.parametrize("path", FORMS)
def test_every_form_of_pages_refuses_other_sites(http: TestClient[Any], path: str) -> None:
    """No page that takes a form forgets to ask where it was sent from."""
    for origin in ({}, {"Origin": "http://evil.example"}, {"Origin": "null"}):
        answer = http.post(filled_in(path), data={"key": "x"}, headers=origin)
        assert answer.status_code == 403 and "page of this server" in answer.text


def test_a_vendors_get_with_a_body_goes_on(http: TestClient[Any], tenant: dict[str, str]) -> None:
    """A body of a GET, which one vendor's client sends, is nobody's business."""
    assert http.request("GET", "/mdr/records", headers=tenant, content=b"{}").status_code == 200


@pytest.mark.parametrize(
    ("headers", "scheme"),
    [({}, "Basic"), ({"Accept": "application/json"}, "Basic"), ({"Accept": "*/*"}, "Basic"),
     ({"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}, "Bearer"), ({"Sec-Fetch-Mode": "cors"}, "Bearer")],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/mdr/records", "/v2.1/messages", "/core/v2/sms/message_drs", "/reporting/mdr_requests"])
def test_no_browser_is_asked_for_basic(http: TestClient[Any], path: str, headers: dict[str, str], scheme: str) -> None:
    """A browser would keep Basic credentials and send them with forged requests; programs are asked for them."""
    answer = http.get(path, headers=headers)
    assert answer.status_code == 401 and answer.headers["www-authenticate"].startswith(scheme)


@pytest.mark.parametrize(
    "path", ["/docs", "/openapi.json", "/mdr/records", "/nothing", "/ui/sign-in", "/ui/nothing", "/v2.1/messages", "/ui/static/app.js"]
)
def test_every_answer_keeps_browsers_on_a_leash(http: TestClient[Any], path: str) -> None:
    """No sniffing, no frame, no script that is not ours, nothing told to other sites: on errors and documents too."""
    headers = http.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
    assert headers["x-frame-options"] == "DENY" and headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] in ("no-referrer", "same-origin")
    assert headers["cross-origin-resource-policy"] == "same-origin"
