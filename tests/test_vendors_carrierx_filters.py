"""CarrierX's filters and orders act on the value that an item shows: each field, operator and order, against the items."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Final

import pytest
from litestar.testing import TestClient

from api import auth, query
from api.http import Refusal
from api.query import Listing, Scope
from api.vendors import carrierx
from api.where import EVERYTHING, Binder, Sort, condition_sql
from streams import folding
from streams.effects import OpenRow, Rows
from streams.fold import columns_of, inbound_row, outbound_row
from streams.join import Life
from streams.lives import saved_version
from streams.store import Store
from tests.api_support import Asker, Clock, bearer, served
from tests.conditions import like
from tests.entries import NOON_MS, read

NOW_MS: Final = NOON_MS + 3_600_000
DRS: Final = "/core/v2/sms/message_drs"
MONEY: Final = frozenset({"mcc_mnc_price", "mcc_mnc_rate", "passthrough_price", "passthrough_rate", "price", "rate"})
OPS: Final = ("eq", "ne", "gt", "ge", "lt", "le")
# What the messages differ in, and what of it they have.
SENDS: Final[tuple[dict[str, Any], ...]] = (
    {"message_id": "cn0", "to": "+8613800138000", "mcc": "460", "mnc": "00", "rate": "0.005", "tags": ["x"]},
    {"message_id": "none", "to": "+12125550101"},
    {"message_id": "uk05", "to": "+442079460018", "mcc": "234", "mnc": "05", "provider": "p-2", "user_data": "50% off"},
    {"message_id": "us10", "to": "+12125550101", "mcc": "310", "mnc": "10", "carrier_fee": "0.003", "provider": "p_2"},
    {"message_id": "short", "to": "12125", "from": "SHOP+1", "body": "two\nlines", "message_type": "mms"},
    {"message_id": "rich", "rate": "9.999999999", "carrier_fee": "1", "body": "ü" * 200, "billing_number": "+15550001",
     "external_number": "15550001", "campaign_id": "c", "registration_type": "10dlc", "user_data": "a\\b",
     "attributes": {"p2p_nnid": "7", "version": "2"}},
    {"message_id": "other", "billing_number": "desk +1", "external_number": "+", "user_data": "null",
     "attributes": {"version": "10"}},
)  # fmt: skip


def receipt(n: int, mid: str, state: str, after_ms: int, **more: Any) -> Any:
    """A receipt some time after its message."""
    return read(
        "receipts", n, message_id=mid, event_id=f"r{n}", state=state, at_ms=NOON_MS + 60_000 * n + after_ms, **more
    )


def messages() -> Iterator[tuple[Life, bool]]:
    """Each message settled in one of several ways, or still open; an amended one too."""
    for n, fields in enumerate(SENDS):
        for way in range(4):
            mid = fields["message_id"] + ("" if way == 0 else f"-{way}")
            at_ms = NOON_MS + 60_000 * n + way
            send = read("sends", n, **fields | {"message_id": mid, "at_ms": at_ms, "subaccount_id": str(way)})
            sent = receipt(n, mid, "sent", 1_500)
            final = receipt(n, mid, "delivered", 59_000, provider="carried")
            failed = receipt(n, mid, "failed", -5_000, vendor_error_code="v9", error_code="30", mnc="07")
            receipts = ((final,), (sent, failed), (), (sent,))[way]
            life = Life(send, receipts, at_ms, settled_ms=NOON_MS + 100_000 + n)
            if way == 1:
                life.amended_ms, life.amendments = NOON_MS + 900_000 + n, 1
            yield life, way >= 2


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Messages that show each kind of value, and null, in each field."""
    made = Store(f"chdb://{tmp_path_factory.mktemp('store')}")
    made.migrate(3650, 3650)
    every = list(messages())
    done = [outbound_row(life, life.send, 0) for life, is_open in every if not is_open and life.send]
    inbound = read("receives", 1, message_id="in1", mcc="310", provider="p-2", vendor_error_code="v", error_code="e")
    made.write_records(columns_of([*done, inbound_row(inbound, NOON_MS + 5_000, 0)]))
    opened = [life for life, is_open in every if is_open]
    rows = [
        OpenRow(0, s.message_id, "", s.account_id, s.occurred_ms, NOW_MS, b"{}", saved_version(life), 0)
        for life in opened if (s := life.send)
    ]  # fmt: skip
    assert made.write_open(rows, folding.records([Rows(0, opened, [], [])], NOW_MS)) == []
    yield made
    made.close()


@pytest.fixture(scope="module")
def asker(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asker]:
    """The account of all of them."""
    client: TestClient[Any]
    with served(store.url, tmp_path_factory.mktemp("data"), Clock(NOW_MS)) as client:
        yield Asker(client, bearer(auth.add_credential(store.client, "a1")))


@pytest.fixture(scope="module")
def items(asker: Asker) -> list[dict[str, Any]]:
    """Every item as it is shown."""
    found: list[dict[str, Any]] = asker.get(DRS, limit=1000)["items"]
    assert len(found) == 4 * len(SENDS) + 1
    return found


