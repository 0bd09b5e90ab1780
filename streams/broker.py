"""A real single-node Apache Kafka (KRaft) in the data directory: started, found, stopped; no Docker, no root.

Whether it runs is decided by a lock and not by a pid, which another process may have by now: the broker
holds `console.log` locked through its own standard output, and the kernel lets go of that however it dies.
All is in `<data_dir>/broker/`, by relative paths, so that any name will do and the directory can be moved:

    data/         the log segments             kafka.N.log    its log; 0 is the latest run's, then older ones
    lock          one start or stop at a time  console.log    what the JVM itself says
    port, pid     of the broker                *.properties   written anew at each start
    password      of the user `mdr`, in a secure one; other users of the machine can read neither it nor the settings
"""

import fcntl
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final
from uuid import uuid4

from streams.broker_jars import KAFKA_VERSION, BrokerError, exclusive, jars, java, one_sentence
from streams.broker_login import MECHANISM, Login
from streams.broker_port import HOST, answers, choose_port, free_port

__all__ = ["Broker", "BrokerError", "jars", "java", "start", "status", "stop"]

_ANSWER_S_MAX: Final = 60.0
_KILL_S_MAX: Final = 10.0
_POLL_S: Final = 0.05
_USER: Final = "mdr"
_SECURE_NEW: Final = "a broker with a password begins in a new MDR_DATA_DIR"
# A few segments' worth. On a full disk Kafka dies without a word: its log cannot be written either.
_FREE_BYTES_MIN: Final = 256 << 20
_JVM: Final = ("-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:+ExitOnOutOfMemoryError")
_MAIN: Final = ("-Djava.util.logging.config.file=logging.properties", "kafka.Kafka", "server.properties")
_FORMAT: Final = ("kafka.tools.StorageTool", "format", "--ignore-formatted", "--config=server.properties")
_NOISE: Final = ("WARNING: ", "Picked up ", "OpenJDK ")
_THROWN: Final = re.compile(r"^(?:Caused by: )?[\w.$]+(?:Exception|Error): (.+)$", re.MULTILINE)
_WATCH: Final = Path(__file__).with_name("broker_watch.py")

