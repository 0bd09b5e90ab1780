"""What is sealed opens only as it was sealed: with its key, for its purpose, in its time (`api.seals`)."""

from __future__ import annotations

import base64
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api import seals
from api.seals import SealError, Seals

KEYS = st.binary(min_size=32, max_size=32)


@given(st.text(max_size=60), KEYS)
def test_no_text_is_a_seal_of_ours(text: str, key: bytes) -> None:
    """Whatever a client sends, only what was sealed opens."""
    assert Seals([key]).opened("p", text, 0, 10) is None


@given(st.lists(st.text(max_size=20), max_size=4), KEYS, st.integers(0, 1 << 31))
def test_a_seal_opens_with_its_key_for_its_purpose_in_its_time(value: list[str], key: bytes, at_s: int) -> None:
    """Another key, another purpose and a later time open nothing; a clock that is a little behind does."""
    made = Seals([key]).seal("p", value, at_s * 1000)
    assert Seals([key]).opened("p", made, (at_s + 9) * 1000, 10) == (value, at_s * 1000)
    assert Seals([key]).opened("p", made, (at_s - 30) * 1000, 10) == (value, at_s * 1000)
    assert Seals([key]).opened("p", made, (at_s + 10) * 1000, 10) is None
    assert Seals([key]).opened("q", made, at_s * 1000, 10) is None
    assert Seals([key[:-1] + bytes([key[-1] ^ 1])]).opened("p", made, at_s * 1000, 10) is None


@given(st.data())
def test_no_changed_seal_opens(data: st.DataObject) -> None:
    """Whatever character of a seal is changed, it is none; the padding bits of the last one aside."""
    ours = Seals([b"k" * 32])
    made = ours.seal("p", ["key", "value"], 5_000)
    place = data.draw(st.integers(0, len(made) - 2))
    other = data.draw(st.sampled_from("Aa0-_.~"))
    changed = made[:place] + other + made[place + 1 :]
    assert changed == made or ours.opened("p", changed, 5_000, 10) is None


def test_seals_are_of_sha_256() -> None:
    """The signature is an HMAC with SHA-256, not with the library's default."""
    made = Seals([b"k" * 32]).seal("p", ["x"], 0)
    assert len(base64.urlsafe_b64decode(made.rpartition(".")[2] + "=")) == 32


def test_keys_are_rotated_without_a_break(tmp_path: Path) -> None:
    """With a new key appended older seals open and new ones are the new key's; with the old one removed they are dead."""
    old = seals.load(tmp_path).seal("p", ["x"], 0)
    path = tmp_path / seals.FILE
    assert path.stat().st_mode & 0o777 == 0o600
    first = path.read_bytes()
    path.write_bytes(first + base64.b64encode(b"n" * 32) + b"\n")
    new = seals.load(tmp_path).seal("p", ["x"], 0)
    assert [bool(seals.load(tmp_path).opened("p", text, 0, 9)) for text in (old, new)] == [True, True]
    path.write_bytes(path.read_bytes().removeprefix(first))
    assert [bool(seals.load(tmp_path).opened("p", text, 0, 9)) for text in (old, new)] == [False, True]


@pytest.mark.parametrize("content", [b"", b"\n", b"short\n", b"!" * 44, base64.b64encode(b"k" * 16)])
def test_keys_that_are_none_are_refused_by_name(tmp_path: Path, content: bytes) -> None:
    """A file without a key of the full length is an error that names it, never a weak key."""
    (tmp_path / seals.FILE).write_bytes(content)
    with pytest.raises(SealError, match=r"seal\.keys"):
        seals.load(tmp_path)


def test_processes_that_start_together_share_one_key(tmp_path: Path) -> None:
    """Of many that ask at once one makes the key, and all read it."""
    made: list[str] = []
    ready = threading.Barrier(8)

    def work() -> None:
        ready.wait()
        made.append(seals.load(tmp_path).seal("p", ["x"], 0))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 8 and all(seals.load(tmp_path).opened("p", text, 0, 9) for text in made)
    assert [path.name for path in tmp_path.iterdir()] == [seals.FILE]
