"""The targets of fuzzing: each takes bytes, does one thing by both ways, and raises `AssertionError` where they differ."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c, decode_varint

from schemas import batches, native
from schemas.events import TOPICS
from streams import fold, folding, record_batches
from streams.effects import Rows
from streams.join import Life
from streams.settle import Partition
from tests.entries import NOON_MS, LogEntry, by, decoded, event, value
from tests.hostile.raw import _COMPRESS, record
from tests.rows import rows_of

EXAMPLES: Final = Path(__file__).parents[2] / "schemas" / "examples"
T = TypeVar("T")


class Choices:
    """Choices that an input's bytes make; where they end, the first of each."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def below(self, count: int) -> int:
        """A number from 0 up to a count."""
        self._at += 1
        return self._data[self._at - 1] % count if self._at <= len(self._data) else 0

    def of(self, options: Sequence[T]) -> T:
        """One of some options."""
        return options[self.below(len(options))]

    def text(self, most: int) -> str:
        """A text of some of the bytes that are left."""
        size = self.below(most + 1)
        self._at += size
        return self._data[self._at - size : self._at].decode("utf-8", "replace")


# ---- decoding --------------------------------------------------------------------------------------------------


def decode(data: bytes) -> None:
    """A value, in a topic that its first byte chooses: an event of it in a batch is the definition's, or refused alike.

    Half of them are made so large that only what fields may hold is left of them.
    """
    kind, raw = data[0] if data else 0, data[1:]
    decoded(TOPICS[kind % 3], _key(raw), raw + b" " * 1_100 * (kind // 3 % 2), NOON_MS)


def _key(raw: bytes) -> bytes:
    try:
        return str(json.loads(raw)["message_id"]).encode()
    except (ValueError, TypeError, KeyError, RecursionError):
        return b"m1"


# ---- messages --------------------------------------------------------------------------------------------------

_STATES: Final = ("queued", "sent", "expired", "undelivered", "failed", "rejected", "delivered")
_IDS: Final = ("a", "b", "m1-1", "z", "é")
_LATE_MS: Final = (0, 1, 2, 599_999, 600_000, 600_001, 3_000_000_000)
_TEXTS: Final = ("provider", "vendor_error_code", "error_code", "body", "callback_url", "account_id")


def _fields(choices: Choices, topic: str) -> dict[str, Any]:
    fields: dict[str, Any] = {"event_id": choices.of(_IDS), "at_ms": NOON_MS + choices.of((0, 1, 2, -1, -4_000_000_000))}
    if topic == "receipts":
        fields["state"] = choices.of(_STATES)
    for _ in range(choices.below(5)):
        name = choices.of((*_TEXTS, "rate", "carrier_fee", "mcc", "mnc", "segment", "segments", "tags", "attributes"))
        fields[name] = _content(choices, name)
    return fields


def _content(choices: Choices, name: str) -> Any:
    if name in ("rate", "carrier_fee"):
        return choices.of(("0", "0.000000001", "9999999.999999999", "1.50"))
    if name in ("mcc", "mnc"):
        return choices.of(("310", "001"))
    if name in ("segment", "segments"):
        return choices.of((1, 2, 3, 255))
    if name == "tags":
        return [choices.text(6) or "t" for _ in range(choices.below(4))]
    if name == "attributes":
        return {choices.text(6) or "k": choices.text(6) for _ in range(choices.below(4))}
    return choices.text(40) or "x"


def _read(topic: str, offset: int, fields: dict[str, Any], message_id: str = "m1", late_ms: int = 0) -> list[Any]:
    """A batch of one event; nothing where it is refused."""
    known = event(topic, message_id, **fields)
    entry = LogEntry(offset, NOON_MS + late_ms, message_id.encode(), value(known))
    return batches.read(topic, [entry], NOON_MS, f"mdr.{topic}:0:")[0]


# ---- folding ---------------------------------------------------------------------------------------------------


def folded(data: bytes) -> None:
    """Messages of a few events, in their bytes or as structs: the builder's rows are the fold's."""
    choices = Choices(data)
    lives: list[Life] = []
    inbound: list[Any] = []
    while choices and len(lives) < 4:
        sends = _read("sends", len(lives), _fields(choices, "sends"))
        receipts = [pair for n in range(choices.below(6)) for pair in _read("receipts", n, _fields(choices, "receipts"))]
        inbound += [it for it, _ in _read("receives", len(inbound), _fields(choices, "receives"))]
        for send, _ in sends:
            own = tuple(batches.as_struct(r) if choices.below(2) else r for r, _ in receipts)
            amended_ms = choices.of((0, NOON_MS))
            lives.append(Life(send, own, settled_ms=NOON_MS, amended_ms=amended_ms, amendments=choices.below(3)))
    taken = [Rows(choices.below(9), lives, inbound, [])]
    if not lives and not inbound:
        return
    defined = sorted(rows_of(fold.records(taken, NOON_MS)), key=str)
    built = sorted(rows_of(folding.records(taken, NOON_MS)), key=str)
    assert built == defined, f"{built}, not {defined}"


# ---- joining ---------------------------------------------------------------------------------------------------

Step = Callable[[Partition], object]


def joined(data: bytes) -> None:
    """Batches, writes and checkpoints of one partition: by both ways it holds, counts and writes the same."""
    choices = Choices(data)
    steps: list[Step] = []
    while choices and len(steps) < 60:
        steps.append(_step(choices, len(steps)))
    told = []
    for is_native in (True, False):
        with by(is_native):
            partition = Partition(0, 5_000, NOON_MS)
            told.append([(step(partition), _told(partition)) for step in steps])
    for n, (one, other) in enumerate(zip(*told, strict=True)):
        assert one == other, f"after step {n}: {one}, not {other}"


def _step(choices: Choices, offset: int) -> Step:
    kind, message_id = choices.below(9), choices.of(("m1", "m2", "é"))
    topic = ("sends", "receipts", "receipts", "receipts", "receives")[kind] if kind < 5 else ""
    if topic:
        fields, late_ms = _fields(choices, topic), choices.of(_LATE_MS)
        return lambda p: _take(p, topic, offset, fields, message_id, late_ms)
    return {5: _write, 6: _save, 7: lambda p: _save(p, is_durable=False)}.get(kind, _pass)


def _take(p: Partition, topic: str, offset: int, fields: dict[str, Any], message_id: str, late_ms: int) -> list[Any]:
    events = _read(topic, offset, fields, message_id, late_ms)
    add: Any = getattr(p, f"add_{topic}")
    held = add(events, NOON_MS + offset) or []
    said = [(h.event.event_id, h.entry.offset, len(h.orphans)) for h in held]
    if held:
        (p.resolve_sends if topic == "sends" else p.resolve_receives)(held, {}, NOON_MS + offset)
    return said


def _write(p: Partition) -> Any:
    taken = p.take(NOON_MS)
    p.written(NOON_MS, keep=True)
    return [_plain(life) for life in taken.settled], [r.message_id for r in taken.inbound], len(taken.orphans)


def _save(p: Partition, is_durable: bool = True) -> Any:
    snapshot = p.snapshot(NOON_MS)
    if is_durable:
        p.saved(snapshot)
    return sorted((r.message_id, r.part, r.version, r.is_deleted, r.facts) for r in snapshot.rows), snapshot.settled_through


def _pass(p: Partition) -> Any:
    for topic in p.marks:
        p.caught_up(topic, p.marks[topic] + 2_000)
    return sorted(p.tick(NOON_MS))


def _told(p: Partition) -> Any:
    """All that can be asked of a partition."""
    lives = {mid: _plain(life) for mid in list(p.lives) if (life := p._open_life(mid))}
    fresh = {mid: _plain(life) for mid, life in p.fresh.items()}
    dead = [(letter.topic, letter.reason) for letter in p.dead]
    return lives, fresh, sorted(p.fresh_inbound), msgspec.to_builtins(p.counts), dead, p.waiting, p.deadlines(), p.oldest_open_ms()


def _plain(life: Life) -> Any:
    return msgspec.json.encode(life, enc_hook=batches.as_struct)


# ---- record batches --------------------------------------------------------------------------------------------

_BASES: Final = (0, 7, (1 << 63) - 2, -1)


def records(data: bytes) -> None:
    """The content of a record batch: by both readers the same records, and the same end of what is sound."""
    choices = Choices(data[:6])
    last, is_dense = choices.of((0, 1, 5, 255, 1 << 30)), bool(choices.below(2))
    frame = choices.of(_BASES), choices.of((0, NOON_MS, -1, (1 << 63) - 1)), bool(choices.below(2)), last, is_dense
    body = data[6:]
    at = min(choices.below(3), len(body))
    one = native.module.records(body, at, 1_000, frame, -1)
    other = record_batches.records(body, at, 1_000, frame, -1)
    assert (_all_of(one[0]), one[1]) == (_all_of(other[0]), other[1]), f"{one}, not {other}"


def batch(data: bytes) -> None:
    """A whole record batch: the same entries and parts by both ways, and what the client library reads of an honest one."""
    choices = Choices(data[:4])
    codec, head = choices.below(8), bytearray(data[4:65].ljust(61, b"\0"))
    is_honest = choices.below(4) > 0
    body = _COMPRESS.get(codec, bytes)(data[65:]) if is_honest else data[65:]
    head[:8], head[8:12], head[16] = bytes(8), (49 + len(body)).to_bytes(4), 2
    head[21:23] = (codec | choices.of((0, 8))).to_bytes(2)
    if choices.below(4):  # as many as are there
        count = len(record_batches.records(data[65:], 0, 1_000, (0, 0, False, 1 << 30, True), -1)[0])
        head[23:27], head[57:61] = max(0, count - 1).to_bytes(4), count.to_bytes(4)
    whole = bytes(head) + body
    whole = whole[:17] + calc_crc32c(whole[21:]).to_bytes(4) + whole[21:]
    told = []
    for is_native in (True, False):
        with by(is_native):
            entries, refused = record_batches.read(whole)
            told.append((_all_of(entries), refused))
    assert told[0] == told[1], f"{told[0]}, not {told[1]}"
    # It reads attributes as a varint, where the format has one byte.
    clients = _by_client(whole) if is_honest and _has_small_attributes(data[65:]) else None
    if clients is not None and not refused and len(clients) == len(entries):
        assert [it[2:] for it in clients] == [it[2:] for it in told[0][0]], "the client library reads something else"


def _has_small_attributes(body: bytes) -> bool:
    """Say whether each record begins with a byte below 0x80."""
    at = 0
    while at < len(body):
        try:
            size, at = decode_varint(body, at)
        except Exception:  # as strict as the rest of it
            return False
        if size <= 0 or at + size > len(body) or body[at] > 0x7F:
            return False
        at += size
    return True


def _by_client(whole: bytes) -> list[Any] | None:
    try:
        return _all_of(MemoryRecords(whole).next_batch())
    except Exception:
        return None  # it is strict, and raises whatever it meets


def _all_of(records: Any) -> list[Any]:
    return [(r.offset, r.timestamp, r.key, r.value, list(r.headers)) for r in records]


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "decode": decode, "records": records, "batch": batch, "folded": folded, "joined": joined,
}  # fmt: skip


def seeds(name: str) -> Iterator[bytes]:
    """Inputs to begin with, besides the kept ones: for decoding all golden examples, small ones first."""
    if name == "decode":
        for n, topic in enumerate(TOPICS):
            for path in sorted((EXAMPLES / topic).iterdir()):
                if path.stat().st_size < 2_000:
                    yield from (bytes([kind]) + path.read_bytes() for kind in (n, n + 3))
    if name in ("records", "batch"):
        some = b"".join(record(b"k", b"v" * n, [(b"h", b"x"), (b"\xff", None)][:n], delta=n) for n in range(3))
        yield from (bytes([codec, 1, 1, 1] + [0] * 61) + some for codec in range(5))
        yield bytes([1, 1, 0, 1, 0, 0]) + some
