"""Coming in and going out: the sign-in page, the session, the files every page needs."""

from http import HTTPStatus
from typing import Any

from api import auth
from api.http import Answer, Call, Refusal
from api.pages import html, session
from api.pages.desk import Desk, form_of

_HOME = "/ui/flow"


async def root(call: Call, desk: Desk) -> Answer:
    """To the first page."""
    return html.redirect(_HOME)


async def static(call: Call, desk: Desk) -> Answer:
    """A style sheet, a script, an icon."""
    return html.static(call.names["name"])


async def sign_in_page(call: Call, desk: Desk) -> Answer:
    """Asks for a key and its secret."""
    return _asking(call, dict(call.query).get("next", ""))


async def sign_in(call: Call, desk: Desk) -> Answer:
    """Checks a key and its secret and begins a session."""
    session.refuse_foreign(call)
    form = form_of(call)
    pair = (form.get("key", "").strip(), form.get("secret", "").strip())
    caller = await _identified(desk, pair)
    if caller is None:
        return _asking(call, form.get("next", ""), pair[0], "This key and secret do not belong together.")
    if not caller.may_read:
        return _asking(call, form.get("next", ""), pair[0], "This key may not read records: its scopes lack sms.read.")
    cookie = session.set_cookie(call, desk.seal.made(caller.key, call.now_ms))
    home = _HOME if caller.is_operator else "/ui/records?range=24h&include=pending"
    return html.redirect(session.safe_next(form.get("next", ""), home), cookie)


async def sign_out(call: Call, desk: Desk) -> Answer:
    """Ends the session in this browser."""
    session.refuse_foreign(call)
    return html.redirect("/ui/sign-in", session.set_cookie(call, ""))


async def _identified(desk: Desk, pair: tuple[str, str]) -> auth.Caller | None:
    # The operator comes in also while the store is away, to see that it is.
    if desk.operator is not None and (caller := auth.as_operator(pair, desk.operator)):
        return caller
    return await desk.read(lambda context: auth.identify(context.client, pair, None))


async def signed_in(call: Call, desk: Desk) -> auth.Caller | None:
    """Whoever the session of a request belongs to, if it still may read."""
    value = session.cookie_of(call)
    key = desk.seal.key_in(value, call.now_ms) if value else None
    if key is None:
        return None
    if desk.operator is not None and key == desk.operator[0]:
        return auth.OPERATOR(key)
    caller = await desk.read(lambda context: context.still_valid(key))
    return caller if caller is not None and caller.may_read else None


def _asking(call: Call, where: str, key: str = "", wrong: str = "") -> Answer:
    given: dict[str, Any] = {"next": where, "given_key": key, "wrong": wrong}
    return html.page(call, "sign_in", HTTPStatus.FORBIDDEN if wrong else HTTPStatus.OK, **given)


def refuse_unless_operator(call: Call) -> None:
    """Refuses a page that is the operator's alone."""
    if not call.caller.is_operator:
        raise Refusal(403, "this page is the operator's alone: your key shows records, messages and reports")
