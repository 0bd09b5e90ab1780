"""The HTTP side: the only file that knows the web framework.

Every request runs as one call in a thread with a ClickHouse client of its own: who asks, how often, what they may see,
then the handler. The event loop, which may be the worker's, never waits for the store.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import unquote

import msgspec
from litestar import Litestar, Request, Response
from litestar.enums import ScopeType
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.response import File
from litestar.types import ASGIApp, Receive, Scope, Send

from api import auth, probes, proof, query, seals
from api.builder import Builder
from api.dead_letters import Letters
from api.http import Answer, Call, Context, Refusal, Route, json_answer, parse_query, problem, routed
from api.lag import LagSource
from api.limits import Rates
from api.origin import BadHost, Network, Origins, is_from_page, refuse_foreign_write
from api.pages import html
from api.pages import routes as pages
from api.pages.desk import Page
from api.pending import Fold
from api.query import Client
from api.reports import Shelf
from api.routes import ROUTES, VIEWS, face_of
from api.sessions import OperatorSessions

log = logging.getLogger(__name__)
T = TypeVar("T")

_THREADS: Final = 4
_BODY_BYTES_MAX: Final = 1 << 20
_SETTLED_FOR_MS: Final = 1_000
_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_BASIC: Final = 'Basic realm="mdr", charset="UTF-8"'
_BEARER: Final = 'Bearer realm="mdr"'


class AppConfig(msgspec.Struct, frozen=True):
    """What the HTTP side is given.

    `connect` makes a client, which is then used by one thread only. `health` is the worker's state (`live`, `ready`,
    `reasons`), `lag` watches over it, `metrics` are its numbers for Prometheus, `fold` its way from stored facts to a
    row, `letters` reads the dead letters from their topic, `check` compares log and store; None where there is none.
    """

    connect: Callable[[], Client]
    data_dir: Path
    operator: tuple[str, str] | None
    http_url: str
    clock_ms: Callable[[], int]
    health: Callable[[], dict[str, Any]] | None = None
    lag: LagSource | None = None
    metrics: Callable[[], bytes] | None = None
    fold: Fold | None = None
    letters: Letters | None = None
    check: Callable[[], dict[str, Any]] | None = None
    report_days: int = 30
    trusted_proxies: tuple[Network, ...] = ()
    requests_per_s: float = 100
    burst: int = 200


class _Context:
    def __init__(self, client: Client, app: "_App") -> None:
        self.client = client
        self.shelf = app.shelf
        self.wake = app.builder.wake
        self.report_days = app.config.report_days
        self.fold = app.config.fold
        self.letters = app.config.letters
        self.check = app.config.check
        self.lag = app.config.lag
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
        self.rates = Rates(config.requests_per_s, config.burst)
        self.pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="mdr-api")
        self._local = threading.local()
        self._clients: list[Client] = []

    def close(self) -> None:
        self.builder.stop()
        self.pool.shutdown(wait=True, cancel_futures=True)
        for client in self._clients:
            client.close()
        self._clients.clear()

    def context(self) -> Context:
        """The context of the thread that asks."""
        client = getattr(self._local, "client", None)
        if client is None:
            client = self._local.client = self.config.connect()
            self._clients.append(client)
        return _Context(client, self)

    # ---- one request, in a thread ------------------------------------------------------------------------------

    def answer(self, route: Route, call: Call) -> Answer:
        try:
            refuse_foreign_write(call)
            context = self.connected()
            if not route.is_public:
                call = call._replace(caller=self._admit(route, call, context))
            return route.handler(call, context)
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

    def connected(self) -> Context:
        """The context of the thread that asks; raises `QueryError` when there is no way to the store."""
        try:
            return self.context()
        except Exception:
            raise query.QueryError("ClickHouse cannot be reached") from None

    def _admit(self, route: Route, call: Call, context: Context) -> auth.Caller:
        caller = auth.identify(context.client, auth.presented(call.headers), self.config.operator, call.now_ms)
        if caller is None:
            asks = {"WWW-Authenticate": _BEARER if is_from_page(call) else _BASIC}
            raise Refusal(401, "no credential, or none that is known", headers=asks)
        wait_s = 0 if caller.is_operator else self.rates.wait_s(caller.key, call.now_ms)
        if wait_s:
            bound = f"more than {self.config.requests_per_s:g} requests a second with one credential"
            raise Refusal(429, bound, headers={"Retry-After": str(wait_s)})
        if not caller.may_read or (route.operator_only and not caller.is_operator):
            raise Refusal(403, "the operator alone may do this" if caller.may_read else "the scope sms.read is missing")
        return caller


def create_app(config: AppConfig) -> Litestar:
    """The application, to be served by any ASGI server; its lifespan starts and ends the threads."""
    app = _App(config)

    @contextlib.asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        app.builder.start()
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
        request_max_body_size=_BODY_BYTES_MAX,
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
        try:
            call = await _call(app, route, request)
        except BadHost as refusal:
            return _response(problem(refusal))
        except Refusal as refusal:
            return _response(route.face(refusal))
        answer = await asyncio.get_running_loop().run_in_executor(app.pool, app.answer, route, call)
        return _response(answer)

    return _route(route.method, _template(route.path), handle)


def _route(method: str, path: str, handle: Callable[..., Any]) -> HTTPRouteHandler:
    return HTTPRouteHandler(path, http_method=[method], status_code=200, include_in_schema=False)(handle)  # type: ignore[list-item]


def _template(path: str) -> str:
    # An id may hold a slash (as %2F), which the framework sees as a separator; only the `path` type spans it.
    typed = path.replace("}", ":str}")
    return f"{typed.removesuffix(':str}')}:path}}" if path.endswith("}") else typed


def _page(app: _App, page: Page) -> HTTPRouteHandler:
    async def handle(request: Request[Any, Any, Any]) -> Response[Any]:
        try:
            call = await _call(app, page, request)
        except Refusal as refusal:
            return _response(html.face(refusal))
        return _response(await pages.answer(page, call, _Desk(app)))

    return _route(page.method, _template(page.path), handle)


class _Desk:
    """What pages may do."""

    def __init__(self, app: _App) -> None:
        self._app = app
        self.operator = app.config.operator
        self.seals = app.seals
        self.operator_sessions = app.operator_sessions
        self.lag = app.config.lag

    def wait_s(self, key: str, now_ms: int) -> int:
        return self._app.rates.wait_s(key, now_ms)

    async def read(self, work: Callable[..., T], *args: Any) -> T:
        return await self.run(lambda: work(self._app.connected(), *args))

    async def run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._app.pool, work)


async def _call(app: _App, route: Route | Page, request: Request[Any, Any, Any]) -> Call:
    body = await request.body()
    headers = {k.lower(): v for k, v in request.headers.items()}
    path = _raw_path(request.scope).decode("latin-1").partition("?")[0]
    nobody = auth.Caller("", "", frozenset(), query.Scope(()))
    peer = request.client.host if request.client is not None else ""
    came = app.origins.of(request.scope["scheme"], peer, request.headers.multi_items())
    return Call(
        route.method, path, _names(route.path, path), parse_query(request.scope["query_string"]), headers, body,
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
    details = {
        404: "there is nothing at this path", 405: "this path does not know the method",
        413: f"the body is larger than {_BODY_BYTES_MAX} bytes",
    }  # fmt: skip
    if status >= 500:
        log.error("%s failed", request.scope["path"], exc_info=error)
    path = request.scope["path"]
    # The framework refuses a malformed `Host` before it looks for a route: as `BadHost` in our own shape.
    face = problem if status == 400 else face_of(path)
    return _response(face(Refusal(status, details.get(status, "the request cannot be understood"))))


def _prover(app: _App) -> HTTPRouteHandler:
    """Proves to commands of this machine that we know the operator's secret; the store need not be there."""

    async def handle(request: Request[Any, Any, Any]) -> Response[Any]:
        nonce, operator = request.query_params.get("nonce", ""), app.config.operator
        if operator is None or not proof.is_nonce(nonce):
            return _response(problem(Refusal(400, "nonce is not 22 to 64 letters, digits, - and _", "nonce")))
        return _response(json_answer({"proof": proof.proof(operator[1], nonce, app.config.http_url)}))

    return _route("GET", proof.PATH, handle)


# ---- probes ----------------------------------------------------------------------------------------------------


def _probes(app: _App) -> list[HTTPRouteHandler]:
    async def store_reason() -> str:
        return await asyncio.get_running_loop().run_in_executor(app.pool, _store_reason, app)

    return probes.handlers(app.config.health, app.config.metrics, store_reason)


def _store_reason(app: _App) -> str:
    try:
        query.settled_through(app.context().client)
    except query.QueryError as e:
        return str(e)
    except Exception:
        return "ClickHouse cannot be reached"
    return ""
