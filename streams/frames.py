"""Compressed frames of record batches, taken apart piece by piece: gzip, snappy, lz4, zstd. Pure and total.

Whatever a frame claims, a piece has about a megabyte, and no more than 64 MiB are in memory at once. What cannot be
decompressed raises `Damaged` after the pieces that could. Bytes behind a frame are the beginning of another one, or
stray.
"""

import sys
import zlib
from collections.abc import Callable, Generator, Iterator
from functools import lru_cache
from typing import Final

import cramjam

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PIECE_BYTES: Final = 1 << 20
AT_ONCE_BYTES_MAX: Final = 64 << 20


class Damaged(Exception):
    """Why reading cannot go on: a reason of a dead letter, what is wrong, and the stray bytes behind what was read."""

    def __init__(self, reason: str, what: str, stray: bytes = b"") -> None:
        super().__init__(what)
        self.reason, self.what, self.stray = reason, what, stray


def pieces(codec: int, data: bytes) -> Iterator[bytes]:
    """The content of what a codec's number stands for; raises `Damaged` where it ends."""
    if codec == 0:
        yield from [data] if len(data) <= PIECE_BYTES else _slices(data)
        return
    if codec not in _FRAMES:
        raise Damaged("invalid_json", f"no compression has the number {codec}")
    name, frame = _FRAMES[codec]
    stray = b""
    while data:
        try:
            data = stray = yield from frame(data)
        except Damaged as e:
            raise Damaged(e.reason, e.what, stray) from None
        except Exception as e:  # each library has its own
            raise Damaged("invalid_json", f"{name} cannot be decompressed: {type(e).__name__}", stray) from None


def _slices(data: bytes) -> Iterator[bytes]:
    for at in range(0, len(data), PIECE_BYTES):
        yield data[at : at + PIECE_BYTES]


def _gzip(data: bytes) -> Generator[bytes, None, bytes]:
    frame = zlib.decompressobj(31)
    while not frame.eof:
        piece = frame.decompress(data, PIECE_BYTES)
        data = frame.unconsumed_tail
        if piece:
            yield piece
        elif not data and not frame.eof:
            raise Damaged("invalid_json", "gzip ends before its end")
    return frame.unused_data


def _zstd(data: bytes) -> Generator[bytes, None, bytes]:
    frame, is_wide, total = zstd.ZstdDecompressor(), _window(data) > AT_ONCE_BYTES_MAX, 0
    while not frame.eof:
        piece = frame.decompress(data, PIECE_BYTES)
        data, total = b"", total + len(piece)
        if is_wide and total > AT_ONCE_BYTES_MAX:
            raise Damaged("too_large", f"zstd asks for a window of more than {AT_ONCE_BYTES_MAX} bytes")
        if piece:
            yield piece
        elif frame.needs_input:
            raise Damaged("invalid_json", "zstd ends before its end")
    return frame.unused_data


def _window(data: bytes) -> int:
    """How many of the bytes before it a zstd frame may ask for, by its header; 0 where that does not say."""
    if len(data) < 6 or data[4] & 0x20:
        return 0
    return (1 << 10 + (data[5] >> 3)) * (8 + (data[5] & 7)) // 8


_LZ4_MAGIC: Final = b"\x04\x22\x4d\x18"
_LZ4_END: Final = bytes(4)
# Bits of its flags: the version, blocks stand alone, have a checksum, the content's size is told, has a checksum.
_LZ4_VERSION, _LZ4_ALONE, _LZ4_CHECKED, _LZ4_SIZE, _LZ4_CONTENT_CHECKED = 0x40, 0x20, 0x10, 0x08, 0x04


