"""The dead letters as they lie on their topic: read newest first, within bounds, and sent once more."""

import asyncio
import re
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from schemas.strict_json import Rejected
from schemas.times import format_rfc3339
from streams import kafka, letters
from streams.letters import Letter
from streams.settings import Settings
from streams.store import Store

SCANNED_MAX: Final = 20_000
# Of values kept at once; a letter may have 4 MiB.
_BYTES_MAX: Final = 64 << 20
_WINDOW: Final = 500
_FETCH_MS: Final = 2_000
_BATCH: Final = 500
_ID: Final = re.compile(r"(.*):([0-9]{1,6}):([0-9]{1,18})")
Tell = Callable[[int, int], None]
Identity = tuple[str, int, int]


class Wanted(NamedTuple):
    """Which letters: each part that is given must fit. `topic` is that of the input, with or without prefix."""

    reason: str = ""
    topic: str = ""
    fingerprint: str = ""
    key: bytes | None = None
    until_ms: int | None = None

    def fits(self, letter: Letter, prefix: str) -> bool:
        """Whether a letter is meant."""
        return (
            self.reason in ("", letter.reason)
            and self.topic in ("", letter.topic, letter.topic.removeprefix(prefix))
            and (not self.fingerprint or self.fingerprint == letters.fingerprint(letter.reason, letter.detail))
            and (self.key is None or self.key == letter.key)
            and (self.until_ms is None or letter.landed_ms < self.until_ms)
        )


class Scan(NamedTuple):
    """Letters, newest first, each input once; how many entries were looked at, and whether there are older ones."""

    letters: list[Letter]
    scanned: int
    truncated: bool


class _Tail:
    """How far back a partition was read."""

    def __init__(self, tp: TopicPartition, begin: int, end: int) -> None:
        self.tp, self.begin, self.low = tp, begin, end
        self.oldest_ms = 1 << 62


async def scan(settings: Settings, wanted: Wanted, most: int = SCANNED_MAX, tell: Tell = lambda _, __: None) -> Scan:
    """Reads the topic backwards from its end (or from a time), and keeps what is wanted; raises `KafkaUnavailable`."""
    topic = settings.topic_prefix + kafka.DEAD_LETTERS
    try:
        async with kafka.reading(settings) as (consumer, counts):
            tails = await _tails(consumer, topic, counts[topic], wanted)
            return await _scan(consumer, tails, settings.topic_prefix, wanted, most, tell)
    except KafkaError as e:
        raise kafka.KafkaUnavailable(f"the dead letters cannot be read: {str(e) or type(e).__name__}") from None


async def _tails(consumer: AIOKafkaConsumer, topic: str, partitions: int, wanted: Wanted) -> list[_Tail]:
    # What has a key lies where its key belongs.
    where = range(partitions) if not wanted.key else (kafka.partition_of(wanted.key, partitions),) if partitions else ()
    tps = [TopicPartition(topic, partition) for partition in where]
    if not tps:
        return []
    begins, ends = await consumer.beginning_offsets(tps), await consumer.end_offsets(tps)
    if wanted.until_ms is not None:
        found = await consumer.offsets_for_times(dict.fromkeys(tps, wanted.until_ms))
        ends |= {tp: at.offset for tp, at in found.items() if at is not None}
    return [_Tail(tp, begins[tp], ends[tp]) for tp in tps]


async def _scan(
    consumer: AIOKafkaConsumer, tails: list[_Tail], prefix: str, wanted: Wanted, most: int, tell: Tell
) -> Scan:
    kept: list[Letter] = []
    scanned = size = 0
    total = min(most, sum(tail.low - tail.begin for tail in tails))
    while left := [tail for tail in tails if tail.low > tail.begin]:
        if scanned >= most or size >= _BYTES_MAX:
            break
        # The partition that was read back least in time: what is read is then the newest there is.
        found = await _window(consumer, max(left, key=lambda tail: tail.oldest_ms))
        scanned += len(found)
        fitting = [letter for letter in found if wanted.fits(letter, prefix)]
        size += sum(len(letter.value or b"") for letter in fitting)
        kept += fitting
        tell(min(scanned, total), total)
    return Scan(letters.once(kept), scanned, any(tail.low > tail.begin for tail in tails))


