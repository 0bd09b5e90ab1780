"""The audit log: who did what is kept, without numbers, bodies or secrets, and never in the way (`api.audit`)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from click.testing import CliRunner
from litestar.testing import TestClient

from api import audit, auth, query, seals
from api.audit import AuditLog, Entry
from streams.cli import cli
from streams.fold import columns_of
from streams.store import Store, connect
from tests.api_support import OPERATOR, Asker, Clock, basic, bearer, served
from tests.entries import NOON_MS
from tests.pages_support import ORIGIN, Browser
from tests.test_sums import row

NUMBER: Final = "+12125550101"
BODY: Final = "the body"
_PATIENCE_S: Final = 30.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An embedded store with a record."""
    one = Store(f"chdb://{tmp_path / 'store'}")
    one.migrate(3_650, 3_650, 3_650)
    one.write_records(columns_of([row("secret-id", account_id="acme", to=NUMBER, body=BODY)]))
    yield one
    one.client.command("DROP DATABASE mdr")
    one.close()


@pytest.fixture
def http(store: Store, tmp_path: Path) -> Iterator[TestClient[Any]]:
    """The application upon it."""
    with served(store.url, tmp_path, Clock(NOON_MS + 60_000)) as client:
        yield client


def kept(store: Store, action: str, count: int = 1) -> list[dict[str, Any]]:
    """Return the rows of an action, oldest first, once there are so many."""
    end_s = time.monotonic() + _PATIENCE_S
    while True:
        rows = audit.rows(store.client, audit.Wanted(action=action, limit=1000))[::-1]
        if len(rows) >= count or time.monotonic() > end_s:
            assert len(rows) == count, rows
            return rows
        time.sleep(0.05)


def test_reads_say_who_and_what_without_saying_it(http: TestClient[Any], store: Store, tmp_path: Path) -> None:
    """A record that is read leaves key, account and path, the id as a keyed hash, of a list its range alone."""
    issued = auth.add_credential(store.client, "acme", "", "reader")
    asker = Asker(http, bearer(issued))
    asker.get("/mdr/records/secret-id")
    asker.get("/mdr/records", to_number=NUMBER, start="2026-01-05")
    one, many = kept(store, audit.READ, 2)
    assert (one["key"], one["account_id"], one["path"], one["status"]) == ("reader", "acme", "/mdr/records/{message_id}", 200)
    assert one["ids"] == [seals.load(tmp_path).hashed("audit", "secret-id")]
    assert many["detail"] == {"parameters": ["start", "to_number"], "start": "2026-01-05"}
    hash_only = audit.rows(store.client, audit.Wanted(id_hash=one["ids"][0]))
    assert [r["path"] for r in hash_only] == ["/mdr/records/{message_id}"]


def test_nothing_personal_is_kept(http: TestClient[Any], store: Store) -> None:
    """No number, id, body or secret is in the table, whatever is asked for, signed in with or typed wrong."""
    issued = auth.add_credential(store.client, "acme", "", "reader")
    asker = Asker(http, bearer(issued))
    for path in (f"/mdr/records/{NUMBER}", f"/v1/Account/reader/Message/?from_number={NUMBER}&{NUMBER}=x"):
        http.get(path, headers=asker.headers)
    http.get(f"/mdr/records?start={NUMBER[1:]}&end=2026-01-05T00:00:00Z", headers=asker.headers)
    http.get("/mdr/records", headers=basic(f"{NUMBER} {issued.secret}", issued.secret))
    http.post("/ui/sign-in", headers={"Origin": ORIGIN}, data={"key": issued.secret + "!", "secret": issued.secret})
    Asker(http, basic(*OPERATOR)).get("/mdr/trace/secret-id")
    kept(store, audit.REFUSED, 2)
    kept(store, audit.READ, 4)
    (told,) = store.query("SELECT toString(groupArray(tuple(*))) FROM audit_log", {})[0]
    for word in (NUMBER[1:], "secret-id", BODY, issued.secret, OPERATOR[1]):
        assert word not in told


