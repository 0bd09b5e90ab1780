"""How soon a worker is ready again with many open messages: `python -m benchmarks.recovery [N ...]`.

N messages, half of them `sent`, are saved as a worker saves them. Then `mdr worker` is started on that store, killed
with -9 and started again; measured is the time until it has taken its partitions: from its start, and from the kill.
Ends with a table
and one JSON line.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from benchmarks import tables
from streams import broker, kafka, settings, simulate
from streams.barrier import Barrier
from streams.effects import DeadLetter
from streams.flow import RECEIPTS, SENDS, Flow
from streams.store import Store, Unstorable

PARTITIONS: Final = 8
STEP: Final = 20_000
READY: Final = "took "
PATIENCE_S: Final = 300.0


class _Entry(NamedTuple):
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


class NoKafka:
    """Nothing was read from a log, so nothing is committed."""

    async def commit(self, offsets: Mapping[tuple[str, int], int], generation: int) -> bool:
        return True

    async def bury(self, letters: Sequence[DeadLetter]) -> None:
        raise AssertionError(letters[0].detail)

    async def bury_unstorable(self, bad: Sequence[Unstorable]) -> None:
        raise AssertionError(bad[0].detail)


async def fill(url: str, count: int) -> None:
    """Saves that many open messages through the flow and the barrier."""
    now_ms = time.time_ns() // 1_000_000
    flow = Flow("mdr.", 4 * 3_600_000)
    for shard in range(PARTITIONS):
        flow.open_partition(shard, now_ms)
    store = Store(url)
    store.migrate(90, 30)
    barrier = Barrier(flow, store, NoKafka(), lambda: now_ms, PARTITIONS, 1_000, 5_000)
    for step in _steps(count, now_ms):
        for shard in range(PARTITIONS):
            sends = [e for e in step if kafka.partition_of(e.key or b"", PARTITIONS) == shard]
            flow.batch(SENDS, shard, sends, now_ms)
            flow.batch(RECEIPTS, shard, [_sent(e) for e in sends[::2]], now_ms)
        await barrier.write(checkpoint=True)
    await barrier.write(checkpoint=True)
    barrier.close()
    store.close()


def _steps(count: int, now_ms: int) -> Iterator[list[_Entry]]:
    plan = simulate.Plan(3_000, 3, now_ms - 120_000, 100.0, inbound_share=0.0, broken_share=0.0)
    models = [orjson.loads(e.value) for e in simulate.events(plan) if e.topic == SENDS]
    for first in range(0, count, STEP):
        yield [_send(n, now_ms, models[n % len(models)]) for n in range(first, min(first + STEP, count))]


def _send(n: int, now_ms: int, model: dict[str, Any]) -> _Entry:
    mid = str(uuid.UUID(int=n * 0x9E3779B97F4A7C15F39CC0605CEDC835 % (1 << 128)))
    value = orjson.dumps(model | {"message_id": mid, "event_id": f"{n:024x}"})
    return _Entry(n, now_ms, mid.encode(), value)


def _sent(e: _Entry) -> _Entry:
    fields = orjson.loads(e.value or b"{}")
    receipt = {"event_id": fields["event_id"], "message_id": fields["message_id"], "state": "sent"}
    return e._replace(value=orjson.dumps(receipt | {"occurred_at": fields["occurred_at"], "provider": "harbour"}))


class _Worker:
    """`mdr worker`, its log read as it comes."""

    def __init__(self, env: dict[str, str]) -> None:
        command = [sys.executable, "-c", "from streams.cli import main; main()", "worker"]
        self._process = subprocess.Popen(command, env=os.environ | env, stderr=subprocess.PIPE, text=True)

    def ready(self) -> str:
        """Returns what it says once it has taken its partitions."""
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if READY in line:
                return line
        raise SystemExit("the worker ended before it was ready")

    def rss_mb(self) -> int:
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") >> 20

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self, number: int) -> None:
        self._process.send_signal(number)
        self._process.wait(PATIENCE_S)


def measure(home: Path, count: int) -> dict[str, Any]:
    """One size: seconds from the start, and from kill -9, until the worker is ready; its memory then."""
    data = home / f"open-{count}"
    env = {"MDR_DATA_DIR": str(data), "MDR_PARTITIONS": str(PARTITIONS), "MDR_TOPIC_PREFIX": f"open{count}."}
    env["MDR_KAFKA"] = broker.start(home, cache_dir=Path.home() / ".cache" / "mdr", tied_to_parent=True).bootstrap
    data.mkdir()
    # In a process of its own: only one can have the embedded store open.
    subprocess.run([sys.executable, "-m", "benchmarks.recovery", "--fill", str(data), str(count)], check=True)
    ready = settings.load(os.environ | env, data)
    asyncio.run(kafka.create_topics(ready))
    told: dict[str, Any] = {"open": count}
    began = time.monotonic()
    for what in ("start_s", "kill_s"):
        worker = _Worker(env)
        try:
            line = worker.ready()
            told[what] = round(time.monotonic() - began, 1)
            told["rss_mb"], told["cpu_s"] = worker.rss_mb(), round(worker.cpu_s(), 1)
            time.sleep(3)
        finally:
            began = time.monotonic()
            worker.end(signal.SIGKILL)
        assert f"with {count} open" in line, line
    return told


def main() -> None:
    """Prints a line a size."""
    if sys.argv[1:2] == ["--fill"]:
        asyncio.run(fill(f"chdb://{sys.argv[2]}/chdb", int(sys.argv[3])))
        return
    sizes = [int(n) for n in sys.argv[1:]] or [0, 100_000, 1_000_000]
    with tempfile.TemporaryDirectory(prefix="mdr-recovery-") as home:
        lines = []
        for count in sizes:
            lines.append(measure(Path(home), count))
            print(lines[-1], file=sys.stderr)
        broker.stop(Path(home))
    header = ("open", "from its start s", "from kill -9 s", "MB", "CPU s")
    rows = [[line[name] for name in ("open", "start_s", "kill_s", "rss_mb", "cpu_s")] for line in lines]
    tables.show("until a worker is ready", header, rows)
    print(json.dumps({"recovery": lines}))


if __name__ == "__main__":
    main()
