"""The store's own format: what goes in comes out, whatever its size and whichever way it goes."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from schemas.record import COLUMNS
from streams import fold, folding, native_format
from streams.effects import Rows
from streams.join import Life
from streams.store import Store
from streams.tables import select_columns
from tests.entries import NOON_MS, read
from tests.rows import block_rows, blocks_of
from tests.servers import serve

pytestmark = pytest.mark.native
# On both sides of what one, two and three bytes can say of a size.
SIZES: Final = (0, 1, 127, 128, 255, 256, 16_383, 16_384, 70_000)


@pytest.fixture(params=["chdb", "server"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An embedded store, and one over HTTP."""
    if request.param == "chdb":
        opened = Store(f"chdb://{tmp_path / 'chdb'}")
        opened.migrate(3_650, 3_650)
        yield opened
        opened.close()
        return
    with serve(tmp_path) as it:
        opened = Store(it.url)
        opened.migrate(3_650, 3_650)
        yield opened
        opened.close()


def message(n: int, dice: random.Random) -> Life:
    """A finished message with something in every kind of column."""
    send = read(
        "sends", n, message_id=f"m{n:04}", body="\u00fc" * dice.randint(0, 70), tags=["a", "b"][: n % 3],
        campaign_id=f"c{n % 300}", attributes={"k": "v" * (n % 200)} if n % 5 else {}, segments=1 + n % 3,
    )  # fmt: skip
    states = [("sent", 1), ("delivered", 2), ("failed", 2)][: n % 4]
    receipts = [read("receipts", n, state=s, event_id=s, at_ms=NOON_MS + ms, error_code=str(n % 40)) for s, ms in states]
    return Life(send, tuple(receipts), settled_ms=NOON_MS + n, amended_ms=(n % 2) * NOON_MS, amendments=n % 2)


def test_what_is_written_is_what_is_read(store: Store) -> None:
    """All columns of many records, from the compiled builder's bytes through the store: what the fold says they are."""
    dice = random.Random(5)
    taken = [Rows(3, [message(n, dice) for n in range(1_500)], [read("receives", n, message_id=f"i{n}") for n in range(9)], [])]
    assert store.write_records(folding.records(taken, NOON_MS)) == []
    found = store.query(f"SELECT {select_columns(COLUMNS)} FROM mdrs AS t ORDER BY message_id", {})  # noqa: S608  # our own column names
    expected = sorted(zip(*fold.records(taken, NOON_MS), strict=True))
    assert [tuple(map(plain, row)) for row in found] == [tuple(map(plain, row)) for row in expected]


def plain(value: Any) -> Any:
    """Lists as tuples; facts as text, whichever they are."""
    return tuple(value) if isinstance(value, list) else value.decode() if isinstance(value, bytes) else value


@pytest.mark.parametrize("size", SIZES)
def test_a_text_has_its_size_before_it(size: int) -> None:
    """Also in a small set, and in a list."""
    send = read("sends", 0)
    send.body, send.callback_url, send.tags = "x" * size, "y" * size, ("", "z" * size)
    (block,) = blocks_of([Rows(0, [Life(send, settled_ms=NOON_MS)], [], [])])
    ((row,), names) = list(block_rows(block)), [c.name for c in COLUMNS]
    assert [row[names.index(name)] for name in ("body", "callback_url", "tags")] == [send.body, send.callback_url, send.tags]


@pytest.mark.parametrize("count", [65_535, 65_536, 65_537, 70_000])
def test_a_small_set_may_grow(store: Store, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Places in it take two bytes, and four as soon as there are more words than those can number."""
    monkeypatch.setattr(folding, "_BLOCK_ROWS", 100_000)
    first, lives = read("sends"), []
    for n in range(count):
        send = msgspec.structs.replace(first)
        send.message_id, send.callback_url = f"m{n}", str(n)
        lives.append(Life(send, settled_ms=NOON_MS))
    assert store.write_records(folding.records([Rows(0, [*lives, lives[0]], [], [])], NOON_MS)) == []
    wrong = "SELECT count(), uniqExact(message_id), countIf(concat('m', callback_url) != message_id) FROM mdrs"
    assert [tuple(row) for row in store.query(wrong, {})] == [(count + 1, count, 0)]
    (block,) = blocks_of([Rows(0, [*lives, lives[0]], [], [])])
    assert native_format.as_array(block.columns["callback_url"]).to_pylist()[-2:] == [str(count - 1), "0"]


@pytest.mark.parametrize("rows", [1, 127, 128, 255, 256, 16_500])
def test_a_block_says_how_many_rows_it_has(rows: int) -> None:
    """In seven bits a byte, as the sizes of texts."""
    (block,) = blocks_of([Rows(0, [Life(read("sends", 0), settled_ms=NOON_MS)] * rows, [], [])])
    assert sum(1 for _ in block_rows(block)) == rows