# - Retention counts from a record's own timestamp, and events may be back-dated by months: a limit in time
#   would delete them as they arrive. The limit is in bytes, for each partition; only whole segments go.
# - Offsets outlive any holiday: a group whose offsets are forgotten reads everything again.
# - A killed broker is let back in when its former session has run out: 2 s, where the default is 9.
# - One node has nobody to copy to, and a group of one machine nobody to wait for.
_SERVER: Final = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller}
listeners={protocol}://{host}:{port},CONTROLLER://{host}:{controller}
listener.security.protocol.map={protocol}:{protocol},CONTROLLER:{protocol}
security.inter.broker.protocol={protocol}
controller.listener.names=CONTROLLER
log.dirs=data
auto.create.topics.enable=false
log.retention.ms=-1
log.retention.bytes=536870912
log.segment.bytes=67108864
offsets.retention.minutes=525600
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
group.initial.rebalance.delay.ms=0
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
log.cleaner.dedupe.buffer.size=16777216
"""

# - Whoever is let in may do everything. The controller cannot check SCRAM, whose users are kept in its own log.
_SECURE: Final = f"""\
sasl.enabled.mechanisms={MECHANISM}
sasl.mechanism.inter.broker.protocol={MECHANISM}
sasl.mechanism.controller.protocol=PLAIN
listener.name.sasl_plaintext.{MECHANISM.lower()}.sasl.jaas.config=\
org.apache.kafka.common.security.scram.ScramLoginModule required username="{{user}}" password="{{password}}";
listener.name.controller.sasl.enabled.mechanisms=PLAIN
listener.name.controller.plain.sasl.jaas.config=\
org.apache.kafka.common.security.plain.PlainLoginModule required username="{{user}}" password="{{password}}" \
user_{{user}}="{{password}}";
"""

_LOGGING: Final = """\
handlers=java.util.logging.FileHandler
java.util.logging.FileHandler.pattern=kafka.%g.log
java.util.logging.FileHandler.limit=8000000
java.util.logging.FileHandler.count=4
java.util.logging.FileHandler.formatter=java.util.logging.SimpleFormatter
java.util.logging.SimpleFormatter.format=%1$tFT%1$tT.%1$tL%1$tz %4$s %3$s %5$s%6$s%n
"""


@dataclass(frozen=True, slots=True)
class Broker:
    """A broker that answers; `started` is False when it was found running, `login` None when it asks for none."""

    bootstrap: str
    pid: int
    data_dir: Path
    started: bool
    login: Login | None = field(default=None, repr=False)


def start(
    data_dir: Path,
    *,
    cache_dir: Path,
    tied_to_parent: bool = False,
    port: int | None = None,
    secure: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Broker:
    """The data directory's broker: the one that runs, else a new one, once it answers. Blocks for seconds.

    A `secure` one lets in who knows its password; once made so it stays so.
    A tied broker stops when this process ends, however it ends; another one lives until `stop`. BrokerError
    says in one sentence why there is none.
    """
    home = data_dir / "broker"
    with one_sentence(f"no broker can be started in {home}"), exclusive(home / "lock"):
        found = _awaited(data_dir)
        if found is None:
            class_path = ":".join(map(str, jars(cache_dir, say)))
            login = _login(home, secure)
            return _launch(data_dir, class_path, tied_to_parent, port, login, say)
    if secure and found.login is None:
        raise BrokerError(f"the broker of {data_dir} runs, and lets in every user of this machine: {_SECURE_NEW}")
    if port not in (None, _number(home / "port")):
        raise BrokerError(f"the broker of {data_dir} runs on {found.bootstrap}: stop it before it gets another port")
    return found


def stop(data_dir: Path, *, timeout_s: float = 30.0) -> bool:
    """Stops the data directory's broker cleanly, by force after `timeout_s`; False if none runs."""
    home = data_dir / "broker"
    with one_sentence(f"the broker of {data_dir} cannot be stopped"):
        if not home.is_dir():
            return False
        with exclusive(home / "lock"):
            ran = _runs(home)
            _end(home, timeout_s)
    return ran


def status(data_dir: Path) -> Broker | None:
    """The data directory's broker if it runs and answers."""
    home = data_dir / "broker"
    pid, port = _number(home / "pid"), _number(home / "port")
    login = _read_login(home)
    if pid is None or port is None or not _runs(home) or not answers(port, login):
        return None
    return Broker(f"{HOST}:{port}", pid, data_dir, started=False, login=login)


def _read_login(home: Path) -> Login | None:
    try:
        return Login(_USER, (home / "password").read_text().strip())
    except FileNotFoundError:
        return None


def _login(home: Path, secure: bool) -> Login | None:
    """Who signs in at a broker that is not started yet; users are made as its storage is."""
    known = _read_login(home)
    if known is None and secure:
        if _is_formatted(home):
            raise BrokerError(f"the broker in {home} was made without a password: {_SECURE_NEW}")
        _write_private(home / "password", secrets.token_urlsafe(24) + "\n")
    return _read_login(home)


def _is_formatted(home: Path) -> bool:
    return (home / "data" / "meta.properties").exists()


