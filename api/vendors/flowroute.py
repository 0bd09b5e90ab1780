"""Flowroute: `/v2/messages` and `/v2.1/messages`. JSON:API; numbers without `+`; ids of 32 hexadecimal digits.

A message id that is a UUID, or 32 hexadecimal digits, is its own Flowroute id; any other is told as its MD5.
"""

import hashlib
import re
import uuid
from typing import Any, Final, NamedTuple

from api.http import TITLES, Answer, Refusal, json_answer, whole_number
from api.vendors.shared import bare, moment, money
from api.where import Condition, Is, Range, Some

LIMIT_DEFAULT: Final = 250
LIMIT_MAX: Final = 10_000
OFFSET_MAX: Final = 1_000_000
RANGE_DAYS_MAX: Final = 366
_ID: Final = re.compile(r"mdr[12]-([0-9a-f]{32})")
_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_STATUS: Final = {
    "queued": "message buffered", "sent": "smsc submit", "delivered": "delivered", "rejected": "smsc reject",
    "undelivered": "undelivered", "failed": "failed", "expired": "expired", "received": "received",
}  # fmt: skip


class Asked(NamedTuple):
    """What a list request asks."""

    span: Range
    limit: int
    offset: int


def parse(asked: dict[str, str], now_ms: int) -> Asked:
    """A list request; `start_date` must be there, bad values are 422."""
    start_ms, end_ms = _date(asked, "start_date"), _date(asked, "end_date")
    if start_ms is None:
        raise Refusal(422, "start_date is missing", "start_date")
    end_ms = now_ms if end_ms is None else end_ms
    if end_ms - start_ms > RANGE_DAYS_MAX * 86_400_000:
        raise Refusal(422, f"start_date to end_date is longer than {RANGE_DAYS_MAX} days", "start_date")
    if end_ms < start_ms:
        raise Refusal(422, "start_date is after end_date", "start_date")
    limit = whole_number("limit", asked.get("limit"), LIMIT_DEFAULT, 1, LIMIT_MAX, 422)
    return Asked(Range(start_ms, end_ms), limit, whole_number("offset", asked.get("offset"), 0, 0, OFFSET_MAX, 422))


def _date(asked: dict[str, str], name: str) -> int | None:
    if name not in asked:
        return None
    at = moment(asked[name])
    if at is None or at.ms < 0:
        raise Refusal(422, f"{name} is not YYYY-MM-DD or YYYY-MM-DDTHH:mm:ss.SSZ", name)
    return at.ms


def told_id(message_id: str) -> str:
    """The 32 hexadecimal digits of a message id."""
    if _UUID.fullmatch(message_id):
        return message_id.replace("-", "")
    known = _ID.fullmatch(message_id)
    if known:
        return known[1]
    if re.fullmatch(r"[0-9a-f]{32}", message_id):
        return message_id
    return hashlib.md5(message_id.encode(), usedforsecurity=False).hexdigest()


def candidates(mdr_id: str) -> list[str]:
    """The message ids that a Flowroute id may mean without being their MD5; empty when it is no such id."""
    match = _ID.fullmatch(mdr_id)
    if match is None:
        return []
    return [str(uuid.UUID(match[1])), match[1], f"mdr2-{match[1]}", f"mdr1-{match[1]}"]


def means(mdr_id: str) -> Condition:
    """The condition of the message whose id is told as this MD5."""
    return Some((Is("message_id", "md5", mdr_id[5:]),))


def render(row: dict[str, Any], version: str) -> dict[str, Any]:
    """A record as version `2` or `2.1` tells it."""
    dollars = row["currency"] == "USD"
    attributes = {
        "body": row["body"], "direction": row["direction"],
        "amount_nanodollars": row["amount_nanos"] if dollars else None,
        "message_encoding": 8 if row["encoding"] == "ucs2" else 0, "timestamp": f"{row['occurred_at'][:19]}+00:00",
        "to": bare(row["to_number"]), "is_mms": row["message_type"] == "mms",
        "amount_display": f"${money(row['amount_nanos'], 4)}" if dollars else None, "from": bare(row["from_number"]),
    }  # fmt: skip
    toll_free = row["number_type"] == "toll-free"
    if version == "2":
        kind = "toll-free" if toll_free else "long-code"
        attributes |= {"callback_url": row["callback_url"] or None, "message_type": kind}
    else:
        attributes |= {
            "timestamp": row["occurred_at"], "message_type": "toll-free" if toll_free else "longcode",
            "status": _STATUS[row["state"]],
            "delivery_receipts": _receipts(row),
        }  # fmt: skip
    prefix = "mdr2" if version == "2.1" else "mdr1"
    return {"attributes": attributes, "type": "message", "id": f"{prefix}-{told_id(row['message_id'])}"}


def _receipts(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The timeline without its send; what came in has no receipts."""
    return [_receipt(e) for e in row["timeline"] if row["direction"] == "outbound" and e["state"] != "queued"]


def _receipt(entry: dict[str, Any]) -> dict[str, Any]:
    return {
        "level": 1 if entry["state"] == "sent" else 2, "status": _STATUS[entry["state"]],
        "status_code": entry["error_code"] or None, "status_code_description": None, "timestamp": entry["occurred_at"],
    }  # fmt: skip


def refuse(refusal: Refusal) -> Answer:
    """An error as both versions tell it."""
    title = TITLES.get(refusal.status, "Error")
    status = 422 if refusal.status == 400 else refusal.status
    error = {
        "id": refusal.field or title.lower().replace(" ", "-"),
        "status": status,
        "title": title,
        "detail": refusal.detail,
    }
    return json_answer({"errors": [error]}, status, refusal.headers)
