"""The command `mdr`. The one place where reading (api) and writing (streams) meet."""

import importlib.metadata
import sys
import traceback
from typing import Final, NoReturn

import click

from streams.cli.common import DISTRIBUTION, cli, leave
from streams.terminal import clean, complain

__all__ = ["cli", "main"]

_OURS: Final = ("api", "schemas", "streams")


class PackageClash(Exception):
    """Another installed distribution owns one of our package names; one sentence."""


# What is told in one sentence. By name: most commands never import where most of these are written.
TOLD: Final = frozenset({
    "api.auth.AccessError", "api.client.ClientError", "api.http.Refusal", "api.query.QueryError", "api.seals.SealError",
    "streams.agents.WorkerStuck", "streams.broker_jars.BrokerError", "streams.cli.PackageClash",
    "streams.cli.operator_file.OperatorFileUnsafe",
    "streams.demo.DemoFailed", "streams.kafka.KafkaUnavailable", "streams.kafka.TopicsWrong",
    "streams.running.NoBroker", "streams.settings.SettingsError", "streams.store.StoreError",
    "streams.store.Unavailable", "streams.transport.TransportMoved",
})  # fmt: skip


def main() -> NoReturn:
    """Runs the command line: exit 0 fine, 1 failed, 2 usage, 3 a limit that was asked for is exceeded."""
    leave(_main())


def _main() -> int:
    try:
        check_packages()
        code = cli(standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.ClickException as e:
        e.message = clean(e.message)
        e.show()
        return e.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except Exception as e:
        # Raised further, it would leave the end of the process to threads that may never end.
        if not _is_told(e):
            complain("".join(traceback.format_exception(e)).rstrip())
        complain(f"mdr: {clean(e)}" if _is_told(e) else f"mdr: {type(e).__name__}: {clean(e)}")
        return 1


def _is_told(e: Exception) -> bool:
    return any(f"{kind.__module__}.{kind.__qualname__}" in TOLD for kind in type(e).__mro__)


def check_packages() -> None:
    """Refuses to run on somebody else's files: a distribution of the same top-level names overwrites ours silently."""
    owners = importlib.metadata.packages_distributions()
    for name in _OURS:
        others = set(owners.get(name, [DISTRIBUTION])) - {DISTRIBUTION}
        if others:
            raise PackageClash(f"the package {name!r} also belongs to {', '.join(others)}: install mdr by itself")
