"""The HTTP side under pressure, over real sockets: turns, ends, what is refused before it is read, HEAD and Allow."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import uvicorn
from litestar.testing import TestClient

from api import app as api_app
from api import auth, probes, query
from api.app import AppConfig, create_app
from api.guard import Guard
from api.http import Refusal
from api.pages.routes import PAGES
from api.routes import ROUTES, allowed, face_of
from api.shares import LINE_MAX, Shares
from streams.simulate import Plan
from streams.store import Store, connect
from tests.api_support import OPERATOR, START_MS, Clock, Filled, basic, bearer, fill, served

NOW_MS: Final = START_MS + 20 * 3_600_000
PATIENCE_S: Final = 60
PLIVO: Final = "MAFFFFFFFFFFFFFFFFFF"


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    """A few settled messages."""
    store = Store(f"chdb://{tmp_path_factory.mktemp('store')}")
    yield fill(store, Plan(20, seed=3, rate_per_s=0.05))
    store.close()


@contextmanager
def listening(url: str, data_dir: Path, guard: Guard, **options: Any) -> Iterator[int]:
    """The application behind a real server; yields its port."""
    given: dict[str, Any] = {
        "connect": lambda: connect(url), "data_dir": data_dir, "operator": OPERATOR, "http_url": "",
        "clock_ms": Clock(NOW_MS), "requests_per_s": 1e6, "burst": 1_000_000,
    }  # fmt: skip
    config = uvicorn.Config(
        create_app(AppConfig(**given | options)), port=0, log_level="warning", lifespan="on", http=guard.protocol()
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        threading.Event().wait(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join()


@pytest.fixture
def port(filled: Filled, tmp_path: Path) -> Iterator[int]:
    """The application upon that store, on a port of its own."""
    with listening(filled.store.url, tmp_path, Guard(512)) as at:
        yield at


def ask(port: int, path: str, headers: dict[str, str], method: str = "GET", body: bytes | None = None) -> Any:
    """Status, headers and JSON of an answer, on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        data = answer.read()
        return answer.status, dict(answer.getheaders()), json.loads(data) if data[:1] in (b"{", b"[") else data
    finally:
        connection.close()


class Held:
    """Lists that hang until they are let go, and how many have begun."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun = 0
        self._lock = threading.Condition()
        self._go = threading.Event()
        page = query.records_page

        def hang(*args: Any, **more: Any) -> Any:
            with self._lock:
                self.begun += 1
                self._lock.notify_all()
            assert self._go.wait(PATIENCE_S)
            return page(*args, **more)

        monkeypatch.setattr(query, "records_page", hang)
        monkeypatch.setattr("api.native.query.records_page", hang)

    def until_begun(self, count: int) -> None:
        """Returns when so many hang."""
        with self._lock:
            assert self._lock.wait_for(lambda: self.begun >= count, PATIENCE_S)

    def let_go(self) -> None:
        """Ends all of them, and those to come."""
        self._go.set()


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    """Lists hang in this test."""
    made = Held(monkeypatch)
    yield made
    made.let_go()


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[Shares]:
    """The lines of the application, callers' first."""
    made: list[Shares] = []

    def make(*args: Any) -> Shares:
        made.append(Shares(*args))
        return made[-1]

    monkeypatch.setattr(api_app, "Shares", make)
    return made


def until(done: Callable[[], bool]) -> None:
    """Returns when something is so."""
    for _ in range(PATIENCE_S * 100):
        if done():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it never came to be")


def message_of(filled: Filled) -> tuple[str, str]:
    """A record's account and id."""
    record = next(iter(filled.truth.records.values()))
    return record["account_id"], record["message_id"]


def test_fifty_heavy_requests_of_one_shut_out_nobody(
    lines: list[Shares], port: int, held: Held, filled: Filled, tmp_path: Path
) -> None:
    """While all that one tenant asks for hangs, another's record, list and sign-in, the operator and probes answer."""
    account, message_id = message_of(filled)
    greedy, other = (auth.add_credential(filled.store.client, name) for name in ("greedy", account))
    with ThreadPoolExecutor(52) as pool:
        heavy = [pool.submit(ask, port, "/mdr/records?limit=1", bearer(greedy)) for _ in range(50)]
        held.until_begun(2)
        until(lambda: lines[0]._waiting >= 46)  # the rest but those that still look who asks
        for path in ("/livez", "/readyz", "/metrics"):
            assert ask(port, path, {})[0] == 200
        assert ask(port, f"/mdr/records/{message_id}", bearer(other))[0] == 200
        assert ask(port, "/mdr/stats", bearer(other))[0] == 200
        assert ask(port, "/mdr/stats", basic(*OPERATOR))[0] == 200
        assert ask(port, "/mdr/stats", basic("nobody", "wrong"))[0] == 401
        assert held.begun == 2
        late = pool.submit(ask, port, "/mdr/records?limit=1", bearer(other))
        held.until_begun(3)
        held.let_go()
        assert [done.result()[0] for done in [*heavy, late]] == [200] * 51
    assert (lines[0]._waiting, lines[0]._running) == (0, {})


