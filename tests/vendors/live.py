"""A real `mdr up` in a process of its own, simulated traffic on its topics, and what its records must be."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from api.client import ClientError, HttpClient
from schemas.times import format_rfc3339
from streams import broker, kafka, settings
from streams.produce import Outlet, send_simulated
from streams.simulate import Event, Plan, events, expected, records_jsonl

ROOT: Final = Path(__file__).parents[2]
MDR: Final = [sys.executable, "-c", "from streams.cli import main; main()"]
ACCOUNT: Final = "parcelbird"
KEY: Final = "MAXXXXXXXXXXXXXXXXXX"
_SETTLING_MS: Final = 5_000
_HOUR_MS: Final = 3_600_000
_TWINS: Final = 45
_OPEN: Final = 12
_NEW_MAX: Final = 40

Record = dict[str, Any]


class Live:
    """Where `mdr up` answers, with which credential, and the records that were there before the first client came."""

    def __init__(self, home: Path) -> None:
        self._home = home
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self.now_ms = int(time.time() * 1000)
        self.rows: list[Record] = []
        self.issued: dict[str, str] = {}
        self.fed: set[str] = set()
        self._model: Event | None = None

    def environ(self, window: str) -> dict[str, str]:
        """The environment of a command."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("MDR_")}
        ours = {"MDR_DATA_DIR": str(self._home), "MDR_HTTP": f"127.0.0.1:{self._port}", "PYTHONPATH": str(ROOT)}
        return inherited | ours | {"MDR_SETTLING_WINDOW": window, "MDR_CHECKPOINT_INTERVAL": "1s"}

    @contextmanager
    def up(self, window: str) -> Iterator[None]:
        """`mdr up`, ended as Ctrl-C ends it."""
        process = subprocess.Popen([*MDR, "up"], env=self.environ(window), stderr=subprocess.DEVNULL)
        try:
            end = time.monotonic() + 180
            while not _answers(self.url):
                assert process.poll() is None and time.monotonic() < end, "mdr up did not start"
                time.sleep(0.2)
            yield
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(120) in (0, 130)

    def mdr(self, *arguments: str) -> dict[str, str]:
        """What a command says with `--json`."""
        done = subprocess.run(
            [*MDR, *arguments, "--json"], env=self.environ("4h"), capture_output=True, text=True, timeout=120, check=True
        )
        told: dict[str, str] = json.loads(done.stdout)
        return told

    def produce(self, log: list[Event]) -> None:
        """Events onto the topics, stamped as their producers would have stamped them."""
        asyncio.run(self._produce(log, None))

    @contextmanager
    def arriving(self) -> Iterator[None]:
        """Five new messages a second while the block runs, forty at most."""
        stop = threading.Event()
        thread = threading.Thread(target=lambda: asyncio.run(self._produce([], stop)))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    async def _produce(self, log: list[Event], stop: threading.Event | None) -> None:
        found = broker.status(self._home)
        assert found is not None
        where = msgspec.structs.replace(settings.load(), kafka=found.bootstrap)
        async with kafka.producing(where) as client:
            outlet = Outlet(client, where)
            await send_simulated(outlet, log, None, lambda _: None)
            for _ in range(_NEW_MAX if stop is not None else 0):
                assert self._model is not None and stop is not None
                if stop.is_set():
                    break
                now_ms = int(time.time() * 1000)
                event = twin(self._model, f"new-{now_ms}", now_ms, now_ms)
                self.fed.add(event.key.decode())
                await outlet.send(event.topic, event.key, event.value, event.at_ms)
                await asyncio.sleep(0.2)
            await outlet.flush()

    def fill(self) -> None:
        """Traffic whose window passes: every record equals the simulator's truth."""
        start_ms = self.now_ms - 4 * _HOUR_MS
        plan = Plan(
            150, 4, start_ms, 0.02, ACCOUNT, _SETTLING_MS, missing_share=0.06, late_share=0.04, early_share=0.04,
            duplicate_share=0.04, conflict_share=0.02, broken_share=0.02,
        )  # fmt: skip
        log = [e for e in events(plan) if e.at_ms < self.now_ms]
        self._model = next(e for e in log if e.topic == "receives" and not e.broken)
        at_ms = self._model.at_ms
        twins = [twin(self._model, f"twin-{n}", 0, at_ms) for n in range(_TWINS)]
        log = sorted([*log, *twins], key=lambda e: e.at_ms)
        self.rows = _truth(log)
        self.produce(log)

    def leave_open(self) -> None:
        """Messages that are still settling."""
        plan = Plan(200, 5, self.now_ms - _HOUR_MS, 1.0, ACCOUNT, broken_share=0, conflict_share=0, orphan_share=0)
        sends = [e for e in events(plan) if e.topic == "sends"][:_OPEN]
        at_ms = [int(time.time() * 1000) - 60_000 + n * 1000 for n in range(_OPEN)]
        log = [twin(e, f"open-{n}", ms, ms) for n, (e, ms) in enumerate(zip(sends, at_ms, strict=True))]
        self.rows += [row | {"record_type": "pending"} for row in _truth(log)]
        self.produce(log)

    def wait(self) -> None:
        """Returns when the records are what they must be; says what differs when that takes too long."""
        client = HttpClient(self.url, self.issued["key"], self.issued["secret"])
        ask = {"start": format_rfc3339(self.now_ms - 24 * _HOUR_MS), "limit": 1000, "include": "pending"}
        end = time.monotonic() + 180
        while True:
            wrong = _differences(client.get("/mdr/records", ask)["records"], self.rows)
            if not wrong:
                return
            assert time.monotonic() < end, f"{len(wrong)} differences from the truth: {wrong[:5]}"
            time.sleep(0.5)

    def ask(self) -> dict[str, Any]:
        """What a client is told."""
        start_ms, end_ms = self.now_ms - 12 * _HOUR_MS, int(time.time() * 1000)
        return {
            "url": self.url, **self.issued, "start": format_rfc3339(start_ms), "end": format_rfc3339(end_ms),
            "start_plain": format_rfc3339(start_ms)[:19].replace("T", " "),
        }  # fmt: skip


