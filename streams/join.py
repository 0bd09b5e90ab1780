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

from typing import Final

import msgspec
from msgspec import Struct

from schemas.events import Message, Receipt, Receive, Send
from schemas.money import format_nanos, parse_nanos
from schemas.record import Record
from schemas.states import DELIVERED, FAILED, FAILURES, FINAL_RANK, QUEUED, RANK, RECEIVED, SENT

RECEIPTS_MAX: Final = 320
_VERSION_RANK_SHIFT: Final = 32
_EXTRAS: Final = ("vendor_error_code", "provider", "mcc", "mnc", "rate", "carrier_fee")
_encode = msgspec.json.Encoder().encode


class Life(Struct, gc=False, omit_defaults=True):
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
    """Merges one receipt: `merged`, `duplicate`, or `too_many_events` (the message has its 320)."""
    for known in life.receipts:
        if known.event_id == receipt.event_id and is_same(known, receipt):
            return "duplicate"
    if len(life.receipts) >= RECEIPTS_MAX:
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
    strongest = sorted(life.receipts, key=_strength)
    winner = strongest[0] if strongest and strongest[0].state != QUEUED else None
    state = winner.state if winner else QUEUED
    error_code, vendor_error_code = _errors(strongest, state)
    own = (send.provider, send.mcc, send.mnc, send.rate, send.carrier_fee)
    provider, mcc, mnc, rate, fee = _overrides(strongest, own)
    delivered, failed = _parts(strongest, send.segments)
    steps = _steps(life.receipts, send)
    return _row(
        send, shard,
        direction="outbound", record_type=_OUTBOUND_TYPE.get(state, "incomplete"), state=state,
        parts=(delivered, failed), carrier=(mcc, mnc, provider), errors=(error_code, vendor_error_code),
        money=(parse_nanos(rate) or 0, parse_nanos(fee) or 0),
        sent_at=min((r.occurred_ms for r in strongest if r.state == SENT), default=None),
        final_at=winner.occurred_ms if winner and is_final(winner) else None,
        settled=(life.settled_ms, life.amended_ms or None, life.amendments), steps=steps,
        version=_version(RANK[state], len(steps)), facts=_facts(life.receipts, own),
    )  # fmt: skip


def inbound_row(receive: Receive, settled_ms: int, shard: int) -> tuple[object, ...]:
    """The record of an inbound message as a row of `Record`, in column order."""
    state = FAILED if receive.error_code else RECEIVED
    step = (receive.event_id, state, receive.occurred_ms, 0, receive.error_code, receive.source)
    return _row(
        receive, shard,
        direction="inbound", record_type="error" if receive.error_code else "complete", state=state,
        parts=(0, 0), carrier=(receive.mcc, receive.mnc, receive.provider),
        errors=(receive.error_code, receive.vendor_error_code),
        money=(parse_nanos(receive.rate) or 0, parse_nanos(receive.carrier_fee) or 0),
        sent_at=None, final_at=receive.occurred_ms, settled=(settled_ms, None, 0), steps=[step],
        version=_version(FINAL_RANK, 1), facts="",
    )  # fmt: skip


_OUTBOUND_TYPE: Final = {DELIVERED: "complete"} | dict.fromkeys(FAILURES, "error")
Step = tuple[str, str, int, int, str, str]


def _row(
    m: Message, shard: int, *, direction: str, record_type: str, state: str, parts: tuple[int, int],
    carrier: tuple[str, str, str], errors: tuple[str, str], money: tuple[int, int], sent_at: int | None,
    final_at: int | None, settled: tuple[int, int | None, int], steps: list[Step], version: int, facts: str,
) -> tuple[object, ...]:  # fmt: skip
    return (
        m.message_id, m.account_id, m.subaccount_id, m.profile_id, m.connection_id, direction, record_type, state,
        m.message_type, m.from_number, m.to_number, m.number_type, m.body, m.media_urls, m.encoding, m.segments,
        *parts, carrier[0], carrier[1], m.country, carrier[2], *errors, *money, sum(money) * m.segments, m.currency,
        m.campaign_id, m.campaign_status, m.powerpack_id, m.conversation_id, m.conversation_origin, m.callback_url,
        m.requester_ip, m.user_data, m.external_number, m.billing_number, m.group_to, m.replaced_sender,
        m.registration_type, m.tags, m.attributes or {}, m.occurred_ms, sent_at, final_at, *settled,
        *zip(*steps, strict=True), version, shard, facts,
    )  # fmt: skip


def _version(rank: int, facts: int) -> int:
    return ((rank + 1) << _VERSION_RANK_SHIFT) + facts


def _errors(strongest: list[Receipt], state: str) -> tuple[str, str]:
    """The first codes carried in the winning state; `strongest` has equal ranks by time."""
    error_code = vendor_error_code = ""
    for r in strongest:
        if r.state == state:
            error_code = error_code or r.error_code
            vendor_error_code = vendor_error_code or r.vendor_error_code
    return error_code, vendor_error_code


Carrier = tuple[str, str, str, str, str]


def _overrides(strongest: list[Receipt], own: Carrier) -> Carrier:
    """Provider, mcc, mnc, rate and fee: each from the strongest receipt that carries it, else the send's own."""
    provider = mcc = mnc = rate = fee = ""
    for r in strongest:
        provider = provider or r.provider
        mcc = mcc or r.mcc
        mnc = mnc or r.mnc
        rate = rate or r.rate
        fee = fee or r.carrier_fee
    return provider or own[0], mcc or own[1], mnc or own[2], rate or own[3], fee or own[4]


def _parts(strongest: list[Receipt], segments: int) -> tuple[int, int]:
    """How many parts were delivered and how many failed; each counts once, by its strongest state."""
    finals = [r for r in strongest if is_final(r)]
    if not finals:
        return 0, 0
    if not any(r.segment for r in finals):
        return (segments, 0) if finals[0].state == DELIVERED else (0, segments)
    delivered = failed = 0
    for part in range(1, segments + 1):
        best = next((r.state for r in finals if r.segment in (0, part)), "")
        delivered += best == DELIVERED
        failed += best in FAILURES
    return delivered, failed


def _steps(receipts: tuple[Receipt, ...], send: Send) -> list[Step]:
    steps: list[Step] = [
        (r.event_id, r.state, r.occurred_ms, r.segment, r.error_code, r.source)
        for r in sorted(receipts, key=_time_order)
    ]
    first = (send.event_id, QUEUED, send.occurred_ms, 0, "", send.source)
    at = 0
    while at < len(steps) and (steps[at][2], RANK[steps[at][1]], steps[at][0]) < (send.occurred_ms, 0, send.event_id):
        at += 1
    steps.insert(at, first)
    return steps


# ---- a record back into the facts it was made of ---------------------------------------------------------------


def _facts(receipts: tuple[Receipt, ...], own: Carrier) -> str:
    """What the public columns do not hold: the send's own values, and each receipt's, in timeline order."""
    extras = [_extras(r) for r in sorted(receipts, key=_time_order)]
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
    return f"send Tuple({send}), receipts Array(Tuple({receipt_type()}))"


def _members(kind: type[Struct], without: tuple[str, ...]) -> str:
    names = [f.encode_name for f in msgspec.structs.fields(kind) if f.name not in without]
    return ", ".join(f"`{name}` {_SQL_TYPES.get(name, 'String')}" for name in names)
