"""Two workers against one: whole processes in one group, against one store.

The store is the tests' ClickHouse server, chDB behind HTTP, so that two processes can share it. Events lie on the
topics before the workers start; measured is from when each has its partitions until everything is committed. The CPU
of workers, store and broker is told, so that it shows who holds up whom: on few cores they share them.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient

from benchmarks import dataset, tables
from streams import broker, kafka, running, settings
from streams.clock import clock_ms
from streams.settings import Settings
from tests.servers import serve

COUNTS: Final = (1, 2)
MESSAGES: Final = 150_000
PATIENCE_S: Final = 300.0


class Process:
    """A worker in a group."""

    def __init__(self, group: str, partitions: int, env: dict[str, str]) -> None:
        command = [sys.executable, "-m", "benchmarks.workers", "--worker", group, str(partitions)]
        self.process = subprocess.Popen(command, env=os.environ | env, stdout=subprocess.PIPE, text=True)

    def wait_until_it_took_its_partitions(self) -> None:
        """Returns once it has as many as it waits for."""
        assert self.process.stdout is not None
        if not self.process.stdout.readline():
            raise SystemExit("a worker ended before it had its partitions")


async def work(group: str, partitions: int) -> None:
    """The worker's own process: says when it has so many partitions, and works until it is told to stop."""
    async with running.working(settings.load(), group) as worker:
        while len(worker.flow.partitions) != partitions:  # noqa: ASYNC110  # nobody tells it
            await asyncio.sleep(0.05)
        print("took", flush=True)
        await running.until_stopped(worker)


def cpu_s(pid: int) -> float:
    """CPU seconds of a process and its children."""
    pids = [pid, *(int(c) for of in Path(f"/proc/{pid}/task").glob("*/children") for c in of.read_text().split())]
    fields = [Path(f"/proc/{p}/stat").read_text().rsplit(")", 1)[1].split() for p in pids]
    return sum(int(f[11]) + int(f[12]) for f in fields) / os.sysconf("SC_CLK_TCK")


async def committed(ready: Settings, group: str) -> int:
    """Entries that a group has committed."""
    admin = AIOKafkaAdminClient(**kafka.client_options(ready))
    await admin.start()
    try:
        found = await admin.list_consumer_group_offsets(group)
    finally:
        await admin.close()
    return sum(at.offset for at in found.values() if at.offset > 0)


async def until_committed(ready: Settings, group: str, events: int) -> None:
    """Returns once a group has committed everything."""
    patience_s = time.monotonic() + PATIENCE_S
    while (done := await committed(ready, group)) < events:
        if time.monotonic() > patience_s:
            raise SystemExit(f"{done} of {events} events were committed in {PATIENCE_S} s")
        await asyncio.sleep(0.1)


def measure(home: Path, bootstrap: str, count: int, turn: int, events: int) -> dict[str, Any]:
    """One count of workers, with a store and a group of their own."""
    folder = home / f"run-{count}-{turn}"
    folder.mkdir()
    with serve(folder) as store:
        env, group = {"MDR_KAFKA": bootstrap, "MDR_CLICKHOUSE_URL": store.url}, f"of-{count}-{turn}"
        env |= {"MDR_DATA_DIR": str(folder), "MDR_CHECKPOINT_INTERVAL": "1s"}
        ready = settings.load(os.environ | env, folder)
        workers = [Process(group, ready.partitions // count, env) for _ in range(count)]
        pids = {"workers": [w.process.pid for w in workers], "store": [store.process.pid]}
        try:
            for worker in workers:
                worker.wait_until_it_took_its_partitions()
            done, began = asyncio.run(committed(ready, group)), time.monotonic()
            if done > events / 2:
                raise SystemExit("too few events: most were done before every worker had its partitions")
            before = {name: sum(map(cpu_s, of)) for name, of in pids.items()}
            asyncio.run(until_committed(ready, group, events))
            took_s = time.monotonic() - began
            used = {name: sum(map(cpu_s, of)) - before[name] for name, of in pids.items()}
        finally:
            for worker in workers:
                worker.process.terminate()
            for worker in workers:
                worker.process.communicate()
    return {"events_per_s": (events - done) / took_s} | {f"{n}_cores": s / took_s for n, s in used.items()}


def compare(rounds: int) -> dict[str, Any]:
    """Both counts in turn; prints a table."""
    with tempfile.TemporaryDirectory(prefix="mdr-workers-") as folder:
        home = Path(folder)
        started = broker.start(home, cache_dir=Path.home() / ".cache" / "mdr", tied_to_parent=True)
        own = {"MDR_KAFKA": started.bootstrap, "MDR_DATA_DIR": folder, "HOME": os.environ["HOME"]}
        events = asyncio.run(dataset.load(settings.load(own, home), dataset.plan(MESSAGES, clock_ms())))
        runs = [{c: measure(home, started.bootstrap, c, turn, events) for c in COUNTS} for turn in range(rounds)]
        broker.stop(home)
    out: dict[str, Any] = {}
    for count in COUNTS:
        out[str(count)] = {name: tables.median([run[count][name] for run in runs]) for name in runs[0][count]}
        ratios = [run[count]["events_per_s"] / run[COUNTS[0]]["events_per_s"] for run in runs]
        out[str(count)] = {"to_first": tables.median(ratios), **out[str(count)]}
    header = ("workers", "to the first", "events/s", "cores of the workers", "cores of the store")
    tables.show(f"workers, medians of {rounds}", header, [(n, *map(float, o.values())) for n, o in out.items()])
    return out


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        asyncio.run(work(sys.argv[2], int(sys.argv[3])))
        sys.exit()
    print(json.dumps({"workers": compare(int(sys.argv[1]) if len(sys.argv) > 1 else 1)}))
