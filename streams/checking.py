"""What `check` compares, read from the broker and the store: bounded, and without getting in the worker's way."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from schemas.events import TOPICS
from schemas.times import format_rfc3339
from streams import check, kafka, letters
from streams.check import EXAMPLES_MAX, Buried, Facts, Ids, LogPart, Seen
from streams.dead_letters import entries
from streams.settings import Settings
from streams.store import Store
from streams.tables import Checkpoint

LETTERS_MAX: Final = 1_000_000
ENTRIES_MAX: Final = 5_000_000
TRIES: Final = 3
# So long may the writing of a checkpoint take that is due.
_WRITE_S: Final = 0.5
_STILL_TRIES: Final = 5
_DAY_MS: Final = 86_400_000
_SETTINGS: Final = (
    " SETTINGS max_threads = 2, max_execution_time = 3600, max_bytes_before_external_group_by = 500000000,"
    " do_not_merge_across_partitions_select_final = 1"
)
Tell = Callable[[str, int, int], None]
"""What is being read, how much of it was, and how much there is."""
Places = dict[tuple[str, int], LogPart]

_FACTS: Final = """
SELECT topic, shard, countIf(first <= 0 AND known), countIf(first = 1 AND known), countIf(first = 2 AND known),
    countIf(first = 3 AND known), countIf(NOT known), sumIf(times - 1, times > 0), max(offset)
