"""What a browser makes of our defences, over a real `mdr api`: cookies, other sites' forms, frames, prompts."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from api.client import HttpClient
from tests.test_cli_credentials import api

CHROMIUM: Final = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed: `apt-get install chromium`")
FORM: Final = "<form method=post action='{url}{path}'><input name=format value=csv></form><script>document.forms[0].submit()</script>"
FRAME: Final = "<iframe src='{url}{path}'></iframe>"


class Site(NamedTuple):
    """A running `mdr api` and its operator."""

    url: str
    secret: str
    client: HttpClient


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A real process with a store of its own."""
    home: Path = tmp_path_factory.mktemp("home")
    with api(home) as url:
        told = json.loads((home / "operator.json").read_text())
        yield Site(url, told["secret"], HttpClient(url, told["key"], told["secret"], is_operator=True))


class Evil:
    """Another site: it serves one page, at another name and another port."""

    def __init__(self) -> None:
        self.page = ""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = outer.page.encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        port = self.server.server_address[1]
        # Another port is the same site for a browser, another name another one.
        self.urls = (f"http://127.0.0.1:{port}/", f"http://localhost:{port}/")


@pytest.fixture(scope="module")
def evil() -> Iterator[Evil]:
    """The other site."""
    made = Evil()
    thread = threading.Thread(target=made.server.serve_forever)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Debian's own; as root it runs without its sandbox."""
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def context(chromium: Browser, site: Site) -> Iterator[BrowserContext]:
    """A browser with cookies of its own."""
    made = chromium.new_context(base_url=site.url)
    yield made
    made.close()


def signed_in(context: BrowserContext, site: Site) -> Page:
    """The operator's first page."""
    page = context.new_page()
    page.goto("/ui/flow")
    page.fill("[name=secret]", site.secret)
    page.keyboard.press("Enter")
    page.wait_for_url("**/ui/flow")
    return page


def is_signed_in(context: BrowserContext) -> bool:
    """Whether the browser's session lives."""
    page = context.new_page()
    page.goto("/ui/reports")
    return "/ui/sign-in" not in page.url


def test_a_session_as_a_browser_keeps_it(context: BrowserContext, site: Site) -> None:
    """The browser keeps the cookie from scripts and other sites; a copy of it is dead after signing out."""
    page = signed_in(context, site)
    (cookie,) = context.cookies()
    assert cookie["name"].startswith("mdr_session_") and cookie["httpOnly"] and cookie["sameSite"] == "Strict"
    assert page.evaluate("document.cookie") == "" and is_signed_in(context)
    page.click("text=Sign out")
    page.wait_for_url("**/ui/sign-in")
    assert context.cookies() == [] and not is_signed_in(context)
    context.add_cookies([{"name": cookie["name"], "value": cookie["value"], "url": site.url}])
    assert not is_signed_in(context)


@pytest.mark.parametrize("path", ["/ui/sign-out", "/ui/reports", "/ui/dead-letters/redrive", "/mdr/reports"])
@pytest.mark.parametrize("place", [0, 1], ids=["another port", "another site"])
def test_a_form_of_another_site_does_nothing(
    context: BrowserContext, site: Site, evil: Evil, path: str, place: int
) -> None:
    """A form that another site's page sends by itself is refused, and the session and the reports are as they were."""
    signed_in(context, site)
    evil.page = FORM.format(url=site.url, path=path)
    page = context.new_page()
    with page.expect_response(f"{site.url}{path}") as sent:
        page.goto(evil.urls[place], wait_until="commit")
    assert sent.value.status == 403 and sent.value.request.method == "POST"
    assert is_signed_in(context) and site.client.get("/mdr/reports")["reports"] == []


@pytest.mark.parametrize("kind", ["text/plain", "application/json"])
def test_a_script_of_another_site_does_nothing(context: BrowserContext, site: Site, evil: Evil, kind: str) -> None:
    """Neither a request that a browser sends unasked nor one that it asks for first changes or tells anything."""
    signed_in(context, site)
    evil.page = "<p>hello</p>"
    page = context.new_page()
    page.goto(evil.urls[1])
    ask = """async ([url, kind]) => { try {
        const answer = await fetch(url + '/mdr/reports', {method: 'POST', credentials: 'include', body: '{"format": "csv"}',
            mode: kind === 'text/plain' ? 'no-cors' : 'cors', headers: {'Content-Type': kind}});
        return answer.type + answer.status; } catch (e) { return 'refused'; } }"""
    assert page.evaluate(ask, [site.url, kind]) == "refused"
    read = "async (url) => { try { return await (await fetch(url)).text(); } catch (e) { return 'refused'; } }"
    assert page.evaluate(read, f"{site.url}/metrics") == "refused"
    assert site.client.get("/mdr/reports")["reports"] == []


@pytest.mark.parametrize("path", ["/ui/sign-in", "/ui/flow", "/docs", "/openapi.json", "/mdr/records", "/ui/nowhere"])
def test_no_answer_stands_in_anothers_frame(context: BrowserContext, site: Site, evil: Evil, path: str) -> None:
    """A frame of another site, or of another port, stays empty."""
    signed_in(context, site)
    for url in evil.urls:
        evil.page = FRAME.format(url=site.url, path=path)
        page = context.new_page()
        with page.expect_console_message(lambda message: "frame-ancestors" in message.text):
            page.goto(url)
        assert not page.frames[1].url.startswith(site.url)


def test_nobody_is_prompted_for_basic(context: BrowserContext) -> None:
    """Opening a path of the API shows the refusal; a browser that prompted would keep the answer and send it ever after."""
    answer = context.new_page().goto("/mdr/records")
    assert answer is not None and answer.status == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_the_documentation_is_shown_as_it_is_meant(context: BrowserContext) -> None:
    """The policy of `/docs` lets its own style through and gives the browser nothing to complain about."""
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda m: complaints.append(m.text))
    page.goto("/docs")
    assert page.evaluate("getComputedStyle(document.querySelector('section')).marginTop") == "32px"
    assert [text for text in complaints if "favicon" not in text] == []
