"""What events, the store's answers and time do to the messages of a partition: merging, settling, orphaning. Pure.

Deadlines run on watermarks, not on the clock: an open message ends on the receipts watermark, a waiting one on the
sends watermark. An unknown receipt is only looked up in the store once the sends before it were read, because until
then its send may simply not have been reached; so topics that are read at different speeds cost nothing.
"""

from collections.abc import Iterable
from typing import Any, Final, cast

import msgspec

from schemas import native
from schemas.events import Receipt, Receive, Send
from streams import join
from streams.effects import Counts, Entry, Found, Held, Progress
from streams.join import Life
from streams.lives import REMEMBER_MS, Lives
from streams.recent import hashes, hashes_in

_NOTHING: Final = Found({}, (), {})
# Takes the plain events of a batch, nine of ten (native/join.c); the rules of all are in `_take_send`, `_take_receipt`.
_joiner: Final[Any] = native.module.Joiner(Life(), Send, Receipt) if native.enabled else None


class Partition(Lives):
    """One partition: events go in, the store is asked, time passes."""

    # ---- events --------------------------------------------------------------------------------------------

    def add_sends(self, events: list[tuple[Send, Entry]], now_ms: int) -> list[Held]:
        """Merges sends in log order; returns those to ask the store about, to be given to `resolve_sends`."""
        suspects = self._suspects(events, "outbound")
        held: list[Held] = []

        def take(send: Send, entry: Entry, now_ms: int) -> None:
            self._take_send(send, entry, suspects, held, now_ms)

        if native.enabled:
            opened, due_ms = _joiner.sends(
                events, self.lives, self.fresh, self.flushing, self._held, suspects, self._dirty, self._young, now_ms,
                self.window_ms, REMEMBER_MS, take,
            )  # fmt: skip
            self._opened(opened, due_ms)
        else:
            for send, entry in events:
                take(send, entry, now_ms)
        return held

    def _take_send(self, send: Send, entry: Entry, suspects: set[int], held: list[Held], now_ms: int) -> None:
        mid = send.message_id
        life = self._life(mid)
        is_late = entry.timestamp - send.occurred_ms > REMEMBER_MS and (life is None or life.send is None)
        is_suspect = is_late or mid in self._held or (suspects and hash(mid) in suspects)
        if is_suspect and life is None and self._is_copy("outbound", Life(send)):
            return
        if is_suspect:
            held.append(Held(send, entry, self._unwritten_orphans(mid)))
            self._held.add(mid)
        elif life is not None and life.send is not None:
            self._repeated(life.send.event_id, send, entry, "sends")
        else:
            self._open(send, entry, life, now_ms)

    def add_receives(self, events: list[tuple[Receive, Entry]], now_ms: int) -> list[Held]:
        """Merges receives in log order; returns those to ask the store about, to be given to `resolve_receives`."""
        suspects = self._suspects(events, "inbound")
        held: list[Held] = []
        held_ids: set[str] = set()
        for receive, entry in events:
            mid = receive.message_id
            known = self.fresh_inbound.get(mid) or self.flushing_inbound.get(mid)
            if known is not None:
                self._repeated(known.event_id, receive, entry, "receives")
            elif (
                (suspects and hash(mid) in suspects)
                or entry.timestamp - receive.occurred_ms > REMEMBER_MS
                or (held_ids and mid in held_ids)
            ):  # fmt: skip
                if not self._is_copy("inbound", Life(cast(Any, receive))):
                    held.append(Held(receive, entry))
                    held_ids.add(mid)
            else:
                self.fresh_inbound[mid] = receive
                self.counts.merged += 1
        return held

    def add_receipts(self, events: list[tuple[Receipt, Entry]], now_ms: int) -> None:
        """Merges receipts in log order: into open and settled messages, else they wait for their send."""
        if native.enabled:
            placed: list[Life] = []
            sets = events, self.lives, self.fresh, self._dirty, placed
            merged, amended = _joiner.receipts(*sets, now_ms, join.RECEIPTS_MAX, self._take_receipt)
            self.counts.merged += merged
            self.counts.amended += amended
            for life in placed:
                self._leave_wheels(life)
        else:
            for receipt, entry in events:
                self._take_receipt(receipt, entry, now_ms)

    def _take_receipt(self, receipt: Receipt, entry: Entry, now_ms: int) -> None:
        mid = receipt.message_id
        life = self._open_life(mid)
        if life is None:
            if not self._amend(mid, receipt, entry, now_ms) and not self._is_copy("outbound", Life(None, (receipt,))):
                self._wait(receipt, entry, now_ms)
            return
        outcome = join.add_receipt(life, receipt)
        if outcome != "merged":
            self._count_receipt(outcome, receipt, entry)
            return
        self.counts.merged += 1
        if life.send is not None and join.is_final(receipt):
            self._settle(mid, life, now_ms)
        else:
            self._dirty.add(mid)

    def _suspects(self, events: Any, direction: str) -> set[int]:
        if native.enabled:
            wanted = hashes_in(native.module.hashes(events))
        else:
            wanted = hashes(event.message_id for event, _ in events)
        suspects = self._recent[direction].seen(wanted)
        return suspects | self._orphaned.seen(wanted) if direction == "outbound" else suspects

    def _repeated(self, known_id: str, event: Send | Receive, entry: Entry, topic: str) -> None:
        if known_id == event.event_id:
            self.counts.duplicates += 1
        else:
            self.refuse(topic, entry, "conflict", "message_id: known with another event_id")

    def _count_receipt(self, outcome: str, receipt: Receipt, entry: Entry | None) -> None:
        if outcome == "duplicate":
            self.counts.duplicates += 1
        elif outcome == "too_many_events":
            self.refuse("receipts", entry, outcome, f"message_id: has {join.RECEIPTS_MAX} receipts", receipt)

    def _open(self, send: Send, entry: Entry, waiting: Life | None, now_ms: int) -> None:
        mid = send.message_id
        deadline_ms = max(send.occurred_ms, min(entry.timestamp, now_ms)) + self.window_ms
        self.counts.merged += 1
        if waiting is None:
            self.lives[mid] = Life(send, (), deadline_ms)
        else:
            self._leave_wheels(waiting)
            self._asking.discard(mid)
            self.waiting -= 1
            self._cut(waiting)
            waiting.send, waiting.deadline_ms, waiting.placed = send, deadline_ms, False
            if join.has_final(waiting):
                self._settle(mid, waiting, now_ms)
                return
        self._young.append(mid)
        self._opened(0, deadline_ms)
        self._dirty.add(mid)

    def _cut(self, life: Life) -> None:
        """Keeps the first receipts of those that waited, as many as a message can have."""
        for receipt in life.receipts[join.RECEIPTS_MAX :]:
            self.counts.merged -= 1
            self._count_receipt("too_many_events", receipt, None)
        life.receipts = life.receipts[: join.RECEIPTS_MAX]

    def _wait(self, receipt: Receipt, entry: Entry, now_ms: int) -> None:
        mid = receipt.message_id
        read_ms = min(entry.timestamp, now_ms)
        life = self.lives[mid] = Life(None, (receipt,), max(receipt.occurred_ms, read_ms) + self.window_ms)
        self.waiting += 1
        self._young.append(mid)
        self._opened(1, life.deadline_ms)
        self._dirty.add(mid)
        self._asks.append((read_ms, mid))

    def _amend(self, mid: str, receipt: Receipt, entry: Entry | None, now_ms: int) -> bool:
        """Merges a receipt into a settled message that is still in memory, if it is."""
        life = self.fresh.get(mid)
        if life is None:
            written = self._written_life(mid)
            if written is None:
                return False
            # What changes now is a copy, and a row of its own.
            life = msgspec.structs.replace(written)
        outcome = join.add_receipt(life, receipt)
        if outcome == "merged":
            self.counts.merged += 1
            self._mark_amended(mid, life, now_ms)
        else:
            self._count_receipt(outcome, receipt, entry)
        return True

    def _mark_amended(self, mid: str, life: Life, now_ms: int) -> None:
        life.amendments += 1
        life.amended_ms = now_ms
        self.fresh[mid] = life
        self.counts.amended += 1

    # ---- what the store knows ------------------------------------------------------------------------------

    def resolve_sends(self, held: list[Held], found: dict[str, Found], now_ms: int) -> None:
        """Goes on with held sends, in log order, now that the store was asked."""
        self._recall((event.message_id for event, *_ in held), found, now_ms)
        for event, entry, unwritten in held:
            send = cast(Send, event)
            mid = send.message_id
            self._held.discard(mid)
            life = self._life(mid)
            known = found.get(mid, _NOTHING)
            orphans = (*known.orphans, *unwritten)
            if life is not None and life.send is not None:
                self._repeated(life.send.event_id, send, entry, "sends")
                self._merge_into(mid, life, orphans, now_ms)
            elif (stored := self._stored(mid, known)) is not None:
                assert stored.send is not None
                self._repeated(stored.send.event_id, send, entry, "sends")
                self._merge_waiting(mid, life, stored, orphans, now_ms)
            elif "outbound" in known.begun:
                # Receipts that began to wait meanwhile have their own question open.
                self._repeated(known.begun["outbound"], send, entry, "sends")
            else:
                self._open(send, entry, self._adopt(mid, life, orphans) if orphans else life, now_ms)
        self._outlived.clear()

    def _stored(self, mid: str, known: Found) -> Life | None:
        return join.restore(known.records["outbound"]) if "outbound" in known.records else self._outlived.get(mid)

    def resolve_receives(self, held: list[Held], found: dict[str, Found], now_ms: int) -> None:
        """Goes on with held receives, in log order, now that the store was asked."""
        for event, entry, _ in held:
            receive = cast(Receive, event)
            mid = receive.message_id
            first = self.fresh_inbound.get(mid) or self.flushing_inbound.get(mid)
            known = found.get(mid, _NOTHING)
            begun = known.begun | {d: record.timeline_event_id[0] for d, record in known.records.items()}
            known_id = begun.get("inbound") if first is None else first.event_id
            if known_id is not None:
                self._repeated(known_id, receive, entry, "receives")
            else:
                self.fresh_inbound[mid] = receive
                self.counts.merged += 1

    def resolve_receipts(self, asked: Iterable[str], found: dict[str, Found], now_ms: int) -> None:
        """Goes on with waiting receipts: into the settled record if the store has one, else they wait on."""
        # An answer is for the receipts it was asked for, not for others that began to wait since.
        asked = [mid for mid in asked if mid in self._asking]
        self._recall(asked, found, now_ms)
        for mid in asked:
            life = self._open_life(mid)
            if life is None:
                continue
            self._asking.discard(mid)
            known = found.get(mid, _NOTHING)
            if "outbound" in known.records:
                self._merge_waiting(mid, life, join.restore(known.records["outbound"]), known.orphans, now_ms)
            else:
                life.asked = True
                self._dirty.add(mid)  # else a snapshot under way would bring back the bytes from before

    def _recall(self, ids: Iterable[str], found: dict[str, Found], now_ms: int) -> None:
        """Remembers what the store has a record of: another owner may have settled it after we read what it settled."""
        recorded = [mid for mid in ids if found.get(mid, _NOTHING).has("outbound")]
        self._recent["outbound"].add(hashes(recorded), now_ms, now_ms, self._read_ms["sends"])

    def _merge_waiting(
        self, mid: str, life: Life | None, stored: Life, orphans: tuple[Receipt, ...], now_ms: int
    ) -> None:
        """Merges orphans, and receipts that wait, into a record of the store."""
        merged = self._merge_orphans(stored, orphans)
        if life is not None:
            self._drop(mid, life)
            self.waiting -= 1
            merged += self._merge_waited(stored, life.receipts)
        for _ in range(merged):
            self._mark_amended(mid, stored, now_ms)

    def _merge_into(self, mid: str, life: Life, orphans: tuple[Receipt, ...], now_ms: int) -> None:
        """Merges orphans into a message that is open or just settled: a crash had come between the two writes."""
        if mid in self.flushing and mid not in self.fresh:
            life = msgspec.structs.replace(life)
        merged = self._merge_orphans(life, orphans)
        if life.settled_ms:
            for _ in range(merged):
                self._mark_amended(mid, life, now_ms)
        elif merged and join.has_final(life):
            self._settle(mid, life, now_ms)
        elif merged:
            self._dirty.add(mid)

    def _adopt(self, mid: str, life: Life | None, orphans: tuple[Receipt, ...]) -> Life:
        """A waiting life of orphans and of the receipts that came since, oldest first."""
        adopted = Life()
        self._merge_orphans(adopted, orphans)
        if life is None:
            self.waiting += 1
        else:
            self._leave_wheels(life)
            adopted.parts = life.parts
            self._merge_waited(adopted, life.receipts)
        self.lives[mid] = adopted
        return adopted

    def _merge_orphans(self, life: Life, orphans: tuple[Receipt, ...]) -> int:
        """How many joined; they were counted when they were read, whatever becomes of them now."""
        merged = sum(join.add_receipt(life, receipt) == "merged" for receipt in orphans)
        self._adopted += orphans
        self.counts.adopted += merged
        return merged

    def _merge_waited(self, life: Life, receipts: tuple[Receipt, ...]) -> int:
        """How many joined; they were counted as merged when they began to wait."""
        merged = 0
        for receipt in receipts:
            outcome = join.add_receipt(life, receipt)
            if outcome == "merged":
                merged += 1
            else:
                self.counts.merged -= 1
                self._count_receipt(outcome, receipt, None)
        return merged

    def _unwritten_orphans(self, mid: str) -> tuple[Receipt, ...]:
        return tuple(r for orphans in (self._flushing_orphans, self._orphans) for r, _ in orphans.get(mid, ()))

    # ---- time ----------------------------------------------------------------------------------------------

    def tick(self, now_ms: int, *, ask: bool = True) -> list[str]:
        """Settles and orphans what is due by now; returns ids of waiting receipts to ask the store about."""
        self._place_due()
        self._pack()
        for mid in self._ends.upto(self.marks["receipts"]):
            life = self._open_life(mid)
            if life is not None and life.send is not None and life.deadline_ms < self.marks["receipts"]:
                self._settle(mid, life, now_ms)
        for mid in self._waits.upto(self.marks["sends"]):
            life = self._open_life(mid)
            if life is None or life.send is not None or mid in self._held:
                continue
            if life.asked and life.deadline_ms < self.marks["sends"]:
                self._orphan(mid, life, now_ms)
        self._forget(now_ms)
        return self._due_asks() if ask else []

    def _orphan(self, mid: str, life: Life, now_ms: int) -> None:
        self._drop(mid, life)
        self._cut(life)
        self.waiting -= 1
        self._orphans.setdefault(mid, []).extend((receipt, now_ms) for receipt in life.receipts)
        self.counts.orphaned += len(life.receipts)
        self._orphaned.add(hashes([mid]), now_ms, now_ms, now_ms)

    def _due_asks(self) -> list[str]:
        due: list[str] = []
        while self._asks and self._asks[0][0] < self.marks["sends"]:
            mid = self._asks.popleft()[1]
            life = self._open_life(mid)
            if life is not None and life.send is None and not life.asked:
                due.append(mid)
                self._asking.add(mid)
        return due

    # ---- recovery ------------------------------------------------------------------------------------------

    def restore_waiting(self, message_id: str, part: str, facts: bytes) -> None:
        """Takes back a receipt that waits for its send; the store is asked about it again."""
        saved = join.thaw(facts)
        life = self._await_again(message_id, saved)
        life.parts = (*life.parts, part)

    def restore_settled(self, message_id: str, facts: bytes, is_known: bool) -> None:
        """Takes back an open row whose message has a record already: a crash, or a stale owner, left it behind.

        `is_known`: the record holds all that the row does. Else its receipts go the way of late ones.
        """
        saved = join.thaw(facts)
        assert saved.send is not None
        self._gone.append(self._tombstone(message_id, saved, saved.send))
        if not is_known:
            self._await_again(message_id, saved)
            self._dirty.add(message_id)  # the tombstone takes its receipts along

    def _await_again(self, message_id: str, saved: Life) -> Life:
        life = self._open_life(message_id)
        if life is None:
            life = self.lives[message_id] = Life(None, (), saved.deadline_ms)
            self.waiting += 1
            self._young.append(message_id)
            self._opened(0, saved.deadline_ms)
            self._asks.append((0, message_id))
        receipts = {r.source: r for r in (*life.receipts, *saved.receipts)}
        life.receipts = tuple(receipts[source] for source in sorted(receipts, key=_log_order))
        if life.send is not None:
            self._cut(life)
        return life

    def restore_progress(self, stored: "Progress") -> None:
        """Takes back watermarks and counts: the offsets that reading goes on from belong to them."""
        self.marks = {"sends": stored.sends_mark, "receives": stored.receives_mark, "receipts": stored.receipts_mark}
        self.counts = Counts(**{name: getattr(stored, name) for name in Counts.__struct_fields__})


def _log_order(source: str) -> int:
    return int(source.rsplit(":", 1)[1])
