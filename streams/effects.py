"""What goes in and out of a partition: log entries, and what they cause to be written, asked or refused. Pure."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import msgspec

from schemas import batches, native
from schemas.events import Receipt, Receive, Send
from schemas.record import Record
from streams import record_batches
from streams.join import Life


class Entry(batches.Entry, Protocol):
    """A log entry as the consumer hands it over; kept whole while it may still become a dead letter."""

    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]:
        """As they were produced; bytes of a name that are no UTF-8 are lone surrogates."""


def kept(entry: Entry | None) -> Entry | None:
    """A log entry without the record batch it lies in, which may be a thousand times larger."""
    if not native.enabled or type(entry) is not native.module.Record:
        return entry
    return record_batches.Record(entry.offset, entry.timestamp, entry.key, entry.value, entry.headers)


def size_of(entry: Entry | None) -> int:
    """About how many bytes an entry takes in memory."""
    if entry is None:
        return 0
    headers = sum(100 + len(name) + len(value or b"") for name, value in entry.headers)
    return len(entry.key or b"") + len(entry.value or b"") + headers


class DeadLetter(NamedTuple):
    """An input that cannot be used; `entry` is None when only `receipt` is left of it."""

    topic: str
    shard: int
    entry: Entry | None
    reason: str
    detail: str
    receipt: Receipt | None = None


class OpenRow(NamedTuple):
    """One row of `open_messages`; `part` is empty for a message, else it names a waiting receipt.

    A deleted message has its `account_id` and `occurred_at` too: `open_records` is sorted by them.
    """

    shard: int
    message_id: str
    part: str
    account_id: str
    occurred_at: int
    deadline: int
    facts: bytes
    version: int
    is_deleted: int


class Counts(msgspec.Struct):
    """What became of the events of a partition; `events` is the sum of what was done with them."""

    events: int = 0
    duplicates: int = 0
    dead_letters: int = 0
    merged: int = 0
    amended: int = 0
    orphaned: int = 0
    adopted: int = 0


class Progress(Protocol):
    """What a checkpoint says of a partition: watermarks in ms, and the fields of `Counts`."""

    sends_mark: int
    receives_mark: int
    receipts_mark: int


class Found(NamedTuple):
    """What the store knows of one message id, by direction: the record, or in brief the `event_id` it began with."""

    records: dict[str, Record]
    orphans: tuple[Receipt, ...]
    begun: dict[str, str]

    def has(self, direction: str) -> bool:
        """Whether there is a record."""
        return direction in self.records or direction in self.begun


class Unstorable(NamedTuple):
    """A row the store refuses, why, and the log entries (`topic:partition:offset`) it was made of."""

    row: tuple[object, ...]
    detail: str
    sources: tuple[str, ...] = ()


class Rows(NamedTuple):
    """What is finished."""

    shard: int
    settled: list[Life]
    inbound: list[Receive]
    orphans: list[tuple[Receipt, int]]


class Snapshot(NamedTuple):
    """What is open and changed since the last one, and where the partition stands.

    `opened` are the messages among `rows`, as they were at the cut. `adopted` are receipts that leave
    `orphan_receipts`, once the rows that now hold them are durable.
    """

    rows: list[OpenRow]
    opened: list[Life]
    adopted: list[Receipt]
    frozen: dict[str, tuple[Life, bytes]]
    marks: dict[str, int]
    settled_through: int
    remembers_from: int
    open: int
    counts: Counts


class Held(NamedTuple):
    """A send or receive that the store must be asked about before it is merged.

    `orphans` are receipts of its message that were on their way to the store then: the answer may miss them.
    """

    event: Send | Receive
    entry: Entry
    orphans: tuple[Receipt, ...] = ()
