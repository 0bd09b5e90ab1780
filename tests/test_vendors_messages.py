"""The lists of messages as Flowroute, Plivo and CarrierX tell them (`api.message_paths`, `api.vendors`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from litestar.testing import TestClient

from api import auth
from api.vendors.shared import moment, money
from streams.simulate import Plan
from streams.store import Store
from tests.api_support import OPERATOR, START_MS, Asker, Clock, Filled, basic, bearer, fill, served

CUT_MS = START_MS + 5 * 3_600_000
ACCOUNT = "parcelbird"
KEY = "MAXXXXXXXXXXXXXXXXXX"

PLIVO_KEYS = [
    "message_uuid",
    "from_number",
    "to_number",
    "message_direction",
    "message_state",
    "message_time",
    "message_type",
    "total_amount",
    "total_rate",
    "units",
    "mcc",
    "mnc",
    "error_code",
    "resource_uri",
    "carrier_fees",
    "carrier_fees_rate",
    "powerpack_id",
    "tendlc_campaign_id",
    "tendlc_registration_status",
    "destination_country_iso2",
    "is_domestic",
    "requester_ip",
    "replaced_sender",
    "conversation_id",
    "conversation_origin",
    "conversation_expiration_timestamp",
    "dlt_entity_id",
    "dlt_template_id",
    "dlt_template_category",
    "destination_network",
    "log",
]
CARRIERX_KEYS = [
    "a2p_campaign",
    "date_changed",
    "date_insert",
    "date_sent",
    "date_start",
    "date_stop",
    "delay_sent",
    "direction",
    "dr_sid",
    "mcc",
    "mcc_mnc_price",
    "mcc_mnc_rate",
    "media_urls",
    "message",
    "message_segments",
    "mnc",
    "number_billing",
    "number_dst",
    "number_external",
    "number_group_dst",
    "number_src",
    "p2p_nnid",
    "partner_sid",
    "passthrough_price",
    "passthrough_rate",
    "price",
    "provider",
    "rate",
    "registration_type",
    "status",
    "type",
    "user_data",
    "vendor_error_code",
    "version",
]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    """Settled and open messages of one account."""
    store = Store(f"chdb://{tmp_path_factory.mktemp('store')}")
    yield fill(store, Plan(150, seed=5, rate_per_s=0.01, account=ACCOUNT), CUT_MS)
    store.close()


@pytest.fixture(scope="module")
def http(filled: Filled, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient[Any]]:
    """The application upon that store."""
    with served(filled.store.url, tmp_path_factory.mktemp("data"), Clock(CUT_MS)) as client:
        yield client


@pytest.fixture(scope="module")
def asker(http: TestClient[Any], filled: Filled) -> Asker:
    """Asks as the account."""
    return Asker(http, bearer(auth.add_credential(filled.store.client, ACCOUNT, key=KEY)))


@pytest.fixture(scope="module")
def native(http: TestClient[Any]) -> list[dict[str, Any]]:
    """Every message as our own API tells it, oldest first."""
    asker = Asker(http, basic(*OPERATOR))
    rows: list[dict[str, Any]] = asker.get("/mdr/records", include="pending", limit=1000)["records"]
    assert len(rows) > 140 and {r["record_type"] for r in rows} == {"complete", "error", "incomplete", "pending"} - (
        {"incomplete"} - {r["record_type"] for r in rows}
    )
    return rows


def header(http: TestClient[Any], asker: Asker, path: str) -> str:
    """The header that says how far records are settled."""
    return http.get(path, headers=asker.headers).headers["MDR-Settled-Through"]


# ---- Flowroute -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["v2", "v2.1"])
def test_flowroute_pages_lead_to_every_message_as_it_is(
    asker: Asker, native: list[dict[str, Any]], version: str
) -> None:
    """`links.next` leads through every message once; each attribute is the record's."""
    found: list[dict[str, Any]] = []
    told = asker.get(f"/{version}/messages", start_date="2026-01-04", limit=40)
    while True:
        found += told["data"]
        if "next" not in told["links"]:
            break
        told = asker.get(told["links"]["next"])
    assert len(found) == len(native)
    for item, row in zip(found, native, strict=True):
        one = item["attributes"]
        assert item["type"] == "message" and item["id"] == ("mdr1-" if version == "v2" else "mdr2-") + row[
            "message_id"
        ].replace("-", "")
        assert (one["to"], one["from"]) == (row["to_number"].lstrip("+"), row["from_number"].lstrip("+"))
        assert one["amount_nanodollars"] == (row["amount_nanos"] if row["currency"] == "USD" else None)
        assert one["amount_display"] == (f"${money(row['amount_nanos'], 4)}" if row["currency"] == "USD" else None)
        assert (one["body"], one["direction"], one["is_mms"]) == (
            row["body"],
            row["direction"],
            row["message_type"] == "mms",
        )
        assert one["message_encoding"] == (8 if row["encoding"] == "ucs2" else 0)
        moments = [moment(one["timestamp"]), moment(row["occurred_at"])]
        assert moments[0] and moments[1] and moments[0].ms // 1000 == moments[1].ms // 1000
        toll = row["number_type"] == "toll-free"
        assert one["message_type"] == ("toll-free" if toll else "long-code" if version == "v2" else "longcode")
        assert ("callback_url" in one) == (version == "v2") and ("status" in one) == (version == "v2.1")
        if version == "v2.1":
            receipts = [e for e in row["timeline"] if e["state"] != "queued" and row["direction"] == "outbound"]
            assert [r["timestamp"] for r in one["delivery_receipts"]] == [e["occurred_at"] for e in receipts]
    assert header(asker.client, asker, f"/{version}/messages?start_date=2026-01-04").endswith("Z")


