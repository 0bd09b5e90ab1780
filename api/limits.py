"""What is bounded by who asks: requests a second of a credential, and sign-ins that fail. Time is an argument."""

import hashlib
import ipaddress
import logging
import threading
from typing import Final, TypeVar

log = logging.getLogger(__name__)
K = TypeVar("K")

_KEYS_MAX: Final = 10_000
_FREE: Final = 5
_FREE_OF_PEER: Final = 20
_WAIT_S_MAX: Final = 60
_FORGET_MS: Final = 15 * 60_000
_NAME_MAX: Final = 128


class Rates:
    """Allows `per_s` requests a second on average and `burst` at once, for each key; from any thread."""

    def __init__(self, per_s: float, burst: int) -> None:
        self._per_ms = per_s / 1000
        self._burst = burst
        self._buckets: dict[str, tuple[float, int]] = {}
        self._lock = threading.Lock()

    def wait_s(self, key: str, now_ms: int) -> int:
        """0 and one request is taken, or how many whole seconds to wait."""
        with self._lock:
            tokens, since_ms = self._buckets.pop(key, (float(self._burst), now_ms))
            tokens = min(self._burst, tokens + max(0, now_ms - since_ms) * self._per_ms)
            allowed = tokens >= 1
            # Put back at the end: the first is the one that was idle longest, and an idle bucket is a full one.
            self._buckets[key] = (tokens - 1 if allowed else tokens, now_ms)
            if len(self._buckets) > _KEYS_MAX:
                del self._buckets[next(iter(self._buckets))]
        return 0 if allowed else max(1, round((1 - tokens) / self._per_ms / 1000 + 0.5))


class SignIns:
    """Slows down sign-ins that fail: after a few of one key from one address, and after more of one address.

    There is no count of a key over all addresses: with one, anybody could shut a key's owner out. For the same reason
    a right secret is to be let in whatever `wait_s` says, where checking it costs little: a secret has 256 random bits,
    so what the wait protects is the work of checking. From any thread; both tables forget the oldest first.
    """

    def __init__(self) -> None:
        self.failures = 0
        self._pairs: dict[tuple[str, str], tuple[int, int]] = {}
        self._peers: dict[str, tuple[int, int]] = {}
        self._lock = threading.Lock()

    def wait_s(self, key: str, peer: str, now_ms: int) -> int:
        """0, or how many whole seconds this key has to wait at this address since its last failure."""
        place = network_of(peer)
        with self._lock:
            pair, whole = self._pairs.get((key[:_NAME_MAX], place)), self._peers.get(place)
        return max(_left_s(pair, _FREE, now_ms), _left_s(whole, _FREE_OF_PEER, now_ms))

    def failed(self, key: str, peer: str, now_ms: int) -> None:
        """Counts a failure, and tells of the first of an address and then of each power of ten."""
        place = network_of(peer)
        with self._lock:
            self.failures += 1
            _count(self._pairs, (key[:_NAME_MAX], place), now_ms)
            failures = _count(self._peers, place, now_ms)
        if failures in (1, 10, 100, 1_000, 10_000, 100_000, 1_000_000):
            log.warning("sign-ins are refused: %d from %s", failures, place)

    def succeeded(self, key: str, peer: str, now_ms: int) -> None:
        """Forgets the failures of this key at this address; those of other keys there still count."""
        with self._lock:
            self._pairs.pop((key[:_NAME_MAX], network_of(peer)), None)


class Known:
    """Which key a credential that was right had, by its hash: who is known waits in a line of their own.

    It is checked each time all the same. From any thread; of very many the oldest are forgotten.
    """

    def __init__(self) -> None:
        self._keys: dict[bytes, str] = {}
        self._lock = threading.Lock()

    def key_of(self, pair: tuple[str, str] | None) -> str | None:
        """The key of a credential that was right; None of one that was not seen, or was wrong since."""
        return self._keys.get(_digest(pair)) if pair else None

    def remember(self, pair: tuple[str, str]) -> None:
        """Keeps a credential that was right."""
        with self._lock:
            self._keys[_digest(pair)] = pair[0]
            if len(self._keys) > _KEYS_MAX:
                del self._keys[next(iter(self._keys))]

    def forget(self, pair: tuple[str, str]) -> None:
        """Lets go of a credential that was wrong."""
        with self._lock:
            self._keys.pop(_digest(pair), None)


def _digest(pair: tuple[str, str]) -> bytes:
    return hashlib.sha256("\0".join(pair).encode("utf-8", "surrogateescape")).digest()


def network_of(peer: str) -> str:
    """Whom an address stands for: itself, or of IPv6 its network, for that is what one customer is given."""
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return peer[:_NAME_MAX]
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))


def _count(table: dict[K, tuple[int, int]], name: K, now_ms: int) -> int:
    failures, last_ms = table.pop(name, (0, now_ms))
    failures = 1 if now_ms - last_ms > _FORGET_MS else failures + 1
    # Put back at the end: the first is the one that failed longest ago.
    table[name] = (failures, now_ms)
    if len(table) > _KEYS_MAX:
        del table[next(iter(table))]
    return failures


def _left_s(counted: tuple[int, int] | None, free: int, now_ms: int) -> int:
    if counted is None or counted[0] < free or not 0 <= now_ms - counted[1] <= _FORGET_MS:
        return 0
    wait_ms = 1000 * min(_WAIT_S_MAX, 1 << min(counted[0] - free, 10))
    return max(0, -((now_ms - counted[1] - wait_ms) // 1000))
