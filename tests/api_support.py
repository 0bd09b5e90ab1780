"""A store filled by the real core, and the HTTP side upon it: what the tests of `api` stand on."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

from litestar.testing import TestClient

from api.app import AppConfig, create_app
from api.auth import Issued
from streams import folding
from streams.barrier import _checkpoint
from streams.effects import Rows
from streams.flow import Flow
from streams.fold import columns_of, inbound_row, outbound_row
from streams.simulate import Event, Plan, Truth, events, expected
from streams.store import Store, connect

START_MS: Final = 1_767_600_000_000  # 2026-01-05T08:00:00Z
OPERATOR: Final = ("operator", "operator-secret")
WINDOW_MS: Final = 4 * 3_600_000


class LogEntry(NamedTuple):
    """An entry of a log, as the consumer would hand it over."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self, now_ms: int) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms


def write(store: Store, flow: Flow, now_ms: int, offsets: dict[str, int]) -> None:
    """Writes what a flow has finished and what is open in it, as a worker does at a checkpoint."""
    for p in flow.partitions.values():
        at = {(topic, p.shard): offset for topic, offset in offsets.items()}
        p.dead = []
        snapshot, rows = p.snapshot(now_ms), p.take(now_ms)
        done = [outbound_row(life, life.send, p.shard) for life in rows.settled if life.send is not None]
        done += [inbound_row(receive, now_ms, p.shard) for receive in rows.inbound]
        assert not done or not store.write_records(columns_of(done))
        store.write_orphans(p.shard, rows.orphans)
        store.drop_orphans(p.shard, [(r, now_ms) for r in snapshot.adopted])
        store.write_open(snapshot.rows, folding.records([Rows(p.shard, snapshot.opened, [], [])], now_ms))
        store.write_checkpoints([_checkpoint(p.shard, 1, snapshot, at, now_ms)])
        p.saved(snapshot)
        p.written(now_ms)


def feed(store: Store, flow: Flow, log: list[Event], size: int = 2000) -> dict[str, int]:
    """Lets a flow read events in the order they were produced, and writes what comes of them; the offsets after."""
    offsets = dict.fromkeys(("sends", "receives", "receipts"), 0)
    (shard,) = flow.partitions
    for at in range(0, len(log), size):
        for event in log[at : at + size]:
            entry = LogEntry(offsets[event.topic], event.at_ms, event.key, event.value)
            offsets[event.topic] += 1
            held = flow.batch(event.topic, shard, [entry], event.at_ms)
            if held:
                write(store, flow, event.at_ms, {})
                found = store.lookup([h.event.message_id for h in held], flow.brief(shard, held))
                flow.resume(event.topic, shard, [entry], held, found, event.at_ms)
        settle(store, flow, log[min(at + size, len(log)) - 1].at_ms)
        write(store, flow, log[min(at + size, len(log)) - 1].at_ms, offsets)
    return offsets


def settle(store: Store, flow: Flow, now_ms: int) -> None:
    """Lets time pass in a flow that has read its topics to the end."""
    for partition in flow.partitions.values():
        for topic in ("sends", "receives", "receipts"):
            partition.caught_up(topic, now_ms)
    for shard, ids in flow.tick(now_ms).items():
        flow.partitions[shard].resolve_receipts(ids, store.lookup(ids), now_ms)


class Filled:
    """A store with records and open messages, and what they must be."""

    def __init__(self, store: Store, flow: Flow, truth: Truth, now_ms: int) -> None:
        self.store = store
        self.flow = flow
        self.truth = truth
        self.now_ms = now_ms


def fill(store: Store, plan: Plan, until_ms: int | None = None) -> Filled:
    """Simulated traffic up to an instant (by default until all is settled) in a store."""
    store.migrate(3650, 3650)
    log = [e for e in events(plan) if until_ms is None or e.at_ms <= until_ms]
    flow = Flow("mdr.", WINDOW_MS)
    flow.open_partition(0, log[0].at_ms)
    offsets = feed(store, flow, log)
    now_ms = until_ms or log[-1].at_ms + 2 * WINDOW_MS
    settle(store, flow, now_ms)
    write(store, flow, now_ms, offsets)
    return Filled(store, flow, expected(log), now_ms)


def config_of(url: str, data_dir: Path, clock: Clock, **options: Any) -> AppConfig:
    """An application's configuration upon a store."""
    given: dict[str, Any] = {
        "connect": lambda: connect(url), "data_dir": data_dir, "operator": OPERATOR,
        "http_url": "http://testserver.local", "clock_ms": clock, "requests_per_s": 1e6,
        "burst": 1_000_000,
    }  # fmt: skip
    return AppConfig(**given | options)


@contextmanager
def served(url: str, data_dir: Path, clock: Clock, **options: Any) -> Iterator[TestClient[Any]]:
    """The application upon a store, asked in-process."""
    made = create_app(config_of(url, data_dir, clock, **options))
    with TestClient(made, raise_server_exceptions=False, base_url="http://testserver.local") as client:
        yield client


def basic(key: str, secret: str) -> dict[str, str]:
    """The header of Basic authentication."""
    return {"Authorization": "Basic " + base64.b64encode(f"{key}:{secret}".encode()).decode()}


def bearer(issued: Issued) -> dict[str, str]:
    """The header of Bearer authentication."""
    return {"Authorization": f"Bearer {issued.bearer}"}


class Asker:
    """Asks paths of an application with one credential."""

    def __init__(self, client: TestClient[Any], headers: dict[str, str]) -> None:
        self.client = client
        self.headers = headers

    def get(self, path: str, *pairs: tuple[str, Any], status: int = 200, **params: Any) -> Any:
        """The JSON at a path; the status must be the one said."""
        text = urlencode([*pairs, *params.items()])
        response = self.client.get(f"{path}?{text}" if text else path, headers=self.headers)
        assert response.status_code == status, response.text
        return json.loads(response.content)

    def send(self, method: str, path: str, body: Any = None, status: int = 200) -> Any:
        """The JSON that answers a request with a JSON body."""
        response = self.client.request(method, path, headers=self.headers, json=body)
        assert response.status_code == status, response.text
        return json.loads(response.content)


def ids(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Direction and id of records."""
    return [(row["direction"], row["message_id"]) for row in rows]
