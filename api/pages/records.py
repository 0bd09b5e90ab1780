"""The page of records: a range and filters in the URL, what they add up to, the rows, the same question elsewhere."""

import re
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

from api import native, query
from api.cursor import decode_cursor, encode_cursor, key_of
from api.http import Answer, Call, Context, Refusal, with_query
from api.pages import charts, copies, figures, html, mask, words
from api.pages.desk import Desk
from api.query import Listing, Range
from api.where import SCALARS, Condition
from schemas.times import delay_ms, format_rfc3339

HOUR_MS: Final = 3_600_000
RANGES: Final = {"1h": HOUR_MS, "6h": 6 * HOUR_MS, "24h": 24 * HOUR_MS, "7d": 168 * HOUR_MS, "30d": 720 * HOUR_MS}
LIMIT: Final = 50
FIELDS: Final = (
    "account_id", "direction", "record_type", "state", "from_number", "to_number", "provider", "country", "error_code",
)  # fmt: skip
_OWN: Final = ("range", "start", "end", "include", "cursor", "empty", "also", "is")
_LOCAL: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d)(:\d\d(?:\.\d+)?)?")
# The series of the volume from the ground up: name, record type, state.
SERIES: Final = (
    ("delivered", "complete", "delivered"), ("received", "complete", "received"),
    ("unconfirmed, sent", "incomplete", "sent"), ("unconfirmed, queued", "incomplete", "queued"),
    ("undelivered", "error", "undelivered"), ("failed", "error", "failed"), ("expired", "error", "expired"),
    ("rejected", "error", "rejected"), ("open", "pending", ""),
)  # fmt: skip
_KINDS: Final = {(type_, state): name for name, type_, state in SERIES}

Pairs = list[tuple[str, str]]


class Ask(NamedTuple):
    """What the URL asks for."""

    span: Range
    where: Condition
    pending: bool
    cursor: str
    filters: Pairs
    """Columns and values as `/mdr/records` takes them."""

    @property
    def counts_open(self) -> bool:
        """Whether the filters can be applied to open messages without reading each."""
        return self.pending and all(name == "account_id" for name, _ in self.filters)


async def page(call: Call, desk: Desk) -> Answer:
    """Records in a range; a form's blanks are first taken out of the URL."""
    clean = canonical(call.query)
    if clean != call.query:
        return html.redirect(with_query(call.path, clean))
    try:
        ask = asked(clean, call.now_ms)
        shown = await desk.read(_load, call, ask)
    except Refusal as refusal:
        return html.page(call, "records", refusal.status, **_form(call, None), wrong=refusal.detail, shown=None)
    return html.page(call, "records", **_form(call, ask), wrong="", shown=shown)


def canonical(pairs: Pairs) -> Pairs:
    """The parameters without blanks; a column chosen by name becomes a filter like any other."""
    given = dict(pairs)
    kept = [(name, value.strip()) for name, value in pairs if value.strip() and name not in ("also", "is")]
    if given.get("also") and given.get("is", "").strip():
        kept.append((given["also"], given["is"].strip()))
    has_bounds = any(name in ("start", "end") for name, _ in kept)
    return [(n, v) for n, v in kept if not (n == "range" and has_bounds)]


def asked(pairs: Pairs, now_ms: int) -> Ask:
    """The range and filters of the parameters; raises `Refusal` that names what is wrong."""
    own = {name: value for name, value in pairs if name in _OWN}
    filters = [(n, v) for n, v in pairs if n not in _OWN] + [(v, "") for n, v in pairs if n == "empty"]
    if own.get("include", "pending") != "pending":
        raise Refusal(400, "include knows only `pending`", "include")
    if own.get("range", "24h") not in RANGES:
        raise Refusal(400, f"range is one of {', '.join(RANGES)}", "range")
    bounds: dict[str, str] = {name: instant(own[name]) for name in ("start", "end") if name in own}
    if not bounds:
        bounds = {"start": format_rfc3339(now_ms - RANGES[own.get("range", "24h")]), "end": format_rfc3339(now_ms)}
    return Ask(
        native.span_of(bounds, now_ms), native.filters_of(filters, ()), "include" in own, own.get("cursor", ""), filters
    )


