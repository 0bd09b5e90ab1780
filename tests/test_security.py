"""TLS and SASL against a real broker: everything connects the same way, and what does not is told in one true sentence."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streams import kafka, lag
from streams.clock import clock_ms
from streams.lag import Known
from streams.settings import Settings, SettingsError
from tests import pipeline, secured
from tests.secured import PASSWORD, USER, Secured
from tests.test_stopping import _send

MDR = [sys.executable, "-c", "from streams.cli import main; main()"]
SASL = {
    "PROTOCOL": "SASL_SSL", "MECHANISM": "SCRAM-SHA-512", "USERNAME": USER, "PASSWORD": PASSWORD, "CAFILE": "ca.crt",
}  # fmt: skip
MUTUAL = {"PROTOCOL": "SSL", "CAFILE": "ca.crt", "CERTFILE": "client.crt", "KEYFILE": "client.key"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """The broker of this file's tests."""
    with secured.serve(tmp_path_factory.mktemp("secured")) as served:
        yield served


def environ(server: Secured, kafka_at: str, how: dict[str, str], **more: str) -> dict[str, str]:
    """The settings of a connection; files by name."""
    files = {k: server.of(v) if k.endswith("FILE") and v else v for k, v in how.items()}
    return {"MDR_KAFKA": kafka_at, **{f"MDR_KAFKA_SECURITY_{k}": v for k, v in files.items()}, **more}


def make(server: Secured, kafka_at: str, how: dict[str, str], home: Path, prefix: str = "mdr.") -> Settings:
    """The same, read."""
    return pipeline.make_settings(kafka_at, home, prefix, **environ(server, kafka_at, how))


@pytest.mark.parametrize(("port", "how"), [("sasl", SASL), ("tls", MUTUAL)], ids=["SCRAM over TLS", "mutual TLS"])
def test_the_worker_works_over_tls(port: str, how: dict[str, str], server: Secured, tmp_path: Path) -> None:
    """It starts, reads, writes dead letters and commits; lag and dead letters are read the same way."""
    settings = make(server, getattr(server, port), how, tmp_path, f"{port}.")

    async def work() -> tuple[int, dict[Any, int], Any]:
        await kafka.create_topics(settings)
        async with pipeline.working(settings) as worker:
            await worker.start()
            async with kafka.producing(settings) as client:
                await client.send_and_wait(f"{port}.sends", _send(1), b"1")
                await client.send_and_wait(f"{port}.sends", b"{}", b"2")
            await pipeline.settle_all(worker, 2)
            records = worker.store.query("SELECT count() FROM mdr", {})[0][0]
            reader = lag.LagReader(settings)
            report = await reader.read(Known(), clock_ms())
            await reader.close()
        return int(records), await kafka.committed(settings), report

    records, committed, report = asyncio.run(work())
    assert records == 1
    assert sum(at for tp, at in committed.items() if tp.topic == f"{port}.sends") == 2
    assert sum(agent.lag_events for agent in report.agents) == 0
    letters = asyncio.run(pipeline.read_log(settings, (kafka.DEAD_LETTERS,)))
    assert len(letters) == 1


