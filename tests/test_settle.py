"""A partition under any order, repetition, batching, look-up, write and crash, against the oracle."""

from itertools import combinations
from typing import Any, Final
from unittest.mock import patch

import pytest
from hypothesis import example, given, note, settings

from schemas.record import Record
from streams import join
from streams.settle import Partition
from tests import oracle
from tests.entries import NOON_MS, entry, event, read
from tests.histories import HISTORIES, TAKEN, Arrival, History, Run, plain
from tests.inmemory import MemoryStore

pytestmark = pytest.mark.usefixtures("way")
MANY: Final = 2 * settings().max_examples


def assert_as_judged(run: Run) -> None:
    """What the store and the dead letters hold is what the oracle says of the log."""
    expected, store = run.outcome(), run.worker.store
    assert len({(r.direction, r.message_id) for r in store.mdrs.values()}) == len(store.mdrs), "two of one message"
    assert {(r.direction, r.message_id): plain(r) for r in store.mdrs.values()} == expected.records
    assert store.orphans().keys() == expected.orphans
    assert dict(run.worker.kafka.letters) == {(t, at): r for (t, _, at), r in expected.dead_letters.items()}
    assert not run.worker.partition.lives, "something is still open"


def known(row: Record) -> set[tuple[Any, ...]]:
    """What a record knows: its timeline without where it was read."""
    steps = row.timeline_event_id, row.timeline_state, row.timeline_occurred_at, row.timeline_segment
    return set(zip(*steps, strict=True))


def assert_less_knowledge_loses(store: MemoryStore) -> None:
    """Of all rows ever written of a message, one that knows less has a lower version; equal versions are equal rows."""
    for rows in store.history.values():
        for a, b in combinations(rows, 2):
            if known(a) < known(b):
                assert a.version < b.version
            elif known(b) < known(a):
                assert b.version < a.version
            elif known(a) == known(b):
                assert a.version == b.version and plain(a) == plain(b)


_SEND: Final = Arrival("sends", event("sends", event_id="e1"), 0)
_LATE_SEND: Final = Arrival("sends", event("sends", at_ms=NOON_MS - 7_200_000, event_id="e1"), 0)
_DELIVERED: Final = Arrival("receipts", event("receipts", event_id="r1"), 0)
_FAILED: Final = Arrival("receipts", event("receipts", event_id="r2", state="failed"), 0)
_SENT: Final = Arrival("receipts", event("receipts", event_id="r1", state="sent"), 0)
_QUEUED: Final = Arrival("receipts", event("receipts", event_id="r3", state="queued"), 0)
# Adopted by a message that stays open, then a crash before, in and after the next checkpoint.
_ADOPTED: Final = [("calm", 1, 6_000, True), ("calm", 1, 10, False)]
# The receipt waits for its send, and the store has not been asked.
_WAITING: Final = [("arrive", 1), ("read", "receipts", 1), ("wait", 10), ("ends",)]
# A waiting receipt becomes an orphan that is not written yet.
_GIVEN_UP: Final = [("wait", 6_000), ("ends",), ("tick",)]
# The message is open, and a receipt of it has arrived.
_OPEN: Final = [("arrive", 1), ("read", "sends", 1), ("arrive", 1)]
# The partition is lost after the send was read and before it was saved.
_LOST: Final = [("arrive", 1), ("read", "sends", 1), ("take_over",)]
_OTHER_SEND: Final = Arrival("sends", event("sends", event_id="e2"), 0)
# A send is looked up again, for it was an orphan's; before the answer is there the message has been written.
_WRITTEN_SINCE: Final[list[Any]] = [
    *_WAITING, ("tick",), *_GIVEN_UP, ("write", False, [], None), ("arrive", 1), ("read", "sends", 1), ("arrive", 1),
    ("begin", "sends", 1), ("answer", "sends"), ("write", False, [], None), ("finish", "sends"),
]  # fmt: skip
_ALTERED: Final = Arrival("receipts", event("receipts", event_id="r1", state="sent", error_code="altered"), 0)
# A receipt and its altered copy are given up one after the other, then the send comes.
_GIVEN_UP_TWICE: Final[list[Any]] = [
    *_WAITING, ("tick",), *_GIVEN_UP, ("write", False, [], None), *_WAITING, ("tick",), *_GIVEN_UP,
    ("write", False, [], None), ("arrive", 1), ("read", "sends", 1),
]  # fmt: skip
# It settles without the receipt that the next owner reads, and saves, before this one writes.
_OUTRUN: Final[list[Any]] = [
    *_LOST[:2], ("write", True, [], None), ("arrive", 1), ("read", "receipts", 1), *_GIVEN_UP, ("arrive", 1),
    ("take_over",), ("read", "receipts", 2), ("write", True, [], None), ("write_stale",), ("crash",),
]  # fmt: skip
# The next owner has loaded what waits when the record is written; then it asks, and reads the send again.
_SETTLED_SINCE: Final[list[Any]] = [
    *_WAITING, ("write", True, [], None), *_LOST, ("write_stale",), ("tick",), ("read", "sends", 1), ("arrive", 1),
    ("read", "receipts", 1),
]  # fmt: skip


