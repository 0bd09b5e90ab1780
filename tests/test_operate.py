"""`mdr check`, `mdr trace` and `mdr dead-letters`: the same answers alone and from the process that serves."""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from click.testing import CliRunner, Result

from streams import kafka
from streams.agents import Worker
from streams.cli import cli, operator_file, serving
from streams.settings import Settings, load
from tests import pipeline
from tests.test_dead_letters import GOOD

SENT: Final = GOOD % b"m1"
DONE: Final = b'{"event_id":"r","message_id":"m1","occurred_at":"2026-01-31T09:15:06.5Z","state":"delivered"}'
STRAY: Final = b'{"event_id":"r","message_id":"m2","occurred_at":"2026-01-31T09:15:06Z","state":"sent"}'
BAD: Final = GOOD.replace(b"+12125550101", b"nobody") % b"m3"


@pytest.fixture(scope="module")
def environ(kafka_at: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a store with a delivered message, an orphan, and a dead letter on its topic."""
    home = tmp_path_factory.mktemp("operate")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        http = f"127.0.0.1:{probe.getsockname()[1]}"
    told = {
        "MDR_KAFKA": kafka_at, "MDR_DATA_DIR": str(home), "MDR_TOPIC_PREFIX": "ops.", "MDR_PARTITIONS": "2",
        "MDR_SETTLING_WINDOW": "1s", "MDR_CHECKPOINT_INTERVAL": "500ms", "MDR_HTTP": http, "HOME": str(home),
    }  # fmt: skip
    asyncio.run(_work(load(told, home)))
    return told


async def _work(settings: Settings) -> None:
    await kafka.create_topics(settings)
    entries = (("sends", b"m1", SENT), ("receipts", b"m1", DONE), ("receipts", b"m2", STRAY), ("sends", b"m3", BAD))
    async with kafka.producing(settings) as client:
        for topic, key, value in entries:
            await client.send_and_wait(settings.topic_prefix + topic, value, key)
    worker = Worker(settings, await kafka.check_topics(settings))
    await worker.start()
    await pipeline.settle_all(worker, len(entries))
    await worker.stop()


@pytest.fixture(scope="module", params=["alone", "served"])
def mdr(request: pytest.FixtureRequest, environ: dict[str, str]) -> Iterator[Any]:
    """Runs a command; its exit code must be the one said."""

    def run(*arguments: str, code: int = 0) -> Result:
        result = CliRunner().invoke(cli, arguments, env=environ)
        assert result.exit_code == code, (result.output, result.exception)
        return result

    if request.param == "alone":
        yield run
        return
    home = Path(environ["MDR_DATA_DIR"])
    with _served(load(environ, home)):
        assert operator_file.read(home) is not None
        yield run


@contextmanager
def _served(settings: Settings) -> Iterator[None]:
    ready, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with serving.serving(settings, None):
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(60)
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


def _json(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_check_is_clean_over_a_run(mdr: Any) -> None:
    """Four events read: two in a record, one an orphan, one a dead letter; the exit code says that all is fine."""
    (told,) = _json(mdr("check", "--json"))
    assert (told["ok"], told["findings"], told["notes"]) == (True, [], [])
    rows = told["partitions"]
    names = ("read", "records", "orphans", "dead_letters", "difference")
    assert [sum(row[name] for row in rows) for name in names] == [4, 2, 1, 1, 0]
    assert "fine: everything adds up" in mdr("check").stdout


def test_trace_tells_events_gaps_and_why(mdr: Any) -> None:
    """The timeline has each event with its gap and source, and a sentence says what settled the message."""
    (told,) = _json(mdr("trace", "m1", "--json"))
    (record,) = told["records"]
    assert [(e["state"], e["gap_ms"]) for e in record["timeline"]] == [("queued", None), ("delivered", 2_500)]
    assert record["why"][0].startswith("Settled at once by the final receipt delivered (ops.receipts:")
    shown = mdr("trace", "m1").stdout
    assert "+2.5 s" in shown and "ops.sends:" in shown


def test_trace_of_an_unknown_id_tells_what_is_known(mdr: Any) -> None:
    """Orphans and dead letters have the id; of one nobody knows anything the exit code is 1."""
    (orphan,) = _json(mdr("trace", "m2", "--json"))
    assert (orphan["records"], [o["state"] for o in orphan["orphans"]]) == ([], ["sent"])
    (refused,) = _json(mdr("trace", "m3", "--json"))
    assert [letter["reason"] for letter in refused["dead_letters"]] == ["invalid_field"]
    assert "dead letters with this key" in mdr("trace", "m3").stdout
    mdr("trace", "nobody", code=1)


def test_dead_letters_are_listed_shown_and_judged(mdr: Any) -> None:
    """List, kinds, one with its bytes, and a dry run through the decoder; a letter that is named and refused is exit 1."""
    (letter,) = _json(mdr("dead-letters", "list", "--json"))
    assert (letter["key"], letter["topic"], letter["value_text"]) == ("m3", "ops.sends", BAD.decode())
    assert not _json(mdr("dead-letters", "list", "--json", "--until", letter["landed"]))
    assert "no dead letters fit" in mdr("dead-letters", "list", "--reason", "conflict").output
    (kind,) = _json(mdr("dead-letters", "list", "--kinds", "--json"))
    assert (kind["count"], kind["fingerprint"]) == (1, letter["fingerprint"])
    shown = mdr("dead-letters", "show", letter["id"]).stdout
    assert BAD.decode() in shown and "invalid_field to: " in shown
    (dry,) = _json(mdr("dead-letters", "redrive", "--all", "--dry-run", "--json"))
    assert (dry["would"], dry["outcomes"]) == (0, {"invalid_field": 1})
    told = mdr("dead-letters", "redrive", letter["id"], code=1).stdout
    assert "it would come back: invalid_field" in told and "sent 0 once more, 1 refused" in told


def test_usage_of_redrive(mdr: Any) -> None:
    """Without ids, filter or --all, with both, and --again without ids: usage errors, and nothing is sent."""
    for arguments in ((), ("--all", "x"), ("--all", "--again"), ("--key", "m3"), ("--until", "now")):
        assert "Error: " in mdr("dead-letters", "redrive", *arguments, code=2).output
    mdr("dead-letters", "show", "ops.dead-letters:0:77", code=1)