def test_a_line_that_is_full_is_a_429_in_the_vendors_shape(
    lines: list[Shares], port: int, held: Held, filled: Filled
) -> None:
    """Beyond its line a credential is told to come back, by the bound's name and in its face's shape; others are not."""
    greedy, other = (auth.add_credential(filled.store.client, name, key=key) for name, key in (("a", None), ("b", PLIVO)))
    assert ask(port, "/mdr/stats", bearer(greedy))[0] == 200
    with ThreadPoolExecutor(LINE_MAX + 2) as pool:
        heavy = [pool.submit(ask, port, "/mdr/records", bearer(greedy)) for _ in range(LINE_MAX + 2)]
        held.until_begun(2)
        until(lambda: lines[0]._waiting == LINE_MAX)
        status, headers, told = ask(port, "/mdr/records", bearer(greedy))
        assert (status, headers["retry-after"]) == (429, "5") and f"{LINE_MAX} requests" in told["detail"]
        status, _, told = ask(port, "/core/v2/sms/message_drs", bearer(greedy))
        assert status == 429 and "errors" in told
        assert ask(port, f"/v1/Account/{PLIVO}/Message/", bearer(other))[0] == 200
        held.let_go()
        assert {done.result()[0] for done in heavy} == {200}


def test_work_for_a_client_that_has_gone_never_begins(
    lines: list[Shares], port: int, held: Held, filled: Filled
) -> None:
    """Whoever hangs up while waiting is forgotten, and those who stay are answered."""
    issued = auth.add_credential(filled.store.client, "leaver")
    with ThreadPoolExecutor(3) as pool:
        stays = [pool.submit(ask, port, "/mdr/records", bearer(issued)) for _ in range(2)]
        held.until_begun(2)
        leaver = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
        credential = bearer(issued)["Authorization"]
        leaver.sendall(f"GET /mdr/records HTTP/1.1\r\nHost: x\r\nAuthorization: {credential}\r\n\r\n".encode())
        until(lambda: lines[0]._waiting == 1)
        leaver.close()
        until(lambda: lines[0]._waiting == 0)
        held.let_go()
        assert [done.result()[0] for done in stays] == [200, 200]
    assert held.begun == 2


