"""How fast records are read, through HTTP and beside plain SQL: pages, single records, deep pages and a report.

`python -m benchmarks.query [--records N] [--path DIR]` fills an embedded store (once, if DIR is kept) and ends with one
JSON line. Latencies are of one client on one connection. `worker` is what reports leave of the worker's throughput.
"""

# the statements are made of numbers of this file

import argparse
import base64
import http.client
import json
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

import uvicorn

from api.app import AppConfig, create_app
from schemas.events import TOPICS
from schemas.times import format_rfc3339
from streams import folding
from streams.flow import Flow
from streams.simulate import Event, Plan, events
from streams.store import Store, connect

ACCOUNTS: Final = 20
DAYS: Final = 30
_DAY_MS: Final = 86_400_000
_STEP: Final = 500_000
_OPERATOR: Final = ("operator", "secret")
_WORK_S: Final = 10
_TURNS: Final = 3
_BATCH: Final = 20_000


def fill(store: Store, records: int, start_ms: int) -> None:
    """Inserts records spread evenly over the days and accounts; one in four is inbound."""
    for at in range(0, records, _STEP):
        insert(store, range(at, min(at + _STEP, records)), start_ms, records)
        print(f"\r{at:,} of {records:,} records", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)


def insert(store: Store, numbers: range, start_ms: int, records: int, *, days: int = DAYS, settings: str = "") -> None:
    """Inserts those of so many records, as one part if they are not too many."""
    statement = _INSERT.format(
        start=start_ms, at=numbers.start, count=len(numbers), span=days * _DAY_MS, records=records, accounts=ACCOUNTS
    )
    store.client.command(statement + settings)


_INSERT: Final = """
INSERT INTO mdr.mdrs (
    message_id, account_id, profile_id, direction, record_type, state, message_type, from_number, to_number,
    number_type, body, encoding, segments, segments_delivered, mcc, mnc, country, provider, error_code, rate_nanos,
    carrier_fee_nanos, amount_nanos, currency, campaign_id, tags, attributes, occurred_at, sent_at, final_at,
    settled_at, timeline.event_id, timeline.state, timeline.occurred_at, timeline.segment, timeline.error_code,
    timeline.source, version, shard
)
SELECT
    lower(hex(MD5(toString(number)))), concat('account-', toString(number % {accounts})), 'profile-1', way,
    multiIf(result = 'undelivered', 'error', result = 'sent', 'incomplete', 'complete'), result, 'sms',
    concat('+1202555', leftPad(toString(number % 10000), 4, '0')), concat('+1917', toString(5000000 + number % 999983)),
    'long-code', concat('Your code is ', toString(100000 + number % 899981), '. Never share it with anybody.'), 'gsm7',
    1, result = 'delivered', '310', toString(200 + number % 60), 'US', concat('carrier-', toString(number % 7)), code,
    7500000, 3000000, 10500000, 'USD', 'C1', ['otp'], map('dlt_entity_id', toString(number % 9)), born,
    born + 0.3, if(result = 'sent', NULL, born + 2.5), now64(3), [lower(hex(number)), lower(hex(number + 1))],
    ['queued', result], [born, born + 2.5], [0, 0], ['', code],
    ['mdr.sends:0:1', 'mdr.receipts:0:2'], 1, number % 8
FROM (
    SELECT
        number, if(number % 4 = 0, 'inbound', 'outbound') AS way,
        multiIf(way = 'inbound', 'received', number % 14 = 1, 'undelivered', number % 50 = 3, 'sent', 'delivered')
            AS result,
        if(result = 'undelivered', '30003', '') AS code,
        fromUnixTimestamp64Milli(toInt64({start} + intDiv(number * {span}, {records})), 'UTC') AS born
    FROM numbers({at}, {count})
)"""


