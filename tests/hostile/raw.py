"""Make record batches byte by byte that a broker takes and few readers like, and read dead letters byte by byte.

Shares no code with the product. The format is Kafka's record batch of magic 2 (KIP-98); aiokafka only carries the bytes.
"""

import json
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import cramjam
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import TopicPartition

GZIP, SNAPPY, LZ4, ZSTD = 1, 2, 3, 4
NO_TIME: Final = -(1 << 63)


def _lz4(data: bytes) -> bytes:
    """A frame of blocks that stand alone, as brokers ask for (KIP-57)."""
    compressor = cramjam.lz4.Compressor(level=9, content_checksum=False, block_linked=False)
    compressor.compress(data)
    return bytes(compressor.finish())


_COMPRESS: Final[dict[int, Callable[[bytes], bytes]]] = {
    0: lambda data: data, GZIP: lambda data: bytes(cramjam.gzip.compress(data)), SNAPPY: lambda data: bytes(cramjam.snappy.compress_raw(data)),
    LZ4: _lz4, ZSTD: lambda data: bytes(cramjam.zstd.compress(data)),
}  # fmt: skip
_EXPAND: Final[dict[int, Callable[[bytes], bytes]]] = {
    0: bytes, GZIP: lambda data: bytes(cramjam.gzip.decompress(data)), LZ4: lambda data: bytes(cramjam.lz4.decompress(data)),
    ZSTD: lambda data: bytes(cramjam.zstd.decompress(data)),
}  # fmt: skip
Headers = Sequence[tuple[bytes, bytes | None]]


class Raw(NamedTuple):
    """A batch to produce: what must come of its messages (`record`, `letter` or `either`), and how many offsets it takes."""

    name: str
    topic: str
    key: bytes
    data: bytes
    ids: tuple[str, ...]
    comes: str
    offsets: int = 1


class Batch(NamedTuple):
    """A batch that the broker took, and where it stands."""

    raw: Raw
    topic: str
    partition: int
    offset: int
    taken: int