def test_an_answer_has_its_time(
    lines: list[Shares], filled: Filled, tmp_path: Path, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that waits or works beyond its time is a 503 that names the seconds, and its client is free."""
    routes = tuple(r._replace(seconds=1) if r.path == "/mdr/records" else r for r in ROUTES)
    monkeypatch.setattr(api_app, "ROUTES", routes)
    issued = auth.add_credential(filled.store.client, "patient")
    with listening(filled.store.url, tmp_path, Guard(512)) as port:
        status, headers, told = ask(port, "/mdr/records", bearer(issued))
        assert (status, headers["retry-after"]) == (503, "5") and "longer than 1 s" in told["detail"]
        held.let_go()


# ---- before a body is read -------------------------------------------------------------------------------------


def begun(port: int, head: str, *headers: str) -> tuple[socket.socket, str]:
    """A request whose body is not sent, and the first of what is answered."""
    sent = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
    sent.sendall("\r\n".join([head, "Host: localhost", *headers, "", ""]).encode())
    return sent, sent.recv(65_536).decode()


@pytest.mark.parametrize(
    ("credential", "length", "first"),
    [
        ("", 1_000_000, "HTTP/1.1 401"),
        ("Authorization: Bearer nobody.wrong", 1_000_000, "HTTP/1.1 401"),
        ("right", 1_048_577, "HTTP/1.1 413"),
        ("right", 1_000_000, "HTTP/1.1 100"),
    ],
)
@pytest.mark.parametrize("path", ["/mdr/reports", "/reporting/mdr_requests"])
def test_who_asks_is_known_before_the_body_is_read(
    port: int, filled: Filled, path: str, credential: str, length: int, first: str
) -> None:
    """Without a right credential, or with too large a length, the answer comes while no byte of the body was taken."""
    if credential == "right":
        issued = auth.add_credential(filled.store.client, "writer")
        credential = f"Authorization: {bearer(issued)['Authorization']}"
    head = ("Content-Type: application/json", f"Content-Length: {length}", "Expect: 100-continue", credential or "X: y")
    sent, answer = begun(port, f"POST {path} HTTP/1.1", *head)
    sent.close()
    assert answer.startswith(first), answer


def test_a_form_is_not_read_before_the_session_is_known(port: int) -> None:
    """A page's form is refused without a session while its body is still to come."""
    head = ("Content-Type: application/x-www-form-urlencoded", "Content-Length: 1000", "Expect: 100-continue")
    sent, answer = begun(port, "POST /ui/reports HTTP/1.1", *head, f"Origin: http://localhost:{port}")
    sent.close()
    assert answer.startswith(("HTTP/1.1 401", "HTTP/1.1 403")), answer


def test_a_header_of_too_many_fields_is_refused(port: int) -> None:
    """More fields than anybody needs, or more bytes in one read than the parser bounds, are a 431 in the face's shape."""
    status, _, told = ask(port, "/core/v2/sms/message_drs", {f"X-{n}": "y" for n in range(120)})
    assert status == 431 and "errors" in told
    assert ask(port, "/mdr/records", {"X-Long": "y" * 40_000})[0] in (400, 431)


# ---- failed sign-ins -------------------------------------------------------------------------------------------


def test_wrong_credentials_are_slowed_and_right_ones_are_not(filled: Filled, tmp_path: Path) -> None:
    """After some failures a wrong credential is a 429 with Retry-After; the right one is let in all the while."""
    issued = auth.add_credential(filled.store.client, "owner")
    with served(filled.store.url, tmp_path, Clock(NOW_MS)) as http:
        answers = [http.get("/mdr/stats", headers=basic(issued.key, "wrong")) for _ in range(8)]
        assert [a.status_code for a in answers] == [401] * 5 + [429] * 3
        assert [a.headers["retry-after"] for a in answers[5:]] == ["1", "2", "4"]
        assert http.get("/mdr/stats", headers=bearer(issued)).status_code == 200
        assert http.get("/mdr/stats", headers=basic(issued.key, "wrong")).status_code == 401


def test_clients_that_send_an_empty_credential_first_are_not_slowed(filled: Filled, tmp_path: Path) -> None:
    """Each get twice, first with an empty Basic credential, as a vendor's client does: never a wait, nothing counted."""
    issued = auth.add_credential(filled.store.client, "twice")
    with served(filled.store.url, tmp_path, Clock(NOW_MS)) as http:
        for _ in range(60):
            assert http.get("/core/v2/sms/message_drs", headers=basic("", "")).status_code == 401
            assert http.get("/core/v2/sms/message_drs", headers=bearer(issued)).status_code == 200


def test_a_revoked_key_is_out_at_once_though_it_is_known(filled: Filled, tmp_path: Path) -> None:
    """A credential that was right a moment ago is looked up all the same."""
    issued = auth.add_credential(filled.store.client, "revoked")
    with served(filled.store.url, tmp_path, Clock(NOW_MS)) as http:
        assert http.get("/mdr/stats", headers=bearer(issued)).status_code == 200
        auth.revoke(filled.store.client, issued.key)
        assert http.get("/mdr/stats", headers=bearer(issued)).status_code == 401


# ---- HEAD and Allow --------------------------------------------------------------------------------------------

_KNOWN: Final = [
    *((r.method, r.path) for r in ROUTES), *((p.method, p.path) for p in PAGES), *(("GET", p) for p in probes.PATHS),
]  # fmt: skip
_GETS: Final = sorted({path for method, path in _KNOWN if method == "GET"})


def _filled_in(path: str) -> str:
    return "/".join("x" if part.startswith("{") else part for part in path.split("/"))


@pytest.fixture(scope="module")
def client(filled: Filled, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient[Any]]:
    """The application upon that store, in this process."""
    with served(filled.store.url, tmp_path_factory.mktemp("data"), Clock(NOW_MS)) as made:
        yield made


@pytest.mark.parametrize("path", _GETS)
def test_head_is_served_wherever_get_is(client: TestClient[Any], path: str) -> None:
    """HEAD answers with the status and headers of GET, and without a body."""
    asked = _filled_in(path)
    got = client.get(asked, headers=basic(*OPERATOR), follow_redirects=False)
    head = client.head(asked, headers=basic(*OPERATOR), follow_redirects=False)
    assert (head.status_code, head.content) == (got.status_code, b"")
    assert head.headers["content-type"] == got.headers["content-type"]


@pytest.mark.parametrize("path", sorted({path for _, path in _KNOWN}))
def test_a_wrong_method_is_told_the_right_ones(client: TestClient[Any], path: str) -> None:
    """A 405 names every method of its path in `Allow`, in the shape of its face."""
    asked = _filled_in(path)
    methods = {method for method, known in _KNOWN if known == path}
    methods |= {"HEAD"} if "GET" in methods else set()
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE"} - methods:
        answer = client.request(method, asked, headers=basic(*OPERATOR))
        assert answer.status_code == 405, (method, path)
        assert set(answer.headers["allow"].split(", ")) == methods | {"OPTIONS"}
        assert answer.headers["content-type"].partition(";")[0] == face_of(asked)(Refusal(405, "")).content_type


def test_paths_fit_templates() -> None:
    """A name is one part, at the end of a path all that is left, and a path that nobody knows allows nothing."""
    known = [("GET", "/a"), ("POST", "/a"), ("DELETE", "/a/{id}"), ("GET", "/a/{id}/file"), ("GET", "/")]
    assert allowed("/a/", known) == ["GET", "HEAD", "OPTIONS", "POST"]
    assert allowed("/a/x", known) == ["DELETE", "OPTIONS"]
    assert allowed("/a/x/file", known) == ["DELETE", "GET", "HEAD", "OPTIONS"]
    assert allowed("/", known) == ["GET", "HEAD", "OPTIONS"]
    assert allowed("/a/file", [*known, ("POST", "/a/file")]) == ["OPTIONS", "POST"]
    assert allowed("/b", known) == ["OPTIONS"]
