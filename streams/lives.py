"""What a partition holds and where each message of it stands; what is to be written is taken out here. Pure.

    where a message is      what it means
    ----------------------  ------------------------------------------------------------------------------------------
    lives                   open (has a send), or waiting (receipts whose send was not read yet)
    fresh -> flushing       settled: to be written -> being written; still merged with in memory
    lately                  written by one of the last two flushes, while a worker keeps up; still merged with
    recent, facts           written: hashes of its id and events are remembered; a copy of one of them is known by
                            that, all else that concerns it is looked up in the store

A message that was saved and has not changed since is kept as the bytes that were saved; packed, when many are newer.
"""

from collections import deque
from collections.abc import Iterable, Sequence, Set
from typing import Any, Final, TypeVar, cast

import msgspec

from schemas.batches import as_struct, newest
from schemas.events import FUTURE_MS_MAX, Receipt, Receive, Send
from streams.effects import Counts, DeadLetter, Entry, OpenRow, Rows, Snapshot, kept, size_of
from streams.facts import identities
from streams.join import Life
from streams.packing import Packing
from streams.recent import Recent, hashes
from streams.wheel import Wheel

T = TypeVar("T")
REMEMBER_MS: Final = 600_000
_TOPICS: Final = {"outbound": "sends", "inbound": "receives"}
_RECENT_IDS_MAX: Final = 4_000_000
_FACTS_MAX: Final = 1_000_000
_KEPT_FLUSHES: Final = 2
_BUCKET_MS_MIN: Final = 250
_BUCKET_MS_MAX: Final = 5_000
# Of a receipt that waited; its row never changes.
_PART_TOMBSTONE: Final = 1 << 32

_NEVER_MS: Final = (1 << 63) - 1
# So many of one second are looked at for the earliest of them.
_EARLIEST_MAX: Final = 1_000
# Saved messages that are left as they are, for receipts to come to, and how many older ones a tick packs.
_UNPACKED_MAX: Final = 10_000
# So many bytes of dead letters count as much as one of them.
_DEAD_BYTES: Final = 1 << 10
_PACK_AT_ONCE: Final = 500

# An event that is still in the bytes it came in is saved as the struct it stands for.
_encode = msgspec.json.Encoder(enc_hook=as_struct).encode


# Never a value, so that these fields are always written when facts are saved again.
_UNSAID: Final = "\0"


class _KeptSend(Send, gc=False, omit_defaults=True, kw_only=True):
    message_id: str = _UNSAID
    occurred_at: str = _UNSAID


class _KeptReceipt(Receipt, gc=False, omit_defaults=True, kw_only=True):
    message_id: str = _UNSAID
    occurred_at: str = _UNSAID


class _Kept(Life, gc=False, omit_defaults=True):
    send: _KeptSend | None = None
    receipts: tuple[_KeptReceipt, ...] = ()


_thaw_kept = msgspec.json.Decoder(_Kept).decode


