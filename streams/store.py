"""ClickHouse, embedded (chDB) or a server: the same client, the same code. Synchronous; callers use threads.

What can be retried is raised as `Unavailable`; whatever else a server says of an insert is the rows' fault, and the
rows are halved until the bad one is alone.
"""

import contextlib
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from importlib import resources
from typing import Any, Final, cast
from urllib.parse import unquote, urlsplit

import clickhouse_connect
import cramjam
import msgspec
import pyarrow as pa
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError

from schemas import record
from schemas.events import Receipt
from schemas.record import COLUMNS, Column, Record
from streams import join
from streams.blocks import block_of, by_month
from streams.effects import Found, OpenRow
from streams.effects import Unstorable as Unstorable
from streams.fold import Columns, columns_of
from streams.folding import Block, Folded, Piece
from streams.tables import (
    CHECKPOINT_COLUMNS,
    GONE_COLUMNS,
    LOOKUP_BRIEF,
    LOOKUP_IDS,
    LOOKUP_ORPHANS,
    LOOKUP_RECORDS,
    OPEN_COLUMNS,
    OPEN_RECORDS,
    OPEN_ROWS,
    ORPHAN_COLUMNS,
    SHOWN_COLUMNS,
    Checkpoint,
    orphan,
    orphan_row,
    select_columns,
)

DATABASE: Final = "mdr"
LOOKUP_IDS_MAX: Final = 1_000
_MANY_IDS: Final = 100
_ORPHANED: Final = 2
_ROWS_AT_ONCE: Final = 10_000
# With more the embedded engine now and then never ends such a query, and is hardly faster.
_ONE_THREAD: Final = {"max_threads": 1}
_REQUEST_TIMEOUT_S: Final = 60
# Duplicates within a block are for the reader to see through; to merge them on insert costs twice the insert.
_AS_IT_IS: Final = {"optimize_on_insert": 0}
# Out of memory, disk full, too many parts, timeouts, network, read-only, keeper and the like: they pass. A missing
# table, a user who may not: never the rows' fault.
_RETRYABLE: Final = frozenset(
    {3, 74, 75, 76, 107, 159, 164, 173, 202, 203, 209, 210, 241, 242, 243, 252, 285, 290, 319, 425, 999}
    | {60, 81, 192, 194, 497, 516}
)
_CODE: Final = re.compile(r"Code: (\d+)")


Wrote = Callable[[Piece], object]


def _tell_nobody(_: Piece) -> None:
    """Take no notice of what was written."""


class Unavailable(Exception):
    """The store cannot do it now; the same call may succeed later. One sentence."""


class StoreError(Exception):
    """The store cannot be used as it is; one sentence."""


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
    return re.split(r" \(version | with url: ", text)[0][:300] or type(error).__name__


