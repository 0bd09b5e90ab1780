"""Request rate per credential: a token bucket each. Time is an argument."""

from typing import Final

_KEYS_MAX: Final = 10_000


class Rates:
    """Allows `per_s` requests a second on average and `burst` at once, for each key."""

    def __init__(self, per_s: float, burst: int) -> None:
        self._per_ms = per_s / 1000
        self._burst = burst
        self._buckets: dict[str, tuple[float, int]] = {}

    def wait_s(self, key: str, now_ms: int) -> int:
        """0 and one request is taken, or how many whole seconds to wait."""
        tokens, since_ms = self._buckets.pop(key, (float(self._burst), now_ms))
        tokens = min(self._burst, tokens + max(0, now_ms - since_ms) * self._per_ms)
        allowed = tokens >= 1
        # Put back at the end: the first is the one that was idle longest, and an idle bucket is a full one.
        self._buckets[key] = (tokens - 1 if allowed else tokens, now_ms)
        if len(self._buckets) > _KEYS_MAX:
            del self._buckets[next(iter(self._buckets))]
        return 0 if allowed else max(1, round((1 - tokens) / self._per_ms / 1000 + 0.5))
