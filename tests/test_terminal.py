"""What commands print: nothing from outside moves the cursor, hides itself or becomes a formula (`streams.terminal`)."""

from __future__ import annotations

import ast
import csv
import io
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import streams.cli
from api import audit, formulas
from api.client import HttpClient
from schemas.record import PUBLIC
from schemas.times import format_rfc3339
from streams import check, kafka, running, settings, terminal
from streams.cli import feed, operator_file
from streams.cli.common import HOMES
from streams.store import Store
from tests.entries import NOON_MS

ROOT: Final = Path(__file__).parent.parent
HOSTILE: Final = "=\x1b]0;x\x9b31m\x07\x00\u202e\u2066\u2028\r\n\tfine [bold red]:smile:[/bold red]\x7f\ufeff"
AT: Final = format_rfc3339(NOON_MS)
# What rich itself writes: colours, and a cursor that it hides while there is progress.
_OWN: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
TEXTS: Final = st.text(st.characters(codec="utf-8"), max_size=40)


def record() -> dict[str, Any]:
    """Return a record whose every text is hostile."""
    told: dict[str, Any] = {}
    for column in PUBLIC:
        is_time = "DateTime64" in column.type
        told[column.name] = AT if is_time else 1 if "Int" in column.type else HOSTILE
    event = {"event_id": HOSTILE, "state": HOSTILE, "error_code": HOSTILE, "source": HOSTILE, "segment": 1}
    event |= {"occurred_at": AT, "gap_ms": 5, "after_ms": 5, "won": True}
    return {n: v for n, v in told.items() if "." not in n} | {
        "tags": [HOSTILE], "attributes": {HOSTILE: HOSTILE}, "timeline": [event], "why": [HOSTILE],
    }  # fmt: skip


def letter() -> dict[str, Any]:
    """Return a dead letter whose every text is hostile."""
    names = ("id", "reason", "detail", "fingerprint", "topic", "key", "value_text", "example_id", "first", "last")
    return dict.fromkeys(names, HOSTILE) | {
        "partition": 0, "offset": 1, "timestamp": AT, "landed": AT, "size": 3, "redriven": 1, "redriven_at": AT,
        "headers": [{"name": HOSTILE, "value": HOSTILE}], "count": 1,
    }  # fmt: skip


def lag() -> dict[str, Any]:
    """Return a lag whose every text is hostile."""
    agent = {
        "agent": HOSTILE, "partition": 1, "owner": HOSTILE, "committed": 1, "end": 2, "lag_events": 1,
        "lag_seconds": 1.0, "trend_events_per_second": 1.0, "watermark": AT, "status": "stalled",
    }  # fmt: skip
    settling = {
        "partition": 1, "open": 1, "oldest_open": AT, "due": {"1m": 1}, "checkpoint_age_seconds": 1,
        "flush_age_seconds": 1,
    }  # fmt: skip
    return {"status": "stalled", "why": HOSTILE, "at": AT, "settled_through": AT, "agents": [agent], "settling": [settling],
            "trouble": [HOSTILE]}  # fmt: skip


def answers(method: str, path: str) -> dict[str, Any]:
    """Return what a server says at a path."""
    credential = {"account_id": HOSTILE, "parent_id": HOSTILE, "key": HOSTILE, "secret": HOSTILE, "bearer": HOSTILE,
                  "scopes": [HOSTILE], "created_at": AT, "expires_at": AT, "revoked": False}  # fmt: skip
    row = dict.fromkeys(check.Row._fields, 1)
    found: dict[str, dict[str, Any]] = {
        "GET /mdr/records": {"records": [record()], "next_cursor": None, "settled_through": AT},
        "GET /mdr/trace/": {
            "message_id": HOSTILE, "records": [record()], "waiting": 1, "orphans": [record() | {"event_id": HOSTILE,
            "source": HOSTILE, "orphaned_at": AT}], "dead_letters": [letter()], "dead_letters_why": HOSTILE,
            "settled_through": AT},
        "GET /mdr/check": {
            "ok": True, "partitions": [row], "notes": [HOSTILE],
            "findings": [{"kind": "x", "partition": 0, "count": 1, "what": HOSTILE, "examples": [HOSTILE]}]},
        "GET /mdr/lag": lag(),
        "GET /mdr/dead-letters/summary": {"groups": [letter()], "scanned": 1, "truncated": False},
        "POST /mdr/dead-letters/redrive": {
            "would": 1, "dry_run": True, "refused": [{"id": HOSTILE, "why": HOSTILE}], "refused_total": 0,
            "outcomes": {HOSTILE: 1}, "remaining": 0, "truncated": False},
        "GET /mdr/dead-letters?": {
            "dead_letters": [letter()], "next_cursor": None, "total": 1, "scanned": 1, "truncated": True},
        "GET /mdr/dead-letters/": {"dead_letter": letter(), "now": HOSTILE},
        "GET /mdr/credentials": {"credentials": [credential]},
        "POST /mdr/credentials": credential,
        "DELETE /mdr/credentials": credential,
        "GET /mdr/audit": {"audit": [dict.fromkeys(audit.Entry._fields, HOSTILE) | {"at": AT, "detail": {HOSTILE: HOSTILE}}]},
        "POST /mdr/erasures": {
            "dry_run": False, "erasure_id": HOSTILE, "at": AT, "open_messages": {"messages": 1, "settled_by": HOSTILE},
            "erased": {"records": 1, "versions": 1, "orphan_receipts": 1, "reports": 1}},
        "GET /livez": {},
    }  # fmt: skip
    asked = f"{method} {path}" if "?" in path else f"{method} {path}?"
    return next(answer for start, answer in found.items() if asked.startswith(start))


