"""Questions of the command line: put to the `mdr up` that runs, or to the store itself when none does."""

from typing import Any, NamedTuple

from api import native, query
from api.client import HttpClient
from api.where import Scope
from streams.agents import clock_ms
from streams.cli import serving
from streams.settings import Settings
from streams.store import Store

_PAGE_MAX = 1_000


class Records(NamedTuple):
    """Records found, whether there are more, and how far records are settled."""

    records: list[dict[str, Any]]
    more: bool
    settled_through: str


def records(settings: Settings, pairs: list[tuple[str, str]], limit: int) -> Records:
    """Records by the parameters of `/mdr/records`, page after page up to `limit`."""
    operator = serving.running_operator(settings.data_dir)
    found: list[dict[str, Any]] = []
    if operator is not None:
        client = HttpClient(operator.url, operator.key, operator.secret)
        ask = lambda more: client.get("/mdr/records", [*pairs, *more])  # noqa: E731
        return _collect(ask, limit, found)
    store = Store(settings.clickhouse_url)
    try:
        store.migrate(settings.retention_days, settings.body_retention_days)
        return _collect(lambda more: _page(store, [*pairs, *more]), limit, found)
    finally:
        store.close()


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
        asked.get("include") == "pending", query.settled_through(store.client), serving.fold,
    )  # fmt: skip
    return page._asdict()
