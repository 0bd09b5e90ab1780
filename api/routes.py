"""Every path, what answers it, and in whose shape its errors are told. Pure."""

from collections.abc import Callable, Iterable
from typing import Final

from api import (
    audit_paths,
    checks,
    dead_letters,
    documents,
    erasure_paths,
    lag,
    message_paths,
    native,
    report_paths,
    telnyx_paths,
)
from api.extract import Cell
from api.http import REQUEST_S, Answer, Handler, Refusal, Route, problem
from api.pages import html
from api.vendors import carrierx, flowroute, plivo, telnyx, telnyx_v1, telnyx_v2

_TELNYX_V1: Final = "/reporting/mdr_requests"
_TELNYX_V2: Final = (
    "/v2/legacy/reporting/batch_detail_records/messaging",
    "/v2/legacy_reporting/batch_detail_records/messaging",
)
# It reads every timeline and every dead letter.
_CHECK_S: Final = 3_600
_PLIVO: Final = "/v1/Account/{auth_id}/Message"


def _reports(path: str, face: Callable[[Refusal], Answer], *handlers: Handler) -> tuple[Route, ...]:
    created, listed, one, deleted = handlers
    return (
        Route("POST", path, created, face),
        Route("GET", path, listed, face),
        Route("GET", f"{path}/{{report_id}}", one, face),
        Route("DELETE", f"{path}/{{report_id}}", deleted, face),
    )


def _messages(path: str, name: str, face: Callable[[Refusal], Answer], *handlers: Handler) -> tuple[Route, ...]:
    listed, one = handlers
    return Route("GET", path, listed, face), Route("GET", f"{path}/{{{name}}}", one, face)


ROUTES: Final = (
    Route("GET", "/mdr/records", native.records, problem),
    Route("GET", "/mdr/records/{message_id}", native.record, problem),
    Route("GET", "/mdr/stats", native.statistics, problem),
    *_reports(
        "/mdr/reports", problem, report_paths.create, report_paths.listed, report_paths.one, report_paths.delete
    ),
    Route("GET", "/mdr/lag", lag.now, problem, operator_only=True),
    Route("GET", "/mdr/lag/history", lag.history, problem, operator_only=True),
    Route("GET", "/mdr/audit", audit_paths.listed, problem, operator_only=True),
    Route(
        "POST", "/mdr/erasures", erasure_paths.erase, problem, operator_only=True, seconds=erasure_paths.SECONDS
    ),
    Route("GET", "/mdr/check", checks.check, problem, operator_only=True, seconds=_CHECK_S),
    Route("GET", "/mdr/trace/{message_id}", checks.trace, problem, operator_only=True),
    Route("GET", "/mdr/dead-letters", dead_letters.listed, problem, operator_only=True),
    Route("GET", "/mdr/dead-letters/summary", dead_letters.summary, problem, operator_only=True),
    Route("GET", "/mdr/dead-letters/{id}", dead_letters.one, problem, operator_only=True),
    Route(
        "POST", "/mdr/dead-letters/redrive", dead_letters.redrive, problem, operator_only=True,
        seconds=REQUEST_S + 2 * dead_letters.REQUEST_S,
    ),
    Route("GET", "/openapi.json", documents.openapi, problem, is_public=True),
    Route("GET", "/docs", documents.docs, problem, is_public=True),
    Route("GET", "/mdr/files/{token}", report_paths.download, problem, is_public=True),
    Route("GET", "/mdr/credentials", native.list_credentials, problem, operator_only=True),
    Route("POST", "/mdr/credentials", native.add_credential, problem, operator_only=True),
    Route("DELETE", "/mdr/credentials/{key}", native.revoke_credential, problem, operator_only=True),
    *_reports(
        _TELNYX_V1, telnyx_v1.refuse, telnyx_paths.v1_create, telnyx_paths.v1_list, telnyx_paths.v1_one,
        telnyx_paths.v1_delete,
    ),
    *(
        route
        for path in _TELNYX_V2
        for route in _reports(
            path, telnyx_v2.refuse, telnyx_paths.v2_create, telnyx_paths.v2_list, telnyx_paths.v2_one,
            telnyx_paths.v2_delete,
        )
    ),
    *_messages("/v2/messages", "mdr_id", flowroute.refuse, message_paths.flowroute_list, message_paths.flowroute_one),
    *_messages("/v2.1/messages", "mdr_id", flowroute.refuse, message_paths.flowroute_list, message_paths.flowroute_one),
    Route("GET", _PLIVO, message_paths.plivo_list, plivo.refuse_list),
    Route("GET", f"{_PLIVO}/{{message_uuid}}", message_paths.plivo_one, plivo.refuse),
    *(
        route
        for path in ("/core/v2/sms/message_drs", "/sms/message_drs")
        for route in _messages(
            path, "dr_sid", carrierx.refuse, message_paths.carrierx_list, message_paths.carrierx_one
        )
    ),
)  # fmt: skip

# The cells of reports that a view shows its own way.
VIEWS: Final[dict[str, tuple[Cell, ...]]] = {
    telnyx.VIEW: telnyx.CELLS,
    telnyx.VIEW_WITHOUT_BODY: telnyx.CELLS_WITHOUT_BODY,
}
_FACES: Final = (
    ("/reporting/", telnyx_v1.refuse), ("/v2/legacy", telnyx_v2.refuse), ("/v2/messages", flowroute.refuse),
    ("/v2.1/messages", flowroute.refuse), ("/v1/Account/", plivo.refuse), ("/core/v2/", carrierx.refuse),
    ("/sms/", carrierx.refuse), ("/ui", html.face),
)  # fmt: skip


def face_of(path: str) -> Callable[[Refusal], Answer]:
    """Whose error shape a path has that no route takes."""
    return next((face for prefix, face in _FACES if path.startswith(prefix)), problem)


def allowed(path: str, known: Iterable[tuple[str, str]]) -> list[str]:
    """The methods of a path, of all methods and templates there are: HEAD goes where GET goes."""
    asked = path.strip("/").split("/")
    fitting = [(method, template) for method, template in known if _fits(asked, template.strip("/").split("/"))]
    # A path that is named whole is nobody's id.
    named = [(method, template) for method, template in fitting if "{" not in template]
    methods = {method for method, _ in named or fitting}
    return sorted(methods | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set()))


def _fits(asked: list[str], template: list[str]) -> bool:
    """Whether a path is of a template; a name at its end spans what is left, for an id may hold a slash."""
    if template[-1].startswith("{") and len(asked) > len(template):
        asked = asked[: len(template)]
    same = (want.startswith("{") or want == part for want, part in zip(template, asked, strict=False))
    return len(asked) == len(template) and all(same)
