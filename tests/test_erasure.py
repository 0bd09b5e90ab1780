"""Erasing a number or an account: all of it, nothing else, and nothing comes back (`api.erasure`)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from api import audit, erasure, query, reports, seals
from api.audit import Entry
from api.auth import OPERATOR as OPERATOR_CALLER
from api.reports import Shelf
from api.where import EVERYTHING, Range
from schemas.times import format_rfc3339
from streams import checking, kafka
from streams.cli import cli
from streams.clock import clock_ms
from streams.fold import columns_of
from streams.produce import Outlet
from streams.settings import Settings
from streams.store import Store
from tests import pipeline
from tests.api_support import OPERATOR, Asker, Clock, basic, served
from tests.entries import NOON_MS, event, read, value
from tests.test_store import open_row, save
from tests.test_sums import row

NUMBER: Final = "+14155550100"
DIGITS: Final = NUMBER[1:]
OTHER: Final = "+12125550199"
NOW_MS: Final = NOON_MS + 3_600_000


def sender(text: str) -> dict[str, Any]:
    """Return the field of who sent."""
    return {"from": text}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An embedded store with records of the number, in every column that may hold it, and of others."""
    one = Store(f"chdb://{tmp_path / 'store'}")
    one.migrate(3_650, 3_650)
    rows = [
        row("from", **sender(NUMBER)), row("to", to=NUMBER), row("group", group_to=[OTHER, "1 (415) 555-0100"]),
        row("external", external_number="001-415-555-0100"), row("billing", billing_number=NUMBER),
        row("other", **sender(OTHER), to=OTHER), row("longer", to=f"{NUMBER}1"), row("sender", **sender("A155550100")),
        row("code", **sender("14155550")), row("acme", account_id="acme"),
    ]  # fmt: skip
    assert one.write_records(columns_of(rows)) == []
    # An older version of one of them, as a stale worker writes it.
    receipt = read("receipts", 3, message_id="to", event_id="d")
    assert one.write_records(columns_of([row("to", (receipt,), to=NUMBER)])) == []
    one.write_orphans(0, [(read("receipts", 9, message_id=m, event_id="o"), NOON_MS) for m in ("to", "other")])
    yield one
    one.client.command("DROP DATABASE mdr")
    one.close()


def erased(store: Store, home: Path, text: str, *, is_account: bool = False) -> dict[str, Any]:
    """Erase, and return the receipt."""
    subject = erasure.subject_of(text, is_account=is_account)
    assert subject is not None
    act = Entry(NOW_MS, audit.ERASE, key="operator")
    return erasure.erase(store.client, Shelf(home), seals.load(home), subject, act)


def left(store: Store, table: str = "mdrs") -> set[str]:
    """Return the message ids in a table."""
    return {row[0] for row in store.query(f"SELECT message_id FROM {table}", {})}  # noqa: S608  # our own tables


@pytest.mark.parametrize(
    "text", [NUMBER, DIGITS, "+1 (415) 555-0100", "001 415 555 0100", "1-415-555-0100", " +1.415.555.0100 "]
)
def test_a_number_is_erased_in_any_notation(store: Store, tmp_path: Path, text: str) -> None:
    """Every version of every record of the number goes, with its orphans; others stay, longer numbers too."""
    receipt = erased(store, tmp_path, text)
    assert receipt["erased"] == {"records": 5, "versions": 6, "orphan_receipts": 1, "reports": 0}
    assert left(store) == {"other", "longer", "sender", "code", "acme"}
    assert left(store, "orphan_log") == {"other"}


def test_an_account_is_erased_alone(store: Store, tmp_path: Path) -> None:
    """Of an account everything goes, and nothing of others; one that looks like a number is named as an account."""
    assert erased(store, tmp_path, "acme")["erased"]["records"] == 1
    assert "acme" not in left(store) and len(left(store)) == 9
    assert erased(store, tmp_path, "14155550100", is_account=True)["erased"]["records"] == 0