@settings(max_examples=MANY)
@given(HISTORIES)
@example(History([_SENT, _SEND], [*_ADOPTED, ("crash",)]))
@example(History([_SENT, _LATE_SEND], [*_ADOPTED, ("write", True, [], 1)]))
@example(History([_SENT, _LATE_SEND], [*_ADOPTED, ("write", True, [], 2)]))
@example(History([_SENT, _LATE_SEND], [*_ADOPTED, ("write", True, [], 3)]))
@example(History([_SEND, _SENT], [*_OPEN, ("write", True, [("read", "receipts", 1)], None)]))
@example(History([_SENT, _SEND], [*_WAITING, ("tick",), *_GIVEN_UP, ("arrive", 1), ("read", "sends", 1)]))
@example(History([_SENT], [*_WAITING, ("write", True, [("tick",)], None)]))
@example(History([_DELIVERED, _SEND, _OTHER_SEND], _WRITTEN_SINCE))
@example(History([_SENT, _ALTERED, _SEND], _GIVEN_UP_TWICE))
@example(History([_LATE_SEND], [("arrive", 1), ("begin", "sends", 1), ("write", True, [], None), ("crash",)]))
def test_however_a_log_is_read_its_outcome_is_the_same(history: History) -> None:
    """Records, orphans and dead letters depend on the log alone, not on batches, ticks, writes, look-ups or crashes."""
    note(history.told())
    run = Run(history)
    assert_as_judged(run)
    assert_less_knowledge_loses(run.worker.store)
    assert all(row.is_deleted for row in run.worker.store.open.values()), "an open row was left behind"


