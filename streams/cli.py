"""The command `mdr`. The one place where reading (api) and writing (streams) meet."""

import asyncio
import contextlib
import csv
import importlib.metadata
import sys
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any, Final, NoReturn

import click
import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from api.client import ClientError
from api.http import Refusal
from api.query import QueryError
from api.where import SCALARS
from schemas.events import TOPICS
from schemas.record import PUBLIC
from streams import asking, broker, demo, kafka, logs, produce, running, serving, settings, simulate
from streams.agents import clock_ms
from streams.settings import Settings
from streams.store import Store, StoreError, Unavailable
from streams.transport import TransportMoved

DISTRIBUTION: Final = "message-detail-records"
_OURS: Final = ("api", "schemas", "streams")
err = Console(stderr=True)


class PackageClash(Exception):
    """Another installed distribution owns one of our package names; one sentence."""


_TOLD: Final = (
    settings.SettingsError, broker.BrokerError, kafka.KafkaUnavailable, kafka.TopicsWrong, running.NoBroker, StoreError,
    Unavailable, TransportMoved, demo.DemoFailed, PackageClash, ClientError, QueryError, Refusal,
)  # fmt: skip


def main() -> NoReturn:
    """Runs the command line: exit 0 fine, 1 failed, 2 usage, 3 a limit that was asked for is exceeded."""
    try:
        check_packages()
        cli(standalone_mode=False)
    except click.exceptions.Exit as e:
        sys.exit(e.exit_code)
    except click.ClickException as e:
        e.show()
        sys.exit(e.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except _TOLD as e:
        click.echo(f"mdr: {e}", err=True)
        sys.exit(1)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    sys.exit(0)


def check_packages() -> None:
    """Refuses to run on somebody else's files: a distribution of the same top-level names overwrites ours silently."""
    owners = importlib.metadata.packages_distributions()
    for name in _OURS:
        others = set(owners.get(name, [DISTRIBUTION])) - {DISTRIBUTION}
        if others:
            raise PackageClash(f"the package {name!r} also belongs to {', '.join(others)}: install mdr by itself")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name=DISTRIBUTION, prog_name="mdr")
def cli() -> None:
    """Message detail records: joins message events from Kafka, keeps the records in ClickHouse."""


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def _json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON (lines for lists).")(command)


def _print_json(value: object) -> None:
    click.echo(orjson.dumps(value, default=str).decode())


def _print_table(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
    _console().print(table)


def _console() -> Console:
    # Into a pipe nothing is cut to a width.
    return Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else 4_000)


def _bar(description: str) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=err,
        transient=True,
    )


# ---- what runs -------------------------------------------------------------------------------------------------


@cli.command()
def up() -> None:
    """Everything on this machine until Ctrl-C: broker (unless MDR_KAFKA is set), worker, API."""
    logs.set_up()
    wanted = settings.load()
    wanted.data_dir.mkdir(parents=True, exist_ok=True)
    ready = running.with_own_broker(wanted, err.print)
    _run(_up(ready))


async def _up(ready: Settings) -> None:
    async with running.working(ready) as worker, serving.serving(ready, worker) as url:
        err.print(f"Kafka at {ready.kafka}, group {ready.group}, settling window {ready.settling_window_ms / 1000:g} s")
        err.print(f"API at {url}, its documentation at {url}/docs; Ctrl-C stops everything")
        await running.until_stopped(worker)
        err.print("stopping")


@cli.command()
def worker() -> None:
    """The stream processor; more workers in the same group share the partitions."""
    logs.set_up()
    ready = running.with_running_broker(settings.load())
    _run(_worker(ready))


async def _worker(ready: Settings) -> None:
    async with running.working(ready) as running_worker:
        await running.until_stopped(running_worker)


@cli.command()
def api() -> None:
    """The HTTP side alone, against a ClickHouse server."""
    logs.set_up()
    wanted = settings.load()
    wanted.data_dir.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(_open_store(wanted)) as store:
        store.migrate(wanted.retention_days, wanted.body_retention_days)
    _run(_api(wanted))