FROM (
    SELECT at[1] AS topic, toUInt16OrZero(at[2]) AS shard, toInt64OrZero(at[3]) AS offset, min(place) AS first,
        countIf(place = 0) AS times,
        offset < transform(concat(topic, ':', toString(shard)), {names:Array(String)}, {ends:Array(Int64)}, 0) AS known
    FROM (
        SELECT 0 AS place, splitByChar(':', arrayJoin(`timeline.source`)) AS at FROM mdrs FINAL
        UNION ALL
        SELECT if(part = '', 1, 2), splitByChar(':', arrayJoin(arrayConcat([life.s.`~at`], life.r.`~at`)))
        FROM (
            SELECT part, JSONExtract(facts, 'Tuple(s Tuple(`~at` String), r Array(Tuple(`~at` String)))') AS life
            FROM open_messages FINAL
        )
        UNION ALL
        SELECT 3, splitByChar(':', source) FROM orphan_log FINAL
        UNION ALL
        SELECT -1, [topic, toString(shard), toString(offset)] FROM erased_events FINAL
    )
    WHERE length(at) = 3
    GROUP BY topic, shard, offset
)
GROUP BY topic, shard
"""
_ORPHANED: Final = """
SELECT shard, uniqExact(message_id, event_id, state, occurred_at, segment) FROM orphan_log
WHERE toUnixTimestamp64Milli(orphaned_at) <= transform(shard, {shards:Array(UInt16)}, {marks:Array(Int64)}, 0)
GROUP BY shard
"""
_OPEN: Final = """
SELECT shard, countIf(part = '') + uniqExactIf(message_id, part != '') FROM open_messages FINAL GROUP BY shard
"""
_MANY: Final = """
SELECT message_id FROM mdrs GROUP BY message_id, direction
HAVING min((account_id, occurred_at)) != max((account_id, occurred_at))
"""
_OPEN_WITH_RECORD: Final = """
SELECT o.message_id AS message_id
FROM (SELECT shard, message_id FROM open_messages FINAL WHERE part = '') AS o
INNER JOIN (
    SELECT message_id, min(settled_at) AS settled_at FROM mdrs
    WHERE direction = 'outbound' AND message_id IN (SELECT message_id FROM open_messages FINAL WHERE part = '')
    GROUP BY message_id
) AS r ON r.message_id = o.message_id
WHERE toUnixTimestamp64Milli(r.settled_at) < transform(o.shard, {shards:Array(UInt16)}, {marks:Array(Int64)}, 0)
"""
_ORPHANS_WITH_RECORD: Final = """
SELECT o.message_id AS message_id
FROM (SELECT message_id, event_id, state, occurred_at, segment FROM orphan_log FINAL) AS o
INNER JOIN (
    SELECT message_id, arrayJoin(
        arrayZip(`timeline.event_id`, `timeline.state`, `timeline.occurred_at`, `timeline.segment`)
    ) AS step
    FROM mdrs FINAL WHERE direction = 'outbound' AND message_id IN (SELECT message_id FROM orphan_log)
) AS r ON r.message_id = o.message_id
GROUP BY o.message_id, o.event_id, o.state, o.occurred_at, o.segment
HAVING countIf(step = (o.event_id, o.state, o.occurred_at, o.segment)) {compare} 0
"""
_IDS: Final = (
    _MANY, _OPEN_WITH_RECORD, _ORPHANS_WITH_RECORD.replace("{compare}", "="),
    _ORPHANS_WITH_RECORD.replace("{compare}", ">"),
)  # fmt: skip
_AGE: Final = "SELECT toUnixTimestamp64Milli(min(applied_at)) FROM migrations WHERE NOT startsWith(name, 'retention ')"


async def run(settings: Settings, store: Store, now_ms: Callable[[], int], tell: Tell) -> dict[str, Any]:
    """The verdict as JSON. What is wrong is looked at again: while a worker writes, tables are a moment apart.

    Without a broker (`MDR_KAFKA` empty) the store is compared with itself alone. Raises `KafkaUnavailable`.
    """
    before: Mapping[int, Checkpoint] = {}
    for tries in range(1, TRIES + 1):
        seen = await read(settings, store, now_ms(), tell)
        verdict = check.judge(seen)
        # At rest nothing will be different.
        if verdict.is_fine or seen.checkpoints == before or tries == TRIES:
            break
        before = seen.checkpoints
        await asyncio.sleep(settings.checkpoint_interval_ms / 1000 + _WRITE_S)
    return check.shown(verdict, format_rfc3339(now_ms()), tries)


async def read(settings: Settings, store: Store, now_ms: int, tell: Tell) -> Seen:
    """Everything that is compared, in an order in which what moves meanwhile looks no worse than it is."""
    if not settings.kafka:
        return await asyncio.to_thread(_read_store, settings, store, now_ms, tell)
    try:
        committed = await kafka.committed(settings)
        seen = await asyncio.to_thread(_read_store, settings, store, now_ms, tell)
        async with kafka.reading(settings) as (consumer, counts):
            seen = seen._replace(log=await _log(settings, consumer, counts, committed))
            seen = seen._replace(log=await _looked_at(settings, consumer, seen, tell))
            return await _with_letters(settings, consumer, counts, seen, tell)
    except KafkaError as e:
        raise kafka.KafkaUnavailable(f"the topics cannot be read: {str(e) or type(e).__name__}") from None


# ---- the store -------------------------------------------------------------------------------------------------


def _read_store(settings: Settings, store: Store, now_ms: int, tell: Tell) -> Seen:
    marks, open_now = _between_checkpoints(store)
    tell("reading the store", 1, 2 + len(_IDS))
    facts, foreign = _facts(settings, store, marks)
    ids: list[Ids] = []
    for sql in _IDS:
        tell("reading the store", 2 + len(ids), 2 + len(_IDS))
        ids.append(_some(store, sql, marks))
    age_ms = now_ms - int(store.query(_AGE, {})[0][0])
    are_whole = age_ms < settings.retention_days * _DAY_MS
    orphaned = _by_shard(store, _ORPHANED, marks)
    return Seen(marks, facts, orphaned, open_now, None, None, False, are_whole, ids[0], ids[1], ids[2], ids[3], foreign)


def _between_checkpoints(store: Store) -> tuple[dict[int, Checkpoint], dict[int, int]]:
    """Where the partitions stand, and how many messages were open then."""
    for _ in range(_STILL_TRIES):
        marks = store.checkpoints()
        open_now = _by_shard(store, _OPEN, marks)
        if store.checkpoints() == marks:
            break
    return marks, open_now


def _facts(
    settings: Settings, store: Store, marks: Mapping[int, Checkpoint]
) -> tuple[dict[tuple[str, int], Facts], tuple[str, ...]]:
    ends = {
        f"{settings.topic_prefix}{topic}:{shard}": at
        for shard, mark in marks.items()
        for topic, at in check.offsets(mark).items()
    }
    rows = store.query(_FACTS + _SETTINGS, {"names": list(ends), "ends": list(ends.values())})
    ours = {settings.topic_prefix + topic: topic for topic in TOPICS}
    facts = {(ours[topic], int(shard)): Facts(*numbers) for topic, shard, *numbers in rows if topic in ours}
    return facts, tuple(sorted({str(topic) for topic, *_ in rows if topic not in ours}))


def _by_shard(store: Store, sql: str, marks: Mapping[int, Checkpoint]) -> dict[int, int]:
    return {int(shard): int(count) for shard, count in store.query(sql + _SETTINGS, _times(sql, marks))}


def _some(store: Store, sql: str, marks: Mapping[int, Checkpoint]) -> Ids:
    told = f"SELECT count(), groupArray({EXAMPLES_MAX})(message_id) FROM ({sql})"  # noqa: S608  # our own statements
    count, examples = store.query(told + _SETTINGS, _times(sql, marks))[0]
    return Ids(int(count), tuple(sorted(map(str, examples))))


def _times(sql: str, marks: Mapping[int, Checkpoint]) -> dict[str, list[int]]:
    """When the checkpoints were cut, for the statements that ask for it."""
    if "{marks" not in sql:
        return {}
    return {"shards": list(marks), "marks": [mark.updated_at for mark in marks.values()]}


# ---- the log ---------------------------------------------------------------------------------------------------


async def _log(
    settings: Settings, consumer: AIOKafkaConsumer, counts: Mapping[str, int], committed: Mapping[TopicPartition, int]
) -> Places:
    names = {settings.topic_prefix + topic: topic for topic in TOPICS}
    tps = [TopicPartition(name, n) for name in names for n in range(counts[name])]
    begins = await consumer.beginning_offsets(tps) if tps else {}
    ends = await consumer.end_offsets(tps) if tps else {}
    return {
        (names[tp.topic], tp.partition): LogPart(begins[tp], ends[tp], committed.get(tp), None) for tp in tps
    }  # fmt: skip


async def _looked_at(settings: Settings, consumer: AIOKafkaConsumer, seen: Seen, tell: Tell) -> Places:
    """The log with the offsets counted that hold no entry, where fewer entries were counted than there are offsets."""
    assert seen.log is not None
    log, done, parts = dict(seen.log), 0, check.needs_log(seen, ENTRIES_MAX)
    total = sum(end - begin for _, _, begin, end in parts)
    for topic, shard, begin, end in parts:
        tp, there = TopicPartition(settings.topic_prefix + topic, shard), 0
        async for _ in entries(consumer, tp, begin, end):
            there += 1
            if there % 1_000 == 0:
                tell("reading the log", done + there, total)
        log[topic, shard] = log[topic, shard]._replace(skipped=end - begin - there)
        done += end - begin
    return log


async def _with_letters(
    settings: Settings, consumer: AIOKafkaConsumer, counts: Mapping[str, int], seen: Seen, tell: Tell
) -> Seen:
    topic = settings.topic_prefix + kafka.DEAD_LETTERS
    tps = [TopicPartition(topic, n) for n in range(counts[topic])]
    begins = await consumer.beginning_offsets(tps) if tps else {}
    ends = await consumer.end_offsets(tps) if tps else {}
    total = sum(ends[tp] - begins[tp] for tp in tps)
    found: dict[tuple[str, int, int], bool] = {}
    read = 0
    for tp in tps:
        async for entry in entries(consumer, tp, begins[tp], min(ends[tp], begins[tp] + LETTERS_MAX - read)):
            letter = letters.open_letter(topic, tp.partition, entry)
            found[letter.topic, letter.partition, letter.offset] = letter.reason == "unstorable"
            read += 1
            if read % 1_000 == 0:
                tell("reading the dead letters", read, total)
    return seen._replace(
        buried=_buried(settings, seen.checkpoints, found),
        buried_whole=total <= LETTERS_MAX and not any(begins.values()),
    )


def _buried(
    settings: Settings, marks: Mapping[int, Checkpoint], found: Mapping[tuple[str, int, int], bool]
) -> dict[int, Buried]:
    """How many inputs before the checkpoints are dead letters, by partition."""
    ends = {
        (settings.topic_prefix + topic, shard): at
        for shard, mark in marks.items()
        for topic, at in check.offsets(mark).items()
    }
    counts: dict[int, list[int]] = {}
    for (topic, shard, offset), is_unstorable in found.items():
        if offset < ends.get((topic, shard), 0):
            counts.setdefault(shard, [0, 0])[is_unstorable] += 1
    return {shard: Buried(*both) for shard, both in counts.items()}
