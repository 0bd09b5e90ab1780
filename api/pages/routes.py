"""Every page, and how one is answered: who is signed in, what went wrong, always as a page."""

import logging
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import quote

from api import query
from api.http import Answer, Call, Refusal, with_query
from api.pages import audit, door, flow, html, letters, message, records, reports, session
from api.pages.desk import Desk, Page

log = logging.getLogger(__name__)

PAGES: Final = (
    Page("GET", "/", door.root, is_public=True),
    Page("GET", "/ui", door.root, is_public=True),
    Page("GET", "/ui/static/{name}", door.static, is_public=True),
    Page("GET", "/ui/sign-in", door.sign_in_page, is_public=True),
    Page("POST", "/ui/sign-in", door.sign_in, is_public=True),
    Page("POST", "/ui/sign-out", door.sign_out, is_public=True),
    Page("GET", "/ui/flow", flow.page, operator_only=True),
    Page("GET", "/ui/records", records.page),
    Page("GET", "/ui/messages", message.find),
    Page("GET", "/ui/messages/{message_id}", message.page),
    Page("GET", "/ui/reports", reports.page),
    Page("POST", "/ui/reports", reports.create),
    Page("GET", "/ui/reports/{report_id}/file", reports.download),
    Page("POST", "/ui/reports/{report_id}/delete", reports.delete),
    Page("GET", "/ui/audit", audit.page, operator_only=True),
    Page("GET", "/ui/dead-letters", letters.page, operator_only=True),
    Page("GET", "/ui/dead-letters/{id}", letters.one, operator_only=True),
    Page("GET", "/ui/dead-letter-values/{id}", letters.value, operator_only=True),
    Page("POST", "/ui/dead-letters/redrive", letters.redrive, operator_only=True),
)


async def answer(page: Page, call: Call, desk: Desk) -> Answer:
    """Return the answer of a page; whoever is not signed in is sent to the door, and no foreign form is taken."""
    return await _faced(page, call, desk, _public if page.is_public else _private)


async def _faced(page: Page, call: Call, desk: Desk, work: Callable[[Page, Call, Desk], Awaitable[Answer]]) -> Answer:
    try:
        return await work(page, call, desk)
    except Refusal as refusal:
        return html.face(refusal, call)
    except query.QueryError as e:
        log.warning("%s %s: %s", page.method, page.path, e)
        return html.face(Refusal(503, str(e), headers={"Retry-After": "5"}), call)
    except Exception:
        log.exception("%s %s failed", page.method, page.path)
        return html.face(Refusal(500, "the page could not be made; the log says why"), call)


async def _public(page: Page, call: Call, desk: Desk) -> Answer:
    _refuse_foreign(page, call)
    call = await _with_body(page, call, desk)
    answer = await page.handler(call, desk)
    desk.note(door.named(call, desk), page.path, answer)
    return answer


async def _private(page: Page, call: Call, desk: Desk) -> Answer:
    _refuse_foreign(page, call)
    known = await door.signed_in(call, desk)
    if known is None:
        return _to_the_door(call)
    desk.seat(known.caller)
    call = call._replace(caller=known.caller)
    answer = await _faced(page, call, desk, _admitted)
    desk.note(call, page.path, answer)
    return door.kept_alive(call, desk, known.seen, answer)


async def _admitted(page: Page, call: Call, desk: Desk) -> Answer:
    _refuse_too_many(call, desk)
    if page.operator_only:
        door.refuse_unless_operator(call)
    return await page.handler(await _with_body(page, call, desk), desk)


async def _with_body(page: Page, call: Call, desk: Desk) -> Call:
    """Return a call with its form, read now that it is known whose it is."""
    return call._replace(body=await desk.body()) if page.method == "POST" else call


def _refuse_foreign(page: Page, call: Call) -> None:
    if page.method != "GET":
        session.refuse_foreign(call)


def _refuse_too_many(call: Call, desk: Desk) -> None:
    wait_s = 0 if call.caller.is_operator else desk.wait_s(call.caller.key, call.now_ms)
    if wait_s:
        raise Refusal(429, "too many requests a second with one key", headers={"Retry-After": str(wait_s)})


def _to_the_door(call: Call) -> Answer:
    if call.method != "GET":
        return html.face(Refusal(401, "the session is over: sign in, then send the form again"))
    asked = with_query(quote(call.path, safe="/%"), call.query)
    return html.redirect(with_query("/ui/sign-in", [("next", asked)]))
