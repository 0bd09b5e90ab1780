"""Whether the counts add up: what was read of the log against what became of it, by partition. Pure.

    what is compared                               what it shows when it does not hold
    ---------------------------------------------  -------------------------------------------------------------------
    events = merged + duplicates + dead letters    the worker's own counts are wrong
    events >= what the log holds up to the         entries were passed over
      checkpoint
    facts >= merged                                what was merged is in no table: lost
    facts <= merged + duplicates                   the tables hold what was never read
    open rows = those of the checkpoint            a message is open that was settled, or the other way round
    dead letters on their topic = those counted    a dead letter was lost, or was made of nothing
    no log entry in two records                    a fact was counted twice
    committed <= checkpoint <= end of the log      offsets moved before the rows; or the topic is another one now

A fact is an event in a timeline, an open message, a waiting or an orphaned receipt; each is counted once, by its place
in the log, and but for the lower bound only before the checkpoint. After a crash at most one checkpoint interval is
read again: those events are counted as duplicates, which makes the bounds that much wider (`again`). What retention
removed of the log or of the records can no longer be compared, and is told as a note instead.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from streams.tables import Checkpoint

EXAMPLES_MAX: Final = 20


class LogPart(NamedTuple):
    """One topic's partition as the broker has it; `skipped` are offsets that hold no entry, None if not looked at."""

    begin: int
    end: int
    committed: int | None
    skipped: int | None = None


class Facts(NamedTuple):
    """Log entries before the checkpoint by where they are, each in the first place it is found in.

    `later` counts those from the checkpoint on, `doubled` entries that are in more than one record, and `last` is the
    largest offset.
    """

    records: int = 0
    open: int = 0
    waiting: int = 0
    orphans: int = 0
    later: int = 0
    doubled: int = 0
    last: int = -1

    @property
    def total(self) -> int:
        """All before the checkpoint."""
        return self.records + self.open + self.waiting + self.orphans


class Buried(NamedTuple):
    """Dead letters before the checkpoint, each input once; `unstorable` ones had been merged before."""

    refused: int = 0
    unstorable: int = 0


class Ids(msgspec.Struct, frozen=True):
    """Messages that are in a state they must not be in, or are harmless leftovers: how many, and some ids."""

    count: int = 0
    examples: tuple[str, ...] = ()


class Seen(NamedTuple):
    """All that was read, by partition number; `log` is by (topic without prefix, partition), None without a broker.
    `orphaned_once` are different receipts that were ever orphaned, `open_now` messages in `open_messages`.

    `buried` is None when the dead letters were not read; `buried_whole` says whether none was removed or left out.
    """

    checkpoints: Mapping[int, Checkpoint]
    facts: Mapping[tuple[str, int], Facts]
    orphaned_once: Mapping[int, int]
    open_now: Mapping[int, int]
    log: Mapping[tuple[str, int], LogPart] | None
    buried: Mapping[int, Buried] | None
    buried_whole: bool
    records_whole: bool
    many_records: Ids
    open_with_record: Ids
    orphans_lost: Ids
    orphans_left: Ids
    foreign: tuple[str, ...]


class Finding(msgspec.Struct, frozen=True):
    """Something that is wrong; `count` is below zero for what is missing, `partition` None for the whole."""

    kind: str
    partition: int | None
    count: int
    what: str
    examples: tuple[str, ...] = ()


class Row(NamedTuple):
    """One partition: what was read, and what became of it.

    `again` are events counted once more after a crash, as duplicates. `difference` is what is too much, or below zero
    too little, and nothing explains.
    """

    partition: int
    read: int
    events: int
    records: int
    open: int
    waiting: int
    orphans: int
    duplicates: int
    dead_letters: int
    again: int
    removed: int
    skipped: int
    difference: int
    unread: int


