"""What the framework hands to a handler and gets back, and the shape of our own errors. Pure.

A handler is a plain function `(Call, Context) -> Answer` that runs in a thread of its own; the framework stays in
`app.py`.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol
from urllib.parse import parse_qsl, quote, unquote_to_bytes, urlencode

import orjson

from api.auth import Caller
from api.query import Client
from api.reports import Shelf
from api.seals import Seals
from schemas import exact_json

if TYPE_CHECKING:
    from api.dead_letters import Letters
    from api.lag import LagSource

JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"
REQUEST_S: Final = 60


class Refusal(Exception):
    """A request that is answered with an error; each face renders it in its own shape."""

    def __init__(self, status: int, detail: str, field: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.field = field
        self.headers = dict(headers or {})


class Call(NamedTuple):
    """One request; header names are lower case, the body is bounded, `client` is the address it came from."""

    method: str
    path: str
    names: dict[str, str]
    query: list[tuple[str, str]]
    headers: dict[str, str]
    body: bytes
    base_url: str
    caller: Caller
    now_ms: int
    client: str = ""


class Answer(NamedTuple):
    """A response; `file` is streamed instead of the body."""

    body: bytes = b""
    status: int = 200
    content_type: str = JSON
    headers: dict[str, str] = {}  # noqa: RUF012  # never changed in place
    file: Path | None = None


class Context(Protocol):
    """What handlers share: a client of this thread, and the reports."""

    client: Client
    shelf: Shelf
    report_days: int
    letters: "Letters | None"
    check: Callable[[], dict[str, Any]] | None
    lag: "LagSource | None"
    seals: Seals

    def wake(self) -> None:
        """Tells the builder that a report was asked for."""
        ...

    def settled_through(self) -> str:
        """How far records are settled."""
        ...

    def still_valid(self, key: str) -> Caller | None:
        """Return the caller of a key that was checked before, unless it was revoked or has expired since."""
        ...


Handler = Callable[[Call, Context], Answer]


class Route(NamedTuple):
    """A path template such as `/mdr/records/{message_id}` and what answers it; `face` renders its errors.

    `seconds` is how long an answer may take, the time it waits for its turn included.
    """

    method: str
    path: str
    handler: Handler
    face: Callable[[Refusal], Answer]
    is_public: bool = False
    operator_only: bool = False
    seconds: int = REQUEST_S


TITLES: Final = {
    400: "Bad request", 401: "Unauthorized", 403: "Forbidden", 404: "Not found", 405: "Method not allowed",
    409: "Conflict", 410: "Gone", 413: "Body too large", 415: "Unsupported media type", 422: "Unprocessable content",
    429: "Too many requests", 431: "Header too large", 500: "Internal error", 503: "Unavailable",
}  # fmt: skip


def json_answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """An answer of JSON."""
    return Answer(exact_json.dumps(value), status, JSON, dict(headers or {}))


def problem(refusal: Refusal) -> Answer:
    """RFC 9457, with the member `field` that names what is wrong."""
    title = TITLES.get(refusal.status, "Error")
    body = {"type": "about:blank", "title": title, "status": refusal.status, "detail": refusal.detail}
    if refusal.field:
        body["field"] = refusal.field
    return Answer(orjson.dumps(body), refusal.status, PROBLEM, refusal.headers)


def parse_query(raw: bytes) -> list[tuple[str, str]]:
    """Names and values of a query string, in order, empty values kept; raises `Refusal` when it is no UTF-8."""
    try:
        pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=200)
    except ValueError:
        raise Refusal(400, "the query string is not percent-encoded UTF-8 of at most 200 fields") from None
    for name, value in pairs:
        if "\x00" in name or "\x00" in value:
            clean = name.replace("\x00", "")
            raise Refusal(400, f"the parameter {clean} holds a NUL character", clean)
    return pairs


def with_query(base: str, pairs: Iterable[tuple[str, Any]]) -> str:
    """A URL with a query string."""
    text = urlencode(list(pairs))
    return f"{base}?{text}" if text else base


def segment(text: str) -> str:
    """Return an id as one segment of a path, as every link to it is written; dots alone would climb."""
    return text.replace(".", "%2E") if text in (".", "..") else quote(text, safe="")


def routed(raw_path: bytes) -> str:
    """Return the path to find a route by: an encoded slash is part of an id, and no separator."""
    return "/".join(quote(unquote_to_bytes(part), safe="") for part in raw_path.partition(b"?")[0].split(b"/"))


def single(call: Call, allowed: Iterable[str], status: int = 400) -> dict[str, str]:
    """Parameters that may come once each; an unknown or a repeated one is refused by name."""
    known = frozenset(allowed)
    found: dict[str, str] = {}
    for name, value in call.query:
        if name not in known:
            raise Refusal(status, f"{name} is not a parameter of this path", name)
        if name in found:
            raise Refusal(status, f"{name} may be given once", name)
        found[name] = value
    return found


def whole_number(name: str, text: str | None, default: int, low: int, high: int, status: int = 400) -> int:
    """A bounded integer parameter; the refusal names the bound."""
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,12}", text, re.ASCII) or not low <= int(text) <= high:
        raise Refusal(status, f"{name} is not a whole number from {low} to {high}", name)
    return int(text)


def json_body(call: Call, status: int = 400) -> dict[str, Any]:
    """The JSON object a request carries; refused when it is none."""
    try:
        value = orjson.loads(call.body)
    except orjson.JSONDecodeError:
        raise Refusal(status, "the body is not JSON") from None
    if not isinstance(value, dict):
        raise Refusal(status, "the body is not a JSON object")
    return value
