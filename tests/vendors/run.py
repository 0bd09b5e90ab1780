"""Runs the vendors' own clients against our API and compares what they saw with our own records.

`python -m tests.vendors.run [NAME ...]` installs the clients, each apart from the others, into MDR_VENDOR_CACHE (by
default `~/.cache/mdr-vendors`) and prints a line for each. Needs node with npm, and a JDK with maven, for theirs.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import uvicorn

from api import auth
from api.app import AppConfig, create_app
from api.vendors.shared import money
from schemas.times import format_rfc3339
from streams.simulate import Plan
from streams.store import Store, connect
from tests.api_support import OPERATOR, fill, fold

HERE: Final = Path(__file__).parent
CACHE: Final = Path(os.environ.get("MDR_VENDOR_CACHE") or Path.home() / ".cache" / "mdr-vendors")
PYTHON: Final = {
    "telnyx3": "telnyx==3.17.0",
    "telnyx4": "telnyx==4.189.0",
    "plivo": "plivo==4.63.0",
    "flowroute": "flowroute-messaging-fossum==0.2.0",
}
NODE: Final = ("telnyx@7.24.0", "plivo@4.79.0")
JAVA: Final = "5.46.3"
KEY: Final = "MAXXXXXXXXXXXXXXXXXX"
_POM: Final = """<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion><groupId>t</groupId>
<artifactId>t</artifactId><version>1</version><dependencies><dependency><groupId>com.plivo</groupId>
<artifactId>plivo-java</artifactId><version>{version}</version></dependency></dependencies></project>"""

Record = dict[str, Any]


@contextmanager
def serving(folder: Path) -> Iterator[tuple[dict[str, Any], list[Record]]]:
    """The API with simulated traffic of the last hours: what a client is told, and every record, oldest first."""
    now_ms = int(time.time() * 1000)
    store = Store(f"chdb://{folder / 'store'}")
    fill(store, Plan(120, seed=4, rate_per_s=0.006, start_ms=now_ms - 6 * 3_600_000, account="parcelbird"), now_ms)
    issued = auth.add_credential(store.client, "parcelbird", key=KEY)
    config = AppConfig(
        connect=lambda: connect(store.url),
        data_dir=folder,
        operator=OPERATOR,
        http_url="",
        fold=fold,
        clock_ms=lambda: int(time.time() * 1000),
    )
    server = uvicorn.Server(uvicorn.Config(create_app(config), port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    start_ms = now_ms - 12 * 3_600_000
    ask = {
        "url": url,
        "key": issued.key,
        "secret": issued.secret,
        "bearer": issued.bearer,
        "start": format_rfc3339(start_ms),
        "end": format_rfc3339(now_ms),
        "start_plain": format_rfc3339(start_ms)[:19].replace("T", " "),
    }
    try:
        yield ask, _records(ask)
    finally:
        server.should_exit = True
        thread.join()
        store.close()


def _records(ask: dict[str, Any]) -> list[Record]:
    from api.client import HttpClient

    params = {"start": ask["start"], "include": "pending", "limit": 1000}
    rows: list[Record] = HttpClient(ask["url"], ask["key"], ask["secret"]).get("/mdr/records", params)["records"]
    assert len(rows) > 100
    return rows


def python(name: str, script: str, ask: dict[str, Any]) -> dict[str, Any]:
    """What a script says in a virtual environment that holds one client."""
    folder = CACHE / f"{name}-{PYTHON[name].partition('==')[2]}"
    if not (folder / "ready").exists():
        venv.create(folder, with_pip=True, clear=True)
        _run([folder / "bin" / "pip", "install", "--quiet", PYTHON[name]])
        (folder / "ready").touch()
    return _told([folder / "bin" / "python", HERE / script, json.dumps(ask)])


def node(ask: dict[str, Any]) -> dict[str, Any]:
    """What Node's clients say."""
    folder = CACHE / "node"
    if not (folder / "ready").exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text('{"name": "clients", "private": true}')
        _run(["npm", "install", "--silent", *NODE], folder)
        (folder / "ready").touch()
    return _told(["node", HERE / "node_clients.mjs", json.dumps(ask), folder])


def java(ask: dict[str, Any]) -> dict[str, Any]:
    """What Java's client says."""
    folder = CACHE / f"java-{JAVA}"
    if not (folder / "ready").exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "pom.xml").write_text(_POM.format(version=JAVA))
        _run(["mvn", "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=lib"], folder)
        (folder / "ready").touch()
    path = f"{folder}/lib/*:{folder}"
    _run(["javac", "-cp", path, "-d", folder, HERE / "PlivoJava.java"])
    return _told(["java", "-cp", path, "PlivoJava", ask["url"], ask["key"], ask["secret"]])


def _run(command: list[Any], folder: Path | None = None) -> str:
    done = subprocess.run(
        [str(c) for c in command], cwd=folder, capture_output=True, text=True, timeout=600, check=False
    )
    if done.returncode:
        raise AssertionError(f"{command[0]} {command[1]}: {done.stdout[-1000:]}{done.stderr[-3000:]}")
    return done.stdout


