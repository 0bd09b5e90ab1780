"""Valid but ugly events, from their bytes to the stored record and what is counted: both ways the same, and nothing raises."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import pytest

from schemas import native
from schemas.batches import as_struct
from schemas.record import COLUMNS
from streams import aside, fold, folding
from streams.effects import Rows, Snapshot
from streams.flow import RECEIPTS, RECEIVES, SENDS, Flow
from streams.folding import Block, Piece
from streams.store import Store
from streams.tables import select_columns
from streams.telemetry import Metered, Telemetry
from tests.entries import NOON_MS, PREFIX, LogEntry, entry, event
from tests.rows import block_rows, blocks_of
from tests.ugly import MILLENNIUM_MS, Ugly

SEEDS: Final = range(10)
MESSAGES: Final = 40
NAMES: Final = [column.name for column in COLUMNS]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """An embedded store."""
    opened = Store(f"chdb://{tmp_path_factory.mktemp('ugly') / 'chdb'}")
    opened.migrate(3_650, 3_650)
    yield opened
    opened.close()


@contextmanager
def unbuilt() -> Iterator[None]:
    """Everything without the compiled part."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "enabled", False)
        yield


class Outcome(NamedTuple):
    """What became of the events of a seed."""

    taken: Rows
    snapshot: Snapshot
    refused: list[tuple[str, int, str]]
    counts: Any


def logs(seed: int) -> dict[str, list[LogEntry]]:
    """Entries by topic: messages with up to six receipts, some of them twice, some of no send."""
    ugly, found = Ugly(seed), dict[str, list[LogEntry]]({SENDS: [], RECEIVES: [], RECEIPTS: []})
    for n in range(MESSAGES):
        mid = ugly.id(f"m{n}")
        for topic, count in ((SENDS, n % 9 > 0), (RECEIVES, n % 3 > 0), (RECEIPTS, ugly.dice.randint(0, 6))):
            for _ in range(count):
                found[topic].append(ugly.entry(topic, len(found[topic]), mid, ugly.id("e")))
    for entries in found.values():
        again = ugly.dice.choice(entries)
        entries.append(LogEntry(len(entries), NOON_MS, again.key, again.value))
    return found


def joined(seed: int) -> Outcome:
    """Reads all events of a seed, receipts before or after their sends, then lets time pass."""
    flow, entries = Flow(PREFIX, 60_000), logs(seed)
    partition = flow.open_partition(3, NOON_MS)
    for topic in (SENDS, RECEIVES, RECEIPTS) if seed % 2 else (RECEIPTS, RECEIVES, SENDS):
        held = flow.batch(topic, 3, entries[topic], NOON_MS)
        flow.resume(topic, 3, entries[topic], held, {}, NOON_MS)
    snapshot = partition.snapshot(NOON_MS)
    partition.caught_up(RECEIPTS, NOON_MS + 120_000)
    partition.tick(NOON_MS + 120_000)
    refused = [(dead.topic, dead.entry.offset if dead.entry else -1, dead.reason) for dead in partition.dead]
    return Outcome(partition.take(NOON_MS + 120_000), snapshot, sorted(refused), partition.counts)


def plain(value: Any) -> Any:
    """Lists as tuples, instants as they are, facts as text."""
    return tuple(value) if isinstance(value, list) else value.decode() if isinstance(value, bytes) else value


@pytest.mark.native
@pytest.mark.parametrize("seed", SEEDS)
def test_both_ways_join_the_same(seed: int) -> None:
    """Events, their merging, what is refused and what is saved of open messages."""
    quick = joined(seed)
    with unbuilt():
        slow = joined(seed)
    assert (quick.refused, quick.counts) == (slow.refused, slow.counts)
    assert len(quick.taken.settled) > 10 and len(quick.taken.inbound) > 10
    for ours, theirs in zip(quick.taken.settled, slow.taken.settled, strict=True):
        assert (as_struct(ours.send), tuple(map(as_struct, ours.receipts))) == (theirs.send, theirs.receipts)
    assert list(map(as_struct, quick.taken.inbound)) == slow.taken.inbound
    assert sorted(quick.snapshot.rows) == sorted(slow.snapshot.rows)


@pytest.mark.native
@pytest.mark.parametrize("seed", SEEDS)
def test_the_builder_refuses_none_of_them(seed: int) -> None:
    """Whatever a legal value holds, its record is compiled, and is the fold's."""
    taken = [joined(seed).taken]
    pieces = list(folding.records(taken, NOON_MS))
    rows = [row for piece in pieces if isinstance(piece, Block) for row in block_rows(piece)]
    assert sorted(rows, key=str) == sorted(zip(*fold.records(taken, NOON_MS), strict=True), key=str)


