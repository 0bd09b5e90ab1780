"""The page of reports: asking for one, how far it is, its file, deleting it."""

from collections.abc import Iterable
from functools import partial
from typing import Any, Final

import orjson

from api import files, report_paths, reports
from api.http import Answer, Call, Context, Refusal
from api.pages import html
from api.pages.desk import Desk, form_of, native
from api.pages.records import RANGES, instant
from schemas.times import format_rfc3339

PATH: Final = "/ui/reports"
_UNFINISHED: Final = (reports.PENDING, reports.RUNNING)


async def page(call: Call, desk: Desk) -> Answer:
    """The form, and every report the caller may see."""
    given = {n: v for n, v in call.query if n in ("start", "end")}
    filters = "\n".join(v for n, v in call.query if n == "filter")
    return await _page(call, desk, given | {"filters": filters}, "")


async def create(call: Call, desk: Desk) -> Answer:
    """Asks for a report; what is wrong with the request is told above the form."""
    form = form_of(call)
    try:
        body = orjson.dumps(body_of(form, call.now_ms))
        await desk.read(partial(native, body=body), report_paths.create, call)
    except Refusal as refusal:
        return await _page(call, desk, form, refusal.detail, refusal.status)
    return html.redirect(PATH)


async def delete(call: Call, desk: Desk) -> Answer:
    """Deletes a report and its file."""
    await desk.read(native, report_paths.delete, call)
    return html.redirect(PATH)


async def download(call: Call, desk: Desk) -> Answer:
    """The file of a finished report."""
    return await desk.read(_file, call)


def body_of(form: dict[str, str], now_ms: int) -> dict[str, Any]:
    """The body of POST /mdr/reports; a line of the filters is `column = value`. Raises `Refusal`."""
    filters: dict[str, list[str]] = {}
    for line in form.get("filters", "").splitlines():
        name, equals, value = line.partition("=")
        if line.strip() and not equals:
            raise Refusal(400, f"the filter {line.strip()!r} is not column = value", "filters")
        if equals:
            filters.setdefault(name.strip(), []).append(value.strip())
    bounds = {name: instant(form[name]) for name in ("start", "end") if form.get(name)}
    if not bounds:
        span_ms = RANGES.get(form.get("range", ""), RANGES["24h"])
        bounds = {"start": format_rfc3339(now_ms - span_ms), "end": format_rfc3339(now_ms)}
    return bounds | {"format": form.get("format", "csv"), "name": form.get("name", ""), "filters": filters}


async def _page(call: Call, desk: Desk, form: dict[str, str], wrong: str, status: int = 200) -> Answer:
    told = await desk.read(native, report_paths.listed, call._replace(query=[]))
    found = [r | {"filter_text": _filter_text(r["filters"])} for r in told["reports"]]
    return html.page(
        call, "reports", status, form=form, wrong=wrong, reports=found, formats=tuple(files.FORMATS),
        ranges=tuple(RANGES), is_busy=any(r["status"] in _UNFINISHED for r in found),
    )  # fmt: skip


def _filter_text(filters: dict[str, Any]) -> str:
    def texts(value: Any) -> Iterable[Any]:
        return value if isinstance(value, list) else [value]

    return ", ".join(f"{name} = {text}" for name, value in filters.items() for text in texts(value))


def _file(context: Context, call: Call) -> Answer:
    report = reports.find(context.client, call.caller, call.names["report_id"])
    if report is None:
        raise Refusal(404, "there is no such report")
    token = context.shelf.token(report, call.caller, call.now_ms)
    return report_paths.download(call._replace(names={"token": token}), context)