def instant(text: str) -> str:
    """What a browser's field for local times gives is meant as UTC."""
    match = _LOCAL.fullmatch(text)
    return f"{match[1]}{match[2] or ':00'}Z" if match else text


# ---- what is shown ---------------------------------------------------------------------------------------------


def _load(context: Context, call: Call, ask: Ask) -> dict[str, Any]:
    rows, following = _rows(context, call, ask)
    link = [(n, v) for n, v in call.query if n not in ("range", "start", "end", "cursor")]
    link += [("start", format_rfc3339(ask.span.start_ms)), ("end", format_rfc3339(ask.span.end_ms))]
    settled = context.settled_through()
    overview, slow = None, ""
    if not ask.cursor:
        try:
            overview = _overview(context, call, ask, settled)
        except query.TooSlow as e:  # the rows are there all the same
            slow = str(e)
    return {
        "rows": [_row(row, call.caller.may_see_bodies) for row in rows],
        "more": with_query(call.path, [*link, ("cursor", following)]) if following else "",
        "first": with_query(call.path, [(n, v) for n, v in call.query if n != "cursor"]) if ask.cursor else "",
        "settled_through": settled,
        "overview": overview,
        "slow": slow,
        "copies": _copies(call, ask),
        "report": with_query("/ui/reports", [*link[-2:], *(("filter", f"{n}={v}") for n, v in ask.filters)]),
    }


def _rows(context: Context, call: Call, ask: Ask) -> tuple[list[dict[str, Any]], str]:
    try:
        after = decode_cursor(ask.cursor) if ask.cursor else None
    except query.BadCursor:
        raise Refusal(400, "cursor is none that this server gave out", "cursor") from None
    rows = query.listing(
        context.client,
        Listing(call.caller.scope, ask.span, ask.where, ask.pending, LIMIT + 1, after, descending=True),
    )  # fmt: skip
    return rows[:LIMIT], encode_cursor(key_of(rows[LIMIT - 1])) if len(rows) > LIMIT else ""


def _row(row: dict[str, Any], may_see: bool) -> dict[str, Any]:
    start, end = words.ms_of(row["occurred_at"]), words.ms_of(row["final_at"])
    told = start is not None and end is not None and row["direction"] == "outbound"
    return mask.record(row, may_see) | {"delay_ms": delay_ms(start, end) if told else None}  # type: ignore[arg-type]  # both known


def _overview(context: Context, call: Call, ask: Ask, settled: str) -> dict[str, Any]:
    client, scope = context.client, call.caller.scope
    step = charts.step_ms(ask.span.end_ms - ask.span.start_ms)
    volume = figures.volume(client, scope, ask.span, ask.where, step)
    opened = figures.open_volume(client, _narrowed(call, ask), ask.span, step) if ask.counts_open else {}
    counts: dict[int, dict[str, int]] = {}
    for at, type_, state, n in volume:
        kind = _KINDS.get((type_, state), "open")
        counts.setdefault(at, {})[kind] = counts.get(at, {}).get(kind, 0) + n
    for at, n in opened.items():
        counts.setdefault(at, {})["open"] = n
    names = [name for name, _, _ in SERIES]
    settled_ms = words.ms_of(settled) or 0
    return {
        "totals": figures.totals(client, scope, ask.span, ask.where),
        "open": sum(opened.values()) if ask.counts_open else None,
        "chart": charts.stacks(counts, names, ask.span.start_ms, ask.span.end_ms, step),
        "legend": _legend(call, counts),
        "settled_at": _place(settled_ms, ask.span),
        "step_ms": step,
        "groups": _groups(call, figures.breakdown(client, scope, ask.span, ask.where)),
    }


