"""What the tests of pages stand on: a store with records and one that means harm, a browser, who else is asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import orjson
from litestar.testing import TestClient

from api.dead_letters import Filter, Redrive
from schemas.times import format_rfc3339
from streams.flow import Flow
from streams.simulate import Event, Plan
from streams.store import Store
from tests.api_support import START_MS, WINDOW_MS, Filled, feed, fill, settle, write

NOW_MS: Final = START_MS + 5 * 3_600_000
ORIGIN: Final = "http://testserver.local"
HOSTILE: Final = "</title><script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{7*7}}"
ALL: Final = "/ui/records?range=24h&include=pending"


class Watch:
    """A watcher of the lag that saw one stalled partition."""

    def report(self) -> dict[str, Any]:
        """The lag in the shape of /mdr/lag."""
        agent = {
            "agent": "receipts", "topic": "mdr.receipts", "partition": 3, "owner": "one at 127.0.0.1", "committed": 10,
            "end": 1_244, "lag_events": 1_234, "lag_seconds": 65.0, "trend_events_per_second": 4.0,
            "watermark": format_rfc3339(NOW_MS - 65_000), "status": "stalled", "why": "nothing was committed", "lost_events": 0,
        }  # fmt: skip
        due = {"1m": 1, "10m": 2, "1h": 3, "later": 4}
        settling = {"partition": 3, "open": 10, "oldest_open": format_rfc3339(NOW_MS - 3_600_000), "due": due,
                    "checkpoint_age_seconds": 2.5, "flush_age_seconds": None}  # fmt: skip
        return {
            "status": "stalled", "why": "mdr.receipts partition 3 stands", "at": format_rfc3339(NOW_MS),
            "settled_through": format_rfc3339(NOW_MS - 65_000), "agents": [agent], "settling": [settling], "rates": None,
            "trouble": ["ClickHouse <away>"],
        }  # fmt: skip

    def history(self) -> dict[str, Any]:
        """Two points of the last hour."""
        rates = {"lag_seconds": 65.0, "lag_events": 1_234, "open": 10, "events_per_second": {"mdr.sends": 2.0},
                 "records_per_second": None, "dead_letters_per_second": 0.0}  # fmt: skip
        at = [format_rfc3339(NOW_MS - 20_000), format_rfc3339(NOW_MS - 10_000)]
        return {"every_seconds": 10, "points": [{"at": a} | rates for a in at]}


class Letters:
    """A topic with one dead letter, or none; it writes down what is asked of it."""

    def __init__(self, *letters: dict[str, Any]) -> None:
        self.letters = list(letters)
        self.asked: list[Any] = []

    def page(self, wanted: Filter, limit: int, cursor: str | None, may_see: bool) -> dict[str, Any]:
        """All of them."""
        kept = [one for one in self.letters if wanted.key in ("", one["key"])]
        return {"dead_letters": kept, "next_cursor": None, "total": len(kept), "scanned": 1, "truncated": False}

    def summary(self, wanted: Filter) -> dict[str, Any]:
        """One group a letter."""
        names = ("reason", "fingerprint", "topic", "detail")
        groups = [{n: one[n] for n in names} | {"count": 1, "first": one["timestamp"], "last": one["timestamp"],
                                                "example_id": one["id"]} for one in self.letters]  # fmt: skip
        return {"groups": groups, "scanned": len(groups), "truncated": False}

    def one(self, id_: str, may_see: bool) -> dict[str, Any] | None:
        """One by its id."""
        found = [one for one in self.letters if one["id"] == id_]
        return {"dead_letter": found[0] | {"headers": []}, "now": "ok"} if found else None

    def redrive(self, asked: Redrive, who: str) -> dict[str, Any]:
        """Says that one would be sent, or was."""
        self.asked.append((asked, who))
        return {"would" if asked.dry_run else "redriven": 1, "dry_run": asked.dry_run, "refused": [], "refused_total": 0,
                "outcomes": {"ok": 1}, "remaining": 0, "truncated": False}  # fmt: skip


LETTER = {
    "id": "mdr.dead-letters:0:7", "reason": "invalid_field", "detail": f"from: {HOSTILE}", "fingerprint": "f1",
    "topic": "mdr.sends", "partition": 0, "offset": 41, "timestamp": format_rfc3339(NOW_MS), "key": HOSTILE,
    "value_text": HOSTILE, "value_base64": "PC9zY3JpcHQ+", "size": 9, "redriven": 0, "redriven_at": None,
}  # fmt: skip


def hostile_events() -> list[Event]:
    """A message of account `acme` whose every text is hostile, failed; and a receipt whose message never comes."""
    common = {"message_id": HOSTILE, "occurred_at": format_rfc3339(START_MS), "provider": HOSTILE}
    send = common | {
        "event_id": HOSTILE, "account_id": "acme", "from": "+14155550100", "to": "+12125550101", "body": HOSTILE,
        "user_data": HOSTILE, "tags": [HOSTILE], "attributes": {HOSTILE: HOSTILE}, "campaign_id": HOSTILE,
    }  # fmt: skip
    receipt = common | {"event_id": "r1", "state": "failed", "error_code": HOSTILE}
    lost = receipt | {"message_id": "lost"}
    events = (("sends", HOSTILE, send), ("receipts", HOSTILE, receipt), ("receipts", "lost", lost))
    return [Event(topic, key.encode(), orjson.dumps(value), START_MS, "") for topic, key, value in events]


@contextmanager
def filled_store(path: Path) -> Iterator[Filled]:
    """Settled and open messages of several accounts, one that means harm, and an orphan."""
    store = Store(f"chdb://{path}")
    done = fill(store, Plan(300, seed=17, rate_per_s=0.02), NOW_MS)
    harm = Flow("mdr.", WINDOW_MS)
    harm.open_partition(1, START_MS)  # its own: a partition's checkpoint says where its open messages begin
    offsets = feed(store, harm, hostile_events())
    for windows in (2, 3):
        settle(store, harm, START_MS + windows * WINDOW_MS)
        write(store, harm, START_MS + windows * WINDOW_MS, offsets)
    yield done
    store.close()


class Browser:
    """Keeps a session, as a browser does; the client's own jar is emptied before each request."""

    def __init__(self, client: TestClient[Any], key: str, secret: str) -> None:
        self.client = client
        answer = self.post("/ui/sign-in", key=key, secret=secret)
        assert answer.status_code == 303, answer.text
        self.set_cookie = answer.headers["set-cookie"]
        self.cookie = self.set_cookie.partition(";")[0]

    cookie = ""

    @classmethod
    def with_cookie(cls, client: TestClient[Any], cookie: str) -> Browser:
        """A browser that was given a cookie from elsewhere."""
        browser = cls.__new__(cls)
        browser.client, browser.cookie = client, cookie
        return browser

    def use(self, path: str) -> None:
        """Ask for a page, and keep the cookie that comes with it."""
        self.client.cookies.clear()
        answer = self.client.get(path, headers={"Cookie": self.cookie})
        assert answer.status_code == 200 and "set-cookie" in answer.headers, answer.text
        self.cookie = answer.headers["set-cookie"].partition(";")[0]

    def refresh(self, path: str) -> httpx.Response:
        """What answers a page's own script, which asks without anybody there."""
        self.client.cookies.clear()
        headers = {"Cookie": self.cookie, "X-MDR-Refresh": "1"}
        return self.client.get(path, headers=headers, follow_redirects=False)

    def get(self, path: str, status: int = 200) -> str:
        """A page's text; the status must be the one said."""
        self.client.cookies.clear()
        answer = self.client.get(path, headers={"Cookie": self.cookie}, follow_redirects=False)
        assert answer.status_code == status, answer.text
        return answer.headers.get("location", "") if status == 303 else answer.text

    def post(self, path: str, origin: str = ORIGIN, **form: str) -> httpx.Response:
        """What answers a posted form."""
        self.client.cookies.clear()
        headers = {"Cookie": self.cookie} | ({"Origin": origin} if origin else {})
        return self.client.post(path, data=form, headers=headers, follow_redirects=False)