def test_sign_ins_and_refusals_are_kept(http: TestClient[Any], store: Store) -> None:
    """Coming in, going out, a wrong secret and a forbidden path each leave a row with the key."""
    issued = auth.add_credential(store.client, "acme", "", "reader")
    browser = Browser(http, "reader", issued.secret)
    browser.post("/ui/sign-out")
    browser.post("/ui/sign-in", key="reader", secret="wrong")
    Asker(http, bearer(issued)).get("/mdr/audit", status=403)
    Asker(http, basic("reader", "wrong")).get("/mdr/records", status=401)
    assert [r["key"] for r in kept(store, audit.SIGN_IN)] == ["reader"]
    assert [r["key"] for r in kept(store, audit.SIGN_OUT)] == ["reader"]
    refused = kept(store, audit.REFUSED, 3)
    assert sorted((r["path"], r["status"], r["key"]) for r in refused) == [
        ("/mdr/audit", 403, "reader"), ("/mdr/records", 401, "reader"), ("/ui/sign-in", 403, "reader"),
    ]  # fmt: skip
    assert {r["outcome"] for r in refused} == {"refused"}


def test_keys_are_durable_before_and_after(http: TestClient[Any], store: Store) -> None:
    """A key made or ended leaves `begun` and what came of it, at once."""
    operator = Asker(http, basic(*OPERATOR))
    operator.send("POST", "/mdr/credentials", {"account_id": "a", "key": "k"}, 201)
    operator.send("POST", "/mdr/credentials", {"account_id": "a", "key": "k"}, 400)
    operator.send("DELETE", "/mdr/credentials/k")
    made = [(r["outcome"], r["detail"].get("made")) for r in audit.rows(store.client, audit.Wanted(action=audit.KEY_ADD))]
    assert sorted(made, key=str) == [("begun", None), ("begun", None), ("done", "k"), ("failed", None)]
    ended = [(r["outcome"], r["detail"]["ended"]) for r in audit.rows(store.client, audit.Wanted(action=audit.KEY_REVOKE))]
    assert sorted(ended) == [("begun", "k"), ("done", "k")]


