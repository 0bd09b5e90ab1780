"""/livez, /readyz and /metrics: for supervisors and Prometheus, without a credential, without numbers or ids.

They are answered on the event loop and wait for no other request: the store is looked at elsewhere.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import orjson
from litestar import Litestar, Request, Response
from litestar.handlers import HTTPRouteHandler

# The text format of Prometheus.
_METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_HEADERS: Final = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
PATHS: Final = ("/livez", "/readyz", "/metrics")
Health = Callable[[], dict[str, Any]]
_Request = Request[Any, Any, Any]


def handlers(
    health: Health | None, metrics: Callable[[], bytes] | None, store_reason: Callable[[], Awaitable[str]] | None
) -> list[HTTPRouteHandler]:
    """The probes. `health` tells `live`, `ready`, `reasons`; `store_reason` why the store cannot be read, or `""`."""

    async def livez(request: _Request) -> Response[Any]:
        told = _told(health)
        return _json(told, bool(told["live"]))

    async def readyz(request: _Request) -> Response[Any]:
        told = _told(health)
        reason = await store_reason() if store_reason is not None else ""
        ready = bool(told["ready"]) and not reason
        return _json({**told, "ready": ready, "reasons": [*told["reasons"], *([reason] if reason else [])]}, ready)

    async def exposition(request: _Request) -> Response[Any]:
        return Response(metrics() if metrics is not None else b"", media_type=_METRICS_TYPE, headers=_HEADERS)

    found = zip(PATHS, (livez, readyz, exposition), strict=True)
    return [HTTPRouteHandler(path, http_method=["GET", "HEAD"], include_in_schema=False)(h) for path, h in found]


def app(health: Health, metrics: Callable[[], bytes]) -> Litestar:
    """The probes alone, for a worker that runs by itself."""
    return Litestar(route_handlers=handlers(health, metrics, None), openapi_config=None, logging_config=None)


def _told(health: Health | None) -> dict[str, Any]:
    return {"live": True, "ready": True, "reasons": []} | (health() if health is not None else {})


def _json(told: dict[str, Any], fine: bool) -> Response[Any]:
    status = 200 if fine else 503
    return Response(orjson.dumps(told), media_type="application/json", headers=_HEADERS, status_code=status)