def test_flowroute_ids_of_both_versions_find_the_same_message(
    asker: Asker, native: list[dict[str, Any]], filled: Filled
) -> None:
    """`mdr1-` and `mdr2-` ids are found by either version; an id of any other kind is told as its MD5 and found too."""
    for row in native[::40]:
        hexadecimal = row["message_id"].replace("-", "")
        for version, prefix in (("v2", "mdr1-"), ("v2", "mdr2-"), ("v2.1", "mdr1-"), ("v2.1", "mdr2-")):
            told = asker.get(f"/{version}/messages/{prefix}{hexadecimal}")["data"]
            assert told["attributes"]["body"] == row["body"]
    filled.store.client.command(
        "INSERT INTO mdr.mdrs"
        " (message_id, account_id, direction, record_type, state, body, occurred_at, settled_at, version)"
        " VALUES ('Odd/id', 'odd', 'inbound', 'complete', 'received', 'found', '2026-01-05 09:00:00', now(), 1)"
    )
    odd = Asker(asker.client, bearer(auth.add_credential(filled.store.client, "odd")))
    (item,) = odd.get("/v2.1/messages", start_date="2026-01-05")["data"]
    assert odd.get(f"/v2.1/messages/{item['id']}")["data"] == item
    asker.get(f"/v2.1/messages/{item['id']}", status=404)
    for wrong in ("mdr2-xyz", "mdr2-" + "0" * 32, "x"):
        assert asker.get(f"/v2.1/messages/{wrong}", status=404)["errors"][0]["status"] == 404