def _told(command: list[Any]) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(_run(command).strip().splitlines()[-1])
    return told


# ---- what must be seen -----------------------------------------------------------------------------------------


def check_telnyx(told: dict[str, Any], rows: list[Record]) -> None:
    """A report from create to delete; its rows are the settled records, field by field."""
    settled = [r for r in rows if r["record_type"] != "pending"]
    lines = list(csv.DictReader(io.StringIO(told["csv"], newline="")))
    assert told["status"] == "COMPLETE" and told["made"] in told["listed"] and told["deleted"] == told["made"]
    assert [line["Unique Mdr ID"] for line in lines] == [r["message_id"] for r in settled]
    for line, row in zip(lines, settled, strict=True):
        assert (line["Originating Number"], line["Terminating number"]) == (row["from_number"], row["to_number"])
        assert line["CreateTimestamp(UTC)"] == row["occurred_at"][:19].replace("T", " ")
        assert line["Message Body"].removeprefix("'") == row["body"].removeprefix("'")
    assert told["errors"] == {
        "gone": ["NotFoundError", 404],
        "bad": ["BadRequestError", 400],
        "filter": ["BadRequestError", 400],
        "key": ["AuthenticationError", 401],
    }
    assert told["created"] == "datetime" and told["connections"] == []


def check_plivo(told: dict[str, Any], rows: list[Record]) -> None:
    """Every message page by page; amounts exact; the client's own exceptions."""
    assert told["ids"] == [r["message_id"] for r in rows] and told["one"] == told["ids"][0]
    assert told["amounts"] == [money(r["amount_nanos"], 5) for r in rows]
    assert told["units"] == [r["segments"] for r in rows]
    assert told["filters"]["number"] == told["filters"]["plus"] >= 1
    assert told["errors"] == {
        "limit": "ValidationError",
        "time": "ValidationError",
        "unknown": "ResourceNotFoundError",
        "key": "AuthenticationError",
        "key_one": "AuthenticationError",
    }, told["errors"]


def check_flowroute(told: dict[str, Any], rows: list[Record]) -> None:
    """Both versions' ids find the message."""
    row = rows[0]
    digits = row["message_id"].replace("-", "")
    amount = row["amount_nanos"] if row["currency"] == "USD" else None
    assert told["told"] == [[f"mdr1-{digits}", row["body"], amount], [f"mdr2-{digits}", row["body"], amount]]
    assert told["errors"] == {"unknown": 404, "key": 401}


def check_node(told: dict[str, Any], rows: list[Record]) -> None:
    """The same in Node: Telnyx's report, Plivo's pages."""
    wanted = [r["message_id"] for r in rows if r["direction"] == "outbound" and r["record_type"] != "pending"]
    assert [line["Unique Mdr ID"] for line in csv.DictReader(io.StringIO(told["csv"], newline=""))] == wanted
    assert told["made"] in told["listed"] and told["deleted"] == told["made"] and told["status"] == "COMPLETE"
    assert told["ids"] == [r["message_id"] for r in rows] and told["one"] == told["ids"][0]
    assert told["amounts"] == [money(r["amount_nanos"], 5) for r in rows]
    assert told["errors"]["gone"] == 404 and told["errors"]["bad"] == 400
    assert told["errors"]["limit"] and told["errors"]["key"], told["errors"]


def check_java(told: dict[str, Any], rows: list[Record]) -> None:
    """The same in Java; it sends the error code `000` as the number 0."""
    assert told["ids"] == [r["message_id"] for r in rows] and told["one"] == told["ids"][0]
    assert told["fine"] == min(20, sum(not r["error_code"] for r in rows)) and told["error"]


def main(names: list[str]) -> int:
    """Runs the clients named, or all; 1 when one saw something else than it should."""
    runs: dict[str, Callable[[dict[str, Any], list[Record]], None]] = {
        "telnyx3": lambda ask, rows: check_telnyx(python("telnyx3", "telnyx_client.py", ask), rows),
        "telnyx4": lambda ask, rows: check_telnyx(python("telnyx4", "telnyx_client.py", ask), rows),
        "plivo": lambda ask, rows: check_plivo(python("plivo", "plivo_client.py", ask), rows),
        "flowroute": lambda ask, rows: check_flowroute(python("flowroute", "flowroute_client.py", ask), rows),
        "node": lambda ask, rows: check_node(node(ask), rows),
        "java": lambda ask, rows: check_java(java(ask), rows),
    }
    failed = 0
    folder = Path(tempfile.mkdtemp())
    try:
        with serving(folder) as (ask, rows):
            ask["hex"] = rows[0]["message_id"].replace("-", "")
            for name in names or list(runs):
                try:
                    runs[name](ask, rows)
                    print(f"{name}: ok", flush=True)
                except AssertionError as e:
                    failed += 1
                    print(f"{name}: {e!s:.3000}", flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
