"""What ClickHouse reads for each kind of question, by its own word (`EXPLAIN indexes = 1`): little, wherever it lies."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple, cast

import pytest

from api import extract, message_paths, query, stats
from api.auth import READ, Caller
from api.http import Answer, Call, Context
from api.query import Client, Key, Listing, Range, Scope
from api.vendors import telnyx
from api.where import EVERYTHING, Condition, Every, Is
from benchmarks.query import ACCOUNTS, DAYS, fill
from schemas.times import format_rfc3339
from streams.store import Store

ROWS: Final = 400_000
GRANULE: Final = 2_048
START_MS: Final = 1_767_571_200_000  # 2026-01-05T00:00:00Z: all in two months
DAY_MS: Final = 86_400_000
ONE: Final = Scope(("account-3",))
MONTH: Final = Range(START_MS, START_MS + DAYS * DAY_MS)
DAY: Final = Range(START_MS + 9 * DAY_MS, START_MS + 10 * DAY_MS)
# An account's records fill so many granules, and the edges of them in each of the two months.
OF_AN_ACCOUNT: Final = ROWS // ACCOUNTS // GRANULE + 4
NOW_MS: Final = START_MS + 25 * DAY_MS
DEEP: Final = Key(START_MS + 25 * DAY_MS, "m", "outbound", "account-3")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A table of so many granules that reading all of it shows."""
    made = Store(f"chdb://{tmp_path_factory.mktemp('store')}")
    made.migrate(3650, 3650)
    fill(made, ROWS, START_MS)
    made.client.command("OPTIMIZE TABLE mdr.mdrs FINAL")
    yield made
    made.close()


class Recording:
    """A client that also keeps the statements which read records."""

    def __init__(self, client: Client, table: str = "mdr.mdrs") -> None:
        self.client = client
        self.table = table
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def raw_query(self, sql: str, parameters: dict[str, Any], fmt: str) -> bytes:
        """As the client does."""
        if self.table in sql:
            self.asked.append((sql, parameters))
        return self.client.raw_query(sql, parameters=parameters, fmt=fmt)

    def granules(self) -> list[int]:
        """How many granules each of the statements reads, over all parts."""
        return [self._granules(*asked) for asked in self.asked]

    def _granules(self, sql: str, parameters: dict[str, Any]) -> int:
        plan = self.client.raw_query(f"EXPLAIN indexes = 1, json = 1 {sql}", parameters=parameters, fmt="TSVRaw")
        return sum(_last(node) for node in _nodes(json.loads(plan)[0]["Plan"]) if "Indexes" in node)


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from _nodes(part)


def _last(node: dict[str, Any]) -> int:
    return int(node["Indexes"][-1]["Selected Granules"])


def asked(store: Store, ask: Callable[[Any], object]) -> list[int]:
    """The granules that each statement of a question reads."""
    client = Recording(store.client)
    assert ask(client)
    return client.granules()


def page(span: Range, where: Condition = EVERYTHING, **more: Any) -> Callable[[Any], object]:
    """A page of twenty of one account."""
    return lambda client: query.listing(client, Listing(ONE, span, where, limit=20, **more))


@pytest.mark.parametrize(
    ("ask", "most"),
    [
        (page(DAY), 2),
        (page(DAY, Is("state", "eq", "delivered")), 2),
        (page(MONTH), 2),
        (page(MONTH, after=DEEP), 2),
        (page(MONTH, descending=True), 2),
        (page(MONTH, descending=True, after=DEEP), 2),
        (lambda client: query.listing(client, Listing(Scope(None), DAY, Every((Is("account_id", "eq", "account-3"),)), limit=20)), 2),
    ],
    ids=["day", "filter", "month", "deep", "newest", "deep-back", "operator"],
)  # fmt: skip
def test_a_page_reads_its_own_granules(store: Store, ask: Callable[[Any], object], most: int) -> None:
    """A page of an account reads one or two granules of the table, the first as the hundredth."""
    assert all(0 < read <= most for read in asked(store, ask)), asked(store, ask)


def test_a_record_by_its_id_reads_its_own_granule(store: Store) -> None:
    """A message id is found through the table's index of ids, in one statement, whatever the caller may see.

    The index may be wrong of one granule in a thousand, and there are two hundred.
    """
    row = query.listing(store.client, Listing(ONE, DAY, Is("direction", "eq", "outbound"), limit=1))[0]
    for scope in (Scope(None), ONE, Scope(tuple(f"account-{n}" for n in range(ACCOUNTS)))):
        read = asked(store, lambda client, scope=scope: query.record(client, scope, row["message_id"]))  # type: ignore[misc]
        assert len(read) == 1 and 1 <= read[0] <= 2


class Shelfless(NamedTuple):
    """What a handler of a list needs of its context: nothing is open here."""

    client: Any

    def settled_through(self) -> str:
        """Long ago."""
        return format_rfc3339(0)


def vendor(handler: Callable[[Call, Context], Answer], **given: str) -> Callable[[Any], object]:
    """A vendor's list as `account-3` asks for it."""
    caller = Caller("k", "account-3", frozenset({READ}), ONE)
    call = Call("GET", "/v2/messages", {"auth_id": "account-3"}, list(given.items()), {}, b"", "", caller, NOW_MS)

    def ask(client: Any) -> object:
        told = json.loads(handler(call, cast(Context, Shelfless(client))).body)
        return told.get("data") or told.get("objects") or told.get("items")

    return ask


SPAN: Final = {"start_date": format_rfc3339(DAY.start_ms)[:10], "end_date": format_rfc3339(DAY.end_ms)[:10]}
OF_A_DAY: Final = f"date_insert ge {format_rfc3339(DAY.start_ms)} and date_insert lt {format_rfc3339(DAY.end_ms)}"


