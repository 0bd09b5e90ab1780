"""Records in a range: the one query model that the native API, the vendors' views and the command line share.

Synchronous; a client is used by one thread at a time. The tenancy predicate is part of every statement made here.
Settled records come from `mdrs` in their latest version; open ones come from `open_records`, which has the same columns
and is sorted alike. Pages go by key (`occurred_at`, `message_id`, `direction`, `account_id`), all immutable, so a page
neither repeats nor skips a record while others arrive, and the hundredth costs what the first costs.
"""

# ruff: noqa: S608  # every statement is made of allow-listed names and placeholders of bound parameters

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from api.cursor import BadCursor, Key, decode_cursor, encode_cursor, key_of
from api.where import (
    EVERYTHING,
    Binder,
    Condition,
    Every,
    Is,
    Range,
    Scope,
    Sort,
    condition_sql,
    order_sql,
    range_sql,
    scope_sql,
)
from schemas import exact_json
from schemas.record import PUBLIC
from schemas.times import format_rfc3339

__all__ = [
    "BadCursor", "Client", "Key", "Page", "QueryError", "Range", "Scope", "TooSlow", "decode_cursor", "encode_cursor",
    "key_of", "record", "records_page",
]  # fmt: skip

QUERY_SECONDS_MAX: Final = 30
_MEMORY_MAX: Final = 1 << 30
_THREADS_MAX: Final = 4
_TOO_SLOW: Final = f"the query took longer than {QUERY_SECONDS_MAX} s: ask for a smaller range or fewer rows"
_TOO_LARGE: Final = f"the query takes more than {_MEMORY_MAX >> 20} MiB: ask for a smaller range or fewer rows"
DIRECTIONS: Final = ("outbound", "inbound")
_WINDOW_ROWS_MIN: Final = 30
_WINDOW_MS_A_ROW: Final = 60_000
_WINDOW_GROWTH: Final = 48
_OPEN_GROWTH: Final = 8
_OPEN_PAGE_MAX: Final = 1_000
_KEY: Final = ("occurred_at", "message_id", "direction", "account_id")
_SETTLED: Final = "mdr.mdrs"
_OPEN: Final = "mdr.open_records"
# As the tables are sorted.
_ROW_KEY: Final = "account_id, occurred_at, message_id, direction"
_OPEN_KEY: Final = "account_id, occurred_at, message_id"
_OPEN_SINCE: Final = "(SELECT min(settled_through) FROM mdr.checkpoints FINAL)"
_COLUMNS: Final = ", ".join(f"`{c.name}`" for c in PUBLIC)
_TIMELINE: Final = tuple(c.name for c in PUBLIC if c.name.startswith("timeline."))
_TIMELINE_KEYS: Final = tuple(name.removeprefix("timeline.") for name in _TIMELINE)
# The months of versions of one record are the same, so parts of different months need not be merged with each other.
_FINAL: Final = "do_not_merge_across_partitions_select_final = 1"
_SHAPE: Final = (
    "output_format_json_quote_64bit_integers = 0, output_format_json_escape_forward_slashes = 0,"
    f" date_time_output_format = 'iso', {_FINAL}"
)
_BOUNDS: Final = f"max_execution_time = {QUERY_SECONDS_MAX}, max_memory_usage = {_MEMORY_MAX}"
_SETTINGS: Final = f" SETTINGS {_BOUNDS}, {_SHAPE}, max_threads = {_THREADS_MAX}"
# A page in the order of the table reads so little that a second thread costs more than it does.
_NARROW: Final = f" SETTINGS {_BOUNDS}, {_SHAPE}, max_threads = 1"
# One thread, and behind others (where ClickHouse may say so, else this does nothing): a report leaves the processors to
# the worker. Each of its statements may take longer. Small blocks stay in the processor's cache while their columns are
# written row by row.
_BULK_SECONDS_MAX: Final = 600
BULK_SETTINGS: Final = (
    f" SETTINGS max_execution_time = {_BULK_SECONDS_MAX}, max_memory_usage = {_MEMORY_MAX}, {_SHAPE}, max_threads = 1,"
    " os_thread_priority = 10, max_block_size = 8192, output_format_parallel_formatting = 0,"
    " format_csv_null_representation = '', output_format_csv_crlf_end_of_line = 1,"
    " query_plan_remove_redundant_sorting = 0"
)
_CODE: Final = re.compile(r"Code: (\d+)")
# Out of memory, network, too many queries, read-only, keeper and the like.
_PASSING: Final = frozenset({3, 107, 164, 202, 203, 209, 210, 241, 242, 243, 252, 285, 290, 319, 425, 999})
_TIMEOUTS: Final = frozenset({159, 160})
_MEMORY: Final = 241
_OF_QUERY: Final = re.compile(r"query memory limit|\(for query\)", re.IGNORECASE)