class Letter(NamedTuple):
    """A dead letter as it stands in the topic."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[bytes, bytes | None]]


# ---- writing ---------------------------------------------------------------------------------------------------


def varint(number: int) -> bytes:
    """Zigzag, seven bits a byte, of 64 bits."""
    left = ((number << 1) ^ (number >> 63)) & (1 << 64) - 1
    out = bytearray()
    while left > 0x7F:
        out.append(left & 0x7F | 0x80)
        left >>= 7
    return bytes([*out, left])


def _sized(data: bytes | None) -> bytes:
    return varint(-1) if data is None else varint(len(data)) + data


def record(key: bytes | None, value: bytes | None, headers: Headers = (), *, attributes: int = 0, ms: int = 0, delta: int = 0,
           key_size: int | None = None) -> bytes:  # fmt: skip
    """One record; `key_size` lies about the key and leaves it out."""
    told = _sized(key) if key_size is None else varint(key_size)
    body = bytes([attributes]) + varint(ms) + varint(delta) + told + _sized(value) + varint(len(headers))
    body += b"".join(_sized(name) + _sized(content) for name, content in headers)
    return varint(len(body)) + body


def batch(records: Sequence[bytes], base_ms: int, *, newest_ms: int | None = None, codec: int = 0, payload: bytes | None = None,
          count: int | None = None, attributes: int = 0, last_delta: int | None = None) -> bytes:  # fmt: skip
    """A record batch; `payload` takes the place of the compressed records."""
    body = _COMPRESS[codec](b"".join(records)) if payload is None else payload
    number = len(records) if count is None else count
    last = max(number - 1, 0) if last_delta is None else last_delta
    head = struct.pack(">hiqqqhii", codec | attributes, last, base_ms, base_ms if newest_ms is None else newest_ms, -1, -1, -1, number)
    return struct.pack(">qiibI", 0, len(head + body) + 9, -1, 2, calc_crc32c(head + body)) + head + body


def batches(seed: int, now_ms: int) -> Iterator[Raw]:
    """Every case once; `seed` makes the ids."""
    for number, make in enumerate((_plain, _compressed, _bombs, _masses, _refused)):
        yield from make(f"raw-{seed}-{number}", now_ms)


def _send(mid: str, now_ms: int) -> bytes:
    at = datetime.fromtimestamp(now_ms / 1000, UTC).isoformat(timespec="milliseconds")
    return json.dumps({"event_id": f"{mid}-e", "message_id": mid, "occurred_at": at, "account_id": "raw", "from": "12345", "to": "+4791234567"}).encode()


def _one(mid: str, name: str, data: bytes, comes: str) -> Raw:
    return Raw(name, "sends", mid.encode(), data, (mid,), comes)


def _plain(prefix: str, now_ms: int) -> Iterator[Raw]:
    """One odd record in a batch of its own."""
    odd: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
        "a header key that is no UTF-8": ({"headers": [(b"\xff\xfe", b"x")]}, {}, "record"),
        "a header without value and one without name": ({"headers": [(b"a", None), (b"", b"")]}, {}, "record"),
        "a key of length -2": ({"key_size": -2}, {}, "letter"),
        "a key of length -2, a header key that is no UTF-8": ({"key_size": -2, "headers": [(b"\xff", b"x")]}, {}, "letter"),
        "attributes of a record": ({"attributes": 0x80}, {}, "record"),
        "the smallest time there is": ({"ms": NO_TIME}, {"base_ms": -1, "newest_ms": -1}, "either"),
        "a time before the epoch": ({"ms": -(1 << 40)}, {"base_ms": 0, "newest_ms": 0}, "either"),
        "an old time": ({}, {"base_ms": 1_000}, "either"),
        "a time in the far future": ({}, {"base_ms": 1 << 62}, "either"),
        "a time that overflows": ({"ms": (1 << 63) - 1}, {"base_ms": now_ms}, "either"),
        "3,000 headers": ({"headers": [(b"h%d" % n, b"v" * 100) for n in range(3_000)]}, {}, "record"),
    }  # fmt: skip
    for number, (name, (of_record, of_batch, comes)) in enumerate(odd.items()):
        mid = f"{prefix}-{number}"
        yield _one(mid, name, batch([record(mid.encode(), _send(mid, now_ms), **of_record)], **{"base_ms": now_ms, **of_batch}), comes)
    for number, (key, value) in enumerate(((None, None), (None, b"{}"), (b"k", None), (b"\xff\x00", b"\xff"), (b"", b""))):
        yield Raw(f"key {key!r} and value {value!r}", "receipts", b"", batch([record(key, value)], now_ms), (), "letter")
        yield Raw(f"the same in front of headers, {number}", "sends", b"", batch([record(key, value, [(b"\xc3\x28", b"\x00")])], now_ms), (), "letter")


def _compressed(prefix: str, now_ms: int) -> Iterator[Raw]:
    """Stray bytes behind a frame, and frames of every codec that are sound."""
    for codec in (GZIP, SNAPPY, LZ4, ZSTD):
        for name, tail in (("", b""), ("40 stray bytes after the frame", b"\x2a" * 40), ("a second frame", None)):
            mid = f"{prefix}-{codec}-{len(name)}"
            body = _COMPRESS[codec](record(mid.encode(), _send(mid, now_ms)))
            payload = body + (body if tail is None else tail)
            yield _one(mid, f"codec {codec}: {name or 'sound'}", batch([b""], now_ms, codec=codec, payload=payload), "either" if name else "record")
        cut = _COMPRESS[codec](record(b"k", os.urandom(300)))[:-20]
        yield Raw(f"codec {codec}: cut short", "sends", b"", batch([b""], now_ms, codec=codec, payload=cut), (), "letter")


def _bombs(prefix: str, now_ms: int) -> Iterator[Raw]:
    """A few KB that become hundreds of MB."""
    for codec, mb in ((ZSTD, 257), (ZSTD, 768), (GZIP, 128)):
        mid = f"{prefix}-{codec}-{mb}"
        yield _one(mid, f"codec {codec}: a value of {mb} MiB", batch([record(mid.encode(), b"\x00" * (mb << 20))], now_ms, codec=codec), "letter")
    mid = f"{prefix}-header"
    noise = os.urandom(256 << 10)
    yield _one(mid, "a header of 8 MiB", batch([record(mid.encode(), b"{}", [(b"h", noise * 32)])], now_ms, codec=ZSTD), "letter")
    mid = f"{prefix}-key"
    yield Raw("a key of 8 MiB", "sends", b"", batch([record(noise * 32, b"{}")], now_ms, codec=ZSTD), (), "letter")


def _masses(prefix: str, now_ms: int) -> Iterator[Raw]:
    """Very many records in one batch."""
    many = [record(b"k", b"{}", delta=n) for n in range(100_000)]
    yield Raw("100,000 tiny records", "sends", b"k", batch(many, now_ms, codec=LZ4), (), "letter", len(many))
    ids = tuple(f"{prefix}-{n}" for n in range(2_000))
    good = [record(mid.encode(), _send(mid, now_ms), delta=n) for n, mid in enumerate(ids)]
    yield Raw("2,000 sends in one batch, all in one partition", "sends", b"k", batch(good, now_ms, codec=ZSTD), ids, "record", len(good))


def _refused(prefix: str, now_ms: int) -> Iterator[Raw]:
    """What a broker should refuse; where it does not, reading must go on."""
    one = record(b"k", b"{}")
    yield Raw("no records", "sends", b"", batch([], now_ms), (), "nothing")
    yield Raw("a count that is too large", "sends", b"", batch([one], now_ms, count=5), (), "letter", 5)
    yield Raw("a last offset far ahead", "sends", b"", batch([one], now_ms, last_delta=1_000), (), "letter", 1_001)
    yield Raw("stray bytes after the records", "sends", b"", batch([one, b"\x00\x00\x00"], now_ms, count=1), (), "letter")
    yield Raw("a record that is cut short", "sends", b"", batch([one[:-3]], now_ms), (), "letter")
    yield Raw("a codec nobody knows", "sends", b"", batch([one], now_ms, attributes=7), (), "letter")
    yield Raw("a control batch", "sends", b"", batch([record(b"\x00\x00\x00\x01", b"\x00" * 6)], now_ms, attributes=0x20), (), "nothing")


async def produce(bootstrap: str, prefix: str, raw: Raw, partition_of: Callable[[bytes], int]) -> Batch | None:
    """Produces a batch as it is; None where the broker refuses it."""
    topic, partition = prefix + raw.topic, partition_of(raw.key)
    async with _client(bootstrap, topic) as client:
        node = client.cluster.leader_for_partition(TopicPartition(topic, partition))
        request = ProduceRequest(transactional_id=None, required_acks=-1, timeout=30_000, topics=[(topic, [(partition, raw.data)])])
        answer = await client.send(node, request)
        _, code, offset, *_ = answer.topics[0][1][0]
    return None if code else Batch(raw, topic, partition, offset, raw.offsets)


class _client:  # noqa: N801  # used as a function
    """A connected client that knows a topic."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._client = AIOKafkaClient(bootstrap_servers=bootstrap, request_timeout_ms=60_000)
        self._topic = topic

    async def __aenter__(self) -> Any:
        await self._client.bootstrap()
        self._client.add_topic(self._topic)
        await self._client.force_metadata_update()
        return self._client

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()