async def _api(wanted: Settings) -> None:
    async with serving.serving(wanted, None) as url:
        err.print(f"API at {url}, its documentation at {url}/docs")
        await running.until_stopped(None)


@cli.command()
@_json_option
def migrate(as_json: bool) -> None:
    """Bring the ClickHouse tables to this version; idempotent."""
    wanted = settings.load()
    with contextlib.closing(_open_store(wanted)) as store:
        applied = store.migrate(wanted.retention_days, wanted.body_retention_days)
    if as_json:
        _print_json({"applied": applied})
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
@_json_option
def broker_start(port: int | None, as_json: bool) -> None:
    """Start it, or find the one that runs."""
    wanted = settings.load()
    wanted.data_dir.mkdir(parents=True, exist_ok=True)
    found = broker.start(wanted.data_dir, cache_dir=wanted.cache_dir, port=port, say=err.print)
    _tell_broker(found, as_json, "started" if found.started else "already running")


@broker_group.command("stop")
@_json_option
def broker_stop(as_json: bool) -> None:
    """Stop it cleanly."""
    wanted = settings.load()
    stopped = broker.stop(wanted.data_dir)
    if as_json:
        _print_json({"stopped": stopped})
    else:
        click.echo("stopped" if stopped else "none was running")


@broker_group.command("status")
@_json_option
def broker_status(as_json: bool) -> None:
    """Say whether it runs, and where; exit 1 if not."""
    found = broker.status(settings.load().data_dir)
    if found is None:
        if as_json:
            _print_json({"running": False})
        else:
            click.echo("not running")
        raise click.exceptions.Exit(1)
    _tell_broker(found, as_json, "running")


def _tell_broker(found: broker.Broker, as_json: bool, word: str) -> None:
    if as_json:
        _print_json({"running": True, "bootstrap": found.bootstrap, "pid": found.pid, "started": found.started})
    else:
        click.echo(f"{word}: {found.bootstrap} (pid {found.pid})")


# ---- topics and events -----------------------------------------------------------------------------------------


@cli.group()
def topics() -> None:
    """The Kafka topics."""


@topics.command("create")
@_json_option
def topics_create(as_json: bool) -> None:
    """Declare what is missing of them."""
    ready = running.with_running_broker(settings.load())
    created = _run(kafka.create_topics(ready))
    if as_json:
        _print_json({"created": created})
    else:
        click.echo(f"created {', '.join(created)}" if created else "all are there")


@topics.command("check")
@_json_option
def topics_check(as_json: bool) -> None:
    """Say what is wrong with them; exit 1 if anything is."""
    ready = running.with_running_broker(settings.load())
    try:
        partitions = _run(kafka.check_topics(ready))
        wrong = _run(kafka.misplaced(ready))
    except kafka.TopicsWrong as e:
        partitions, wrong = 0, [str(e)]
    if as_json:
        _print_json({"partitions": partitions, "wrong": wrong})
    else:
        click.echo("\n".join(wrong) if wrong else f"fine: {partitions} partitions each")
    if wrong:
        raise click.exceptions.Exit(1)


@cli.command("produce")
@click.argument("topic", type=click.Choice(TOPICS))
@click.argument("file", type=click.File("rb"), default="-")
@_json_option
def produce_command(topic: str, file: Any, as_json: bool) -> None:
    """Send JSON lines to sends, receives or receipts.

    Each line is checked first as the worker will check it. What is wrong is told with its line and sent all the
    same, so that it stands in the dead letters; the exit code is then 1.
    """
    ready = running.with_running_broker(settings.load())
    lines = list(produce.read_lines(topic, file, clock_ms()))
    bad = [line for line in lines if line.rejected is not None]
    for line in bad:
        assert line.rejected is not None
        err.print(f"line {line.number}: {line.rejected.reason} {line.rejected.detail}", markup=False, highlight=False)
    _run(_produce(ready, topic, lines))
    if as_json:
        _print_json({"produced": len(lines), "invalid": len(bad)})
    else:
        click.echo(
            f"produced {len(lines)} to {ready.topic_prefix}{topic}" + (f", {len(bad)} of them invalid" if bad else "")
        )
    if bad:
        raise click.exceptions.Exit(1)