def _write_private(path: Path, text: str) -> None:
    """Writes a file that other users cannot read, not even for a moment."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def _awaited(data_dir: Path) -> Broker | None:
    """The broker that holds the directory, once it answers; None when there is none, or no longer."""
    home, deadline_s = data_dir / "broker", time.monotonic() + _ANSWER_S_MAX
    while _runs(home):
        found = status(data_dir)
        if found is not None:
            return found
        if time.monotonic() > deadline_s:
            raise BrokerError(f"the broker of {data_dir} runs but does not answer: see {home / 'kafka.0.log'}")
        time.sleep(_POLL_S)
    return None


def _launch(
    data_dir: Path, class_path: str, tied: bool, asked: int | None, login: Login | None, say: Callable[[str], None]
) -> Broker:  # fmt: skip
    home = data_dir / "broker"
    port = choose_port(home, asked, former=_number(home / "port"))
    free_bytes = shutil.disk_usage(home).free
    if free_bytes < _FREE_BYTES_MIN:
        raise BrokerError(f"no room in {home}: {free_bytes >> 20} MB are free, {_FREE_BYTES_MIN >> 20} are needed")
    command = [str(java()), *_JVM, "-cp", class_path]
    _write_settings(home, port, login)
    _format(home, command, login)
    say(f"starting Kafka {KAFKA_VERSION} on {HOST}:{port}")
    try:
        _spawn(home, [*command, *_MAIN], tied)
        found = _awaited(data_dir)
        if found is None:
            raise BrokerError(f"the broker died at start: {_why_dead(home)}")
    except BaseException:
        _end(home, timeout_s=5.0)
        raise
    return replace(found, started=True)


def _write_settings(home: Path, port: int, login: Login | None) -> None:
    controller, protocol = free_port(home, besides=port), "PLAINTEXT" if login is None else "SASL_PLAINTEXT"
    server = _SERVER.format(host=HOST, port=port, controller=controller, protocol=protocol)
    secure = "" if login is None else _SECURE.format(user=login.user, password=login.password)
    _write_private(home / "server.properties", server + secure)
    (home / "logging.properties").write_text(_LOGGING)
    (home / "port").write_text(f"{port}\n")


def _format(home: Path, command: list[str], login: Login | None) -> None:
    if _is_formatted(home):
        return
    # With `=`, as one id in 64 begins with a dash.
    cluster = "--cluster-id=" + urlsafe_b64encode(uuid4().bytes).decode().rstrip("=")
    user = [] if login is None else [f"--add-scram={MECHANISM}=[name={login.user},password={login.password}]"]
    # In a file, as every user can read every command line.
    _write_private(home / "format", "\n".join((*_FORMAT, cluster, *user)))
    done = subprocess.run([*command, "@format"], cwd=home, capture_output=True, text=True, check=False)
    (home / "format").unlink()
    if done.returncode != 0:
        raise BrokerError(f"the broker's storage in {home} cannot be formatted: {_last_words(done.stderr)}")


def _spawn(home: Path, command: list[str], tied: bool) -> None:
    """Starts the JVM with `console.log` locked for its lifetime, and its pid in `pid`."""
    (home / "pid").unlink(missing_ok=True)
    reader, writer = os.pipe()
    # The writing end stays open, on purpose, for as long as this process lives: a tied broker ends with it.
    with os.fdopen(reader, "rb") as tie, (home / "console.log").open("ab") as console:
        fcntl.flock(console, fcntl.LOCK_EX)
        console.truncate(0)
        watch = [sys.executable, "-I", "-S", str(_WATCH), "tied" if tied else "detached", "pid"]
        subprocess.run(
            [*watch, *command],
            cwd=home,
            stdin=tie if tied else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=console,
            start_new_session=True,
            check=False,
        )
    if not tied:
        os.close(writer)


def _end(home: Path, timeout_s: float) -> None:
    pid = _number(home / "pid")
    for number, patience_s in ((signal.SIGTERM, timeout_s), (signal.SIGKILL, _KILL_S_MAX)):
        deadline_s = time.monotonic() + patience_s
        if pid is not None and _runs(home):
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        while _runs(home) and time.monotonic() < deadline_s:
            time.sleep(_POLL_S)
    if _runs(home):
        raise BrokerError(f"the broker in {home} does not end")
    (home / "pid").unlink(missing_ok=True)


def _runs(home: Path) -> bool:
    """Whether a broker holds the directory, whatever it is doing."""
    try:
        with (home / "console.log").open("rb") as console:
            fcntl.flock(console, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _why_dead(home: Path) -> str:
    """What the JVM said, else the last reason in the broker's own log."""
    console = (home / "console.log").read_text(errors="replace")
    spoken = [line for line in console.splitlines() if line.strip() and not line.startswith(_NOISE)]
    log = home / "kafka.0.log"
    if not spoken and log.exists():
        return _last_words(log.read_text(errors="replace"))
    return _last_words(console)


def _last_words(text: str) -> str:
    thrown = _THROWN.findall(text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return str((thrown or lines or ["it said nothing"])[-1])
