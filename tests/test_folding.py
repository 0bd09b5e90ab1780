"""Folding in a process of its own: the same records, and nothing lost when it fails."""

from collections.abc import Iterator
from typing import Any, Final

import pyarrow as pa
import pytest

from schemas.record import COLUMNS
from streams import fold, folding
from streams.blocks import block_of
from streams.effects import Rows
from streams.folding import Folded, Folder
from streams.join import Life
from streams.store import Store
from tests.entries import NOON_MS, read

MANY: Final = 600
SHARD: Final = [c.name for c in COLUMNS].index("shard")


@pytest.fixture
def folder() -> Iterator[Folder]:
    """One whose process ends with the test."""
    made = Folder()
    yield made
    made.close()


@pytest.fixture
def store(tmp_path: Any) -> Iterator[Store]:
    """An embedded store."""
    opened = Store(f"chdb://{tmp_path / 'chdb'}")
    opened.migrate(3_650, 3_650)
    yield opened
    opened.close()


def finished(shard: int = 3, count: int = MANY) -> Rows:
    """As many outbound messages as inbound ones, all settled."""
    lives = []
    for n in range(count):
        send = read("sends", n, message_id=f"m{n}", body="\u00fc" * (n % 99), tags=["t"] * (n % 3))
        receipt = read("receipts", n, message_id=f"m{n}", event_id="r", state="delivered", provider="p" * (n % 2))
        lives.append(Life(send, (receipt,), settled_ms=NOON_MS + n, amended_ms=n % 5, amendments=n % 2))
    return Rows(shard, lives, [read("receives", n, message_id=f"i{n}") for n in range(count)], [])


def stored(store: Store) -> list[Any]:
    """How many records of each direction there are."""
    return [tuple(row) for row in store.query("SELECT direction, count() FROM mdr GROUP BY direction ORDER BY 1", {})]


def test_the_other_process_makes_the_same_blocks(folder: Folder) -> None:
    """What comes back is, to the last value, what would have been made here."""
    taken = [finished(3), finished(4)]
    folded = folder.records(taken, NOON_MS)
    assert isinstance(folded, Folded)
    here = block_of(COLUMNS, folded.columns())
    assert pa.concat_tables(list(folded)).select(here.column_names).equals(here)
    for n, column in enumerate(COLUMNS):
        if not column.type.startswith(("Array", "Map")) and "." not in column.name:
            assert folded[n] == list(folded.columns()[n])


def test_work_is_cut_into_inserts(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """One piece can be inserted while the next is made; together they hold every record once."""
    monkeypatch.setattr(folding, "_PIECE", 500)
    folded = folder.records([finished(3), finished(4)], NOON_MS)
    assert isinstance(folded, Folded)
    assert [block.num_rows for block in folded] == [1000, 1200, 200]
    assert sorted(folded[0]) == sorted(folded.columns()[0])


def test_a_little_is_done_here(folder: Folder) -> None:
    """Few messages are not worth the way: no process is started for them."""
    assert folder.records([finished(count=5)], NOON_MS) == fold.records([finished(count=5)], NOON_MS)
    assert folder._child is None


def test_a_process_that_dies_costs_nothing(folder: Folder, store: Store) -> None:
    """Killed before or between its answers, every record is stored once, and the next process works."""
    for kill_before in (False, True):
        folded = folder.records([finished()], NOON_MS)
        child = folder._child
        if kill_before and child is not None:
            child.kill()
        assert store.write_records(folded) == []
        assert stored(store) == [("inbound", MANY), ("outbound", MANY)]
    assert isinstance(folder.records([finished()], NOON_MS), Folded)


def test_answers_nobody_took_are_not_taken_for_others(folder: Folder, store: Store) -> None:
    """An insert that failed half-way leaves answers behind; the next work gets its own."""
    next(iter(folder.records([finished(3), finished(4)], NOON_MS)))
    folded = folder.records([finished(5)], NOON_MS)
    assert store.write_records(folded) == []
    assert stored(store) == [("inbound", MANY), ("outbound", MANY)]
    assert isinstance(folded, Folded)
    assert set(folded[SHARD]) == {5}


@pytest.mark.parametrize("value", [70_000, -1])
def test_a_value_no_column_can_hold_is_one_row(folder: Folder, store: Store, value: int) -> None:
    """The row is found, told with the entries it was made of, and all others are stored."""
    taken = finished()
    bad = taken.settled[7]
    assert bad.send is not None
    bad.send.segments = value
    (refused,) = store.write_records(folder.records([taken], NOON_MS))
    assert (refused.row[0], refused.sources) == ("m7", ("mdr.sends:0:7", "mdr.receipts:0:7"))
    assert stored(store) == [("inbound", MANY), ("outbound", MANY - 1)]
