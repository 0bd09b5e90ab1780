"""Record batches of a Kafka log to entries, and entries to record batches. Pure and total.

Whatever bytes a batch has, it is read: to entries, and to `Part`s where no whole entry can be made of its bytes. Each
part is one dead letter, whatever number of offsets it stands for. Memory is bounded whatever sizes are claimed. The
hot part, `records`, has a twin in native/log.c that gives the same (tests/test_record_batches.py).
"""

import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from aiokafka.record.util import calc_crc32c

from schemas import native
from schemas.strict_json import VALUE_BYTES_MAX, Rejected
from streams.frames import AT_ONCE_BYTES_MAX, Damaged, lz4, pieces

CHUNK_RECORDS_MAX: Final = 1_000
# As native/log.c has them: what is larger is read here, and cut to what a dead letter can hold.
RECORD_BYTES_MAX: Final = 4 << 20
HEADERS_MAX: Final = 10_000
# Of each key, value and headers that are not kept whole.
KEPT_BYTES_MAX: Final = 2 << 20
# A larger record is kept up to here.
HEAD_BYTES_MAX: Final = 16 << 20

Header = tuple[str, bytes | None]
Frame = tuple[int, int, bool, int, bool]
"""Base offset, time (of all, or what each adds to), whether it is of all, last offset delta, whether all are there."""

# Base offset, length, leader's epoch, magic, checksum, attributes, last offset delta, base and newest time, the
# producer's id, epoch and sequence, count of records.
_HEADER: Final = struct.Struct(">qiibIhiqqqhii")
_BEFORE_LENGTH: Final = 12
_MAGIC_AT: Final = 16
_CRC_AT, _ATTRIBUTES_AT, _PRODUCER_AT = 17, 21, 43
_CODEC, _BROKER_TIME, _TRANSACTIONAL, _CONTROL = 0x07, 0x08, 0x10, 0x20
_LZ4: Final = 3
_PACKED_FROM_BYTES: Final = 1_000


