"""Questions of the command line: put to the `mdr up` that runs, or to the store itself when none does."""

import contextlib
from typing import Any, NamedTuple

from api import native, query
from api.client import ClientError, HttpClient, Impostor
from api.where import Scope
from streams import private
from streams.cli import operator_file
from streams.clock import clock_ms
from streams.settings import Settings
from streams.store import Store

_PAGE_MAX = 1_000


class Records(NamedTuple):
    """Records found, whether there are more, and how far records are settled."""

    records: list[dict[str, Any]]
    more: bool
    settled_through: str


def answering(settings: Settings, timeout_s: float = 60) -> HttpClient | None:
    """Return a client of the process that serves this data directory, None when there is none.

    Raises `Impostor` when somebody else listens at its address.
    """
    operator = operator_file.read(settings.data_dir)
    if operator is None:
        return None
    client = HttpClient(operator.url, operator.key, operator.secret, timeout_s, is_operator=True)
    try:
        client.get("/livez")
    except Impostor:
        raise
    except ClientError as e:
        return client if e.status else None
    return client


def migrated(settings: Settings) -> Store:
    """The store itself, brought to this version, for when nobody serves it; to be closed."""
    store = opened(settings)
    store.migrate(*settings.kept_days)
    return store


def opened(settings: Settings) -> Store:
    """Return the store itself; an embedded one is made where nobody else gets at it."""
    if settings.is_embedded:
        private.directory(settings.data_dir)
        private.directory(settings.chdb_path)
    return Store(settings.clickhouse_url)


def records(settings: Settings, pairs: list[tuple[str, str]], limit: int) -> Records:
    """Records by the parameters of `/mdr/records`, page after page up to `limit`."""
    client = answering(settings)
    found: list[dict[str, Any]] = []
    if client is not None:
        ask = lambda more: client.get("/mdr/records", [*pairs, *more])  # noqa: E731
        return _collect(ask, limit, found)
    with contextlib.closing(migrated(settings)) as store:
        return _collect(lambda more: _page(store, [*pairs, *more]), limit, found)


def _collect(ask: Any, limit: int, found: list[dict[str, Any]]) -> Records:
    cursor: str | None = None
    while True:
        more = [("limit", str(min(_PAGE_MAX, limit - len(found))))] + ([("cursor", cursor)] if cursor else [])
        page = ask(more)
        found += page["records"]
        cursor = page["next_cursor"]
        if cursor is None or len(found) >= limit:
            return Records(found, cursor is not None, page["settled_through"])


def _page(store: Store, pairs: list[tuple[str, str]]) -> dict[str, Any]:
    asked = native.paging(pairs)
    span = native.span_of(asked, clock_ms())
    where = native.filters_of(pairs, ("start", "end", "limit", "cursor", "include"))
    page = query.records_page(
        store.client, Scope(None), span, where, int(asked["limit"]), asked.get("cursor"),
        asked.get("include") == "pending", query.settled_through(store.client),
    )  # fmt: skip
    return page._asdict()