@given(digits=st.text("0123456789", min_size=9, max_size=15).filter(lambda d: d[0] != "0"), data=st.data())
def test_notations_of_one_number_mean_the_same(digits: str, data: st.DataObject) -> None:
    """Blanks, dashes, dots, brackets, `+` and `00` change nothing; letters make an account of it."""
    signs = data.draw(st.lists(st.sampled_from(["", " ", "-", ".", ") ", "/"]), min_size=15, max_size=15))
    written = data.draw(st.sampled_from(["", "+", "00", "+ "])) + "".join(map("".join, zip(digits, signs, strict=False)))
    subject = erasure.subject_of(written)
    assert subject == erasure.subject_of(digits) and subject is not None and f"+{digits}" in subject.forms
    assert erasure.subject_of(f"{digits}x") == erasure.Subject("account", (f"{digits}x",))


def test_a_short_code_is_no_number_of_those_digits() -> None:
    """Up to eight digits without `+` are a short code, with it an E.164 number; too few and too many are none."""
    assert erasure.subject_of("12345") == erasure.Subject("number", ("12345",))
    known = erasure.subject_of("+1234567")
    assert known is not None and "1234567" not in known.forms
    for text in ("12", "+1234567890123456", "", " ", "\n", "a\x1b"):
        assert erasure.subject_of(text) is None


def test_a_dry_run_changes_nothing(store: Store, tmp_path: Path) -> None:
    """It counts by table what would go, and what still settles."""
    send = open_row("still")
    save(store, [send._replace(facts=send.facts.replace(b"+4791234567", NUMBER.encode()))])
    subject = erasure.subject_of(NUMBER)
    assert subject is not None
    told = erasure.counted(store.client, subject, NOW_MS)
    assert {n: told[n] for n in ("records", "versions", "orphan_receipts")} == {
        "records": 5, "versions": 6, "orphan_receipts": 1,
    }  # fmt: skip
    assert told["open_messages"] == {"messages": 1, "settled_by": format_rfc3339(NOON_MS + 5_000)}
    assert len(left(store)) == 10 and not erasure.live(store.client)


def test_reports_that_may_hold_it_go(store: Store, tmp_path: Path) -> None:
    """A report of an account and a time of what is erased loses its file and its row; another one stays."""
    shelf = Shelf(tmp_path)
    early = Range(NOON_MS - 9, NOON_MS)
    spans = {"hit": Range(NOON_MS - 9, NOON_MS + 9), "asked": early, "before": early}
    made = {}
    for name, span in spans.items():
        echo = {"q": NUMBER if name == "asked" else OTHER}
        request = reports.make_request(OPERATOR_CALLER("operator"), "csv", span, EVERYTHING, name=name, echo=echo)
        made[name] = reports.create(store.client, OPERATOR_CALLER("operator"), "native", request, NOON_MS, 30)
        shelf.path(made[name]).write_text("x")
    assert erased(store, tmp_path, NUMBER)["erased"]["reports"] == 2
    assert [shelf.path(made[name]).exists() for name in spans] == [False, False, True]
    assert [r.request.name for r in reports.every(store.client)] == ["before"]
    ((told,),) = store.query("SELECT toString(groupArray(tuple(*))) FROM report_requests", {})
    assert DIGITS not in told and OTHER in told
    stray = shelf.folder / f"{'0' * 32}.csv"
    stray.write_text("of a report that another process deleted")
    erasure.go_on(store.client, shelf, NOW_MS + 1)
    assert not stray.exists() and shelf.path(made["before"]).exists()