@contextmanager
def live(home: Path) -> Iterator[Live]:
    """`mdr up` with settled records, equal timestamps among them, and open messages."""
    it = Live(home)
    with it.up("5s"):
        it.issued = it.mdr("credentials", "add", ACCOUNT, "--key", KEY)
        it.fill()
        it.wait()
    # What comes now stays open for as long as the clients ask.
    with it.up("4h"):
        it.leave_open()
        it.wait()
        yield it


def twin(event: Event, name: str, occurred_ms: int, at_ms: int) -> Event:
    """The same event of another message; at the same instant when `occurred_ms` is 0."""
    fields = json.loads(event.value)
    fields["message_id"] = fields["event_id"] = str(uuid.uuid5(uuid.NAMESPACE_OID, name))
    if occurred_ms:
        fields["occurred_at"] = format_rfc3339(occurred_ms)
    return event._replace(key=fields["message_id"].encode(), value=json.dumps(fields).encode(), at_ms=at_ms)


def _truth(log: list[Event]) -> list[Record]:
    rows: list[Record] = [json.loads(line) for line in records_jsonl(expected(log))]
    return sorted(rows, key=lambda r: (r["occurred_at"], r["message_id"], r["direction"]))


def _differences(found: list[Record], wanted: list[Record]) -> list[str]:
    held = {(r["direction"], r["message_id"]): r for r in found}
    wrong = [] if len(held) == len(found) else ["a record is there twice"]
    for row in wanted:
        seen = held.get((row["direction"], row["message_id"]), {})
        timeline = [{n: v for n, v in entry.items() if n != "source"} for entry in seen.get("timeline", ())]
        shown = seen | {"timeline": timeline}
        wrong += [f"{row['message_id']}: {n} is {shown.get(n)!r}, not {v!r}" for n, v in row.items() if shown.get(n) != v]
    return wrong


def _answers(url: str) -> bool:
    try:
        return HttpClient(url, "", "").get("/readyz")["ready"] is True
    except ClientError:
        return False
