"""The local broker against the real thing: a Kafka started, found, stopped, killed and refused."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from streams import broker
from streams.broker import Broker, BrokerError

CACHE = Path.home() / ".cache" / "mdr"
LONG_AGO_MS = 946_684_800_000


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker of this module's own; its directory's name needs care wherever it is quoted."""
    data_dir = tmp_path_factory.mktemp("broker") / "dätä, with=all"
    yield broker.start(data_dir, cache_dir=CACHE)
    broker.stop(data_dir)


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    """A directory whose broker does not outlive the test."""
    yield tmp_path
    broker.stop(tmp_path, timeout_s=5.0)


def wait_until(true: Callable[[], bool], timeout_s: float = 15.0) -> bool:
    """Whether it came true in time."""
    deadline_s = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.05)
    return True


async def declare(bootstrap: str, topic: str) -> dict[str, str]:
    """Creates the topic; gives back the settings it got from the broker."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1)])
        (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
        return {entry[0]: entry[1] for entry in answer.resources[0][4]}
    finally:
        await admin.close()


async def produce(bootstrap: str, topic: str, value: bytes) -> None:
    """One record, back-dated by decades."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, compression_type="lz4")
    await producer.start()
    try:
        await producer.send_and_wait(topic, value, partition=0, timestamp_ms=LONG_AGO_MS)
    finally:
        await producer.stop()


async def consume(bootstrap: str, topic: str, count: int) -> list[tuple[bytes, int]]:
    """The first records of the topic, read in a group that commits."""
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=bootstrap, group_id=f"of-{topic}", auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        records = [await asyncio.wait_for(consumer.getone(), 20) for _ in range(count)]
        await consumer.commit({TopicPartition(topic, 0): records[-1].offset + 1})
        return [(record.value, record.timestamp) for record in records]
    finally:
        await consumer.stop()


def test_what_is_produced_is_consumed(running: Broker) -> None:
    """A started broker takes topics and records, and keeps the records' own timestamps."""

    async def there_and_back() -> list[tuple[bytes, int]]:
        await declare(running.bootstrap, "there")
        await produce(running.bootstrap, "there", b"and back")
        return await consume(running.bootstrap, "there", 1)

    assert running.started
    assert asyncio.run(there_and_back()) == [(b"and back", LONG_AGO_MS)]


def test_back_dated_records_are_not_aged_out(running: Broker) -> None:
    """A topic is bounded in bytes and not in time: its records may be older than any limit."""
    settings = asyncio.run(declare(running.bootstrap, "kept"))
    assert settings["retention.ms"] == "-1"
    assert int(settings["retention.bytes"]) > 0


def test_a_second_start_finds_the_first(running: Broker) -> None:
    """A start where a broker runs gives back that broker, and says that it did not start it."""
    said: list[str] = []
    found = broker.start(running.data_dir, cache_dir=CACHE, say=said.append)
    assert found == Broker(running.bootstrap, running.pid, running.data_dir, started=False)
    assert broker.status(running.data_dir) == found
    assert said == []


