"""Record batches to entries, by the Python and by the compiled part: the same, whatever bytes they are made of."""

import gzip
import os
import struct
import tracemalloc
from collections.abc import Callable
from typing import Any, Final

import cramjam
import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c
from hypothesis import given
from hypothesis import strategies as st

from schemas import native
from schemas.strict_json import VALUE_BYTES_MAX
from streams import frames, record_batches
from streams.record_batches import Batch, Part, read
from tests.hostile.raw import _COMPRESS, batch, record, varint

pytestmark = pytest.mark.usefixtures("way")
NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)
CODECS: Final = (NONE, GZIP, SNAPPY, LZ4, ZSTD)
BROKER_TIME, CONTROL = 0x08, 0x20
MIB: Final = 1 << 20

Told = tuple[int, int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]
some_bytes = st.one_of(st.none(), st.binary(max_size=300))
some_records = st.lists(
    st.tuples(
        st.integers(0, 1 << 45), some_bytes, some_bytes,
        st.lists(st.tuples(st.text(max_size=20), st.one_of(st.none(), st.binary(max_size=20))), max_size=3),
    ),
    min_size=1, max_size=30,
)  # fmt: skip


def honest(records: list[Any], codec: int = NONE, base_offset: int = 0) -> bytes:
    """A record batch as it lies in a log: (time in ms, key, value, headers) each."""
    builder = DefaultRecordBatchBuilder(2, codec, 0, -1, -1, -1, 1 << 24)
    for n, (ms, key, value, headers) in enumerate(records):
        assert builder.append(n, ms, key, value, headers) is not None
    return base_offset.to_bytes(8) + bytes(builder.build())[8:]


def told(records: Any) -> list[Told]:
    """All that a reader asks of records."""
    return [(r.offset, r.timestamp, r.key, r.value, list(r.headers)) for r in records]


def placed(data: bytes, base_offset: int) -> bytes:
    """A batch where the broker put it."""
    return base_offset.to_bytes(8) + data[8:]


def summed(data: bytes) -> bytes:
    """A batch with the checksum of what it holds."""
    crc: int = calc_crc32c(data[21:])
    return data[:17] + crc.to_bytes(4) + data[21:]


def some(count: int, **more: Any) -> list[bytes]:
    """So many small records."""
    return [record(b"k%d" % n, b"v%d" % n, delta=n, **more) for n in range(count)]


def part_of(data: bytes, records: int = 0) -> Part:
    """The one part that no entry can be made of, after so many entries."""
    entries, refused = read(data)
    assert len(entries) == records and len(refused) == 1, (entries, refused)
    return refused[0]


# ---- what is as it should be -----------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", CODECS)
@given(records=some_records, base_offset=st.integers(0, 1 << 40))
def test_they_are_what_the_client_library_reads(codec: int, records: list[Any], base_offset: int) -> None:
    """Offsets, times, keys, values and headers, none and empty told apart, under every compression."""
    data = honest(records, codec, base_offset)
    entries, refused = read(data)
    assert not refused
    assert told(entries) == told(MemoryRecords(data).next_batch())


@pytest.mark.parametrize("codec", [NONE, GZIP, SNAPPY, LZ4])
@pytest.mark.parametrize("magic", [0, 1])
@given(records=some_records)
def test_old_formats_are_what_the_client_library_reads(magic: int, codec: int, records: list[Any]) -> None:
    """Messages of magic 0 have no time, those of a set in magic 1 offsets relative to their set's."""
    builder = LegacyRecordBatchBuilder(magic, codec if (magic, codec) != (0, LZ4) else NONE, 1 << 24)
    for n, (ms, key, value, _) in enumerate(records):
        builder.append(n, ms, key, value)
    data = bytes(builder.build())
    if codec != NONE and (magic, codec) != (0, LZ4):  # the broker gives a set the offset of its last
        data = (len(records) - 1).to_bytes(8) + data[8:]
    log, left, wanted, found = MemoryRecords(data), memoryview(data), list[Any](), list[Any]()
    while (one := log.next_batch()) is not None:
        wanted += [(r.offset, -1 if r.timestamp is None else r.timestamp, r.key, r.value) for r in one]
        entries, refused = read(bytes(left[: (size := record_batches.next_size(left))]))
        left, found = left[size:], found + [(e.offset, e.timestamp, e.key, e.value) for e in entries]
        assert not refused
    assert found == wanted


