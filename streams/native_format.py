"""ClickHouse's Native format: a block of the compiled builder as the bytes of an insert. Pure.

A block is the number of its columns and rows, then each column: name, type, values. Values are little endian; a text
has its size before it; a list or map is where each row of it ends, then all its items; a nullable one which rows are
null, then the values. A small set (`LowCardinality`) is its version, then what kind of dictionary follows, the words,
and which word it is in each place. So is a list of them, its ends between version and dictionary.
"""

from collections.abc import Generator, Iterator
from struct import pack
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

_VERSION: Final = pack("<Q", 1)
# A dictionary of its own, new with this block; places in it are 16 bits, or 32 where it has more words.
_DICTIONARY: Final = 1 << 9 | 1 << 10
_PLACES: Final = {2: 1, 4: 2}
_NARROW_MAX: Final = 1 << 16
_NUMPY: Final = {"B": "<u1", "H": "<u2", "Q": "<u8", "q": "<i8", "m": "<i8"}


class Values(NamedTuple):
    """A column of a block: name and type in ClickHouse, and the builder's kind and buffers (native/columns.h)."""

    name: str
    type: str
    kind: str
    buffers: tuple[Any, ...]


def block(rows: int, columns: list[Values]) -> Generator[bytes, None, None]:
    """The bytes of a block, in pieces."""
    yield _varint(len(columns)) + _varint(rows)
    for column in columns:
        yield _text(column.name) + _text(column.type)
        yield from _values(column.kind, column.buffers)


def _values(kind: str, buffers: tuple[Any, ...]) -> Iterator[bytes]:
    if kind == "w":
        yield _VERSION
        yield from _words(*buffers)
    elif kind == "W":
        yield _VERSION
        yield buffers[0]
        yield from _words(*buffers[1:])
    else:
        yield from buffers


def _words(count: int, words: bytes, places: bytes) -> Iterator[bytes]:
    if places:
        size = _place_size(count)
        yield pack("<QQ", _DICTIONARY | _PLACES[size], count)
        yield words
        yield pack("<Q", len(places) // size)
        yield places


def _place_size(count: int) -> int:
    """The bytes of a place among so many words (native/columns.h)."""
    return 2 if count <= _NARROW_MAX else 4


def as_array(column: Values) -> pa.Array:
    """A column of words, numbers or instants: strings, or int64 with null for none."""
    if column.kind == "w":
        count, words, places = column.buffers
        at = np.frombuffer(places, f"<u{_place_size(count)}")
        return pa.array(_texts(words, count), pa.string()).take(pa.array(at))
    if column.kind == "t":
        return pa.array(_texts(column.buffers[0]), pa.string())
    if column.kind == "M":
        nulls, values = column.buffers
        return pa.array(np.frombuffer(values, "<i8"), mask=np.frombuffer(nulls, "?"))
    return pa.array(np.frombuffer(column.buffers[0], _NUMPY[column.kind]).astype("i8"))


def _texts(data: bytes, count: int | None = None) -> list[str]:
    found, at = [], 0
    while at < len(data):
        size = shift = 0
        while data[at] > 0x7F:  # seven bits a byte, the last one below
            size, shift, at = size | (data[at] & 0x7F) << shift, shift + 7, at + 1
        size, at = size | data[at] << shift, at + 1
        found.append(data[at : at + size].decode())
        at += size
    assert count is None or len(found) == count
    return found


def _text(text: str) -> bytes:
    return _varint(len(text.encode())) + text.encode()


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:  # seven bits a byte, the last one below
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
