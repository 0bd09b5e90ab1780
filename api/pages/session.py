"""Who is signed in: a sealed cookie that only this server can write, and the rule against forged posts.

The cookie names a key and when the session ends; it holds no secret of the credential. The operator's sessions end with
the secret they began with, which is another at each start; other keys are looked up at every request, so that a revoked
one is out at once.
"""

import hashlib
import hmac
from http.cookies import CookieError, SimpleCookie
from typing import Final
from urllib.parse import urlsplit

from api.http import Call, Refusal

HOURS: Final = 12
_MS: Final = HOURS * 3_600_000


class Seal:
    """Writes and reads the values of session cookies."""

    def __init__(self, key: bytes, operator: tuple[str, str] | None) -> None:
        self._key = key
        self._operator = operator

    def made(self, key: str, now_ms: int) -> str:
        """The value of a cookie for a credential that was just checked."""
        text = f"{key}.{now_ms + _MS}"
        return f"{text}.{self._sign(text, key)}"

    def key_in(self, value: str, now_ms: int) -> str | None:
        """The key a cookie was made for; None when it is forged or its time is over."""
        text, _, signature = value.rpartition(".")
        key, _, until = text.rpartition(".")
        given = signature.encode("utf-8", "surrogateescape")
        if not hmac.compare_digest(self._sign(text, key).encode(), given):
            return None
        return key if now_ms < int(until) else None

    def _sign(self, text: str, key: str) -> str:
        bound = self._operator[1] if self._operator and key == self._operator[0] else ""
        whole = f"{text}\n{hashlib.sha256(bound.encode()).hexdigest()}"
        return hmac.new(self._key, whole.encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()


def cookie_name(call: Call) -> str:
    """Cookies do not tell ports apart, so the name does: two servers of one machine keep two sessions."""
    parts = urlsplit(call.base_url)
    return f"mdr_session_{parts.port or (443 if parts.scheme == 'https' else 80)}"


def cookie_of(call: Call) -> str:
    """The session cookie a request carries, or `""`."""
    try:
        found = SimpleCookie(call.headers.get("cookie", "")).get(cookie_name(call))
    except CookieError:
        return ""
    return found.value if found else ""


def set_cookie(call: Call, value: str) -> dict[str, str]:
    """The header that keeps a session, or with `""` ends it."""
    secure = "; Secure" if call.base_url.startswith("https:") else ""
    age_s = _MS // 1000 if value else 0
    return {
        "Set-Cookie": f"{cookie_name(call)}={value}; Path=/; Max-Age={age_s}; HttpOnly; SameSite=Strict{secure}",
    }


def refuse_foreign(call: Call) -> None:
    """Refuses a post that no page of this very server sent: for a browser other ports are the same site."""
    origin = call.headers.get("origin", "")
    if not origin or urlsplit(origin).netloc != urlsplit(call.base_url).netloc:
        raise Refusal(403, "the form was not sent from a page of this server")


def safe_next(path: str, home: str) -> str:
    """Where to go after signing in: the page of ours that was asked for, else the first one."""
    return path if path.startswith("/ui/") and path.isprintable() and "\\" not in path else home