def test_a_time_that_the_broker_gave_is_that_of_all() -> None:
    """A topic with `LogAppendTime` has one time a batch, in its header, also one before the epoch."""
    for newest_ms in (9, -9):
        entries, _ = read(batch(some(2, ms=5), 1, newest_ms=newest_ms, attributes=BROKER_TIME))
        assert [entry.timestamp for entry in entries] == [newest_ms, newest_ms]


@pytest.mark.parametrize("codec", CODECS)
def test_a_batch_of_no_records_has_none(codec: int) -> None:
    """Compaction leaves them behind; their offsets are passed over."""
    data = placed(batch([], 5, codec=codec, payload=b"", last_delta=3), 40)
    assert read(data) == ([], [])
    assert Batch(memoryview(data)).last_offset == 43


def test_compacted_batches_keep_the_offsets_that_are_left() -> None:
    """Fewer records than offsets: each says which it has."""
    entries, refused = read(placed(batch([record(b"a", b"1", delta=2), record(b"b", b"2", delta=5)], 5, last_delta=7), 10))
    assert ([entry.offset for entry in entries], refused) == ([12, 15], [])


def test_a_chunk_has_a_bounded_number_of_entries() -> None:
    """100,000 records of one batch come a thousand at a time, each once."""
    one = Batch(memoryview(batch(some(100_000), 5, codec=LZ4)))
    offsets: list[int] = []
    for chunk in one.chunks():
        assert len(chunk) <= record_batches.CHUNK_RECORDS_MAX
        offsets += [entry.offset for entry in chunk]
    assert offsets == list(range(100_000)) and one.is_done


# ---- odd, and entries all the same -----------------------------------------------------------------------------


def test_lengths_below_zero_are_no_bytes_at_all() -> None:
    """-2 is what -1 is, as in the Java client."""
    entries, refused = read(batch([record(None, b"v", [(b"h", None)], key_size=-2)], 5))
    assert (told(entries), refused) == ([(0, 5, None, b"v", [("h", None)])], [])


@pytest.mark.parametrize("name", [b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"", b"\x00", "ä€𝄞".encode()])
def test_names_of_headers_are_kept_byte_for_byte(name: bytes) -> None:
    """Whatever they are: a dead letter has them as they were."""
    (entry,), _ = read(batch([record(b"k", b"v", [(name, b"x")])], 5))
    ((kept, _),) = entry.headers
    assert record_batches.name_bytes(kept) == name


@pytest.mark.parametrize("attributes", [0x01, 0x7F, 0x80, 0xFF])
def test_attributes_of_a_record_say_nothing(attributes: int) -> None:
    """One byte that the format keeps for later."""
    entries, refused = read(batch([record(b"k", b"v", attributes=attributes)], 5))
    assert (told(entries), refused) == ([(0, 5, b"k", b"v", [])], [])


@pytest.mark.parametrize(
    ("base_ms", "ms", "sum_ms"),
    [
        (0, -(1 << 63), -(1 << 63)), (-1, -(1 << 63), (1 << 63) - 1), ((1 << 63) - 1, 1, -(1 << 63)),
        (1 << 62, 1 << 62, -(1 << 63)), (-(1 << 63), (1 << 63) - 1, -1),
    ],
)  # fmt: skip
def test_times_at_the_ends_go_on_at_the_other_end(base_ms: int, ms: int, sum_ms: int) -> None:
    """As Java adds them."""
    (entry,), _ = read(batch([record(b"k", b"v", ms=ms)], base_ms))
    assert entry.timestamp == sum_ms


