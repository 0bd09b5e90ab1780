"""One message's life: how facts merge into a record. The only place where that is decided.

Theory. A message is the set of facts known of it: one send, and receipts. The record is a function of that set alone,
so the order of arrival, repeats and restarts cannot show in it. A fact joins the set once (its identity decides), and
everything else is a fold over the set, worked out only when a row is wanted:

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

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

import msgspec
from msgspec import Struct
from msgspec.structs import astuple

from schemas.events import Message, Receipt, Receive, Send
from schemas.money import format_nanos, parse_nanos
from schemas.record import Record
from schemas.states import DELIVERED, FAILED, FAILURES, FINAL_RANK, QUEUED, RANK, RECEIVED, SENT

RECEIPTS_MAX: Final = 320
# Receipts that wait for their send may be repeats of those in a record, so more may wait than a message can have.
_WAITING_FACTOR: Final = 4
_VERSION_RANK_SHIFT: Final = 32
_EXTRAS: Final = ("vendor_error_code", "provider", "mcc", "mnc", "rate", "carrier_fee")
_encode = msgspec.json.Encoder().encode


_SHORT: Final = {
    "send": "s",
    "receipts": "r",
    "deadline_ms": "d",
    "asked": "a",
    "saved": "v",
    "placed": "p",
    "parts": "w",
}


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


def _strength(r: Receipt) -> tuple[int, int, str, str, int]:
    return (-RANK[r.state], r.occurred_ms, r.event_id, r.state, r.segment)


def _time_order(r: Receipt) -> tuple[int, int, str, str, int]:
    return (r.occurred_ms, RANK[r.state], r.event_id, r.state, r.segment)


def outbound_row(life: Life, send: Send, shard: int) -> tuple[object, ...]:
    """The record of an outbound message as a row of `Record`, in column order."""
    receipts = life.receipts
    strongest = sorted(receipts, key=_strength) if len(receipts) > 1 else receipts
    state = strongest[0].state if strongest else QUEUED
    error_code, vendor_error_code, provider, mcc, mnc, rate, fee = _carried(strongest, state)
    final_at = strongest[0].occurred_ms if RANK[state] >= FINAL_RANK else None
    ordered = _by_time(receipts)
    own = (send.provider, send.mcc, send.mnc, send.rate, send.carrier_fee)
    return _row(
        astuple(send), shard,
        ("outbound", _OUTBOUND_TYPE.get(state, "incomplete"), state),
        _parts(strongest, send.segments) if final_at is not None else (0, 0),
        (mcc or own[1], mnc or own[2], send.country, provider or own[0], error_code, vendor_error_code),
        (parse_nanos(rate or own[3]) or 0, parse_nanos(fee or own[4]) or 0),
        (
            send.occurred_ms, next((r.occurred_ms for r in strongest if r.state == SENT), None), final_at,
            life.settled_ms, life.amended_ms or None, life.amendments,
        ),
        _steps(ordered, send),
        ((RANK[state] + 1) << _VERSION_RANK_SHIFT) + 1 + len(receipts), _facts(ordered, own),
    )  # fmt: skip


def inbound_row(receive: Receive, settled_ms: int, shard: int) -> tuple[object, ...]:
    """The record of an inbound message as a row of `Record`, in column order."""
    error = receive.error_code
    state = FAILED if error else RECEIVED
    return _row(
        astuple(receive), shard,
        ("inbound", "error" if error else "complete", state), (0, 0),
        (receive.mcc, receive.mnc, receive.country, receive.provider, error, receive.vendor_error_code),
        (parse_nanos(receive.rate) or 0, parse_nanos(receive.carrier_fee) or 0),
        (receive.occurred_ms, None, receive.occurred_ms, settled_ms, None, 0),
        [(receive.event_id, state, receive.occurred_ms, 0, error, receive.source)],
        ((FINAL_RANK + 1) << _VERSION_RANK_SHIFT) + 1, "",
    )  # fmt: skip


_OUTBOUND_TYPE: Final = {DELIVERED: "complete"} | dict.fromkeys(FAILURES, "error")
_NO_ATTRIBUTES: Final[dict[str, str]] = {}
Step = tuple[str, str, int, int, str, str]
Receipts = Sequence[Receipt]


def _run(first: str, last: str) -> slice:
    """Fields of a message that are columns of a record, side by side and in the same order."""
    names = Message.__struct_fields__
    return slice(names.index(first), names.index(last) + 1)


_WHO: Final = _run("message_id", "connection_id")
_WHAT: Final = _run("message_type", "segments")
_MORE: Final = _run("currency", "tags")
_SEGMENTS: Final = Message.__struct_fields__.index("segments")
_ATTRIBUTES: Final = Message.__struct_fields__.index("attributes")


def _row(
    m: tuple[Any, ...], shard: int, outcome: tuple[str, str, str], parts: tuple[int, int], carrier: tuple[str, ...],
    money: tuple[int, int], times: tuple[int | None, ...], steps: list[Step], version: int, facts: str,
) -> tuple[object, ...]:  # fmt: skip
    return (
        *m[_WHO], *outcome, *m[_WHAT], *parts, *carrier, *money, (money[0] + money[1]) * m[_SEGMENTS], *m[_MORE],
        m[_ATTRIBUTES] or _NO_ATTRIBUTES, *times, *zip(*steps, strict=True), version, shard, facts,
    )  # fmt: skip


def _carried(strongest: Receipts, state: str) -> tuple[str, str, str, str, str, str, str]:
    """Codes from receipts in the winning state, the rest from any: each the first that carries one, strongest first."""
    error_code = vendor_error_code = provider = mcc = mnc = rate = fee = ""
    for r in strongest:
        if r.state == state:
            error_code = error_code or r.error_code
            vendor_error_code = vendor_error_code or r.vendor_error_code
        provider = provider or r.provider
        mcc = mcc or r.mcc
        mnc = mnc or r.mnc
        rate = rate or r.rate
        fee = fee or r.carrier_fee
    return error_code, vendor_error_code, provider, mcc, mnc, rate, fee


def _parts(strongest: Receipts, segments: int) -> tuple[int, int]:
    """How many parts were delivered and how many failed; each counts once, by its strongest state."""
    if len(strongest) == 1 and not strongest[0].segment:
        return (segments, 0) if strongest[0].state == DELIVERED else (0, segments)
    finals = [r for r in strongest if is_final(r)]
    delivered = failed = 0
    for part in range(1, segments + 1):
        best = next((r.state for r in finals if r.segment in (0, part)), "")
        delivered += best == DELIVERED
        failed += best in FAILURES
    return delivered, failed


def _by_time(receipts: Receipts) -> Receipts:
    for earlier, later in pairwise(receipts):
        if earlier.occurred_ms >= later.occurred_ms:
            return sorted(receipts, key=_time_order)
    return receipts


def _steps(ordered: Receipts, send: Send) -> list[Step]:
    steps = [(r.event_id, r.state, r.occurred_ms, r.segment, r.error_code, r.source) for r in ordered]
    at = 0
    while at < len(steps) and (steps[at][2], RANK[steps[at][1]], steps[at][0]) < (send.occurred_ms, 0, send.event_id):
        at += 1
    steps.insert(at, (send.event_id, QUEUED, send.occurred_ms, 0, "", send.source))
    return steps


# ---- a record back into the facts it was made of ---------------------------------------------------------------


Carrier = tuple[str, str, str, str, str]


def _facts(ordered: Receipts, own: Carrier) -> str:
    """What the public columns do not hold: the send's own values, and each receipt's, in timeline order."""
    extras = [_extras(r) for r in ordered]
    return _encode([own, extras]).decode() if any(map(any, extras)) else ""


def _extras(r: Receipt) -> tuple[str, ...]:
    return (r.vendor_error_code, r.provider, r.mcc, r.mnc, r.rate, r.carrier_fee)


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
            more = dict(zip(_EXTRAS, extras[len(receipts)], strict=True)) if extras else {}
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


def _restore_send(r: Record, event_id: str, source: str, own: Carrier) -> Send:
    return Send(
        event_id=event_id, message_id=r.message_id, occurred_at="", account_id=r.account_id,
        from_number=r.from_number, to_number=r.to_number, subaccount_id=r.subaccount_id, profile_id=r.profile_id,
        connection_id=r.connection_id, message_type=r.message_type, number_type=r.number_type, body=r.body,
        media_urls=r.media_urls, encoding=r.encoding, segments=r.segments, provider=own[0], mcc=own[1], mnc=own[2],
        rate=own[3], carrier_fee=own[4], country=r.country, currency=r.currency, campaign_id=r.campaign_id,
        campaign_status=r.campaign_status, powerpack_id=r.powerpack_id, conversation_id=r.conversation_id,
        conversation_origin=r.conversation_origin, callback_url=r.callback_url, requester_ip=r.requester_ip,
        user_data=r.user_data, external_number=r.external_number, billing_number=r.billing_number,
        group_to=r.group_to, replaced_sender=r.replaced_sender, registration_type=r.registration_type, tags=r.tags,
        attributes=r.attributes, occurred_ms=r.occurred_at, source=source,
    )  # fmt: skip


_decode_life = msgspec.json.Decoder(Life).decode


def sources(facts: bytes) -> tuple[str, ...]:
    """The log entries that a saved message was made of, as `topic:partition:offset`."""
    life = _decode_life(facts) if facts else Life()
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
