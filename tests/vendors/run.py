"""Runs the vendors' own clients against a real `mdr up` and compares what they saw with the simulator's truth.

`python -m tests.vendors.run [NAME ...]` installs the clients, each apart from the others, into MDR_VENDOR_CACHE (by
default `~/.cache/mdr-vendors`) and prints a line for each. Needs node with npm, and a JDK with maven, for theirs.
New messages arrive all the while; what was there before must be seen once each, in order, every field of it.
"""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tests.vendors import expect, walks
from tests.vendors.live import Live, live

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
_POM: Final = """<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion><groupId>t</groupId>
<artifactId>t</artifactId><version>1</version><dependencies><dependency><groupId>com.plivo</groupId>
<artifactId>plivo-java</artifactId><version>{version}</version></dependency></dependencies></project>"""

Record = dict[str, Any]


# ---- the clients -----------------------------------------------------------------------------------------------


def python(name: str, script: str, ask: Record) -> Record:
    """What a script says in a virtual environment that holds one client."""
    folder = CACHE / f"{name}-{PYTHON[name].partition('==')[2]}"
    if not (folder / "ready").exists():
        venv.create(folder, with_pip=True, clear=True)
        _run([folder / "bin" / "pip", "install", "--quiet", PYTHON[name]])
        (folder / "ready").touch()
    return _told([folder / "bin" / "python", HERE / script, json.dumps(ask)])


def node(ask: Record) -> Record:
    """What Node's clients say."""
    folder = CACHE / "node"
    if not (folder / "ready").exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text('{"name": "clients", "private": true}')
        _run(["npm", "install", "--silent", *NODE], folder)
        (folder / "ready").touch()
    return _told(["node", HERE / "node_clients.mjs", json.dumps(ask), folder])


def java(ask: Record) -> Record:
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


def _told(command: list[Any]) -> Record:
    told: Record = json.loads(_run(command).strip().splitlines()[-1])
    return told


# ---- what must be seen -----------------------------------------------------------------------------------------


class Truth:
    """The records that were there before the clients came, and the ids of what arrived meanwhile."""

    def __init__(self, it: Live) -> None:
        self.rows = it.rows
        self.settled = [r for r in it.rows if r["record_type"] != "pending"]
        self.newcomers = it.fed
        self.key = it.issued["key"]

    def same_ids(self, what: str, seen: list[str], wanted: list[Record]) -> None:
        """Each record once, in order, nothing between, and behind them newcomers only."""
        ids = [r["message_id"] for r in wanted]
        assert len(seen) == len(set(seen)), f"{what}: a message is there twice"
        wrong = [pair for pair in zip(seen, ids, strict=False) if pair[0] != pair[1]]
        assert seen[: len(ids)] == ids, f"{what}: {len(seen)} seen, not the {len(ids)} there are: {wrong[:3]}"
        assert set(seen[len(ids) :]) <= self.newcomers, f"{what}: a message that nobody sent"


def same(what: str, seen: Record, wanted: Record) -> None:
    """Every field that is wanted is as wanted."""
    wrong = {name: (seen.get(name), value) for name, value in wanted.items() if seen.get(name) != value}
    assert not wrong, f"{what}: (seen, wanted) {wrong}"


def check_csvs(told: Record, truth: Truth) -> None:
    """Each report's lines are the settled records that were asked for, cell by cell."""
    for name, (_, means) in expect.telnyx_requests(truth.settled).items():
        lines = list(csv.DictReader(io.StringIO(told["csv"][name], newline=""), strict=True))
        wanted = [r for r in truth.settled if means(r)]
        assert [line["Unique Mdr ID"] for line in lines] == [r["message_id"] for r in wanted], name
        for line, row in zip(lines, wanted, strict=True):
            assert line == expect.telnyx(row), f"{name}: {line} is not {expect.telnyx(row)}"
    assert set(told["made"].values()) <= set(told["listed"]) and told["deleted"] == told["made"]["all"]