def _lz4(data: bytes) -> Generator[bytes, None, bytes]:
    """Some blocks at once, as a frame of their own; blocks that lean on those before them all at once."""
    flags, size_number = data[4:5] or b"\0", data[5:6] or b"\0"
    if data[:4] != _LZ4_MAGIC or flags[0] & 0xC3 != _LZ4_VERSION or size_number[0] not in (0x40, 0x50, 0x60, 0x70):
        raise Damaged("invalid_json", "no lz4 frame that Kafka has is there")
    block_bytes = 1 << 8 + (size_number[0] >> 3)
    most = max(1, PIECE_BYTES // block_bytes)
    if not flags[0] & _LZ4_ALONE:
        most = AT_ONCE_BYTES_MAX // block_bytes
    kind = bytes([flags[0] & (_LZ4_VERSION | _LZ4_ALONE | _LZ4_CHECKED), size_number[0]])
    head = _LZ4_MAGIC + kind + _lz4_check(kind)
    start, check, end_bytes = 15 if flags[0] & _LZ4_SIZE else 7, 4 if flags[0] & _LZ4_CHECKED else 0, 4
    if flags[0] & _LZ4_CONTENT_CHECKED:
        end_bytes += 4
    end, is_end, is_first = *_blocks(data, start, check, most), True
    if is_end and end + end_bytes == len(data):
        yield bytes(cramjam.lz4.decompress(data))
        return b""
    while end > start:
        if not is_first and not flags[0] & _LZ4_ALONE:
            raise Damaged("too_large", f"lz4 of more than {AT_ONCE_BYTES_MAX} bytes that lean on each other")
        yield bytes(cramjam.lz4.decompress(head + data[start:end] + _LZ4_END))
        start, is_first = end, False
        end, is_end = _blocks(data, start, check, most)
    if not is_end:
        raise Damaged("invalid_json", "lz4 ends before its end")
    return data[end + end_bytes :]


@lru_cache
def _lz4_check(kind: bytes) -> bytes:
    """The checksum of a frame's header: a byte of the xxHash of its two bytes."""
    h = 374761395 + len(kind) - 2
    for byte in kind:
        h = h + byte * 374761393 & 0xFFFFFFFF
        h = (h << 11 | h >> 21) * 2654435761 & 0xFFFFFFFF
    h = (h ^ h >> 15) * 2246822519 & 0xFFFFFFFF
    h = (h ^ h >> 13) * 3266489917 & 0xFFFFFFFF
    return bytes([(h ^ h >> 16) >> 8 & 0xFF])


def lz4(data: bytes) -> bytes:
    """Bytes as a frame of blocks that stand alone, made quickly rather than small."""
    frame = cramjam.lz4.Compressor(level=1, content_checksum=False, block_linked=False)
    frame.compress(data)
    return bytes(frame.finish())


def _blocks(data: bytes, at: int, check: int, most: int) -> tuple[int, bool]:
    """Where some lz4 blocks end, and whether the frame's end comes then."""
    while at + 4 <= len(data):
        size = int.from_bytes(data[at : at + 4], "little") & 0x7FFFFFFF
        if not size:
            return at, True
        if not most or at + 4 + size + check > len(data):
            break
        at, most = at + 4 + size + check, most - 1
    return at, False


_XERIAL: Final = b"\x82SNAPPY\x00"
# No snappy of so many bytes has more than so many times of them.
_SNAPPY_RATIO_MAX: Final = 64


def _snappy(data: bytes) -> Generator[bytes, None, bytes]:
    if data[:8] != _XERIAL:
        yield _unsnapped(data)
        return b""
    at, blocks, size = 16, list[bytes](), 0
    try:
        while at < len(data):
            end = at + 4 + int.from_bytes(data[at : at + 4])
            if end > len(data):
                raise Damaged("invalid_json", "snappy ends before its end")
            blocks.append(_unsnapped(data[at + 4 : end]))
            at, size = end, size + len(blocks[-1])
            if size >= PIECE_BYTES:
                yield b"".join(blocks)
                blocks, size = [], 0
    except Exception:
        yield b"".join(blocks)
        raise
    yield b"".join(blocks)
    return b""


def _unsnapped(block: bytes) -> bytes:
    size = cramjam.snappy.decompress_raw_len(block)
    if size > AT_ONCE_BYTES_MAX:
        raise Damaged("too_large", f"snappy of {size} bytes, more than {AT_ONCE_BYTES_MAX}")
    if size > _SNAPPY_RATIO_MAX * len(block):
        raise Damaged("invalid_json", f"snappy of {len(block)} bytes cannot be {size} bytes")
    return bytes(cramjam.snappy.decompress_raw(block))


_FRAMES: Final[dict[int, tuple[str, Callable[[bytes], Generator[bytes, None, bytes]]]]] = {
    1: ("gzip", _gzip), 2: ("snappy", _snappy), 3: ("lz4", _lz4), 4: ("zstd", _zstd),
}  # fmt: skip