class QueryError(Exception):
    """The store cannot answer; one sentence without SQL."""


class Unavailable(QueryError):
    """The store cannot answer now; it may later."""


class TooSlow(QueryError):
    """The query exceeded its time or memory; the sentence names the bound."""


class Page(NamedTuple):
    """Records in ascending order, the cursor of the next page if there is one, and how far the records are settled."""

    records: list[dict[str, Any]]
    next_cursor: str | None
    settled_through: str


class Listing(NamedTuple):
    """What to list: the keyset bounds and the offset are alternatives."""

    scope: Scope
    span: Range
    where: Condition = EVERYTHING
    pending: bool = False
    limit: int = 100
    after: Key | None = None
    before: Key | None = None
    offset: int = 0
    order: tuple[Sort, ...] = ()
    """What comes before the key; empty is the key alone."""
    descending: bool = False


def records_page(
    client: Client,
    scope: Scope,
    span: Range,
    where: Condition,
    limit: int,
    cursor: str | None,
    include_pending: bool,
    settled: str,
) -> Page:
    """A page of records in [start, end) of `occurred_at`, oldest first; raises `BadCursor` and `QueryError`.

    `settled` is how far records were settled before the page is read.
    """
    after = None if cursor is None else decode_cursor(cursor)
    rows = listing(client, Listing(scope, span, where, include_pending, limit + 1, after))
    more = rows[limit - 1] if len(rows) > limit else None
    return Page(rows[:limit], encode_cursor(key_of(more)) if more else None, settled)


def record(client: Client, scope: Scope, message_id: str, direction: str | None = None) -> dict[str, Any] | None:
    """One record or open message; outbound unless asked otherwise or there is only an inbound one."""
    found = _settled_by_id(client, scope, message_id, direction)
    if direction == "inbound" or (found and found["direction"] == "outbound"):
        return found
    opened = _open_by_id(client, scope, message_id)
    # What was open at the first look may have been settled before the second.
    return opened or _settled_by_id(client, scope, message_id, "outbound") or found


def _settled_by_id(client: Client, scope: Scope, message_id: str, direction: str | None) -> dict[str, Any] | None:
    b = Binder()
    wanted = f" AND direction = {b.bind(direction, 'String')}" if direction else ""
    sql = (
        f"SELECT {_COLUMNS} FROM mdr.mdrs PREWHERE message_id = {b.bind(message_id, 'String')}"
        f" WHERE {scope_sql(scope, b)}{wanted}"
        " ORDER BY direction DESC, occurred_at, account_id, version DESC LIMIT 1"
    )
    rows = select(client, sql, b, _NARROW)
    return rows[0] if rows else None


def listing(client: Client, ask: Listing) -> list[dict[str, Any]]:
    """The records asked for, in order; an open message that was settled meanwhile is shown settled."""
    ask = ask._replace(scope=_narrowed(ask.scope, ask.where))
    opened = _where_open(client, ask) if ask.pending else None
    if opened is None:
        return _settled(client, ask)
    if ask.order or ask.offset:
        return _mixed(client, ask, opened)
    # What is open is read first: what is settled between the two is then found at least once.
    found = {key_of(r): r for r in _opened(client, opened)}
    found |= {key_of(r): r for r in _settled(client, ask)}
    return [found[key] for key in sorted(found, reverse=ask.descending)[: ask.limit]]


def count(client: Client, ask: Listing) -> int:
    """How many records a listing has without limit, offset and keyset."""
    ask = ask._replace(scope=_narrowed(ask.scope, ask.where), order=())
    opened = _where_open(client, ask) if ask.pending else None
    b = Binder()
    sql = f"SELECT count() AS n FROM ({_keys_sql(ask, opened, b)})"
    return int(select(client, sql, b)[0]["n"])


def settled_through(client: Client) -> str:
    """The instant before which every message is a record, over all partitions; 1970 when no worker told yet."""
    rows = select(client, "SELECT min(overall) AS at FROM mdr.settled_through", Binder())
    return str(rows[0]["at"]) if rows else format_rfc3339(0)