class Store:
    """Writes rows and reads state back; one at a time from any thread."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = connect(url)

    def close(self) -> None:
        """Lets go of the store."""
        self.client.close()

    # ---- schema --------------------------------------------------------------------------------------------

    def migrate(self, retention_days: int, body_retention_days: int, audit_days: int = 365) -> list[str]:
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
            self._set_retention(retention_days, body_retention_days, audit_days)
        return applied

    def _note_migration(self, name: str) -> None:
        self.client.command("INSERT INTO migrations (name) VALUES ({name:String})", parameters={"name": name})

    def _set_retention(self, days: int, body_days: int, audit_days: int) -> None:
        wanted = f"retention {days} {body_days} {audit_days}"
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
        self.client.command(f"ALTER TABLE audit_log MODIFY TTL toDateTime(at) + INTERVAL {audit_days:d} DAY")
        self._note_migration(wanted)

    # ---- writing -------------------------------------------------------------------------------------------

    def write_records(self, records: Columns | Folded, wrote: Wrote = _tell_nobody) -> list[Unstorable]:
        """Insert records, one insert a month; return the rows that cannot be stored.

        `wrote` is told of each piece that the store took.
        """
        bad = self._write_pieces("mdrs", COLUMNS, records, wrote)
        return [b if b.sources else b._replace(sources=cast("tuple[str, ...]", b.row[_SOURCES])) for b in bad]

    def write_open(self, rows: Sequence[OpenRow], opened: Columns | Folded) -> list[Unstorable]:
        """Insert rows of `open_messages`, and into `open_records` the same messages as records.

        A record is written after its row and deleted before it: none is left that no row stands for.
        """
        deleted = (r for r in rows if r.is_deleted and not r.part)
        gone = [(r.shard, r.account_id, r.occurred_at, r.message_id, r.version, 1) for r in deleted]
        self._write("open_records", GONE_COLUMNS, columns_of(gone))
        bad = self._write("open_messages", OPEN_COLUMNS, columns_of(rows))
        refused = {b.row[0]: b.detail for b in self._write_pieces("open_records", SHOWN_COLUMNS, opened)}
        known = {b.row[_OPEN_ID] for b in bad}
        bad += [Unstorable(r, refused[r.message_id]) for r in rows if r.message_id in refused.keys() - known]
        return [b._replace(sources=join.sources(cast(bytes, b.row[_FACTS]))) for b in bad]

    def _write_pieces(
        self, table: str, columns: Sequence[Column], records: Columns | Folded, wrote: Wrote = _tell_nobody
    ) -> list[Unstorable]:
        bad: list[Unstorable] = []
        for piece in records if isinstance(records, Folded) else [records]:
            if isinstance(piece, Unstorable):
                bad.append(piece)
            elif isinstance(piece, Block):
                bad += self._write_block(table, columns, piece, wrote)
            else:
                bad += self._write_columns(table, columns, piece, wrote)
        return bad

    def _write_block(self, table: str, columns: Sequence[Column], block: Block, wrote: Wrote) -> list[Unstorable]:
        try:
            self._insert_block(table, block.only({column.name for column in columns}))
        except Unavailable:
            raise
        except Exception:  # which row it is shows when they are halved
            return self._write_columns(table, columns, block.again(), wrote)
        wrote(block)
        return []

    def _write_columns(
        self, table: str, columns: Sequence[Column], records: Columns, wrote: Wrote
    ) -> list[Unstorable]:
        places = [COLUMNS.index(column) for column in columns]
        parts = [[part[n] for n in places] for part in by_month(records)]
        return [bad for part in parts for bad in self._write(table, columns, part, wrote)]

    def write_orphans(self, shard: int, orphans: Sequence[tuple[Receipt, int]]) -> list[Unstorable]:
        """Inserts receipts that never met a message, each with the time it was given up."""
        rows = [orphan_row(r, ms, shard, 0) for r, ms in orphans]
        bad = self._write("orphan_log", ORPHAN_COLUMNS, columns_of(rows))
        return [b._replace(sources=(cast(str, b.row[_ORPHAN_SOURCE]),)) for b in bad]

    def drop_orphans(self, shard: int, adopted: Sequence[tuple[Receipt, int]]) -> None:
        """Takes out receipts that met their message after all."""
        rows = [orphan_row(r, ms, shard, 1) for r, ms in adopted]
        self._write("orphan_log", ORPHAN_COLUMNS, columns_of(rows))

    def write_checkpoints(self, rows: Sequence[Checkpoint]) -> None:
        """Inserts where partitions stand."""
        for bad in self._write("checkpoints", CHECKPOINT_COLUMNS, columns_of(rows)):
            raise StoreError(f"a checkpoint cannot be stored: {bad.detail}")

    def _write(
        self, table: str, columns: Sequence[Column], data: Columns, wrote: Wrote = _tell_nobody
    ) -> list[Unstorable]:
        if not data or not data[0]:
            return []
        try:
            self._insert(table, block_of(columns, data))
        except Unavailable:
            raise
        except Exception as e:  # the client raises what it likes for a value it cannot write
            count = len(data[0])
            if count == 1:
                return [Unstorable(tuple(values[0] for values in data), _reason(e))]
            halves = [values[: count // 2] for values in data], [values[count // 2 :] for values in data]
            return [bad for half in halves for bad in self._write(table, columns, half, wrote)]
        wrote(data)
        return []

    def _insert(self, table: str, block: pa.Table) -> None:
        with _translated():
            self.client.insert_arrow(table, block, database=DATABASE, settings=_AS_IT_IS)

    def _insert_block(self, table: str, block: Block) -> None:
        embedded = self.url.startswith("chdb://")
        data = block.pieces() if embedded else bytes(cramjam.lz4.compress(b"".join(block.pieces())))
        packing = None if embedded else "lz4"
        with _translated():
            self.client.raw_insert(f"{DATABASE}.{table}", list(block.columns), data, _AS_IT_IS, "Native", packing)

    # ---- reading -------------------------------------------------------------------------------------------

    def lookup(self, ids: Sequence[str], brief: Set[str] = frozenset()) -> dict[str, Found]:
        """What is known of message ids: their records and orphaned receipts; ids without either are left out.

        Of ids in `brief` that have no orphans only the event each record began with.
        """
        found: dict[str, Found] = defaultdict(lambda: Found({}, (), {}))
        for at in range(0, len(ids), LOOKUP_IDS_MAX):
            # To ask which there are is much cheaper than to ask for them, and mostly there are none.
            places = self._ask(LOOKUP_BRIEF if brief else LOOKUP_IDS, ids[at : at + LOOKUP_IDS_MAX])
            orphaned = {mid for mid, place, *_ in places if place == _ORPHANED}
            whole = {mid for mid, place, *_ in places if place != _ORPHANED and (mid not in brief or mid in orphaned)}
            for mid, place, direction, event_id in places:
                if place != _ORPHANED and mid not in whole:
                    found[mid].begun[direction] = event_id
            for row in self._ask(LOOKUP_RECORDS, whole) if whole else ():
                rec = msgspec.convert(row, Record)
                found[rec.message_id].records[rec.direction] = rec
            for row in self._ask(LOOKUP_ORPHANS, orphaned) if orphaned else ():
                receipt = orphan(row)
                known = found[receipt.message_id]
                found[receipt.message_id] = known._replace(orphans=(*known.orphans, receipt))
        return dict(found)

    def _ask(self, sql: str, ids: Collection[str]) -> Sequence[Sequence[Any]]:
        """Rows about ids. Where they are few a second thread costs 20 ms of CPU to find out that it is not needed."""
        return self.query(sql, {"ids": list(ids)}, _ONE_THREAD if len(ids) < _MANY_IDS else None)

    def checkpoints(self) -> dict[int, Checkpoint]:
        """Where every partition stood at its last checkpoint, by partition."""
        rows = self.query(f"SELECT {select_columns(CHECKPOINT_COLUMNS)} FROM checkpoints AS t FINAL", {})  # noqa: S608  # our own column names
        return {row[0]: Checkpoint(*row) for row in rows}

    def open_rows(self, shards: Sequence[int]) -> Iterator[tuple[Any, ...]]:
        """Live rows of `open_messages`.

        Each is shard, message_id, part, facts, deadline and occurred_at in ms, settled, is_shown.
        `settled` is 0 for what is open; 1 for a message whose record holds as many facts, 2 for one that holds fewer.
        `is_shown` is false for a message that `open_records` lacks.
        """
        known = {
            (account.encode(), at_ms, mid.encode()): version & 0xFFFFFFFF
            for account, at_ms, mid, version in self.query(OPEN_RECORDS, {"shards": list(shards)})
        }
        for shard, table in self._open_tables(shards):
            for batch in table.to_batches(_ROWS_AT_ONCE):
                rows = zip(*(column.to_pylist() for column in batch.columns), strict=True)
                for mid, part, facts, deadline_ms, at_ms, account, version, is_shown in rows:
                    facts_known = 0 if part or not known else known.get((account, at_ms, mid), 0)
                    settled = 0 if not facts_known else 1 if facts_known >= version // 2 else 2
                    yield shard, mid, part, facts, deadline_ms, at_ms, settled, bool(is_shown)

    def _open_tables(self, shards: Sequence[int]) -> Iterator[tuple[int, Any]]:
        """Each shard's rows; those of the next are read while the caller makes something of these."""
        with ThreadPoolExecutor(1, "store-ahead") as ahead:
            coming = [ahead.submit(self._open_table, shard) for shard in shards[:1]]
            for place, shard in enumerate(shards, 1):
                table = coming.pop().result()
                coming += [ahead.submit(self._open_table, after) for after in shards[place : place + 1]]
                yield shard, table

    def _open_table(self, shard: int) -> Any:
        with _translated():
            return self.client.query_arrow(
                OPEN_ROWS, parameters={"shard": shard}, use_strings=False, settings=_ONE_THREAD
            )

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

    def command(self, sql: str, parameters: dict[str, Any]) -> None:
        """Runs a statement that gives no rows; values go in as bound parameters."""
        with _translated():
            self.client.database = DATABASE
            self.client.command(sql, parameters=parameters)

    def query(
        self, sql: str, parameters: dict[str, Any], settings: dict[str, Any] | None = None
    ) -> Sequence[Sequence[Any]]:
        """The rows of a query; values go in as bound parameters, `{name:Type}`."""
        with _translated():
            self.client.database = DATABASE
            return self.client.query(sql, parameters=parameters, settings=settings).result_rows


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
        "{open_columns}": record.open_columns(),
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


_SOURCES: Final = [c.name for c in COLUMNS].index("timeline.source")
_FACTS: Final = OpenRow._fields.index("facts")
_OPEN_ID: Final = OpenRow._fields.index("message_id")
_ORPHAN_SOURCE: Final = [c.name for c in ORPHAN_COLUMNS].index("source")
