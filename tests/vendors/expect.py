"""What each vendor's view must show of a record of the truth, said once more and apart from the views themselves."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import phonenumbers

Record = dict[str, Any]
_RECEIPTS = {"sent": (1, "smsc submit"), "delivered": (2, "delivered"), "rejected": (2, "smsc reject")}
_TELNYX = {
    "queued": ("DLR_UNCONFIRMED", "delivery_unconfirmed"), "sent": ("DLR_UNCONFIRMED", "delivery_unconfirmed"),
    "delivered": ("DELIVERED", "delivered"), "undelivered": ("FAILED", "delivery_failed"),
    "failed": ("FAILED", "sending_failed"), "rejected": ("GW_REJECT", "sending_failed"),
    "expired": ("DLR_TIMEOUT", "delivery_failed"), "received": ("RECEIVED", "webhook_delivered"),
}  # fmt: skip


def decimal(nanos: int, places: int) -> str:
    """Exact, with at least so many places."""
    whole, _, fraction = f"{Decimal(nanos).scaleb(-9):f}".partition(".")
    return f"{whole}.{fraction.rstrip('0').ljust(places, '0')}"


def digits(number: str) -> str:
    """Without its `+`."""
    return number.removeprefix("+") if number.removeprefix("+").isdigit() else number


def region(number: str) -> str:
    """The country of a number of E.164."""
    return (phonenumbers.region_code_for_number(phonenumbers.parse(number)) or "") if number.startswith("+") else ""


def second(stamp: str | None) -> str:
    """`YYYY-MM-DD HH:MM:SS`."""
    return stamp[:19].replace("T", " ") if stamp else ""


def safe(text: str) -> str:
    """As a spreadsheet may open it."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def plivo(row: Record, key: str) -> Record:
    """One of Plivo's messages."""
    fee, units, home = row["carrier_fee_nanos"], row["segments"], region(row["from_number"])
    plain = ("powerpack_id", "requester_ip", "conversation_id", "conversation_origin", "message_type", "mcc", "mnc")
    extra = ("conversation_expiration_timestamp", "dlt_entity_id", "dlt_template_id", "dlt_template_category",
             "destination_network", "log")  # fmt: skip
    return {name: row[name] for name in plain} | {name: row["attributes"].get(name, "") for name in extra} | {
        "message_uuid": row["message_id"], "message_direction": row["direction"], "units": units,
        "message_state": {"expired": "undelivered"}.get(row["state"], row["state"]),
        "message_time": row["occurred_at"].replace("T", " ").replace("Z", "000+00:00"),
        "from_number": digits(row["from_number"]), "to_number": digits(row["to_number"]),
        "replaced_sender": digits(row["replaced_sender"]), "error_code": row["error_code"] or "000",
        "total_rate": decimal(row["rate_nanos"] + fee, 5), "total_amount": decimal(row["amount_nanos"], 5),
        "carrier_fees_rate": decimal(fee, 5), "carrier_fees": decimal(fee * units, 5),
        "tendlc_campaign_id": row["campaign_id"] or None, "tendlc_registration_status": row["campaign_status"],
        "destination_country_iso2": row["country"], "is_domestic": home != "" and home == region(row["to_number"]),
        "resource_uri": f"/v1/Account/{key}/Message/{row['message_id']}/",
    }  # fmt: skip


def telnyx(row: Record) -> dict[str, str]:
    """One line of Telnyx's csv."""
    status, status_v2 = _TELNYX[row["state"]]
    return {
        "Originating Number": _number(row["from_number"]), "Terminating number": _number(row["to_number"]),
        "CreateTimestamp(UTC)": second(row["occurred_at"]), "SendTimestamp(UTC)": second(row["sent_at"]),
        "CompleteTimestamp(UTC)": second(row["final_at"]), "Direction": row["direction"], "Status": status,
        "Status_v2": status_v2, "Unique Mdr ID": row["message_id"], "Message Type": row["message_type"],
        "Message Body": safe(row["body"]), "Total Media Size": "",
    }  # fmt: skip


def _number(number: str) -> str:
    return number if number.removeprefix("+").isdigit() else safe(number)


def flowroute(row: Record, version: str) -> Record:
    """One of Flowroute's messages."""
    dollars, kind = row["currency"] == "USD", row["number_type"]
    shared = {
        "body": row["body"], "direction": row["direction"], "is_mms": row["message_type"] == "mms",
        "to": digits(row["to_number"]), "from": digits(row["from_number"]),
        "message_encoding": {"gsm7": 0, "ucs2": 8}[row["encoding"]],
        "amount_nanodollars": row["amount_nanos"] if dollars else None,
        "amount_display": "$" + decimal(row["amount_nanos"], 4) if dollars else None,
    }  # fmt: skip
    if version == "2":
        own = {"timestamp": row["occurred_at"][:19] + "+00:00", "callback_url": row["callback_url"] or None,
               "message_type": "toll-free" if kind == "toll-free" else "long-code"}  # fmt: skip
        return {"id": f"mdr1-{_hex(row)}", "type": "message", "attributes": shared | own}
    own = {
        "timestamp": row["occurred_at"], "message_type": "toll-free" if kind == "toll-free" else "longcode",
        "status": _word(row["state"])[1],
        "delivery_receipts": [
            {"level": _word(e["state"])[0], "status": _word(e["state"])[1], "status_code": e["error_code"] or None,
             "status_code_description": None, "timestamp": e["occurred_at"]}
            for e in row["timeline"] if row["direction"] == "outbound" and e["state"] != "queued"
        ],
    }  # fmt: skip
    return {"id": f"mdr2-{_hex(row)}", "type": "message", "attributes": shared | own}


