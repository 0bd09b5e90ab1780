"""The paths of reports under `/mdr/`, and of their files."""

import re
from typing import Any, Final

from api import auth, files, reports
from api.http import Answer, Call, Context, Refusal, json_answer, json_body, segment, single
from api.native import filters_of, span_of
from api.reports import Report

KIND: Final = "native"
_FIELDS: Final = ("start", "end", "format", "filters", "name")
NAME_MAX: Final = 200


def create(call: Call, context: Context) -> Answer:
    """Asks for a report; it is built in the background."""
    single(call, ())
    body = json_body(call)
    for name in body:
        if name not in _FIELDS:
            raise Refusal(400, f"{name} is not a field of a report", name)
    format_ = body.get("format", "csv")
    if format_ not in files.FORMATS:
        raise Refusal(400, f"format is one of {', '.join(files.FORMATS)}", "format")
    request = reports.make_request(
        call.caller, format_, span_of(_texts(body), call.now_ms), filters_of(_pairs(body), ()), name=_name(body),
        echo={"filters": body.get("filters") or {}},
    )  # fmt: skip
    report = ask(call, context, KIND, request)
    headers = {"Location": f"/mdr/reports/{segment(report.report_id)}", "Retry-After": "1"}
    return json_answer(_body(call, context, report), 202, headers)


def ask(call: Call, context: Context, kind: str, request: reports.Request) -> Report:
    """Stores what is asked for and wakes the builder; a bound that is reached is a 429."""
    try:
        report = reports.create(context.client, call.caller, kind, request, call.now_ms, context.report_days)
    except reports.TooLarge as e:
        raise Refusal(400, str(e), "filters") from None
    except reports.TooMany as e:
        raise Refusal(429, str(e), headers={"Retry-After": "5"}) from None
    context.wake()
    return report


def listed(call: Call, context: Context) -> Answer:
    """Every report the caller may see, newest first."""
    single(call, ())
    settled = context.settled_through()
    found = [_shown(call, context, r) for r in reports.find_all(context.client, call.caller)]
    return json_answer({"reports": found, "settled_through": settled})


def one(call: Call, context: Context) -> Answer:
    """One report, with a link to its file when it is complete."""
    single(call, ())
    return json_answer(_body(call, context, _found(call, context)))


def delete(call: Call, context: Context) -> Answer:
    """Deletes a report and its file; one that is being built is given up."""
    single(call, ())
    report = _found(call, context)
    remove(context, report)
    return json_answer(_body(call, context, report) | {"url": None, "deleted": True})


def remove(context: Context, report: Report) -> None:
    """Deletes a report and its file."""
    reports.save(context.client, report, deleted=True)
    context.shelf.remove(report)


def link(call: Call, context: Context, report: Report) -> str | None:
    """The link to a finished report's file; None when there is none."""
    if report.at(call.now_ms).status != reports.COMPLETE:
        return None
    return f"{call.base_url}/mdr/files/{segment(context.shelf.token(report, call.caller, call.now_ms))}"


def download(call: Call, context: Context) -> Answer:
    """The file of a link, for whoever holds it."""
    gone = Refusal(404, "the link is not valid, or its time is over: ask for the report again")
    opened = context.shelf.opened(call.names["token"], call.now_ms)
    if opened is None:
        raise gone
    report = reports.stored(context.client, opened.report_id)
    caller = auth.OPERATOR(opened.key) if opened.is_operator else context.still_valid(opened.key)
    if report is None or caller is None or not caller.may_read or not reports.may_see(caller, report):
        raise gone
    path = context.shelf.path(report)
    if report.at(call.now_ms).status != reports.COMPLETE or not path.exists():
        raise gone
    format_ = report.request.format
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", report.request.name).strip("-")[:64] or "records"
    return Answer(
        content_type=files.MEDIA_TYPES[format_], file=path,
        headers={"Content-Disposition": f'attachment; filename="{name}.{format_}"'},
    )  # fmt: skip


def _found(call: Call, context: Context) -> Report:
    report = reports.find(context.client, call.caller, call.names["report_id"])
    if report is None:
        raise Refusal(404, "there is no such report", "report_id")
    return report


def _shown(call: Call, context: Context, report: Report) -> dict[str, Any]:
    return reports.shown(report.at(call.now_ms), link(call, context, report))


def _body(call: Call, context: Context, report: Report) -> dict[str, Any]:
    return _shown(call, context, report) | {"settled_through": context.settled_through()}


def _name(body: dict[str, Any]) -> str:
    name = body.get("name") or ""
    if not isinstance(name, str) or len(name) > NAME_MAX:
        raise Refusal(400, f"name is not a string of at most {NAME_MAX} characters", "name")
    return name


def _texts(body: dict[str, Any]) -> dict[str, str]:
    for name in ("start", "end"):
        if name in body and not isinstance(body[name], str):
            raise Refusal(400, f"{name} is not a string", name)
    return {name: body[name] for name in ("start", "end") if name in body}


def _pairs(body: dict[str, Any]) -> list[tuple[str, str]]:
    """The filters as `/mdr/records` takes them: a column, and a value or a list of values."""
    filters = body.get("filters") or {}
    if not isinstance(filters, dict):
        raise Refusal(400, "filters is not an object", "filters")
    pairs: list[tuple[str, str]] = []
    for name, value in filters.items():
        for text in value if isinstance(value, list) else [value]:
            if not isinstance(text, str | int) or isinstance(text, bool) or "\x00" in str(text):
                raise Refusal(400, f"the filter {name} is not a string or a list of strings", name)
            pairs.append((name, str(text)))
    return pairs