async def _produce(ready: Settings, topic: str, lines: list[produce.Line]) -> None:
    await kafka.create_topics(ready)
    async with kafka.producing(ready) as client:
        outlet = produce.Outlet(client, ready)
        with _bar("producing") as bar:
            task = bar.add_task("producing", total=len(lines))
            for line in lines:
                await outlet.send(topic, line.key, line.value)
                bar.advance(task)
        await outlet.flush()


@cli.command("simulate")
@click.option(
    "--messages", type=click.IntRange(1), default=1_000, show_default=True, help="How many sends and receives."
)
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed gives the same traffic.")
@click.option("--account", help="Put all traffic on one account.")
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), help="Events a second; as fast as can be when not given."
)
@click.option(
    "--write", "directory", type=click.Path(file_okay=False, path_type=Path), help="Into files instead of topics."
)
@_json_option
def simulate_command(
    messages: int, seed: int, account: str | None, rate: float | None, directory: Path | None, as_json: bool
) -> None:
    """Seeded traffic with realistic delays, losses and duplicates: onto the topics, or with --write the events and the
    expected records into files."""
    wanted = settings.load()
    plan = _plan(wanted, messages, seed, account)
    if directory is not None:
        told = _write_simulated(plan, directory)
    else:
        sent = _run(_simulate(running.with_running_broker(wanted), plan, rate))
        told = {"events": sent, "messages": messages}
    if as_json:
        _print_json(told)
    else:
        click.echo(", ".join(f"{value} {name}" for name, value in told.items()))


def _plan(wanted: Settings, messages: int, seed: int, account: str | None) -> simulate.Plan:
    # The traffic lies in the past, so that its last receipts are there at once.
    plan = simulate.Plan(messages, settling_ms=wanted.settling_window_ms)
    span_ms = int(messages / _SIMULATED_PER_S * 1000) + plan.tail_ms
    return simulate.Plan(
        messages, seed, clock_ms() - span_ms, _SIMULATED_PER_S, account=account, settling_ms=wanted.settling_window_ms
    )


_SIMULATED_PER_S: Final = 100.0


async def _simulate(ready: Settings, plan: simulate.Plan, rate: float | None) -> int:
    await kafka.create_topics(ready)
    async with kafka.producing(ready) as client:
        outlet = produce.Outlet(client, ready)
        with _bar("simulating") as bar:
            task = bar.add_task("simulating", total=None)
            await produce.send_simulated(outlet, simulate.events(plan), rate, lambda n: bar.update(task, completed=n))
    return outlet.sent


def _write_simulated(plan: simulate.Plan, directory: Path) -> dict[str, int]:
    directory.mkdir(parents=True, exist_ok=True)
    made = list(simulate.events(plan))
    truth = simulate.expected(made)
    with (directory / "events.jsonl").open("wb") as out:
        for e in made:
            out.write(orjson.dumps(_event_line(e)) + b"\n")
    for topic in TOPICS:
        with (directory / f"{topic}.jsonl").open("wb") as out:
            out.writelines(e.value + b"\n" for e in made if e.topic == topic and not e.broken)
    with (directory / "records.jsonl").open("wb") as out:
        out.writelines(line + b"\n" for line in simulate.records_jsonl(truth))
    return {"events": len(made), "records": len(truth.records), "dead_letters": len(truth.dead_letters)}


def _event_line(e: simulate.Event) -> dict[str, Any]:
    """An event with its bytes: as text where they are UTF-8, else in base 16."""
    line: dict[str, Any] = {"topic": e.topic, "timestamp": e.at_ms, "expect": e.broken or "record"}
    for name, content in (("key", e.key), ("value", e.value)):
        try:
            line[name] = None if content is None else content.decode()
        except UnicodeDecodeError:
            line[f"{name}_hex"] = content.hex()
    return line


