"""What is packed comes back as it was, and is worth packing."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams import packing
from streams.packing import Packing
from streams.settle import Partition
from tests.entries import NOON_MS, entry, event, read

FACTS = st.dictionaries(st.text(max_size=20), st.text(max_size=200)).map(lambda d: json.dumps(d).encode())


@given(st.lists(FACTS, min_size=1, max_size=150))
def test_what_is_packed_comes_back(all_facts: list[bytes]) -> None:
    """Before there is a dictionary and after, in any order, and packed twice."""
    packer = Packing()
    packed = [packer.pack(facts) for facts in all_facts]
    assert [packer.unpack(p) for p in packed] == all_facts
    assert [packer.unpack(packer.pack(p)) for p in packed[::-1]] == all_facts[::-1]


def test_messages_alike_become_a_third_at_most() -> None:
    """Ids and numbers differ, names and accounts do not."""
    packer = Packing()
    alike = [json.dumps({"s": event("sends", f"m{n * 7_919}", NOON_MS + n * 31)}).encode() for n in range(200)]
    packed = [packer.pack(facts) for facts in alike]
    assert sum(map(len, packed[100:])) * 3 < sum(map(len, alike[100:]))


def test_old_messages_are_packed_and_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the newest that were saved; receipts find them, and what settles is whole."""
    monkeypatch.setattr(packing, "_SAMPLES", 2)
    partition = Partition(0, 5_000, NOON_MS)
    partition.unpacked_max = 3
    sends: list[Any] = [
        (read("sends", message_id=f"m{n}"), entry(n, NOON_MS, event("sends", f"m{n}"))) for n in range(10)
    ]
    partition.add_sends(sends, NOON_MS)
    partition.saved(partition.snapshot(NOON_MS))
    partition.tick(NOON_MS)
    held = [facts[:1] == b"{" for facts in partition.lives.values() if isinstance(facts, bytes)]
    # The dictionary was made of the first, which stays as it is.
    assert held.count(True) == 4 and held.count(False) == 6
    finals = [read("receipts", message_id=f"m{n}", event_id="f", state="failed") for n in range(10)]
    partition.add_receipts([(r, entry(n, NOON_MS, event("receipts"))) for n, r in enumerate(finals)], NOON_MS)
    settled = partition.take(NOON_MS).settled
    assert sorted(r.message_id for life in settled for r in life.receipts) == sorted(f"m{n}" for n in range(10))
    told = {
        life.send.message_id: (life.send.event_id, life.send.to_number) for life in settled if life.send is not None
    }
    assert told == {s.message_id: (s.event_id, s.to_number) for s, _ in sends}
