"""The tables as rows of integers and strings, and the statements that read state back from them."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from schemas.events import Receipt
from schemas.record import COLUMNS, Column
from streams.effects import OpenRow


class Checkpoint(NamedTuple):
    """One row of `checkpoints`; times in ms."""

    shard: int
    partitions: int
    sends_mark: int
    receives_mark: int
    receipts_mark: int
    sends_offset: int
    receives_offset: int
    receipts_offset: int
    settled_through: int
    remembers_from: int
    open: int
    events: int
    merged: int
    duplicates: int
    dead_letters: int
    amended: int
    orphaned: int
    adopted: int
    updated_at: int
    version: int


_MILLIS: Final = "DateTime64(3, 'UTC')"
CHECKPOINT_COLUMNS: Final = tuple(
    Column(
        name,
        "UInt16" if name in ("shard", "partitions")
        else _MILLIS if name.endswith("_mark") or name in ("settled_through", "remembers_from", "updated_at")
        else "Int64" if name.endswith("_offset")
        else "UInt64",
    )
    for name in Checkpoint._fields
)  # fmt: skip
_OPEN_TYPES: Final = {
    "shard": "UInt16", "occurred_at": _MILLIS, "deadline": _MILLIS, "version": "UInt64", "is_deleted": "UInt8",
}  # fmt: skip
OPEN_COLUMNS: Final = tuple(
    Column(name, _OPEN_TYPES.get(name, "String"))
    for name in OpenRow._fields
)  # fmt: skip
# Of `open_records`: of a message that is open its record, of one that no longer is its key.
SHOWN_COLUMNS: Final = tuple(column for column in COLUMNS if column.name not in ("record_type", "facts"))
GONE_COLUMNS: Final = (
    Column("shard", "UInt16"), Column("account_id", "LowCardinality(String)"), Column("occurred_at", _MILLIS),
    Column("message_id", "String"), Column("saved", "UInt64"), Column("is_deleted", "UInt8"),
)  # fmt: skip
ORPHAN_COLUMNS: Final = tuple(
    Column(name, type_)
    for name, type_ in (
        ("message_id", "String"), ("event_id", "String"), ("state", "String"), ("occurred_at", _MILLIS),
        ("error_code", "String"), ("vendor_error_code", "String"), ("provider", "String"), ("segment", "UInt8"),
        ("source", "String"), ("mcc", "String"), ("mnc", "String"), ("rate", "String"), ("carrier_fee", "String"),
        ("orphaned_at", _MILLIS), ("shard", "UInt16"), ("version", "UInt64"), ("is_deleted", "UInt8"),
    )
)  # fmt: skip


def select_columns(columns: Sequence[Column]) -> str:
    """A `SELECT` list over a table named `t`: instants as integers in ms, everything else as it is."""
    return ", ".join(map(_select, columns))


def _select(column: Column) -> str:
    name = f"t.`{column.name}`"
    if column.type == f"Array({_MILLIS})":
        return f"arrayMap(at -> toUnixTimestamp64Milli(at), {name})"
    return f"toUnixTimestamp64Milli({name})" if "DateTime64" in column.type else name


# A partition at a time: a million open messages are a gigabyte. `is_shown`: `open_records` has the row's record; it
# lacks those of a worker that ended between the two inserts, and those of a worker of an older version.
OPEN_ROWS: Final = (
    "SELECT message_id, part, facts, toUnixTimestamp64Milli(deadline), toUnixTimestamp64Milli(occurred_at),"
    " account_id, version, part != '' OR cityHash64(account_id, occurred_at, message_id, version) IN"
    " (SELECT cityHash64(account_id, occurred_at, message_id, saved) FROM open_records WHERE shard = {shard:UInt16})"
    " AS is_shown FROM open_messages FINAL WHERE shard = {shard:UInt16}"
)
# Open messages that have a record all the same, mostly none: a crash or a stale worker came between the two writes.
OPEN_RECORDS: Final = """
SELECT account_id, toUnixTimestamp64Milli(occurred_at), message_id, max(version) FROM mdrs
WHERE direction = 'outbound' AND shard IN {shards:Array(UInt16)}
    AND occurred_at >= (SELECT min(occurred_at) FROM open_messages WHERE part = '' AND is_deleted = 0)
    AND message_id IN (
        SELECT message_id FROM open_messages FINAL WHERE shard IN {shards:Array(UInt16)} AND part = ''
    )
GROUP BY account_id, occurred_at, message_id
"""
_ADOPTED: Final = 1 << 62
_WHICH: Final = (
    "SELECT message_id, 1 AS place, toString(direction) AS direction, {begun} AS begun"
    " FROM mdrs WHERE message_id IN {{ids:Array(String)}}"
    " UNION ALL SELECT message_id, 2 AS place, '' AS direction, '' AS begun"
    " FROM orphan_log WHERE message_id IN {{ids:Array(String)}}"
)
LOOKUP_IDS: Final = _WHICH.format(begun="''")
# The event a record began with. Three columns are read of its granule where a whole record takes 58.
LOOKUP_BRIEF: Final = _WHICH.format(
    begun="arrayFirst((id, source) -> NOT endsWith(splitByChar(':', source)[1], 'receipts'),"
    " timeline.event_id, timeline.source)"
)
LOOKUP_RECORDS: Final = (
    f"SELECT {select_columns(COLUMNS)} FROM mdrs AS t WHERE message_id IN {{ids:Array(String)}}"  # noqa: S608  # our own column names
    " ORDER BY t.version DESC LIMIT 1 BY t.message_id, t.direction"
)
LOOKUP_ORPHANS: Final = (
    f"SELECT {select_columns(ORPHAN_COLUMNS[:13])} FROM orphan_log AS t"  # noqa: S608  # our own column names
    # Also those adopted before: merging knows them again, and a stale worker may have adopted them in vain.
    " WHERE message_id IN {ids:Array(String)}"
    " ORDER BY t.version DESC LIMIT 1 BY message_id, event_id, state, occurred_at, segment"
)


def orphan_version(source: str, is_deleted: int) -> int:
    """Of copies of a receipt that were given up the first in the log stays; one that met its message outranks all."""
    return _ADOPTED if is_deleted else _ADOPTED - 1 - int(source.rsplit(":", 1)[1])


def orphan_row(r: Receipt, at_ms: int, shard: int, is_deleted: int) -> tuple[object, ...]:
    """A row of `orphan_log`: a receipt, when it was given up, and whether it has met its message since."""
    version = orphan_version(r.source, is_deleted)
    return (
        r.message_id, r.event_id, r.state, r.occurred_ms, r.error_code, r.vendor_error_code, r.provider, r.segment,
        r.source, r.mcc, r.mnc, r.rate, r.carrier_fee, at_ms, shard, version, is_deleted,
    )  # fmt: skip


def orphan(row: Sequence[Any]) -> Receipt:
    """The receipt in a row that `LOOKUP_ORPHANS` reads."""
    message_id, event_id, state, at_ms, error_code, vendor_error_code, provider, segment, source, *carrier = row
    mcc, mnc, rate, fee = carrier
    return Receipt(
        event_id, message_id, "", state, segment, error_code, vendor_error_code, provider, mcc, mnc, rate, fee,
        at_ms, source,
    )  # fmt: skip
