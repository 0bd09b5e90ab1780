"""The HTTP side beside the worker: it is given what it needs here, and here only."""

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec
import uvicorn

from api.app import AppConfig, create_app
from streams import join
from streams.agents import Worker, clock_ms
from streams.cli.letters import Desk
from streams.settings import Settings
from streams.store import StoreError, connect

_OPERATOR_FILE: Final = "operator.json"
_decode_life = msgspec.json.Decoder(join.Life).decode


class Operator(msgspec.Struct):
    """The credential of whoever runs commands on this machine, and where they are answered."""

    url: str
    key: str
    secret: str


def fold(facts: bytes) -> tuple[object, ...]:
    """The row of an open message, from the facts it was saved with."""
    life = _decode_life(facts)
    assert life.send is not None
    return join.outbound_row(life, life.send, 0)


@asynccontextmanager
async def serving(settings: Settings, worker: Worker | None) -> AsyncIterator[str]:
    """Serves the API until the block ends; yields its address."""
    host, port = settings.http
    url = f"http://{host}:{port}"
    operator = Operator(url, "operator", secrets.token_urlsafe(32))
    config = AppConfig(
        connect=lambda: connect(settings.clickhouse_url), data_dir=settings.data_dir,
        operator=(operator.key, operator.secret), http_url=url, clock_ms=clock_ms,
        health=worker.health if worker is not None else None, fold=fold, report_days=settings.report_days,
        letters=Desk(settings),
    )  # fmt: skip
    server = uvicorn.Server(
        uvicorn.Config(create_app(config), host=host, port=port, log_config=None, access_log=False, lifespan="on")
    )
    # The process ends in its own order: uvicorn must not catch its signals.
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
    task = asyncio.create_task(_serve(server, url))
    try:
        while not server.started:
            if task.done():
                task.result()
            await asyncio.sleep(0.02)
        _keep(settings.data_dir, operator)
        yield url
    finally:
        (settings.data_dir / _OPERATOR_FILE).unlink(missing_ok=True)
        server.should_exit = True
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _serve(server: uvicorn.Server, url: str) -> None:
    try:
        await server.serve()
    except SystemExit:
        raise StoreError(f"the API cannot listen at {url}: the address is taken or not ours (MDR_HTTP)") from None


def _keep(data_dir: Path, operator: Operator) -> None:
    path = data_dir / _OPERATOR_FILE
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(msgspec.json.encode(operator))


def running_operator(data_dir: Path) -> Operator | None:
    """The credential of the `mdr up` that runs on this data directory, if one left it there."""
    try:
        return msgspec.json.decode((data_dir / _OPERATOR_FILE).read_bytes(), type=Operator)
    except (OSError, msgspec.MsgspecError):
        return None
