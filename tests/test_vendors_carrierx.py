"""The list of messages as CarrierX tells it (`api.message_paths`, `api.vendors`)."""

# ruff: noqa: F811  # a fixture is imported by the name under which tests ask for it

from __future__ import annotations

import base64
from typing import Any

import pytest
from litestar.testing import TestClient

from api import auth
from schemas.times import parse_rfc3339
from tests.api_support import Asker, Filled, bearer
from tests.test_vendors_messages import ACCOUNT, CARRIERX_KEYS, CUT_MS, KEY, asker, filled, header, http, native  # noqa: F401  # fixtures

DRS = "/core/v2/sms/message_drs"


def carrierx_all(asker: Asker, **params: Any) -> list[dict[str, Any]]:
    """Every item, following `pagination.next`, the keyset."""
    told = asker.get(DRS, **params)
    found, total = list(told["items"]), told["total"]
    while told["has_more"]:
        told = asker.get(told["pagination"]["next"])
        assert told["total"] == total and told["count"] == len(told["items"])
        found += told["items"]
    assert "next" not in told["pagination"]
    return found


def test_carrierx_pages_lead_to_every_message_as_it_is(asker: Asker, native: list[dict[str, Any]]) -> None:
    """`pagination.next` leads through every message once; each field is the record's or null."""
    found = carrierx_all(asker, limit=40)
    assert [i["dr_sid"] for i in found] == [r["message_id"] for r in native]
    for one, row in zip(found, native, strict=True):
        assert (one["date_insert"], one["date_sent"], one["date_stop"]) == (
            row["occurred_at"],
            row["sent_at"],
            row["final_at"],
        )
        assert (one["partner_sid"], one["status"], one["type"]) == (
            row["account_id"],
            row["state"],
            row["message_type"],
        )
        assert (
            round(float(one["price"]) * 1e9) == row["amount_nanos"]
            and round(float(one["rate"]) * 1e9) == row["rate_nanos"]
        )
        assert one["mcc"] == (int(row["mcc"]) if row["mcc"] else None) and one["media_urls"] == row["media_urls"]
        assert one["message_segments"] == row["segments"] and (one["message"] or "") == row["body"]
        if row["sent_at"]:
            assert (
                one["delay_sent"]
                == max(0, (parse_rfc3339(row["sent_at"]) or 0) - (parse_rfc3339(row["occurred_at"]) or 0)) // 1000
            )
        for name in ("number_src", "number_dst"):
            assert not one[name].startswith("+")
    assert asker.get(f"{DRS}/{native[3]['message_id']}") == found[3]
    assert asker.get("/sms/message_drs", limit=3)["items"] == found[:3]


def test_carrierx_goes_back_as_it_went_forth(asker: Asker, native: list[dict[str, Any]]) -> None:
    """`before` gives what stands before an item in the order asked for; `previous` leads back to the first page."""
    for order in ("date_insert asc", "date_insert desc", "date_stop+asc", "date_insert"):
        expected = [r["message_id"] for r in native][:: -1 if "desc" in order else 1]
        told = asker.get(DRS, order=order, after=expected[9], limit=10)
        assert [i["dr_sid"] for i in told["items"]] == expected[10:20]
        back = asker.get(told["pagination"]["previous"])
        assert [i["dr_sid"] for i in back["items"]] == expected[0:10] and back["has_more"]
        assert "previous" not in back["pagination"]
        assert [i["dr_sid"] for i in asker.get(back["pagination"]["next"])["items"]] == expected[10:20]


def test_carrierx_filters_orders_and_chooses_fields(asker: Asker, native: list[dict[str, Any]]) -> None:
    """`filter`, `order`, `offset` and `fields` do what their page says."""

    def sids(**params: Any) -> list[str]:
        return [i["dr_sid"] for i in asker.get(DRS, limit=1000, **params)["items"]]

    middle = native[50]["occurred_at"]
    for text, holds in (
        ("direction eq inbound", lambda r: r["direction"] == "inbound"),
        ("status ne 'delivered'", lambda r: r["state"] != "delivered"),
        (
            f'date_insert ge "{middle}" and direction eq outbound',
            lambda r: r["occurred_at"] >= middle and r["direction"] == "outbound",
        ),
        (f"date_start lt {middle}", lambda r: r["occurred_at"] < middle),
        ("message_segments gt 1", lambda r: r["segments"] > 1),
        ("number_dst like '+1%'", lambda r: r["to_number"].startswith("+1")),
        (f"number_dst eq {native[0]['to_number'].lstrip('+')}", lambda r: r["to_number"] == native[0]["to_number"]),
        ('status eq "x\' OR 1=1 --"', lambda r: False),
    ):
        assert sids(filter=text) == [r["message_id"] for r in native if holds(r)], text
    told = asker.get(DRS, order="message_segments desc", limit=20, offset=5)
    assert [i["message_segments"] for i in told["items"]] == sorted((r["segments"] for r in native), reverse=True)[5:25]
    assert asker.get(told["pagination"]["next"])["offset"] == 25
    assert sids(offset=140) == [r["message_id"] for r in native[140:]]
    for name in ("fields", "includeFields"):
        assert all(list(i) == ["dr_sid", "price"] for i in asker.get(DRS, (name, "price,dr_sid"))["items"])
    assert list(asker.get(f"{DRS}/{native[0]['message_id']}", fields="status")) == ["status"]


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("order=colour", "order"),
        ("order=price+up", "order"),
        ("filter=status", "filter"),
        ("filter=colour eq 1", "colour"),
        ("filter=status is x", "is"),
        ("filter=status eq x or status eq y", "filter"),
        ("filter=status eq x and", "and"),
        ("filter=date_insert gt soon", "date_insert"),
        ("filter=message_segments eq two", "message_segments"),
        ("filter=mcc_mnc_rate like 1", "like"),
        ("fields=colour", "colour"),
        ("after=nothing", "after"),
        ("after=a&before=b", "before"),
        ("colour=1", "colour"),
        ("after=x&order=price", "order"),
    ],
)
def test_carrierx_bad_values_are_400(asker: Asker, query: str, word: str) -> None:
    """A bad value is a 400 with `errors` that name it."""
    pairs = [part.partition("=")[::2] for part in query.split("&")]
    told = asker.get(DRS, *pairs, status=400)
    assert word in told["errors"][0]["message"]


def test_carrierx_scopes_decide(http: TestClient[Any], filled: Filled, native: list[dict[str, Any]]) -> None:
    """`sms.manage` or `sms.read` shows one's own, `sms.read_descendant` those below too; no scope is a 403."""
    client = filled.store.client
    auth.add_account(client, ACCOUNT, "above")
    for scopes, status, total in (
        ((auth.READ,), 200, 0),
        ((auth.MANAGE,), 200, 0),
        ((auth.DESCENDANTS,), 403, 0),
        ((auth.READ, auth.DESCENDANTS), 200, len(native)),
        ((auth.MANAGE, auth.DESCENDANTS), 200, len(native)),
    ):
        above = Asker(http, bearer(auth.add_credential(client, "above", scopes=scopes)))
        told = above.get(DRS, status=status)
        assert told.get("total", 0) == total
        above.get(f"{DRS}/{native[0]['message_id']}", status=200 if total else 403 if status == 403 else 404)
    for headers in ({}, {"Authorization": "Basic " + base64.b64encode(b":").decode()}):
        assert Asker(http, headers).get(DRS, status=401)["errors"]