def asked_of(text: str, order: str = "") -> Listing:
    """The question of a list request."""
    asked = carrierx.parse({"filter": text, "order": order}, NOW_MS)
    return Listing(Scope(("a1",)), asked.span, asked.where, True, 1000, order=asked.order, descending=asked.descending)


def listed(store: Store, text: str = "", order: str = "") -> list[str]:
    """The ids of the items that a filter finds, in order."""
    return [row["message_id"] for row in query.listing(store.client, asked_of(text, order))]


def found_by(store: Store, texts: list[str]) -> list[set[str]]:
    """The ids of the items that each of several filters finds, decided in one statement."""
    b = Binder()
    tests = [
        f"groupArrayIf(message_id, ifNull({condition_sql(asked_of(t).where, b)}, 0)) AS f{n}"
        for n, t in enumerate(texts)
    ]
    (row,) = query.select(store.client, f"SELECT {', '.join(tests)} FROM mdr.messages", b)  # noqa: S608  # bound values
    return [set(row[f"f{n}"]) for n in range(len(texts))]


def compared(name: str, held: Any, op: str, text: str) -> bool:
    """Whether a value that an item shows stands to a text as the operator says; null to nothing."""
    if held is None:
        return False
    if op == "like":
        return like(held, text)
    other: Any = text
    if name in MONEY or isinstance(held, int):
        held, other = Decimal(held), Decimal(text)
    return bool(getattr(operator, op)(held, other))


