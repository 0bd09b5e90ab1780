"""The session cookie: a sealed text that only this server can write, and the rules that bind it.

It holds the kind of who signed in (operator or key), which key, the session's id and when it began; no secret. Who
somebody is stands in there, and no comparison of names decides it. The session itself lives on the server
(`api.sessions`); the cookie tells when it was last used.
"""

import secrets
from http.cookies import CookieError, SimpleCookie
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from api.http import Call, Refusal
from api.seals import Seals

HOURS: Final = 12
IDLE_MINUTES: Final = 60
OPERATOR: Final = "operator"
KEY: Final = "key"
_PURPOSE: Final = "session"
_MS: Final = HOURS * 3_600_000
# A cookie that is younger is not sealed anew at each page.
_RESEAL_MS: Final = 60_000
# What the pages' own script asks without anybody at the screen carries this header: it keeps no session alive.
REFRESH_HEADER: Final = "x-mdr-refresh"


class Session(NamedTuple):
    """Who signed in, by kind and key, and when."""

    kind: str
    key: str
    session_id: str
    began_ms: int


class Seen(NamedTuple):
    """A session as its cookie tells it, and when it was last used."""

    session: Session
    seen_ms: int


def begun(kind: str, key: str, now_ms: int) -> Session:
    """Return a new session."""
    return Session(kind, key, secrets.token_urlsafe(16), now_ms)


def sealed(seals: Seals, session: Session, now_ms: int) -> str:
    """Return the value of a session's cookie, used now."""
    return seals.seal(_PURPOSE, list(session), now_ms)


def opened(seals: Seals, value: str, now_ms: int) -> Seen | None:
    """Return the session of a cookie's value; None when it is forged, idle for too long or too old."""
    found = seals.opened(_PURPOSE, value, now_ms, IDLE_MINUTES * 60)
    if found is None:
        return None
    session = Session(*found.value)
    return Seen(session, found.sealed_ms) if now_ms < session.began_ms + _MS else None


def is_used(call: Call, seen: Seen) -> bool:
    """Tell whether a request keeps its session alive by a new cookie."""
    return REFRESH_HEADER not in call.headers and call.now_ms - seen.seen_ms >= _RESEAL_MS


def cookie_name(call: Call) -> str:
    """Return the cookie's name: with its port, as cookies do not tell ports apart.

    Over https it has the prefix `__Host-`, which no other host or path can set; browsers refuse it over plain http.
    """
    parts = urlsplit(call.base_url)
    prefix = "__Host-" if parts.scheme == "https" else ""
    return f"{prefix}mdr_session_{parts.port or (443 if parts.scheme == 'https' else 80)}"


def cookie_of(call: Call) -> str:
    """Return the value of the session cookie that a request carries, or `""`."""
    try:
        found = SimpleCookie(call.headers.get("cookie", "")).get(cookie_name(call))
    except CookieError:
        return ""
    return found.value if found else ""


def set_cookie(call: Call, value: str) -> dict[str, str]:
    """Return the header that keeps a session, or with `""` ends it."""
    secure = "; Secure" if call.base_url.startswith("https:") else ""
    age_s = IDLE_MINUTES * 60 if value else 0
    return {
        "Set-Cookie": f"{cookie_name(call)}={value}; Path=/; Max-Age={age_s}; HttpOnly; SameSite=Strict{secure}",
    }


def refuse_foreign(call: Call) -> None:
    """Refuse a post that no page of this very server sent: for a browser other ports are the same site."""
    if call.headers.get("origin", "") != call.base_url:
        raise Refusal(403, "the form was not sent from a page of this server")


def safe_next(path: str, home: str) -> str:
    """Return where to go after signing in: the page of ours that was asked for, else the first one."""
    return path if path.startswith("/ui/") and path.isprintable() and "\\" not in path else home
