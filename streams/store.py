"""ClickHouse, embedded (chDB) or a server: the same client, the same code. Synchronous; callers use threads.

What can be retried is raised as `Unavailable`; whatever else a server says of an insert is the rows' fault, and the
rows are halved until the bad one is alone.
"""

import contextlib
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from importlib import resources
from typing import Any, Final, NamedTuple, cast
from urllib.parse import unquote, urlsplit

import clickhouse_connect
import msgspec
import pyarrow as pa
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError

from schemas import record
from schemas.events import Receipt
from schemas.record import COLUMNS, Column, Record
from streams import join
from streams.settle import Found, OpenRow

DATABASE: Final = "mdr"
_LOOKUP_IDS_MAX: Final = 1_000
_REQUEST_TIMEOUT_S: Final = 60
# Out of memory, too many parts, timeouts, network, read-only, keeper and the like: they pass.
_RETRYABLE: Final = frozenset({3, 107, 159, 164, 202, 203, 209, 210, 241, 242, 243, 252, 285, 290, 319, 425, 999})
_CODE: Final = re.compile(r"Code: (\d+)")


class Unavailable(Exception):
    """The store cannot do it now; the same call may succeed later. One sentence."""


class StoreError(Exception):
    """The store cannot be used as it is; one sentence."""


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


class Unstorable(NamedTuple):
    """A row the store refuses, why, and the log entries (`topic:partition:offset`) it was made of."""

    row: tuple[object, ...]
    detail: str
    sources: tuple[str, ...] = ()


