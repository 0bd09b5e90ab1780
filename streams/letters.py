"""Dead letters: made of a log entry, read back, made readable, and made into the event they were. Pure."""

import base64
import hashlib
import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec
import orjson

from schemas.batches import as_struct
from schemas.events import DECODERS, Receipt, Rejected
from schemas.times import format_rfc3339
from streams.effects import Entry

REDRIVEN: Final = "mdr-redriven"
REDRIVES_MAX: Final = 3
SHOWN_CHARS_MAX: Final = 2_000
_CUT_BYTES: Final = 1 << 20
_OURS: Final = ("reason", "detail", "topic", "partition", "offset", "timestamp")
_CUT: Final = re.compile(r"; value cut to \d+ of \d+ bytes$")
_VALUES: Final = re.compile(r"\"[^\"]{2,}\"|'[^']{2,}'|(?<![\w.])\+?\d[\d.,:]*")
Headers = Sequence[tuple[str, bytes]]


class Letter(NamedTuple):
    """A dead letter as it was read: why, the place and time of the input, the input, and where the letter stands.

    `topic` is `""` for an entry of the dead letters that does not say where it came from.
    """

    reason: str
    detail: str
    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    id: str
    landed_ms: int

    @property
    def source(self) -> str:
        """The identity: where the input stood, `topic:partition:offset`; else where the letter stands."""
        return f"{self.topic}:{self.partition}:{self.offset}" if self.topic else self.id

    @property
    def attempts(self) -> int:
        """How often the input had been sent once more before it became this letter."""
        told = [value for name, value in self.headers if name == REDRIVEN]
        return int(told[-1]) if told and re.fullmatch(rb"[0-9]{1,6}", told[-1]) else len(told)


def entry_letter(topic: str, partition: int, entry: Entry, reason: str, detail: str) -> dict[str, Any]:
    """The key, value and headers of a dead letter."""
    headers = _headers(reason, detail, topic, partition, entry.offset, entry.timestamp)
    return {"key": entry.key, "value": entry.value, "headers": [*entry.headers, *headers]}


def left_letter(topic: str, partition: int, receipt: Receipt, reason: str, detail: str) -> dict[str, Any]:
    """A dead letter of a receipt that the log no longer holds: what was decoded of it, not its bytes."""
    said = msgspec.to_builtins(as_struct(receipt)) | {"occurred_at": format_rfc3339(receipt.occurred_ms)}
    value = orjson.dumps({name: told for name, told in said.items() if not name.startswith("~")})
    offset = int(receipt.source.rsplit(":", 1)[1])
    detail = f"{detail}; the log has dropped its bytes, this is what was read of them"
    headers = _headers(reason, detail, topic, partition, offset, receipt.occurred_ms)
    return {"key": receipt.message_id.encode(), "value": value, "headers": headers}


def cut_letter(letter: dict[str, Any]) -> dict[str, Any]:
    """A letter the broker takes: input that was compressed far below its size may be more than a topic allows."""
    kept = (letter["value"] or b"")[:_CUT_BYTES]
    told = f"; value cut to {len(kept)} of {len(letter['value'] or b'')} bytes".encode()
    headers = [(name, value + told if name == "detail" else value) for name, value in letter["headers"]]
    return letter | {"value": kept, "headers": headers}


def _headers(
    reason: str, detail: str, topic: str, partition: int, offset: int, timestamp_ms: int
) -> list[tuple[str, bytes]]:
    told = dict(zip(_OURS, (reason, detail, topic, partition, offset, timestamp_ms), strict=True))
    return [(name, str(value).encode("ascii", "backslashreplace")) for name, value in told.items()]


# ---- read back -------------------------------------------------------------------------------------------------


def open_letter(topic: str, partition: int, entry: Entry) -> Letter:
    """What an entry of the dead letters holds; the last six headers are ours, whatever the input's were called."""
    headers = tuple(entry.headers)
    at = f"{topic}:{partition}:{entry.offset}"
    told = {name: value.decode("ascii", "backslashreplace") for name, value in headers[-len(_OURS) :]}
    places = [told.get(name, "") for name in _OURS[3:]]
    if tuple(name for name, _ in headers[-len(_OURS) :]) != _OURS or not all(map(str.isdecimal, places)):
        detail = "the entry does not say where it came from"
        return Letter(
            "unknown", detail, "", 0, 0, entry.timestamp, entry.key, entry.value, headers, at, entry.timestamp
        )
    return Letter(
        told["reason"], told["detail"], told["topic"], int(places[0]), int(places[1]), int(places[2]), entry.key,
        entry.value, headers[: -len(_OURS)], at, entry.timestamp,
    )  # fmt: skip


def is_cut(letter: Letter) -> bool:
    """Whether only a part of the value was kept."""
    return bool(_CUT.search(letter.detail))


def kind(detail: str) -> str:
    """What is wrong, whatever the value was that was wrong."""
    return _VALUES.sub("*", _CUT.sub("", detail))


def fingerprint(reason: str, detail: str) -> str:
    """A stable hash of the reason and the kind of what is wrong."""
    return hashlib.sha256(f"{reason}\0{kind(detail)}".encode()).hexdigest()[:12]


