"""What other users of the machine can get at: nothing that is stored, and no secret by listening (`streams.private`)."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from api import proof
from api.client import ClientError, HttpClient, Impostor
from streams import broker, private
from streams.cli import asking, operator_file
from streams.cli.operator_file import Operator, OperatorFileUnsafe
from streams.settings import load
from tests.test_cli_credentials import api, lines, mdr

SECRET = "the-operators-secret"


def open_to_others(top: Path) -> list[str]:
    """What below a directory, itself included, others may read, write or enter."""
    found = [top, *top.rglob("*")]
    return [str(p) for p in found if not p.is_symlink() and stat.S_IMODE(p.stat().st_mode) & 0o077]


class Listener:
    """Listens on a port, keeps every byte it is sent and answers each request with what it was told to answer."""

    def __init__(self, answer: Any) -> None:
        self.heard = b""
        self.headers = b""
        self._answer = answer
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            # Who hears what it does not believe hangs up, maybe before it has read all.
            with connection, contextlib.suppress(ConnectionError):
                connection.settimeout(10)
                while (request := self._request(connection)) != b"":
                    body = json.dumps(self._answer(request, self.url)).encode()
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n%s" % (len(body), self.headers, body))

    def _request(self, connection: socket.socket) -> bytes:
        request = b""
        while b"\r\n\r\n" not in request:
            data = connection.recv(65_536)
            self.heard += data
            request += data
            if not data:
                return b""
        return request

    def close(self) -> None:
        """Stops listening."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


@contextmanager
def listening(answer: Any) -> Iterator[Listener]:
    """A listener that is no `mdr`."""
    listener = Listener(answer)
    try:
        yield listener
    finally:
        listener.close()


def nonce_in(request: bytes) -> str:
    """The nonce of a request for a proof; `""` when it is another one."""
    return request.partition(b"nonce=")[2].partition(b" ")[0].decode()


def honest(request: bytes, url: str) -> dict[str, Any]:
    """What who knows the secret answers."""
    return {"proof": proof.proof(SECRET, nonce_in(request), url), "live": True}


# ---- the operator's credential -------------------------------------------------------------------------------

IMPOSTORS: dict[str, Any] = {
    "says it is live": lambda request, url: {"live": True},
    "another secret": lambda request, url: {"proof": proof.proof("guessed", nonce_in(request), url)},
    "another address": lambda request, url: {"proof": proof.proof(SECRET, nonce_in(request), "http://127.0.0.1:1")},
    "another nonce": lambda request, url: {"proof": proof.proof(SECRET, "x" * 43, url)},
    "an empty proof": lambda request, url: {"proof": ""},
    "no object": lambda request, url: ["proof"],
    "a large answer": lambda request, url: {"proof": "x" * 100_000},
}


@pytest.mark.parametrize("name", list(IMPOSTORS))
def test_an_impostor_is_told_nothing(tmp_path: Path, name: str) -> None:
    """Whoever listens at the operator's address without knowing the secret is not believed and hears no credential."""
    with listening(IMPOSTORS[name]) as fake, operator_file.kept(tmp_path, Operator(fake.url, "operator", SECRET)):
        with pytest.raises(Impostor, match="is not the mdr of this data directory"):
            asking.answering(load({"MDR_DATA_DIR": str(tmp_path)}, tmp_path))
        told = mdr(tmp_path, "credentials", "list", code=1)
        assert "is not the mdr of this data directory" in told.stderr
    assert b"nonce=" in fake.heard
    assert SECRET.encode() not in fake.heard and b"authorization" not in fake.heard.lower()


def test_who_knows_the_secret_is_believed(tmp_path: Path) -> None:
    """The credential goes to who proves to know it, on the connection that the proof came over."""
    with listening(honest) as listener, operator_file.kept(tmp_path, Operator(listener.url, "operator", SECRET)):
        assert asking.answering(load({"MDR_DATA_DIR": str(tmp_path)}, tmp_path)) is not None
    assert listener.heard.count(b"nonce=") == 1 and listener.heard.count(SECRET.encode()) == 1


def test_no_second_connection_is_made_after_the_proof() -> None:
    """When the connection ends after the proof, the credential is not sent over another one to whoever listens then."""
    with listening(honest) as listener:
        listener.headers = b"Connection: close\r\n"
        with pytest.raises(ClientError):
            HttpClient(listener.url, "operator", SECRET, is_operator=True).get("/livez")
    assert listener.heard.count(b"nonce=") == 1 and SECRET.encode() not in listener.heard


def test_every_command_asks_for_the_proof(tmp_path: Path) -> None:
    """A real process proves itself to a real command, and one that was killed leaves a trace that is removed."""
    with api(tmp_path) as url:
        told = json.loads((tmp_path / "operator.json").read_text())
        assert told["url"] == url and not open_to_others(tmp_path)
        made = lines(mdr(tmp_path, "credentials", "add", "acme", "--json"))[0]
        assert HttpClient(url, "operator", told["secret"], is_operator=True).get("/mdr/credentials")["credentials"]
        with pytest.raises(Impostor):
            HttpClient(url, made["key"], made["secret"], is_operator=True).get("/mdr/records")
    assert not (tmp_path / "operator.json").exists()