def _hex(row: Record) -> str:
    try:
        return uuid.UUID(row["message_id"]).hex
    except ValueError:
        return hashlib.md5(row["message_id"].encode(), usedforsecurity=False).hexdigest()


def _word(state: str) -> tuple[int, str]:
    return (1, "message buffered") if state == "queued" else _RECEIPTS.get(state, (2, state))


def carrierx(row: Record) -> Record:
    """What of one of CarrierX's messages is no matter of when it was settled."""
    sent, fee = row["sent_at"], row["carrier_fee_nanos"]
    return {
        "dr_sid": row["message_id"], "partner_sid": row["account_id"], "direction": row["direction"],
        "type": row["message_type"], "status": row["state"], "date_insert": row["occurred_at"],
        "date_start": row["occurred_at"], "date_sent": sent, "date_stop": row["final_at"],
        "message": row["body"] or None, "message_segments": row["segments"], "media_urls": row["media_urls"],
        "number_src": digits(row["from_number"]), "number_dst": digits(row["to_number"]),
        "mcc": int(row["mcc"]) if row["mcc"] else None, "mnc": int(row["mnc"]) if row["mnc"] else None,
        "provider": row["provider"] or None, "a2p_campaign": row["campaign_id"] or None,
        "vendor_error_code": row["vendor_error_code"] or None,
        "passthrough_price": trimmed(fee * row["segments"]) if fee else None,
        "price": trimmed(row["amount_nanos"]), "rate": trimmed(row["rate_nanos"]),
    }  # fmt: skip


def trimmed(nanos: int) -> str:
    """Exact, with no more places than it takes."""
    return decimal(nanos, 0).rstrip(".")


def plivo_filters(rows: list[Record]) -> dict[str, tuple[dict[str, Any], Callable[[Record], bool]]]:
    """Filters of Plivo's list by name: the parameters, and which records they mean."""
    row = next(r for r in rows if r["from_number"].startswith("+") and r["error_code"].strip("0"))
    code, country, middle = row["error_code"], row["country"], rows[len(rows) // 2]["occurred_at"]
    stamp = middle.replace("T", " ").replace("Z", "")
    return {
        "delivered": ({"message_state": "delivered"}, lambda r: r["state"] == "delivered"),
        "undelivered": ({"message_state": "undelivered"}, lambda r: r["state"] in ("undelivered", "expired")),
        "inbound": ({"message_direction": "inbound"}, lambda r: r["direction"] == "inbound"),
        "mms": ({"message_type": "mms"}, lambda r: r["message_type"] == "mms"),
        "code": ({"error_code": code}, lambda r: r["error_code"] == code),
        "fine": ({"error_code": "000"}, lambda r: r["error_code"] in ("", "0", "000")),
        "plus": ({"to_number": row["to_number"]}, lambda r: r["to_number"] == row["to_number"]),
        "digits": ({"to_number": digits(row["to_number"])}, lambda r: r["to_number"] == row["to_number"]),
        "country": ({"destination_country_iso2": country}, lambda r: r["country"] == country),
        "until": ({"message_time__lt": stamp}, lambda r: r["occurred_at"] < middle),
        "through": ({"message_time__lte": stamp}, lambda r: r["occurred_at"] <= middle),
        "at": ({"message_time": stamp}, lambda r: r["occurred_at"] == middle),
        "minute": ({"message_time": stamp[:16]}, lambda r: r["occurred_at"][:16] == middle[:16]),
        "both": (
            {"message_direction": "outbound", "message_time__gt": stamp, "message_time__lt": "2100-01-01"},
            lambda r: r["direction"] == "outbound" and r["occurred_at"] > middle,
        ),
    }  # fmt: skip


def telnyx_requests(rows: list[Record]) -> dict[str, tuple[dict[str, Any], Callable[[Record], bool]]]:
    """Requests for Telnyx's reports by name: what is asked beside the range, and which records it means."""
    row = next(r for r in rows if r["tags"])
    cli, cld, tag = row["from_number"], row["to_number"], row["tags"][0]
    starts = [{"filter_type": "and", "cli": cli[:5], "cli_filter": "starts_with"}]
    ends = [{"filter_type": "and", "cld": cld[-2:], "cld_filter": "ends_with"},
            {"filter_type": "or", "tags_list": tag}]  # fmt: skip
    holds = [{"filter_type": "and", "cld": cld[3:7], "cld_filter": "contains"}, {"filter_type": "and", "cli": cli}]
    return {
        "all": ({"directions": [1, 2], "record_types": [1, 2, 3], "connections": [], "profiles": [], "filters": [],
                 "report_name": "all", "timezone": "UTC"}, lambda r: True),
        "inbound": ({"directions": [1]}, lambda r: r["direction"] == "inbound"),
        "incomplete": ({"record_types": [2]}, lambda r: r["record_type"] == "incomplete"),
        "errors": ({"record_types": [3], "directions": [2]},
                   lambda r: r["record_type"] == "error" and r["direction"] == "outbound"),
        "starts": ({"filters": starts}, lambda r: r["from_number"].startswith(cli[:5])),
        "ends": ({"filters": ends}, lambda r: r["to_number"].endswith(cld[-2:]) or tag in r["tags"]),
        "holds": ({"filters": holds}, lambda r: cld[3:7] in r["to_number"] and r["from_number"] == cli),
    }  # fmt: skip