@pytest.mark.parametrize("deltas", [[0, 0, 0], [5, 4, 3], [-1, -2, 1 << 40], [(1 << 63) - 1, -(1 << 63), 7]])
def test_where_no_record_is_missing_their_order_is_their_offset(deltas: list[int]) -> None:
    """A broker counts records; it takes whatever offsets they say of themselves."""
    records = [record(b"k", b"%d" % n, delta=delta) for n, delta in enumerate(deltas)]
    entries, refused = read(placed(batch(records, 5), 70))
    assert ([(e.offset, e.value) for e in entries], refused) == ([(70, b"0"), (71, b"1"), (72, b"2")], [])


def test_the_last_offset_there_is() -> None:
    """Beyond it there is none; no sum fails."""
    entries, refused = read(placed(batch(some(2), 5), (1 << 63) - 2))
    assert ([entry.offset for entry in entries], refused) == ([(1 << 63) - 2, (1 << 63) - 1], [])


def test_more_headers_than_are_kept() -> None:
    """The first of them, how many there were, and an entry that is decoded like any other."""
    headers = [(b"h", b"%d" % n) for n in range(record_batches.HEADERS_MAX + 1)]
    entries, refused = read(batch([record(b"k", b"v", headers), record(b"l", b"w", delta=1)], 5))
    assert (len(entries[0].headers), entries[0].sizes, entries[0].rejected) == (10_000, (1, 1, 10_001), None)
    assert (entries[1].key, refused) == (b"l", [])


@pytest.mark.parametrize("codec", [GZIP, LZ4, ZSTD])
def test_a_second_frame_goes_on_where_the_first_ended(codec: int) -> None:
    """What a client wrote in two goes is one content."""
    one, two = some(2)
    payload = _COMPRESS[codec](one[:-1]) + _COMPRESS[codec](one[-1:] + two)
    entries, refused = read(batch([b"", b""], 5, codec=codec, payload=payload))
    assert ([entry.value for entry in entries], refused) == ([b"v0", b"v1"], [])


@pytest.mark.parametrize("size", [4, 5, 6, 7])
@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("checked", [False, True])
def test_every_kind_of_lz4(size: int, linked: bool, checked: bool) -> None:
    """Blocks of each size, alone or not, with sums and sizes told or not, in pieces of a megabyte."""
    content = os.urandom(1_000) * 3_000
    told = {"block_checksum": checked, "content_checksum": checked, "store_size": checked}
    made = pytest.importorskip("lz4.frame").compress(content, block_size=size, block_linked=linked, **told)
    assert b"".join(frames.pieces(LZ4, made)) == content


def test_both_framings_of_snappy() -> None:
    """In blocks as Java has them, and in one as librdkafka has it."""
    content = os.urandom(1_000) * 100
    blocks = [bytes(cramjam.snappy.compress_raw(content[at : at + 32_768])) for at in range(0, len(content), 32_768)]
    framed = b"\x82SNAPPY\x00" + struct.pack(">ii", 1, 1) + b"".join(struct.pack(">i", len(b)) + b for b in blocks)
    assert b"".join(frames.pieces(SNAPPY, framed)) == content
    assert b"".join(frames.pieces(SNAPPY, bytes(cramjam.snappy.compress_raw(content)))) == content


# ---- what no entry can be made of ------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", [GZIP, LZ4, ZSTD])
def test_stray_bytes_behind_a_frame_are_one_part(codec: int) -> None:
    """The records are read as the Java consumer reads them; the bytes behind them are refused with the last offset."""
    payload = _COMPRESS[codec](b"".join(some(3))) + b"*" * 40
    part = part_of(placed(batch([b""] * 3, 5, codec=codec, payload=payload), 20), records=3)
    assert (part.offset, part.last, part.value) == (22, 22, b"*" * 40)
    assert part.rejected and part.rejected.reason == "invalid_json"
    assert part.rejected.detail.startswith("value: behind the last record of a batch ")


def test_stray_bytes_behind_the_records_are_one_part() -> None:
    """Also where nothing is compressed."""
    part = part_of(batch([*some(2), b"***"], 5, count=2), records=2)
    assert (part.offset, part.value) == (1, b"***")