class Record(NamedTuple):
    """An entry. Bytes of a header's name that are no UTF-8 are lone surrogates, as of `surrogateescape`."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[Header]


class Part(NamedTuple):
    """An entry that was not kept whole, or what there is of the offsets up to `last` of which no entry can be made.

    `sizes` are of key, value (bytes) and headers (their number) as they were. It is refused with `rejected` before it
    is decoded, unless its value is whole.
    """

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[Header]
    last: int
    sizes: tuple[int, int, int]
    rejected: Rejected | None


Entry = Any  # a `Record`, its twin of the compiled part, or a `Part`


def read(data: bytes) -> tuple[list[Entry], list[Part]]:
    """The entries of a record batch as it lies in a log, whatever it is, and what no entry can be made of."""
    found = [entry for chunk in Batch(memoryview(data)).chunks() for entry in chunk]
    refused = [entry for entry in found if isinstance(entry, Part) and entry.rejected]
    return [entry for entry in found if not isinstance(entry, Part) or not entry.rejected], refused


def next_size(data: memoryview) -> int:
    """The size of the batch that bytes begin with; 0 where it is not there as a whole."""
    if len(data) <= _MAGIC_AT:
        return 0
    length: int = struct.unpack_from(">i", data, 8)[0]
    size: int = _BEFORE_LENGTH + length
    if size <= _MAGIC_AT:  # no broker has that: nothing tells where the next one begins
        return len(data)
    return size if size <= len(data) else 0


def wrapped(number: int) -> int:
    """What is left of a number in 64 bits, as Java has it."""
    return (number + (1 << 63) & (1 << 64) - 1) - (1 << 63)


class Batch:
    """A record batch: what it says of itself, and its entries."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self.magic = data[_MAGIC_AT] if len(data) > _MAGIC_AT else -1
        self._is_sound = self.magic == 2 and len(data) >= _HEADER.size
        head = _HEADER.unpack_from(data) if self._is_sound else (_offset_of(data), *(0,) * 8, -1, 0, 0, 0)
        self.base_offset, self._crc, self._attributes, last, self._base_ms, self.newest_ms = head[0], *head[4:9]
        self.producer_id, self.count = head[9], head[12]
        self.is_dense, self._last = self.count == last + 1, max(0, last)
        self.last_offset = wrapped(self.base_offset + self._last)
        base_ms = self.newest_ms if self.is_broker_time else self._base_ms
        # What its records have in common.
        self.frame: Frame = (self.base_offset, base_ms, self.is_broker_time, self._last, self.is_dense)
        self.taken = 0
        self.is_done = False

    @property
    def is_control(self) -> bool:
        """Whether it is a marker and no entry."""
        return bool(self._attributes & _CONTROL)

    @property
    def is_transactional(self) -> bool:
        """Whether it belongs to a transaction."""
        return bool(self._attributes & _TRANSACTIONAL)

    @property
    def is_broker_time(self) -> bool:
        """Whether the broker gave all records one time."""
        return bool(self._attributes & _BROKER_TIME)

    @property
    def codec(self) -> int:
        """The number of what its records are compressed with."""
        return int(self._attributes & _CODEC)

    @property
    def payload(self) -> bytes:
        """Its records, compressed as they are."""
        return bytes(self._data[_HEADER.size :])

    def is_abort(self) -> bool:
        """Whether it is the marker that ends a transaction in vain."""
        if not self.is_control:
            return False
        first = next((entry for chunk in self.chunks() for entry in chunk), None)
        return first is not None and (first.key or b"")[2:4] == b"\0\0"

    def chunks(self) -> Iterator[list[Entry]]:
        """The entries, by their offsets, some at a time.

        `taken` says how many bytes of its content they took, `is_done` with the last of them that there are no more.
        """
        try:
            yield from self._chunks()
        except Damaged as why:
            self.is_done = True
            yield [self.unread(self.base_offset, why)]

    def _chunks(self) -> Iterator[list[Entry]]:
        if self.magic in (0, 1):
            self.taken, self.is_done = len(self._data), True
            yield _old_entries(bytes(self._data))
        elif not self._is_sound:
            raise Damaged("invalid_json", "no record batch is there")
        elif calc_crc32c(self._data[_ATTRIBUTES_AT:]) != self._crc:
            raise Damaged("invalid_json", "the batch's checksum is another one")
        elif self.count < 0:
            raise Damaged("invalid_json", f"a batch of {self.count} records")
        else:
            yield from _Reading(self).chunks()

    def unread(self, offset: int, why: Damaged) -> Part:
        """All that comes from an offset on as one part, with the batch's own bytes."""
        return self.part(offset, self.last_offset, self._data, why)

    def part(self, offset: int, last: int, data: bytes | memoryview, why: Damaged) -> Part:
        """Some offsets of which no entry can be made, and what bytes there are of them."""
        rejected = Rejected(why.reason, f"value: {why.what}")
        value = bytes(data[:KEPT_BYTES_MAX])
        return Part(min(offset, last), self.frame[1], None, value, (), last, (0, len(data), 0), rejected)


