"""Press on the HTTP side from every direction at once, and time what others are owed meanwhile.

One tenant asks for more than it can have, thousands of connections idle or dribble; beside them a probe asks for
`/livez` and another tenant for one record. Runs as a process of its own, `python -m tests.hostile.pressure`, with its
task as JSON on standard input and its figures as JSON on standard output.
"""

import asyncio
import contextlib
import json
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, urlencode

HUNG_S: Final = 10.0
GIVES_UP_S: Final = 30.0
PATTERNS: Final = (
    "%a" * 40 + "%", "%" * 200, "_%" * 60 + "z", "a" * 4000 + "%", "%\\", "\\", "%[", "(a+)+$", "\x00", "%\x00%", "'", "' OR 1=1 --", "\u202e",
    "%" + "ab" * 500 + "%c", "{p0:String}", "\ud7ff\ue000", "+1415%",
)  # fmt: skip


@dataclass
class Task:
    """What to press on: an address, the tenant that presses, the other tenant, ids of its records, for how long."""

    host: str
    port: int
    heavy: str
    other: str
    record_ids: list[str]
    seconds: float
    idle: int = 2_000
    slow: int = 400
    heavies: int = 50
    seed: int = 1


@dataclass
class Figures:
    """What was seen; times in ms."""

    livez_ms: list[float] = field(default_factory=list)
    other_ms: list[float] = field(default_factory=list)
    hung: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    idle_opened: int = 0
    slow_opened: int = 0
    slow_cut: int = 0

    def told(self) -> dict[str, Any]:
        """The figures as one object."""
        return {
            "livez": len(self.livez_ms), "livez_ms_max": round(max(self.livez_ms, default=0)), "livez_ms_p99": _p99(self.livez_ms),
            "other": len(self.other_ms), "other_tenant_p99_ms": _p99(self.other_ms),
            "other_tenant_ms_max": round(max(self.other_ms, default=0)), "hung": self.hung, "statuses": dict(self.statuses),
            "wrong_answers": self.wrong[:20], "idle_opened": self.idle_opened, "slow_opened": self.slow_opened, "slow_cut": self.slow_cut,
        }  # fmt: skip


def _p99(values: list[float]) -> int:
    return round(sorted(values)[int(len(values) * 0.99)]) if values else 0


