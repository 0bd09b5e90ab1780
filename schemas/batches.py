"""Batches of log entries to events. Pure.

The compiled decoder takes what it is sure of, about a tenth of the work; the rest, and everything where it could not be
built, goes through `events.DECODERS`, which says what an event is. Both give the same events: tests/test_native.py.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, TypeVar

import msgspec

from schemas import native
from schemas.events import DECODERS, Receipt, Receive, Rejected, Send
from schemas.numbers import REGIONS, country
from schemas.states import WORDS

__all__ = ["Entry", "as_struct", "newest", "read"]


class Entry(Protocol):
    """What is needed of a log entry."""

    @property
    def offset(self) -> int:
        """Its place in the partition."""

    @property
    def timestamp(self) -> int:
        """The broker's time in ms."""

    @property
    def key(self) -> bytes | None:
        """As it was produced."""

    @property
    def value(self) -> bytes | None:
        """As it was produced."""


E = TypeVar("E", bound=Entry)
Read = tuple[list[tuple[Any, E]], list[tuple[Rejected, E]]]

# How the compiled decoder checks a field (native/decode.c); a plain string is `s`, one that traffic repeats `c`.
_KINDS: Final = {
    "event_id": "i", "message_id": "k", "occurred_at": "t", "from_number": "f", "to_number": "n", "body": "b",
    "media_urls": "l", "group_to": "l", "tags": "l", "attributes": "m", "segments": "#", "segment": "#", "rate": "$",
    "carrier_fee": "$", "mcc": "3", "mnc": "2", "country": "C", "currency": "U", "message_type": "T",
    "number_type": "N", "encoding": "E", "state": "S",
    **dict.fromkeys(("callback_url", "user_data", "conversation_id", "external_number", "requester_ip"), "s"),
}  # fmt: skip
_CHOICES: Final = {
    "T": {word: word for word in ("sms", "mms", "whatsapp")},
    "N": {word: word for word in ("long-code", "toll-free", "short-code", "alphanumeric")},
    "E": {word: word for word in ("gsm7", "ucs2")},
    "S": {cased: state for word, state in WORDS.items() for cased in (word, word.lower(), word.capitalize())},
}


def read(topic: str, entries: Sequence[E], clock_ms: int, where: str) -> Read[E]:
    """The events in entries of `sends`, `receives` or `receipts`, in log order, and what was refused.

    An event's source is `where` and its offset. Its `occurred_at` is left to `occurred_ms`: open messages are kept by
    the million.
    """
    decode = DECODERS[topic]
    pairs: list[Any]
    if native.enabled:
        pairs, doubtful = _COMPILED[topic](entries, clock_ms, where)
    else:
        pairs, doubtful = [None] * len(entries), list(range(len(entries)))
    if not doubtful:
        return pairs, []
    refused: list[tuple[Rejected, E]] = []
    for n in doubtful:
        entry = entries[n]
        # What was not read whole says so itself.
        event = getattr(entry, "rejected", None) or decode(entry.key, entry.value, clock_ms)
        if event.__class__ is Rejected:
            refused.append((event, entry))
        else:
            event.source = f"{where}{entry.offset}"
            event.occurred_at = ""
            pairs[n] = (event, entry)
    return [pair for pair in pairs if pair is not None], refused


def newest(entries: Sequence[Entry], limit_ms: int) -> int:
    """The newest of their times by the broker that is not over a limit, in ms; 0 if there is none."""
    times = (entry.timestamp for entry in entries if entry.timestamp <= limit_ms)
    return native.module.newest(entries, limit_ms) if native.enabled else max(times, default=0)


def as_struct(event: Any) -> Any:
    """The `Send`, `Receive` or `Receipt` that an event of `read` is or, left in the bytes it came in, stands for."""
    return event.struct() if type(event) is _EVENT else event


def _compiled(kind: type[Any], far_end: str) -> Callable[[Any, int, str], tuple[list[Any], list[int]]]:
    assert native.enabled
    fields = [f for f in msgspec.structs.fields(kind) if not f.encode_name.startswith("~")]
    spec = tuple((f.encode_name, f.name, _KINDS.get(f.name, "c"), f.required) for f in fields)
    blank = kind(**{f.name: "" for f in fields if f.required})
    return native.module.Decoder(blank, spec, _CHOICES, far_end, REGIONS, country).batch


_COMPILED: Final = (
    {"sends": _compiled(Send, "n"), "receives": _compiled(Receive, "f"), "receipts": _compiled(Receipt, "")}
    if native.enabled
    else {}
)
_EVENT: Final[Any] = native.module.Event if native.enabled else None