class _Reading:
    """A record batch on its way through: some of its content, and how far that was read."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._left = batch.count
        self._pieces = pieces(batch.codec, batch.payload)
        self._data, self._at = b"", 0
        self._after = -1  # the last offset that was read, from the first

    def chunks(self) -> Iterator[list[Entry]]:
        """As of the batch: what is sound many at a time, what is not one by one, and at last what is stray."""
        batch = self._batch
        try:
            self._more()
            while self._left > 0:
                before = self._at
                chunk = self._sound()
                batch.taken += self._at - before
                chunk = chunk or self._odd()
                if not self._left:
                    break
                if chunk:
                    yield chunk
            else:
                chunk = []
        except Damaged as why:
            chunk = [batch.unread(self._offset(1), why)]
        else:
            chunk += self._stray()
        batch.is_done = True
        yield chunk

    def _offset(self, ahead: int = 0) -> int:
        """The offset that was read last, or one ahead of it."""
        return wrapped(self._batch.base_offset + self._after + ahead)

    def _sound(self) -> list[Entry]:
        most = min(self._left, CHUNK_RECORDS_MAX)
        found, self._at = records_of(self._data, self._at, most, self._batch.frame, self._after)
        if found:
            self._left -= len(found)
            self._after = wrapped(found[-1].offset - self._batch.base_offset)
        return found

    def _more(self) -> bool:
        """Goes on to the next piece of the content, if there is one."""
        piece = next(self._pieces, None)
        if piece is not None:
            self._data, self._at = self._data[self._at :] + piece, 0
        return piece is not None

    def _odd(self) -> list[Entry]:
        """What is no sound record: more of it has to be read first, or it is too large, or it is none."""
        try:
            size, start = _varint(self._data, self._at)
        except IndexError:
            return [] if self._more() else self._rest("the batch ends before its last record")
        except ValueError:
            return self._rest("no length of a record is there")
        if size < 1:
            return self._rest(f"a record of {size} bytes")
        if size > RECORD_BYTES_MAX:
            self._at = start
            return [self._large(size)]
        if size > len(self._data) - start:
            return [] if self._more() else self._rest("the batch ends within a record")
        entry = _kept(self._data[start : start + size], size, self._batch.frame, self._after)
        if entry is None:
            return self._unsound()
        self._did(start + size, entry.offset)
        return [entry]

    def _did(self, at: int, offset: int) -> None:
        self._batch.taken += max(0, at - self._at)
        self._at, self._left = at, self._left - 1
        self._after = wrapped(offset - self._batch.base_offset)

    def _rest(self, what: str) -> list[Entry]:
        """All that is left as one part."""
        data, self._at, self._left = self._data[self._at :], len(self._data), 0
        self._pieces = iter(())
        return [self._batch.part(self._offset(1), self._batch.last_offset, data, Damaged("invalid_json", what))]

    def _unsound(self) -> list[Entry]:
        """Records one after the other that are none but say where they end, as one part."""
        start, offset, count = self._at, self._offset(1), 0
        while self._batch.is_dense and self._left and (end := self._end_of_unsound()):
            self._did(end, self._offset(1))
            count += 1
            if count > CHUNK_RECORDS_MAX:
                break
        else:
            if count:
                why = Damaged("invalid_json", "a record is not as Kafka's format has it")
                return [self._batch.part(offset, self._offset(), self._data[start : self._at], why)]
        self._at, self._after = start, wrapped(offset - 1 - self._batch.base_offset)
        return self._rest("the records are not as Kafka's format has them")

    def _end_of_unsound(self) -> int:
        """Where a record ends that is whole and unsound; 0 if it is not that."""
        try:
            size, start = _varint(self._data, self._at)
        except (IndexError, ValueError):
            return 0
        end = start + size
        if not 1 <= size <= RECORD_BYTES_MAX or end > len(self._data):
            return 0
        return 0 if _kept(self._data[start:end], size, self._batch.frame, self._after) else end

    def _large(self, size: int) -> Part:
        """A record that is not kept whole; what comes after one that is far too large is not looked for."""
        head, batch, offset = self._take(min(size, HEAD_BYTES_MAX)), self._batch, self._offset(1)
        entry = _kept(head, size, batch.frame, self._after)
        is_whole = self._skip(size - len(head)) if size <= AT_ONCE_BYTES_MAX else False
        if entry is not None and is_whole:
            self._did(self._at, entry.offset)
            return entry
        why = Damaged("too_large", f"in a record of {size} bytes, more than {AT_ONCE_BYTES_MAX}")
        if size <= AT_ONCE_BYTES_MAX:
            why = Damaged("invalid_json", "a record is cut short or not as Kafka's format has it")
        self._rest("")
        part = batch.part(offset, batch.last_offset, head, why)
        if entry is None:
            return part
        return part._replace(key=entry.key, value=entry.value, headers=entry.headers, sizes=entry.sizes)

    def _take(self, size: int) -> bytes:
        """So many of the next bytes, or all there are."""
        taken = bytearray()
        while True:
            some = self._data[self._at : self._at + size - len(taken)]
            taken += some
            self._at += len(some)
            self._batch.taken += len(some)
            if len(taken) == size or not self._more():
                return bytes(taken)

    def _skip(self, size: int) -> bool:
        """Passes over so many bytes; whether there were so many."""
        while size > len(self._data) - self._at:
            size -= len(self._data) - self._at
            self._at = len(self._data)
            if not self._more():
                return False
        self._at += size
        return True

    def _stray(self) -> list[Entry]:
        """What comes behind the last record."""
        batch = self._batch
        try:
            data: bytes | memoryview = self._data[self._at :] or next(self._pieces, b"")
            why = Damaged("invalid_json", f"{len(data)} bytes behind the last record of a batch")
        except Damaged as e:
            data, why = e.stray or batch.payload, Damaged(e.reason, f"behind the last record of a batch {e.what}")
        return [batch.part(batch.last_offset, batch.last_offset, data, why)] if data else []


# ---- records ---------------------------------------------------------------------------------------------------

_VARINT_BYTES_MAX: Final = 10
_64_BITS: Final = (1 << 64) - 1


def records_of(data: bytes, at: int, most: int, frame: Frame, after: int) -> tuple[list[Entry], int]:
    """The records from a place in a batch's content on, up to the first that is not sound, and where they end."""
    if native.enabled:
        return native.module.records(data, at, most, frame, after)
    return records(data, at, most, frame, after)


