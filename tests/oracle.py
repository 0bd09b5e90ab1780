"""A second reading of the rules, for tests: slow, plain, and sharing no code with the product.

Three steps: read every entry of a log alone (oracle_events.py), drop what repeats or contradicts an
earlier entry, then sort what is left of each message and fold it once. Nothing here knows batches, clocks
that move, restarts or workers, so whatever those do to the product must come out equal to this.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.oracle_events import FINAL_RANK, RANK, TEXTS, Entry, Row, read
from tests.oracle_formats import Refused

Place = tuple[str, int, int]  # topic, partition, offset
Receipt = tuple[str, str, str, int, int]  # message_id, event_id, state, occurred_at in ms, segment

MOST_RECEIPTS = 320


# ---- records ----


COLUMNS = [
    *TEXTS, "message_id", "account_id", "occurred_at", "message_type", "body", "media_urls", "encoding",
    "segments", "number_type", "mcc", "mnc", "country", "currency", "group_to", "tags", "attributes",
]  # fmt: skip


def record(direction: str, message: Row, **known: Any) -> Row:
    """All columns; `known` is what the message alone does not say."""
    row: Row = {name: message[name] for name in COLUMNS}
    row |= {"direction": direction, "from_number": message["from"], "to_number": message["to"]}
    row |= {"rate_nanos": message["rate"], "carrier_fee_nanos": message["carrier_fee"]} | known
    row["amount_nanos"] = (row["rate_nanos"] + row["carrier_fee_nanos"]) * row["segments"]
    row["facts"] = len(row["timeline"])
    return row


def inbound(message: Row) -> Row:
    error = message["error_code"]
    reached = "failed" if error else "received"
    return record(
        "inbound", message, state=reached, record_type="error" if error else "complete",
        error_code=error, vendor_error_code=message["vendor_error_code"],
        segments_delivered=0, segments_failed=0, sent_at=None, final_at=message["occurred_at"],
        timeline=[moment_row(message | {"state": reached, "segment": 0})],
    )  # fmt: skip


def outbound(message: Row, receipts: list[Row]) -> Row:
    queued = message | {"state": "queued", "segment": 0, "error_code": ""}
    facts = [queued, *receipts]
    strongest = sorted(facts, key=lambda fact: (-RANK[fact["state"]], fact["occurred_at"], *tie(fact)))
    by_time = sorted(facts, key=lambda fact: (fact["occurred_at"], RANK[fact["state"]], *tie(fact)))
    winner = strongest[0]
    reached = winner["state"]
    said = [fact for fact in strongest if fact is not queued]
    of_winner = [fact for fact in said if fact["state"] == reached]
    final = RANK[reached] >= FINAL_RANK
    sent = [fact["occurred_at"] for fact in receipts if fact["state"] == "sent"]
    parts = [part_state(part, receipts) for part in range(1, message["segments"] + 1)]
    return record(
        "outbound", message, state=reached,
        record_type="complete" if reached == "delivered" else "error" if final else "incomplete",
        error_code=first(of_winner, "error_code", ""),
        vendor_error_code=first(of_winner, "vendor_error_code", ""),
        mcc=first(said, "mcc", message["mcc"]), mnc=first(said, "mnc", message["mnc"]),
        provider=first(said, "provider", message["provider"]),
        rate_nanos=first(said, "rate", message["rate"]),
        carrier_fee_nanos=first(said, "carrier_fee", message["carrier_fee"]),
        segments_delivered=parts.count("delivered"), segments_failed=parts.count("failed"),
        sent_at=min(sent, default=None), final_at=winner["occurred_at"] if final else None,
        timeline=[moment_row(fact) for fact in by_time],
    )  # fmt: skip


def tie(fact: Row) -> tuple[str, str, int]:
    return fact["event_id"], fact["state"], fact["segment"] or 0


def first(receipts: list[Row], name: str, otherwise: Any) -> Any:
    """The field of the first receipt that carries it."""
    return next((receipt[name] for receipt in receipts if receipt[name] is not None), otherwise)


def part_state(part: int, receipts: list[Row]) -> str:
    """What became of one part; a receipt without a segment speaks for all parts."""
    ranks = [RANK[receipt["state"]] for receipt in receipts if receipt["segment"] in (None, part)]
    strongest = max(ranks, default=0)
    return "delivered" if strongest > FINAL_RANK else "failed" if strongest == FINAL_RANK else "open"


def moment_row(fact: Row) -> Row:
    return {
        "event_id": fact["event_id"],
        "state": fact["state"],
        "occurred_at": fact["occurred_at"],
        "segment": fact["segment"] or 0,
        "error_code": fact["error_code"] or "",
    }


# ---- the whole log ----


@dataclass
class Outcome:
    """What a log comes to once every settling window has passed.

    `records` by (direction, message_id), all columns but `settled_at`, `amended_at`, `amendments`,
    `version` and the `source` in `timeline`, plus `facts`, the number of events merged; times in ms.
    `deadlines_ms`: when an outbound message settles at the latest, by message_id.
    """

    records: dict[tuple[str, str], Row] = field(default_factory=dict)
    dead_letters: dict[Place, str] = field(default_factory=dict)
    duplicates: int = 0
    orphans: set[Receipt] = field(default_factory=set)
    deadlines_ms: dict[str, int] = field(default_factory=dict)


class Oracle:
    """Judges whole logs; `window_ms` is the settling window and moves nothing but `deadlines_ms`."""

    def __init__(self, window_ms: int) -> None:
        self.window_ms = window_ms

    def judge(self, log: Iterable[tuple[Any, ...]]) -> Outcome:
        """The outcome of entries (see Entry) in any order: topic, partition and offset are what counts."""
        outcome = Outcome()
        good = self._readable(sorted((Entry(*entry) for entry in log), key=lambda e: e[:3]), outcome)
        sends = self._firsts("sends", good, outcome)
        receives = self._firsts("receives", good, outcome)
        receipts = self._receipts(good, outcome)
        for name, (entry, send) in sends.items():
            said = list(receipts.pop(name, {}).values())
            outcome.records["outbound", name] = outbound(send, said)
            broker_ms = min(entry.broker_ms, entry.clock_ms)
            outcome.deadlines_ms[name] = max(send["occurred_at"], broker_ms) + self.window_ms
        for name, (_, receive) in receives.items():
            outcome.records["inbound", name] = inbound(receive)
        outcome.orphans = {receipt for waiting in receipts.values() for receipt in waiting}
        return outcome

    def _readable(self, entries: list[Entry], outcome: Outcome) -> list[tuple[Entry, Row]]:
        good = []
        for entry in entries:
            try:
                good.append((entry, read(entry)))
            except Refused as refused:
                outcome.dead_letters[entry[:3]] = str(refused)
        return good

    def _firsts(self, topic: str, good: list[tuple[Entry, Row]], outcome: Outcome) -> dict[str, tuple[Entry, Row]]:
        """The first send (receive) of each message; the same event again repeats it, another conflicts."""
        firsts: dict[str, tuple[Entry, Row]] = {}
        for entry, fields in good:
            if entry.topic != topic:
                continue
            _, known = firsts.setdefault(fields["message_id"], (entry, fields))
            if known is fields:
                continue
            if known["event_id"] == fields["event_id"]:
                outcome.duplicates += 1
            else:
                outcome.dead_letters[entry[:3]] = "conflict"
        return firsts

    def _receipts(self, good: list[tuple[Entry, Row]], outcome: Outcome) -> dict[str, dict[Receipt, Row]]:
        """The first 320 distinct receipts of each message."""
        kept: dict[str, dict[Receipt, Row]] = {}
        for entry, fields in good:
            if entry.topic != "receipts":
                continue
            name = fields["message_id"]
            event_id, reached, segment = tie(fields)
            identity = (name, event_id, reached, fields["occurred_at"], segment)
            message = kept.setdefault(name, {})
            if identity in message:
                outcome.duplicates += 1
            elif len(message) == MOST_RECEIPTS:
                outcome.dead_letters[entry[:3]] = "too_many_events"
            else:
                message[identity] = fields
        return kept