def select(client: Client, sql: str, binder: Binder, settings: str = _SETTINGS) -> list[dict[str, Any]]:
    """Rows of a statement with its bound parameters; times are `...123Z`, the timeline a list of objects."""
    rows = rows_of(run(client, sql + settings, binder, "JSONEachRow"))
    if rows and "timeline.event_id" in rows[0]:
        for row in rows:
            row["timeline"] = _timeline(row)
    return rows


def rows_of(lines: bytes) -> list[dict[str, Any]]:
    """The objects of JSON lines."""
    return [exact_json.loads(line) for line in lines.split(b"\n") if line]


def run(client: Client, sql: str, binder: Binder, format_: str) -> bytes:
    """The bytes of a statement in a ClickHouse format; raises `QueryError` and `TooSlow`."""
    try:
        return client.raw_query(sql, parameters=binder.values, fmt=format_)
    except (ClickHouseError, OSError) as e:
        raise _told(e) from None


def write(client: Client, table: str, values: dict[str, tuple[Any, str]], times: dict[str, int] | None = None) -> None:
    """Inserts one row into a table of `mdr`: column to value and type, and column to ms."""
    b = Binder()
    placed = [b.bind(value, type_) for value, type_ in values.values()] + [
        b.instant(ms) for ms in (times or {}).values()
    ]
    names = ", ".join([*values, *(times or {})])
    try:
        client.command(f"INSERT INTO mdr.{table} ({names}) SELECT {', '.join(placed)}", parameters=b.values)
    except (ClickHouseError, OSError) as e:
        raise _told(e) from None


def command(client: Client, sql: str, binder: Binder) -> None:
    """Run a statement that gives no rows; raises `QueryError`."""
    try:
        client.command(sql, parameters=binder.values)
    except (ClickHouseError, OSError) as e:
        raise _told(e) from None


def insert(client: Client, table: str, rows: Sequence[dict[str, Any]]) -> None:
    """Insert rows into a table of `mdr`, instants as RFC 3339; raises `QueryError`."""
    data = b"\n".join(map(exact_json.dumps, rows))
    try:
        client.raw_insert(f"mdr.{table}", list(rows[0]), data, {"date_time_input_format": "best_effort"}, "JSONEachRow")
    except (ClickHouseError, OSError) as e:
        raise _told(e) from None


# ---- settled records -------------------------------------------------------------------------------------------


def _settled(client: Client, ask: Listing) -> list[dict[str, Any]]:
    if ask.order or ask.offset:
        return _read(client, ask)
    found: list[dict[str, Any]] = []
    for window in _windows(ask):
        found += _read(client, ask._replace(span=window, limit=ask.limit - len(found)))
        if len(found) >= ask.limit:
            break
    return found


def _windows(ask: Listing) -> Iterator[Range]:
    """The range in growing windows, in the order asked for: a page must not cost more for what lies behind it."""
    low, high = (ask.before, ask.after) if ask.descending else (ask.after, ask.before)
    start_ms = max(ask.span.start_ms, low.occurred_ms) if low else ask.span.start_ms
    end_ms = min(ask.span.end_ms, high.occurred_ms + 1) if high else ask.span.end_ms
    size_ms = max(ask.limit, _WINDOW_ROWS_MIN) * _WINDOW_MS_A_ROW
    while start_ms < end_ms:
        if ask.descending:
            yield Range(max(start_ms, end_ms - size_ms), end_ms)
            end_ms -= size_ms
        else:
            yield Range(start_ms, min(end_ms, start_ms + size_ms))
            start_ms += size_ms
        size_ms *= _WINDOW_GROWTH


def _read(client: Client, ask: Listing) -> list[dict[str, Any]]:
    b = Binder()
    order = _order_sql(ask)
    tail = f" ORDER BY {order} LIMIT {b.bind(ask.limit, 'UInt32')} OFFSET {b.bind(ask.offset, 'UInt32')}"
    where = f"{_matches(ask, b)}{_keyset_sql(ask, b)}"
    if ask.scope.accounts is not None and len(ask.scope.accounts) == 1 and not ask.offset and not ask.order:
        return select(client, f"SELECT {_COLUMNS} FROM {_SETTLED} FINAL WHERE {where}{tail}", b, _NARROW)
    # Not in the order of the table: narrow rows are sorted first, and only the page is read in full.
    page = f"SELECT {_ROW_KEY} FROM {_SETTLED} FINAL WHERE {where}{tail}"
    sql = f"SELECT {_COLUMNS} FROM {_SETTLED} FINAL WHERE ({_ROW_KEY}) IN ({page}) ORDER BY {order}"
    return select(client, sql, b)


