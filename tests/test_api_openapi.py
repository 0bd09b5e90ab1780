"""The OpenAPI document, its page, and Schemathesis over it (`api.openapi`, `api.docs`)."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, Phase, given, settings
from jsonschema import Draft202012Validator
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api import auth
from api.app import AppConfig, create_app
from api.docs import page
from api.openapi import document
from api.routes import ROUTES
from streams.simulate import Plan
from streams.store import Store, connect
from tests.api_support import START_MS, Clock, bearer, fill

NOW_MS = START_MS + 5 * 3_600_000


@pytest.fixture(scope="module")
def served_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """A server on a port of its own, and the headers of a credential."""
    store = Store(f"chdb://{tmp_path_factory.mktemp('store')}")
    fill(store, Plan(60, seed=2, rate_per_s=0.01, account="a"), NOW_MS)
    headers = bearer(auth.add_credential(store.client, "a"))
    config = AppConfig(
        connect=lambda: connect(store.url),
        data_dir=Path(tmp_path_factory.mktemp("data")),
        operator=None,
        http_url="",
        clock_ms=Clock(NOW_MS),
        requests_per_s=1e6,
        burst=1_000_000,
    )
    server = uvicorn.Server(uvicorn.Config(create_app(config), port=0, log_level="warning", lifespan="on"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}", headers
    server.should_exit = True
    thread.join()
    store.close()


def test_every_answer_is_as_documented(served_url: tuple[str, dict[str, str]]) -> None:
    """Whatever is asked of a documented path: no 5xx, a documented status, content type and schema."""
    url, headers = served_url
    schema = schemathesis.openapi.from_dict(document("1"))
    schema.config.update(base_url=url)
    checks = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]

    for operation in schema.get_all_operations():
        api: Any = operation.ok()  # type: ignore[union-attr]

        @settings(
            max_examples=25,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
        )
        @given(case=api.as_strategy())
        def check(case: Any) -> None:
            case.call_and_validate(headers=headers, checks=checks)

        check()


def test_the_document_holds_every_native_path() -> None:
    """Every path under `/mdr/` is documented with its methods, and refers to nothing that is not there."""
    told = document("1")
    documented = {(method.upper(), path) for path, item in told["paths"].items() for method in item}
    ours = {(r.method, r.path) for r in ROUTES if r.path.startswith("/mdr/")}
    assert documented == ours
    for reference in re.findall(r"'#/components/(\w+)/(\w+)'", str(told)):
        assert reference[1] in told["components"][reference[0]]
    for schema in told["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_the_page_loads_nothing_from_elsewhere() -> None:
    """The page has every path and no script, no image, no address but its own."""
    text = page(document("1")).decode()
    assert all(path in text for path in document("1")["paths"])
    assert "<script" not in text and "http:" not in text and "https:" not in text and "src=" not in text
