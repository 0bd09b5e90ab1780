"""What must come of simulated events: a fold over the events themselves, apart from the product's own code.

Every message grows fact by fact in the order of the log. It trusts the generator's word on what is broken
and knows nothing of checks, so it is no use for logs from elsewhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import orjson
import phonenumbers

from streams.simulate.bodies import encoding_of, segments_of
from streams.simulate.outbox import Event
from streams.simulate.stamps import milli

Record = dict[str, Any]
Receipt = tuple[str, str, str, int, int]  # message_id, event_id, state, occurred_at in ms, segment

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_STRENGTH = {
    "queued": 0,
    "sent": 1,
    "expired": 2,
    "undelivered": 2,
    "failed": 2,
    "rejected": 2,
    "delivered": 3,
}
_WORDS = {
    "sent": "scheduled enroute 1 acceptd accepted 6",
    "delivered": "delivrd 2",
    "expired": "3",
    "undelivered": "deleted undeliv undeliverable 5",
    "failed": "unknown skipped 9",
    "rejected": "rejectd 8",
}
_STATES = {word: state for state, words in _WORDS.items() for word in words.split()}
_TEXTS = (
    "subaccount_id profile_id connection_id number_type body mcc mnc provider error_code vendor_error_code"
    " campaign_id campaign_status powerpack_id conversation_id conversation_origin callback_url requester_ip"
    " user_data external_number billing_number replaced_sender registration_type"
)
_DEFAULTS = dict.fromkeys(_TEXTS.split(), "") | {"message_type": "sms", "currency": "USD"}
_COLLECTIONS: Record = {"media_urls": [], "group_to": [], "tags": [], "attributes": {}}


@dataclass
class Truth:
    """The expected final state, every window passed and every late receipt merged.

    `records` by (direction, message_id), in the order the messages were first seen: every column but
    `settled_at`, `amended_at`, `amendments`, `version` and the `source` in `timeline`; times in ms.
    `dead_letters` in log order; their reasons are in the events.
    """

    records: dict[tuple[str, str], Record] = field(default_factory=dict)
    orphans: set[Receipt] = field(default_factory=set)
    dead_letters: list[Event] = field(default_factory=list)
    duplicates: int = 0

    @property
    def reasons(self) -> Counter[str]:
        """How many dead letters have which reason."""
        return Counter(event.broken for event in self.dead_letters)


def expected(events: Iterable[Event]) -> Truth:
    """What the events come to, given in the order in which they were produced."""
    truth = Truth()
    messages: dict[str, _Outbound] = {}
    for event in events:
        if event.broken:
            truth.dead_letters.append(event)
            continue
        fields = orjson.loads(event.value)
        message_id = fields["message_id"]
        if event.topic == "receives":
            if ("inbound", message_id) in truth.records:
                truth.duplicates += 1
            else:
                truth.records["inbound", message_id] = _inbound(fields)
            continue
        message = messages.setdefault(message_id, _Outbound())
        known = message.receive(fields) if event.topic == "receipts" else message.accept(fields)
        truth.duplicates += known
    for message_id, message in messages.items():
        if message.send:
            truth.records["outbound", message_id] = message.record()
        else:
            truth.orphans.update((message_id, *identity) for identity in message.seen)
    return truth


class _Outbound:
    """One outbound message while its events come in, in any order."""

    __slots__ = ("seen", "send", "strongest", "told")

    def __init__(self) -> None:
        self.send: Record | None = None
        self.seen: dict[tuple[str, str, int, int], str] = {}  # receipt: its error code
        self.told: dict[str, tuple[tuple[int, int, str, str, int], Any]] = {}  # field: who told, what

    def accept(self, fields: Record) -> bool:
        """Takes the send; true when it was known."""
        if self.send is not None:
            return True
        self.send = fields
        return False

    def receive(self, fields: Record) -> bool:
        """Takes a receipt; true when it was known."""
        word = fields["state"].lower()
        state = _STATES.get(word, word)
        at_ms, segment = _moment_ms(fields["occurred_at"]), fields.get("segment", 0)
        identity = (fields["event_id"], state, at_ms, segment)
        if identity in self.seen:
            return True
        self.seen[identity] = fields.get("error_code", "")
        teller = (-_STRENGTH[state], at_ms, fields["event_id"], state, segment)
        self._tell(("mcc", "mnc", "provider", "rate", "carrier_fee"), "", fields, teller)
        self._tell(("error_code", "vendor_error_code"), state, fields, teller)
        return False

    def _tell(self, names: tuple[str, ...], group: str, fields: Record, teller: tuple[int, int, str, str, int]) -> None:
        """Keeps of each field what the strongest, earliest, smallest receipt says of it."""
        for name in names:
            slot = f"{name} {group}"
            if name in fields and (slot not in self.told or teller < self.told[slot][0]):
                self.told[slot] = (teller, fields[name])

    def record(self) -> Record:
        send = self.send
        assert send is not None
        row = _common("outbound", send, send["to"])
        queued = (send["event_id"], "queued", row["occurred_at"], 0)
        facts = [(queued, ""), *self.seen.items()]
        winner = min((-_STRENGTH[fact[1]], fact[2], fact[0], fact[1], fact[3]) for fact, _ in facts)
        state = winner[3]
        final = winner[0] <= -2
        row |= {"state": state, "record_type": "incomplete", "final_at": winner[1] if final else None}
        if final:
            row["record_type"] = "complete" if state == "delivered" else "error"
        row["sent_at"] = min((fact[2] for fact in self.seen if fact[1] == "sent"), default=None)
        self._apply_told(row, state)
        self._count_parts(row)
        ordered = sorted(facts, key=lambda fact: (fact[0][2], _STRENGTH[fact[0][1]], *fact[0]))
        row["timeline"] = [_moment_row(*fact, code) for fact, code in ordered]
        return _priced(row)

    def _apply_told(self, row: Record, state: str) -> None:
        for slot, (_, value) in self.told.items():
            name, _, group = slot.partition(" ")
            if group in ("", state):
                row[name] = value

    def _count_parts(self, row: Record) -> None:
        parts = [0] * row["segments"]
        for _, state, _, segment in self.seen:
            reached = range(row["segments"]) if segment == 0 else range(segment - 1, min(segment, row["segments"]))
            for part in reached:
                parts[part] = max(parts[part], _STRENGTH[state])
        row["segments_delivered"], row["segments_failed"] = parts.count(3), parts.count(2)


def _inbound(fields: Record) -> Record:
    row = _common("inbound", fields, fields["from"])
    failed = bool(row["error_code"])
    state = "failed" if failed else "received"
    row |= {"state": state, "record_type": "error" if failed else "complete"}
    row |= {"sent_at": None, "final_at": row["occurred_at"], "segments_delivered": 0, "segments_failed": 0}
    row["timeline"] = [_moment_row(fields["event_id"], state, row["occurred_at"], 0, row["error_code"])]
    return _priced(row)


def _common(direction: str, fields: Record, far_end: str) -> Record:
    """The columns a send or receive fills by itself; `rate` and `carrier_fee` still as they came."""
    row: Record = {name: fields.get(name, default) for name, default in _DEFAULTS.items()}
    row |= {name: fields.get(name) or type(empty)() for name, empty in _COLLECTIONS.items()}
    row |= {name: fields[name] for name in ("message_id", "account_id")}
    row |= {"direction": direction, "from_number": fields["from"], "to_number": fields["to"]}
    row["occurred_at"] = _moment_ms(fields["occurred_at"])
    row["encoding"] = fields.get("encoding") or encoding_of(row["body"])
    counted = segments_of(row["body"], row["encoding"]) if row["message_type"] == "sms" else 1
    row["segments"] = fields.get("segments") or counted
    row["country"] = fields.get("country") or _country(far_end)
    row |= {name: fields.get(name, "0") for name in ("rate", "carrier_fee")}
    return row


def _priced(row: Record) -> Record:
    row["rate_nanos"], row["carrier_fee_nanos"] = _nanos(row.pop("rate")), _nanos(row.pop("carrier_fee"))
    row["amount_nanos"] = (row["rate_nanos"] + row["carrier_fee_nanos"]) * row["segments"]
    return row


def _moment_row(event_id: str, state: str, at_ms: int, segment: int, error_code: str) -> Record:
    return {
        "event_id": event_id,
        "state": state,
        "occurred_at": at_ms,
        "segment": segment,
        "error_code": error_code,
    }


def _moment_ms(stamp: str) -> int:
    return (datetime.fromisoformat(stamp.upper()) - _EPOCH) // _MILLISECOND


def _nanos(money: str) -> int:
    whole, _, fraction = money.partition(".")
    return int(whole + f"{fraction:0<9}"[:9])


@lru_cache(maxsize=65_536)
def _country(number: str) -> str:
    if not number.startswith("+"):
        return ""
    return phonenumbers.region_code_for_number(phonenumbers.parse(number)) or ""


def records_jsonl(truth: Truth) -> Iterator[bytes]:
    """The records by message_id and direction, one JSON object each, times as `2026-01-05T12:00:00.123Z`.

    The lines have no line ends.
    """
    for key in sorted(truth.records, key=lambda key: (key[1], key[0])):
        row = truth.records[key]
        times = {name: row[name] and milli(row[name]) for name in ("occurred_at", "sent_at", "final_at")}
        timeline = [fact | {"occurred_at": milli(fact["occurred_at"])} for fact in row["timeline"]]
        yield orjson.dumps(row | times | {"timeline": timeline})