@pytest.mark.parametrize("seed", SEEDS[:3])
def test_what_is_stored_is_what_is_counted(seed: int, way: str, store: Store) -> None:
    """Every record is stored as the fold says it is, and counted once by its type and delay; nothing raises beside it."""
    aside.failures.clear()
    store.command("TRUNCATE TABLE mdrs", {})
    telemetry, taken = Telemetry(PREFIX), [joined(seed).taken]
    assert Metered(store, telemetry).write_records(folding.records(taken, NOON_MS)) == []
    expected = list(zip(*fold.records(taken, NOON_MS), strict=True))
    found = store.query(f"SELECT {select_columns(COLUMNS)} FROM mdrs AS t", {})  # noqa: S608  # our own column names
    by_key = [sorted((tuple(map(plain, row)) for row in rows), key=str) for rows in (found, expected)]
    assert by_key[0] == by_key[1]
    assert telemetry.tally.records == Counter(row[NAMES.index("record_type")] for row in expected)
    delayed = [row for row in expected if row[NAMES.index("final_at")] and row[NAMES.index("direction")] == "outbound"]
    assert telemetry.tally.delays.sum() == len(delayed)
    assert not aside.failures and b"mdr_records_total" in telemetry.exposition()


@pytest.mark.native
def test_of_several_pieces_all_are_counted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of many months, one of them refused half-way, and messages that the builder left to the fold."""
    store.command("TRUNCATE TABLE mdrs", {})
    taken = joined(1).taken
    taken.settled[3].amendments = 60_000
    insert, calls = store._insert_block, []

    def refuse_some(table: str, block: Block) -> None:
        calls.append(block)
        if len(calls) % 5 == 2:
            raise ValueError("refused")
        insert(table, block)

    monkeypatch.setattr(store, "_insert_block", refuse_some)
    written: list[Piece] = []
    assert store.write_records(folding.records([taken], NOON_MS), written.append) == []
    assert len(calls) > 10 and len(written) == len(calls)
    ids = [mid for piece in written for mid in folding.as_array([piece], 0).to_pylist()]
    assert sorted(ids) == sorted(fold.records([taken], NOON_MS)[0])
    assert list(store.query("SELECT count() FROM mdrs", {})) == [(len(ids),)]


# ---- cases that ended the worker --------------------------------------------------------------------------------


def lone(topic: str, n: int, **fields: Any) -> LogEntry:
    """The entry of one event."""
    return entry(n, NOON_MS, event(topic, **fields))


def written_alone(store: Store, entries: dict[str, list[LogEntry]]) -> tuple[list[Any], Counter[str]]:
    """What one flush of some entries stores and counts; nothing is left to the fold."""
    store.command("TRUNCATE TABLE mdrs", {})
    flow, telemetry = Flow(PREFIX, 60_000), Telemetry(PREFIX)
    partition = flow.open_partition(0, NOON_MS)
    for topic, some in entries.items():
        flow.resume(topic, 0, some, flow.batch(topic, 0, some, NOON_MS), {}, NOON_MS)
    taken = [partition.take(NOON_MS)]
    if native.enabled:
        blocks_of(taken)
    assert Metered(store, telemetry).write_records(folding.records(taken, NOON_MS)) == []
    shown = "SELECT message_id, vendor_error_code, provider FROM mdr ORDER BY message_id"
    return [tuple(row) for row in store.query(shown, {})], telemetry.tally.records


@pytest.mark.parametrize("text", ['Absent "subscriber"', "a\\b", "tab\there", "\x00", "\x1f\x7f", "\u202e"])
@pytest.mark.usefixtures("way")
def test_a_quoted_text_of_a_receipt_is_a_record(store: Store, text: str) -> None:
    """A carrier's text that JSON must escape, in the receipt or beside it in the send."""
    sends = [lone("sends", 0), lone("sends", 1, message_id="m2", provider=text)]
    receipts = [
        lone("receipts", 0, state="UNDELIV", error_code="27", vendor_error_code=text),
        lone("receipts", 1, message_id="m2", mcc="310", mnc="410"),
    ]
    found, counted = written_alone(store, {SENDS: sends, RECEIPTS: receipts})
    assert found == [("m1", text, ""), ("m2", "", text)]
    assert counted == {"error": 1, "complete": 1}


@pytest.mark.usefixtures("way")
def test_a_back_fill_may_span_as_many_months_as_there_are(store: Store) -> None:
    """From the first that is taken until now, in one flush."""
    months = [(NOON_MS - MILLENNIUM_MS) // 311 * n + MILLENNIUM_MS for n in range(312)]
    receives = [lone("receives", n, message_id=f"i{n:03}", at_ms=at_ms) for n, at_ms in enumerate(months)]
    found, counted = written_alone(store, {RECEIVES: receives})
    assert (len(found), counted) == (312, {"complete": 312})


@pytest.mark.usefixtures("way")
def test_the_dearest_message_costs_what_it_costs(store: Store) -> None:
    """The highest rate and fee of the most parts still fit: 20000000 less two billionths, 255 times."""
    rate = "9999999.999999999"
    dear = {"rate": rate, "carrier_fee": rate, "segments": 255}
    written_alone(store, {SENDS: [lone("sends", 0, **dear)], RECEIPTS: [lone("receipts", 0)], RECEIVES: [lone("receives", 0, **dear)]})
    amounts = store.query("SELECT amount_nanos FROM mdrs", {})
    assert [row[0] for row in amounts] == [(2 * 9_999_999_999_999_999) * 255] * 2
