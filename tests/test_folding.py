"""Folding: blocks for the store, and the row that no column can hold found among them."""

from collections.abc import Iterator
from typing import Any, Final

import pytest

from schemas.record import COLUMNS
from streams import fold, folding
from streams.effects import Rows
from streams.folding import Folded, as_array
from streams.join import Life
from streams.store import Store
from tests.entries import NOON_MS, read

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


def test_columns_can_be_asked_of_blocks() -> None:
    """What is counted of the records that were written is what the fold says of them."""
    taken = [finished(3), finished(4)]
    made, defined = folding.records(taken, NOON_MS), fold.records(taken, NOON_MS)
    if isinstance(made, Folded):
        assert sum(block.rows for block in made) == 4 * MANY
    for n, column in enumerate(COLUMNS):
        if not column.type.startswith(("Array", "Map")) and "." not in column.name:
            counted = as_array(made, n).to_pylist()
            assert sorted(map(str, counted)) == sorted(map(str, defined[n])), column.name


def test_without_the_compiled_part_there_are_columns(way: str) -> None:
    """Then records are made by the fold; with it they are blocks."""
    made, defined = (it.records([finished(count=5)], NOON_MS) for it in (folding, fold))
    assert isinstance(made, Folded) if way == "native" else made == defined


@pytest.mark.parametrize("value", [70_000, -1])
def test_a_value_no_column_can_hold_is_one_row(store: Store, value: int) -> None:
    """The row is found, told with the entries it was made of, and all others are stored."""
    taken = finished()
    bad = taken.settled[7]
    assert bad.send is not None
    bad.send.segments = value
    (refused,) = store.write_records(folding.records([taken], NOON_MS))
    assert (refused.row[0], refused.sources) == ("m7", ("mdr.sends:0:7", "mdr.receipts:0:7"))
    assert stored(store) == [("inbound", MANY), ("outbound", MANY - 1)]