@pytest.mark.parametrize("codec", [GZIP, SNAPPY, LZ4, ZSTD])
def test_a_frame_that_is_cut_short(codec: int) -> None:
    """What can be read is read; the rest is one part with the batch as it lies in the log."""
    payload = _COMPRESS[codec](b"".join([*some(3), record(b"k", os.urandom(300))]))[:-60]
    data = placed(batch([b""] * 4, 5, codec=codec, payload=payload), 20)
    entries, refused = read(data)
    (part,) = refused
    assert (part.offset, part.last, part.value) == (20 + len(entries), 23, data)


@pytest.mark.parametrize("codec", [5, 6, 7])
def test_a_codec_nobody_knows(codec: int) -> None:
    """The whole batch is one part."""
    data = placed(batch(some(3), 5, attributes=codec), 20)
    part = part_of(data)
    assert (part.offset, part.last, part.value, part.key) == (20, 22, data, None)


def test_a_record_that_is_none_stands_for_itself() -> None:
    """Those around it are read: it says where it ends."""
    bad = varint(6) + b"\x00\x00\x00\x01\x01\x05"  # five headers that are not there
    one, two, three = some(3)
    entries, refused = read(batch([one, bad, bad, two, three], 5))
    assert [(e.offset, e.value) for e in entries] == [(0, b"v0"), (3, b"v1"), (4, b"v2")]
    assert [(p.offset, p.last, p.value) for p in refused] == [(1, 2, bad + bad)]


@pytest.mark.parametrize(
    "body",
    [
        b"\x00\x00\x00\x01\x01\x00\x00", b"\x00\x00\x00\x01\x01", b"\x00\x00\x00\x01\x01\x01",
        b"\x00\x00\x00\x01\x01\x02\x01\x01", b"\x00\x00\x00\x04k\x01\x00", b"\x00\x00\x00\x01\x04v\x00",
        b"\x00\x00\x00\x01\x01\x02\x02h\x04x", b"\x00" + b"\xff" * 10 + b"\x00\x01\x01\x00",
    ],
    ids=[
        "a byte is left over", "no headers", "a count below zero", "a header without a name", "a key beyond the end",
        "a value beyond the end", "a header beyond the end", "a number of over 64 bits",
    ],
)  # fmt: skip
def test_what_is_no_record(body: bytes) -> None:
    """It says where it ends, and is not what the format has there."""
    bad = varint(len(body)) + body
    entries, (part,) = read(batch([bad, *some(1)], 5))
    assert ([entry.offset for entry in entries], part.offset, part.value) == ([1], 0, bad)


@pytest.mark.parametrize("deltas", [[2, 2], [3, 1], [1, 9], [-1, 3], [1 << 62, 3]])
def test_where_records_are_missing_offsets_must_rise(deltas: list[int]) -> None:
    """Within the batch; from the first that does not, nobody knows which entry is which."""
    records = [record(b"k", b"%d" % n, delta=delta) for n, delta in enumerate(deltas)]
    sound = 1 if 0 <= deltas[0] <= 5 else 0
    part = part_of(batch(records, 5, last_delta=5), records=sound)
    assert (part.offset, part.last) == (deltas[0] + 1 if sound else 0, 5)


@pytest.mark.parametrize("bad", [b"", b"\x00" * 9, b"\x01\x00\x00", b"\xff" * 12, varint(1 << 40) + b"\x00" * 9])
def test_where_no_record_ends_the_rest_is_one_part(bad: bytes) -> None:
    """No length, none that can be, or none that ends."""
    part = part_of(batch([*some(2), bad], 5, count=5), records=2)
    assert (part.offset, part.last, part.value) == (2, 4, bad if len(bad) != 15 else part.value)


def test_noise_is_one_part_however_many_records_it_claims() -> None:
    """Not one for each."""
    for payload in (b"\x02\x00" * 100_000, b"\x00" * 100_000, os.urandom(100_000)):
        _, refused = read(batch([], 5, payload=payload, count=90_000))
        assert sum(part.last - part.offset + 1 for part in refused) <= 90_000
        assert len(refused) < 20


