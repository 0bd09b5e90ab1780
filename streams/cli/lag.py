"""`mdr lag`: how far the agents are behind, asked of the `mdr up` that runs, or of the broker and the store."""

import asyncio
from contextlib import nullcontext
from typing import Any

import click
import msgspec
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table

from api.client import ClientError, Impostor
from streams import lag, running, settings
from streams.cli import asking
from streams.cli.common import cli, json_option, run
from streams.clock import clock_ms
from streams.lag_rules import span
from streams.settings import Settings
from streams.store import Store, Unavailable
from streams.terminal import console, print_json, styled

_WATCH_S = 2.0
_SECOND_LOOK_S_MAX = 10.0
_STORED_FOR_MS = 10_000
_COLOURS = {"ok": "green", "catching_up": "yellow", "falling_behind": "red", "stalled": "red", "stopped": "red"}
# Before it lies only what stands for "no worker has told yet".
_NEVER = "1970-01-02"
Told = dict[str, Any]


@cli.command("lag")
@click.option("--max-seconds", type=click.FloatRange(min=0), help="Exit 3 when any agent is further behind.")
@click.option("--watch", is_flag=True, help="Look again and again until Ctrl-C.")
@json_option
def lag_command(max_seconds: float | None, watch: bool, as_json: bool) -> None:
    """Lag per agent and partition, in events and seconds; watermarks, and what still settles."""
    if run(_show(settings.load(), max_seconds, watch, as_json)):
        raise click.exceptions.Exit(3)


async def _show(wanted: Settings, seconds_max: float | None, watch: bool, as_json: bool) -> bool:
    """Shows it once, or until the limit is exceeded; returns whether it is."""
    asker = _Asker(wanted)
    try:
        if not watch:
            told = await asker.ask(twice=True)
            print_json(told) if as_json else console().print(_shown(told))
            return seconds_max is not None and lag.exceeds(told["agents"], seconds_max)
        with nullcontext() if as_json else Live(console=console(), auto_refresh=False) as live:
            while True:
                told = await asker.ask(twice=False)
                live.update(_shown(told), refresh=True) if live is not None else print_json(told)
                if seconds_max is not None and lag.exceeds(told["agents"], seconds_max):
                    return True
                await asyncio.sleep(_WATCH_S)
    finally:
        await asker.close()


class _Asker:
    """Asks the `mdr up` of the data directory when one answers, else the broker and the store."""

    def __init__(self, wanted: Settings) -> None:
        self._settings = wanted
        self._reader: lag.LagReader | None = None
        self._known = (0, lag.Known())

    async def ask(self, *, twice: bool) -> Told:
        """The lag; `twice` looks a second time when something is behind, so that there is a trend to tell."""
        client = await asyncio.to_thread(asking.answering, self._settings)
        if client is not None:
            try:
                return await asyncio.to_thread(client.get, "/mdr/lag")
            except ClientError as e:
                if e.status or isinstance(e, Impostor):
                    raise
        if self._reader is None:
            self._reader = lag.LagReader(running.with_running_broker(self._settings))
        report = await self._reader.read(await self._stored(), clock_ms())
        look_s = self._settings.checkpoint_interval_ms / 1000 + 0.5
        if twice and look_s <= _SECOND_LOOK_S_MAX and any(a.status == "catching_up" for a in report.agents):
            await asyncio.sleep(look_s)
            report = await self._reader.read(await self._stored(), clock_ms())
        told: Told = msgspec.to_builtins(report)
        return told

    async def _stored(self) -> lag.Known:
        # To open an embedded store takes a second, and to count all that is open some more.
        if clock_ms() - self._known[0] > _STORED_FOR_MS:
            self._known = clock_ms(), await asyncio.to_thread(self._read_store)
        return self._known[1]

    def _read_store(self) -> lag.Known:
        """What the store says, or why it says nothing: the lag itself is the broker's to tell."""
        try:
            store = Store(self._settings.clickhouse_url)
        except Unavailable as e:
            return lag.Known(trouble=(str(e),))
        try:
            store.migrate(*self._settings.kept_days)
            return lag.stored(store, clock_ms())
        except Unavailable as e:
            return lag.Known(trouble=(f"the store cannot be read: {e}",))
        finally:
            store.close()

    async def close(self) -> None:
        """Lets go of the broker."""
        if self._reader is not None:
            await self._reader.close()


# ---- for people ----------------------------------------------------------------------------------------------


def _shown(told: Told) -> Group:
    status = told["status"].replace("_", " ")
    head = styled(f"{status}: {told['why']}", "")
    head.stylize(f"bold {_COLOURS[told['status']]}", 0, len(status))
    settled = "not known" if told["settled_through"] < _NEVER else told["settled_through"]
    through = styled(f"settled through: {settled}; as of {told['at']}", "dim")
    parts: list[RenderableType] = [head, *(styled(sentence, "red") for sentence in told["trouble"])]
    for rows, table in ((told["agents"], _agents), (told["settling"], _settling)):
        if rows:
            parts += ["", table(rows)]
    return Group(*parts, "", through)


def _agents(agents: list[Told]) -> Table:
    numbers = ("committed", "end", "events behind", "time behind", "trend/s")
    columns = ("agent", "partition", *numbers, "watermark", "owner", "status")
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for a in agents:
        seconds, trend = a["lag_seconds"], a["trend_events_per_second"]
        row = [
            a["agent"], a["partition"], a["committed"], a["end"], f"{a['lag_events']:,}",
            "unknown" if seconds is None else span(seconds) if seconds else "", None if not trend else f"{trend:+,.0f}",
            a["watermark"], a["owner"] or "nobody",
        ]  # fmt: skip
        word = styled(a["status"].replace("_", " "), _COLOURS[a["status"]])
        table.add_row(*("" if cell is None else str(cell) for cell in row), word)
    return table


def _settling(partitions: list[Told]) -> Table:
    due = list(partitions[0]["due"])
    columns = ("settling: partition", "open", *(f"due in {name}" if name != "later" else name for name in due))
    table = Table(*columns, "oldest", "written", "saved", box=None, pad_edge=False, header_style="bold")
    for s in partitions:
        ages = [s["flush_age_seconds"], s["checkpoint_age_seconds"]]
        counts = [f"{count:,}" for count in (s["open"], *(s["due"][name] for name in due))]
        told = ["" if age is None else f"{span(max(0.0, age))} ago" for age in ages]
        table.add_row(str(s["partition"]), *counts, s["oldest_open"] or "", *told)
    return table