@pytest.mark.parametrize(
    "start",
    [
        "2026-01-04",
        "2026-01-04T00:00:00",
        "2026-01-04T00:00:00Z",
        "2026-01-04T00:00:00+00:00",
        "2026-01-04T00:00:00.12Z",
        "2026-01-04T00:00:00.123456",
    ],
)
def test_flowroute_dates_come_in_many_forms(asker: Asker, native: list[dict[str, Any]], start: str) -> None:
    """Every form of a date that clients send means the same."""
    assert len(asker.get("/v2.1/messages", start_date=start, limit=1000)["data"]) == len(native)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "start_date"),
        ("start_date=soon", "start_date"),
        ("start_date=2026-01-01&limit=0", "limit"),
        ("start_date=2026-01-01&limit=-1", "limit"),
        ("start_date=2026-01-01&offset=-1", "offset"),
        ("start_date=2026-01-01&limit=10001", "limit"),
        ("start_date=2026-01-01&colour=1", "colour"),
        ("start_date=2020-01-01", "start_date"),
        ("start_date=2026-01-03&end_date=2026-01-02", "start_date"),
    ],
)
def test_flowroute_bad_values_are_422(asker: Asker, query: str, field: str) -> None:
    """A bad value is a 422 that names it, in the vendor's shape; no credential is a 401."""
    told = asker.get(f"/v2.1/messages?{query}", status=422)["errors"][0]
    assert told["status"] == 422 and told["id"] == field and field in told["detail"] and told["title"]
    assert Asker(asker.client, {}).get(f"/v2.1/messages?{query}", status=401)["errors"][0]["status"] == 401


# ---- Plivo -----------------------------------------------------------------------------------------------------

PLIVO = f"/v1/Account/{KEY}/Message/"


def plivo_all(asker: Asker, **params: Any) -> list[dict[str, Any]]:
    """Every object, following `meta.next`."""
    told = asker.get(PLIVO, **params)
    found = told["objects"]
    while told["meta"]["next"]:
        told = asker.get(told["meta"]["next"])
        assert told["meta"]["previous"]
        found += told["objects"]
    return list(found)


def test_plivo_pages_lead_to_every_message_as_it_is(asker: Asker, native: list[dict[str, Any]]) -> None:
    """`meta.next` leads through the last 24 hours; every key is there, every amount exact."""
    found = plivo_all(asker)
    assert [o["message_uuid"] for o in found] == [r["message_id"] for r in native]
    for one, row in zip(found, native, strict=True):
        assert one["message_state"] == ("undelivered" if row["state"] == "expired" else row["state"])
        assert one["message_time"] == f"{row['occurred_at'][:-1].replace('T', ' ')}000+00:00"
        assert (one["units"], one["mcc"], one["mnc"]) == (row["segments"], row["mcc"], row["mnc"])
        assert one["error_code"] == (row["error_code"] or "000") and isinstance(one["is_domestic"], bool)
        nanos = {
            name: round(float(one[name]) * 1e9)
            for name in ("total_amount", "total_rate", "carrier_fees", "carrier_fees_rate")
        }
        assert nanos["total_amount"] == row["amount_nanos"] and nanos["carrier_fees_rate"] == row["carrier_fee_nanos"]
        assert nanos["total_rate"] * one["units"] == nanos["total_amount"]
        assert all(len(one[name].partition(".")[2]) >= 5 for name in nanos)
        assert one["resource_uri"] == f"{PLIVO}{row['message_id']}/"
        assert not one["from_number"].startswith("+") and one["to_number"] == row["to_number"].lstrip("+")
    one = asker.get(f"{PLIVO}{native[0]['message_id']}/")
    assert {k: v for k, v in one.items() if k != "api_id"} == found[0] and one["api_id"]


def test_every_field_of_the_vendors_pages_is_there(asker: Asker, native: list[dict[str, Any]]) -> None:
    """An object has exactly the keys of the vendor's page, and CarrierX's stand in its order."""
    told = asker.get(PLIVO)
    assert list(told["objects"][0]) == PLIVO_KEYS and list(told) == ["api_id", "meta", "objects"]
    told = asker.get("/core/v2/sms/message_drs", limit=1)
    assert list(told["items"][0]) == CARRIERX_KEYS
    assert list(told) == ["count", "has_more", "items", "limit", "offset", "pagination", "total"]