class Lives:
    """The messages of one partition number over the three topics, and the watermarks of those."""

    unpacked_max = _UNPACKED_MAX

    def __init__(self, shard: int, window_ms: int, now_ms: int) -> None:
        self.shard = shard
        self.window_ms = window_ms
        self.lives: dict[str, Life | bytes] = {}
        self.fresh: dict[str, Life] = {}
        self.flushing: dict[str, Life] = {}
        self._lately: deque[dict[str, Life]] = deque(maxlen=_KEPT_FLUSHES)
        self.fresh_inbound: dict[str, Receive] = {}
        self.flushing_inbound: dict[str, Receive] = {}
        self.marks = dict.fromkeys(("sends", "receives", "receipts"), 0)
        # The newest broker time read: unlike a watermark it follows no clock of ours that jumps.
        self._read_ms = dict(self.marks)
        self.counts = Counts()
        self.dead: list[DeadLetter] = []
        self.dead_bytes = 0
        self.waiting = 0
        self._recent = {"outbound": Recent(_RECENT_IDS_MAX), "inbound": Recent(_RECENT_IDS_MAX)}
        self._facts = {"outbound": Recent(_FACTS_MAX), "inbound": Recent(_FACTS_MAX)}
        self._orphaned = Recent(_RECENT_IDS_MAX)
        bucket_ms = min(_BUCKET_MS_MAX, max(_BUCKET_MS_MIN, window_ms // 64))
        self._ends = Wheel(bucket_ms, self.lives.__contains__)
        self._waits = Wheel(bucket_ms, self.lives.__contains__)
        self._occurred = Wheel(1_000, self.lives.__contains__)
        self._young: list[str] = []
        self._young_due_ms = _NEVER_MS
        self._packing = Packing()
        self._unpacked: deque[str] = deque()
        self._dirty: set[str] = set()
        self._gone: list[OpenRow] = []
        self._asks: deque[tuple[int, str]] = deque()
        self._orphans: dict[str, list[tuple[Receipt, int]]] = {}
        self._flushing_orphans: dict[str, list[tuple[Receipt, int]]] = {}
        self._adopted: list[Receipt] = []
        # Messages the store is being asked about, and those of them that were written meanwhile: the answer lacks them.
        self._held: set[str] = set()
        self._outlived: dict[str, Life] = {}
        self._asking: set[str] = set()
        self._taken_ms = self._settled_from_ms = now_ms

    def _life(self, mid: str) -> Life | None:
        return self._open_life(mid) or self.fresh.get(mid) or self.flushing.get(mid)

    def _written_life(self, mid: str) -> Life | None:
        """A message that is being written or was lately: whatever is to change must be a copy."""
        return next((lives[mid] for lives in (self.flushing, *reversed(self._lately)) if mid in lives), None)

    def _open_life(self, mid: str) -> Life | None:
        life = self.lives.get(mid)
        if isinstance(life, bytes):
            life = self._thaw(mid, life)
        return life

    def _thaw(self, mid: str, facts: bytes) -> Life:
        life = self.lives[mid] = _thawed(mid, self._packing.unpack(facts))
        return life

    def refuse(self, topic: str, entry: Entry | None, reason: str, detail: str, receipt: Receipt | None = None) -> None:
        """Puts an input among the dead letters."""
        self.counts.dead_letters += 1
        entry = kept(entry)
        self.dead.append(DeadLetter(topic, self.shard, entry, reason, detail, receipt))
        self.dead_bytes += size_of(entry)

    def _settle(self, mid: str, life: Life, now_ms: int) -> None:
        self._drop(mid, life)
        life.settled_ms = now_ms
        self.fresh[mid] = life

    def _drop(self, mid: str, life: Life) -> None:
        """Takes a message out of what is open, and remembers which of its rows in the store must go."""
        del self.lives[mid]
        self._dirty.discard(mid)
        self._asking.discard(mid)
        self._leave_wheels(life)
        if life.saved and life.send is not None:
            self._gone.append(self._tombstone(mid, life, life.send))
        self._gone += self._part_tombstones(mid, life)
        life.saved, life.parts = False, ()

    def _leave_wheels(self, life: Life) -> None:
        if not life.placed:
            return
        if life.send is None:
            self._waits.remove(life.deadline_ms)
        else:
            self._ends.remove(life.deadline_ms)
            self._occurred.remove(life.send.occurred_ms)

    def advance(self, topic: str, entries: Sequence[Entry], now_ms: int) -> None:
        """Moves a topic's watermark over entries that were read; one far in the future says nothing about time."""
        newest_ms = newest(entries, now_ms + FUTURE_MS_MAX)
        self._read_ms[topic] = max(self._read_ms[topic], min(newest_ms, now_ms))
        self.marks[topic] = max(self.marks[topic], self._read_ms[topic])

    def caught_up(self, topic: str, asked_ms: int) -> None:
        """Says that everything in a topic was read that it held at `asked_ms` by the clock."""
        self.marks[topic] = max(self.marks[topic], asked_ms)

    def _opened(self, count: int, due_ms: int) -> None:
        """Counts what joined the young ones, the first of them due at a time."""
        self.counts.merged += count
        self._young_due_ms = min(self._young_due_ms, due_ms)

    def _place_due(self) -> None:
        if self._young_due_ms <= max(self.marks["sends"], self.marks["receipts"]):
            self._place_young()

    def _place_young(self) -> None:
        """Enters into the wheels what has stayed open: most messages never get there."""
        young, self._young, self._young_due_ms = self._young, [], _NEVER_MS
        for mid in young:
            life = self.lives.get(mid)
            if isinstance(life, Life) and not life.placed:
                self._place(mid, life)

    def _place(self, mid: str, life: Life) -> None:
        life.placed = True
        if life.send is None:
            self._waits.add(life.deadline_ms, mid)
        else:
            self._ends.add(life.deadline_ms, mid)
            self._occurred.add(life.send.occurred_ms, mid)

    def _forget(self, now_ms: int) -> None:
        for direction, topic in _TOPICS.items():
            for written in (self._recent[direction], self._facts[direction]):
                written.forget(now_ms - REMEMBER_MS, self._read_ms[topic] - REMEMBER_MS)

    def _is_copy(self, direction: str, only: Life) -> bool:
        """Whether the one event of `only` is in a record that was written lately; then it is counted."""
        is_copy = bool(self._facts[direction].seen(identities([only])))
        self.counts.duplicates += is_copy
        return is_copy

    def pending(self) -> int:
        """How many finished rows wait to be taken."""
        return len(self.fresh) + len(self.fresh_inbound)

    def unsaved(self) -> int:
        """How many open messages and dead letters wait for the next checkpoint."""
        return len(self._dirty) + len(self.dead) + self.dead_bytes // _DEAD_BYTES

    def deadlines(self) -> dict[int, int]:
        """How many open messages reach their deadline when, by the ms at which a span of time begins."""
        self._place_young()
        return self._ends.counts()

    def oldest_open_ms(self) -> int | None:
        """The smallest `occurred_at` still open, to the second; None when nothing is."""
        self._place_young()
        return min(self._occurred.counts(), default=None)

    def forget(self, message_id: str) -> None:
        """Lets go of an open message that the store refuses."""
        life = self._open_life(message_id)
        if life is not None:
            self.waiting -= life.send is None
            self._drop(message_id, life)

    def take(self, now_ms: int) -> Rows:
        """Takes what is finished; `written` must follow before the next `take`."""
        assert not self.flushing and not self.flushing_inbound, "what was taken last is not written yet"
        self._settled_from_ms, self._taken_ms = self._taken_ms, now_ms
        self.flushing = self.fresh
        self.flushing_inbound = self.fresh_inbound
        self.fresh, self.fresh_inbound = {}, {}
        self._flushing_orphans, self._orphans = self._orphans, {}
        orphans = [orphan for group in self._flushing_orphans.values() for orphan in group]
        return Rows(self.shard, list(self.flushing.values()), list(self.flushing_inbound.values()), orphans)

    def written(self, now_ms: int, refused: Set[str] = frozenset(), *, keep: bool = False) -> None:
        """Says that what was taken last is durable, but for ids the store refused: now only hashes are remembered.

        With `keep` the messages themselves too, until the flush after the next one: for receipts that were overtaken.
        """
        since_ms = self._settled_from_ms
        settled = _all_but(refused, self.flushing)
        lives = list(settled.values())
        begun = [Life(cast(Any, receive)) for receive in _all_but(refused, self.flushing_inbound).values()]
        for direction, ids, written in (("outbound", self.flushing, lives), ("inbound", self.flushing_inbound, begun)):
            at = since_ms, now_ms, self._read_ms[_TOPICS[direction]]
            self._recent[direction].add(hashes(ids), *at)
            self._facts[direction].add(identities(written), *at)
        if keep:
            self._lately.append(settled)
        else:  # an older version of what was written now must not be taken for it
            self._lately.clear()
        self._outlived |= {mid: self.flushing[mid] for mid in self._held if mid in self.flushing}
        self.flushing, self.flushing_inbound, self._flushing_orphans = {}, {}, {}

    def snapshot(self, now_ms: int) -> Snapshot:
        """What is open and changed since the last snapshot; call it together with `take`."""
        self._place_young()
        rows, self._gone = self._gone, []
        opened: list[Life] = []
        frozen: dict[str, tuple[Life, bytes]] = {}
        for mid in self._dirty:
            life = self.lives[mid]
            assert isinstance(life, Life)
            if life.send is None:
                rows += self._waiting_rows(mid, life)
            else:
                rows += self._part_tombstones(mid, life)
                life.saved, life.parts = True, ()
                # A copy: receipts that come while it is written are of the next cut.
                opened.append(Life(life.send, life.receipts))
            facts = _frozen(life)
            frozen[mid] = (life, facts)
            if life.send is not None:
                rows.append(self._open_row(mid, life, life.send, facts))
        self._dirty = set()
        through = min(self.marks["sends"], self.marks["receives"], self._earliest_ms())
        oldest_ms = min(recent.remembers_from_ms(now_ms) for recent in self._recent.values())
        counts = msgspec.structs.replace(self.counts)
        adopted, self._adopted = self._adopted, []
        return Snapshot(rows, opened, adopted, frozen, dict(self.marks), through, oldest_ms, len(self.lives), counts)

    def _part_tombstones(self, mid: str, life: Life) -> list[OpenRow]:
        return [OpenRow(self.shard, mid, part, "", 0, 0, b"", _PART_TOMBSTONE, 1) for part in life.parts]

    def _tombstone(self, mid: str, life: Life, send: Send) -> OpenRow:
        return OpenRow(self.shard, mid, "", send.account_id, send.occurred_ms, 0, b"", saved_version(life) + 1, 1)

    def _open_row(self, mid: str, life: Life, send: Send, facts: bytes) -> OpenRow:
        at = send.occurred_ms, life.deadline_ms
        return OpenRow(self.shard, mid, "", send.account_id, *at, facts, saved_version(life), 0)

    def _waiting_rows(self, mid: str, life: Life) -> list[OpenRow]:
        parts = {f"{r.event_id}\0{r.state}\0{r.occurred_ms}\0{r.segment}": r for r in life.receipts}
        life.parts = tuple(parts)
        at = 0, life.deadline_ms
        return [
            OpenRow(self.shard, mid, part, "", *at, _encode(Life(None, (r,), life.deadline_ms)), 1, 0)
            for part, r in parts.items()
        ]

    def saved(self, snapshot: Snapshot) -> None:
        """Says that a snapshot is durable: what has not changed since is kept as the bytes that were written."""
        for mid, (life, facts) in snapshot.frozen.items():
            if self.lives.get(mid) is life and mid not in self._dirty:
                self.lives[mid] = _kept(mid, facts)
                self._unpacked.append(mid)

    def _pack(self) -> None:
        """Packs some of what was saved before the newest, so that most messages never pay for it."""
        for _ in range(min(_PACK_AT_ONCE, len(self._unpacked) - self.unpacked_max)):
            mid = self._unpacked.popleft()
            facts = self.lives.get(mid)
            if isinstance(facts, bytes):
                self.lives[mid] = self._packing.pack(facts)

    def _earliest_ms(self) -> int:
        """The smallest `occurred_at` still open; the largest time there is when nothing is.

        Of a campaign that occurred in one second it is that second: to look at each of them is too dear.
        """
        for begin_ms, count, standing in self._occurred.ascending():
            if count > _EARLIEST_MAX:
                return begin_ms
            lives = [self._open_life(mid) for mid in standing()]
            times = [life.send.occurred_ms for life in lives if life is not None and life.send is not None]
            if times:
                return min(times)
        return _NEVER_MS

    def restore(
        self, message_id: str, facts: bytes, deadline_ms: int, occurred_ms: int, *, is_shown: bool = True
    ) -> None:
        """Takes back an open message as it was saved; one that is not shown is saved again with what shows it."""
        # Not `_kept` before it is packed: to be ready again soon is worth more.
        self.lives[message_id] = facts
        self._unpacked.append(message_id)
        self._ends.add(deadline_ms, message_id)
        self._occurred.add(occurred_ms, message_id)
        if not is_shown:
            self._thaw(message_id, facts)
            self._dirty.add(message_id)

    def remember(self, direction: str, ids: Iterable[str], since_ms: int, now_ms: int) -> None:
        """Takes back the ids of records settled between two times."""
        self._recent[direction].add(hashes(ids), since_ms, now_ms, now_ms)

    def remember_orphans(self, ids: Iterable[str], now_ms: int) -> None:
        """Takes back the ids of receipts that never met a message."""
        self._orphaned.add(hashes(ids), now_ms, now_ms, now_ms)


def _all_but(refused: Set[str], written: dict[str, T]) -> dict[str, T]:
    """What was written: events that the store refused may be sent again once it can store them."""
    return {mid: it for mid, it in written.items() if mid not in refused} if refused else written


def saved_version(life: Life) -> int:
    """The version of a message's open row: twice its facts; one more is its tombstone's.

    So a tombstone outranks every row that knows no more, and never one of another owner that knows more.
    """
    return 2 * (1 + len(life.receipts))


def _frozen(life: Life) -> bytes:
    # `_thawed` knows these two without being told.
    placed, saved, life.placed, life.saved = life.placed, life.saved, False, False
    facts = _encode(life)
    life.placed, life.saved = placed, saved
    return facts


def _kept(mid: str, facts: bytes) -> bytes:
    """Saved facts without what goes without saying: memory is counted by the million of them."""
    # A producer's own attributes may have these names: from there on all stays as it is.
    said, attributes, rest = facts.partition(b'"attributes":{')
    return said.replace(b'"message_id":%b,' % _encode(mid), b"").replace(b'"occurred_at":"",', b"") + attributes + rest


def _thawed(mid: str, facts: bytes) -> Life:
    """A message as it was saved; its place among the deadlines is kept."""
    life = _thaw_kept(facts)
    for fact in (life.send, *life.receipts):
        if fact is not None:
            fact.message_id, fact.occurred_at = mid, ""
    life.placed, life.saved = True, life.send is not None
    return life