async def _window(consumer: AIOKafkaConsumer, tail: _Tail) -> list[Letter]:
    """The entries of the next window back, as far as they fit in memory."""
    tp, high = tail.tp, tail.low
    tail.low = max(tail.begin, high - _WINDOW)
    found = [letters.open_letter(tp.topic, tp.partition, e) async for e in entries(consumer, tp, tail.low, high)]
    if found:
        tail.oldest_ms = found[0].landed_ms
    return found


async def entries(consumer: AIOKafkaConsumer, tp: TopicPartition, begin: int, end: int) -> Any:
    """The entries of a partition from one offset to before another, those that are there."""
    consumer.assign([tp])
    consumer.seek(tp, begin)
    while begin < end:
        for record in (await consumer.getmany(tp, timeout_ms=_FETCH_MS, max_records=end - begin)).get(tp, ()):
            if record.offset < end:
                yield record
        position = await consumer.position(tp)
        if position <= begin:
            raise kafka.KafkaUnavailable(f"{tp.topic} partition {tp.partition} gives nothing from offset {begin} on")
        begin = position


async def named(settings: Settings, ids: Iterable[str]) -> list[Letter]:
    """The letters at `topic:partition:offset` of the dead letters, as far as they are there."""
    topic = settings.topic_prefix + kafka.DEAD_LETTERS
    async with kafka.reading(settings) as (consumer, counts):
        tps = [TopicPartition(topic, n) for n in range(counts[topic])]
        begins = await consumer.beginning_offsets(tps) if tps else {}
        ends = await consumer.end_offsets(tps) if tps else {}
        found = []
        for id_ in ids:
            tp, offset = _place(id_, topic)
            if begins.get(tp, 1) <= offset < ends.get(tp, 0):
                here = entries(consumer, tp, offset, offset + 1)
                found += [letters.open_letter(topic, tp.partition, e) async for e in here]
    return found


def _place(id_: str, topic: str) -> tuple[TopicPartition, int]:
    """Where an id points; nowhere when it is none of the topic."""
    place = _ID.fullmatch(id_)
    if place is None or place[1] != topic:
        return TopicPartition("", 0), 0
    return TopicPartition(topic, int(place[2])), int(place[3])


# ---- the audit -------------------------------------------------------------------------------------------------


def audit(store: Store, found: Sequence[Letter]) -> dict[Identity, list[str]]:
    """When the inputs of letters were sent once more, as instants; also what was begun and never told the end of."""
    sql = (
        "SELECT topic, partition, offset, toUnixTimestamp64Milli(at) FROM redrives"
        " WHERE topic IN {topics:Array(String)} AND offset IN {offsets:Array(Int64)} AND outcome = 'begun'"
        " AND (topic, partition, offset, at) NOT IN"
        " (SELECT topic, partition, offset, at FROM redrives WHERE outcome = 'failed') ORDER BY at"
    )
    places = {identity(letter) for letter in found}
    asked = {"topics": sorted({t for t, _, _ in places}), "offsets": sorted({o for _, _, o in places})}
    told: dict[Identity, list[str]] = {}
    for topic, partition, offset, at_ms in store.query(sql, asked) if places else ():
        told.setdefault((topic, partition, offset), []).append(format_rfc3339(at_ms))
    return {place: at for place, at in told.items() if place in places}


def identity(letter: Letter) -> Identity:
    """What a letter is counted by: the place of its input, else its own."""
    topic, partition, offset = letter.source.rsplit(":", 2)
    return topic, int(partition), int(offset)


