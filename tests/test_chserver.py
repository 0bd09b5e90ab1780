"""The test server speaks enough of ClickHouse's HTTP interface, and fails as it is told to."""

import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import clickhouse_connect
import cramjam
import pyarrow as pa
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError

from tests.chserver import Fault
from tests.servers import Served, serve


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server of this module's own, with one table."""
    with serve(tmp_path_factory.mktemp("chserver")) as it:
        with connect(it) as client:
            client.command(
                "CREATE TABLE t (a Int64, b String, c Nullable(DateTime64(3, 'UTC'))) ENGINE = MergeTree ORDER BY a"
            )
        yield it


@pytest.fixture
def client(served: Served) -> Iterator[Any]:
    """A client of an empty table and a server without faults."""
    served.fault(Fault())
    with connect(served) as it:
        it.command("TRUNCATE TABLE t")
        yield it
    served.fault(Fault())


def connect(served: Served, **options: Any) -> Any:
    """As the product connects, but impatient."""
    return clickhouse_connect.get_client(
        host="127.0.0.1", port=served.port, send_receive_timeout=2, connect_timeout=2,
        **{"autogenerate_session_id": False, **options},
    )  # fmt: skip


def post(served: Served, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes, Any]:
    """One raw request."""
    request = urllib.request.Request(f"http://127.0.0.1:{served.port}{path}", body or None, headers)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as e:
        return e.code, e.read(), e.headers


AT = datetime(2026, 1, 5, 12, 0, 0, 123_000, UTC)


def test_rows_go_in_and_come_back(client: Any) -> None:
    """What is inserted natively is what is selected: integers, any text, instants to the millisecond, NULL."""
    rows = [(1, "it's\n\tü\\", AT), (2, "", None)]
    client.insert("t", rows, column_names=["a", "b", "c"])
    assert client.query("SELECT * FROM t ORDER BY a", tz_mode="aware").result_rows == rows


@pytest.mark.parametrize("form", [False, True])
def test_parameters_are_bound(served: Served, form: bool) -> None:
    """Bound parameters arrive as they are, in the URL or in a form, arrays and quotes included."""
    values = ["a'b", "c\\d", "ü", "\n"]
    with connect(served, form_encode_query_params=form) as client:
        assert client.query("SELECT {x:Array(String)}", parameters={"x": values}).result_rows == [(values,)]


@pytest.mark.parametrize("compression", [False, "lz4", "zstd", "gzip"])
def test_compressed_inserts_are_read(served: Served, client: Any, compression: Any) -> None:
    """An insert's body may be compressed in each way the client knows."""
    with connect(served, compress=compression) as other:
        other.insert("t", [(n, "x" * 100, None) for n in range(1_000)], column_names=["a", "b", "c"])
    assert client.query("SELECT count(), sum(a) FROM t").result_rows == [(1_000, 499_500)]


def test_arrow_goes_in_and_comes_out(client: Any) -> None:
    """Arrow is taken and given, with the columns that were named."""
    client.insert_arrow("t", pa.table({"a": [7], "b": ["seven"]}))
    assert client.query_arrow("SELECT a, b, c FROM t").to_pylist() == [{"a": 7, "b": "seven", "c": None}]


def test_a_raw_insert_may_be_split_over_url_and_body(served: Served, client: Any) -> None:
    """The statement may stand in the URL and its data in a compressed body."""
    body = bytes(cramjam.gzip.compress(b'{"a": 3, "b": "three"}'))
    status, _, _ = post(
        served, "/?query=INSERT%20INTO%20t%20FORMAT%20JSONEachRow", body, **{"Content-Encoding": "gzip"}
    )
    assert (status, client.query("SELECT a, b FROM t").result_rows) == (200, [(3, "three")])


def test_settings_last_for_their_request(client: Any) -> None:
    """A setting holds for the request it came with and for no other."""
    ask = "SELECT getSetting('max_threads')"
    before = client.query(ask).result_rows
    assert client.query(ask, settings={"max_threads": 3}).result_rows == [(3,)]
    assert client.query(ask).result_rows == before