def once(letters: Sequence[Letter]) -> list[Letter]:
    """Each input once, by its identity, newest letters first: the topic holds them at least once."""
    first: dict[str, Letter] = {}
    for letter in sorted(letters, key=place, reverse=True):
        first.setdefault(letter.source, letter)
    return list(first.values())


def place(letter: Letter) -> tuple[int, int, int]:
    """Where a letter comes in the order of listing: by time, then by where it stands."""
    _, partition, offset = letter.id.rsplit(":", 2)
    return letter.landed_ms, int(partition), int(offset)


# ---- once more -------------------------------------------------------------------------------------------------


def verdict(letter: Letter, prefix: str, now_ms: int) -> Rejected | None:
    """What the decoder says of the input now; None when it takes it."""
    decode = DECODERS.get(letter.topic.removeprefix(prefix))
    if decode is None or not letter.topic.startswith(prefix):
        return Rejected("unknown", f"{letter.topic or 'no topic'} is no input topic")
    event = decode(letter.key, letter.value, now_ms)
    return event if isinstance(event, Rejected) else None


def refusal(letter: Letter, said: Rejected | None, redriven_at: str, *, force: bool, again: bool) -> str:
    """Why a letter is not sent once more; empty when nothing speaks against it."""
    if said is not None and said.reason == "unknown":
        return said.detail
    if is_cut(letter):
        return "its value was cut, the whole is only in the log it came from"
    if redriven_at and not again:
        return f"it was redriven at {redriven_at} already"
    if letter.attempts >= REDRIVES_MAX and not force:
        return f"it came back {letter.attempts} times"
    if said is not None and not force:
        return f"it would come back: {said.reason} {said.detail}".rstrip()
    return ""


def redriven(letter: Letter) -> dict[str, Any]:
    """The input as it was, with a header that counts how often it was sent once more."""
    kept = [(name, value) for name, value in letter.headers if name != REDRIVEN]
    return {
        "topic": letter.topic, "key": letter.key, "value": letter.value,
        "headers": [*kept, (REDRIVEN, str(letter.attempts + 1).encode())],
    }  # fmt: skip


# ---- made readable ---------------------------------------------------------------------------------------------


def readable(data: bytes | None) -> str | None:
    """Bytes as text: UTF-8 with escapes for what cannot be seen, or base 16 when most of it is no text."""
    if data is None:
        return None
    strange = sum(not c.isprintable() and c not in "\n\r\t" for c in data.decode("utf-8", "surrogateescape"))
    if strange > len(data) // 4:
        return data.hex(" ")
    text = data.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


# Ids, codes and words: what an event says of itself, and nothing a person wrote.
_PLAIN: Final = frozenset({
    "event_id", "message_id", "occurred_at", "account_id", "subaccount_id", "state", "message_type", "encoding",
    "number_type", "mcc", "mnc", "country", "currency", "error_code", "vendor_error_code", "provider",
})  # fmt: skip
_SHORT: Final = 64
_DIGITS: Final = re.compile(r"\d{7,}")
_NUMBER: Final = re.compile(r"\+?[0-9]{7,15}")


def masked(data: bytes | None) -> str | None:
    """The same without numbers and bodies: of an object its fields, of anything else its punctuation."""
    if data is None:
        return None
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        value = None
    if isinstance(value, dict):
        return orjson.dumps({_dotted(name): _masked(name, v) for name, v in value.items()}).decode()
    return re.sub(r"\w", "•", readable(data[:SHOWN_CHARS_MAX]) or "")


def _masked(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {str(n): "•••" for n in range(len(value))}
    if isinstance(value, list):
        return [_masked("", item) for item in value]
    if isinstance(value, str) and value:
        return (
            value
            if name in _PLAIN
            and len(value) <= _SHORT
            and not _DIGITS.search(value if not name.endswith(("_id", "_at")) else "")
            else "•••"
        )
    return value if value is None or isinstance(value, str | bool) or abs(value) < 1_000 else "•••"


def _is_number(text: str | None) -> bool:
    return bool(_NUMBER.fullmatch(text or ""))


def _dotted(name: str) -> str:
    return name if re.fullmatch(r"[a-z_]{1,64}", name) else "•••"


def shown(letter: Letter, may_see: bool, audit: Sequence[str], *, whole: bool = False) -> dict[str, Any]:
    """A letter as the API and the command line show it; `audit` are the times at which it was redriven."""
    value, cut = letter.value, not whole and len(letter.value or b"") > SHOWN_CHARS_MAX
    text = readable(value[:SHOWN_CHARS_MAX] if value and cut else value) if may_see else masked(value)
    as_base64 = None if value is None or cut or not may_see else base64.b64encode(value).decode()
    key = readable(letter.key)
    detail = letter.detail if may_see else _DIGITS.sub("•••", letter.detail)
    return {
        "id": letter.id, "reason": letter.reason, "detail": detail,
        "fingerprint": fingerprint(letter.reason, letter.detail), "topic": letter.topic,
        "partition": letter.partition, "offset": letter.offset, "timestamp": format_rfc3339(letter.timestamp_ms),
        "landed": format_rfc3339(letter.landed_ms), "key": key if may_see or not _is_number(key) else "•••",
        "value_text": text, "value_base64": as_base64, "size": len(value or b""), "cut": cut, "masked": not may_see,
        "attempts": letter.attempts, "redriven": len(audit), "redriven_at": max(audit, default=None),
    }  # fmt: skip
