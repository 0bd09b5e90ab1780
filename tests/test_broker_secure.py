"""The local broker with a password: our commands find it by themselves, and other users of the machine do not."""

import asyncio
import os
import re
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from streams import broker, kafka
from streams import running as runs
from streams.broker import Broker, BrokerError
from streams.broker_login import Login, ask, sign_in
from streams.settings import Settings, load
from tests.test_stopping import _send

MDR = [sys.executable, "-c", "from streams.cli import main; main()"]
CACHE = load().cache_dir


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A secure broker of this module's own."""
    data_dir = tmp_path_factory.mktemp("secure") / "dätä, with=all"
    yield broker.start(data_dir, cache_dir=CACHE, tied_to_parent=True, secure=True)
    broker.stop(data_dir)


def mdr(data_dir: Path, *arguments: str, text: str = "") -> "subprocess.CompletedProcess[str]":
    """A command that is told the data directory and nothing else."""
    environ = {n: v for n, v in os.environ.items() if not n.startswith("MDR_")} | {"MDR_DATA_DIR": str(data_dir)}
    return subprocess.run(
        [*MDR, *arguments], env=environ, capture_output=True, text=True, input=text, timeout=100, check=False
    )


def controller_answers(data_dir: Path) -> bool:
    """Whether the controller tells of the cluster without a sign-in (DescribeCluster v0)."""
    controller = re.search(r"CONTROLLER://127.0.0.1:(\d+)", (data_dir / "broker/server.properties").read_text())
    assert controller is not None
    with socket.create_connection(("127.0.0.1", int(controller[1])), 5) as connection:
        try:
            return bool(ask(connection, 60, 0, bytes(3)))
        except OSError:
            return False


def settings_of(found: Broker) -> Settings:
    """What a command makes of the data directory."""
    return runs.with_running_broker(load({"MDR_DATA_DIR": str(found.data_dir), "HOME": "/nowhere"}, found.data_dir))


def test_commands_find_the_password_by_themselves(running: Broker) -> None:
    """Topics are created, events produced and the lag read, without a setting."""
    created = mdr(running.data_dir, "topics", "create")
    assert created.returncode == 0, created.stderr
    produced = mdr(running.data_dir, "produce", "sends", text=_send(1).decode() + "\n")
    assert produced.returncode == 0, produced.stderr
    told = mdr(running.data_dir, "broker", "status", "--json")
    assert '"secure":true' in told.stdout
    assert running.login is not None and running.login.password not in told.stdout + created.stderr + repr(running)


def test_nobody_is_let_in_without_the_password(running: Broker) -> None:
    """Neither without signing in nor by another password, at the port of clients and at that of the controller."""
    there = settings_of(running)
    for change in (
        {"MDR_KAFKA_SECURITY_PROTOCOL": "PLAINTEXT"},
        {
            "MDR_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT", "MDR_KAFKA_SECURITY_MECHANISM": "SCRAM-SHA-512",
            "MDR_KAFKA_SECURITY_USERNAME": "mdr", "MDR_KAFKA_SECURITY_PASSWORD": "guess",
        },
    ):  # fmt: skip
        other = load({"MDR_KAFKA": there.kafka, "HOME": "/nowhere"} | change, running.data_dir)
        with pytest.raises(kafka.KafkaUnavailable, match=r"it wants a user to sign in|it refuses the user 'mdr'"):
            asyncio.run(kafka.check_topics(other))
    assert not controller_answers(running.data_dir)


def test_signing_in_by_hand(running: Broker) -> None:
    """The right password is let in, another is not."""
    port = int(running.bootstrap.rsplit(":", 1)[1])
    assert running.login is not None
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        sign_in(connection, running.login)
    with socket.create_connection(("127.0.0.1", port), 5) as connection, pytest.raises(OSError):
        sign_in(connection, Login(running.login.user, running.login.password + "x"))


def test_the_password_is_in_nobody_elses_sight(running: Broker) -> None:
    """Only files that their owner alone can read hold it, and no command line does."""
    assert running.login is not None
    home = running.data_dir / "broker"
    holding = [p for p in home.iterdir() if p.is_file() and running.login.password.encode() in p.read_bytes()]
    assert sorted(p.name for p in holding) == ["password", "server.properties"]
    assert all(stat.S_IMODE(p.stat().st_mode) == 0o600 for p in holding)
    assert running.login.password not in Path(f"/proc/{running.pid}/cmdline").read_text()


def test_a_broker_stays_as_it_was_made(running: Broker, tmp_path: Path) -> None:
    """A secure one is so at each start; one that was made without a password is not made secure later, and says so."""
    broker.stop(running.data_dir)
    again = broker.start(running.data_dir, cache_dir=CACHE, tied_to_parent=True)
    assert again.login == running.login
    (tmp_path / "broker" / "data").mkdir(parents=True)
    (tmp_path / "broker" / "data" / "meta.properties").touch()
    with pytest.raises(BrokerError, match=r"was made without a password: .* new MDR_DATA_DIR"):
        broker.start(tmp_path, cache_dir=CACHE, secure=True)


def test_an_open_broker_is_said_to_be_open(tmp_path: Path) -> None:
    """One line says who can reach it, and a secure one is not found where an open one runs."""
    try:
        started = mdr(tmp_path, "broker", "start")
        assert started.returncode == 0, started.stderr
        assert "every user of this machine can read and write the local broker" in started.stderr
        assert controller_answers(tmp_path)
        refused = mdr(tmp_path, "broker", "start", "--secure")
        assert refused.returncode == 1 and "lets in every user of this machine" in refused.stderr
    finally:
        broker.stop(tmp_path)
