"""The message detail record: one class from which the table, the inserts and the restoring of a record come.

The annotation of each field is its ClickHouse type. Instants are milliseconds since the epoch, money is nanos. Fields
named `timeline_*` are the parallel arrays of the `timeline` Nested column, one entry per merged event, by time.
"""

from typing import Annotated, Any, Final, NamedTuple, get_type_hints

from msgspec import Struct

Text = Annotated[str, "String"]
Word = Annotated[str, "LowCardinality(String)"]
Texts = Annotated[tuple[str, ...], "Array(String)"]
Words = Annotated[tuple[str, ...], "Array(LowCardinality(String))"]
Byte = Annotated[int, "UInt8"]
Bytes = Annotated[tuple[int, ...], "Array(UInt8)"]
Nanos = Annotated[int, "Int64"]
Millis = Annotated[int, "DateTime64(3, 'UTC')"]
MaybeMillis = Annotated[int | None, "Nullable(DateTime64(3, 'UTC'))"]
ManyMillis = Annotated[tuple[int, ...], "Array(DateTime64(3, 'UTC'))"]
Pairs = Annotated[dict[str, str], "Map(String, String)"]


class Record(Struct, array_like=True, gc=False):
    """One row of `mdrs`, in column order."""

    message_id: Text
    account_id: Word
    subaccount_id: Word
    profile_id: Word
    connection_id: Word
    direction: Word
    record_type: Word
    state: Word
    message_type: Word
    from_number: Text
    to_number: Text
    number_type: Word
    body: Text
    media_urls: Texts
    encoding: Word
    segments: Byte
    segments_delivered: Byte
    segments_failed: Byte
    mcc: Word
    mnc: Word
    country: Word
    provider: Word
    error_code: Word
    vendor_error_code: Word
    rate_nanos: Nanos
    carrier_fee_nanos: Nanos
    amount_nanos: Nanos
    currency: Word
    campaign_id: Word
    campaign_status: Word
    powerpack_id: Word
    conversation_id: Text
    conversation_origin: Word
    callback_url: Word
    requester_ip: Text
    user_data: Text
    external_number: Text
    billing_number: Text
    group_to: Texts
    replaced_sender: Text
    registration_type: Word
    tags: Texts
    attributes: Pairs
    occurred_at: Millis
    sent_at: MaybeMillis
    final_at: MaybeMillis
    settled_at: Millis
    amended_at: MaybeMillis
    amendments: Annotated[int, "UInt16"]
    timeline_event_id: Texts
    timeline_state: Words
    timeline_occurred_at: ManyMillis
    timeline_segment: Bytes
    timeline_error_code: Texts
    timeline_source: Texts
    version: Annotated[int, "UInt64"]
    # Private: no view or API shows what follows. `facts` is what of the merged events no other column holds.
    shard: Annotated[int, "UInt16"]
    facts: Text


class Column(NamedTuple):
    """A column of `mdrs`: its name in ClickHouse and its type there."""

    name: str
    type: str


def _columns() -> tuple[Column, ...]:
    hints: dict[str, Any] = get_type_hints(Record, include_extras=True)
    return tuple(
        Column(name.replace("timeline_", "timeline."), hints[name].__metadata__[0]) for name in Record.__struct_fields__
    )


COLUMNS: Final = _columns()
PRIVATE: Final = ("shard", "facts")
PUBLIC: Final = tuple(c for c in COLUMNS if c.name not in PRIVATE)


def table_columns() -> str:
    """The column definitions of `mdrs` for `CREATE TABLE`; times are stored as differences."""
    return _definitions(COLUMNS)


def open_columns() -> str:
    """The column definitions of `open_records` for `CREATE TABLE`: what views show, and the partition."""
    record_type = "`record_type` LowCardinality(String)"
    shown = tuple(c for c in COLUMNS if c.name != "facts")
    return _definitions(shown).replace(record_type, f"{record_type} DEFAULT 'pending'")


def _definitions(columns: tuple[Column, ...]) -> str:
    return ",\n    ".join(f"`{c.name}` {c.type} CODEC({_codec(c.type)})" for c in columns)


def public_columns() -> str:
    """The columns a view shows, as a `SELECT` list."""
    return ", ".join(f"`{c.name}`" for c in PUBLIC)


def _codec(type_: str) -> str:
    return "Delta(8), ZSTD(1)" if type_.startswith("DateTime64") else "ZSTD(1)"