@pytest.mark.parametrize(
    "ask",
    [
        vendor(message_paths.flowroute_list, **SPAN),
        vendor(message_paths.flowroute_list, **SPAN, offset="400"),
        vendor(message_paths.plivo_list),
        vendor(message_paths.plivo_list, message_direction="outbound", message_state="undelivered", offset="20"),
    ],
    ids=["flowroute", "flowroute-offset", "plivo", "plivo-filters-offset"],
)
def test_a_vendors_list_of_a_day_reads_the_day(store: Store, ask: Callable[[Any], object]) -> None:
    """Flowroute's and Plivo's lists of an account's day read its one or two granules in each statement, also by offset."""
    assert all(0 < read <= 2 for read in asked(store, ask)), asked(store, ask)


@pytest.mark.parametrize(
    "ask",
    [
        vendor(message_paths.carrierx_list),
        vendor(message_paths.carrierx_list, filter="status eq undelivered", order="price desc", offset="10"),
        vendor(message_paths.carrierx_list, filter=OF_A_DAY),
    ],
    ids=["all", "order-offset", "dates"],
)
def test_a_carrierx_list_reads_its_account(store: Store, ask: Callable[[Any], object]) -> None:
    """CarrierX tells the total, so its list reads the account it is of, and of the table nothing else."""
    total, *page = asked(store, ask)
    # Without dates it looks through a year, in windows that may be empty.
    assert 0 < total <= OF_AN_ACCOUNT and 0 < sum(page) <= OF_AN_ACCOUNT


def test_a_carrierx_page_by_key_reads_its_own_granules(store: Store) -> None:
    """After the total, a page by key finds its key in one granule and reads one or two more."""
    (first, *_) = query.listing(store.client, Listing(ONE, DAY, limit=1))
    read = asked(store, vendor(message_paths.carrierx_list, after=first["message_id"]))
    assert sorted(read)[:-1] == [read for read in sorted(read)[:-1] if 0 < read <= 2]


def test_a_days_statistics_read_the_day(store: Store) -> None:
    """Counting an account's day reads that day of that account; counting everything reads the table."""
    (read,) = asked(store, lambda client: query.count(client, Listing(ONE, DAY)))
    assert read <= 2
    (every,) = asked(store, lambda client: query.count(client, Listing(Scope(None), MONTH)))
    assert every >= ROWS // GRANULE


@pytest.mark.parametrize("by", [("hour",), ("provider", "country"), ("error",)], ids="-".join)
def test_statistics_read_what_they_are_of(store: Store, by: tuple[str, ...]) -> None:
    """An account's day reads that day whatever it is grouped by; everybody's day no more than a day of each account."""
    (one,) = asked(store, lambda client: stats.rows(client, ONE, DAY, EVERYTHING, by))
    assert 0 < one <= 2
    (month,) = asked(store, lambda client: stats.rows(client, ONE, MONTH, EVERYTHING, by))
    assert one < month <= OF_AN_ACCOUNT
    (every,) = asked(store, lambda client: stats.rows(client, Scope(None), DAY, EVERYTHING, by))
    assert every <= 3 * ACCOUNTS < ROWS // GRANULE


def test_a_piece_of_a_report_reads_its_piece(store: Store) -> None:
    """Each piece reads as many granules as its rows fill, and the edges of its accounts; the cut reads keys alone."""
    wanted = extract.Wanted(Scope(None), MONTH, EVERYTHING, extract.FLAT_CELLS)
    cuts = extract.cut(store.client, wanted)
    assert cuts.rows == ROWS
    read = asked(store, lambda client: list(extract.pieces(client, wanted, cuts.keys, "CSV")))
    assert len(read) == len(cuts.keys) + 1 and max(read) <= extract.PIECE_ROWS / GRANULE + 6


def test_a_vendors_report_reads_its_account(store: Store) -> None:
    """A Telnyx report of an account reads the account once for the cut, and once more for its filters and its rows."""
    wanted = extract.Wanted(ONE, MONTH, Is("state", "eq", "sent"), telnyx.CELLS)
    cuts = extract.cut(store.client, wanted)
    assert 0 < cuts.rows < ROWS // ACCOUNTS
    read = asked(store, lambda client: list(extract.pieces(client, wanted, cuts.keys, "CSV")))
    read += asked(store, lambda client: extract.cut(client, wanted).rows)
    assert len(read) == 2 and max(read) <= OF_AN_ACCOUNT


def test_a_page_of_open_messages_reads_its_own_granules(store: Store) -> None:
    """With 200,000 open, a page of an account and one message by its id read a few granules of what is open."""
    names = query._COLUMNS
    rows = f"SELECT {names} FROM mdr.mdrs WHERE direction = 'outbound' LIMIT 200000"  # noqa: S608  # our own names
    store.command(f"INSERT INTO mdr.open_records ({names}) {rows}", {})
    store.command("OPTIMIZE TABLE mdr.open_records FINAL", {})
    try:
        opened = query._where_open(store.client, Listing(ONE, DAY, pending=True, limit=20))
        assert opened is not None
        client = Recording(store.client, "mdr.open_records")
        page = query._open_page(cast(Client, client), opened)
        assert len(page) == 20 and all(row["has_record"] for row in page)
        assert query._open_by_id(cast(Client, client), ONE, page[0]["message_id"]) is not None
        assert all(0 < read <= 12 for read in client.granules()), client.granules()
    finally:
        store.command("TRUNCATE TABLE mdr.open_records", {})
