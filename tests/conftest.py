"""How long properties search: the same examples every time, unless `--hypothesis-profile=hunt` asks for new ones."""

from hypothesis import HealthCheck, settings

_SLOW_IS_FINE = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]

settings.register_profile("same", derandomize=True, deadline=None, suppress_health_check=_SLOW_IS_FINE)
# Prints the seed with which a failure is seen again.
settings.register_profile(
    "hunt", max_examples=5_000, deadline=None, print_blob=True, suppress_health_check=_SLOW_IS_FINE
)
settings.load_profile("same")
