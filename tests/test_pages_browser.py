"""The pages in a real browser, over a real `mdr up` with traffic: what only a browser can tell. Needs chromium."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from api.client import ClientError, HttpClient

ROOT: Final = Path(__file__).parent.parent
CHROMIUM: Final = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed: `apt-get install chromium`")
MESSAGES: Final = 400
# Sent twice under two names of the event: a conflict, which the decoder knows nothing of.
SEND: Final = {"message_id": "twice", "occurred_at": "2026-01-05T08:00:00Z", "account_id": "acme", "from": "+14155550100",
               "to": "+12125550101"}  # fmt: skip
MODES: Final = {"light": (1280, 800, "light"), "dark": (1280, 800, "dark"), "phone": (390, 844, "dark")}
PATHS: Final = ("/ui/flow", "/ui/records?range=24h&include=pending", "/ui/messages", "/ui/reports", "/ui/dead-letters")
# Every text whose contrast with what is behind it is too low to be read by all (WCAG 2.2, 1.4.3).
CONTRAST: Final = """() => {
  const rgba = (c) => { const x = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
    x.fillStyle = c; x.fillRect(0, 0, 1, 1); return [...x.getImageData(0, 0, 1, 1).data]; };
  const light = (c) => { const [r, g, b] = c.map((v) => v / 255).map((v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b; };
  const ground = (e) => { for (; e; e = e.parentElement) { const c = rgba(getComputedStyle(e).backgroundColor);
    if (c[3] === 255) return c; } return [255, 255, 255]; };
  const poor = [];
  for (const e of document.querySelectorAll('main *, header *')) {
    if (![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()) || !e.checkVisibility() || e.disabled) continue;
    const style = getComputedStyle(e), svg = e instanceof SVGElement;
    const [a, b] = [rgba(svg ? style.fill : style.color), ground(e)].map(light).sort((x, y) => y - x);
    const large = parseFloat(style.fontSize) >= 24 || parseFloat(style.fontSize) >= 18.66 && style.fontWeight >= 700;
    if ((a + .05) / (b + .05) < (large ? 3 : 4.5)) poor.push(e.tagName + ' ' + e.textContent.trim().slice(0, 30));
  }
  return poor;
}"""


class Site(NamedTuple):
    """A running `mdr up`."""

    url: str
    key: str
    secret: str
    api: HttpClient


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from streams.cli import main; main()", *arguments]


@pytest.fixture(scope="module")
def site(kafka_at: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Everything as a user runs it, with simulated traffic that is read."""
    home = tmp_path_factory.mktemp("home")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MDR_")}
    environ |= {"MDR_DATA_DIR": str(home), "MDR_KAFKA": kafka_at, "MDR_TOPIC_PREFIX": "pages.", "MDR_PARTITIONS": "2",
                "MDR_HTTP": f"127.0.0.1:{port}", "PYTHONPATH": str(ROOT)}  # fmt: skip
    up = subprocess.Popen(_command("up"), cwd=home, env=environ, stderr=subprocess.DEVNULL)
    try:
        yield _with_traffic(home, environ)
    finally:
        up.send_signal(signal.SIGINT)
        up.wait(60)


def _with_traffic(home: Path, environ: dict[str, str]) -> Site:
    end = time.monotonic() + 180
    while not (home / "operator.json").exists():
        assert time.monotonic() < end
    twice = "".join(json.dumps(SEND | {"event_id": event_id}) + "\n" for event_id in ("e1", "e2"))
    for command in (("simulate", "--messages", str(MESSAGES)), ("produce", "sends")):
        subprocess.run(
            _command(*command), cwd=home, env=environ, check=True, capture_output=True, timeout=180,
            input=twice.encode(),
        )  # fmt: skip
    told = json.loads((home / "operator.json").read_text())
    api = HttpClient(told["url"], told["key"], told["secret"])
    while len(_ask(api, "/mdr/records?limit=1000").get("records", ())) < MESSAGES * 0.95:
        assert time.monotonic() < end, "the traffic is not read"
    return Site(told["url"], told["key"], told["secret"], api)


def _ask(api: HttpClient, path: str) -> dict[str, Any]:
    try:
        return api.get(path)
    except ClientError:
        return {}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Debian's own; as root it runs without its sandbox."""
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Visit:
    """A signed-in page that keeps what the browser complains about."""

    def __init__(self, chromium: Browser, site: Site, mode: str) -> None:
        width, height, scheme = MODES[mode]
        self.context: BrowserContext = chromium.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if scheme == "dark" else "light",
            base_url=site.url,
        )
        self.complaints: list[str] = []
        self.page: Page = self.context.new_page()
        self.page.on("console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda e: self.complaints.append(str(e)))
        self.page.goto("/ui/flow")
        self.page.fill("[name=secret]", site.secret)
        self.page.keyboard.press("Enter")
        self.page.wait_for_url("**/ui/flow")


@pytest.fixture(params=list(MODES))
def anywhere(request: pytest.FixtureRequest, chromium: Browser, site: Site) -> Iterator[Visit]:
    """A visit in each mode."""
    visit = Visit(chromium, site, request.param)
    yield visit
    visit.context.close()


@pytest.fixture
def visit(chromium: Browser, site: Site) -> Iterator[Visit]:
    """A visit on a desk."""
    visit = Visit(chromium, site, "light")
    yield visit
    visit.context.close()


def _paths(site: Site) -> list[str]:
    rows = site.api.get("/mdr/records", {"limit": 1000, "include": "pending"})["records"]
    letters = site.api.get("/mdr/dead-letters", {"limit": 500})["dead_letters"]
    messages = {(r["record_type"], r["direction"], r["amendments"] > 0): r["message_id"] for r in rows}
    shown = [f"/ui/messages/{mid}" for mid in messages.values()] + ["/ui/messages/nothing"]
    return [*PATHS, *shown, *(f"/ui/dead-letters/{one['id']}" for one in letters[:3])]


def test_every_page_is_fine_everywhere(anywhere: Visit, site: Site) -> None:
    """Light, dark and on a phone: nothing breaks, nothing is wider than the window, every text can be read."""
    page = anywhere.page
    for path in _paths(site):
        answer = page.goto(path)
        assert answer and answer.status == (404 if path.endswith("/nothing") else 200), path
        for detail in page.query_selector_all("details:not([open]) > summary"):
            detail.click()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
        assert page.evaluate(CONTRAST) == [], path
        assert page.evaluate("document.cookie") == "", "scripts do not see the session"
    # A missing message is a 404, which the browser notes.
    assert not [words for words in anywhere.complaints if "404" not in words]


def test_everything_can_be_reached_with_the_keyboard(visit: Visit) -> None:
    """The first tab offers to skip the bar, each control takes the focus and shows it, and none holds it."""
    page = visit.page
    for path in PATHS:
        page.goto(path)
        wanted = page.evaluate(
            "[...document.querySelectorAll('a[href]:not([tabindex=\"-1\"]), button, input:not([type=hidden]), select, textarea, summary')]"
            ".filter((e) => e.checkVisibility() && !e.disabled && !e.closest('#live table')).length"
        )
        page.focus(".skip")
        seen = ["first"]
        for _ in range(600):
            page.keyboard.press("Tab")
            told = page.evaluate(
                "(() => { const e = document.activeElement; if (e === document.body) return null;"
                " e.dataset.seen ??= Math.random(); const s = getComputedStyle(e);"
                " return [e.dataset.seen, s.outlineStyle !== 'none' || s.boxShadow !== 'none']; })()"
            )
            if told is None or told[0] in seen:
                break
            assert told[1] or path == "/ui/flow", "the focus cannot be seen"
            seen.append(told[0])
        assert len(seen) >= wanted, path


def test_a_message_is_found_by_typing_its_id(visit: Visit, site: Site) -> None:
    """`/` goes to the field, Enter to the message."""
    mid = site.api.get("/mdr/records", {"limit": 1})["records"][0]["message_id"]
    visit.page.keyboard.press("/")
    visit.page.keyboard.type(mid)
    visit.page.keyboard.press("Enter")
    visit.page.wait_for_url(f"**/ui/messages/{mid}")
    assert mid in visit.page.inner_text("h1") and visit.page.locator("svg.life .mark").count() > 0


def test_the_flow_refreshes_itself_and_keeps_the_place(visit: Visit) -> None:
    """The live part is replaced by a newer one, and what had the focus still has it."""
    page = visit.page
    page.focus("a[href='/ui/flow?sort=lag']")
    page.evaluate("document.getElementById('live').dataset.old = '1'")
    page.wait_for_selector("#live:not([data-old])")
    assert page.evaluate("document.activeElement.getAttribute('href')") == "/ui/flow?sort=lag"
    assert "refreshes itself" in page.inner_text(".foot")


def test_a_bar_leads_into_its_time(visit: Visit) -> None:
    """Hovering tells what a bar holds; a click narrows the range to it."""
    page = visit.page
    page.goto(PATHS[1])
    filled = page.locator("figure a:has(.slot[data-told*=delivered])").last
    filled.hover()
    assert "delivered" in page.inner_text("figure .told")
    filled.click()
    page.wait_for_url("**start=**")
    assert page.locator(".tiles p").first.inner_text() not in ("0", "–")


def test_copying_takes_the_text(visit: Visit) -> None:
    """The button puts the statement into the clipboard."""
    page = visit.page
    visit.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(PATHS[1])
    page.click("details.elsewhere summary")
    page.locator("[data-copy]").first.click()
    page.wait_for_selector("[data-copy]:has-text('Copied')")
    assert page.evaluate("navigator.clipboard.readText()").startswith("SELECT * FROM mdr.messages")


def test_a_report_from_a_selection_is_fetched(visit: Visit) -> None:
    """From the records to a report of them, its progress, its file, and away with it."""
    page = visit.page
    page.goto("/ui/records?range=24h&direction=inbound")
    page.click("text=All of them as a report")
    page.click("button:has-text('Ask')")
    page.wait_for_selector("a:has-text('Download')", timeout=60_000)
    with page.expect_download() as download:
        page.click("a:has-text('Download')")
    lines = Path(download.value.path()).read_text().splitlines()
    assert len(lines) > 10 and all("inbound" in line for line in lines[1:])
    page.click("button:has-text('Delete')")
    page.wait_for_selector("text=No reports yet")


def test_a_letter_is_tried_and_sent_again(visit: Visit) -> None:
    """A dry run tells what the decoder says, sending tells what was sent, and the letter remembers it."""
    page = visit.page
    page.goto("/ui/dead-letters")
    page.locator("table").first.locator("a:has-text('conflict')").first.click()
    page.locator("table.rows a:has-text('conflict')").first.click()
    page.click("button:has-text('Dry run')")
    assert "would be sent once more" in page.inner_text("h1")
    page.click("button.main")
    page.wait_for_selector("h1:has-text('sent once more')")
    assert "would" not in page.inner_text("h1")
    page.click("text=Back to the dead letters")
    page.wait_for_selector("text=Sent again 1 time")
    assert not visit.complaints


def test_signing_out_closes_the_door(visit: Visit) -> None:
    """After signing out the pages are closed again."""
    visit.page.click("text=Sign out")
    visit.page.wait_for_url("**/ui/sign-in")
    visit.page.goto("/ui/records")
    assert "/ui/sign-in" in visit.page.url
