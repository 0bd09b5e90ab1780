"""ClickHouse as the worker sees it, in memory: what `streams.store.Store` promises, and nothing of how.

The same conformance suite runs over this and over the real one. A row replaces another of its key when its version is
not lower, as in a ReplacingMergeTree read with FINAL.
"""

from collections.abc import Callable, Iterable, Sequence, Set
from typing import Any

import msgspec

from schemas.batches import as_struct
from schemas.events import Receipt
from schemas.record import COLUMNS, Record
from streams.effects import Found, OpenRow
from streams.fold import Columns
from streams.folding import Folded
from streams.store import Unstorable
from streams.tables import Checkpoint, orphan_version
from tests.rows import began_with, rows_of

Row = tuple[Any, ...]
_AT = {c.name: n for n, c in enumerate(COLUMNS)}
_TIMELINE = _AT["timeline.event_id"]
_KEY = [_AT[name] for name in ("account_id", "occurred_at", "message_id", "direction")]


class Tables:
    """What is durable; it outlives every worker."""

    def __init__(self) -> None:
        self.mdrs: dict[Row, Row] = {}
        self.written: list[tuple[int, str, str, int]] = []  # shard, message_id, direction, settled_at of every row
        self.open: dict[tuple[int, str, str], OpenRow] = {}
        self.shown: dict[Row, tuple[int, Row | None]] = {}  # version, and the record of what is still open
        self.orphans: dict[Row, tuple[int, int, int, Receipt, int]] = {}  # version, is_deleted, shard, receipt, at
        self.checkpoints: dict[int, Checkpoint] = {}

    def copy(self) -> dict[str, Any]:
        """What somebody saves of the store."""
        return {name: table.copy() for name, table in vars(self).items()}

    def put_back(self, copy: dict[str, Any]) -> None:
        """Has it be what it was; who has it open finds it so."""
        vars(self).update({name: table.copy() for name, table in copy.items()})