def test_the_receipt_stays_without_the_number(store: Store, tmp_path: Path) -> None:
    """Audit log and the text of mutations hold no number; the table of erasures holds it only while it lives."""
    receipt = erased(store, tmp_path, NUMBER)
    (done, begun) = audit.rows(store.client, audit.Wanted(action=audit.ERASE))
    assert {done["outcome"], begun["outcome"]} == {"begun", "done"}
    kept = done if done["outcome"] == "done" else begun
    assert kept["detail"]["erasure_id"] == receipt["erasure_id"] and kept["detail"]["records"] == 5
    assert kept["key"] == "operator"
    told = store.query("SELECT toString(groupArray(tuple(*))) FROM audit_log", {})[0][0]
    told += store.query("SELECT toString(groupArray(command)) FROM system.mutations", {})[0][0]
    assert DIGITS not in told and DIGITS not in json.dumps(receipt)
    assert DIGITS in store.query("SELECT toString(groupArray(tuple(*))) FROM erasures", {})[0][0]


def test_what_comes_back_is_erased_again_until_nothing_can(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a worker still writes of a time before goes at the next pass; later messages stay; then it ends."""
    erased(store, tmp_path, NUMBER)
    shelf = Shelf(tmp_path)
    late = row("late", settled_ms=NOW_MS + 9, to=NUMBER)
    rows = [late, row("stale", to=NUMBER), row("new", to=NUMBER, at_ms=NOW_MS + 1)]
    assert store.write_records(columns_of(rows)) == []
    tombstone = open_row("gone", deleted=True)
    held = open_row("gone")
    save(store, [held._replace(facts=held.facts.replace(b"+4791234567", NUMBER.encode())), tombstone])
    save(store, [open_row("lives")._replace(facts=held.facts.replace(b"+4791234567", NUMBER.encode()))])
    erasure.go_on(store.client, shelf, NOW_MS + 60_000)
    assert "late" not in left(store) and {"new", "stale"} <= left(store)
    (lives,) = erasure.live(store.client)
    assert lives.settled_ms == 0
    monkeypatch.setattr(query, "settled_through", lambda _: format_rfc3339(NOW_MS))
    erasure.go_on(store.client, shelf, NOW_MS + 120_000)
    (lives,) = erasure.live(store.client)
    assert lives.settled_ms == NOW_MS + 120_000
    erasure.go_on(store.client, shelf, NOW_MS + 700_000)
    assert len(erasure.live(store.client)) == 1
    erasure.go_on(store.client, shelf, NOW_MS + 720_000)
    assert not erasure.live(store.client)
    assert "stale" not in left(store) and "new" in left(store)
    assert DIGITS not in store.query("SELECT toString(groupArray(tuple(*))) FROM erasures", {})[0][0]
    facts = store.query("SELECT message_id FROM open_messages WHERE position(facts, {n:String}) > 0", {"n": DIGITS})
    assert [tuple(r) for r in facts] == [("lives",)]


def test_the_path_is_the_operators(store: Store, tmp_path: Path) -> None:
    """It erases, counts in a dry run, and names what is wrong with a request."""
    with served(store.url, tmp_path, Clock(NOW_MS)) as http:
        operator = Asker(http, basic(*OPERATOR))
        for body, field in (
            ({}, "number"), ({"number": NUMBER, "account": "a"}, "number"), ({"number": "acme"}, "number"),
            ({"number": 1}, "number"), ({"account": ""}, "account"), ({"number": NUMBER, "dry_run": 1}, "dry_run"),
            ({"x": 1}, "x"),
        ):  # fmt: skip
            assert operator.send("POST", "/mdr/erasures", body, 400)["field"] == field
        assert operator.send("POST", "/mdr/erasures", {"number": NUMBER, "dry_run": True})["records"] == 5
        assert operator.send("POST", "/mdr/erasures", {"number": NUMBER})["erased"]["records"] == 5
        made = operator.send("POST", "/mdr/credentials", {"account_id": "acme"}, 201)
        Asker(http, basic(made["key"], made["secret"])).send("POST", "/mdr/erasures", {"account": "acme"}, 403)
    assert "acme" in left(store)


# ---- with a worker that runs -----------------------------------------------------------------------------------


async def _produce(settings: Settings, *events: tuple[str, dict[str, Any]]) -> None:
    async with kafka.producing(settings) as client:
        outlet = Outlet(client, settings)
        for topic, fields in events:
            await outlet.send(topic, str(fields["message_id"]).encode(), value(fields))
        await outlet.flush()


def test_nothing_comes_back_from_a_worker(kafka_at: str, tmp_path: Path) -> None:
    """A settled message goes at once, an open one once it has settled; `mdr check` still adds up, topics are told."""
    settings = pipeline.make_settings(kafka_at, tmp_path, "erase.", MDR_SETTLING_WINDOW="1h")
    asyncio.run(_erase_beside_a_worker(settings))
    environ = {"MDR_KAFKA": kafka_at, "MDR_DATA_DIR": str(tmp_path), "MDR_TOPIC_PREFIX": "erase."}
    run = CliRunner().invoke(cli, ["erase", NUMBER, "--dry-run"], env=environ)
    assert run.exit_code == 0, run.output
    assert "there are: 0 records" in run.stdout and "stays in erase.sends for ever" in run.stdout
    assert NUMBER not in run.stdout


async def _erase_beside_a_worker(settings: Settings) -> None:
    await kafka.create_topics(settings)
    now_ms = clock_ms()
    sends = [event("sends", m, now_ms - 2_000, to=n) for m, n in (("done", NUMBER), ("open", NUMBER), ("other", OTHER))]
    receipts = [event("receipts", m, now_ms - 1_000) for m in ("done", "other")]
    await _produce(settings, *(("sends", e) for e in sends), *(("receipts", e) for e in receipts))
    async with pipeline.working(settings) as worker:
        await worker.start()
        await pipeline.until(lambda: sum(p.counts.events for p in worker.flow.partitions.values()) >= 5, worker)
        await worker.barrier.write(checkpoint=True)
        store = Store(settings.clickhouse_url)
        receipt = await asyncio.to_thread(_erased_now, store, settings.data_dir)
        assert receipt["erased"]["records"] == 1 and receipt["open_messages"]["messages"] == 1
        assert left(store) == {"other"}
        await _produce(settings, ("receipts", event("receipts", "open", clock_ms())))
        await pipeline.settle_all(worker, 6)
        assert left(store) == {"other", "open"}
        await _go_on_until_it_ends(store, settings)
        assert left(store) == {"other"}
        # A receipt of what is gone finds nothing to amend.
        await _produce(settings, ("receipts", event("receipts", "done", clock_ms(), event_id="again", state="read")))
        await pipeline.until(lambda: sum(p.counts.events for p in worker.flow.partitions.values()) >= 7, worker)
        await worker.barrier.write(checkpoint=True)
        assert left(store) == {"other"}
        verdict = await checking.run(settings, store, clock_ms, lambda *_: None)
        assert (verdict["ok"], verdict["findings"]) == (True, [])
        for table in ("mdrs", "open_messages", "orphan_log", "audit_log", "erasures"):
            ((told,),) = store.query(f"SELECT toString(groupArray(tuple(*))) FROM {table}", {})  # noqa: S608  # our own tables
            assert DIGITS not in told, table
        store.close()


def _erased_now(store: Store, home: Path) -> dict[str, Any]:
    subject = erasure.subject_of(NUMBER)
    assert subject is not None
    act = Entry(clock_ms(), audit.ERASE, key="operator")
    return erasure.erase(store.client, Shelf(home), seals.load(home), subject, act)


async def _go_on_until_it_ends(store: Store, settings: Settings) -> None:
    """Apply it, as the process that serves does, until its time is over; the clock is moved on."""
    ahead_ms = 0
    async with asyncio.timeout(pipeline.PATIENCE_S):
        while erasure.live(store.client):
            await asyncio.to_thread(erasure.go_on, store.client, Shelf(settings.data_dir), clock_ms() + ahead_ms)
            if any(e.settled_ms for e in erasure.live(store.client)):
                ahead_ms = 700_000
            await asyncio.sleep(0.05)