def test_an_act_that_cannot_be_kept_is_not_done(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the row before, nothing is done."""

    def fail(*_: Any) -> None:
        raise query.Unavailable("away")

    monkeypatch.setattr(audit, "write", fail)
    done = []
    with pytest.raises(query.Unavailable), audit.recorded(store.client, Entry(NOON_MS, audit.KEY_ADD)):
        done.append(1)
    assert not done


def test_exports_are_kept(http: TestClient[Any], store: Store) -> None:
    """A report that is asked for leaves a row."""
    Asker(http, basic(*OPERATOR)).send("POST", "/mdr/reports", {"format": "csv"}, 202)
    (told,) = kept(store, audit.EXPORT)
    assert (told["method"], told["path"], told["status"]) == ("POST", "/mdr/reports", 202)


def test_the_operator_reads_it(http: TestClient[Any], store: Store) -> None:
    """Path, page and their filters show the same rows; a bad value is named."""
    rows = [Entry(NOON_MS + n, audit.READ, key=f"k{n % 2}", account_id=f"a{n}", path="/x") for n in range(4)]
    audit.write(store.client, [*rows, Entry(NOON_MS + 9, audit.ERASE, key="<b>", detail={"n": 1})])
    operator = Asker(http, basic(*OPERATOR))
    assert [r["account_id"] for r in operator.get("/mdr/audit", key="k1")["audit"]] == ["a3", "a1"]
    assert [r["key"] for r in operator.get("/mdr/audit", account="a2")["audit"]] == ["k0"]
    assert [r["detail"] for r in operator.get("/mdr/audit", action="erase")["audit"]] == [{"n": 1}]
    since = operator.get("/mdr/audit", since="2026-01-05T12:00:00.003Z", until="2026-01-05T12:00:00.009Z")["audit"]
    assert [r["account_id"] for r in since] == ["a3"]
    for name, value in (("action", "x"), ("since", "yesterday"), ("limit", "0"), ("colour", "1")):
        assert operator.get("/mdr/audit", status=400, **{name: value})["field"] == name
    browser = Browser(http, *OPERATOR)
    page = browser.get("/ui/audit?action=erase&key=")
    assert "&lt;b&gt;" in page and "n: 1" in page and "/x" not in page
    assert "action is one of" in browser.get("/ui/audit?action=x", status=400)


def test_the_command_reads_it_when_nothing_runs(store: Store, tmp_path: Path) -> None:
    """`mdr audit` opens the store itself, with the same filters."""
    audit.write(store.client, [Entry(NOON_MS, audit.READ, key="k"), Entry(NOON_MS, audit.SIGN_IN, key="k")])
    environ = {"MDR_DATA_DIR": str(tmp_path), "MDR_CLICKHOUSE_URL": store.url}
    told = CliRunner().invoke(cli, ["audit", "--action", "read", "--json"], env=environ)
    assert told.exit_code == 0 and '"action":"read"' in told.stdout and "sign_in" not in told.stdout


# ---- never in the way ------------------------------------------------------------------------------------------


class _Away:
    """A store that refuses until it is let in."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.is_there = threading.Event()

    def __call__(self) -> Any:
        if not self.is_there.is_set():
            raise OSError("away")
        return connect(self.url)


def until(true: Callable[[], bool]) -> None:
    """Return once something is so."""
    end_s = time.monotonic() + _PATIENCE_S
    while not true():
        assert time.monotonic() < end_s
        time.sleep(0.02)


def test_what_finds_no_room_is_counted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the store is away rows wait within bounds; then they are written, and how many were left out is told."""
    monkeypatch.setattr(audit, "QUEUE_MAX", 20)
    away = _Away(store.url)
    log = AuditLog(away, lambda: NOON_MS)
    log.start()
    for n in range(50):
        log.note(Entry(NOON_MS + n, audit.READ, key=str(n)))
    assert (len(log._waiting), log.dropped) == (20, 30)
    away.is_there.set()
    until(lambda: not log._waiting)
    log.stop()
    assert [r["key"] for r in kept(store, audit.READ, 20)] == [str(n) for n in range(20)]
    assert kept(store, audit.DROPPED)[0]["detail"] == {"rows": 30}
    assert log.dropped == 0


def test_refusals_cannot_fill_the_table(store: Store) -> None:
    """Of a thousand refusals at once ten are kept, and the reads between them are all kept."""
    log = AuditLog(lambda: connect(store.url), lambda: NOON_MS)
    for n in range(1_000):
        log.note(Entry(NOON_MS + n, audit.REFUSED))
        if n % 100 == 0:
            log.note(Entry(NOON_MS + n, audit.READ))
    log.start()
    log.stop()
    assert len(kept(store, audit.REFUSED, 10)) == 10 and len(kept(store, audit.READ, 10)) == 10
    assert kept(store, audit.DROPPED)[0]["detail"] == {"rows": 990}
    assert log._refused == 0


def test_a_request_does_not_fail_by_it(http: TestClient[Any], store: Store) -> None:
    """Requests are answered while the log cannot be written."""
    store.client.command("RENAME TABLE mdr.audit_log TO mdr.elsewhere")
    Asker(http, basic(*OPERATOR)).get("/mdr/records/secret-id")
    store.client.command("RENAME TABLE mdr.elsewhere TO mdr.audit_log")
    assert len(kept(store, audit.READ)) == 1


def test_retention_follows_the_setting(store: Store) -> None:
    """`MDR_AUDIT_DAYS` is the TTL of the table."""
    store.migrate(3_650, 3_650, 17)
    ((made,),) = store.query("SELECT create_table_query FROM system.tables WHERE name = 'audit_log'", {})
    assert "toIntervalDay(17)" in made
