"""One message's life: how facts merge into a record, and a record back into facts.

Theory. A message is the set of facts known of it: one send, and receipts. The record is a function of that set alone,
so the order of arrival, repeats and restarts cannot show in it. A fact joins the set once (its identity decides), and
everything else is a fold over the set (`fold.py`), worked out only when rows are wanted:

    what                                rule
    ----------------------------------  ---------------------------------------------------------------------------
    state                               the strongest: queued < sent < expired, undelivered, failed, rejected
                                        < delivered; among equals the earliest, then event_id, state, segment
    sent_at                             earliest `sent`
    final_at                            the winner's time if it is final
    error_code, vendor_error_code       of receipts in the winning state: the first that carries one
    provider, mcc, mnc, rate, fee       of the strongest, then earliest receipt that carries one; else the send's
    segments_delivered, _failed         each part by its strongest state; a receipt without a part speaks for all
    amount                              (rate + fee) x segments, whatever the state
    version                             rank of the state, then the number of facts: grows with every fact

A second send with the same event_id is a repeat; with another it is a conflict, and the first in the log stays. Log
order is arrival order here: one partition is read by one worker, and what a store gives back was read before.
Receives are records of their own and never meet receipts.
"""

from typing import Any, Final

import msgspec
from msgspec import Struct

from schemas.events import Receipt, Send
from schemas.money import format_nanos
from schemas.record import Record
from schemas.states import FINAL_RANK, RANK

RECEIPTS_MAX: Final = 320
# Receipts that wait for their send may be repeats of those in a record, so more may wait than a message can have.
_WAITING_FACTOR: Final = 4
EXTRAS: Final = ("vendor_error_code", "provider", "mcc", "mnc", "rate", "carrier_fee")

_SHORT: Final = {
    "send": "s", "receipts": "r", "deadline_ms": "d", "asked": "a", "saved": "v", "placed": "p", "parts": "w",
}  # fmt: skip


class Life(Struct, gc=False, omit_defaults=True, rename=_SHORT):
    """What is known of one outbound message; without a send, receipts that wait for it.

    `settled_ms` is 0 while open. `deadline_ms` is when it stops waiting, on the watermark that belongs to it. `asked`:
    the store was asked and does not know it. `saved` and `parts`: its rows in `open_messages`, as a message and as
    waiting receipts. `placed`: its deadline is kept track of.
    """

    send: Send | None = None
    receipts: tuple[Receipt, ...] = ()
    deadline_ms: int = 0
    settled_ms: int = 0
    amended_ms: int = 0
    amendments: int = 0
    asked: bool = False
    saved: bool = False
    placed: bool = False
    parts: tuple[str, ...] = ()


def add_receipt(life: Life, receipt: Receipt) -> str:
    """Merges one receipt: `merged`, `duplicate`, or `too_many_events` (the message has its 320; more may wait)."""
    for known in life.receipts:
        if known.event_id == receipt.event_id and is_same(known, receipt):
            return "duplicate"
    count = len(life.receipts)
    if count >= RECEIPTS_MAX and (life.send is not None or count >= RECEIPTS_MAX * _WAITING_FACTOR):
        return "too_many_events"
    life.receipts = (*life.receipts, receipt)
    return "merged"


def is_same(a: Receipt, b: Receipt) -> bool:
    """Whether two receipts are one event told twice."""
    return a.event_id == b.event_id and a.state == b.state and a.occurred_ms == b.occurred_ms and a.segment == b.segment


def is_final(receipt: Receipt) -> bool:
    """Whether the receipt ends the message: no state but a stronger final one can follow."""
    return RANK[receipt.state] >= FINAL_RANK


def has_final(life: Life) -> bool:
    """Whether any receipt of the message is final, so that it settles at once."""
    return any(map(is_final, life.receipts))


# ---- a record back into the facts it was made of ---------------------------------------------------------------


Carrier = tuple[str, str, str, str, str]


