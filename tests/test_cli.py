"""The command as people run it: what it prints, and how it ends."""

import importlib
import json
import os
import pkgutil
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import streams.cli
from streams.cli import TOLD, cli
from streams.cli.common import HOMES

ROOT = Path(__file__).parent.parent
MODULES = [found.name for found in pkgutil.iter_modules(streams.cli.__path__, "streams.cli.")]
EVENT = {
    "event_id": "e1",
    "message_id": "m1",
    "occurred_at": "2026-01-31T09:15:04Z",
    "account_id": "acme",
    "from": "+14155550100",
    "to": "+12125550101",
}


def _mdr(*arguments: str, home: Path, stdin: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MDR_")}
    return subprocess.run(
        [sys.executable, "-c", "from streams.cli import main; main()", *arguments],
        env=inherited | {"MDR_DATA_DIR": str(home), "PYTHONPATH": str(ROOT)} | environ,
        cwd=home,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def _said(run: subprocess.CompletedProcess[str]) -> str:
    assert run.returncode == 1, run
    assert "Traceback" not in run.stderr
    return run.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "environ", "sentence"),
    [
        (["topics", "check"], {}, "no broker: MDR_KAFKA is not set and none runs in"),
        (["worker"], {"MDR_KAFKA": "127.0.0.1:1"}, "the Kafka broker at 127.0.0.1:1 cannot be reached"),
        (["migrate"], {"MDR_CLICKHOUSE_URL": "http://127.0.0.1:1"}, "ClickHouse at 127.0.0.1:1 cannot be opened"),
        (["settings"], {"MDR_PARTITIONS": "many"}, "MDR_PARTITIONS 'many' is not a whole number"),
        (["settings"], {"MDR_PARTITION": "3"}, "MDR_PARTITION is not a setting"),
    ],
)
def test_a_failure_is_one_sentence(
    arguments: list[str], environ: dict[str, str], sentence: str, tmp_path: Path
) -> None:
    """What is wrong is named in one line, with exit code 1 and without a traceback."""
    assert sentence in _said(_mdr(*arguments, home=tmp_path, **environ))


def test_every_command_is_found() -> None:
    """The table of where commands are written has each of them, and the file that it is in."""
    for name in MODULES:
        importlib.import_module(name)
    found = {name: command.callback.__module__ for name, command in cli.commands.items() if command.callback}
    assert found == {name: f"streams.cli.{home}" for name, home in HOMES.items()}


def test_every_failure_that_is_told_exists() -> None:
    """What is told in one sentence is named by its module and class: each name means an exception."""
    for name in TOLD:
        module, _, kind = name.rpartition(".")
        assert issubclass(getattr(importlib.import_module(module), kind), Exception)


def test_a_start_costs_what_it_uses() -> None:
    """No command imports Faust or the web framework before it runs one of them."""
    asked = [name for name in MODULES if name != "streams.cli.serving"]
    program = f"import sys, {', '.join(asked)}; print({{'faust', 'litestar', 'uvicorn'}} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"


def test_wrong_usage_ends_with_2(tmp_path: Path) -> None:
    """A command or option that does not exist is a usage error."""
    assert _mdr("produce", "nowhere", home=tmp_path).returncode == 2


def test_uneven_topics_stop_the_worker(kafka_at: str, tmp_path: Path) -> None:
    """Input topics of different partition counts are a start-up error that names them."""
    import asyncio

    from aiokafka.admin import AIOKafkaAdminClient, NewTopic

    async def create() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka_at)
        await admin.start()
        await admin.create_topics([NewTopic("odd.sends", 2, 1), NewTopic("odd.receives", 3, 1)])
        await admin.close()

    asyncio.run(create())
    said = _said(_mdr("worker", home=tmp_path, MDR_KAFKA=kafka_at, MDR_TOPIC_PREFIX="odd."))
    assert "odd.sends has 2" in said
    assert "odd.receives has 3" in said


def test_produce_tells_bad_lines_and_sends_all(kafka_at: str, tmp_path: Path) -> None:
    """Each bad line is told with number, reason and field; all lines are sent; the exit code says that some were bad."""
    bad = EVENT | {"segments": 0}
    lines = "\n".join(map(json.dumps, (EVENT, bad))) + "\n{\n"
    run = _mdr("produce", "sends", "--json", home=tmp_path, stdin=lines, MDR_KAFKA=kafka_at, MDR_TOPIC_PREFIX="cli.")
    assert run.returncode == 1
    assert json.loads(run.stdout) == {"produced": 3, "invalid": 2}
    assert "line 2: invalid_field segments" in run.stderr
    assert "line 3: invalid_json" in run.stderr
    check = _mdr("topics", "check", "--json", home=tmp_path, MDR_KAFKA=kafka_at, MDR_TOPIC_PREFIX="cli.")
    assert json.loads(check.stdout) == {"partitions": 8, "wrong": []}


def test_simulate_writes_events_and_what_they_must_become(tmp_path: Path) -> None:
    """With --write the events and the expected records are files, the same for the same seed."""
    for name in ("a", "b"):
        run = _mdr("simulate", "--messages", "60", "--seed", "4", "--write", name, "--json", home=tmp_path)
        assert run.returncode == 0, run.stderr
        assert json.loads(run.stdout)["records"] == 60
    records = (tmp_path / "a" / "records.jsonl").read_text().splitlines()
    assert {json.loads(line)["direction"] for line in records} == {"inbound", "outbound"}
    events = [json.loads(line) for line in (tmp_path / "a" / "events.jsonl").read_text().splitlines()]
    assert {event["topic"] for event in events} == {"sends", "receives", "receipts"}


def test_query_asks_the_store_when_nothing_runs(tmp_path: Path) -> None:
    """Without `mdr up` the command opens the store itself; an empty one has no records."""
    run = _mdr("query", "--json", home=tmp_path)
    assert (run.returncode, run.stdout) == (0, "")
    assert "start is not an instant" in _said(_mdr("query", "--start", "yesterday", home=tmp_path))


def test_the_wheel_holds_the_packages_and_runs(tmp_path: Path) -> None:
    """The wheel has code, SQL, schemas and examples, and its `mdr` runs from it."""
    # From a copy: what other tests import meanwhile is not to be built anew under them.
    source = tmp_path / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "data", "dist", "__pycache__", "*.so"))
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=source, check=True, capture_output=True)
    wheel = next(tmp_path.glob("*.whl"))
    names = zipfile.ZipFile(wheel).namelist()
    assert {"streams/flow.py", "schemas/sql/0001_tables.sql", "schemas/asyncapi.json", "api/app.py", "api/pages/static/app.css", "api/pages/templates/base.html"} <= set(names)
    assert not [name for name in names if name.startswith(("tests", "benchmarks"))]
    target = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(target)
    program = f"import sys; sys.path.insert(0, {str(target)!r}); import streams.cli as c; print(c.__file__); c.main()"
    run = subprocess.run(
        [sys.executable, "-c", program, "settings"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert str(target) in run.stdout
    assert "MDR_SETTLING_WINDOW" in run.stdout