def check_telnyx(told: Record, truth: Truth) -> None:
    """Reports from create to delete; the client's own exceptions, which say what is wrong."""
    check_csvs(told, truth)
    assert {name: error[:2] for name, error in told["errors"].items()} == {
        "gone": ["NotFoundError", 404], "gone_again": ["NotFoundError", 404], "bad": ["BadRequestError", 400],
        "turned": ["BadRequestError", 400], "direction": ["BadRequestError", 400], "filter": ["BadRequestError", 400],
        "field": ["BadRequestError", 400], "key": ["AuthenticationError", 401],
    }  # fmt: skip
    for name, field in {"bad": "start_time", "turned": "start_time", "direction": "directions",
                        "filter": "filter_type", "field": "colour"}.items():  # fmt: skip
        assert field in told["errors"][name][2], told["errors"][name]
    first = {"status": "COMPLETE", "directions": ["INBOUND", "OUTBOUND"], "connections": [], "record_type": "mdr_report"}
    same("the report", told["first"], first | {"record_types": ["COMPLETED", "INCOMPLETE", "ERRORS"]})
    assert told["total"] >= len(told["made"])


def check_messages(told: Record, truth: Truth) -> None:
    """Plivo's lists and one message, field by field as far as the client knows the fields."""
    truth.same_ids("all", [m["message_uuid"] for m in told["objects"]], truth.rows)
    known = set(told["objects"][0]) - {"id"}
    for seen, row in zip(told["objects"], truth.rows, strict=False):
        wanted = {_plain(n): v for n, v in expect.plivo(row, truth.key).items() if _plain(n) in map(_plain, known)}
        assert len(wanted) >= 20, f"the client knows {sorted(wanted)} only"
        same(row["message_id"], {_plain(n): v for n, v in seen.items()}, wanted)
    same("one", told["one"], {n: v for n, v in told["objects"][0].items() if n not in ("id", "api_id")})
    for name, seen_ids in told["filters"].items():
        _, means = expect.plivo_filters(truth.rows)[name]
        truth.same_ids(name, seen_ids, [r for r in truth.rows if means(r)])


def _plain(name: str) -> str:
    """A field's name however a client writes its words."""
    return name.replace("_", "").lower()


def check_plivo(told: Record, truth: Truth) -> None:
    """Messages and filters; the client's own exceptions, which name what is wrong."""
    check_messages(told, truth)
    assert {name: error[0] for name, error in told["errors"].items()} == {
        "limit": "ValidationError", "time": "ValidationError", "state": "ValidationError", "offset": "ValidationError",
        "unknown": "ResourceNotFoundError", "key": "AuthenticationError", "key_one": "AuthenticationError",
    }, told["errors"]  # fmt: skip
    for name, field in {"limit": "20", "time": "message_time__gt", "state": "message_state", "offset": "offset"}.items():
        assert field in told["errors"][name][1], told["errors"][name]


def check_flowroute(told: Record, truth: Truth) -> None:
    """Both versions' ids find the messages."""
    for version, found in told["told"].items():
        for seen, row in zip(found, _samples(truth.rows), strict=True):
            same(row["message_id"], seen, expect.flowroute(row, version))
    assert told["errors"] == {"unknown": 404, "key": 401}


def _samples(rows: list[Record]) -> list[Record]:
    """One record of each direction, state and type."""
    return list({(r["direction"], r["state"], r["record_type"], r["message_type"]): r for r in rows}.values())


def check_node(told: Record, truth: Truth) -> None:
    """The same in Node: Telnyx's reports, Plivo's messages."""
    check_csvs(told, truth)
    check_messages(told, truth)
    numbers = {name: told["errors"][name] for name in ("gone", "bad", "telnyx_key")}
    assert numbers == {"gone": 404, "bad": 400, "telnyx_key": 401}, told["errors"]
    assert all(told["errors"].get(name) for name in ("limit", "unknown", "key")), told["errors"]


