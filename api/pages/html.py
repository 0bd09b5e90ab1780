"""Templates to answers: everything is escaped, and the browser is told to run and load nothing but our own files."""

import hashlib
from functools import cache
from importlib.resources import files
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from api.http import TITLES, Answer, Call, Refusal, segment, with_query
from api.pages import mask, words

_HTML: Final = "text/html"
# Nothing inline, nothing from elsewhere, in nobody's frame. `same-origin` keeps `Origin` on our own forms.
SECURITY: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
        " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_MEDIA_TYPES: Final = {
    "app.css": "text/css", "app.js": "text/javascript", "icon.svg": "image/svg+xml",
}  # fmt: skip
_KEEP: Final = {"Cache-Control": "public, max-age=31536000, immutable"}


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("api.pages"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    made.filters |= words.FILTERS | {"masked": mask.number, "segment": segment, "message_href": message_href}
    made.globals |= {"asset": asset}
    return made


@cache
def _static(name: str) -> bytes:
    return files("api.pages").joinpath("static", name).read_bytes()


def message_href(message_id: str, direction: str = "") -> str:
    """Return the link to a message's page; a browser would climb by dots, so those go into the query."""
    more = [("direction", direction)] if direction else []
    if message_id in (".", ".."):
        return with_query("/ui/messages", [("id", message_id), *more])
    return with_query(f"/ui/messages/{segment(message_id)}", more)


def asset(name: str) -> str:
    """The path of a file of ours; it changes with its content, so a browser may keep it."""
    return f"/ui/static/{name}?{hashlib.sha256(_static(name)).hexdigest()[:12]}"


def static(name: str) -> Answer:
    """A file of ours."""
    if name not in _MEDIA_TYPES:
        raise Refusal(404, "there is nothing at this path")
    return Answer(_static(name), content_type=_MEDIA_TYPES[name], headers=_KEEP | SECURITY)


def page(call: Call, template: str, status: int = 200, /, **values: Any) -> Answer:
    """A page for whoever is signed in."""
    seen = call.caller
    given = {
        "path": call.path, "now_ms": call.now_ms, "key": seen.key, "account": seen.account_id,
        "is_operator": seen.is_operator and bool(seen.key), "may_see": seen.may_see_bodies,
    }  # fmt: skip
    text = _environment().get_template(f"{template}.html").render(given | values)
    return Answer(text.encode("utf-8", "replace"), status, _HTML, dict(SECURITY))


def redirect(path: str, headers: dict[str, str] | None = None) -> Answer:
    """Sends the browser to another page with GET."""
    return Answer(status=303, content_type=_HTML, headers=SECURITY | {"Location": path} | (headers or {}))


def face(refusal: Refusal, call: Call | None = None) -> Answer:
    """An error as a page; without a call it is nobody's."""
    title = TITLES.get(refusal.status, "Error")
    given = {"title": title, "status": refusal.status, "detail": refusal.detail, "path": "", "now_ms": 0}
    who = {"key": "", "account": "", "is_operator": False, "may_see": False}
    if call is not None and call.caller.key:
        who = {"key": call.caller.key, "account": call.caller.account_id, "is_operator": call.caller.is_operator,
               "may_see": call.caller.may_see_bodies}  # fmt: skip
    text = _environment().get_template("error.html").render(given | who)
    return Answer(text.encode(), refusal.status, _HTML, SECURITY | refusal.headers)
