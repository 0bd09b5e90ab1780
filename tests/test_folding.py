"""Folding: blocks for the store, and the row that no column can hold found among them."""

from collections.abc import Iterator
from typing import Any, Final

import pytest

from schemas.record import COLUMNS
from streams import fold, folding
from streams.effects import Rows, Unstorable
from streams.folding import Block, Piece, as_array
from streams.join import Life
from streams.store import Store
from tests.entries import NOON_MS, read
from tests.rows import block_rows

pytestmark = pytest.mark.usefixtures("way")
MANY: Final = 600


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


def test_columns_can_be_asked_of_pieces() -> None:
    """What is counted of the records that were written is what the fold says of them, whichever way they were made."""
    taken = [finished(3), finished(4)]
    made = [piece for piece in folding.records(taken, NOON_MS) if not isinstance(piece, Unstorable)]
    pieces: list[Piece] = [*made, fold.records([finished(5)], NOON_MS)]
    whole = fold.records([*taken, finished(5)], NOON_MS)
    for n, column in enumerate(COLUMNS):
        if not column.type.startswith(("Array", "Map")) and "." not in column.name:
            counted = as_array(pieces, n).to_pylist()
            assert sorted(map(str, counted)) == sorted(map(str, whole[n])), column.name


def test_without_the_compiled_part_there_are_columns(way: str) -> None:
    """Then records are made by the fold; with it they are blocks."""
    made = list(folding.records([finished(count=5)], NOON_MS))
    defined = fold.records([finished(count=5)], NOON_MS)
    assert [type(piece) for piece in made] == [Block] if way == "native" else made == [defined]


@pytest.mark.parametrize("value", [70_000, -1])
def test_a_value_no_column_can_hold_is_one_row(store: Store, value: int) -> None:
    """The row is found, told with the entries it was made of, and all others are stored and counted."""
    taken = finished()
    bad = taken.settled[7]
    assert bad.send is not None
    bad.send.segments = value
    written: list[Piece] = []
    (refused,) = store.write_records(folding.records([taken], NOON_MS), written.append)
    assert (refused.row[0], refused.sources) == ("m7", ("mdr.sends:0:7", "mdr.receipts:0:7"))
    assert stored(store) == [("inbound", MANY), ("outbound", MANY - 1)]
    assert len(as_array(written, 0)) == 2 * MANY - 1


def test_a_message_of_which_no_record_can_be_made_is_one(store: Store) -> None:
    """Whatever raises in making it, it is told with its entries, and all others are stored."""
    taken = finished(count=20)
    bad: Any = taken.settled[7].receipts[0]
    bad.state = None
    (refused,) = store.write_records(folding.records([taken], NOON_MS))
    assert refused == (("m7",), "no record can be made: KeyError", ("mdr.sends:0:7", "mdr.receipts:0:7"))
    assert stored(store) == [("inbound", 20), ("outbound", 19)]


def test_a_block_that_the_store_refuses_is_written_by_the_fold(
    store: Store, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only that one, its rows once: what was written is what is told."""
    taken = finished(count=20)
    for life in taken.settled[::2]:
        assert life.send is not None
        life.send.occurred_ms -= 40 * 86_400_000
    insert, refused = store._insert_block, []

    def refuse_second(table: str, block: Block) -> None:
        refused.append(block)
        if len(refused) == 2:
            raise ValueError("it is refused")
        insert(table, block)

    monkeypatch.setattr(store, "_insert_block", refuse_second)
    written: list[Piece] = []
    assert store.write_records(folding.records([taken], NOON_MS), written.append) == []
    assert stored(store) == [("inbound", 20), ("outbound", 20)]
    assert sorted(as_array(written, 0).to_pylist()) == sorted([f"{d}{n}" for d in "mi" for n in range(20)])
    assert [type(piece) is Block for piece in written] == ([True, False] if way == "native" else [False, False])
    assert list(store.query("SELECT count() FROM mdrs", {})) == [(40,)]


# ---- ugly and legal ---------------------------------------------------------------------------------------------


def test_one_of_which_the_builder_is_not_sure_leaves_the_rest_to_it(way: str) -> None:
    """Of a hundred messages the fold makes the one record."""
    taken = finished(count=100)
    taken.settled[50].amendments = 70_000
    pieces = list(folding.records([taken], NOON_MS))
    counts = [piece.rows if isinstance(piece, Block) else len(piece[0]) for piece in pieces]
    assert counts == ([199, 1] if way == "native" else [200])


def test_what_was_half_added_is_taken_back_from_every_column() -> None:
    """Rows beside a message that is refused half-way are what the fold says, with their lists, maps and nulls."""
    taken = finished(count=9)
    for n, life in enumerate(taken.settled):
        assert life.send is not None
        life.send.tags, life.send.attributes = ("t",) * (n % 4), {"k": "v"} if n % 2 else None
    taken.settled[5].amendments = 70_000
    rest = taken._replace(settled=[life for life in taken.settled if life.amendments != 70_000])
    made = [row for piece in folding.records([taken], NOON_MS) if isinstance(piece, Block) for row in block_rows(piece)]
    defined = list(zip(*fold.records([rest], NOON_MS), strict=True))
    assert sorted(map(str, made)) in ([], sorted(map(str, defined)))
