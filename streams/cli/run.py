"""Commands that run something: everything, the worker, the API, the demo."""

import contextlib

import click

from streams import demo, logs, private, running, settings
from streams.cli import asking, operator_file
from streams.cli.common import cli, json_option, run
from streams.settings import Settings
from streams.terminal import err, print_json, say


@cli.command()
@click.option("--secure", is_flag=True, help="Make the local broker with a password, against other users.")
def up(secure: bool) -> None:
    """Everything on this machine until Ctrl-C: broker (unless MDR_KAFKA is set), worker, API."""
    logs.set_up()
    wanted = settings.load()
    private.directory(wanted.data_dir)
    ready = running.with_own_broker(wanted, err.print, secure=secure)
    run(_up(ready))


async def _up(ready: Settings) -> None:
    from streams.cli import serving  # Faust and the web framework: seconds that no other command pays

    async with (
        running.guarded() as guard, running.working(ready) as worker, serving.serving(ready, worker) as url,
    ):  # fmt: skip
        err.print(f"Kafka at {ready.kafka}, group {ready.group}, settling window {ready.settling_window_ms / 1000:g} s")
        err.print(f"API at {url}, its documentation at {url}/docs", soft_wrap=True)
        _tell_pages(url, ready)
        err.print("Ctrl-C stops everything")
        await running.until_stopped(worker, guard)
        err.print("stopping")


def _tell_pages(url: str, wanted: Settings) -> None:
    where = operator_file.path(wanted.data_dir)
    err.print(f"pages at {url}/ui; the key and secret to sign in are in {where}", soft_wrap=True)


@cli.command()
def worker() -> None:
    """The stream processor; more workers in the same group share the partitions."""
    logs.set_up()
    ready = running.with_running_broker(settings.load())
    run(_worker(ready))


async def _worker(ready: Settings) -> None:
    from streams.cli import serving

    async with (
        running.guarded() as guard, running.working(ready) as running_worker,
        serving.probing(ready, running_worker) as url,
    ):  # fmt: skip
        if url:
            err.print(f"/livez, /readyz and /metrics at {url}")
        await running.until_stopped(running_worker, guard)


@cli.command()
def api() -> None:
    """The HTTP side alone, against a ClickHouse server."""
    logs.set_up()
    wanted = settings.load()
    private.directory(wanted.data_dir)
    with contextlib.closing(asking.opened(wanted)) as store:
        store.migrate(*wanted.kept_days)
    run(_api(wanted))


async def _api(wanted: Settings) -> None:
    from streams.cli import serving

    async with running.guarded() as guard, serving.serving(wanted, None) as url:
        err.print(f"API at {url}, its documentation at {url}/docs")
        _tell_pages(url, wanted)
        await running.until_stopped(None, guard)


@cli.command()
@json_option
def migrate(as_json: bool) -> None:
    """Bring the ClickHouse tables to this version; idempotent."""
    wanted = settings.load()
    with contextlib.closing(asking.opened(wanted)) as store:
        applied = store.migrate(*wanted.kept_days)
    if as_json:
        print_json({"applied": applied})
    else:
        say(f"applied {', '.join(applied)}" if applied else "nothing to do")


@cli.command("demo")
@click.option("--messages", type=click.IntRange(1), default=demo.MESSAGES, show_default=True)
@click.option("--seed", type=int, default=7, show_default=True)
def demo_command(messages: int, seed: int) -> None:
    """The whole way on this machine, ending by itself: traffic, records, comparison with the truth."""
    logs.set_up()
    run(demo.run(settings.load(), messages, seed))