class MemoryStore:
    """One worker's access to the tables. `point` is called by name before and after each insert and read."""

    def __init__(self, tables: Tables, point: Callable[[str], None] = lambda name: None) -> None:
        self.tables = tables
        self._point = point

    def close(self) -> None:
        """Nothing is held."""

    def migrate(self, retention_days: int, body_retention_days: int, audit_days: int = 365) -> list[str]:
        """The tables are always there."""
        return []

    # ---- writing ----

    def write_records(self, records: Columns | Folded) -> list[Unstorable]:
        """One insert a month, as the real one does."""
        months: dict[int, list[Row]] = {}
        for row in rows_of(records):
            months.setdefault(row[_AT["occurred_at"]] // 2_592_000_000, []).append(row)
        for part in months.values():
            self._point("before records")
            for row in part:
                self._put_record(tuple(row))
            self._point("after records")
        return []

    def _put_record(self, row: Row) -> None:
        key = tuple(row[n] for n in _KEY)
        version = row[_AT["version"]]
        known = self.tables.mdrs.get(key)
        if known is None or version >= known[_AT["version"]]:
            self.tables.mdrs[key] = row
        shard, at = row[_AT["shard"]], row[_AT["settled_at"]]
        self.tables.written.append((shard, row[_AT["message_id"]], row[_AT["direction"]], at))

    def write_open(self, rows: Sequence[OpenRow], opened: Columns | Folded) -> list[Unstorable]:
        """One insert each of what is gone, of the records and of the rows."""
        self._show(((r.account_id, r.occurred_at, r.message_id), r.version, None) for r in rows if r.is_deleted and not r.part)
        if rows:
            self._point("before open")
        for row in rows:
            key = row.shard, row.message_id, row.part
            known = self.tables.open.get(key)
            if known is None or row.version >= known.version:
                self.tables.open[key] = row
        if rows:
            self._point("after open")
        self._show((tuple(r[n] for n in _KEY[:3]), 2 * len(r[_TIMELINE]), tuple(r)) for r in rows_of(opened))
        if rows:
            self._point("after open records")
        return []

    def _show(self, rows: Iterable[tuple[Row, int, Row | None]]) -> None:
        for key, version, row in rows:
            if key not in self.tables.shown or version >= self.tables.shown[key][0]:
                self.tables.shown[key] = version, row

    def write_orphans(self, shard: int, orphans: Sequence[tuple[Receipt, int]]) -> list[Unstorable]:
        """All rows in one insert."""
        self._put_orphans("orphans", shard, orphans, 0)
        return []

    def drop_orphans(self, shard: int, adopted: Sequence[tuple[Receipt, int]]) -> None:
        """All rows in one insert."""
        self._put_orphans("adopted", shard, adopted, 1)

    def _put_orphans(self, what: str, shard: int, rows: Sequence[tuple[Receipt, int]], is_deleted: int) -> None:
        if not rows:
            return
        self._point(f"before {what}")
        for receipt, at_ms in rows:
            key = orphan_key(receipt)
            version = orphan_version(receipt.source, is_deleted)
            known = self.tables.orphans.get(key)
            if known is None or version >= known[0]:
                self.tables.orphans[key] = version, is_deleted, shard, msgspec.structs.replace(as_struct(receipt)), at_ms
        self._point(f"after {what}")

    def write_checkpoints(self, rows: Sequence[Checkpoint]) -> None:
        """All rows in one insert."""
        self._point("before checkpoint")
        for row in rows:
            known = self.tables.checkpoints.get(row.shard)
            if known is None or row.version >= known.version:
                self.tables.checkpoints[row.shard] = row
        self._point("after checkpoint")

    # ---- reading ----

    def lookup(self, ids: Sequence[str], brief: Set[str] = frozenset()) -> dict[str, Found]:
        """The latest record of each id and direction, and the orphans; in brief how a record began."""
        self._point("lookup")
        wanted, found = set(ids), dict[str, Found]()
        brief = brief - {r.message_id for _, _, _, r, _ in self.tables.orphans.values()}
        for row in sorted(self.tables.mdrs.values(), key=lambda r: r[_AT["version"]]):
            if row[0] in wanted:
                record = msgspec.convert(row, Record)
                known = found.setdefault(row[0], Found({}, (), {}))
                if row[0] in brief:
                    known.begun[record.direction] = began_with(record)
                else:
                    known.records[record.direction] = record
        self._point("lookup: orphans")
        for _, _, _, receipt, _ in sorted(self.tables.orphans.values(), key=_orphan_order):
            if receipt.message_id in wanted:  # also those adopted since
                known = found.get(receipt.message_id, Found({}, (), {}))
                copy = msgspec.structs.replace(as_struct(receipt), occurred_at="")
                found[receipt.message_id] = known._replace(orphans=(*known.orphans, copy))
        return found

    def checkpoints(self) -> dict[int, Checkpoint]:
        """The latest of each partition."""
        self._point("recovery: checkpoints")
        return dict(self.tables.checkpoints)

    def open_rows(self, shards: Sequence[int]) -> Iterable[Row]:
        """Rows that are not deleted; texts as bytes; then what the record of the message knows, and whether it is shown."""
        self._point("recovery: open")
        rows = [r for r in self.tables.open.values() if r.shard in shards and not r.is_deleted]
        rows.sort(key=lambda r: (r.shard, r.message_id, r.part))
        known: dict[str, int] = {}
        for record in self.tables.mdrs.values():
            if record[_AT["direction"]] == "outbound":
                known[record[0]] = max(known.get(record[0], 0), record[_AT["version"]])
        return [
            (
                r.shard, r.message_id.encode(), r.part.encode(), r.facts, r.deadline, r.occurred_at,
                0 if r.part or r.message_id not in known else 1 if known[r.message_id] % (1 << 32) >= r.version // 2 else 2,
                bool(r.part) or self.tables.shown.get((r.account_id, r.occurred_at, r.message_id), (0,))[0] >= r.version,
            )
            for r in rows
        ]  # fmt: skip

    def recent_ids(self, shard: int, since_ms: int) -> list[tuple[str, str]]:
        """Of every row ever written, whatever replaced it since."""
        self._point("recovery: recent")
        return [(m, d) for s, m, d, at in self.tables.written if s == shard and at >= since_ms]

    def orphan_ids(self, shard: int) -> list[str]:
        """Of receipts that were orphans once."""
        self._point("recovery: orphans")
        return sorted({r.message_id for _, _, s, r, _ in self.tables.orphans.values() if s == shard})


def orphan_key(r: Receipt) -> Row:
    """What makes two orphaned receipts one."""
    return r.message_id, r.event_id, r.state, r.occurred_ms, r.segment


def _orphan_order(row: tuple[int, int, int, Receipt, int]) -> Row:
    return row[0], row[4], row[3].occurred_ms, row[3].event_id
