"""The paths of both versions of Telnyx's MDR requests, over the same reports."""

from typing import Any, Final

from api import reports
from api.http import Answer, Call, Context, Refusal, json_answer, json_body, single, whole_number
from api.query import Scope
from api.report_paths import ask, link, remove
from api.reports import Report
from api.vendors import telnyx, telnyx_v1, telnyx_v2
from api.where import Condition, Range

KIND: Final = "telnyx"
_PER_PAGE_MAX: Final = 250
SETTLED: Final = "MDR-Settled-Through"


def v1_create(call: Call, context: Context) -> Answer:
    """Asks for a report."""
    report = _ask(call, context, *telnyx_v1.parse(json_body(call), call.now_ms))
    return _told(context, telnyx_v1.render(report, None))


def v1_list(call: Call, context: Context) -> Answer:
    """Every request, as a bare array."""
    asked = single(call, ("page", "per_page"))
    page = whole_number("page", asked.get("page"), 1, 1, 100_000)
    size = whole_number("per_page", asked.get("per_page"), 20, 1, _PER_PAGE_MAX)
    found = reports.find_all(context.client, call.caller, KIND)[(page - 1) * size : page * size]
    return _told(context, [_shown(call, context, r, telnyx_v1.render) for r in found])


def v1_one(call: Call, context: Context) -> Answer:
    """One request."""
    return _told(context, _shown(call, context, _found(call, context), telnyx_v1.render))


def v1_delete(call: Call, context: Context) -> Answer:
    """Deletes a request; `success` is false when there is no such one."""
    report = reports.find(context.client, call.caller, call.names["report_id"], KIND)
    if report is not None:
        remove(context, report)
    return _told(context, {"success": report is not None})


def v2_create(call: Call, context: Context) -> Answer:
    """Asks for a report."""
    span, where, echo = telnyx_v2.parse(json_body(call))
    report = _ask(call._replace(caller=_managed(call, echo)), context, span, where, echo)
    return _told(context, {"data": telnyx_v2.render(report, None)})


def v2_list(call: Call, context: Context) -> Answer:
    """Every request, with `meta`."""
    asked = single(call, ("page[number]", "page[size]"))
    number = whole_number("page[number]", asked.get("page[number]"), 1, 1, 100_000)
    size = whole_number("page[size]", asked.get("page[size]"), 20, 1, _PER_PAGE_MAX)
    found = reports.find_all(context.client, call.caller, KIND)
    page = found[(number - 1) * size : number * size]
    meta = {
        "page_number": number, "page_size": size, "total_pages": -(-len(found) // size), "total_results": len(found),
    }  # fmt: skip
    return _told(context, {"data": [_shown(call, context, r, telnyx_v2.render) for r in page], "meta": meta})


def v2_one(call: Call, context: Context) -> Answer:
    """One request."""
    return _told(context, {"data": _shown(call, context, _found(call, context), telnyx_v2.render)})


def v2_delete(call: Call, context: Context) -> Answer:
    """Deletes a request and tells it once more."""
    report = _found(call, context)
    remove(context, report)
    return _told(context, {"data": telnyx_v2.render(report.at(call.now_ms), None)})


def _ask(call: Call, context: Context, span: Range, where: Condition, echo: dict[str, Any]) -> Report:
    cells = telnyx.VIEW if echo["include_message_body"] else telnyx.VIEW_WITHOUT_BODY
    request = reports.make_request(call.caller, "csv", span, where, name=echo["name"], cells=cells, echo=echo)
    return ask(call, context, KIND, request)


def _managed(call: Call, echo: dict[str, Any]) -> Any:
    """The caller, limited to its own account and the managed ones it selects, of those it may see."""
    caller = call.caller
    if echo["select_all_managed_accounts"]:
        return caller
    chosen = echo["managed_accounts"]
    if caller.scope.accounts is None:
        return caller._replace(scope=Scope(tuple(chosen))) if chosen else caller
    seen = tuple(a for a in caller.scope.accounts if a == caller.account_id or a in chosen)
    return caller._replace(scope=Scope(seen))


def _found(call: Call, context: Context) -> Report:
    single(call, ())
    report = reports.find(context.client, call.caller, call.names["report_id"], KIND)
    if report is None:
        raise Refusal(404, "there is no such MDR request", "id")
    return report


def _shown(call: Call, context: Context, report: Report, render: Any) -> dict[str, Any]:
    shown: dict[str, Any] = render(report.at(call.now_ms), link(call, context, report))
    return shown


def _told(context: Context, value: Any) -> Answer:
    return json_answer(value, headers={SETTLED: context.settled_through()})