def test_a_session_keeps_what_is_temporary(served: Served) -> None:
    """A temporary table lives in its session and nowhere else."""
    with connect(served, session_id="one") as mine, connect(served, session_id="two") as other:
        mine.command("CREATE TEMPORARY TABLE mine (a Int8)")
        assert mine.query("SELECT count() FROM mine").result_rows == [(0,)]
        with pytest.raises(DatabaseError, match="UNKNOWN_TABLE"):
            other.query("SELECT count() FROM mine")


def test_errors_are_clickhouses_own(served: Served) -> None:
    """A refused statement is told with its code as a header, its text, its name and the version."""
    status, body, headers = post(served, "/", b"SELECT * FROM nope")
    assert (status, headers["X-ClickHouse-Exception-Code"]) == (404, "60")
    assert body.startswith(b"Code: 60. DB::Exception: ")
    assert b"(UNKNOWN_TABLE) (version 2" in body


def test_ping_and_get(served: Served) -> None:
    """`/ping` says Ok., and a query may be asked with GET."""
    assert post(served, "/ping")[1] == b"Ok.\n"
    assert post(served, "/?query=SELECT%201%20AS%20one%20FORMAT%20JSONEachRow")[1] == b'{"one":1}\n'


@pytest.mark.parametrize("code", [241, 252, 319])
def test_a_code_is_given_as_often_as_told(served: Served, client: Any, code: int) -> None:
    """The next inserts fail with the code that was asked for, then they work again."""
    served.fault(Fault("code", count=2, code=code))
    for _ in range(2):
        with pytest.raises(DatabaseError, match=f"Code: {code}"):
            client.insert("t", [(1, "", None)], column_names=["a", "b", "c"])
    client.insert("t", [(1, "", None)], column_names=["a", "b", "c"])
    assert client.query("SELECT count() FROM t").result_rows == [(1,)]


def test_a_dropped_answer_leaves_the_rows(served: Served, client: Any) -> None:
    """With `drop` the insert is done and the client does not learn it; it tries twice by itself."""
    served.fault(Fault("drop", count=2))
    with pytest.raises(OperationalError):
        client.raw_insert("t", ["a"], b"1\n", fmt="CSV")
    assert client.query("SELECT uniqExact(a), count() > 0 FROM t").result_rows == [(1, 1)]


@pytest.mark.parametrize("kind", ["hang", "cut", "busy"])
def test_a_request_that_fails_does_nothing(served: Served, client: Any, kind: str) -> None:
    """A request that hangs, is cut off half-way or is turned away has inserted nothing."""
    served.fault(Fault(kind))
    with pytest.raises((OperationalError, DatabaseError)):
        client.insert("t", [(n, "x" * 100, None) for n in range(1_000)], column_names=["a", "b", "c"])
    served.fault(Fault())
    assert client.query("SELECT count() FROM t").result_rows == [(0,)]


def test_a_marked_insert_is_refused(served: Served, client: Any) -> None:
    """An insert that holds the marker is refused for good; others are not."""
    served.fault(Fault("marker", marker="bad one", code=117))
    with pytest.raises(DatabaseError, match="Code: 117"):
        client.insert("t", [(1, "a bad one", None), (2, "", None)], column_names=["a", "b", "c"])
    client.insert("t", [(2, "", None)], column_names=["a", "b", "c"])
    assert client.query("SELECT a FROM t").result_rows == [(2,)]


def test_nobody_listens_while_it_refuses(served: Served, client: Any) -> None:
    """With `refuse` the port is closed; afterwards the same port answers with the same data."""
    client.insert("t", [(1, "", None)], column_names=["a", "b", "c"])
    served.fault(Fault("refuse"))
    with pytest.raises(OperationalError):
        client.query("SELECT 1")
    served.fault(Fault())
    assert client.query("SELECT count() FROM t").result_rows == [(1,)]


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    """Rows that were acknowledged are there after kill -9, on the port that was asked for."""
    with serve(tmp_path) as first, connect(first) as client:
        client.command("CREATE TABLE k (a Int64) ENGINE = MergeTree ORDER BY a")
        client.insert("k", [(n,) for n in range(100)], column_names=["a"])
        first.process.kill()
        first.process.wait()
        port = first.port
    with serve(tmp_path, port) as again, connect(again) as client:
        assert client.query("SELECT count() FROM k").result_rows == [(100,)]