@pytest.mark.parametrize("count", [-1, -(1 << 31), 5, (1 << 31) - 1])
def test_a_count_that_cannot_be(count: int) -> None:
    """What is there is read where the count allows it; the rest is one part."""
    _, (part,) = read(batch(some(2), 5, count=count))
    assert part.rejected and part.last == max(0, count - 1)


@pytest.mark.parametrize("last_delta", [-1, -(1 << 31), 0])
def test_a_last_offset_before_the_first(last_delta: int) -> None:
    """Each offset stands for one entry at most, and the log goes on after it."""
    data = placed(batch(some(3), 5, last_delta=last_delta), 50)
    entries, refused = read(data)
    assert {entry.offset for entry in [*entries, *refused]} == {50}
    assert Batch(memoryview(data)).last_offset == 50


def test_another_checksum() -> None:
    """Nothing in the batch is believed."""
    data = bytearray(placed(batch(some(3), 5), 7))
    data[-1] ^= 1
    part = part_of(bytes(data))
    assert (part.offset, part.last, part.value) == (7, 9, bytes(data))


@given(st.binary(max_size=100), st.integers(0, 255))
def test_noise_is_read(noise: bytes, magic: int) -> None:
    """As one part, with the magic of any format, however short it is."""
    data = noise[:16] + bytes([magic]) + noise[17:]
    for given_ in (noise, data, summed(data) if len(data) > 21 else data):
        entries, refused = read(given_)
        assert entries or refused or (given_[16:17] == b"\x02")


# ---- sizes -----------------------------------------------------------------------------------------------------


def _zstd(data: bytes) -> bytes:
    return bytes(cramjam.zstd.compress(data, 3))


def bomb(mib: int, compress: Callable[[bytes], bytes] = _zstd, codec: int = ZSTD) -> bytes:
    """A batch of one record that has so many MiB of zeros for a value, and one record after it."""
    payload = compress(record(b"k", bytes(mib << 20), [(b"h", b"x")]) + record(b"l", b"w", delta=1))
    return batch([b"", b""], 5, codec=codec, payload=payload)


@pytest.mark.parametrize(("mib", "headers"), [(2, 1), (5, 1), (15, 1), (17, 0), (60, 0)])
def test_a_value_that_is_too_large_is_kept_in_part(mib: int, headers: int) -> None:
    """Its key and its first bytes, its headers if they are not far, its size; the record after it is read."""
    entries, refused = read(bomb(mib))
    (large,) = refused or entries[:1]
    assert (large.offset, large.key, list(large.headers)) == (0, b"k", [("h", b"x")][:headers])
    if mib > 2:
        assert large.sizes[1] == mib << 20 and large.value == bytes(2 * MIB)
        assert large.rejected and large.rejected.reason == "too_large" and str(mib << 20) in large.rejected.detail
    assert entries[-1].key == b"l"