def records(data: bytes, at: int, most: int, frame: Frame, after: int) -> tuple[list[Entry], int]:
    """The definition of `records_of`."""
    found: list[Entry] = []
    try:
        while len(found) < most:
            size, start = _varint(data, at)
            if not 1 <= size <= RECORD_BYTES_MAX or size > len(data) - start:
                break
            record = _record(data[start : start + size], frame, after)
            after = wrapped(record.offset - frame[0])
            at = start + size
            found.append(record)
    except (IndexError, ValueError):
        pass
    return found, at


def _record(body: bytes, frame: Frame, after: int) -> Record:
    """Attributes TimestampDelta OffsetDelta Key Value [Headers]; raises IndexError or ValueError where it is none."""
    ms, at = _varint(body, 1)
    delta, at = _varint(body, at)
    key, at = _bytes(body, at)
    value, at = _bytes(body, at)
    count, at = _varint(body, at)
    if not 0 <= count <= HEADERS_MAX:
        raise ValueError
    headers, at = _headers(body, at, count) if count else ((), at)
    if at != len(body):
        raise ValueError
    return Record(*_place(frame, after, ms, delta), key, value, headers)


def _place(frame: Frame, after: int, ms: int, delta: int) -> tuple[int, int]:
    """The offset and time of a record; where none is missing its offset is the next, whatever it says."""
    base_offset, base_ms, is_fixed, last, is_dense = frame
    if is_dense:
        delta = after + 1
    if not after < delta <= last:
        raise ValueError
    return wrapped(base_offset + delta), base_ms if is_fixed else wrapped(base_ms + ms)