def test_plivo_filters_select_as_its_page_says(asker: Asker, native: list[dict[str, Any]]) -> None:
    """Each filter gives the messages that hold it; numbers with and without `+`, codes with and without zeros."""

    def chosen(**params: Any) -> list[str]:
        return [o["message_uuid"] for o in plivo_all(asker, **params)]

    for name, column in (
        ("message_direction", "direction"),
        ("message_type", "message_type"),
        ("subaccount", "subaccount_id"),
        ("powerpack_id", "powerpack_id"),
        ("destination_country_iso2", "country"),
        ("tendlc_campaign_id", "campaign_id"),
        ("tendlc_registration_status", "campaign_status"),
        ("conversation_id", "conversation_id"),
        ("from_number", "from_number"),
    ):
        for value in sorted({r[column] for r in native if r[column]})[:2]:
            assert chosen(**{name: value}) == [r["message_id"] for r in native if r[column] == value], name
    number = native[0]["to_number"]
    wanted = [r["message_id"] for r in native if r["to_number"] == number]
    assert chosen(to_number=number) == chosen(to_number=number.lstrip("+")) == wanted
    assert asker.get(f"{PLIVO}?to_number={number}")["objects"]
    fine = [r["message_id"] for r in native if not r["error_code"]]
    assert chosen(error_code="000") == chosen(error_code=0) == fine
    for code in {r["error_code"] for r in native if r["error_code"]}:
        assert chosen(error_code=code) == [r["message_id"] for r in native if r["error_code"] == code]
    for state in ("queued", "sent", "failed", "delivered", "undelivered", "received", "rejected"):
        states = (state, "expired") if state == "undelivered" else (state,)
        assert chosen(message_state=state) == [r["message_id"] for r in native if r["state"] in states]


def test_plivo_times_come_in_five_forms(asker: Asker, native: list[dict[str, Any]]) -> None:
    """Equal, after, from, before and up to an instant; no time is the last 24 hours, and 90 days are the most."""
    middle = native[70]["occurred_at"]
    at = middle[:-1].replace("T", " ")
    compared: dict[str, Callable[[str], bool]] = {
        "": lambda t: t == middle,
        "__gt": lambda t: t > middle,
        "__gte": lambda t: t >= middle,
        "__lt": lambda t: t < middle,
        "__lte": lambda t: t <= middle,
    }
    for form, holds in compared.items():
        found = plivo_all(asker, **{f"message_time{form}": at})
        assert [o["message_uuid"] for o in found] == [r["message_id"] for r in native if holds(r["occurred_at"])], form
    minute = middle[:16].replace("T", " ")
    assert [o["message_time"][:16] for o in plivo_all(asker, message_time=minute)] == [minute] * len(
        [r for r in native if r["occurred_at"][:16] == middle[:16]]
    )
    assert len(plivo_all(asker, message_time__gte="2020-01-01")) == len(native)
    assert plivo_all(asker, message_time__lt="2025-10-01") == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=21", "limit"),
        ("limit=0", "limit"),
        ("offset=-1", "offset"),
        ("message_time=soon", "message_time"),
        ("message_state=lost", "message_state"),
        ("message_direction=up", "message_direction"),
        ("message_type=fax", "message_type"),
        ("colour=1", "colour"),
        ("message_time__gt=2026-99-99", "message_time__gt"),
    ],
)
def test_plivo_bad_values_are_400_with_objects(asker: Asker, query: str, field: str) -> None:
    """A bad value of the list is a 400 whose JSON has `objects`, because the vendor's client reads it of every body."""
    told = asker.get(f"{PLIVO}?{query}", status=400)
    assert field in told["error"] and told["objects"] == [] and "api_id" in told


def test_plivo_refuses_other_accounts_and_keys(asker: Asker, http: TestClient[Any]) -> None:
    """Another account in the path is a 404, a wrong key a 401 in plain text, an unknown message a 404."""
    asker.get("/v1/Account/MAYYYYYYYYYYYYYYYYYY/Message/", status=404)
    assert "error" in asker.get(f"{PLIVO}nothing/", status=404)
    answer = http.get(PLIVO, headers=basic(KEY, "wrong"))
    assert answer.status_code == 401 and answer.headers["content-type"].startswith("text/plain")