class Asker:
    """One connection, one credential."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._connection = http.client.HTTPConnection("127.0.0.1", port)
        self._headers = {"Authorization": "Basic " + base64.b64encode(":".join(_OPERATOR).encode()).decode()}

    def __call__(self, method: str, path: str, body: Any = None) -> tuple[float, dict[str, Any]]:
        """Milliseconds and the JSON."""
        began = time.perf_counter()
        self._connection.request(method, path, json.dumps(body) if body else None, self._headers)
        response = self._connection.getresponse()
        content = response.read()
        took_ms = (time.perf_counter() - began) * 1000
        assert response.status < 300, content
        return took_ms, json.loads(content)


def spread(times_ms: list[float]) -> dict[str, float]:
    """p50 and p99 in ms."""
    ordered = sorted(times_ms)
    return {"p50_ms": round(statistics.median(ordered), 1), "p99_ms": round(ordered[int(len(ordered) * 0.99)], 1)}


def measure(ask: Asker, store: Store, start_ms: int, rounds: int) -> dict[str, Any]:
    """Pages of an account and day, single records, deep pages; and plain SQL for the pages' rows."""
    rng = random.Random(1)
    pages, plain, ids = [], [], []
    for _ in range(rounds):
        day_ms = start_ms + rng.randrange(DAYS) * _DAY_MS
        account = f"account-{rng.randrange(ACCOUNTS)}"
        took_ms, told = ask(
            "GET",
            "/mdr/records?"
            + urlencode(
                {
                    "account_id": account,
                    "start": format_rfc3339(day_ms),
                    "end": format_rfc3339(day_ms + _DAY_MS),
                    "limit": 20,
                }
            ),
        )
        assert len(told["records"]) == 20
        pages.append(took_ms)
        ids += [r["message_id"] for r in told["records"][:2]]
        plain.append(_plain(store, account, day_ms))
    single = [ask("GET", f"/mdr/records/{message_id}")[0] for message_id in rng.sample(ids, rounds)]
    first, deep = _deep(ask, start_ms, rounds)
    return {
        "page": spread(pages),
        "page_plain_sql": spread(plain),
        "by_id": spread(single),
        "first_page": spread(first),
        "deep_page": spread(deep),
    }


def _plain(store: Store, account: str, day_ms: int) -> float:
    began = time.perf_counter()
    rows = store.client.query(
        "SELECT * FROM mdr.mdr WHERE account_id = {a:String}"
        " AND occurred_at >= fromUnixTimestamp64Milli({s:Int64}, 'UTC')"
        " AND occurred_at < fromUnixTimestamp64Milli({e:Int64}, 'UTC')"
        " ORDER BY occurred_at, message_id, direction LIMIT 20",
        parameters={"a": account, "s": day_ms, "e": day_ms + _DAY_MS},
    ).result_rows
    assert len(rows) == 20
    return (time.perf_counter() - began) * 1000


