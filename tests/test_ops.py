"""Alerts, dashboard and the page on operations: each names only what /metrics has, and the page leaves nothing out."""

import json
import re
import shutil
import subprocess
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from api.app import SIGN_INS_METRIC
from tests.test_telemetry import exposed

ROOT = Path(__file__).parent.parent
OPS = ROOT / "ops"
PAGE = ROOT / "docs" / "OPERATIONS.md"
DASHBOARD = json.loads((OPS / "grafana.json").read_text())
NAME = re.compile(r"\b(?:mdr|process)_[a-z_]+")


def told() -> str:
    """What /metrics answers: what the process counts, and what its HTTP side adds."""
    return exposed() + (SIGN_INS_METRIC % 0).decode()


def metrics() -> set[str]:
    """The names of everything that a process with a worker exposes, as queries write them."""
    return {sample.name for family in text_string_to_metric_families(told()) for sample in family.samples}


def families() -> set[str]:
    """The same by family, as a reader looks for them."""
    endings = {"counter": "_total"}
    found = text_string_to_metric_families(told())
    return {f.name.removesuffix("_total") + endings.get(f.type, "") for f in found if f.name.startswith("mdr_")}


def alerts() -> list[str]:
    return re.findall(r"- alert: (\w+)", (OPS / "alerts.yml").read_text())


def expressions() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def test_alerts_and_dashboard_name_only_what_is_exposed() -> None:
    """A metric that was renamed must not leave an alert behind that can never fire."""
    named = {
        name
        for text in ((OPS / "alerts.yml").read_text(), (OPS / "alerts_test.yml").read_text(), *expressions())
        for name in NAME.findall(text)
    }
    assert named and named <= metrics()


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
def test_the_alerts_fire_when_they_must() -> None:
    """Prometheus' own tool runs the unit tests of the rules, and finds rules and configuration well-formed."""
    for command in ("check rules alerts.yml", "check config --syntax-only prometheus.yml", "test rules alerts_test.yml"):
        run = subprocess.run(["promtool", *command.split()], cwd=OPS, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stdout + run.stderr


def test_every_alert_is_tested_both_ways() -> None:
    """For each alert there is a case in which it fires and one in which it does not."""
    cases = re.split(r"  - name: ", (OPS / "alerts_test.yml").read_text())[1:]
    for alert in alerts():
        assert f"alertname: {alert}}}" in cases[0], alert
        assert re.search(rf"alertname: {alert}\n\s+exp_alerts:", cases[1]), alert


def test_the_dashboard_is_one_that_grafana_loads() -> None:
    """Panels have their own ids and places, a title, a data source that is chosen, and queries."""
    assert DASHBOARD["uid"] and DASHBOARD["title"] and DASHBOARD["schemaVersion"] >= 36
    assert [v["type"] for v in DASHBOARD["templating"]["list"]] == ["datasource"]
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["type"] in ("stat", "timeseries") and panel["title"] and panel["targets"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        assert [t["refId"] for t in panel["targets"]] == list("ABCDEF"[: len(panel["targets"])])
    assert not [(a["title"], b["title"]) for a, b in combinations(panels, 2) if overlap(a["gridPos"], b["gridPos"])]


def overlap(a: dict[str, Any], b: dict[str, Any]) -> bool:
    beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
    return not (beside or a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"])


@pytest.mark.parametrize("name", sorted(families()))
def test_every_metric_is_on_the_page(name: str) -> None:
    """The page on operations says what each metric means."""
    assert f"`{name}`" in PAGE.read_text()


@pytest.mark.parametrize("name", alerts())
def test_every_alert_is_on_the_page(name: str) -> None:
    """The page on operations says what to do about each alert."""
    assert re.search(rf"^\| `{name}` \|[^|]+\|[^|]+\|$", PAGE.read_text(), re.MULTILINE)


def test_the_page_names_nothing_that_is_gone() -> None:
    """What the page names exists."""
    text = PAGE.read_text()
    assert set(re.findall(r"`(mdr_[a-z_]+)", text)) <= families() | metrics()
    assert set(re.findall(r"`(Mdr\w+)`", text)) <= set(alerts())