def test_a_running_broker_does_not_move(running: Broker) -> None:
    """Asking for another port than the running broker's is an error that names the address it has."""
    with pytest.raises(BrokerError, match=rf"runs on {running.bootstrap}: stop it"):
        broker.start(running.data_dir, cache_dir=CACHE, port=1)


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    """A port that another program listens on is refused in a sentence that names it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BrokerError) as error:
            broker.start(tmp_path, cache_dir=CACHE, port=port)
    assert str(error.value) == f"port {port} on 127.0.0.1 cannot be used: another program has it"


def test_an_impossible_port_is_named(tmp_path: Path) -> None:
    """A number that is no port is refused in a sentence that names it."""
    with pytest.raises(BrokerError, match=r"^port 70000 on 127\.0\.0\.1 cannot be used: it is not between"):
        broker.start(tmp_path, cache_dir=CACHE, port=70_000)


def test_a_data_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """A data directory that cannot be made is told in a sentence that names it."""
    (tmp_path / "file").write_text("")
    with pytest.raises(BrokerError) as error:
        broker.start(tmp_path / "file", cache_dir=CACHE)
    assert str(error.value) == f"no broker can be started in {tmp_path}/file/broker: Not a directory"


def test_nothing_runs_where_nothing_was_started(tmp_path: Path) -> None:
    """Without a broker, status is None, stop is False, and neither leaves anything behind."""
    assert broker.status(tmp_path) is None
    assert broker.stop(tmp_path) is False
    assert list(tmp_path.iterdir()) == []


def test_starts_at_the_same_time_start_one(data_dir: Path) -> None:
    """Of two starts at once one starts the broker and the other finds it; after a stop there is none."""
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: broker.start(data_dir, cache_dir=CACHE), range(2))
    assert (first.bootstrap, first.pid) == (second.bootstrap, second.pid)
    assert sorted([first.started, second.started]) == [False, True]
    assert broker.stop(data_dir) is True
    assert broker.status(data_dir) is None
    assert broker.stop(data_dir) is False


CHILD = """
import sys
from pathlib import Path
from streams import broker
data_dir, cache_dir, tied = sys.argv[1:]
print(broker.start(Path(data_dir), cache_dir=Path(cache_dir), tied_to_parent=tied == "tied").pid, flush=True)
sys.stdin.read()
"""


def child_that_starts(data_dir: Path, kind: str) -> tuple[subprocess.Popen[str], Broker]:
    """Another process that has started the broker and lives on, and that broker as found here."""
    command = [sys.executable, "-c", CHILD, str(data_dir), str(CACHE), kind]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    pid = int(child.stdout.readline())
    found = broker.status(data_dir)
    assert found is not None
    assert found.pid == pid
    return child, found


def test_a_broker_outlives_its_starter_and_comes_back_after_a_kill(data_dir: Path) -> None:
    """It runs on when its starter ends; after kill -9 the next start has its records, offsets and port."""
    child, before = child_that_starts(data_dir, "detached")
    child.communicate()
    asyncio.run(declare(before.bootstrap, "survivor"))
    asyncio.run(produce(before.bootstrap, "survivor", b"1"))
    assert asyncio.run(consume(before.bootstrap, "survivor", 1)) == [(b"1", LONG_AGO_MS)]
    os.kill(before.pid, signal.SIGKILL)
    assert wait_until(lambda: broker.status(data_dir) is None)
    after = broker.start(data_dir, cache_dir=CACHE)
    assert (after.started, after.bootstrap) == (True, before.bootstrap)
    asyncio.run(produce(after.bootstrap, "survivor", b"2"))
    assert asyncio.run(consume(after.bootstrap, "survivor", 1)) == [(b"2", LONG_AGO_MS)]


def test_a_tied_broker_goes_with_its_parent(data_dir: Path) -> None:
    """When the parent of a tied broker is killed with SIGKILL, the broker shuts down cleanly by itself."""
    child, _ = child_that_starts(data_dir, "tied")
    child.kill()
    child.communicate()
    # Kafka leaves this file when it has closed everything, and only then.
    clean = data_dir / "broker" / "data" / ".kafka_cleanshutdown"
    assert wait_until(clean.exists)
    assert broker.status(data_dir) is None


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A data directory without room for a few segments is told in one sentence, before Kafka fails in it."""
    monkeypatch.setattr(broker, "_FREE_BYTES_MIN", 1 << 70)
    with pytest.raises(BrokerError, match=rf"^no room in {tmp_path}/broker: \d+ MB are free, \d+ are needed$"):
        broker.start(tmp_path, cache_dir=CACHE)


def test_a_broker_that_dies_says_why(tmp_path: Path) -> None:
    """A broker that dies while starting is told with the reason in its log, and nothing stays behind."""
    data = tmp_path / "broker" / "data"
    data.mkdir(parents=True)
    (data / "meta.properties").write_text("version=1\ncluster.id=c\nnode.id=7\n")
    with pytest.raises(BrokerError, match=r"^the broker died at start: Stored node id 7") as error:
        broker.start(tmp_path, cache_dir=CACHE)
    assert "\n" not in str(error.value)
    assert broker.status(tmp_path) is None


def test_no_network_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jars that are neither cached nor to be had are told in one sentence, after saying what is fetched."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    said: list[str] = []
    with pytest.raises(BrokerError, match=r"^cannot fetch \S+ from Maven Central: no network, or no answer"):
        broker.start(tmp_path / "data", cache_dir=tmp_path / "cache", say=said.append)
    assert said == ["fetching Kafka 4.1.2 (47 jars, once)"]


def test_only_pinned_content_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cached jar that is not byte for byte the pinned one is not used but fetched again."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    for jar in broker.jars(CACHE):
        copy = tmp_path / jar.relative_to(CACHE)
        copy.parent.mkdir(parents=True)
        copy.symlink_to(jar)
    assert len(broker.jars(tmp_path)) == 47
    copy.unlink()
    copy.write_bytes(b"something else")
    with pytest.raises(BrokerError, match=f"cannot fetch .*:{copy.parent.name} from Maven Central"):
        broker.jars(tmp_path)


def test_the_java_is_new_enough_for_kafka() -> None:
    """The Java found runs, and is 17 or newer."""
    said = subprocess.run([broker.java(), "-version"], capture_output=True, text=True, check=True).stderr
    assert int(said.split('"')[1].split(".")[0]) >= 17