@settings(max_examples=MANY // 2)
@given(TAKEN)
@example(History([_SEND, _DELIVERED, _FAILED], [*_LOST, ("calm", 1, 10, True), ("write_stale",), ("crash",)]))
@example(History([_SEND, _SENT, _QUEUED], _OUTRUN))
@example(History([_FAILED, _SEND, _DELIVERED], _SETTLED_SINCE))
def test_what_a_stale_owner_still_writes_loses(history: History) -> None:
    """A worker that lost its partition and writes on, whenever, changes nothing of what its successor makes."""
    note(history.told())
    run = Run(history)
    assert_as_judged(run)


@settings(max_examples=MANY // 5)
@given(HISTORIES)
def test_the_first_receipts_of_a_message_stay_however_they_are_read(history: History) -> None:
    """With room for three receipts a message the first three in the log stay; later ones become dead letters.

    Orphans are not counted over windows.
    """
    note(history.told())
    with patch.object(join, "RECEIPTS_MAX", 3), patch.object(oracle, "MOST_RECEIPTS", 3):
        run = Run(history)
        expected, store = run.outcome(), run.worker.store
        assert_less_knowledge_loses(store)
        if not store.orphan_log:
            assert {(r.direction, r.message_id): plain(r) for r in store.mdrs.values()} == expected.records
            got = dict(run.worker.kafka.letters)
            judged = {(t, at): r for (t, _, at), r in expected.dead_letters.items()}
            assert judged.items() <= got.items()
            assert {got[place] for place in got.keys() - judged.keys()} <= {"too_many_events"}


@pytest.mark.parametrize("cut", range(1, 6))
@pytest.mark.parametrize("state", ["sent", "delivered"])
def test_a_log_read_in_batches_of_any_size_is_read_alike(cut: int, state: str) -> None:
    """The same log in batches of one to five entries, with a crash after each, gives the same records."""
    log = [_SEND, *(Arrival("receipts", event("receipts", event_id=f"r{n}", state=state), 0) for n in range(5))]
    steps: list[Any] = [("arrive", 6), ("read", "sends", cut)]
    for _ in range(6):
        steps += [("read", "receipts", cut), ("write", False, [], None), ("write", True, [], None), ("crash",)]
    run = Run(History(log, steps))
    assert_as_judged(run)


def test_what_was_taken_does_not_change_while_it_is_written() -> None:
    """A receipt that comes while its message is being written amends a copy, which is a row of its own."""
    partition = Partition(0, 5_000, NOON_MS)
    sent, final, later = (entry(n, NOON_MS, event("receipts")) for n in range(3))
    partition.add_sends([(read("sends"), sent)], NOON_MS)
    partition.add_receipts([(read("receipts", state="failed"), final)], NOON_MS)
    taken = partition.take(NOON_MS).settled
    partition.add_receipts([(read("receipts", event_id="r2"), later)], NOON_MS + 1)
    assert [(len(life.receipts), life.amendments) for life in taken] == [(1, 0)]
    partition.written(NOON_MS + 2)
    assert [(len(life.receipts), life.amendments) for life in partition.take(NOON_MS + 3).settled] == [(2, 1)]


def test_attributes_may_be_called_like_what_memory_leaves_out() -> None:
    """A saved message is kept short, and what a producer calls `message_id` in its attributes is not its id."""
    partition = Partition(0, 5_000, NOON_MS)
    attributes = {"message_id": "m1", "occurred_at": "", "x": "y"}
    partition.add_sends([(read("sends", attributes=attributes), entry(0, NOON_MS, event("sends")))], NOON_MS)
    partition.add_receipts([(read("receipts", state="sent"), entry(0, NOON_MS, event("receipts")))], NOON_MS)
    partition.saved(partition.snapshot(NOON_MS))
    assert isinstance(partition.lives["m1"], bytes)
    final = read("receipts", event_id="r2", state="failed")
    partition.add_receipts([(final, entry(1, NOON_MS, event("receipts")))], NOON_MS)
    (life,) = partition.take(NOON_MS).settled
    assert life.send is not None and life.send.attributes == attributes
    assert [(r.message_id, r.event_id) for r in life.receipts] == [("m1", "m1-1"), ("m1", "r2")]


@pytest.mark.parametrize(("messages", "told_ms"), [(1_000, NOON_MS + 7), (1_001, NOON_MS)])
def test_of_a_campaign_of_one_second_the_second_is_told(messages: int, told_ms: int) -> None:
    """`settled_through` is the smallest `occurred_at` still open; of more than a thousand in one second that second."""
    partition = Partition(0, 60_000, NOON_MS)
    events = [read("sends", n, message_id=f"m{n}", event_id=f"e{n}", at_ms=NOON_MS + 7) for n in range(messages)]
    partition.add_sends([(e, entry(n, NOON_MS + 7, event("sends"))) for n, e in enumerate(events)], NOON_MS + 7)
    for topic in partition.marks:
        partition.caught_up(topic, NOON_MS + 50)
    assert partition.snapshot(NOON_MS + 50).settled_through == told_ms


def test_a_clock_that_jumps_forgets_nothing() -> None:
    """What was settled is remembered for ten minutes of the log, though the worker's clock goes an hour ahead."""
    partition = Partition(0, 5_000, NOON_MS)
    first = read("receives"), entry(0, NOON_MS, event("receives"))
    partition.add_receives([first], NOON_MS)
    partition.take(NOON_MS)
    partition.written(NOON_MS)
    hour_ms = NOON_MS + 3_600_000
    for topic in partition.marks:
        partition.caught_up(topic, hour_ms)
    partition.tick(hour_ms)
    again = read("receives"), entry(1, NOON_MS + 1_000, event("receives"))
    assert not partition.add_receives([again], hour_ms) and partition.counts.duplicates == 1, "it is not known"
    other = read("receives", event_id="another"), entry(2, NOON_MS + 1_000, event("receives"))
    assert len(partition.add_receives([other], hour_ms)) == 1, "it is not looked up"