def _matches(ask: Listing, b: Binder) -> str:
    return f"{scope_sql(ask.scope, b)} AND {range_sql(ask.span, b)} AND ({condition_sql(ask.where, b)})"


def _keyset_sql(ask: Listing, b: Binder) -> str:
    forward, backward = (ask.before, ask.after) if ask.descending else (ask.after, ask.before)
    parts = [_beyond(key, compare, b) for key, compare in ((forward, ">"), (backward, "<")) if key is not None]
    return "".join(f" AND {part}" for part in parts)


def _beyond(key: Key, compare: str, b: Binder) -> str:
    at = b.instant(key.occurred_ms)
    words = ", ".join(b.bind(word, "String") for word in key[1:])
    # The first part says nothing new, but the table's index understands it.
    return f"occurred_at {compare}= {at} AND ({', '.join(_KEY)}) {compare} ({at}, {words})"


def _order_sql(ask: Listing) -> str:
    tail = " DESC" if ask.descending else ""
    first = [f"{order_sql(sort.by)}{' DESC' if sort.descending else ''}" for sort in ask.order]
    single = ask.scope.accounts is not None and len(ask.scope.accounts) == 1
    return ", ".join([*first, *(f"{column}{tail}" for column in (_KEY[:3] if single else _KEY))])


# ---- open messages ---------------------------------------------------------------------------------------------


def _where_open(client: Client, ask: Listing) -> Listing | None:
    """What is asked, within the times at which messages are open; None when none can be.

    All of them occurred since `settled_through` of their partitions: what is deleted lies mostly before that.
    """
    b = Binder()
    matches = f"is_deleted = 0 AND {scope_sql(ask.scope, b)} AND {range_sql(ask.span, b)}"
    sql = (
        f"SELECT toUnixTimestamp64Milli({_OPEN_SINCE}) AS ms FROM mdr.open_records"
        f" WHERE {matches} AND occurred_at >= {_OPEN_SINCE} LIMIT 1"
    )
    rows = select(client, sql, b, _NARROW)
    span = ask.span
    return ask._replace(span=span._replace(start_ms=max(span.start_ms, rows[0]["ms"]))) if rows else None


def _opened(client: Client, ask: Listing) -> list[dict[str, Any]]:
    """Open messages in the order of keys, without those that have a record already."""
    found: list[dict[str, Any]] = []
    for window in _windows(ask):
        found += _open_in(client, ask._replace(span=window, limit=ask.limit - len(found)))
        if len(found) >= ask.limit:
            break
    return found


def _open_in(client: Client, ask: Listing) -> list[dict[str, Any]]:
    """Page by page: mostly the first has no message with a record, and is enough."""
    found: list[dict[str, Any]] = []
    size = ask.limit
    while True:
        rows = _open_page(client, ask._replace(limit=size))
        found += [row for row in rows if not row.pop("has_record")]
        if len(rows) < size or len(found) >= ask.limit:
            return found[: ask.limit]
        ask, size = ask._replace(after=key_of(rows[-1])), min(size * _OPEN_GROWTH, max(size, _OPEN_PAGE_MAX))


def _open_page(client: Client, ask: Listing) -> list[dict[str, Any]]:
    """Open messages with what `mdrs` says of exactly these keys."""
    b = Binder()
    page = _page_sql(_OPEN, ask, b)
    recorded = f"SELECT {_OPEN_KEY} FROM {_SETTLED} WHERE direction = 'outbound' AND ({_OPEN_KEY}) IN ({page})"
    sql = (
        f"SELECT {_COLUMNS}, ({_OPEN_KEY}) IN ({recorded}) AS has_record FROM {_OPEN} FINAL"
        f" WHERE ({_OPEN_KEY}) IN ({page}) ORDER BY {_order_sql(ask)}"
    )
    return select(client, sql, b, _NARROW)


def _page_sql(table: str, ask: Listing, b: Binder) -> str:
    matches = f"{_matches(ask, b)}{_keyset_sql(ask, b)}"
    limit = f"LIMIT {b.bind(ask.limit, 'UInt32')} OFFSET {b.bind(ask.offset, 'UInt32')}"
    return f"SELECT {_OPEN_KEY} FROM {table} FINAL WHERE {matches} ORDER BY {_order_sql(ask)} {limit}"


