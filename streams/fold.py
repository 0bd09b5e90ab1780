"""Settled messages as columns of `mdrs`: the fold over a message's facts that `join` promises. Pure.

Records are made many at a time and column by column, since that is how they are inserted: a column that the send gives
as it is costs one attribute each, and only what receipts have a say in is worked out message by message.
"""

from collections.abc import Sequence
from itertools import pairwise
from operator import attrgetter
from typing import Any, Final, cast

import msgspec

from schemas.events import Message, Receipt, Receive, Send
from schemas.money import parse_nanos
from schemas.record import Record
from schemas.states import DELIVERED, FAILED, FAILURES, FINAL_RANK, QUEUED, RANK, RECEIVED, SENT
from streams.effects import Rows
from streams.join import EXTRAS, Life, is_final

# The columns of `Record` in order, each with one value a row.
Columns = list[Sequence[Any]]
Receipts = Sequence[Receipt]

_VERSION_RANK_SHIFT: Final = 32
_OUTBOUND_TYPE: Final = {DELIVERED: "complete"} | dict.fromkeys(FAILURES, "error")
_NO_ATTRIBUTES: Final[dict[str, str]] = {}
_encode = msgspec.json.Encoder().encode

_TIMELINE: Final = tuple(name for name in Record.__struct_fields__ if name.startswith("timeline_"))
# What `_outbound` and `_inbound` work out, in the order of their values.
_WORKED_OUT: Final = (
    "record_type", "state", "segments_delivered", "segments_failed", "mcc", "mnc", "provider", "error_code",
    "vendor_error_code", "rate_nanos", "carrier_fee_nanos", "amount_nanos", "sent_at", "final_at", *_TIMELINE,
    "version", "facts",
)  # fmt: skip
# What a message says itself. All of it at once: going through the messages column by column costs three times more.
_SAID: Final = tuple(n for n in Message.__struct_fields__ if n in Record.__struct_fields__ and n not in _WORKED_OUT)
_say = attrgetter(*("occurred_ms" if name == "occurred_at" else name for name in _SAID))
_extras = attrgetter(*EXTRAS)
_NO_EXTRAS: Final = ("",) * len(EXTRAS)
_own = attrgetter("provider", "mcc", "mnc", "rate", "carrier_fee")
_step = attrgetter("event_id", "state", "occurred_ms", "segment", "error_code", "source")


def records(taken: Sequence[Rows], now_ms: int) -> Columns:
    """The records of what partitions have finished; inbound ones are settled at `now_ms`."""
    lives = [life for part in taken for life in part.settled]
    receives = [receive for part in taken for receive in part.inbound]
    shards = [part.shard for part in taken for _ in part.settled]
    outbound = _outbound_columns(lives, [cast(Send, life.send) for life in lives], shards)
    shards = [part.shard for part in taken for _ in part.inbound]
    inbound = _inbound_columns(receives, now_ms, shards)
    if not lives or not receives:
        return outbound if lives else inbound
    return [[*above, *below] for above, below in zip(outbound, inbound, strict=True)]


def columns_of(rows: Sequence[tuple[Any, ...]]) -> Columns:
    """Rows as their columns; none of no rows."""
    return list(zip(*rows, strict=True))


def outbound_row(life: Life, send: Send, shard: int) -> tuple[Any, ...]:
    """The record of an outbound message as a row of `Record`, in column order."""
    return tuple(column[0] for column in _outbound_columns([life], [send], [shard]))


def inbound_row(receive: Receive, settled_ms: int, shard: int) -> tuple[Any, ...]:
    """The record of an inbound message as a row of `Record`, in column order."""
    return tuple(column[0] for column in _inbound_columns([receive], settled_ms, [shard]))


def _outbound_columns(lives: Sequence[Life], sends: Sequence[Send], shards: Sequence[int]) -> Columns:
    return _in_order(
        sends, shards, map(_outbound, lives, sends),
        direction=["outbound"] * len(lives),
        settled_at=[life.settled_ms for life in lives],
        amended_at=[life.amended_ms or None for life in lives],
        amendments=[life.amendments for life in lives],
    )  # fmt: skip


def _inbound_columns(receives: Sequence[Receive], settled_ms: int, shards: Sequence[int]) -> Columns:
    count = len(receives)
    return _in_order(
        receives, shards, map(_inbound, receives),
        direction=["inbound"] * count, settled_at=[settled_ms] * count, amended_at=[None] * count,
        amendments=[0] * count,
    )  # fmt: skip


def _in_order(messages: Sequence[Message], shards: Sequence[int], worked_out: Any, **more: Sequence[Any]) -> Columns:
    by_name: dict[str, Sequence[Any]] = dict(zip(_WORKED_OUT, columns_of(list(worked_out)), strict=False))
    by_name |= zip(_SAID, columns_of(list(map(_say, messages))), strict=False)
    by_name |= more | {"shard": shards}
    by_name["attributes"] = [attributes or _NO_ATTRIBUTES for attributes in by_name.get("attributes", ())]
    return [by_name.get(name, ()) for name in Record.__struct_fields__]