def quoted(text: str) -> str:
    """A value in quotes."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def values_of(name: str, items: list[dict[str, Any]]) -> list[str]:
    """Values to compare with: some that are shown, and some between and beyond them."""
    shown = sorted({str(item[name]) for item in items if item[name] is not None})
    if name.startswith(("date_", "delay")) or name in MONEY or name in ("mcc", "mnc", "message_segments"):
        return [*shown[::3], *(["-1", "5", "0"] if not name.startswith("date_") else [])]
    return [*shown[::3], "", "2", "p"]


@pytest.mark.parametrize("name", [name for name, field in carrierx.FIELDS.items() if field is not None])
def test_a_filter_acts_on_what_items_show(store: Store, items: list[dict[str, Any]], name: str) -> None:
    """For each operator and value a filter finds the items whose shown value is so; null is only what is asked as null."""
    wanted = {
        f"{name} {op} {quoted(text)}": {item["dr_sid"] for item in items if compared(name, item[name], op, text)}
        for op in OPS
        for text in values_of(name, items)
    }
    wanted[f"{name} eq null"] = {item["dr_sid"] for item in items if item[name] is None}
    wanted[f"{name} ne NULL"] = {item["dr_sid"] for item in items if item[name] is not None}
    found = dict(zip(wanted, found_by(store, list(wanted)), strict=True))
    assert found == wanted
    assert set(listed(store, f"{name} ne null")) == wanted[f"{name} ne NULL"]


TEXTS: Final = [n for n, field in carrierx.FIELDS.items() if field is not None and field.kind in ("text", "phone")]


@pytest.mark.parametrize("name", [name for name, field in carrierx.FIELDS.items() if field is not None])
def test_like_acts_on_what_items_show(store: Store, items: list[dict[str, Any]], name: str) -> None:
    """`like` finds the texts that look so as items show them, and is refused for what is no text."""
    if name not in TEXTS:
        with pytest.raises(Refusal) as refused:
            listed(store, f"{name} like '1%'")
        assert name in refused.value.detail
        return
    patterns = [
        "1212%",
        "%5%",
        "p_2",
        "p\\_2",
        "%\\%%",
        "a\\\\b",
        "%\\%",
        "1_1%5%5%",
        "two%lines",
        "%",
        "",
        "\\a\\c\\m\\e",
    ]
    wanted = [{i["dr_sid"] for i in items if i[name] is not None and like(i[name], text)} for text in patterns]
    found = found_by(store, [f"{name} like {quoted(text)}" for text in patterns])
    assert dict(zip(patterns, found, strict=True)) == dict(zip(patterns, wanted, strict=True))


@pytest.mark.parametrize("name", [name for name, field in carrierx.FIELDS.items() if field is not None])
@pytest.mark.parametrize("sense", ["asc", "desc"])
def test_an_order_acts_on_what_items_show(store: Store, items: list[dict[str, Any]], name: str, sense: str) -> None:
    """Items come in the order of the value that they show, null last, those of one value by time in the same direction."""
    by_time = items[:: -1 if sense == "desc" else 1]
    some = [item for item in by_time if item[name] is not None]
    # What is equal stays in its order, also with `reverse`.
    some.sort(key=lambda item: Decimal(item[name]) if name in MONEY else item[name], reverse=sense == "desc")
    assert listed(store, order=f"{name} {sense}") == [
        i["dr_sid"] for i in [*some, *(i for i in by_time if i[name] is None)]
    ]


CASES: Final[dict[str, list[str]]] = {
    "mnc eq 0": ["cn0"], "mcc eq 0": [], "mnc ne 5": ["cn0", "us10"], "mnc ne 0": ["uk05", "us10"],
    "mnc gt 4": ["uk05", "us10"], "mnc lt 9": ["cn0", "uk05"], "mnc eq null": ["none"],
    "number_dst like '1212%'": ["none", "us10"], "number_dst like '+1212%'": ["none", "us10"],
    "number_dst like ' 1212%'": ["none", "us10"], "number_dst ge 12": ["uk05", "cn0", "none", "us10"],
    "number_dst gt 2": ["uk05", "cn0"], "number_dst eq '+12125550101'": ["none", "us10"],
    "number_dst eq 12125550101": ["none", "us10"], "number_dst eq ' 12125550101'": ["none", "us10"],
    "number_dst eq '+1212*'": ["none", "us10"], "number_dst eq 1212*": ["none", "us10"],
    "direction eq any": ["cn0", "none", "uk05", "us10"], "price gt 0.0049 and price le 0.00500": ["cn0"],
}  # fmt: skip


def test_fields_are_compared_as_they_are_shown(store: Store) -> None:
    """Digits, integers and null: cases that were once compared as stored text."""
    found = dict(zip(CASES, found_by(store, list(CASES)), strict=True))
    few = {"cn0", "none", "uk05", "us10"}
    assert {text: ids & few for text, ids in found.items()} == {text: set(wanted) for text, wanted in CASES.items()}


def test_what_was_amended_is_found_by_its_change(store: Store, items: list[dict[str, Any]]) -> None:
    """`date_changed` after a time finds the items that were amended after it."""
    found = listed(store, "date_changed gt 2026-01-05T12:14:00Z")
    assert found == [item["dr_sid"] for item in items if item["date_changed"] > "2026-01-05T12:14:00.000Z"]
    assert "cn0-1" in found and "cn0" not in found


@pytest.mark.parametrize(
    "text",
    [
        "user_data like x\\", "user_data like 'x\\\\'", "user_data like '%\\\\\\\\\\\\'", f"message like {'%a' * 129}",
        "mnc eq 1.5", "mnc eq 9999999999999999999", "mnc eq ''", "mcc eq '٣'", "price gt 1e9", "price eq 0.0000000001",
        "price gt 99999999999999999999", "date_sent gt 0000-01-01", "date_sent gt 10000-01-01", "media_urls eq x",
        "number_group_dst eq x", "date_stop gt 9999-12-31T23:59:59-14:00",
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_named(asker: Asker, text: str) -> None:
    """A pattern that ends within an escape or is too long, and a value that a field cannot be compared with, are a 400."""
    told = asker.get(DRS, filter=text, status=400)
    assert text.split(" ")[0] in told["errors"][0]["message"] and told["errors"][0]["type"] == "filter"


def test_a_pattern_is_matched_in_linear_time(store: Store) -> None:
    """The worst patterns over the longest bodies, settled and open, are answered within the bound of a query."""
    long = {"account_id": "long", "body": "a" * 65_000, "segments": 255}
    lives = [Life(read("sends", n, message_id=f"long{n}", **long), (), NOW_MS, settled_ms=NOW_MS) for n in range(40)]
    store.write_records(columns_of([outbound_row(life, life.send, 0) for life in lives[:20] if life.send]))
    store.write_open([], folding.records([Rows(0, lives[20:], [], [])], NOW_MS))
    for text in ("%a" * 127 + "b", "%" + "_a%" * 80 + "b", "%" + "a" * 250 + "b%"):
        ask = asked_of(f"message like '{text}'")._replace(scope=Scope(("long",)))
        assert query.listing(store.client, ask) == []
        assert query.count(store.client, ask) == 0
    assert query.count(store.client, ask._replace(where=EVERYTHING)) == 40


def test_an_open_row_that_has_a_record_is_listed_by_no_way(store: Store) -> None:
    """What was settled since its last checkpoint is a record alone, also where a filter fits only what it was before."""
    sends = [read("sends", n, message_id=f"twice{n}", account_id="twice") for n in range(30)]
    final = [read("receipts", 99, message_id=send.message_id, event_id="f", at_ms=NOON_MS + 9) for send in sends]
    done = [Life(send, (receipt,), NOW_MS, settled_ms=NOW_MS) for send, receipt in zip(sends, final, strict=True)]
    store.write_records(columns_of([outbound_row(life, life.send, 0) for life in done[:29] if life.send]))
    store.write_open([], folding.records([Rows(0, [Life(send, (), NOW_MS) for send in sends], [], [])], NOW_MS))
    ask = asked_of("status eq queued")._replace(scope=Scope(("twice",)), limit=2)
    for asked in (ask, ask._replace(order=(Sort("segments"),)), ask._replace(descending=True)):
        assert [row["message_id"] for row in query.listing(store.client, asked)] == ["twice29"]
        assert query.count(store.client, asked) == 1
    whole = ask._replace(where=EVERYTHING, limit=1000)
    assert len(query.listing(store.client, whole)) == query.count(store.client, whole) == 30
