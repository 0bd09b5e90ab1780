"""What the tests share: a real broker for the session, both ways through the hot path, how long properties search."""

import os
import sys
from collections.abc import Generator, Iterator

import pytest
from hypothesis import HealthCheck, Phase
from hypothesis import settings as search

_SLOW_IS_FINE = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]

# The same examples every time, unless `--hypothesis-profile=hunt` asks for new ones.
search.register_profile("same", derandomize=True, deadline=None, suppress_health_check=_SLOW_IS_FINE)
# Prints the seed with which a failure is seen again.
search.register_profile("hunt", max_examples=5_000, deadline=None, print_blob=True, suppress_health_check=_SLOW_IS_FINE)
# Tells that something is wrong, without searching for the smallest input that shows it.
search.register_profile("quick", search.get_profile("same"), phases=[Phase.explicit, Phase.generate])
search.load_profile("same")

WAYS = ("python", "native")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--without-native`: the compiled part cannot be imported, as where no compiler was found."""
    parser.addoption("--without-native", action="store_true", help="run as where the compiled part was not built")


def pytest_configure(config: pytest.Config) -> None:
    """Block the compiled part before any test module imports it."""
    config.addinivalue_line("markers", "native: a test of the compiled part itself; it must have been built")
    if config.getoption("--without-native"):
        sys.modules["schemas._native"] = None  # type: ignore[assignment]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every test that has a `way` once with the Python and once with the compiled part."""
    if "way" in metafunc.fixturenames:
        blocked = metafunc.config.getoption("--without-native")
        metafunc.parametrize("way", WAYS[:1] if blocked else WAYS, indirect=True, scope="module")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests of the compiled part itself where it is not to be had."""
    if config.getoption("--without-native"):
        left_out = [item for item in items if item.get_closest_marker("native")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Make every skip a failure in CI: there a program that a test needs must have been installed."""
    report = yield
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"nothing is skipped in CI: {report.longrepr}"
    return report


@pytest.fixture(scope="module")
def way(request: pytest.FixtureRequest) -> Iterator[str]:
    """The way of the hot path: `python` is the definition, `native` the compiled part, which must have been built."""
    from schemas import native

    with pytest.MonkeyPatch.context() as patch:
        if request.param == "python":
            patch.setattr(native, "enabled", False)
        else:
            assert native.enabled, "the compiled part was not built"
        yield request.param


@pytest.fixture(scope="session")
def kafka_at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real Kafka that lives as long as the session."""
    from streams import broker
    from streams.settings import load

    home = tmp_path_factory.mktemp("kafka")
    started = broker.start(home, cache_dir=load().cache_dir, tied_to_parent=True)
    yield started.bootstrap
    broker.stop(home)
