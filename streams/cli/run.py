"""Commands that run something: everything, the worker, the API, the broker."""

import contextlib

import click

from streams import broker, logs, running, settings
from streams.cli import serving
from streams.cli.common import cli, err, json_option, print_json, run
from streams.settings import Settings
from streams.store import Store


@cli.command()
def up() -> None:
    """Everything on this machine until Ctrl-C: broker (unless MDR_KAFKA is set), worker, API."""
    logs.set_up()
    wanted = settings.load()
    wanted.data_dir.mkdir(parents=True, exist_ok=True)
    ready = running.with_own_broker(wanted, err.print)
    run(_up(ready))


async def _up(ready: Settings) -> None:
    async with running.working(ready) as worker, serving.serving(ready, worker) as url:
        err.print(f"Kafka at {ready.kafka}, group {ready.group}, settling window {ready.settling_window_ms / 1000:g} s")
        err.print(f"API at {url}, its documentation at {url}/docs", soft_wrap=True)
        _tell_pages(url, ready)
        err.print("Ctrl-C stops everything")
        await running.until_stopped(worker)
        err.print("stopping")


def _tell_pages(url: str, wanted: Settings) -> None:
    where = serving.operator_file(wanted.data_dir)
    err.print(f"pages at {url}/ui; the key and secret to sign in are in {where}", soft_wrap=True, highlight=False)


@cli.command()
def worker() -> None:
    """The stream processor; more workers in the same group share the partitions."""
    logs.set_up()
    ready = running.with_running_broker(settings.load())
    run(_worker(ready))


async def _worker(ready: Settings) -> None:
    async with running.working(ready) as running_worker, serving.probing(ready, running_worker) as url:
        if url:
            err.print(f"/livez, /readyz and /metrics at {url}")
        await running.until_stopped(running_worker)


@cli.command()
def api() -> None:
    """The HTTP side alone, against a ClickHouse server."""
    logs.set_up()
    wanted = settings.load()
    wanted.data_dir.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(_open_store(wanted)) as store:
        store.migrate(wanted.retention_days, wanted.body_retention_days)
    run(_api(wanted))


async def _api(wanted: Settings) -> None:
    async with serving.serving(wanted, None) as url:
        err.print(f"API at {url}, its documentation at {url}/docs")
        _tell_pages(url, wanted)
        await running.until_stopped(None)


@cli.command()
@json_option
def migrate(as_json: bool) -> None:
    """Bring the ClickHouse tables to this version; idempotent."""
    wanted = settings.load()
    with contextlib.closing(_open_store(wanted)) as store:
        applied = store.migrate(wanted.retention_days, wanted.body_retention_days)
    if as_json:
        print_json({"applied": applied})
    else:
        click.echo(f"applied {', '.join(applied)}" if applied else "nothing to do")


def _open_store(wanted: Settings) -> Store:
    if wanted.is_embedded:
        wanted.chdb_path.parent.mkdir(parents=True, exist_ok=True)
    return Store(wanted.clickhouse_url)


@cli.group("broker")
def broker_group() -> None:
    """A real single-node Apache Kafka under the data directory."""


@broker_group.command("start")
@click.option(
    "--port", type=click.IntRange(1, 65535), help="Listen there; the default is a free port, kept from then on."
)
@json_option
def broker_start(port: int | None, as_json: bool) -> None:
    """Start it, or find the one that runs."""
    wanted = settings.load()
    wanted.data_dir.mkdir(parents=True, exist_ok=True)
    found = broker.start(wanted.data_dir, cache_dir=wanted.cache_dir, port=port, say=err.print)
    _tell_broker(found, as_json, "started" if found.started else "already running")


@broker_group.command("stop")
@json_option
def broker_stop(as_json: bool) -> None:
    """Stop it cleanly."""
    wanted = settings.load()
    stopped = broker.stop(wanted.data_dir)
    if as_json:
        print_json({"stopped": stopped})
    else:
        click.echo("stopped" if stopped else "none was running")


@broker_group.command("status")
@json_option
def broker_status(as_json: bool) -> None:
    """Say whether it runs, and where; exit 1 if not."""
    found = broker.status(settings.load().data_dir)
    if found is None:
        if as_json:
            print_json({"running": False})
        else:
            click.echo("not running")
        raise click.exceptions.Exit(1)
    _tell_broker(found, as_json, "running")


def _tell_broker(found: broker.Broker, as_json: bool, word: str) -> None:
    if as_json:
        print_json({"running": True, "bootstrap": found.bootstrap, "pid": found.pid, "started": found.started})
    else:
        click.echo(f"{word}: {found.bootstrap} (pid {found.pid})")
