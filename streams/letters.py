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
from streams.record_batches import Written, size_of, size_of_header

REDRIVEN: Final = "mdr-redriven"
REDRIVES_MAX: Final = 3
SHOWN_CHARS_MAX: Final = 2_000
# As it is sent, what a batch adds included.
LETTER_BYTES_MAX: Final = 2 << 20
_DETAIL_CHARS_MAX: Final = 1_000
_OURS: Final = ("reason", "detail", "topic", "partition", "offset", "timestamp")
_CUT: Final = "cut"
# How letters told it before they had a header for it.
_CUT_IN_DETAIL: Final = re.compile(r"; value cut to \d+ of \d+ bytes$")
_PLACE: Final = re.compile(r"[0-9]{1,9}:[0-9]{1,18}:-?[0-9]{1,19}")
_VALUES: Final = re.compile(r"\"[^\"]{2,}\"|'[^']{2,}'|(?<![\w.])\+?\d[\d.,:]*")
Headers = Sequence[tuple[str, bytes | None]]


class Letter(NamedTuple):
    """A dead letter as it was read: why, the place and time of the input, the input, and where the letter stands.

    `topic` is `""` for an entry of the dead letters that does not say where it came from; `cut` says what was cut.
    """

    reason: str
    detail: str
    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    id: str
    landed_ms: int
    cut: str = ""

    @property
    def source(self) -> str:
        """The identity: where the input stood, `topic:partition:offset`; else where the letter stands."""
        return f"{self.topic}:{self.partition}:{self.offset}" if self.topic else self.id

    @property
    def attempts(self) -> int:
        """How often the input had been sent once more before it became this letter."""
        told = [value or b"" for name, value in self.headers if name == REDRIVEN]
        return int(told[-1]) if told and re.fullmatch(rb"[0-9]{1,6}", told[-1]) else len(told)


class Draft(NamedTuple):
    """A dead letter before it is sent; `sizes` are those of key, value and headers if not all of them is here."""

    key: bytes | None
    value: bytes | None
    headers: Headers
    ours: list[tuple[str, bytes]]
    sizes: tuple[int, int, int]

    def within(self, most: int = LETTER_BYTES_MAX) -> Written:
        """What is sent: what does not fit is cut, value first, then headers, then key."""
        told = [(_CUT, b"*" * _CUT_TEXT_MAX), *self.ours]
        room = max(0, most - size_of(None, None, told))
        key = self.key if self.key is None else self.key[:room]
        room -= len(key or b"")
        headers: list[tuple[str, bytes | None]] = []
        for name, content in self.headers:
            room -= size_of_header(name, content)
            if room < 0:
                room += size_of_header(name, content)
                break
            headers.append((name, content))
        value = self.value if self.value is None else self.value[:room]
        cut = _cut_text(self.sizes, (len(key or b""), len(value or b""), len(headers)))
        # So that a header of the input's own is not taken for ours.
        is_told = bool(cut or (headers and headers[-1][0] == _CUT))
        return key, value, [*headers, *([(_CUT, cut.encode())] if is_told else []), *self.ours]


_CUT_TEXT_MAX: Final = 200


def _cut_text(sizes: tuple[int, int, int], kept: tuple[int, int, int]) -> str:
    """What was cut, in the order of cutting."""
    (key, value, headers), (of_key, of_value, of_headers) = kept, sizes
    told = [("value", value, of_value, " bytes"), ("headers", headers, of_headers, ""), ("key", key, of_key, " bytes")]
    return ", ".join(f"{what} {n} of {all_}{unit}" for what, n, all_, unit in told if n < all_)


def entry_letter(topic: str, partition: int, entry: Entry, reason: str, detail: str) -> Draft:
    """The dead letter of an entry."""
    ours = _headers(reason, detail, topic, partition, entry.offset, entry.timestamp)
    key, value, headers = entry.key, entry.value, entry.headers
    sizes = getattr(entry, "sizes", None) or (len(key or b""), len(value or b""), len(headers))
    return Draft(key, value, headers, ours, sizes)


def left_letter(topic: str, partition: int, receipt: Receipt, reason: str, detail: str) -> Draft:
    """A dead letter of a receipt that the log no longer holds: what was decoded of it, not its bytes."""
    said = msgspec.to_builtins(as_struct(receipt)) | {"occurred_at": format_rfc3339(receipt.occurred_ms)}
    value = orjson.dumps({name: told for name, told in said.items() if not name.startswith("~")})
    offset = int(receipt.source.rsplit(":", 1)[1])
    detail = f"{detail}; the log has dropped its bytes, this is what was read of them"
    key = receipt.message_id.encode()
    ours = _headers(reason, detail, topic, partition, offset, receipt.occurred_ms)
    return Draft(key, value, (), ours, (len(key), len(value), 0))


def _headers(
    reason: str, detail: str, topic: str, partition: int, offset: int, timestamp_ms: int
) -> list[tuple[str, bytes]]:
    told = dict(zip(_OURS, (reason, detail[:_DETAIL_CHARS_MAX], topic, partition, offset, timestamp_ms), strict=True))
    return [(name, str(value).encode("ascii", "backslashreplace")) for name, value in told.items()]


# ---- read back -------------------------------------------------------------------------------------------------


def open_letter(topic: str, partition: int, entry: Entry) -> Letter:
    """What an entry of the dead letters holds; the last six headers are ours, whatever the input's were called.

    A header before them that is called `cut` is ours too.
    """
    headers = tuple(entry.headers)
    at = f"{topic}:{partition}:{entry.offset}"
    ours, headers = headers[-len(_OURS) :], headers[: -len(_OURS)]
    told = {name: (value or b"").decode("ascii", "backslashreplace") for name, value in ours}
    place = ":".join(told.get(name, "") for name in _OURS[3:])
    if tuple(name for name, _ in ours) != _OURS or not _PLACE.fullmatch(place):
        detail = "the entry does not say where it came from"
        return Letter(
            "unknown", detail, "", 0, 0, entry.timestamp, entry.key, entry.value, (*headers, *ours), at, entry.timestamp
        )
    cut = ""
    if headers and headers[-1][0] == _CUT:
        *before, (_, said) = headers
        headers, cut = tuple(before), (said or b"").decode("ascii", "backslashreplace")
    places = [int(number) for number in place.split(":")]
    return Letter(
        told["reason"], told["detail"], told["topic"], places[0], places[1], places[2], entry.key, entry.value, headers,
        at, entry.timestamp, cut,
    )  # fmt: skip


def is_cut(letter: Letter) -> bool:
    """Whether only a part of the input was kept."""
    return bool(letter.cut or _CUT_IN_DETAIL.search(letter.detail))


def kind(detail: str) -> str:
    """What is wrong, whatever the value was that was wrong."""
    return _VALUES.sub("*", _CUT_IN_DETAIL.sub("", detail))


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
        return "it was cut, the whole is only in the log it came from"
    if redriven_at and not again:
        return f"it was redriven at {redriven_at} already"
    if letter.attempts >= REDRIVES_MAX and not force:
        return f"it came back {letter.attempts} times"
    if said is not None and not force:
        return f"it would come back: {said.reason} {said.detail}".rstrip()
    return ""


def redriven(letter: Letter) -> Written:
    """The input's key, value and headers as they were, with a header that counts how often it was sent once more."""
    kept = [(name, value) for name, value in letter.headers if name != REDRIVEN]
    return letter.key, letter.value, [*kept, (REDRIVEN, str(letter.attempts + 1).encode())]


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
