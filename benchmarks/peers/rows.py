"""The row that every peer writes: about half of our columns, no timeline. How it is stored, made, and read back."""

import time
from collections.abc import Iterator
from typing import Any, Final

from schemas.money import parse_nanos
from schemas.states import parse_state
from schemas.text import measure
from schemas.times import parse_rfc3339

Row = dict[str, Any]
_WORD: Final = "LowCardinality(String)"
_TIME: Final = "DateTime64(3, 'UTC')"
COLUMNS: Final = {
    "message_id": "String", "account_id": _WORD, "profile_id": _WORD, "connection_id": _WORD, "direction": _WORD,
    "record_type": _WORD, "state": _WORD, "message_type": _WORD, "from_number": "String", "to_number": "String",
    "body": "String", "encoding": _WORD, "segments": "UInt8", "mcc": _WORD, "mnc": _WORD, "provider": _WORD,
    "error_code": _WORD, "vendor_error_code": _WORD, "rate_nanos": "Int64", "carrier_fee_nanos": "Int64",
    "amount_nanos": "Int64", "currency": _WORD, "tags": f"Array({_WORD})", "occurred_at": _TIME,
    "sent_at": f"Nullable({_TIME})", "final_at": f"Nullable({_TIME})", "settled_at": _TIME,
}  # fmt: skip
TIMES: Final = tuple(name for name in COLUMNS if name.endswith("_at"))
_ENGINE: Final = (
    "ENGINE = ReplacingMergeTree PARTITION BY toYYYYMM(occurred_at)"
    " ORDER BY (account_id, occurred_at, message_id, direction)"
)
# When it settled is a matter of the run.
COMPARED: Final = tuple(name for name in COLUMNS if name != "settled_at")
_HEARD: Final = ("mcc", "mnc", "provider")


def create(name: str, engine: str = "") -> str:
    """The statement that makes a table of such rows."""
    columns = ", ".join(f"{column} {type_}" for column, type_ in COLUMNS.items())
    return f"CREATE TABLE {name} ({columns}) {engine or _ENGINE}"


def read(client: Any, table: str) -> Iterator[Row]:
    """The rows of a table, as they are compared."""
    chosen = [f"toUnixTimestamp64Milli({name}) AS {name}" if name in TIMES else name for name in COMPARED]
    sql = f"SELECT {', '.join(chosen)} FROM {table}"
    with client.query_row_block_stream(sql) as blocks:
        for block in blocks:
            for row in block:
                yield dict(zip(COMPARED, row, strict=True))


def of(event: Row, direction: str) -> Row:
    """The columns that a send or receive fills by itself."""
    body, kind = event.get("body", ""), event.get("message_type", "sms")
    rate, fee = event.get("rate", ""), event.get("carrier_fee", "")
    encoding, counted = event.get("encoding", ""), event.get("segments", 0)
    if not encoding or not counted:
        encoding, measured = measure(body, encoding, kind)
        counted = counted or measured
    return {
        "message_id": event["message_id"], "account_id": event["account_id"],
        "profile_id": event.get("profile_id", ""), "connection_id": event.get("connection_id", ""),
        "direction": direction, "record_type": "incomplete", "state": "queued", "message_type": kind,
        "from_number": event["from"], "to_number": event["to"], "body": body, "encoding": encoding,
        "segments": counted, "mcc": event.get("mcc", ""), "mnc": event.get("mnc", ""),
        "provider": event.get("provider", ""), "error_code": "", "vendor_error_code": "",
        "rate_nanos": parse_nanos(rate), "carrier_fee_nanos": parse_nanos(fee),
        "currency": event.get("currency", "USD"), "tags": event.get("tags", []),
        "occurred_at": parse_rfc3339(event["occurred_at"]), "sent_at": None, "final_at": None,
    }  # fmt: skip


def inbound(event: Row) -> Row:
    """The row of a receive."""
    row = of(event, "inbound")
    row["error_code"], row["vendor_error_code"] = event.get("error_code", ""), event.get("vendor_error_code", "")
    row["record_type"], row["state"] = ("error", "failed") if row["error_code"] else ("complete", "received")
    row["final_at"] = row["occurred_at"]
    return _priced(row)


def outbound(send: Row, sent_ms: int | None, teller: Row | None, final: Row | None) -> Row:
    """The row of a send, of what an intermediate receipt told on the way, and of what settled it, if anything did."""
    row = of(send, "outbound")
    row["sent_at"], row["state"] = sent_ms, "sent" if sent_ms else "queued"
    for receipt in filter(None, (teller, final)):
        row |= {name: receipt[name] for name in _HEARD if name in receipt}
        row |= {f"{name}_nanos": parse_nanos(receipt[name]) for name in ("rate", "carrier_fee") if name in receipt}
    if final:
        row["state"] = parse_state(final["state"])
        row["record_type"] = "complete" if row["state"] == "delivered" else "error"
        row["final_at"] = parse_rfc3339(final["occurred_at"])
        row["error_code"], row["vendor_error_code"] = final.get("error_code", ""), final.get("vendor_error_code", "")
    return _priced(row)


def _priced(row: Row) -> Row:
    row["amount_nanos"] = (row["rate_nanos"] + row["carrier_fee_nanos"]) * row["segments"]
    row["settled_at"] = time.time_ns() // 1_000_000
    return row