def _narrowed(call: Call, ask: Ask) -> query.Scope:
    wanted = {value for _, value in ask.filters}
    seen = call.caller.scope.accounts
    if not wanted:
        return call.caller.scope
    return query.Scope(tuple(a for a in sorted(wanted) if seen is None or a in seen) or ("",))


def _place(at_ms: int, span: Range) -> float | None:
    inside = span.start_ms < at_ms < span.end_ms
    return 100 * (at_ms - span.start_ms) / (span.end_ms - span.start_ms) if inside else None


def _legend(call: Call, counts: dict[int, dict[str, int]]) -> list[dict[str, Any]]:
    sums = {name: sum(parts.get(name, 0) for parts in counts.values()) for name, _, _ in SERIES}
    return [
        {"name": name, "n": sums[name], "href": _with(call, record_type=type_, state=state)}
        for name, type_, state in SERIES
        if sums[name]
    ]


def _groups(call: Call, found: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    titles = {"provider": "Carrier", "country": "Country", "error_code": "Error"}
    told = []
    for name, rows in found.items():
        kept = [r for r in rows if r["value"] or name != "error_code"][: figures.TOP]
        top = max((r["messages"] for r in kept), default=1)
        lines = [r | {"part": 100 * r["messages"] / top, "href": _with(call, **{name: r["value"]})} for r in kept]
        told.append({"title": titles[name], "name": name, "rows": lines, "more": len(rows) > figures.TOP})
    return told


def _with(call: Call, **filters: str) -> str:
    """This page with other values of some columns."""
    kept = [(n, v) for n, v in call.query if n not in (*filters, "cursor") and not (n == "empty" and v in filters)]
    for name, value in filters.items():
        if value:
            kept.append((name, value))
        elif name != "state":
            kept.append(("empty", name))
    return with_query(call.path, kept)


def _copies(call: Call, ask: Ask) -> list[tuple[str, str]]:
    bounds = [("start", format_rfc3339(ask.span.start_ms)), ("end", format_rfc3339(ask.span.end_ms))]
    pairs = [*bounds, *ask.filters, *([("include", "pending")] if ask.pending else [])]
    return [
        ("SQL", copies.as_sql(call.caller.scope, ask.span, ask.where, ask.pending, LIMIT)),
        ("curl", copies.as_curl(call.base_url, "/mdr/records", pairs)),
        ("mdr", copies.as_command(pairs)),
    ]


def _form(call: Call, ask: Ask | None) -> dict[str, Any]:
    """The state of the form: what is chosen, what can be chosen, and a way to take each filter off again."""
    given = dict(call.query)
    chosen = given.get("range", "" if {"start", "end"} & given.keys() else "24h")
    kept = [(n, v) for n, v in call.query if n not in ("range", "start", "end", "cursor")]
    span = (format_rfc3339(ask.span.start_ms), format_rfc3339(ask.span.end_ms)) if ask else ("", "")
    has_bounds = ask is not None and not chosen
    return {
        "given": {name: given.get(name, "") for name in FIELDS}, "chosen": chosen,
        "ranges": [(name, with_query(call.path, [("range", name), *kept])) for name in RANGES],
        "start": span[0][:19] if has_bounds else "", "end": span[1][:19] if has_bounds else "",
        "base": urlencode(kept), "span": span,
        "pending": given.get("include") == "pending", "chips": _chips(call),
        "columns": [name for name in SCALARS if name not in FIELDS],
        "hidden": [(n, v) for n, v in call.query if n == "empty" or (n not in _OWN and n not in FIELDS)],
        "has_filters": bool(ask and ask.filters),
    }  # fmt: skip


def _chips(call: Call) -> list[dict[str, str]]:
    filters = [(n, v) for n, v in call.query if n not in _OWN or n == "empty"]
    return [
        {"text": f"{v} is empty" if n == "empty" else f"{n} = {v}",
         "href": with_query(call.path, [p for p in call.query if p != (n, v) and p[0] != "cursor"])}
        for n, v in filters
    ]  # fmt: skip
