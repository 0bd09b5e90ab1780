"""The HTTP side beside the worker: it is given what it needs here, and here only."""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import uvicorn

from api import auth, probes
from api.app import AppConfig, create_app
from api.guard import BACKLOG, Guard, connections_max
from api.origin import is_loopback
from streams import monitor
from streams.agents import Worker
from streams.cli import operator_file
from streams.cli.letters import Desk
from streams.cli.reconciling import Check
from streams.clock import clock_ms
from streams.settings import Settings
from streams.store import StoreError, connect

log = logging.getLogger(__name__)
_DRAIN_S: Final = 2


@asynccontextmanager
async def serving(settings: Settings, worker: Worker | None) -> AsyncIterator[str]:
    """Serves the API until the block ends; yields its address."""
    host, port = settings.http
    url = _url(host, port)
    _warn_if_open(settings)
    operator = operator_file.Operator(url, auth.OPERATOR_KEY, secrets.token_urlsafe(32))
    async with monitor.watching(settings, worker, clock_ms) as watch:
        config = AppConfig(
            connect=lambda: connect(settings.clickhouse_url), data_dir=settings.data_dir,
            operator=(operator.key, operator.secret), http_url=url, clock_ms=clock_ms, health=watch.health, lag=watch,
            metrics=watch.metrics, report_days=settings.report_days, letters=Desk(settings),
            check=Check(settings), trusted_proxies=settings.trusted_proxies,
        )  # fmt: skip
        async with _listening(create_app(config), host, port):
            with operator_file.kept(settings.data_dir, operator):
                yield url


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _warn_if_open(settings: Settings) -> None:
    """Tell that secrets cross a network as they are, unless a proxy is named that may keep them."""
    host, port = settings.http
    if not is_loopback(host) and not settings.trusted_proxies:
        told = "%s:%d (MDR_HTTP) is open to others, and keys, secrets and records cross the network as they are:"
        log.warning(told + " put TLS before it, and name the proxy in MDR_TRUSTED_PROXIES", host, port)


@asynccontextmanager
async def probing(settings: Settings, worker: Worker) -> AsyncIterator[str]:
    """Serves /livez, /readyz and /metrics of a worker until the block ends; yields their address, `""` for none.

    Several workers of one machine have one default address: the first gets it, and the others work all the same.
    """
    host, port = settings.http
    async with monitor.watching(settings, worker, clock_ms) as watch:
        try:
            async with _listening(probes.app(watch.health, watch.metrics), host, port):
                yield _url(host, port)
        except AddressTaken as e:
            log.warning("%s: no /livez, /readyz and /metrics of this worker", e)
            yield ""


class AddressTaken(StoreError):
    """Nobody can listen there; one sentence that names the setting."""


@asynccontextmanager
async def _listening(app: Any, host: str, port: int) -> AsyncIterator[None]:
    guard = Guard(connections_max())
    server = uvicorn.Server(
        uvicorn.Config(
            app, host=host, port=port, log_config=None, access_log=False, lifespan="on", ws="none", proxy_headers=False,
            server_header=False, timeout_graceful_shutdown=_DRAIN_S, backlog=min(BACKLOG, guard.bound),
            http=guard.protocol(),
        )
    )  # fmt: skip
    # The process ends in its own order: uvicorn must not catch its signals.
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
    task = asyncio.create_task(_serve(server, _url(host, port)))
    watch = asyncio.create_task(guard.watch())
    try:
        while not server.started:
            if task.done():
                task.result()
            await asyncio.sleep(0.02)
        yield
    finally:
        server.should_exit = True
        watch.cancel()
        # A request that waits for the store must not keep the worker from saving.
        await asyncio.wait([task], timeout=2 * _DRAIN_S)


async def _serve(server: uvicorn.Server, url: str) -> None:
    try:
        await server.serve()
    except SystemExit:
        raise AddressTaken(f"nobody can listen at {url}: the address is taken or not ours (MDR_HTTP)") from None
