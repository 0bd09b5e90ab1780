"""Commands that bring events onto the topics."""

from itertools import takewhile
from pathlib import Path
from typing import Any, Final

import click
import orjson

from schemas.events import TOPICS
from streams import kafka, produce, running, settings, simulate
from streams.cli.common import cli, json_option, progress_bar, run
from streams.clock import clock_ms
from streams.settings import Settings
from streams.terminal import err, print_json, say


@cli.group()
def topics() -> None:
    """The Kafka topics."""


@topics.command("create")
@json_option
def topics_create(as_json: bool) -> None:
    """Declare what is missing of them."""
    ready = running.with_running_broker(settings.load())
    created = run(kafka.create_topics(ready))
    if as_json:
        print_json({"created": created})
    else:
        say(f"created {', '.join(created)}" if created else "all are there")


@topics.command("check")
@json_option
def topics_check(as_json: bool) -> None:
    """Say what is wrong with them; exit 1 if anything is."""
    ready = running.with_running_broker(settings.load())
    try:
        partitions = run(kafka.check_topics(ready))
        wrong = run(kafka.misplaced(ready))
    except kafka.TopicsWrong as e:
        partitions, wrong = 0, [str(e)]
    if as_json:
        print_json({"partitions": partitions, "wrong": wrong})
    else:
        for line in wrong or [f"fine: {partitions} partitions each"]:
            say(line)
    if wrong:
        raise click.exceptions.Exit(1)


@cli.command("produce")
@click.argument("topic", type=click.Choice(TOPICS))
@click.argument("file", type=click.File("rb"), default="-")
@json_option
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
        err.print(f"line {line.number}: {line.rejected.reason} {line.rejected.detail}")
    run(_produce(ready, topic, lines))
    if as_json:
        print_json({"produced": len(lines), "invalid": len(bad)})
    else:
        say(
            f"produced {len(lines)} to {ready.topic_prefix}{topic}" + (f", {len(bad)} of them invalid" if bad else "")
        )
    if bad:
        raise click.exceptions.Exit(1)


async def _produce(ready: Settings, topic: str, lines: list[produce.Line]) -> None:
    await kafka.create_topics(ready)
    async with kafka.producing(ready) as client:
        outlet = produce.Outlet(client, ready)
        with progress_bar() as bar:
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
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    help="Live: about so many events a second, each at its time. Otherwise all at once, stamped in the past.",
)
@click.option(
    "--write", "directory", type=click.Path(file_okay=False, path_type=Path), help="Into files instead of topics."
)
@json_option
def simulate_command(
    messages: int, seed: int, account: str | None, rate: float | None, directory: Path | None, as_json: bool
) -> None:
    """Seeded traffic with realistic delays, losses and duplicates: onto the topics, or with --write the events and the
    expected records into files."""
    wanted = settings.load()
    if directory is not None:
        told = _write_simulated(_past(wanted, messages, seed, account), directory)
    else:
        plan = _past(wanted, messages, seed, account) if rate is None else _live(wanted, messages, seed, account, rate)
        sent = run(_simulate(running.with_running_broker(wanted), plan, is_live=rate is not None))
        told = {"events": sent, "messages": messages}
    if as_json:
        print_json(told)
    else:
        say(", ".join(f"{value} {name}" for name, value in told.items()))


def _past(wanted: Settings, messages: int, seed: int, account: str | None) -> simulate.Plan:
    """Traffic that lies in the past, so that its last receipts are there at once."""
    plan = simulate.Plan(messages, settling_ms=wanted.settling_window_ms)
    span_ms = int(messages / _SIMULATED_PER_S * 1000) + plan.tail_ms
    return simulate.Plan(
        messages, seed, clock_ms() - span_ms, _SIMULATED_PER_S, account=account, settling_ms=wanted.settling_window_ms
    )


def _live(wanted: Settings, messages: int, seed: int, account: str | None, rate: float) -> simulate.Plan:
    """Traffic that begins now."""
    per_s = rate / _EVENTS_A_MESSAGE
    return simulate.Plan(messages, seed, clock_ms(), per_s, account=account, settling_ms=wanted.settling_window_ms)


_SIMULATED_PER_S: Final = 100.0
_EVENTS_A_MESSAGE: Final = 2.64
# Live traffic ends so long after its last message; what a carrier would confirm later stays unconfirmed.
_LIVE_TAIL_MS: Final = 30_000


async def _simulate(ready: Settings, plan: simulate.Plan, *, is_live: bool) -> int:
    await kafka.create_topics(ready)
    events = simulate.events(plan)
    if is_live:
        end_ms = plan.start_ms + int(plan.messages / plan.rate_per_s * 1000) + _LIVE_TAIL_MS
        events = takewhile(lambda event: event.at_ms < end_ms, events)
    about = int(plan.messages * _EVENTS_A_MESSAGE)
    async with kafka.producing(ready) as client:
        outlet = produce.Outlet(client, ready)
        with progress_bar() as bar:
            task = bar.add_task("simulating", total=about)
            tell = lambda sent: bar.update(task, completed=sent, total=max(sent, about))  # noqa: E731
            await produce.send_simulated(outlet, events, clock_ms if is_live else None, tell)
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