def _deep(ask: Asker, start_ms: int, rounds: int) -> tuple[list[float], list[float]]:
    """The first page of an account's month, and pages far behind it."""
    span = {
        "account_id": "account-3",
        "start": format_rfc3339(start_ms),
        "end": format_rfc3339(start_ms + DAYS * _DAY_MS),
    }
    first = [ask("GET", "/mdr/records?" + urlencode({**span, "limit": 20}))[0] for _ in range(rounds // 2)]
    cursor = None
    for _ in range(50):
        more: dict[str, Any] = {"cursor": cursor} if cursor else {}
        cursor = ask("GET", "/mdr/records?" + urlencode({**span, **more, "limit": 1000}))[1]["next_cursor"]
        if cursor is None:
            return first, first
    after = {**span, "limit": 20, "cursor": cursor}
    return first, [ask("GET", "/mdr/records?" + urlencode(after))[0] for _ in range(rounds // 2)]


def report(ask: Asker, start_ms: int, records: int) -> dict[str, Any]:
    """A csv of about a million records: rows a second and the memory it takes more."""
    share = min(1.0, 1_000_000 / records)
    end_ms = start_ms + int(DAYS * _DAY_MS * share)
    before, peak, began = _rss_mb(), 0.0, time.perf_counter()
    body = {"start": format_rfc3339(start_ms), "end": format_rfc3339(end_ms), "format": "csv"}
    told = ask("POST", "/mdr/reports", body)[1]
    while told["status"] in ("pending", "running"):
        peak = max(peak, _rss_mb())
        time.sleep(0.05)
        told = ask("GET", f"/mdr/reports/{told['report_id']}")[1]
    took_s = time.perf_counter() - began
    assert told["status"] == "complete", told
    ask("DELETE", f"/mdr/reports/{told['report_id']}")
    return {
        "rows": told["rows_done"],
        "seconds": round(took_s, 2),
        "rows_per_s": round(told["rows_done"] / took_s),
        "more_memory_mb": round(max(0.0, peak - before)),
    }


class Entry(NamedTuple):
    """An entry of a topic, as a consumer hands it over."""

    offset: int
    timestamp: int
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()


def share(ask: Asker, store: Store, start_ms: int, records: int) -> dict[str, Any]:
    """The worker's own part (decode, join, settle, insert; no Kafka), alone and while reports are built."""
    # In a month of their own, which is dropped afterwards.
    began_ms = start_ms - 400 * _DAY_MS
    log = list(events(Plan(20_000, 5, began_ms, account="bench-worker")))
    alone, during = [], []
    # In turns: what the worker writes is merged meanwhile, so it gets slower as it goes on.
    for _ in range(_TURNS):
        alone.append(_work(store, log))
        enough = threading.Event()
        thread = threading.Thread(target=_reports, args=(ask.port, start_ms, records, enough))
        thread.start()
        during.append(_work(store, log))
        enough.set()
        thread.join()
    for month in {format_rfc3339(e.at_ms)[:7].replace("-", "") for e in log}:
        store.client.command(f"ALTER TABLE mdr.mdrs DROP PARTITION {int(month)}")
    share = statistics.median(d / a for d, a in zip(during, alone, strict=True))
    medians = round(statistics.median(alone)), round(statistics.median(during))
    return {"alone_events_per_s": medians[0], "with_reports": medians[1], "share": round(share, 3)}


def _reports(port: int, start_ms: int, records: int, stop: threading.Event) -> None:
    while not stop.is_set():
        report(Asker(port), start_ms, records)


def _work(store: Store, log: list[Event]) -> float:
    """Events a second, over some seconds."""
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < _WORK_S:
        flow = Flow("mdr.", 4 * 3_600_000)
        flow.open_partition(0, log[0].at_ms)
        for at in range(0, len(log), _BATCH):
            chunk = log[at : at + _BATCH]
            for topic in TOPICS:
                entries = [Entry(at + n, e.at_ms, e.key, e.value) for n, e in enumerate(chunk) if e.topic == topic]
                flow.batch(topic, 0, entries, chunk[-1].at_ms)
            done += len(chunk)
            _write(store, flow, chunk[-1].at_ms)
            if time.perf_counter() - began >= _WORK_S:
                break
    return done / (time.perf_counter() - began)


def _write(store: Store, flow: Flow, now_ms: int) -> None:
    part = flow.partitions[0]
    store.write_records(folding.records([part.take(now_ms)], now_ms))
    part.written(now_ms)


def _rss_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    """Fills the store when it is empty, measures, prints."""
    options = argparse.ArgumentParser()
    options.add_argument("--records", type=int, default=10_000_000)
    options.add_argument("--rounds", type=int, default=200)
    options.add_argument("--path", type=Path)
    asked = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = asked.path or Path(folder) / "store"
        store = Store(f"chdb://{path}")
        store.migrate(365, 365)
        start_ms = int(time.time() * 1000) // _DAY_MS * _DAY_MS - DAYS * _DAY_MS
        held = store.client.query("SELECT count(), toUnixTimestamp64Milli(min(occurred_at)) FROM mdr.mdrs").result_rows[
            0
        ]
        if held[0]:
            start_ms = held[1]
        else:
            fill(store, asked.records, start_ms)
        figures = {"records": held[0] or asked.records, **_served(store, Path(folder), start_ms, asked)}
        store.close()
    print(json.dumps(figures))


def _served(store: Store, folder: Path, start_ms: int, asked: argparse.Namespace) -> dict[str, Any]:
    config = AppConfig(
        connect=lambda: connect(store.url),
        data_dir=folder,
        operator=_OPERATOR,
        http_url="",
        clock_ms=lambda: int(time.time() * 1000),
    )
    server = uvicorn.Server(uvicorn.Config(create_app(config), port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    ask = Asker(server.servers[0].sockets[0].getsockname()[1])
    try:
        measure(ask, store, start_ms, 10)
        figures = measure(ask, store, start_ms, asked.rounds)
        figures["report"] = report(ask, start_ms, asked.records)
        return {**figures, "worker": share(ask, store, start_ms, asked.records)}
    finally:
        server.should_exit = True
        thread.join()


if __name__ == "__main__":
    main()