def test_a_trace_is_removed(tmp_path: Path) -> None:
    """A file that no living process holds is nobody's: it is not believed whoever listens there, and goes away."""
    with listening(honest) as listener:
        (tmp_path / "operator.json").write_bytes(msgspec.json.encode(Operator(listener.url, "operator", SECRET)))
        assert operator_file.read(tmp_path) is None
    assert listener.heard == b"" and not (tmp_path / "operator.json").exists()


def test_a_killed_process_leaves_a_trace_only(tmp_path: Path) -> None:
    """The lock ends with the process, however that ends."""
    code = (
        "import os, sys; from pathlib import Path; from streams.cli.operator_file import Operator, kept\n"
        "with kept(Path(sys.argv[1]), Operator('http://127.0.0.1:1', 'operator', 's')):\n"
        "    print('kept', flush=True); sys.stdin.read(1); os.kill(os.getpid(), 9)"
    )
    given = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(given, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parent.parent) as run:
        assert run.stdout is not None and run.stdout.readline() == b"kept\n"
        assert operator_file.read(tmp_path) is not None
        run.communicate(b"x")
    assert (tmp_path / "operator.json").exists()
    assert operator_file.read(tmp_path) is None and not (tmp_path / "operator.json").exists()


def test_of_two_processes_the_later_is_found(tmp_path: Path) -> None:
    """A second process on the directory replaces the file; the first takes nothing away when it ends."""
    with operator_file.kept(tmp_path, Operator("http://127.0.0.1:2", "operator", "second")):
        first = operator_file.kept(tmp_path, Operator("http://127.0.0.1:1", "operator", "first"))
        first.__enter__()
        with operator_file.kept(tmp_path, Operator("http://127.0.0.1:3", "operator", "third")):
            first.__exit__(None, None, None)
            found = operator_file.read(tmp_path)
            assert found is not None and found.secret == "third"
    assert not list(tmp_path.iterdir())


def _symlink(at: Path) -> None:
    (at.parent / "elsewhere").write_text("{}")
    at.symlink_to(at.parent / "elsewhere")


@pytest.mark.parametrize(
    ("make", "why"),
    [(_symlink, "symbolic link"), (os.mkfifo, "no regular file"), (os.mkdir, "no regular file")],
)  # fmt: skip
def test_what_is_no_file_of_ours_is_refused(tmp_path: Path, make: Any, why: str) -> None:
    """A link, a pipe or a directory in the file's place is an error that says so, and a command waits for nothing."""
    make(tmp_path / "operator.json")
    with pytest.raises(OperatorFileUnsafe, match=why):
        operator_file.read(tmp_path)
    assert why in mdr(tmp_path, "credentials", "list", code=1).stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_another_users_file_is_refused(tmp_path: Path) -> None:
    """A file that another user put there is not read, locked or not."""
    with operator_file.kept(tmp_path, Operator("http://127.0.0.1:1", "operator", "s")):
        os.chown(tmp_path / "operator.json", 12345, 12345)
        with pytest.raises(OperatorFileUnsafe, match="another user"):
            operator_file.read(tmp_path)


def test_a_file_that_others_could_read_is_refused(tmp_path: Path) -> None:
    """A secret that was open to others is not used."""
    with operator_file.kept(tmp_path, Operator("http://127.0.0.1:1", "operator", "s")):
        (tmp_path / "operator.json").chmod(0o644)
        with pytest.raises(OperatorFileUnsafe, match="open to other users"):
            operator_file.read(tmp_path)


# ---- what is stored ------------------------------------------------------------------------------------------


def test_what_is_stored_is_ours_alone(tmp_path: Path) -> None:
    """The directory, the embedded store, keys and reports: nothing that a command makes is open to other users."""
    home = tmp_path / "made" / "by us"
    mdr(home, "credentials", "add", "acme")
    with api(home):
        mdr(home, "credentials", "add", "acme")
        assert not open_to_others(home)
    assert {"chdb", "reports", "seal.keys"} <= {path.name for path in home.iterdir()} and not open_to_others(home)


def test_what_was_open_is_closed_at_start(tmp_path: Path) -> None:
    """A directory of an older version is closed with all that is in it; links lead nowhere, and no bit of ours is lost."""
    outside = tmp_path / "outside"
    outside.write_text("not ours to close")
    outside.chmod(0o644)
    home = tmp_path / "home"
    (home / "broker" / "data").mkdir(parents=True)
    (home / "broker" / "data" / "0.log").write_text("entries")
    (home / "run").write_text("a program")
    (home / "run").chmod(0o755)
    (home / "link").symlink_to(outside)
    for path, mode in ((home, 0o755), (home / "broker", 0o777), (home / "broker" / "data" / "0.log", 0o666)):
        path.chmod(mode)
    mdr(home, "credentials", "list")
    assert not open_to_others(home)
    assert stat.S_IMODE((home / "run").stat().st_mode) == 0o700
    assert stat.S_IMODE(outside.stat().st_mode) == 0o644


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_somebody_else_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is another user's is left as it is, and said."""
    tmp_path.chmod(0o755)
    os.chown(tmp_path, 12345, 12345)
    private.directory(tmp_path)
    assert "belongs to another user" in caplog.text and stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_the_brokers_files_are_ours_alone(tmp_path: Path) -> None:
    """A real broker that a command starts writes its log where nobody else can read it."""
    try:
        mdr(tmp_path, "broker", "start")
        assert (tmp_path / "broker" / "data" / "meta.properties").exists()
        assert not open_to_others(tmp_path)
    finally:
        broker.stop(tmp_path)