def _mixed(client: Client, ask: Listing, opened: Listing) -> list[dict[str, Any]]:
    """Open and settled records in an order that is not the key's, or by offset, in one statement.

    Narrow rows are sorted first; a key of the page is either open or settled, or was open until it was settled.
    """
    b = Binder()
    limit = f"LIMIT {b.bind(ask.limit, 'UInt32')} OFFSET {b.bind(ask.offset, 'UInt32')}"
    sorts = tuple(sort._replace(by=f"sort{n}") for n, sort in enumerate(ask.order))
    keys = _keys_sql(ask, opened, b)
    page = f"SELECT {_ROW_KEY} FROM ({keys}) ORDER BY {_order_sql(ask._replace(order=sorts))} {limit}"
    rows = " UNION ALL ".join(
        f"SELECT {_COLUMNS} FROM {table} FINAL WHERE ({_ROW_KEY}) IN ({page})" for table in (_OPEN, _SETTLED)
    )
    found = select(client, f"SELECT * FROM ({rows}) ORDER BY {_order_sql(ask)}", b)
    settled = {key_of(row) for row in found if row["record_type"] != "pending"}
    return [row for row in found if row["record_type"] != "pending" or key_of(row) not in settled]


def _keys_sql(ask: Listing, opened: Listing | None, b: Binder) -> str:
    """The keys of what is settled and of what is open, and `sort0` and so on that they are sorted by."""
    columns = ", ".join([*_KEY, *(f"{order_sql(sort.by)} AS sort{n}" for n, sort in enumerate(ask.order))])
    settled = f"SELECT {columns} FROM {_SETTLED} FINAL WHERE {_matches(ask, b)}"
    if opened is None:
        return settled
    inside = f"{scope_sql(opened.scope, b)} AND {range_sql(opened.span, b)}"
    every = f"SELECT {_OPEN_KEY} FROM {_OPEN} WHERE is_deleted = 0 AND {inside}"
    where = f"direction = 'outbound' AND {inside} AND ({_OPEN_KEY}) IN ({every})"
    return (
        f"{settled} UNION ALL SELECT {columns} FROM {_OPEN} FINAL WHERE {_matches(opened, b)}"
        f" AND ({_OPEN_KEY}) NOT IN (SELECT {_OPEN_KEY} FROM {_SETTLED} WHERE {where})"
    )


def _open_by_id(client: Client, scope: Scope, message_id: str) -> dict[str, Any] | None:
    b = Binder()
    found = (
        f"SELECT {_COLUMNS}, is_deleted FROM {_OPEN} PREWHERE message_id = {b.bind(message_id, 'String')}"
        f" WHERE {scope_sql(scope, b)} ORDER BY saved DESC LIMIT 1 BY {_OPEN_KEY}"
    )
    sql = f"SELECT * EXCEPT is_deleted FROM ({found}) WHERE is_deleted = 0 ORDER BY occurred_at, account_id LIMIT 1"
    rows = select(client, sql, b, _NARROW)
    return rows[0] if rows else None


def _narrowed(scope: Scope, where: Condition) -> Scope:
    """The scope that a filter on the account leaves of it: the table is sorted by account first."""
    for part in where.parts if isinstance(where, Every) else (where,):
        if isinstance(part, Is) and part.column == "account_id" and part.op in ("eq", "in"):
            wanted = [part.value] if isinstance(part.value, str) else part.value
            assert isinstance(wanted, Sequence)
            seen = scope.accounts
            return Scope(tuple(str(a) for a in wanted if seen is None or a in seen))
    return scope


def _timeline(row: dict[str, Any]) -> list[dict[str, Any]]:
    columns: list[Sequence[Any]] = [row.pop(name) for name in _TIMELINE]
    return [dict(zip(_TIMELINE_KEYS, entry, strict=True)) for entry in zip(*columns, strict=True)]


def _told(error: Exception) -> QueryError:
    code = _CODE.search(str(error))
    if code and int(code[1]) in _TIMEOUTS:
        return TooSlow(_TOO_SLOW)
    if code and int(code[1]) == _MEMORY and _OF_QUERY.search(str(error)):
        return TooSlow(_TOO_LARGE)
    if code and int(code[1]) in (60, 81):
        return QueryError("the store has no tables yet: `mdr migrate` makes them")
    if code is None or int(code[1]) in _PASSING:
        reason = f"error {code[1]}" if code else type(error).__name__
        return Unavailable(f"ClickHouse cannot answer now ({reason})")
    return QueryError(f"ClickHouse cannot answer this (error {code[1]})")