def _headers(body: bytes, at: int, count: int) -> tuple[Sequence[Header], int]:
    headers: list[Header] = []
    for _ in range(count):
        name, at = _bytes(body, at)
        value, at = _bytes(body, at)
        if name is None:
            raise ValueError
        headers.append((name.decode("utf-8", "surrogateescape"), value))
    return headers, at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number and where it ends; raises IndexError where the bytes end, ValueError where it has over 64 bits."""
    byte = data[at]
    if byte < 0x80:
        return (byte >> 1) ^ -(byte & 1), at + 1
    bits = byte & 0x7F
    for shift in range(7, 64, 7):
        at += 1
        byte = data[at]
        bits |= (byte & 0x7F) << shift
        if byte < 0x80:
            bits &= _64_BITS
            return (bits >> 1) ^ -(bits & 1), at + 1
    raise ValueError


def _bytes(data: bytes, at: int) -> tuple[bytes | None, int]:
    size, at = _varint(data, at)
    if size < 0:
        return None, at
    if size > len(data) - at:
        raise ValueError
    return data[at : at + size], at + size


def _kept(head: bytes, size: int, frame: Frame, after: int) -> Part | None:
    """What is kept of a record of `size` bytes that begins like this; None if it is none."""
    try:
        ms, at = _varint(head, 1)
        delta, at = _varint(head, at)
        offset, timestamp = _place(frame, after, ms, delta)
        key_size, at = _varint(head, at)
        key, at = _cut(head, at, key_size, size)
        value_size, at = _varint(head, at) if at < len(head) or size == len(head) else (-1, at)
        value, at = _cut(head, at, value_size, size)
        headers, count = _some_headers(head, at, size) if at < len(head) or size == len(head) else ([], 0)
    except (IndexError, ValueError):
        return None
    rejected = None
    if value_size > VALUE_BYTES_MAX:
        rejected = Rejected("too_large", f"value: {value_size} bytes, more than {VALUE_BYTES_MAX}")
    elif at > len(head):
        rejected = Rejected("too_large", f"value: in a record of {size} bytes")
    return Part(offset, timestamp, key, value, headers, offset, (key_size, value_size, count), rejected)


def _cut(head: bytes, at: int, size: int, all_size: int) -> tuple[bytes | None, int]:
    """The first of some bytes, and where all of them end, which may be beyond what is there."""
    if size < 0:
        return None, at
    if size > all_size - at:
        raise ValueError
    return head[at : at + min(size, KEPT_BYTES_MAX)], at + size


def _some_headers(head: bytes, at: int, size: int) -> tuple[Sequence[Header], int]:
    """The first headers, as many as are kept, and how many there are; raises ValueError where they cannot be."""
    count, at = _varint(head, at)
    if count < 0 or count > size:
        raise ValueError
    headers: list[Header] = []
    start = at
    for _ in range(min(count, HEADERS_MAX)):
        try:
            (header,), at = _headers(head, at, 1)
        except (IndexError, ValueError):
            if size > len(head):  # they go on beyond what is there
                return headers, count
            raise
        if at - start > KEPT_BYTES_MAX:
            return headers, count
        headers.append(header)
    if count <= HEADERS_MAX and size == len(head) != at:
        raise ValueError
    return headers, count


# ---- messages of formats 0 and 1 -------------------------------------------------------------------------------

_OLD: Final = struct.Struct(">qiIbb")


class _Message(NamedTuple):
    offset: int
    attributes: int
    timestamp: int
    key: bytes | None
    value: bytes | None


def _offset_of(data: memoryview) -> int:
    return int.from_bytes(data[:8], signed=True)


def _old_entries(data: bytes) -> list[Entry]:
    """The entries of a message, which may be a compressed set of them; raises `Damaged`."""
    try:
        outer, end = _old_message(data, 0)
        if end != len(data) or zlib.crc32(data[_MAGIC_AT:]) != int.from_bytes(data[12:16]):
            raise Damaged("invalid_json", "the message's checksum or length is another one")
        inner = [outer] if not outer.attributes & _CODEC else _old_set(outer, data[_MAGIC_AT])
    except (IndexError, ValueError, struct.error):
        raise Damaged("invalid_json", "a message is not as Kafka's format has it") from None
    offsets = [message.offset for message in inner]
    if offsets != sorted(set(offsets)) or offsets[-1:] != [outer.offset]:
        raise Damaged("invalid_json", "the messages' offsets do not rise to that of their set")
    return [Record(m.offset, m.timestamp, m.key, m.value, ()) for m in inner]


def _old_set(outer: _Message, magic: int) -> list[_Message]:
    content = bytearray()
    for piece in pieces(outer.attributes & _CODEC, outer.value or b""):
        content += piece
        if len(content) > AT_ONCE_BYTES_MAX:
            raise Damaged("too_large", f"a message set of more than {AT_ONCE_BYTES_MAX} bytes")
    data, at, inner = bytes(content), 0, list[_Message]()
    while at < len(data):
        message, at = _old_message(data, at)
        inner.append(message)
    if not inner:
        raise ValueError
    ahead = outer.offset - inner[-1].offset if magic else 0
    fixed_ms = outer.timestamp if outer.attributes & _BROKER_TIME else None
    return [
        m._replace(offset=wrapped(m.offset + ahead), timestamp=m.timestamp if fixed_ms is None else fixed_ms)
        for m in inner
    ]


def _old_message(data: bytes, at: int) -> tuple[_Message, int]:
    offset, size, _, magic, attributes = _OLD.unpack_from(data, at)
    end = at + _BEFORE_LENGTH + size
    at += _OLD.size
    timestamp = -1
    if magic == 1:
        timestamp, at = int.from_bytes(data[at : at + 8], signed=True), at + 8
    key, at = _old_bytes(data, at)
    value, at = _old_bytes(data, at)
    if at != end:
        raise ValueError
    return _Message(offset, attributes, timestamp, key, value), end


def _old_bytes(data: bytes, at: int) -> tuple[bytes | None, int]:
    (size,) = struct.unpack_from(">i", data, at)
    at += 4
    if size < 0:
        return None, at
    if size > len(data) - at:
        raise ValueError
    return data[at : at + size], at + size


# ---- written ---------------------------------------------------------------------------------------------------

Written = tuple[bytes | None, bytes | None, Sequence[Header]]
"""Key, value and headers of an entry."""


def encode(entries: Sequence[Written], timestamp_ms: int) -> bytearray:
    """A record batch of entries, byte for byte: other than a client's own it takes any header's name, and no key."""
    body = bytearray()
    for delta, entry in enumerate(entries):
        record = b"\0\0" + _written(delta) + _written_entry(*entry)
        body += _written(len(record)) + record
    packed, codec = bytes(body), 0
    if len(packed) > _PACKED_FROM_BYTES and len(squeezed := lz4(packed)) < len(packed):
        packed, codec = squeezed, _LZ4
    last = len(entries) - 1
    head = _HEADER.pack(
        0, _HEADER.size + len(packed) - _BEFORE_LENGTH, -1, 2, 0, codec, last, timestamp_ms, timestamp_ms, -1, -1, -1,
        len(entries),
    )  # fmt: skip
    return stamped(bytearray(head) + packed, -1, -1, -1)


def stamped(batch: bytearray, producer_id: int, epoch: int, sequence: int) -> bytearray:
    """A batch with what tells its producer's copies of it apart, and the checksum of all."""
    struct.pack_into(">qhi", batch, _PRODUCER_AT, producer_id, epoch, sequence)
    struct.pack_into(">I", batch, _CRC_AT, calc_crc32c(memoryview(batch)[_ATTRIBUTES_AT:]))
    return batch