# ---- reading ---------------------------------------------------------------------------------------------------


async def letters(bootstrap: str, topic: str, partitions: int) -> list[Letter]:
    """Every dead letter of a topic."""
    found: list[Letter] = []
    async with _client(bootstrap, topic) as client:
        for partition in range(partitions):
            node, at, end = client.cluster.leader_for_partition(TopicPartition(topic, partition)), 0, 1
            while at < end:
                answer = await client.send(node, FetchRequest(500, 1, 64 << 20, 0, [(topic, [(partition, at, 64 << 20)])], rack_id=""))
                part = answer.topics[0][1][0]
                assert not part[1], f"the broker answers with code {part[1]}"
                end = part[2]
                for offset, data in _split(part[-1]):
                    found += [letter for letter_at, letter in _records(data) if offset + letter_at >= at]
                    at = offset + struct.unpack_from(">i", data, 23)[0] + 1
    return found


def _split(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Base offset and bytes of each whole batch."""
    at = 0
    while len(data) - at > 12:
        offset, size = struct.unpack_from(">qi", data, at)
        if len(data) - at - 12 < size:
            return
        yield offset, data[at : at + 12 + size]
        at += 12 + size


def _records(data: bytes) -> Iterator[tuple[int, Letter]]:
    """Offset within the batch and content of each record; nothing of a control batch."""
    attributes, count = struct.unpack_from(">h", data, 21)[0], struct.unpack_from(">i", data, 57)[0]
    if attributes & 0x20:
        return
    body = _EXPAND[attributes & 7](data[61:])
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = body[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return (value >> 1) ^ -(value & 1)

    def text() -> bytes | None:
        nonlocal at
        size = number()
        if size < 0:
            return None
        at += size
        return body[at - size : at]

    for _ in range(count):
        number()
        at += 1
        number()
        delta, key, value = number(), text(), text()
        yield delta, Letter(key, value, [(text() or b"", text()) for _ in range(number())])