def check_java(told: Record, truth: Truth) -> None:
    """The same in Java; it sends the error code `000` as the number 0."""
    check_messages(told, truth)
    wanted = {"limit": "InvalidRequestException", "unknown": "ResourceNotFoundException", "key": "AuthenticationException"}
    assert told["errors"] == wanted, told["errors"]


def check_flowroute_list(told: Record, truth: Truth) -> None:
    """Every message once, in pages of seven, every field; what is wrong is a 422 that names it."""
    wanted = [expect.flowroute(row, "2.1") for row in truth.rows]
    seen = told["found"][: len(wanted)]
    assert len({m["id"] for m in told["found"]}) == len(told["found"])
    for one, other in zip(seen, wanted, strict=True):
        same(other["id"], one, other)
    assert told["errors"] == {
        "key": 401, "missing": (422, "start_date"), "limit": (422, "limit"), "extra": (422, "colour")
    }  # fmt: skip


def check_carrierx(told: Record, truth: Truth) -> None:
    """Every message once by keyset, every field that does not tell when it was settled; back the same way."""
    truth.same_ids("all", [m["dr_sid"] for m in told["found"]], truth.rows)
    for seen, row in zip(told["found"], truth.rows, strict=False):
        same(row["message_id"], seen, expect.carrierx(row))
    truth.same_ids("filtered", told["filtered"], [
        r for r in truth.rows if (r["state"], r["direction"]) == ("delivered", "outbound")
    ])  # fmt: skip
    assert told["back"] == told["second"] and list(told["fields"]) == ["dr_sid", "status"]
    assert told["total"] >= len(truth.rows)
    assert told["errors"] == {"key": 401, "limit": 400, "filter": 400, "unknown": 404}


def check_telnyx_v1(told: Record, truth: Truth) -> None:
    """Created, polled, downloaded without a credential, listed, deleted once."""
    lines = list(csv.DictReader(io.StringIO(told["csv"], newline=""), strict=True))
    assert lines == [expect.telnyx(row) for row in truth.settled]
    assert told["status"] == [1, 2] and told["made"] in told["listed"]
    assert told["deleted"] == [{"success": True}, {"success": False}]
    assert told["errors"] == {"gone": 404, "bad": 400, "key": 401}


RUNS: Final[dict[str, tuple[Callable[[Record], Record], Callable[[Record, Truth], None]]]] = {
    "telnyx3": (lambda ask: python("telnyx3", "telnyx_client.py", ask), check_telnyx),
    "telnyx4": (lambda ask: python("telnyx4", "telnyx_client.py", ask), check_telnyx),
    "plivo": (lambda ask: python("plivo", "plivo_client.py", ask), check_plivo),
    "flowroute": (lambda ask: python("flowroute", "flowroute_client.py", ask), check_flowroute),
    "node": (node, check_node),
    "java": (java, check_java),
    "flowroute-list": (walks.flowroute, check_flowroute_list),
    "carrierx": (walks.carrierx, check_carrierx),
    "telnyx-v1": (walks.telnyx_v1, check_telnyx_v1),
}


def main(names: list[str]) -> int:
    """Runs the clients named, or all; 1 when one saw something else than it should."""
    failed = 0
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, live(Path(folder)) as it:
        truth = Truth(it)
        ask = it.ask() | {
            "plivo_filters": {n: asked for n, (asked, _) in expect.plivo_filters(truth.rows).items()},
            "telnyx_requests": {n: asked for n, (asked, _) in expect.telnyx_requests(truth.settled).items()},
            "flowroute_ids": {
                v: [expect.flowroute(row, v)["id"] for row in _samples(truth.rows)] for v in ("2", "2.1")
            },
        }  # fmt: skip
        for name in names or list(RUNS):
            client, check = RUNS[name]
            try:
                with it.arriving():
                    told = client(ask)
                check(told, truth)
                print(f"{name}: ok", flush=True)
            except AssertionError as e:
                failed += 1
                print(f"{name}: {e!s:.3000}", flush=True)
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