_MILLIS: Final = "DateTime64(3, 'UTC')"
_CHECKPOINT_COLUMNS: Final = tuple(
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
_OPEN_COLUMNS: Final = tuple(
    Column(name, _OPEN_TYPES.get(name, "String"))
    for name in OpenRow._fields
)  # fmt: skip
_ORPHAN_COLUMNS: Final = tuple(
    Column(name, type_)
    for name, type_ in (
        ("message_id", "String"), ("event_id", "String"), ("state", "String"), ("occurred_at", _MILLIS),
        ("error_code", "String"), ("vendor_error_code", "String"), ("provider", "String"), ("segment", "UInt8"),
        ("source", "String"), ("mcc", "String"), ("mnc", "String"), ("rate", "String"), ("carrier_fee", "String"),
        ("orphaned_at", _MILLIS), ("shard", "UInt16"), ("version", "UInt64"), ("is_deleted", "UInt8"),
    )
)  # fmt: skip


def connect(url: str) -> Client:
    """A client of `chdb://PATH` or `http(s)://USER:PASSWORD@HOST:PORT`; the database need not exist yet."""
    try:
        if url.startswith("chdb://"):
            return clickhouse_connect.get_client(interface="chdb", path=url.removeprefix("chdb://"))
        parts = urlsplit(url)
        secure = parts.scheme in ("https", "clickhouses")
        return clickhouse_connect.get_client(
            host=parts.hostname or "localhost", port=parts.port or (8443 if secure else 8123), secure=secure,
            username=unquote(parts.username or "default"), password=unquote(parts.password or ""),
            send_receive_timeout=_REQUEST_TIMEOUT_S, connect_timeout=10, autogenerate_session_id=False,
            form_encode_query_params=True,
        )  # fmt: skip
    except Exception as e:
        raise Unavailable(f"{_where(url)} cannot be opened: {_reason(e)}") from None


def _where(url: str) -> str:
    if url.startswith("chdb://"):
        return f"the embedded store {url.removeprefix('chdb://')}"
    parts = urlsplit(url)
    return f"ClickHouse at {parts.hostname}:{parts.port or 8123}"


def _reason(error: Exception) -> str:
    text = re.sub(r"\s+", " ", str(error)).strip()
    if ("another" in text.lower() and "lock" in text.lower()) or "Error initializing EmbeddedServer" in text:
        return "another process has it open"
    return text.split(" (version ")[0][:300] or type(error).__name__


class Store:
    """Writes rows and reads state back; one at a time from any thread."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = connect(url)

    def close(self) -> None:
        """Lets go of the store."""
        self.client.close()

    # ---- schema --------------------------------------------------------------------------------------------

    def migrate(self, retention_days: int, body_retention_days: int) -> list[str]:
        """Brings the tables to this version; returns what was applied. Idempotent."""
        with _translated():
            self.client.command(f"CREATE DATABASE IF NOT EXISTS {DATABASE}")
            self.client.database = DATABASE
            self.client.command(
                "CREATE TABLE IF NOT EXISTS migrations (name String, applied_at DateTime64(3, 'UTC') DEFAULT now64(3))"
                " ENGINE = ReplacingMergeTree ORDER BY name"
            )
            done = {row[0] for row in self.client.query("SELECT name FROM migrations").result_rows}
            applied = [name for name, _ in _migrations() if name not in done]
            for name, statements in _migrations():
                if name in applied:
                    for statement in statements:
                        self.client.command(statement)
                    self._note_migration(name)
            self._set_retention(retention_days, body_retention_days)
        return applied

    def _note_migration(self, name: str) -> None:
        self.client.command("INSERT INTO migrations (name) VALUES ({name:String})", parameters={"name": name})

    def _set_retention(self, days: int, body_days: int) -> None:
        wanted = f"retention {days} {body_days}"
        latest = self.client.query(
            "SELECT name FROM migrations WHERE startsWith(name, 'retention ') ORDER BY applied_at DESC LIMIT 1"
        ).result_rows
        if latest and latest[0][0] == wanted:
            return
        # Counted from settling, so that a back-fill of old messages does not vanish as it is written.
        self.client.command(f"ALTER TABLE mdrs MODIFY TTL toDateTime(settled_at) + INTERVAL {days:d} DAY")
        self.client.command(
            f"ALTER TABLE mdrs MODIFY COLUMN body String TTL toDateTime(settled_at) + INTERVAL {body_days:d} DAY"
        )
        self._note_migration(wanted)

    # ---- writing -------------------------------------------------------------------------------------------

    def write_records(self, rows: Sequence[tuple[object, ...]]) -> list[Unstorable]:
        """Inserts rows of `Record`, one insert a month; returns the rows that cannot be stored."""
        bad = [bad for part in _by_month(rows) for bad in self._write("mdrs", COLUMNS, part)]
        return [b._replace(sources=cast("tuple[str, ...]", b.row[_SOURCES])) for b in bad]

    def write_open(self, rows: Sequence[OpenRow]) -> list[Unstorable]:
        """Inserts rows of `open_messages`."""
        bad = self._write("open_messages", _OPEN_COLUMNS, rows)
        return [b._replace(sources=join.sources(cast(bytes, b.row[_FACTS]))) for b in bad]

    def write_orphans(self, shard: int, orphans: Sequence[tuple[Receipt, int]]) -> list[Unstorable]:
        """Inserts receipts that never met a message, each with the time it was given up."""
        bad = self._write("orphan_log", _ORPHAN_COLUMNS, [_orphan_row(r, ms, shard, 1, 0) for r, ms in orphans])
        return [b._replace(sources=(cast(str, b.row[_ORPHAN_SOURCE]),)) for b in bad]

    def drop_orphans(self, shard: int, adopted: Sequence[tuple[Receipt, int]]) -> None:
        """Takes out receipts that met their message after all."""
        self._write("orphan_log", _ORPHAN_COLUMNS, [_orphan_row(r, ms, shard, 2, 1) for r, ms in adopted])

    def write_checkpoints(self, rows: Sequence[Checkpoint]) -> None:
        """Inserts where partitions stand."""
        for bad in self._write("checkpoints", _CHECKPOINT_COLUMNS, rows):
            raise StoreError(f"a checkpoint cannot be stored: {bad.detail}")

    def _write(self, table: str, columns: Sequence[Column], rows: Sequence[tuple[object, ...]]) -> list[Unstorable]:
        if not rows:
            return []
        try:
            self._insert(table, columns, rows)
        except Unavailable:
            raise
        except Exception as e:  # the client raises what it likes for a value it cannot write
            if len(rows) == 1:
                return [Unstorable(rows[0], _reason(e))]
            half = len(rows) // 2
            return self._write(table, columns, rows[:half]) + self._write(table, columns, rows[half:])
        return []

    def _insert(self, table: str, columns: Sequence[Column], rows: Sequence[tuple[object, ...]]) -> None:
        names, arrays = [], []
        for column, values in zip(columns, zip(*rows, strict=True), strict=True):
            # A column that holds nothing but its default is left out: the table fills it in.
            if any(values):
                names.append(column.name)
                arrays.append(pa.array(values, _arrow_type(column.type)))
        block = pa.Table.from_arrays(arrays, names=names)
        with _translated():
            # Duplicates within a block are for the reader to see through; to merge them here costs twice the insert.
            self.client.insert_arrow(table, block, database=DATABASE, settings={"optimize_on_insert": 0})

    # ---- reading -------------------------------------------------------------------------------------------

    def lookup(self, ids: Sequence[str]) -> dict[str, Found]:
        """What is known of message ids: their records and orphaned receipts; ids without either are left out."""
        found: dict[str, Found] = {}
        for at in range(0, len(ids), _LOOKUP_IDS_MAX):
            chunk = {"ids": list(ids[at : at + _LOOKUP_IDS_MAX])}
            # To ask which there are is much cheaper than to ask for them, and mostly there are none.
            there = [m for (m,) in self.query(_LOOKUP_IDS, chunk)]
            for row in self.query(_LOOKUP_RECORDS, {"ids": there}) if there else ():
                rec = msgspec.convert(row, Record)
                found.setdefault(rec.message_id, Found({}, ())).records[rec.direction] = rec
            for row in self.query(_LOOKUP_ORPHANS, chunk):
                receipt = _orphan(row)
                known = found.get(receipt.message_id, Found({}, ()))
                found[receipt.message_id] = known._replace(orphans=(*known.orphans, receipt))
        return found

    def checkpoints(self) -> dict[int, Checkpoint]:
        """Where every partition stood at its last checkpoint, by partition."""
        rows = self.query(f"SELECT {select_columns(_CHECKPOINT_COLUMNS)} FROM checkpoints AS t FINAL", {})  # noqa: S608  # our own column names
        return {row[0]: Checkpoint(*row) for row in rows}

    def open_rows(self, shards: Sequence[int]) -> Iterator[tuple[Any, ...]]:
        """Live rows of `open_messages`: shard, message_id, part, facts, deadline and occurred_at in ms, settled.

        `settled` is 0 for what is open; 1 for a message whose record holds as many facts, 2 for one that holds fewer.
        """
        with _translated():
            self.client.database = DATABASE
            table = self.client.query_arrow(_OPEN_ROWS, parameters={"shards": list(shards)}, use_strings=False)
        columns = [column.to_pylist() for column in table.columns]
        return zip(*columns, strict=True)

    def recent_ids(self, shard: int, since_ms: int) -> list[tuple[str, str]]:
        """(message_id, direction) of records settled since a time."""
        sql = (
            "SELECT message_id, direction FROM mdrs WHERE shard = {shard:UInt16}"
            " AND settled_at >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')"
        )
        return [(m, d) for m, d in self.query(sql, {"shard": shard, "since": since_ms})]

    def orphan_ids(self, shard: int) -> list[str]:
        """Message ids of receipts that were given up once, also if they were adopted since."""
        sql = "SELECT DISTINCT message_id FROM orphan_log WHERE shard = {shard:UInt16}"
        return [m for (m,) in self.query(sql, {"shard": shard})]

    def query(self, sql: str, parameters: dict[str, Any]) -> Sequence[Sequence[Any]]:
        """The rows of a query; values go in as bound parameters, `{name:Type}`."""
        with _translated():
            self.client.database = DATABASE
            return self.client.query(sql, parameters=parameters).result_rows


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Raises `Unavailable` for what may pass; a ClickHouse error about the statement itself is left as it is."""
    try:
        yield
    except DatabaseError as e:
        code = _CODE.search(str(e))
        if code is None or int(code[1]) in _RETRYABLE:
            raise Unavailable(_reason(e)) from None
        raise
    except (ClickHouseError, OSError) as e:
        if type(e).__name__ in ("DataError", "ProgrammingError"):
            raise
        raise Unavailable(_reason(e)) from None


@lru_cache
def _migrations() -> tuple[tuple[str, tuple[str, ...]], ...]:
    fill = {
        "{columns}": record.table_columns(),
        "{public}": record.public_columns(),
        "{facts}": join.facts_type(),
        "{receipt}": join.receipt_type(),
    }
    files = sorted(resources.files("schemas").joinpath("sql").iterdir(), key=lambda f: f.name)
    return tuple(
        (f.name.removesuffix(".sql"), tuple(_statements(f.read_text(), fill))) for f in files if f.name.endswith(".sql")
    )


def _statements(text: str, fill: dict[str, str]) -> Iterator[str]:
    for placeholder, content in fill.items():
        text = text.replace(placeholder, content)
    without_comments = re.sub(r"^--.*\n", "", text, flags=re.MULTILINE)
    return (s.strip() for s in without_comments.split(";\n") if s.strip())


def select_columns(columns: Sequence[Column]) -> str:
    """A `SELECT` list over a table named `t`: instants as integers in ms, everything else as it is."""
    return ", ".join(map(_select, columns))


def _select(column: Column) -> str:
    name = f"t.`{column.name}`"
    if column.type == f"Array({_MILLIS})":
        return f"arrayMap(at -> toUnixTimestamp64Milli(at), {name})"
    return f"toUnixTimestamp64Milli({name})" if "DateTime64" in column.type else name


_OPEN_ROWS: Final = """
SELECT o.shard, o.message_id, o.part, o.facts, toUnixTimestamp64Milli(o.deadline),
    toUnixTimestamp64Milli(o.occurred_at),
    multiIf(o.part != '' OR r.known = 0, 0, r.known % 4294967296 >= o.version, 1, 2)
FROM (SELECT * FROM open_messages FINAL WHERE shard IN {shards:Array(UInt16)}) AS o
LEFT JOIN (
    SELECT account_id, occurred_at, message_id, max(version) AS known FROM mdrs
    WHERE direction = 'outbound' AND shard IN {shards:Array(UInt16)}
        AND occurred_at >= (SELECT min(occurred_at) FROM open_messages WHERE part = '' AND is_deleted = 0)
        AND message_id IN (
            SELECT message_id FROM open_messages FINAL WHERE shard IN {shards:Array(UInt16)} AND part = ''
        )
    GROUP BY account_id, occurred_at, message_id
) AS r ON r.account_id = o.account_id AND r.occurred_at = o.occurred_at AND r.message_id = o.message_id
"""
_LOOKUP_IDS: Final = "SELECT DISTINCT message_id FROM mdrs WHERE message_id IN {ids:Array(String)}"
_LOOKUP_RECORDS: Final = (
    f"SELECT {select_columns(COLUMNS)} FROM mdrs AS t WHERE message_id IN {{ids:Array(String)}}"  # noqa: S608  # our own column names
    " ORDER BY t.version DESC LIMIT 1 BY t.message_id, t.direction"
)
_LOOKUP_ORPHANS: Final = (
    f"SELECT {select_columns(_ORPHAN_COLUMNS[:13])} FROM orphan_log AS t"  # noqa: S608  # our own column names
    # Also those adopted before: merging knows them again, and a stale worker may have adopted them in vain.
    " WHERE message_id IN {ids:Array(String)}"
    " ORDER BY t.version LIMIT 1 BY message_id, event_id, state, occurred_at, segment"
)


def _orphan_row(r: Receipt, at_ms: int, shard: int, version: int, is_deleted: int) -> tuple[object, ...]:
    return (
        r.message_id, r.event_id, r.state, r.occurred_ms, r.error_code, r.vendor_error_code, r.provider, r.segment,
        r.source, r.mcc, r.mnc, r.rate, r.carrier_fee, at_ms, shard, version, is_deleted,
    )  # fmt: skip


def _orphan(row: Sequence[Any]) -> Receipt:
    (
        message_id,
        event_id,
        state,
        at_ms,
        error_code,
        vendor_error_code,
        provider,
        segment,
        source,
        mcc,
        mnc,
        rate,
        fee,
    ) = row
    return Receipt(
        event_id, message_id, "", state, segment, error_code, vendor_error_code, provider, mcc, mnc, rate, fee,
        at_ms, source,
    )  # fmt: skip


_OCCURRED_AT: Final = [c.name for c in COLUMNS].index("occurred_at")
_SOURCES: Final = [c.name for c in COLUMNS].index("timeline.source")
_FACTS: Final = OpenRow._fields.index("facts")
_ORPHAN_SOURCE: Final = [c.name for c in _ORPHAN_COLUMNS].index("source")
_DAY_MS: Final = 86_400_000


@lru_cache(4096)
def _month(day: int) -> tuple[int, int]:
    moment = datetime.fromtimestamp(day * 86_400, UTC)
    return moment.year, moment.month


def _by_month(rows: Sequence[tuple[object, ...]]) -> Sequence[Sequence[tuple[object, ...]]]:
    """One insert into one partition is one part: all of it or nothing."""
    months: dict[tuple[int, int], list[tuple[object, ...]]] = {}
    for row in rows:
        months.setdefault(_month(row[_OCCURRED_AT] // _DAY_MS), []).append(row)  # type: ignore[operator]
    return list(months.values())


@lru_cache
def _arrow_type(type_: str) -> Any:
    if type_.startswith("Array("):
        return pa.list_(_arrow_type(type_[6:-1]))
    if type_.startswith("Map("):
        return pa.map_(pa.string(), pa.string())
    if "DateTime64" in type_:
        return pa.timestamp("ms", tz="UTC")
    integers = {"UInt8": pa.uint8(), "UInt16": pa.uint16(), "UInt64": pa.uint64(), "Int64": pa.int64()}
    return integers.get(type_, pa.string())