def _outbound(life: Life, send: Send) -> tuple[Any, ...]:
    receipts = life.receipts
    strongest = _by_strength(receipts)
    ordered = _by_time(receipts)
    state = strongest[0].state if strongest else QUEUED
    rank = RANK[state]
    own = provider, mcc, mnc, rate, fee = _own(send)
    error_code = vendor_error_code = facts = ""
    extras = [_extras(r) for r in ordered]
    if extras.count(_NO_EXTRAS) < len(extras):
        vendor_error_code, provider, mcc, mnc, rate, fee = _carried(strongest, state, own)
        facts = _encode([own, extras]).decode()
    sent_at = final_at = None
    for r in strongest:
        if r.error_code and not error_code and r.state == state:
            error_code = r.error_code
        if sent_at is None and r.state == SENT:
            sent_at = r.occurred_ms
    delivered = failed = 0
    if rank >= FINAL_RANK:
        final_at = strongest[0].occurred_ms
        delivered, failed = _parts(strongest, send.segments)
    rate_nanos, fee_nanos = parse_nanos(rate) or 0, parse_nanos(fee) or 0
    return (
        _OUTBOUND_TYPE.get(state, "incomplete"), state, delivered, failed, mcc, mnc, provider, error_code,
        vendor_error_code, rate_nanos, fee_nanos, (rate_nanos + fee_nanos) * send.segments, sent_at, final_at,
        *zip(*_steps(ordered, send), strict=True), ((rank + 1) << _VERSION_RANK_SHIFT) + 1 + len(receipts), facts,
    )  # fmt: skip


def _inbound(receive: Receive) -> tuple[Any, ...]:
    error = receive.error_code
    state = FAILED if error else RECEIVED
    provider, mcc, mnc, rate, fee = _own(receive)
    rate_nanos, fee_nanos = parse_nanos(rate) or 0, parse_nanos(fee) or 0
    return (
        "error" if error else "complete", state, 0, 0, mcc, mnc, provider, error, receive.vendor_error_code,
        rate_nanos, fee_nanos, (rate_nanos + fee_nanos) * receive.segments, None, receive.occurred_ms,
        (receive.event_id,), (state,), (receive.occurred_ms,), (0,), (error,), (receive.source,),
        ((FINAL_RANK + 1) << _VERSION_RANK_SHIFT) + 1, "",
    )  # fmt: skip


def _strength(r: Receipt) -> tuple[int, int, str, str, int]:
    return (-RANK[r.state], r.occurred_ms, r.event_id, r.state, r.segment)


def _time_order(r: Receipt) -> tuple[int, int, str, str, int]:
    return (r.occurred_ms, RANK[r.state], r.event_id, r.state, r.segment)


def _by_strength(receipts: Receipts) -> Receipts:
    if len(receipts) == 2:
        first, second = RANK[receipts[0].state], RANK[receipts[1].state]
        if first != second:
            return receipts if first > second else receipts[::-1]
    return sorted(receipts, key=_strength) if len(receipts) > 1 else receipts


def _by_time(receipts: Receipts) -> Receipts:
    for earlier, later in pairwise(receipts):
        if earlier.occurred_ms >= later.occurred_ms:
            return sorted(receipts, key=_time_order)
    return receipts


def _carried(strongest: Receipts, state: str, own: tuple[str, ...]) -> tuple[str, ...]:
    """The vendor's code from receipts in the winning state, the rest from any: the first that carries one, else own."""
    vendor_error_code = provider = mcc = mnc = rate = fee = ""
    for r in strongest:
        if r.state == state:
            vendor_error_code = vendor_error_code or r.vendor_error_code
        provider = provider or r.provider
        mcc = mcc or r.mcc
        mnc = mnc or r.mnc
        rate = rate or r.rate
        fee = fee or r.carrier_fee
    return (
        vendor_error_code, provider or own[0], mcc or own[1], mnc or own[2], rate or own[3], fee or own[4],
    )  # fmt: skip


def _parts(strongest: Receipts, segments: int) -> tuple[int, int]:
    """How many parts were delivered and how many failed; each counts once, by its strongest state."""
    if not strongest[0].segment:
        return (segments, 0) if strongest[0].state == DELIVERED else (0, segments)
    finals = [r for r in strongest if is_final(r)]
    delivered = failed = 0
    for part in range(1, segments + 1):
        best = next((r.state for r in finals if r.segment in (0, part)), "")
        delivered += best == DELIVERED
        failed += best in FAILURES
    return delivered, failed


def _steps(ordered: Receipts, send: Send) -> list[tuple[Any, ...]]:
    queued = (send.event_id, QUEUED, send.occurred_ms, 0, "", send.source)
    if not ordered or send.occurred_ms < ordered[0].occurred_ms:
        return [queued, *map(_step, ordered)]
    steps = [_step(r) for r in ordered]
    at = 0
    while at < len(steps) and (steps[at][2], RANK[steps[at][1]], steps[at][0]) < (send.occurred_ms, 0, send.event_id):
        at += 1
    steps.insert(at, queued)
    return steps