class Pressure:
    """All of it, until the time is over."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.figures = Figures()
        self.random = random.Random(task.seed)
        self.until = time.monotonic() + task.seconds

    async def run(self) -> Figures:
        """Presses until the end; the probes begin first."""
        task = self.task
        work = [self._forever(self._livez, 0.2), self._forever(self._other, 0.2)]
        work += [self._forever(self._heavy, 0.0) for _ in range(task.heavies)]
        work += [self._forever(self._pattern, 0.5) for _ in range(4)] + [self._forever(self._report, 2.0) for _ in range(2)]
        work += [self._idle(n) for n in range(task.idle)] + [self._slow(n) for n in range(task.slow)]
        running = [asyncio.create_task(one) for one in work]
        await asyncio.sleep(task.seconds)
        for one in running:
            one.cancel()
        for problem in await asyncio.gather(*running, return_exceptions=True):
            if isinstance(problem, Exception):
                self.figures.wrong.append(f"the pressure itself: {problem!r}")
        return self.figures

    async def _forever(self, act: Callable[[], Awaitable[None]], pause_s: float) -> None:
        while time.monotonic() < self.until:
            try:
                await act()
            except (OSError, EOFError, TimeoutError, ValueError) as problem:
                self.figures.statuses[f"{act.__name__.strip('_')} {type(problem).__name__}"] += 1
                await asyncio.sleep(0.2)
            await asyncio.sleep(pause_s)

    # ---- what others are owed ----

    async def _livez(self) -> None:
        await self._owed("/livez", "", self.figures.livez_ms)

    async def _other(self) -> None:
        await self._owed(f"/mdr/records/{quote(self.random.choice(self.task.record_ids), safe='')}", self.task.other, self.figures.other_ms)

    async def _owed(self, path: str, bearer: str, times_ms: list[float]) -> None:
        """One request that must be answered with 200, in a connection of its own."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(GIVES_UP_S):
                status, body = await self._ask("GET", path, bearer)
        except (OSError, EOFError, TimeoutError) as problem:
            status, body = 0, repr(problem).encode()
        took_s = time.monotonic() - began
        times_ms.append(took_s * 1000)
        self.figures.hung += took_s > HUNG_S
        if status != 200:
            self.figures.wrong.append(f"{path}: {status} {body[:200]!r} after {took_s:.1f} s")

    # ---- one tenant ----

    async def _heavy(self) -> None:
        path = self.random.choice((
            "/mdr/records?include=pending&limit=1&start=2026-06-01T00:00:00Z", "/mdr/records?include=pending&limit=1000",
            "/mdr/records?include=pending&limit=1&user_data=nothing", "/core/v2/sms/message_drs?limit=1000&offset=100000",
            "/mdr/stats?start=2026-06-01T00:00:00Z&by=account", "/v2.1/messages?start_date=2026-01-01&limit=10000",
            "/mdr/records?limit=1000&start=2026-06-01T00:00:00Z",
        ))  # fmt: skip
        await self._count("heavy", "GET", path)

    async def _pattern(self) -> None:
        pattern = self.random.choice(PATTERNS)
        name = self.random.choice(("user_data", "provider", "number_dst", "message_id", "body"))
        query = self.random.choice((
            ("/core/v2/sms/message_drs", {"filter": f"{name} like '{pattern}'"}), ("/core/v2/sms/message_drs", {"filter": f"{name} eq {pattern}"}),
            ("/mdr/records", {"include": "pending", "provider": pattern}), ("/mdr/records", {"to_number": pattern}),
            ("/mdr/records", {"cursor": pattern}), (f"/mdr/records/{quote(pattern, safe='')}", {}), ("/mdr/records", {pattern: "x"}),
            ("/v2/messages", {"start_date": "2026-01-01", "limit": pattern}), ("/core/v2/sms/message_drs", {"after": pattern}),
        ))  # fmt: skip
        await self._count("pattern", "GET", f"{query[0]}?{urlencode(query[1], errors='surrogatepass')}")

    async def _report(self) -> None:
        wanted = {"format": self.random.choice(("csv", "jsonl", "parquet", "xlsx")), "start": "2026-06-01T00:00:00Z",
                  "filters": {"provider": "x" * self.random.choice((10, 10_000, 500_000))}}  # fmt: skip
        await self._count("report", "POST", "/mdr/reports", json.dumps(wanted).encode())

    async def _count(self, kind: str, method: str, path: str, body: bytes = b"") -> None:
        """Notes the status; a server that says 5xx must say when to come back, but never of a pattern."""
        async with asyncio.timeout(120):
            status, answer = await self._ask(method, path, self.task.heavy, body)
        self.figures.statuses[f"{kind} {status}"] += 1
        overloaded = status == 503 and kind != "pattern"
        if status >= 500 and not overloaded:
            self.figures.wrong.append(f"{method} {path[:200]}: {status} {answer[:200]!r}")
        if status in (429, 503):
            await asyncio.sleep(0.2)

    # ---- connections ----

    async def _ask(self, method: str, path: str, bearer: str, body: bytes = b"") -> tuple[int, bytes]:
        """Status and body of one request."""
        reader, writer = await asyncio.open_connection(self.task.host, self.task.port, limit=1 << 26)
        try:
            lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "Connection: close", f"Content-Length: {len(body)}"]
            lines += [f"Authorization: Bearer {bearer}"] if bearer else []
            lines += ["Content-Type: application/json"] if body else []
            writer.write("\r\n".join([*lines, "", ""]).encode("latin-1", "replace") + body)
            await writer.drain()
            first = await reader.readline()
            if not first:
                raise EOFError("closed without an answer")
            rest = await reader.read()
            return int(first.split()[1]), rest.partition(b"\r\n\r\n")[2]
        finally:
            writer.close()

    async def _idle(self, number: int) -> None:
        """A connection that says nothing, opened again when it is cut."""
        await asyncio.sleep(number * 0.005)
        while time.monotonic() < self.until:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection(self.task.host, self.task.port)
                self.figures.idle_opened += 1
                try:
                    while await reader.read(1024):
                        pass
                finally:
                    writer.close()
            await asyncio.sleep(5 + 5 * self.random.random())

    async def _slow(self, number: int) -> None:
        """A request whose head or body comes a byte a second."""
        await asyncio.sleep(number * 0.02)
        head = b"POST /mdr/reports HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer " + self.task.heavy.encode()
        whole = head + b"\r\nContent-Length: 100000\r\n\r\n" if number % 2 else head
        while time.monotonic() < self.until:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(self.task.host, self.task.port)
                self.figures.slow_opened += 1
                try:
                    writer.write(whole if number % 2 else whole[:20])
                    while True:
                        writer.write(b"x")
                        await writer.drain()
                        await asyncio.sleep(1)
                finally:
                    self.figures.slow_cut += 1
                    writer.close()
            await asyncio.sleep(2 + self.random.random())


def main() -> None:
    """Presses as the task on standard input says."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard < 1 << 20 else max(soft, 16_384), hard))
    told = asyncio.run(Pressure(Task(**json.load(sys.stdin))).run()).told()
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main()
