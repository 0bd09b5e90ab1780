"""What the tests share: a real broker for the session, and how long properties search."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as search

from streams import broker
from streams.settings import load

_SLOW_IS_FINE = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]

# The same examples every time, unless `--hypothesis-profile=hunt` asks for new ones.
search.register_profile("same", derandomize=True, deadline=None, suppress_health_check=_SLOW_IS_FINE)
# Prints the seed with which a failure is seen again.
search.register_profile("hunt", max_examples=5_000, deadline=None, print_blob=True, suppress_health_check=_SLOW_IS_FINE)
search.load_profile("same")


@pytest.fixture(scope="session")
def kafka_at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real Kafka that lives as long as the session."""
    home = tmp_path_factory.mktemp("kafka")
    started = broker.start(home, cache_dir=load().cache_dir, tied_to_parent=True)
    yield started.bootstrap
    broker.stop(home)