@pytest.mark.parametrize(("mib", "compress", "codec"), [(257, _zstd, ZSTD), (100, gzip.compress, GZIP)])
def test_a_value_that_is_far_too_large_is_not_looked_through(mib: int, compress: Any, codec: int) -> None:
    """8 KB of zstd can be 257 MiB: one part for it and all after it, and no more memory than 64 MiB."""
    data = bomb(mib, compress, codec)
    tracemalloc.start()
    part = part_of(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 * MIB
    assert (part.offset, part.last, part.key, part.sizes[1]) == (0, 1, b"k", mib << 20)
    assert part.rejected and part.rejected.reason == "too_large"


def test_a_claim_of_snappy_is_not_believed() -> None:
    """Neither one that is too large nor one that cannot be."""
    for claim in (b"\xff\xff\xff\xff\x0f", b"\x80\x80\x80\x08"):
        part = part_of(batch([b""], 5, codec=SNAPPY, payload=claim + b"*" * 20))
        assert part.rejected and "snappy" in part.rejected.detail


def test_a_header_that_is_too_large_is_left_out() -> None:
    """The value is whole, so the entry is decoded like any other."""
    payload = _zstd(record(b"k", b"{}", [(b"a", b"1"), (b"h", bytes(8 << 20)), (b"b", b"2")]))
    (entry,), refused = read(batch([b""], 5, codec=ZSTD, payload=payload))
    assert (entry.key, entry.value, entry.headers, entry.sizes, refused) == (b"k", b"{}", [("a", b"1")], (1, 2, 3), [])


def test_a_key_that_is_too_large_is_kept_in_part() -> None:
    """As far as a dead letter has room for it."""
    payload = _zstd(record(bytes(8 << 20), b"{}"))
    (entry,), refused = read(batch([b""], 5, codec=ZSTD, payload=payload))
    assert (len(entry.key), entry.value, entry.sizes, refused) == (2 * MIB, b"{}", (8 << 20, 2, 0), [])


def test_many_honest_records_are_read_however_many_bytes_they_are() -> None:
    """300 MiB in a batch of some KB: each is within its limits, and they pass through memory piece by piece."""
    value = bytes(VALUE_BYTES_MAX)
    one = batch([b""] * 300, 5, codec=ZSTD, payload=_zstd(b"".join(record(b"k", value, delta=n) for n in range(300))))
    tracemalloc.start()
    count = sum(len(chunk) for chunk in Batch(memoryview(one)).chunks())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (count, peak < 32 * MIB) == (300, True)


# ---- anything at all -------------------------------------------------------------------------------------------


def _sound(data: bytes) -> list[Told] | None:
    """What aiokafka reads of a batch; None where it refuses it."""
    try:
        return told(MemoryRecords(data).next_batch())
    except Exception:
        return None


changes = st.lists(st.tuples(st.integers(21, 400), st.integers(0, 255)), max_size=4)


@pytest.mark.native
@given(some_records, st.sampled_from(CODECS), changes, st.integers(0, 60), st.booleans())
def test_whatever_is_changed_both_ways_read_the_same(
    records: list[Any], codec: int, at: list[tuple[int, int]], cut: int, cuts: bool
) -> None:
    """Bytes changed or cut off, under a checksum that is right: nothing is raised, and what aiokafka takes is the same.

    But for offsets that a record says of itself, and names of headers that are no UTF-8, which it refuses.
    """
    data = bytearray(honest(records, codec, 1_000))
    for place, byte in at:
        data[place % len(data) if place % len(data) > 20 else 21] = byte
    whole = bytes(data[: len(data) - cut * cuts]) if len(data) - cut * cuts > 61 else bytes(data)
    whole = summed(whole[:8] + (len(whole) - 12).to_bytes(4) + whole[12:])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "enabled", False)
        defined = read(whole)
    entries, refused = read(whole)
    assert (told(entries), told(refused)) == (told(defined[0]), told(defined[1]))
    _fit(whole, entries, refused)
    wanted = None if refused else _sound(whole)
    if wanted is not None and [r[0] for r in wanted] == [e.offset for e in entries]:
        assert told(entries) == wanted


def _fit(data: bytes, entries: list[Any], refused: list[Part]) -> None:
    """Each offset at most once but for stray bytes, all within the batch."""
    one = Batch(memoryview(data))
    offsets = [entry.offset for entry in entries]
    assert offsets == sorted(set(offsets))
    for part in refused:
        assert one.base_offset <= part.offset <= part.last <= one.last_offset
        assert part.rejected and not any(part.offset <= o < part.last for o in offsets)


# ---- written ---------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(some_bytes, some_bytes, st.lists(st.tuples(st.binary(max_size=9), some_bytes), max_size=3)), max_size=40))
def test_what_is_written_is_read(entries: list[Any]) -> None:
    """Byte for byte, with any header's name and without key and value; none is larger than was reckoned."""
    named = [(k, v, [(name.decode("utf-8", "surrogateescape"), x) for name, x in headers]) for k, v, headers in entries]
    data = bytes(record_batches.encode(named, 1_700_000_000_000))
    found, refused = read(data)
    assert ([(e.key, e.value, list(e.headers)) for e in found], refused) == (named, [])
    for one in named[:1]:
        assert len(record_batches.encode([one], 1 << 42)) <= record_batches.size_of(*one)