# ---- what is known ---------------------------------------------------------------------------------------------


@cli.command("settings")
@_json_option
def settings_command(as_json: bool) -> None:
    """Every setting, its value, where it came from, what it means."""
    shown = settings.show()
    settings.load()
    if as_json:
        for line in shown:
            _print_json(line._asdict())
    else:
        _print_table(("setting", "value", "from", "meaning"), shown)


def _filter_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """An option for each column that records can be filtered by, named as in the HTTP API."""
    command = click.option("--attribute", "attributes", multiple=True, metavar="KEY=VALUE", help="An attribute.")(
        command
    )
    command = click.option("--tags", multiple=True, help="Any of these tags.")(command)
    for name in reversed(SCALARS):
        flags = {f"--{name.replace('_', '-')}", f"--{name}"}
        command = click.option(*sorted(flags), name, multiple=True, hidden=name not in _SHOWN_FILTERS)(command)
    return command


_SHOWN_FILTERS: Final = frozenset({
    "message_id", "account_id", "direction", "record_type", "state", "from_number", "to_number", "provider", "country",
    "error_code",
})  # fmt: skip
_SHOWN_COLUMNS: Final = (
    "occurred_at", "message_id", "account_id", "direction", "record_type", "state", "from_number", "to_number",
    "segments", "amount_nanos", "error_code",
)  # fmt: skip


@cli.command("query")
@click.option("--start", help="From this instant of occurred_at on (RFC 3339); 24 hours before the end by default.")
@click.option("--end", help="Before this instant; now by default.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="At most so many records.")
@click.option("--include-pending", is_flag=True, help="Also what is still open.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@_json_option
@_filter_options
def query_command(
    start: str | None, end: str | None, limit: int, include_pending: bool, as_csv: bool, as_json: bool,
    tags: tuple[str, ...], attributes: tuple[str, ...], **filters: tuple[str, ...],
) -> None:  # fmt: skip
    """Records in a range of time, oldest first. Any column can be a filter: --state failed, --mcc 310."""
    pairs = [(name, value) for name, values in (*filters.items(), ("tags", tags)) for value in values]
    for given in attributes:
        key, equals, value = given.partition("=")
        if not equals:
            raise click.BadParameter(f"{given!r} is not KEY=VALUE", param_hint="--attribute")
        pairs.append((f"attributes.{key}", value))
    pairs += [(name, value) for name, value in (("start", start), ("end", end)) if value is not None]
    if include_pending:
        pairs.append(("include", "pending"))
    page = asking.records(settings.load(), pairs, limit)
    _show_records(page.records, as_csv, as_json)
    if not as_json and not as_csv:
        more = " (more: raise --limit)" if page.more else ""
        err.print(f"{len(page.records)} records{more}, settled through {page.settled_through}", highlight=False)


def _show_records(records: list[dict[str, Any]], as_csv: bool, as_json: bool) -> None:
    if as_json:
        for record in records:
            _print_json(record)
    elif as_csv:
        writer = csv.writer(sys.stdout)
        names = list(records[0]) if records else [c.name for c in PUBLIC]
        writer.writerow(names)
        writer.writerows([_cell(record[name]) for name in names] for record in records)
    else:
        _print_table(_SHOWN_COLUMNS, ([record[name] for name in _SHOWN_COLUMNS] for record in records))


def _cell(value: Any) -> Any:
    return orjson.dumps(value).decode() if isinstance(value, list | dict) else value


@cli.command("demo")
@click.option("--messages", type=click.IntRange(1), default=demo.MESSAGES, show_default=True)
@click.option("--seed", type=int, default=7, show_default=True)
def demo_command(messages: int, seed: int) -> None:
    """The whole way on this machine, ending by itself: traffic, records, comparison with the truth."""
    logs.set_up()
    _run(demo.run(settings.load(), messages, seed))