def restore(record: Record) -> Life:
    """The life an outbound record was made of, so that it goes on merging where it stopped."""
    own, extras = _decode_facts(record)
    steps = zip(
        record.timeline_event_id, record.timeline_state, record.timeline_occurred_at, record.timeline_segment,
        record.timeline_error_code, record.timeline_source, strict=True,
    )  # fmt: skip
    send: Send | None = None
    receipts: list[Receipt] = []
    for event_id, state, at_ms, segment, error_code, source in steps:
        if is_send_source(source):
            send = _restore_send(record, event_id, source, own)
        else:
            more = dict(zip(EXTRAS, extras[len(receipts)], strict=True)) if extras else {}
            receipts.append(
                Receipt(
                    event_id,
                    record.message_id,
                    "",
                    state,
                    segment,
                    error_code,
                    occurred_ms=at_ms,
                    source=source,
                    **more,
                )
            )
    return Life(
        send, tuple(receipts), settled_ms=record.settled_at, amended_ms=record.amended_at or 0,
        amendments=record.amendments,
    )  # fmt: skip


def is_send_source(source: str) -> bool:
    """Whether a timeline entry `topic:partition:offset` is the send itself."""
    return source.split(":", 1)[0].endswith("sends")


class _Facts(Struct, array_like=True):
    own: Carrier
    extras: list[tuple[str, str, str, str, str, str]]


_decode = msgspec.json.Decoder(_Facts).decode


def _decode_facts(record: Record) -> tuple[Carrier, list[tuple[str, str, str, str, str, str]]]:
    if record.facts:
        facts = _decode(record.facts)
        return facts.own, facts.extras
    money = format_nanos(record.rate_nanos), format_nanos(record.carrier_fee_nanos)
    return (record.provider, record.mcc, record.mnc, *money), []


_SAID: Final = tuple(
    name
    for name in Send.__struct_fields__
    if name in Record.__struct_fields__ and name not in ("occurred_at", "provider", "mcc", "mnc")
)


def _restore_send(r: Record, event_id: str, source: str, own: Carrier) -> Send:
    provider, mcc, mnc, rate, fee = own
    said: dict[str, Any] = {name: getattr(r, name) for name in _SAID}
    return Send(
        event_id=event_id, occurred_at="", occurred_ms=r.occurred_at, source=source,
        provider=provider, mcc=mcc, mnc=mnc, rate=rate, carrier_fee=fee, **said,
    )  # fmt: skip


# Reads the facts of an open message; raises `msgspec.MsgspecError`.
thaw = msgspec.json.Decoder(Life).decode


def sources(facts: bytes) -> tuple[str, ...]:
    """The log entries that a saved message was made of, as `topic:partition:offset`."""
    life = thaw(facts) if facts else Life()
    own = (life.send.source,) if life.send is not None else ()
    return own + tuple(r.source for r in life.receipts)


# ---- how ClickHouse reads an open message ----------------------------------------------------------------------

_SQL_TYPES: Final[dict[str, str]] = {
    "segments": "UInt8", "segment": "UInt8", "~ms": "Int64", "media_urls": "Array(String)",
    "group_to": "Array(String)", "tags": "Array(String)", "attributes": "Map(String, String)",
}  # fmt: skip


def receipt_type() -> str:
    """The members of a receipt as ClickHouse reads its JSON; the message's id is left out."""
    return _members(Receipt, without=("message_id", "occurred_at"))


def facts_type() -> str:
    """The members of a `Life` as ClickHouse reads `open_messages.facts`."""
    send = _members(Send, without=("message_id", "account_id", "occurred_at"))
    return f"s Tuple({send}), r Array(Tuple({receipt_type()}))"


def _members(kind: type[Struct], without: tuple[str, ...]) -> str:
    names = [f.encode_name for f in msgspec.structs.fields(kind) if f.name not in without]
    return ", ".join(f"`{name}` {_SQL_TYPES.get(name, 'String')}" for name in names)
