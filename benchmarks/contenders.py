"""Who is measured, how each is started, and what is expected of it."""

import shutil
import sys
from pathlib import Path
from typing import Final, Literal, NamedTuple

from benchmarks.expect import Kind

# Flink's serializers want to look into the JDK's classes.
_OPEN: Final = ("--add-opens=java.base/java.util=ALL-UNNAMED", "--add-opens=java.base/java.lang=ALL-UNNAMED")
_JVM: Final = ("-Xmx3g", "-XX:+UseParallelGC", *_OPEN)
RAW: Final = "raw"
SINK: Final = "sink"
FAUST: Final = "faust"
FLINK: Final = ("flink-heap", "flink-rocksdb")
KSTREAMS: Final = ("kstreams-memory", "kstreams-rocksdb")


class Contender(NamedTuple):
    """One of them. `ends` is where its records are: nowhere, our tables, a topic, a table of the peers' rows."""

    name: str
    command: tuple[str, ...]
    ends: Literal["", "ours", "topic", "chdb"] = "chdb"
    kind: Kind = "once"
    state: str = ""
    jar: str = ""


def _python(name: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", name, *arguments)


def _java(home: Path, project: str, main: str, state: str, name: str) -> Contender:
    jar = home / project / f"{project}-1.jar"
    crash = f"-XX:ErrorFile={home / 'crash-%p.log'}"  # else it is left in the working directory
    command = ("java", *_JVM, crash, "-cp", f"{jar}:{home / project / 'lib'}/*", main)
    return Contender(name, command, "topic", state=state, jar=str(jar))


def contenders(java_home: Path) -> dict[str, Contender]:
    """All of them, in the order in which they run."""
    found = [
        Contender(RAW, _python("benchmarks.runs", "raw"), ends=""),
        Contender("ours", _python("benchmarks.runs", "ours"), ends="ours", kind="whole"),
        _java(java_home, "kstreams", "peers.KStreams", "memory", KSTREAMS[0]),
        _java(java_home, "kstreams", "peers.KStreams", "rocksdb", KSTREAMS[1]),
        _java(java_home, "flink", "peers.Flink", "memory", FLINK[0]),
        _java(java_home, "flink", "peers.Flink", "rocksdb", FLINK[1]),
        Contender("chnative", _python("benchmarks.peers.chnative"), kind="merged"),
        Contender(SINK, _python("benchmarks.peers.sink")),
        Contender(FAUST, _python("benchmarks.peers.faust_plain", "worker", "-l", "warn")),
    ]
    return {contender.name: contender for contender in found}


def why_not(contender: Contender) -> str:
    """Why it cannot run on this machine; "" when it can."""
    if contender.jar and shutil.which("java") is None:
        return "there is no java"
    if contender.jar and not Path(contender.jar).exists():
        return "it is not built: `make bench-peers`, which needs mvn and a JDK 17"
    return ""