def write_audit(
    store: Store, found: Sequence[Letter], at_ms: int, who: str, told: Sequence[tuple[str, str, str]]
) -> None:
    """One row a letter: `told` has its outcome, its detail, and where the log has it now."""
    sql = (
        "INSERT INTO redrives (topic, partition, offset, letter, at, who, outcome, detail, placed_at)"
        " SELECT r.1, r.2, r.3, r.4, fromUnixTimestamp64Milli({at:Int64}, 'UTC'), {who:String}, r.5, r.6, r.7"
        " FROM (SELECT arrayJoin({rows:Array(Tuple(String, UInt32, Int64, String, String, String, String))}) AS r)"
    )
    rows = [(*identity(letter), letter.id, *outcome) for letter, outcome in zip(found, told, strict=True)]
    store.command(sql, {"at": at_ms, "who": who, "rows": rows})


# ---- once more -------------------------------------------------------------------------------------------------


class Plan(NamedTuple):
    """What would be sent, oldest input first; what would not, and why; what the decoder says, by reason or `ok`."""

    go: list[Letter]
    refused: list[tuple[Letter, str]]
    outcomes: dict[str, int]


def plan(
    found: Sequence[Letter], redriven: dict[Identity, list[str]], prefix: str, now_ms: int, *, force: bool, again: bool
) -> Plan:
    """Judges each letter by the real decoder, the loop guard and the audit."""
    made = Plan([], [], {})
    for letter in sorted(found, key=lambda x: (x.timestamp_ms, x.partition, x.offset)):
        said: Rejected | None = letters.verdict(letter, prefix, now_ms)
        outcome = said.reason if said else "ok"
        made.outcomes[outcome] = made.outcomes.get(outcome, 0) + 1
        at = max(redriven.get(identity(letter), ()), default="")
        why = letters.refusal(letter, said, at, force=force, again=again)
        if why:
            made.refused.append((letter, why))
        else:
            made.go.append(letter)
    return made


async def send(
    settings: Settings, store: Store, found: Sequence[Letter], who: str, rate: float, now_ms: Callable[[], int],
    within_s: float, tell: Tell = lambda _, __: None,
) -> int:  # fmt: skip
    """Sends letters once more, no faster than `rate` a second, each audited before and after; returns how many.

    Those that would begin later than after `within_s` are left out.
    """
    began = time.monotonic()
    size = max(1, min(_BATCH, int(rate)))
    async with kafka.producing(settings) as producer:
        for at in range(0, len(found), size):
            if max(at / rate, time.monotonic() - began) >= within_s:
                return at
            await asyncio.sleep(max(0.0, began + at / rate - time.monotonic()))
            part = found[at : at + size]
            await _send_part(producer, store, part, who, now_ms())
            tell(at + len(part), len(found))
    return len(found)


async def _send_part(producer: AIOKafkaProducer, store: Store, part: Sequence[Letter], who: str, at_ms: int) -> None:
    begun = [("begun", "", "")] * len(part)
    await asyncio.to_thread(write_audit, store, part, at_ms, who, begun)
    outcomes = [_outcome(sent) for sent in await _sent(producer, part)]
    await asyncio.to_thread(write_audit, store, part, at_ms, who, outcomes)
    failed = [detail for word, detail, _ in outcomes if word == "failed"]
    if failed:
        raise kafka.KafkaUnavailable(f"Kafka refused {len(failed)} of the last {len(part)} letters: {failed[0]}")


async def _sent(producer: AIOKafkaProducer, part: Sequence[Letter]) -> Sequence[tuple[str, int, int] | KafkaError]:
    try:
        return await kafka.produce(producer, [(letter.topic, letters.redriven(letter)) for letter in part])
    except KafkaError as e:
        return [e] * len(part)


def _outcome(sent: tuple[str, int, int] | KafkaError) -> tuple[str, str, str]:
    if isinstance(sent, KafkaError):
        return "failed", str(sent) or type(sent).__name__, ""
    return "redriven", "", ":".join(map(str, sent))
