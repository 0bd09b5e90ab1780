"""No pattern or value of a caller is a fault of ours: ugly values in every query parameter of every list path."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote_from_bytes

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from litestar.testing import TestClient

from api import auth
from api.cursor import Key, encode_cursor
from api.query import QUERY_SECONDS_MAX
from api.vendors import carrierx, plivo
from api.where import SCALARS
from streams.simulate import Plan
from streams.store import Store
from tests.api_support import OPERATOR, START_MS, Clock, basic, fill, served

CUT_MS: Final = START_MS + 5 * 3_600_000
ACCOUNT: Final = "parcelbird"
KEY: Final = "MAXXXXXXXXXXXXXXXXXX"
# Statements of one answer; each has its own bound.
STATEMENTS_MAX: Final = 6

NATIVE: Final = ("start", "end", *SCALARS, "tags", "attributes.k", "attributes.", "attributes.'", "nobody")
PATHS: Final[dict[str, tuple[str, ...]]] = {
    "/mdr/records": (*NATIVE, "limit", "cursor", "include"),
    "/mdr/stats": (*NATIVE, "by"),
    "/mdr/reports": ("limit", "nobody"),
    "/ui/records": ("range", "start", "end", "state", "cursor", "include", "also", "is", "account_id", "number"),
    "/ui/messages": ("id", "q"),
    "/core/v2/sms/message_drs": ("limit", "offset", "order", "filter", "after", "before", "fields", "includeFields"),
    "/v2/messages": ("start_date", "end_date", "limit", "offset"),
    "/v2.1/messages": ("start_date", "end_date", "limit", "offset"),
    f"/v1/Account/{KEY}/Message/": plivo.PARAMETERS,
    "/reporting/mdr_requests": ("page", "per_page"),
    "/v2/legacy/reporting/batch_detail_records/messaging": ("page[number]", "page[size]"),
}
# What a list needs beside the parameter that is tried.
NEEDED: Final = {"/v2/messages": "start_date=2026-01-05", "/v2.1/messages": "start_date=2026-01-05"}
ONES: Final = (
    "/mdr/records/{}", "/core/v2/sms/message_drs/{}", "/v2/messages/{}", "/v2.1/messages/mdr2-{}",
    f"/v1/Account/{KEY}/Message/{{}}/", "/mdr/reports/{}", "/mdr/trace/{}", "/ui/messages/{}", "/reporting/mdr_requests/{}",
)  # fmt: skip

UGLY: Final = (
    "", " ", "+", "*", "+*", "%", "_", "\\", "x\\", "%\\", "'", '"', "\x00", "a\x00b", "\n", "\t\r", "\x1b[2J", "\u202e",
    "\ufeff", "\U0001f600", "ü" * 4096, "a" * 8192, "%" * 8192, "%a" * 4000, "_" * 300, "(a+)+$", "[", "{", "{p0:String}",
    "-", "-1", "+1", "1.5", "1e999", "NaN", "inf", "0x10", "1_0", "١٢", "９", "0", "00", str(2**31), str(2**32),
    str(2**63 - 1), str(2**63), str(-(2**63)), str(2**64), "9" * 18, "9" * 19, "9" * 400, "null", "any", "true", "[]", "{}",
    "0000-01-01", "0000-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "1900-01-01", "1969-12-31T23:59:59Z",
    "2026-02-30", "2026-01-05T24:00:00Z", "2026-01-05T23:59:60Z", "2299-12-31T23:59:59.999Z", "9999-12-31",
    "9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59-14:00", "10000-01-01T00:00:00Z", "2026-01-05 08:00:00.123456789",
    "delivered", "DELIVERED", "ſent", "outbound", "pending", "US", "ß", "account,account", ",", "hour,colour",
)  # fmt: skip
FORGED: Final = tuple(
    encode_cursor(Key(*key))
    for key in (
        (0, "", "", ""), (-(1 << 47), "", "x", "\x00"), (1 << 47, "a" * 8192, "outbound", "b"), (1, "'", "\\", "%"),
        (253_402_300_799_999, "x", "inbound", "\U0001f600"),
    )
)  # fmt: skip
WORDS: Final = st.one_of(st.sampled_from(UGLY), st.sampled_from(FORGED), st.text(max_size=40)).map(
    lambda text: text.encode("utf-8", "surrogatepass")
)
# What is no UTF-8 can come only percent-encoded.
VALUES: Final = st.one_of(WORDS, st.binary(max_size=12), st.sampled_from([b"\xed\xa0\x80", b"\xff", b"\xc0\x80", b"%"]))


def quoted(value: bytes) -> bytes:
    """A value of a CarrierX filter in quotes."""
    return b"'" + value.replace(b"\\", b"\\\\").replace(b"'", b"\\'") + b"'"


TERMS: Final = st.builds(
    lambda field, op, value, bare: b" ".join([field.encode(), op.encode(), value if bare else quoted(value)]),
    st.sampled_from([*carrierx.FIELDS, "nothing"]),
    st.sampled_from(["eq", "ne", "gt", "ge", "lt", "le", "like", "is"]),
    VALUES,
    st.booleans(),
)
FILTERS: Final = st.one_of(st.lists(TERMS, min_size=1, max_size=4).map(b" and ".join), VALUES)
ORDERS: Final = st.builds(
    lambda field, way: f"{field}{way}".encode(),
    st.sampled_from([*carrierx.FIELDS, "x"]),
    st.sampled_from(["", " asc", " desc", "+desc", " up"]),
)


def value_of(name: str) -> st.SearchStrategy[bytes]:
    """Values of a parameter: mostly ugly ones, for some such as it is meant to have."""
    if name == "filter":
        return FILTERS
    if name in ("order", "fields"):
        return st.one_of(ORDERS, VALUES)
    if name in ("limit", "offset", "page", "per_page", "page[number]", "page[size]"):
        return st.one_of(
            st.integers(-1, 1 << 66).map(lambda n: str(n).encode()),
            st.integers(0, 30).map(lambda n: str(n).encode()),
            VALUES,
        )
    return VALUES


@st.composite
def queries(draw: st.DrawFn) -> tuple[str, str, list[str]]:
    """A list path, a query string with one to three of its parameters, and their names."""
    path = draw(st.sampled_from(list(PATHS)))
    names = draw(st.lists(st.sampled_from(PATHS[path]), min_size=1, max_size=3))
    pairs = [f"{quote_from_bytes(name.encode())}={quote_from_bytes(draw(value_of(name)))}" for name in names]
    needed = NEEDED.get(path)
    return path, "&".join([*pairs, *([needed] if needed and draw(st.booleans()) else [])]), names


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient[Any]]:
    """The application upon a store with settled and open messages."""
    store = Store(f"chdb://{tmp_path_factory.mktemp('store')}")
    fill(store, Plan(60, seed=12, rate_per_s=0.005, account=ACCOUNT), CUT_MS)
    auth.add_credential(store.client, ACCOUNT, key=KEY)
    with served(store.url, tmp_path_factory.mktemp("data"), Clock(CUT_MS)) as client:
        yield client
    store.close()


def judged(http: TestClient[Any], url: str) -> Any:
    """An answer that is no fault of ours, came in its time and says nothing of how it was made."""
    began_s = time.monotonic()
    answer = http.get(url, headers=basic(*OPERATOR))
    assert answer.status_code < 500, (url, answer.text)
    assert time.monotonic() - began_s < STATEMENTS_MAX * QUERY_SECONDS_MAX, url
    for sign in ("SELECT", "FROM mdr", "DB::", "Traceback"):
        assert sign not in answer.text, (url, answer.text)
    return answer


def named(path: str, answer: Any) -> str:
    """What a refusal says, in the shape of its path."""
    if path.startswith("/ui"):
        return str(answer.text)
    told = orjson.loads(answer.content)
    if path.startswith("/mdr"):
        assert answer.headers["content-type"] == "application/problem+json" and told["status"] == answer.status_code
        return str(told["detail"])
    if path.startswith("/v1/Account"):
        assert told["objects"] == [] and "api_id" in told
        return str(told["error"])
    if path.startswith("/reporting"):
        return str(told["error"])
    (error,) = told["errors"]
    assert answer.status_code == (422 if path.startswith(("/v2/messages", "/v2.1")) else 400)
    return str(error["message"] if path.startswith("/core") else error["detail"])


@settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(asked=queries())
def test_no_value_of_a_caller_is_a_fault_of_ours(http: TestClient[Any], asked: tuple[str, str, list[str]]) -> None:
    """Whatever a query string holds is an answer or a refusal in the shape of its path that names a parameter."""
    path, text, names = asked
    answer = judged(http, f"{path}?{text}")
    if answer.status_code in (400, 422):
        told = named(path, answer)
        known = ("query string", "start", "end", "after", "before", "is not", "knows", "field")
        assert any(word in told for word in (*names, *known)), (text, told)


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(path=st.sampled_from(ONES), value=VALUES)
def test_no_id_of_a_caller_is_a_fault_of_ours(http: TestClient[Any], path: str, value: bytes) -> None:
    """Whatever stands for an id in a path is a message or a refusal."""
    judged(http, path.format(quote_from_bytes(value, safe="")))
