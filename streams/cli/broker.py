"""`mdr broker`: a real Kafka on this machine."""

import click

from streams import broker, private, running, settings
from streams.cli.common import cli, json_option
from streams.terminal import err, print_json, say


@cli.group("broker")
def broker_group() -> None:
    """A real single-node Apache Kafka under the data directory."""


@broker_group.command("start")
@click.option(
    "--port", type=click.IntRange(1, 65535), help="Listen there; the default is a free port, kept from then on."
)
@click.option("--secure", is_flag=True, help="Make it with a password, against other users of this machine.")
@json_option
def broker_start(port: int | None, secure: bool, as_json: bool) -> None:
    """Start it, or find the one that runs."""
    wanted = settings.load()
    private.directory(wanted.data_dir)
    found = broker.start(wanted.data_dir, cache_dir=wanted.cache_dir, port=port, secure=secure, say=err.print)
    running.tell_open(found, err.print)
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
        say("stopped" if stopped else "none was running")


@broker_group.command("status")
@json_option
def broker_status(as_json: bool) -> None:
    """Say whether it runs, and where; exit 1 if not."""
    found = broker.status(settings.load().data_dir)
    if found is None:
        if as_json:
            print_json({"running": False})
        else:
            say("not running")
        raise click.exceptions.Exit(1)
    _tell_broker(found, as_json, "running")


def _tell_broker(found: broker.Broker, as_json: bool, word: str) -> None:
    if as_json:
        print_json({"running": True, "bootstrap": found.bootstrap, "pid": found.pid, "started": found.started,
                    "secure": found.login is not None})  # fmt: skip
    else:
        say(f"{word}: {found.bootstrap} (pid {found.pid})")
