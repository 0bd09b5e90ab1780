"""Coming in and going out: the sign-in page, the session, the files every page needs."""

from http import HTTPStatus
from typing import Any, NamedTuple

from api import auth, sessions
from api.http import Answer, Call, Context, Refusal
from api.pages import html, session
from api.pages.desk import Desk, form_of
from api.pages.session import Seen

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
    """Check a key and its secret and begin a session; the one before ends."""
    form = form_of(call)
    pair = (form.get("key", "").strip(), form.get("secret", "").strip())
    caller = await _identified(call, desk, pair)
    if caller is None:
        return _refused(call, desk, form.get("next", ""), pair[0])
    desk.sign_ins.succeeded(pair[0], call.client, call.now_ms)
    if not caller.may_read:
        return _asking(call, form.get("next", ""), pair[0], "This key may not read records: its scopes lack sms.read.")
    await _end(call, desk)
    cookie = session.set_cookie(call, await _begun(call, desk, caller))
    home = _HOME if caller.is_operator else "/ui/records?range=24h&include=pending"
    return html.redirect(session.safe_next(form.get("next", ""), home), cookie)


def _refused(call: Call, desk: Desk, where: str, key: str) -> Answer:
    """Tell that a key and its secret do not belong together; who said so too often has to wait before being told."""
    wait_s = desk.sign_ins.wait_s(key, call.client, call.now_ms)
    desk.sign_ins.failed(key, call.client, call.now_ms)
    if wait_s:
        why = f"Too many wrong secrets came from your address: wait {wait_s} s."
        answer = _asking(call, where, key, why)
        return answer._replace(status=429, headers=answer.headers | {"Retry-After": str(wait_s)})
    return _asking(call, where, key, "This key and secret do not belong together.")


async def sign_out(call: Call, desk: Desk) -> Answer:
    """End the session, here and on the server."""
    await _end(call, desk)
    return html.redirect("/ui/sign-in", session.set_cookie(call, ""))


def named(call: Call, desk: Desk) -> Call:
    """Return a call that comes in or goes out, with the key that it is about."""
    if call.method != "POST":
        return call
    seen = _seen(call, desk)
    key = seen.session.key if seen and call.path.endswith("sign-out") else form_of(call).get("key", "")
    return call._replace(caller=call.caller._replace(key=auth.key_of(key)))


async def _identified(call: Call, desk: Desk, pair: tuple[str, str]) -> auth.Caller | None:
    # The operator comes in also while the store is away, to see that it is.
    if desk.operator is not None and (caller := auth.as_operator(pair, desk.operator)):
        return caller
    return await desk.read(lambda context: auth.identify(context.client, pair, None, call.now_ms))


async def _begun(call: Call, desk: Desk, caller: auth.Caller) -> str:
    """Begin a session; return its cookie's value."""
    kind = session.OPERATOR if caller.is_operator else session.KEY
    made = session.begun(kind, caller.key, call.now_ms)
    if caller.is_operator:
        desk.operator_sessions.begin(made.session_id)
    elif wait_s := desk.session_rates.wait_s(caller.key, call.now_ms):
        raise Refusal(429, "this key signs in too often", headers={"Retry-After": str(wait_s)})
    else:
        await desk.read(lambda context: sessions.begin(context.client, made.key, made.session_id, call.now_ms))
    return session.sealed(desk.seals, made, call.now_ms)


async def _end(call: Call, desk: Desk) -> None:
    seen = _seen(call, desk)
    if seen is None:
        return
    _, key, session_id, _ = seen.session
    if seen.session.kind == session.OPERATOR:
        desk.operator_sessions.end(session_id)
    else:
        await desk.read(lambda context: sessions.end(context.client, key, session_id))


class SignedIn(NamedTuple):
    """Who is signed in, and the session that says so."""

    caller: auth.Caller
    seen: Seen


async def signed_in(call: Call, desk: Desk) -> SignedIn | None:
    """Return whoever the session of a request belongs to, if it lives and its key still may read."""
    seen = _seen(call, desk)
    if seen is None:
        return None
    caller = await _caller(desk, seen)
    return SignedIn(caller, seen) if caller is not None and caller.may_read else None


async def _caller(desk: Desk, seen: Seen) -> auth.Caller | None:
    kind, key, session_id, _ = seen.session
    if kind == session.OPERATOR:
        return auth.OPERATOR(key) if desk.operator_sessions.is_live(session_id) else None

    def live(context: Context) -> auth.Caller | None:
        return context.still_valid(key) if sessions.is_live(context.client, key, session_id) else None

    return await desk.read(live)


def _seen(call: Call, desk: Desk) -> Seen | None:
    value = session.cookie_of(call)
    return session.opened(desk.seals, value, call.now_ms) if value else None


def kept_alive(call: Call, desk: Desk, seen: Seen, answer: Answer) -> Answer:
    """Return an answer that also says that the session was used now."""
    if "Set-Cookie" in answer.headers or not session.is_used(call, seen):
        return answer
    cookie = session.set_cookie(call, session.sealed(desk.seals, seen.session, call.now_ms))
    return answer._replace(headers=answer.headers | cookie)


def _asking(call: Call, where: str, key: str = "", wrong: str = "") -> Answer:
    given: dict[str, Any] = {"next": where, "given_key": key, "wrong": wrong}
    return html.page(call, "sign_in", HTTPStatus.FORBIDDEN if wrong else HTTPStatus.OK, **given)


def refuse_unless_operator(call: Call) -> None:
    """Refuses a page that is the operator's alone."""
    if not call.caller.is_operator:
        raise Refusal(403, "this page is the operator's alone: your key shows records, messages and reports")
