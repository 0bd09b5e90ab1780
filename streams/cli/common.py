"""What the commands share: the group they belong to, and how they print."""

import asyncio
import contextlib
import importlib
import os
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NoReturn

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from streams import logs, private
from streams.tasks import ended
from streams.terminal import err

DISTRIBUTION: Final = "message-detail-records"
_THREADS_S_MAX: Final = 0.5
# Where each command is written. Its file is read when the command is wanted, so that a start costs what it uses.
HOMES: Final = {
    "api": "run", "audit": "audit", "broker": "broker", "check": "operate", "credentials": "credentials",
    "dead-letters": "operate", "demo": "run", "erase": "erase", "lag": "lag", "migrate": "run", "produce": "feed",
    "query": "query", "settings": "settings", "simulate": "feed", "topics": "feed", "trace": "operate",
    "up": "run", "worker": "run",
}  # fmt: skip


class _Commands(click.Group):
    """The commands, each imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command's name."""
        return sorted(HOMES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A command; it adds itself when its file is read."""
        if cmd_name in HOMES:
            importlib.import_module(f"streams.cli.{HOMES[cmd_name]}")
        return super().get_command(ctx, cmd_name)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name=DISTRIBUTION, prog_name="mdr")
def cli() -> None:
    """Message detail records: joins message events from Kafka, keeps the records in ClickHouse."""
    os.umask(private.UMASK)
    logs.set_up()


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Runs the asynchronous part of a command; threads that hang in a store are not waited for."""
    threads = ThreadPoolExecutor(thread_name_prefix="mdr")

    async def let_go(timeout: float | None = None) -> None:  # noqa: ASYNC109  # the signature is asyncio's
        threads.shutdown(wait=False, cancel_futures=True)

    runner = asyncio.Runner()
    loop = runner.get_loop()
    loop.set_default_executor(threads)
    loop.shutdown_default_executor = let_go  # type: ignore[method-assign,unused-ignore]
    try:
        return runner.run(work)
    finally:
        # The runner would wait for ever for tasks that take no cancellation, as those of a client that crashed.
        if runner.run(_rest_ends()):
            runner.close()


async def _rest_ends() -> bool:
    me = asyncio.current_task()
    await ended(task for task in asyncio.all_tasks() if task is not me)
    return asyncio.all_tasks() == {me}


def leave(code: int) -> NoReturn:
    """Ends the process, and with it any thread that still waits for a store: nothing is to be written any more."""
    until_s = time.monotonic() + _THREADS_S_MAX
    others = [t for t in threading.enumerate() if t is not threading.main_thread() and not t.daemon]
    for thread in others:
        thread.join(max(0.0, until_s - time.monotonic()))
    if any(thread.is_alive() for thread in others):
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """The flag `--json`, which every command that prints data has."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON (lines for lists).")(command)


def progress_bar() -> Progress:
    """Progress on stderr, gone when it is done."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=err,
        transient=True,
    )