COMMANDS: Final[dict[str, list[list[str]]]] = {
    "query": [["query"], ["query", "--json"], ["query", "--csv"]],
    "trace": [["trace", "m"], ["trace", "m", "--json"]],
    "check": [["check"], ["check", "--json"]],
    "lag": [["lag"], ["lag", "--json"]],
    "dead-letters": [
        ["dead-letters", "list"], ["dead-letters", "list", "--json"], ["dead-letters", "list", "--kinds"],
        ["dead-letters", "show", "x"], ["dead-letters", "show", "x", "--json"],
        ["dead-letters", "redrive", "x", "--dry-run"], ["dead-letters", "redrive", "x", "--dry-run", "--json"],
    ],
    "credentials": [
        ["credentials", "list"], ["credentials", "list", "--json"], ["credentials", "add", "a"],
        ["credentials", "add", "a", "--json"], ["credentials", "revoke", HOSTILE],
    ],
    "audit": [["audit"], ["audit", "--json"]],
    "erase": [["erase", "acme"], ["erase", "acme", "--dry-run", "--json"]],
    "topics": [["topics", "check"], ["topics", "check", "--json"]],
    "produce": [["produce", "sends", "{file}"]],
    "settings": [["settings"], ["settings", "--json"]],
}  # fmt: skip
# They print nothing that comes from outside.
OWN_WORDS: Final = {"api", "broker", "demo", "migrate", "simulate", "up", "worker"}


class Tty(io.StringIO):
    """A stream that says it is a terminal, so that nothing counts on a pipe."""

    def isatty(self) -> bool:
        """Say so."""
        return True


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A data directory of a process that serves, a broker and an environment, all of them hostile."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MDR_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("MDR_TOPIC_PREFIX", "ok.")
    monkeypatch.setattr(operator_file, "read", lambda _: operator_file.Operator("http://127.0.0.1:1", "k", "s"))
    monkeypatch.setattr(
        HttpClient, "_exchange", lambda _, method, path, __: (200, json.dumps(answers(method, path)).encode())
    )
    shown = [settings.Shown(*([HOSTILE] * len(settings.Shown._fields)))]
    monkeypatch.setattr(settings, "show", lambda: shown)
    monkeypatch.setattr(running, "with_running_broker", lambda wanted: wanted)
    monkeypatch.setattr(kafka, "check_topics", _told(4))
    monkeypatch.setattr(kafka, "misplaced", _told([HOSTILE]))
    monkeypatch.setattr(kafka, "retentions", _told({HOSTILE: 1, "b": -1, "c": None}))
    monkeypatch.setattr(feed, "_produce", _told(None))
    (tmp_path / "lines").write_text(json.dumps({"event_id": "e", "message_id": HOSTILE, HOSTILE: 1}))
    return tmp_path


def _told(value: Any) -> Any:
    async def tell(*_: Any) -> Any:
        return value

    return tell


def printed(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> tuple[str, str]:
    """Return what a command writes on a terminal: to stdout and to stderr."""
    out, err = Tty(), Tty()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setattr(sys, "argv", ["mdr", *arguments])
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "5000")
    streams.cli._main()
    return _OWN.sub("", out.getvalue()).replace("\r\n", "\n"), _OWN.sub("", err.getvalue()).replace("\r", "")


def assert_harmless(text: str) -> None:
    """Fail when text holds anything that a terminal does not simply show."""
    wrong = {c for c in text.replace("\n", "") if not c.isprintable()}
    assert not wrong, (wrong, text[:2_000])


