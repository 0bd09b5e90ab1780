"""The command `mdr`. The one place where reading (api) and writing (streams) meet."""

import importlib.metadata
import sys
from typing import Final, NoReturn

import click

from api.auth import AccessError
from api.client import ClientError
from api.http import Refusal
from api.query import QueryError
from streams import broker, demo, kafka, running, settings
from streams.agents import WorkerStuck
from streams.cli import ask, credentials, feed, lag, operate, run
from streams.cli.common import DISTRIBUTION, cli, leave
from streams.store import StoreError, Unavailable
from streams.transport import TransportMoved

__all__ = ["ask", "cli", "credentials", "feed", "lag", "main", "operate", "run"]

_OURS: Final = ("api", "schemas", "streams")


class PackageClash(Exception):
    """Another installed distribution owns one of our package names; one sentence."""


_TOLD: Final = (
    settings.SettingsError, broker.BrokerError, kafka.KafkaUnavailable, kafka.TopicsWrong, running.NoBroker, StoreError,
    WorkerStuck, Unavailable, TransportMoved, demo.DemoFailed, PackageClash, ClientError, QueryError, Refusal,
    AccessError,
)  # fmt: skip


def main() -> NoReturn:
    """Runs the command line: exit 0 fine, 1 failed, 2 usage, 3 a limit that was asked for is exceeded."""
    leave(_main())


def _main() -> int:
    try:
        check_packages()
        code = cli(standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.ClickException as e:
        e.show()
        return e.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    except _TOLD as e:
        click.echo(f"mdr: {e}", err=True)
        return 1
    except BrokenPipeError:
        sys.stderr.close()
        return 1


def check_packages() -> None:
    """Refuses to run on somebody else's files: a distribution of the same top-level names overwrites ours silently."""
    owners = importlib.metadata.packages_distributions()
    for name in _OURS:
        others = set(owners.get(name, [DISTRIBUTION])) - {DISTRIBUTION}
        if others:
            raise PackageClash(f"the package {name!r} also belongs to {', '.join(others)}: install mdr by itself")