TROUBLES = {
    "wrong password": ("sasl", SASL | {"PASSWORD": "no"}, "USERNAME or MDR_KAFKA_SECURITY_PASSWORD is wrong"),
    "wrong user": ("sasl", SASL | {"USERNAME": "nobody"}, "it refuses the user 'nobody'"),
    "wrong mechanism": ("sasl", SASL | {"MECHANISM": "PLAIN"}, "MDR_KAFKA_SECURITY_MECHANISM is to be another"),
    "no sign-in": ("sasl", {"PROTOCOL": "SSL", "CAFILE": "ca.crt"}, "MDR_KAFKA_SECURITY_PROTOCOL is to be SASL_SSL"),
    "wrong authority": ("sasl", SASL | {"CAFILE": "other.crt"}, "an authority of MDR_KAFKA_SECURITY_CAFILE"),
    "no authority": ("sasl", SASL | {"CAFILE": ""}, "and MDR_KAFKA_SECURITY_CAFILE is empty"),
    "plain text to TLS": ("sasl", {}, "it speaks TLS: MDR_KAFKA_SECURITY_PROTOCOL is to be SSL or SASL_SSL"),
    "plain SASL to TLS": ("sasl", SASL | {"PROTOCOL": "SASL_PLAINTEXT"}, "_PROTOCOL is to be SASL_SSL"),
    "TLS to plain text": ("plain", MUTUAL, "MDR_KAFKA_SECURITY_PROTOCOL is to be PLAINTEXT"),
    "SASL where there is none": ("plain", SASL | {"PROTOCOL": "SASL_PLAINTEXT"}, "it lets nobody sign in"),
    "no certificate": ("tls", {"PROTOCOL": "SSL", "CAFILE": "ca.crt"}, "MDR_KAFKA_SECURITY_CERTFILE and"),
    "a stranger's certificate": (
        "tls", MUTUAL | {"CERTFILE": "stranger.crt", "KEYFILE": "stranger.key"}, "not accept the certificate of MDR_KAFKA",
    ),
}  # fmt: skip


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_connection_that_fails_is_told_in_one_true_sentence(trouble: str, server: Secured, tmp_path: Path) -> None:
    """It names the setting to change, for the commands that ask once and for the one that asks again and again."""
    port, how, says = TROUBLES[trouble]
    settings = make(server, getattr(server, port), how, tmp_path)
    with pytest.raises(kafka.KafkaUnavailable) as told:
        asyncio.run(kafka.check_topics(settings))
    assert says in str(told.value) and "\n" not in str(told.value)
    assert PASSWORD not in str(told.value)
    with pytest.raises(kafka.KafkaUnavailable) as again:
        asyncio.run(_lag(settings))
    assert says in str(again.value)


async def _lag(settings: Settings) -> None:
    reader = lag.LagReader(settings)
    try:
        await reader.read(Known(), clock_ms())
    finally:
        await reader.close()


def test_a_certificate_of_another_host_is_told(server: Secured, tmp_path: Path) -> None:
    """The certificate is for 127.0.0.1, not for localhost."""
    settings = make(server, server.sasl.replace("127.0.0.1", "localhost"), SASL, tmp_path)
    with pytest.raises(kafka.KafkaUnavailable, match="its certificate is not for localhost: MDR_KAFKA must"):
        asyncio.run(kafka.check_topics(settings))


@pytest.mark.parametrize(
    ("how", "says"),
    [
        (SASL | {"CAFILE": "nowhere.crt"}, "MDR_KAFKA_SECURITY_CAFILE .*nowhere.crt' cannot be read: No such file"),
        (SASL | {"CAFILE": "ca.key"}, "MDR_KAFKA_SECURITY_CAFILE .* holds no certificate in PEM"),
        (MUTUAL | {"KEYFILE": "encrypted.key"}, "MDR_KAFKA_SECURITY_KEYFILE .* holds an encrypted key"),
        (MUTUAL | {"KEYFILE": "stranger.key"}, "MDR_KAFKA_SECURITY_KEYFILE .* holds another key"),
        (MUTUAL | {"CERTFILE": "client.p12", "KEYFILE": ""}, "MDR_KAFKA_SECURITY_CERTFILE .* in PEM"),
        (MUTUAL | {"CERTFILE": ""}, "MDR_KAFKA_SECURITY_KEYFILE is of no use without MDR_KAFKA_SECURITY_CERTFILE"),
        (SASL | {"USERNAME": ""}, "MDR_KAFKA_SECURITY_USERNAME is empty"),
    ],
    ids=["no file", "no certificate", "encrypted", "another key", "PKCS12", "key alone", "no user"],
)
def test_files_of_no_use_are_told(how: dict[str, str], says: str, server: Secured, tmp_path: Path) -> None:
    """Before anything connects, and never by a traceback or a question for a password."""
    with pytest.raises(SettingsError, match=says):
        kafka.client_options(make(server, server.sasl, how, tmp_path))


COMMANDS = (["worker"], ["up"], ["lag"], ["topics", "check"], ["topics", "create"], ["produce", "sends", "-"], ["check"])


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_ends_with_the_sentence(command: list[str], server: Secured, tmp_path: Path) -> None:
    """None hangs, none shows a traceback, and each exits with 1."""
    how = environ(server, server.sasl, SASL | {"PASSWORD": "no"}, MDR_DATA_DIR=str(tmp_path), MDR_HTTP="127.0.0.1:0")
    done = subprocess.run(
        [*MDR, *command], env=os.environ | how, capture_output=True, text=True, timeout=100, check=False,
        input=_send(1).decode() if "produce" in command else "",
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("mdr: ") and "MDR_KAFKA_SECURITY_PASSWORD is wrong" in last
    assert "Traceback" not in done.stderr
