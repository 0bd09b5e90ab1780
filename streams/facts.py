"""What tells an event from all others, as a hash of 64 bits: so a copy of one that was written lately is known. Pure.

That two different events are taken for one, the odds are one in 2 x 10^13 for each event asked about when a million are
remembered, and nobody can choose them: the hashes of strings are keyed anew in every process.
"""

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np

from schemas import native
from schemas.events import Receipt, Send
from streams.join import Life
from streams.recent import Hashes, hashes_in

_compiled: Final[Callable[[list[Life]], bytes] | None] = (
    native.module.Joiner(Life(), Send, Receipt).identities if native.enabled else None
)


def identities(lives: list[Life]) -> Hashes:
    """The identities of the events of messages (`join.is_same` says what makes receipts one)."""
    if native.enabled and _compiled is not None:
        return hashes_in(_compiled(lives))
    return np.fromiter(_identities(lives), np.int64)


def _identities(lives: list[Life]) -> Iterator[int]:
    for life in lives:
        if life.send is not None:
            yield hash((life.send.message_id, life.send.event_id))
        for r in life.receipts:
            yield hash((r.message_id, r.event_id, r.state, r.occurred_ms, r.segment))