@pytest.mark.parametrize("arguments", [a for some in COMMANDS.values() for a in some], ids=" ".join)
def test_no_command_prints_what_a_terminal_obeys(
    world: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    """Each command shows hostile ids, headers, bodies and settings escaped, and markup as it is."""
    out, err = printed(monkeypatch, [word.replace("{file}", str(world / "lines")) for word in arguments])
    assert "Traceback" not in err, err
    assert_harmless(out)
    assert_harmless(err)
    assert "[bold red]:smile:[/bold red]" in out + err or arguments[0] == "produce"  # which tells no values
    if "--json" in arguments:
        assert json.dumps(HOSTILE) in json.dumps([json.loads(line) for line in out.splitlines()])


def test_every_command_is_tried() -> None:
    """A new command is either run with hostile values or prints our own words alone."""
    assert set(COMMANDS) | OWN_WORDS == set(HOMES)


@pytest.mark.parametrize("arguments", [["query"], ["trace", "m"], ["check"], ["lag"], ["credentials", "list"]])
def test_errors_are_clean(world: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    """What a server says of a failure is one harmless line."""
    body = json.dumps({"detail": HOSTILE}).encode()
    monkeypatch.setattr(HttpClient, "_exchange", lambda *_: (500, body))
    out, err = printed(monkeypatch, arguments)
    assert out == "" and err.strip().count("\n") == 0 and "[bold red]" in err
    assert_harmless(err)


@pytest.mark.parametrize(
    "arguments",
    [[HOSTILE], ["query", f"--{HOSTILE}"], ["query", "--limit", HOSTILE], ["query", "--attribute", HOSTILE[1:]],
     ["dead-letters", "list", "--until", HOSTILE], ["produce", HOSTILE]],
    ids=lambda a: a[0] if a[0].isprintable() else "command",
)  # fmt: skip
def test_usage_errors_are_clean(world: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    """An argument that is wrong is quoted harmlessly."""
    assert_harmless("".join(printed(monkeypatch, arguments)))


def test_an_unexpected_failure_is_clean(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the traceback of a fault of ours shows no raw text."""

    def fail(*_: Any) -> Any:
        raise RuntimeError(HOSTILE)

    monkeypatch.setattr(HttpClient, "_exchange", fail)
    _, err = printed(monkeypatch, ["query"])
    assert "Traceback" in err
    assert_harmless(err)


def test_everything_is_printed_in_one_place() -> None:
    """No other file of the product writes to a terminal by itself."""
    wrong = []
    for path in (ROOT / "streams").rglob("*.py"):
        if path.name == "terminal.py":
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                "click.echo", "click.secho", "print", "Console", "sys.stdout.write", "sys.stderr.write", "rich.print",
                "csv.writer", "Text.assemble", "Text.from_markup",
            ):  # fmt: skip
                wrong.append(f"{path.name}:{node.lineno} {ast.unparse(node.func)}")
            if isinstance(node, ast.ImportFrom) and node.module in ("rich.text", "rich.markup", "rich.console"):
                wrong += [f"{path.name}: {n.name}" for n in node.names if n.name not in ("Group", "RenderableType")]
    assert not wrong


@given(text=TEXTS)
def test_clean_text_says_the_same(text: str) -> None:
    """Clean text is one printable line; printable text stays as it is; JSON stays the same JSON."""
    assert terminal.clean(text).isprintable()
    assert terminal.clean(terminal.clean(text)) == terminal.clean(text)
    assert not text.isprintable() or terminal.clean(text) == text
    shown = terminal.clean_json(msgspec.json.encode({"t": text}).decode())
    assert shown.isprintable() and json.loads(shown) == {"t": text}


# ---- formulas --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """An embedded store."""
    one = Store(f"chdb://{tmp_path_factory.mktemp('formulas')}")
    one.migrate(3_650, 3_650)
    yield one
    one.close()


@given(cells=st.lists(st.one_of(TEXTS, st.from_regex(r"[=+\-@\t\r\n\x00'][0-9+]{0,16}", fullmatch=True)), max_size=30))
def test_reports_and_the_command_line_have_one_rule(store: Store, cells: list[str]) -> None:
    """SQL and Python put the quote before the same cells, and before each that a spreadsheet would calculate."""
    for column in ("body", "from_number"):
        told = [formulas.safe(column, cell) for cell in cells]
        sql = f"SELECT {formulas.safe_sql(column)} FROM (SELECT arrayJoin({{cells:Array(String)}}) AS `{column}`)"  # noqa: S608  # our own words
        assert [row[0] for row in store.query(sql, {"cells": cells})] == told
        for cell, shown in zip(cells, told, strict=True):
            assert shown in (cell, f"'{cell}")
            is_number = column == "from_number" and cell[1:].isdigit() and cell[:1] == "+"
            assert is_number or not shown.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "\0"))


def test_csv_of_the_command_line_holds_no_formula(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`mdr query --csv` quotes what a spreadsheet would calculate, in a pipe as on a terminal; numbers stay."""
    told = record() | {"from_number": "=1+A1", "to_number": "+12125550101", "body": "=cmd|' /C calc'!A0", "provider": "\n1"}
    told |= {"error_code": "\x001"}
    answer = json.dumps({"records": [told], "next_cursor": None, "settled_through": AT}).encode()
    monkeypatch.setattr(HttpClient, "_exchange", lambda *_: (200, answer))
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "argv", ["mdr", "query", "--csv"])
    assert streams.cli._main() == 0
    (row,) = csv.DictReader(io.StringIO(out.getvalue(), newline=""))
    assert [row[n] for n in ("from_number", "to_number", "body", "provider", "error_code")] == [
        "'=1+A1", "+12125550101", "'=cmd|' /C calc'!A0", "'\n1", "'\x001",
    ]  # fmt: skip
