"""The HTTP side: the only file that knows the web framework.

Every request runs as one call in a thread with a ClickHouse client of its own: who asks, how often, what they may see,
then the handler. The event loop, which may be the worker's, never waits for the store. Threads are given in turn by who
asks; the operator has threads of its own, and the probes wait for none. An answer ends with its client and its time.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar, cast
from urllib.parse import unquote

import msgspec
from litestar import Litestar, Request, Response
from litestar.enums import ScopeType
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.response import File
from litestar.types import ASGIApp, Receive, Scope, Send

from api import auth, dead_letters, probes, proof, query, seals
from api.attending import End, Left, attended, refuse_oversize
from api.audit import AuditLog, entry_of
from api.builder import Builder
from api.dead_letters import Letters
from api.erasure import Eraser
from api.http import REQUEST_S, Answer, Call, Context, Refusal, Route, json_answer, parse_query, problem, routed
from api.lag import LagSource
from api.limits import Known, Rates, SignIns, network_of
from api.origin import BadHost, Network, Origins, is_from_page, refuse_foreign_write
from api.pages import html
from api.pages import routes as pages
from api.pages.desk import Page
from api.patience import Patient, Side, Wait
from api.query import Client
from api.reports import Shelf
from api.routes import ROUTES, VIEWS, allowed, face_of
from api.sessions import OperatorSessions
from api.shares import LINE_MAX, Full, Shares

log = logging.getLogger(__name__)
T = TypeVar("T")

# Of the threads that answer callers one does nothing slow, and no caller has more than two: others find one free.
_THREADS: Final = 4
_THREADS_QUICK: Final = 1
_THREADS_OPERATOR: Final = 3
_THREADS_EACH: Final = 2
PAGE_S: Final = REQUEST_S + 2 * dead_letters.REQUEST_S
# What other servers call a client that has gone; it is sent to nobody.
_NOBODY_READS: Final = 499
_SETTLED_FOR_MS: Final = 1_000
_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
# Each session of a key is a row: nobody needs many.
_SESSIONS_PER_S: Final = 0.1
_SESSIONS_AT_ONCE: Final = 30
SIGN_INS_METRIC: Final = (
    b"# HELP mdr_sign_ins_failed_total Sign-ins and requests with a wrong key or secret.\n"
    b"# TYPE mdr_sign_ins_failed_total counter\n"
    b"mdr_sign_ins_failed_total %d\n"
)
_BASIC: Final = 'Basic realm="mdr", charset="UTF-8"'
_BEARER: Final = 'Bearer realm="mdr"'


class AppConfig(msgspec.Struct, frozen=True):
    """What the HTTP side is given.

    `connect` makes a client, which is then used by one thread only. `health` is the worker's state (`live`, `ready`,
    `reasons`), `lag` watches over it, `metrics` are its numbers for Prometheus, `letters` reads the dead letters from
    their topic, `check` compares log and store; None where there is none.
    """

    connect: Callable[[], Client]
    data_dir: Path
    operator: tuple[str, str] | None
    http_url: str
    clock_ms: Callable[[], int]
    health: Callable[[], dict[str, Any]] | None = None
    lag: LagSource | None = None
    metrics: Callable[[], bytes] | None = None
    letters: Letters | None = None
    check: Callable[[], dict[str, Any]] | None = None
    report_days: int = 30
    trusted_proxies: tuple[Network, ...] = ()
    requests_per_s: float = 100
    burst: int = 200


class _Lane(NamedTuple):
    """Whose turn a piece of work waits for."""

    shares: Shares
    who: str


class _Context:
    def __init__(self, client: Client, app: "_App") -> None:
        self.client = client
        self.shelf = app.shelf
        self.wake = app.builder.wake
        self.report_days = app.config.report_days
        self.letters = app.config.letters
        self.check = app.config.check
        self.lag = app.config.lag
        self.seals = app.seals
        self._app = app

    def still_valid(self, key: str) -> auth.Caller | None:
        """Return the caller of a key that was checked before, unless it was revoked or has expired since."""
        return auth.still_valid(self.client, key, self._app.config.clock_ms())

    def settled_through(self) -> str:
        """How far records are settled: at most a second old, and what was true then stays true."""
        now_ms = self._app.config.clock_ms()
        read_ms, value = self._app.settled
        if not value or not 0 <= now_ms - read_ms < _SETTLED_FOR_MS:
            value = query.settled_through(self.client)
            self._app.settled = (now_ms, value)
        return value


class _App:
    def __init__(self, config: AppConfig) -> None:
        self.config = config
        self.settled = (0, "")
        self.shelf = Shelf(config.data_dir)
        self.seals = seals.load(config.data_dir)
        self.operator_sessions = OperatorSessions()
        self.origins = Origins(config.http_url, config.trusted_proxies)
        self.builder = Builder(config.connect, self.shelf, config.clock_ms, VIEWS)
        self.audit = AuditLog(config.connect, config.clock_ms)
        self.eraser = Eraser(config.connect, self.shelf, config.clock_ms)
        self.rates = Rates(config.requests_per_s, config.burst)
        self.sign_ins = SignIns()
        self.session_rates = Rates(_SESSIONS_PER_S, _SESSIONS_AT_ONCE)
        self.shares = Shares("mdr-api", _THREADS, _THREADS_EACH, _THREADS_QUICK)
        self.own_shares = Shares("mdr-operator", _THREADS_OPERATOR, _THREADS_EACH)
        self.side = Side(config.connect, query.settled_through)
        self.known = Known()
        self._local = threading.local()
        self._clients: list[Client] = []

    def close(self) -> None:
        self.builder.stop()
        self.eraser.stop()
        self.audit.stop()
        self.shares.close()
        self.own_shares.close()
        self.side.close()
        for client in self._clients:
            client.close()
        self._clients.clear()

    # ---- work in threads ---------------------------------------------------------------------------------------

    def lane_of(self, caller: auth.Caller, purpose: str) -> _Lane:
        """Where a known caller waits; the operator's commands do not hold up the operator's pages."""
        return _Lane(self.own_shares, purpose) if caller.is_operator else _Lane(self.shares, f"key {caller.key}")

    def lane_at(self, peer: str, purpose: str) -> _Lane:
        """Where those wait who are not known yet: with all others at their address."""
        return _Lane(self.shares, f"{purpose} {network_of(peer)}")

    async def within(self, lane: _Lane, work: Callable[[Context], T], *, is_quick: bool = False) -> T:
        """The result of work with a context, when its turn comes; raises `Refusal` when too much waits already.

        Once nobody waits for it no more is asked of the store, and the query that runs is ended.
        """
        wait = Wait()
        try:
            return await lane.shares.run(lane.who, lambda: work(self._context(wait)), is_quick=is_quick)
        except Full as full:
            raise _too_busy(full) from None
        except asyncio.CancelledError:
            self.side.end(wait)
            raise

    def _context(self, wait: Wait) -> Context:
        """A context with the client of the thread that asks; raises `QueryError` when there is no way to the store."""
        client = getattr(self._local, "client", None)
        if client is None:
            try:
                client = self._local.client = self.config.connect()
            except Exception:
                raise query.QueryError("ClickHouse cannot be reached") from None
            self._clients.append(client)
        return _Context(cast(Client, Patient(client, wait)), self)

    # ---- one request -------------------------------------------------------------------------------------------

    async def answer(self, route: Route, call: Call, end: End) -> Answer:
        """Answer a request and note it; who asked is known on the way."""
        known = [call]
        answer = await self._faced(route, self._answered(route, call, end, known))
        self.note(known[-1], route.path, answer)
        return answer

    def note(self, call: Call, path: str, answer: Answer) -> None:
        """Put what was answered into the audit log."""
        entry = entry_of(call, path, answer, self.seals)
        if entry is not None:
            self.audit.note(entry)

    async def _faced(self, route: Route, work: Awaitable[Answer]) -> Answer:
        try:
            return await work
        except Refusal as refusal:
            return route.face(refusal)
        except query.TooSlow as e:
            return route.face(Refusal(503, str(e), headers={"Retry-After": "1"}))
        except query.QueryError as e:
            log.warning("%s %s: %s", route.method, route.path, e)
            return route.face(Refusal(503, str(e), headers={"Retry-After": "5"}))
        except Exception:
            log.exception("%s %s failed", route.method, route.path)
            return route.face(Refusal(500, "the request could not be answered; the log says why"))

    async def _answered(self, route: Route, call: Call, end: End, known: list[Call]) -> Answer:
        refuse_foreign_write(call)
        is_quick = route.method == "GET" and route.path.endswith("}")
        if route.is_public:
            lane = self.lane_at(call.client, "public")
            return await self.within(lane, lambda context: route.handler(call, context), is_quick=is_quick)
        pair = auth.presented(call.headers)
        # Needs no store to be refused. Some clients send an empty credential first and the right one then.
        if pair is None or not pair[0]:
            raise Refusal(401, "no credential", headers=_asks(call))
        caller = None if self.config.operator is None else auth.as_operator(pair, self.config.operator)
        key = caller.key if caller else self.known.key_of(pair)
        # Whoever is not known by what they present is, before anything else of the request is looked at or read.
        if caller is None and (key is None or takes_body(route.method)):
            lane = self.lane_at(call.client, "sign-in") if key is None else _Lane(self.shares, f"key {key}")
            caller = await self.within(lane, partial(self._identified, call, pair), is_quick=True)
        if takes_body(route.method):
            call = call._replace(body=await end.body())
        lane = self.lane_of(caller, "commands") if caller else _Lane(self.shares, f"key {key}")
        return await self.within(lane, partial(self._handled, route, call, pair, caller, known), is_quick=is_quick)

    def _handled(
        self, route: Route, call: Call, pair: tuple[str, str], caller: auth.Caller | None, known: list[Call],
        context: Context,
    ) -> Answer:  # fmt: skip
        caller = caller or self._identified(call, pair, context)
        known.append(call._replace(caller=caller))
        self._refuse_unless_allowed(route, caller, call.now_ms)
        return route.handler(known[-1], context)

    def _identified(self, call: Call, pair: tuple[str, str], context: Context) -> auth.Caller:
        """Whose credential it is. One that was right before is known by its hash, and looked up all the same."""
        asks = _asks(call)
        caller = auth.identify(context.client, pair, self.config.operator, call.now_ms)
        if caller is not None:
            self.known.remember(pair)
            self.sign_ins.succeeded(pair[0], call.client, call.now_ms)
            return caller
        self.known.forget(pair)
        wait_s = self.sign_ins.wait_s(pair[0], call.client, call.now_ms)
        self.sign_ins.failed(pair[0], call.client, call.now_ms)
        if wait_s:
            raise Refusal(429, "too many wrong credentials", headers=asks | {"Retry-After": str(wait_s)})
        raise Refusal(401, "no credential that is known", headers=asks)

    def _refuse_unless_allowed(self, route: Route, caller: auth.Caller, now_ms: int) -> None:
        wait_s = 0 if caller.is_operator else self.rates.wait_s(caller.key, now_ms)
        if wait_s:
            bound = f"more than {self.config.requests_per_s:g} requests a second with one credential"
            raise Refusal(429, bound, headers={"Retry-After": str(wait_s)})
        if not caller.may_read or (route.operator_only and not caller.is_operator):
            raise Refusal(403, "the operator alone may do this" if caller.may_read else "the scope sms.read is missing")


def _asks(call: Call) -> dict[str, str]:
    return {"WWW-Authenticate": _BEARER if is_from_page(call) else _BASIC}


def takes_body(method: str) -> bool:
    """Whether a body is read; some clients send a few bytes with a GET, and mean nothing by it."""
    return method not in ("GET", "HEAD", "DELETE")


def _too_busy(full: Full) -> Refusal:
    if full.is_own:
        return Refusal(429, f"{LINE_MAX} requests of this credential wait already", headers={"Retry-After": "5"})
    return Refusal(503, "too many requests wait", headers={"Retry-After": "5"})


def create_app(config: AppConfig) -> Litestar:
    """The application, to be served by any ASGI server; its lifespan starts and ends the threads."""
    app = _App(config)

    @contextlib.asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        app.builder.start()
        app.audit.start()
        app.eraser.start()
        try:
            yield
        finally:
            await asyncio.to_thread(app.close)

    served = Litestar(
        route_handlers=[
            *(_handler(app, route) for route in ROUTES), *(_page(app, page) for page in pages.PAGES), *_probes(app),
            _prover(app),
        ],
        lifespan=[lifespan],
        openapi_config=None,
        exception_handlers={HTTPException: _framework_error, Exception: _framework_error},
        logging_config=None,
    )  # fmt: skip
    served.asgi_handler = _by_raw_path(served.asgi_handler)
    return served


def _by_raw_path(handler: ASGIApp) -> ASGIApp:
    """Finds routes by the path as it was sent: the decoded one cannot tell the slash of an id from a separator."""

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == ScopeType.HTTP:
            scope["path"] = routed(_raw_path(scope))
        await handler(scope, receive, send)

    return handle


def _raw_path(scope: Any) -> bytes:
    return bytes(scope.get("raw_path") or scope["path"].encode())


def _handler(app: _App, route: Route) -> HTTPRouteHandler:
    async def handle(request: Request[Any, Any, Any]) -> Response[Any]:
        end = End(request.receive, takes_body=takes_body(route.method))
        try:
            call = _call(app, route, request)
            return _response(await attended(app.answer(route, call, end), end, route.seconds))
        except BadHost as refusal:
            return _response(problem(refusal))
        except Refusal as refusal:
            return _response(route.face(refusal))
        except TimeoutError:
            return _response(route.face(_too_late(route.seconds)))
        except Left:
            return Response(b"", status_code=_NOBODY_READS)

    return _route(route.method, _template(route.path), handle)


def _route(method: str, path: str, handle: Callable[..., Any]) -> HTTPRouteHandler:
    methods = ["GET", "HEAD"] if method == "GET" else [method]
    return HTTPRouteHandler(path, http_method=methods, status_code=200, include_in_schema=False)(handle)  # type: ignore[arg-type]


def _template(path: str) -> str:
    # An id may hold a slash (as %2F), which the framework sees as a separator; only the `path` type spans it.
    typed = path.replace("}", ":str}")
    return f"{typed.removesuffix(':str}')}:path}}" if path.endswith("}") else typed


def _page(app: _App, page: Page) -> HTTPRouteHandler:
    async def handle(request: Request[Any, Any, Any]) -> Response[Any]:
        end = End(request.receive, takes_body=takes_body(page.method))
        try:
            call = _call(app, page, request)
            desk = _Desk(app, app.lane_at(call.client, "sign-in" if page.is_public else "page"), end)
            return _response(await attended(pages.answer(page, call, desk), end, PAGE_S))
        except Refusal as refusal:
            return _response(html.face(refusal))
        except TimeoutError:
            return _response(html.face(_too_late(PAGE_S)))
        except Left:
            return Response(b"", status_code=_NOBODY_READS)

    return _route(page.method, _template(page.path), handle)


def _too_late(seconds: int) -> Refusal:
    late = f"the answer took longer than {seconds} s, its turn included: ask later, or for less"
    return Refusal(503, late, headers={"Retry-After": "5"})


class _Desk:
    """What pages may do."""

    def __init__(self, app: _App, lane: _Lane, end: End) -> None:
        self._app = app
        self._lane = lane
        self._end = end
        self.operator = app.config.operator
        self.seals = app.seals
        self.operator_sessions = app.operator_sessions
        self.sign_ins = app.sign_ins
        self.session_rates = app.session_rates
        self.lag = app.config.lag

    def wait_s(self, key: str, now_ms: int) -> int:
        return self._app.rates.wait_s(key, now_ms)

    def seat(self, caller: auth.Caller) -> None:
        self._lane = self._app.lane_of(caller, "pages")

    async def body(self) -> bytes:
        return await self._end.body()

    def note(self, call: Call, path: str, answer: Answer) -> None:
        self._app.note(call, path, answer)

    async def read(self, work: Callable[..., T], *args: Any) -> T:
        return await self._app.within(self._lane, lambda context: work(context, *args))

    async def run(self, work: Callable[[], T]) -> T:
        try:
            return await self._lane.shares.run(self._lane.who, work)
        except Full as full:
            raise _too_busy(full) from None


def _call(app: _App, route: Route | Page, request: Request[Any, Any, Any]) -> Call:
    """What is asked, without its body."""
    refuse_oversize(request.scope["headers"])
    headers = {k.lower(): v for k, v in request.headers.items()}
    path = _raw_path(request.scope).decode("latin-1").partition("?")[0]
    nobody = auth.Caller("", "", frozenset(), query.Scope(()))
    peer = request.client.host if request.client is not None else ""
    came = app.origins.of(request.scope["scheme"], peer, request.headers.multi_items())
    return Call(
        route.method, path, _names(route.path, path), parse_query(request.scope["query_string"]), headers, b"",
        came.base_url, nobody, app.config.clock_ms(), came.client,
    )  # fmt: skip


def _names(template: str, path: str) -> dict[str, str]:
    """The named parts of a path, decoded after it was split."""
    wanted, given = template.strip("/").split("/"), path.strip("/").split("/")
    names: dict[str, str] = {}
    for at, part in enumerate(wanted):
        if part.startswith("{"):
            text = "/".join(given[at:]) if at == len(wanted) - 1 else given[at]
            try:
                names[part[1:-1]] = unquote(text, errors="strict")
            except UnicodeDecodeError:
                raise Refusal(404, "the path is not percent-encoded UTF-8") from None
    return names


def _response(answer: Answer) -> Response[Any]:
    headers = _HEADERS | answer.headers
    if answer.file is not None:
        return File(answer.file, media_type=answer.content_type, headers=headers, status_code=answer.status)
    return Response(answer.body, media_type=answer.content_type, headers=headers, status_code=answer.status)


def _framework_error(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
    status = error.status_code if isinstance(error, HTTPException) else 500
    details = {404: "there is nothing at this path", 405: "this path does not know the method"}
    if status >= 500:
        log.error("%s failed", request.scope["path"], exc_info=error)
    path = request.scope["path"]
    headers = {"Allow": ", ".join(_allowed(path))} if status == 405 else None
    # The framework refuses a malformed `Host` before it looks for a route: as `BadHost` in our own shape.
    face = problem if status == 400 else face_of(path)
    return _response(face(Refusal(status, details.get(status, "the request cannot be understood"), headers=headers)))


def _allowed(path: str) -> list[str]:
    known = [(route.method, route.path) for route in ROUTES] + [(page.method, page.path) for page in pages.PAGES]
    return allowed(path, [*known, *(("GET", other) for other in (*probes.PATHS, proof.PATH))])


def _prover(app: _App) -> HTTPRouteHandler:
    """Proves to commands of this machine that we know the operator's secret; the store need not be there."""

    async def handle(request: Request[Any, Any, Any]) -> Response[Any]:
        nonce, operator = request.query_params.get("nonce", ""), app.config.operator
        if operator is None or not proof.is_nonce(nonce):
            return _response(problem(Refusal(400, "nonce is not 22 to 64 letters, digits, - and _", "nonce")))
        return _response(json_answer({"proof": proof.proof(operator[1], nonce, app.config.http_url)}))

    return _route("GET", proof.PATH, handle)


# ---- probes ----------------------------------------------------------------------------------------------------


def _metrics(app: _App) -> bytes:
    """Return the worker's numbers and our own."""
    told = app.config.metrics() if app.config.metrics is not None else b""
    return told + SIGN_INS_METRIC % app.sign_ins.failures


def _probes(app: _App) -> list[HTTPRouteHandler]:
    return probes.handlers(app.config.health, partial(_metrics, app), app.side.reason)
