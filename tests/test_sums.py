"""Sums of money and delays, wherever they are shown: exact beyond 64 bits, one currency each, never below 0."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from litestar.testing import TestClient

from api import stats
from api.client import HttpClient
from api.pages import figures, records
from api.where import EVERYTHING, Range, Scope
from schemas import exact_json
from schemas.times import format_rfc3339
from streams import demo
from streams.fold import columns_of, outbound_row
from streams.join import Life
from streams.store import Store, _migrations
from streams.terminal import Terminal
from tests.api_support import OPERATOR, Asker, Clock, basic, served
from tests.entries import NOON_MS, read
from tests.pages_support import Browser

DAY: Final = Range(NOON_MS - 86_400_000, NOON_MS + 86_400_000)
DEAR: Final[dict[str, Any]] = {"rate": "9000000", "segments": 255, "currency": "IDR"}
MONEY: Final = st.integers(0, 9_999_999 * 10**9).map(lambda n: f"{n // 10**9}.{n % 10**9:09d}")
PRICES: Final = st.tuples(st.sampled_from(("USD", "EUR", "IDR")), MONEY, MONEY, st.integers(1, 255))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """An embedded store."""
    one = Store(f"chdb://{tmp_path_factory.mktemp('sums')}")
    one.migrate(3_650, 3_650)
    yield one
    one.close()


@pytest.fixture
def empty(store: Store) -> Store:
    """The store without records."""
    store.client.command("TRUNCATE TABLE mdr.mdrs")
    return store


def row(
    message_id: str, receipts: tuple[Any, ...] = (), settled_ms: int = NOON_MS + 1_000, **fields: Any
) -> tuple[object, ...]:
    """Return the row of a settled message."""
    send = read("sends", message_id=message_id, **fields)
    return outbound_row(Life(send, receipts, settled_ms=settled_ms), send, 0)


def delivered(message_id: str, sent_s: int, done_s: int) -> tuple[object, ...]:
    """Return the row of a message that a carrier stamps at another second than its send."""
    receipt = read("receipts", 7, message_id=message_id, event_id="d", state="DELIVRD", at_ms=NOON_MS + done_s * 1000)
    return row(message_id, (receipt,), at_ms=NOON_MS + sent_s * 1000, account_id="minute")


# ---- money -----------------------------------------------------------------------------------------------------


@settings(max_examples=30)
@example(prices=[("IDR", "9999999.999999999", "9999999.999999999", 255)] * 40)
@given(prices=st.lists(PRICES, min_size=1, max_size=40))
def test_sums_are_those_of_whole_numbers(store: Store, prices: list[tuple[str, str, str, int]]) -> None:
    """Statistics, pages and the view add up as Python's integers do, one row a currency."""
    store.client.command("TRUNCATE TABLE mdr.mdrs")
    wanted: Counter[str] = Counter()
    for currency, rate, fee, segments in prices:
        nanos = int(rate.replace(".", "")) + int(fee.replace(".", ""))
        wanted[currency] += nanos * segments
    rows = [
        row(f"m{n}", rate=rate, carrier_fee=fee, segments=parts, currency=currency)
        for n, (currency, rate, fee, parts) in enumerate(prices)
    ]
    assert store.write_records(columns_of(rows)) == []
    told = stats.rows(store.client, Scope(None), DAY, EVERYTHING, ())
    assert {r["currency"]: r["amount_nanos"] for r in told} == wanted
    for r in told:
        whole, _, fraction = r["amount"].partition(".")
        assert int(whole + fraction.ljust(9, "0")) == wanted[r["currency"]]
    assert figures.totals(store.client, Scope(None), DAY, EVERYTHING)["amounts"] == wanted
    view = store.query("SELECT currency, sum(amount_nanos) FROM delivery_stats GROUP BY currency", {})
    assert {line[0]: line[1] for line in view} == wanted


def test_a_sum_beyond_64_bits_is_exact_on_its_whole_way(empty: Store, tmp_path: Path) -> None:
    """Six messages of IDR 9,000,000 a part, 255 parts each, cost IDR 13,770,000,000 in JSON and on the page."""
    assert empty.write_records(columns_of([row(f"idr{n}", **DEAR) for n in range(6)])) == []
    with served(empty.url, tmp_path, Clock(NOON_MS + 60_000)) as http:
        answer = http.get("/mdr/stats", headers=basic(*OPERATOR))
        assert '"amount_nanos":13770000000000000000,' in answer.text
        (told,) = json.loads(answer.text)["stats"]
        assert (told["amount"], told["currency"]) == ("13770000000", "IDR")
        page = Browser(http, *OPERATOR).get("/ui/records?range=24h")
        assert "13770000000 <small>IDR</small>" in page