def size_of(key: bytes | None, value: bytes | None, headers: Sequence[Header]) -> int:
    """How many bytes a batch with an entry in it has at most, before it is compressed."""
    told = sum(size_of_header(name, content) for name, content in headers)
    return _HEADER.size + 4 * _VARINT_BYTES_MAX + _size_of(key) + _size_of(value) + told


def size_of_header(name: str, content: bytes | None) -> int:
    """How many bytes a header has at most."""
    return _size_of(name_bytes(name)) + _size_of(content)


def name_bytes(name: str) -> bytes:
    """A header's name as it is sent."""
    return name.encode("utf-8", "surrogateescape")


def _size_of(data: bytes | None) -> int:
    return 5 + len(data or b"")


def _written_entry(key: bytes | None, value: bytes | None, headers: Sequence[Header]) -> bytes:
    told = b"".join(_sized(name_bytes(name)) + _sized(content) for name, content in headers)
    return _sized(key) + _sized(value) + _written(len(headers)) + told


def _sized(data: bytes | None) -> bytes:
    return b"\x01" if data is None else _written(len(data)) + data


def _written(number: int) -> bytes:
    left = (number << 1 ^ number >> 63) & _64_BITS
    out = bytearray()
    while left > 0x7F:
        out.append(left & 0x7F | 0x80)
        left >>= 7
    out.append(left)
    return bytes(out)