class Verdict(NamedTuple):
    """The partitions, what is wrong, and what could not be compared."""

    rows: list[Row]
    findings: list[Finding]
    notes: list[str]

    @property
    def is_fine(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings


class _Shard(NamedTuple):
    shard: int
    mark: Checkpoint
    offsets: dict[str, int]
    facts: Facts
    log: dict[str, LogPart]
    buried: Buried | None
    repeats: int
    open_now: int

    @property
    def read(self) -> int:
        return sum(self.offsets.values())

    @property
    def removed(self) -> int:
        return sum(min(part.begin, self.offsets[topic]) for topic, part in self.log.items())

    @property
    def skipped(self) -> int:
        return sum(part.skipped or 0 for part in self.log.values())

    @property
    def missing(self) -> int:
        return self.read - self.removed - self.skipped - self.mark.events if self.log else 0

    @property
    def is_looked_at(self) -> bool:
        """Whether every entry that the log still holds before the checkpoint was looked at, where there is one."""
        return len(self.log) == len(self.offsets) and not self.unseen

    @property
    def unseen(self) -> list[tuple[str, int, int, int]]:
        """(topic, partition, begin, end) of what the log holds before the checkpoint and nobody looked at."""
        return [
            (topic, self.shard, part.begin, min(self.offsets[topic], part.end))
            for topic, part in self.log.items()
            if part.skipped is None and part.begin < min(self.offsets[topic], part.end)
        ]

    @property
    def again(self) -> int:
        return max(0, self.mark.events - (self.read - self.skipped))

    @property
    def merged_again(self) -> int:
        return max(0, self.facts.total - self.mark.merged)


def judge(seen: Seen) -> Verdict:
    """Compares everything with everything."""
    shards = [_shard(seen, mark) for _, mark in sorted(seen.checkpoints.items())]
    found = {shard.shard: [f for rule in _RULES for f in rule(shard, seen)] for shard in shards}
    rows = [_row(shard, sum(f.count for f in found[shard.shard] if f.kind in _OF_EVENTS)) for shard in shards]
    findings = [*_ids(seen), *(f for some in found.values() for f in some)]
    return Verdict(rows, findings, _notes(seen, shards))


def needs_log(seen: Seen, most: int) -> list[tuple[str, int, int, int]]:
    """(topic, partition, begin, end) to be counted entry by entry: fewer were counted than there are offsets.

    Of as many partitions as go into `most` entries, the smallest first.
    """
    short = [s.unseen for s in (_shard(seen, m) for m in seen.checkpoints.values()) if s.missing > 0]
    parts: list[tuple[str, int, int, int]] = []
    for unseen in sorted(short, key=_size):
        if _size(parts) + _size(unseen) <= most:
            parts += unseen
    return parts


def _size(parts: Sequence[tuple[str, int, int, int]]) -> int:
    return sum(end - begin for _, _, begin, end in parts)


def offsets(mark: Checkpoint) -> dict[str, int]:
    """How far each topic was read, exclusive."""
    return {"sends": mark.sends_offset, "receives": mark.receives_offset, "receipts": mark.receipts_offset}


def _shard(seen: Seen, mark: Checkpoint) -> _Shard:
    at, n = offsets(mark), mark.shard
    facts = Facts(
        *(sum(column) for column in zip(Facts(), *(seen.facts.get((t, n), Facts()) for t in at), strict=True))
    )
    log = {t: seen.log[t, n] for t in at if seen.log and (t, n) in seen.log}
    buried = None if seen.buried is None else seen.buried.get(n, Buried())
    repeats = max(0, mark.orphaned - seen.orphaned_once.get(n, 0))
    return _Shard(n, mark, at, facts, log, buried, repeats, seen.open_now.get(n, 0))


def _row(s: _Shard, difference: int) -> Row:
    f, buried = s.facts, s.buried or Buried(s.mark.dead_letters)
    dead = buried.refused + buried.unstorable
    unread = sum(max(0, part.end - s.offsets[topic]) for topic, part in s.log.items())
    again = s.again + s.merged_again
    return Row(
        s.shard, s.read, s.mark.events, f.records, f.open, f.waiting, f.orphans, s.mark.duplicates, dead, again,
        s.removed, s.skipped, difference, unread,
    )  # fmt: skip


# ---- rules -----------------------------------------------------------------------------------------------------


def _counts(s: _Shard, seen: Seen) -> list[Finding]:
    m = s.mark
    off = m.merged + m.duplicates + m.dead_letters - m.events
    what = f"{m.events} events were counted, but {m.merged} merged, {m.duplicates} duplicates, {m.dead_letters} refused"
    return [Finding("counts", s.shard, off, what)] if off else []


def _passed_over(s: _Shard, seen: Seen) -> list[Finding]:
    missing = s.missing
    what = f"{missing} entries of the log lie before the checkpoint and were never counted"
    return [Finding("passed_over", s.shard, -missing, what)] if missing > 0 and s.is_looked_at else []


def _lost(s: _Shard, seen: Seen) -> list[Finding]:
    unstorable = s.buried.unstorable if s.buried else 0
    # A batch that waits for an answer of the store is counted, and its offset is not.
    missing = s.mark.merged - (s.facts.total + s.facts.later + s.repeats + unstorable)
    if missing <= 0 or not seen.records_whole:
        return []
    maybe = "" if s.buried else ", unless the store refused them: the dead letters were not read"
    return [Finding("lost", s.shard, -missing, f"{missing} events were merged and are in no table{maybe}")]


def _too_many(s: _Shard, seen: Seen) -> list[Finding]:
    extra = s.facts.total - (s.mark.merged + s.mark.duplicates)
    what = f"the tables hold {extra} events more than were read"
    return [Finding("too_many", s.shard, extra, what)] if extra > 0 else []


def _open(s: _Shard, seen: Seen) -> list[Finding]:
    off = s.open_now - s.mark.open
    what = f"{s.open_now} messages are open in the store, but {s.mark.open} at the checkpoint"
    return [Finding("open", s.shard, off, what)] if off else []


def _dead(s: _Shard, seen: Seen) -> list[Finding]:
    if s.buried is None:
        return []
    there, counted = s.buried.refused, s.mark.dead_letters
    if there > counted:
        what = f"{there} dead letters are on their topic, but {counted} were counted"
        return [Finding("dead_letters", s.shard, there - counted, what)]
    missing = counted - there - s.again
    if missing <= 0 or not seen.buried_whole:
        return []
    what = f"{missing} of {counted} dead letters counted are not on their topic"
    return [Finding("dead_letters", s.shard, -missing, what)]


def _doubled(s: _Shard, seen: Seen) -> list[Finding]:
    n = s.facts.doubled
    return [Finding("doubled", s.shard, n, f"{n} log entries are in more than one record")] if n else []


def _committed_ahead(s: _Shard, seen: Seen) -> list[Finding]:
    ahead = {t: part.committed for t, part in s.log.items() if part.committed is not None}
    return [
        Finding("committed_ahead", s.shard, at - s.offsets[topic],
                f"{topic}: committed up to {at}, but only up to {s.offsets[topic]} is durable")
        for topic, at in ahead.items() if at > s.offsets[topic]
    ]  # fmt: skip


def _beyond_the_log(s: _Shard, seen: Seen) -> list[Finding]:
    found = []
    for topic, part in s.log.items():
        end = max(s.offsets[topic], seen.facts.get((topic, s.shard), Facts()).last + 1)
        if end > part.end:
            what = f"{topic}: the store knows offset {end - 1}, but the log ends at {part.end}: another topic?"
            found.append(Finding("beyond_the_log", s.shard, end - part.end, what))
    return found


_RULES: Final = (_counts, _passed_over, _lost, _too_many, _open, _dead, _doubled, _committed_ahead, _beyond_the_log)
_OF_EVENTS: Final = frozenset({"counts", "passed_over", "lost", "too_many", "dead_letters"})


def _ids(seen: Seen) -> list[Finding]:
    told = (
        ("many_records", seen.many_records, "ids have more than one record in a direction"),
        ("open_with_record", seen.open_with_record, "messages are open that were a record before the checkpoint"),
        ("orphans_lost", seen.orphans_lost, "orphaned receipts are missing in the record of their message"),
    )
    return [
        Finding(kind, None, ids.count, f"{ids.count} {what}", ids.examples) for kind, ids, what in told if ids.count
    ]


def _notes(seen: Seen, shards: Sequence[_Shard]) -> list[str]:
    notes = []
    if seen.log is None:
        notes.append("the broker was not asked: offsets, dead letters and the end of the log are not compared")
    if not shards:
        notes.append("no partition has a checkpoint yet: there is nothing to compare")
    if seen.foreign:
        notes.append(f"the tables also hold events of other topics: {', '.join(seen.foreign)}")
    told = (
        (sum(s.missing for s in shards if s.missing > 0 and not s.is_looked_at),
         "offsets before the checkpoint hold no entry or one never counted: too many to look at each"),
        (sum(s.removed for s in shards), "log entries were removed by retention: that they were counted is believed"),
        (sum(s.skipped for s in shards), "offsets hold no entry: transaction markers, aborted or compacted ones"),
        (sum(s.again for s in shards), "events were counted again: a crash, a rebalance, or a batch under way"),
        (sum(s.repeats for s in shards), "orphaned receipts have no row: copies that came later, or gone"),
        (seen.orphans_left.count, "orphaned receipts are in a record already: left by a crash, hidden, harmless"),
        (sum(s.merged_again for s in shards),
         "events were made durable before a crash, and counted as duplicates after it"),
    )  # fmt: skip
    notes += [f"{count} {what}" for count, what in told if count]
    if seen.buried is not None and not seen.buried_whole:
        notes.append(
            "not every dead letter is on its topic any more, or it was not read whole: missing ones are not told"
        )
    if not seen.records_whole:
        notes.append("the store is older than the records are kept: that records are missing is not told")
    return notes


def shown(verdict: Verdict, at: str, tries: int) -> dict[str, Any]:
    """A verdict as JSON: what `mdr check --json` prints and `GET /mdr/check` answers."""
    return {
        "ok": verdict.is_fine, "at": at, "tries": tries, "partitions": [row._asdict() for row in verdict.rows],
        "findings": [msgspec.structs.asdict(f) for f in verdict.findings], "notes": verdict.notes,
    }  # fmt: skip