def test_currencies_never_share_a_row(empty: Store) -> None:
    """Euros and dollars of one account are two rows of `delivery_stats`."""
    rows = [row("eur", rate="0.07", currency="EUR"), row("usd", rate="0.004")]
    assert empty.write_records(columns_of(rows)) == []
    ask = "SELECT currency, messages, toString(amount_nanos), toTypeName(amount_nanos) FROM delivery_stats ORDER BY currency"
    assert empty.query(ask, {}) == [("EUR", 1, "70000000", "Int128"), ("USD", 1, "4000000", "Int128")]


def test_the_demo_adds_each_currency_by_itself() -> None:
    """The demo's table has a line a currency, its amounts without a float."""
    out = Terminal(width=200)
    common = {"direction": "outbound", "record_type": "complete", "state": "delivered", "segments": 1}
    told = [common | {"currency": c, "amount_nanos": n} for c, n in (("USD", 1), ("EUR", 2), ("EUR", 2**63 - 1))]
    with out.capture() as capture:
        demo._show_states(out, told)
    assert "9223372036.854775809" in capture.get() and " 0.000000001" in capture.get()


def test_the_decimal_of_the_docs_is_exact(empty: Store) -> None:
    """An amount as the docs turn it into a decimal keeps its last digit."""
    assert empty.write_records(columns_of([row("m", rate="8999999.999999999", segments=255)])) == []
    ((amount,),) = empty.query("SELECT toString(reinterpret(amount_nanos, 'Decimal(18, 9)')) FROM mdr", {})
    assert amount == "2294999999.999999745"


@given(n=st.integers(-(2**200), 2**200))
def test_json_keeps_integers_of_any_size(n: int) -> None:
    """What is written of an integer is read again as that integer."""
    assert exact_json.loads(exact_json.dumps({"n": n})) == {"n": n}
    assert json.loads(exact_json.dumps([n])) == [n]


def test_the_client_of_the_command_line_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """An integer beyond 64 bits reaches the command line whole."""
    client = HttpClient("http://127.0.0.1", "k", "s")
    monkeypatch.setattr(client, "_exchange", lambda *_: (200, b'{"n":13770000000000000000000000}'))
    assert client.get("/") == {"n": 13770000000000000000000000}


# ---- delays ----------------------------------------------------------------------------------------------------


def test_no_delay_is_below_zero(empty: Store, tmp_path: Path) -> None:
    """A carrier that tells minutes stamps a receipt before its send: it took no time, wherever that is told."""
    assert empty.write_records(columns_of([delivered("min1", 20, 0), delivered("min2", 55, 0)])) == []
    (told,) = stats.rows(empty.client, Scope(None), DAY, EVERYTHING, ())
    assert [told[f"delivery_ms_p{n}"] for n in (50, 90, 99)] == [0, 0, 0]
    assert empty.query("SELECT delivery_ms_p50_p90_p99 FROM delivery_stats", {}) == [([0.0, 0.0, 0.0],)]
    with served(empty.url, tmp_path, Clock(NOON_MS + 60_000)) as http:
        _shows_no_negative_delay(http)


def _shows_no_negative_delay(http: TestClient[Any]) -> None:
    browser, asker = Browser(http, *OPERATOR), Asker(http, basic(*OPERATOR))
    page = browser.get("/ui/messages/min1")
    assert "final after <b>0 ms</b>" in page and "<b>-" not in page
    assert "-20 s" not in browser.get("/ui/records?range=24h")
    (record,) = asker.get("/mdr/trace/min1")["records"]
    assert all(event["gap_ms"] is None or event["gap_ms"] >= 0 for event in record["timeline"])
    assert all(event["after_ms"] >= 0 for event in record["timeline"])


@given(start=st.integers(NOON_MS, NOON_MS + 10**6), gap=st.integers(-(10**6), 10**6))
def test_a_row_of_the_page_tells_no_negative_delay(start: int, gap: int) -> None:
    """The delay of a row is the gap from its send to its end, or 0."""
    told = dict.fromkeys(("from_number", "to_number", "body"), "") | {"direction": "outbound"}
    told |= {"occurred_at": format_rfc3339(start), "final_at": format_rfc3339(start + gap)}
    assert records._row(told, True)["delay_ms"] == max(0, gap)


# ---- old stores ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", range(1, len(_migrations())))
def test_a_store_of_any_earlier_version_ends_as_a_new_one(
    store: Store, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """Migrated from any version, a store has the tables and views of a new one."""
    every, new = _migrations(), _made(store)
    store.client.command("DROP DATABASE mdr")
    with monkeypatch.context() as past:
        past.setattr("streams.store._migrations", lambda: every[:count])
        past.setattr(Store, "_set_retention", lambda *_: None)
        store.migrate(3_650, 3_650)
    assert store.migrate(3_650, 3_650) == [name for name, _ in every[count:]]
    assert _made(store) == new


def _made(store: Store) -> dict[str, str]:
    sql = "SELECT name, create_table_query FROM system.tables WHERE database = 'mdr' ORDER BY name"
    return {name: re.sub("UUID '[^']*'", "", text) for name, text in store.query(sql, {})}
