"""The page of the flow: topics, agents, settling, ClickHouse; how far behind, what is wrong, the last hour."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Final

from api import query
from api.http import Answer, Call, Context, Refusal
from api.pages import charts, html, words
from api.pages.desk import Desk

STATUSES: Final = ("ok", "catching_up", "falling_behind", "stalled", "stopped")
TITLES: Final = {
    "ok": "Keeping up", "catching_up": "Catching up", "falling_behind": "Falling behind", "stalled": "Stalled",
    "stopped": "Stopped", "unknown": "Not known",
}  # fmt: skip
TOPICS: Final = ("sends", "receives", "receipts")
DUE: Final = (("1m", "< 1 min"), ("10m", "< 10 min"), ("1h", "< 1 h"), ("later", "later"))
_HOUR_MS: Final = 3_600_000
# What the last hour shows: a point's field, its title, its unit.
HISTORY: Final = (
    ("lag_seconds", "Lag", "s"), ("events_per_second", "Events read", "events/s"),
    ("open", "Open messages", "messages"), ("records_per_second", "Records written", "records/s"),
)  # fmt: skip


async def page(call: Call, desk: Desk) -> Answer:
    """The flow as it is now."""
    report = history = None
    why = "nobody watches the lag in this process"
    if desk.lag is not None:
        try:
            report, history = await desk.run(desk.lag.report), await desk.run(desk.lag.history)
        except Refusal as refusal:
            why = refusal.detail
    try:
        settled = await desk.read(_settled)
    except query.QueryError:  # the page is there to say so
        settled = ""
    order = dict(call.query).get("sort", "")
    return html.page(call, "flow", **view(report, why, history, settled, call.now_ms, order))


def _settled(context: Context) -> str:
    return context.settled_through()


def view(
    report: dict[str, Any] | None, why: str, history: dict[str, Any] | None, settled: str, now_ms: int, order: str = ""
) -> dict[str, Any]:
    """What the page shows of the lag as the API tells it, or why it is not known; pure."""
    told = report or {}
    status = told.get("status", "unknown")
    return {
        "status": status, "title": TITLES.get(status, status),
        "why": told.get("why") or why,
        "trouble": [w for w in told.get("trouble", []) if w != told["why"]], "at": told.get("at"),
        "settled_through": told.get("settled_through", settled),
        "lanes": [lane(topic, told) for topic in TOPICS], "settling": settling(told.get("settling", [])),
        "rates": told.get("rates") or {}, "partitions": ordered(told.get("agents", []), order), "order": order,
        "by_partition": told.get("settling", []), "due_names": DUE,
        "is_fresh": status == "ok" and not any(a["end"] for a in told["agents"]),
        "history": curves(history, now_ms),
        "history_why": "" if history else "The last hour is kept in memory by mdr up alone.",
    }  # fmt: skip


def lane(topic: str, told: dict[str, Any]) -> dict[str, Any]:
    """A topic and its agent over all partitions: the sum of events, the longest wait, the worst status."""
    rows = [a for a in told.get("agents", []) if a["topic"].endswith(topic)]
    rates = (told.get("rates") or {}).get("events_per_second", {})
    worst = max(rows, key=lambda a: _rank(a["status"]), default=None)
    return {
        "topic": rows[0]["topic"] if rows else f"mdr.{topic}", "agent": rows[0]["agent"] if rows else topic,
        "partitions": len(rows), "rate": next((n for name, n in rates.items() if name.endswith(topic)), None),
        "end": _sum(a["end"] for a in rows), "lag_events": _sum(a["lag_events"] for a in rows),
        "lag_seconds": _most(a["lag_seconds"] for a in rows), "trend": _sum(a["trend_events_per_second"] for a in rows),
        "status": worst["status"] if worst else "unknown", "why": worst["why"] if worst else "",
        "owners": len({a["owner"] for a in rows if a["owner"]}),
        "watermark": min((a["watermark"] for a in rows if a["watermark"]), default=None),
    }  # fmt: skip


def settling(rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """What settles, over all partitions."""
    if not rows:
        return None
    due = {name: sum(row["due"].get(name, 0) for row in rows) for name, _ in DUE}
    top = max(due.values()) or 1
    return {
        "open": sum(row["open"] for row in rows),
        "oldest_open": min((row["oldest_open"] for row in rows if row["oldest_open"]), default=None),
        "due": [(label, due[name], 100 * due[name] / top) for name, label in DUE],
        "checkpoint_age": _most(row["checkpoint_age_seconds"] for row in rows),
        "flush_age": _most(row["flush_age_seconds"] for row in rows),
    }  # fmt: skip


def ordered(agents: list[dict[str, Any]], order: str) -> list[dict[str, Any]]:
    """The partitions by topic, or the worst first."""
    if order != "lag":
        return agents
    return sorted(agents, key=lambda a: (-_rank(a["status"]), -(a["lag_seconds"] or 0), -(a["lag_events"] or 0)))


def curves(history: dict[str, Any] | None, now_ms: int) -> list[dict[str, Any]]:
    """The last hour as lines; empty when it is not kept here."""
    if not history or not history["points"]:
        return []
    points = [(words.ms_of(p["at"]) or 0, p) for p in history["points"]]
    start = now_ms - _HOUR_MS
    drawn = [
        charts.line([(at, _total(p.get(name))) for at, p in points], start, now_ms, partial(_told, unit=unit))
        for name, _, unit in HISTORY
    ]
    return [
        {"title": title, "unit": unit, "line": line, "now": _told(line.last, unit), "top": _told(line.top, unit)}
        for (_, title, unit), line in zip(HISTORY, drawn, strict=True)
    ]


def _told(value: float | None, unit: str) -> str:
    if unit == "s":
        return words.duration(None if value is None else 1000 * value)
    return words.whole(value) if unit == "messages" else words.rate(value)


def _total(value: Any) -> float | None:
    """A number; of numbers by topic their sum."""
    return _sum(value.values()) if isinstance(value, dict) else value


def _rank(status: str) -> int:
    return STATUSES.index(status) if status in STATUSES else len(STATUSES)


def _sum(values: Iterable[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) if known else None


def _most(values: Iterable[float | None]) -> float | None:
    return max((v for v in values if v is not None), default=None)
