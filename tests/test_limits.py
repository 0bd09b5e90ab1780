"""What is bounded by who asks: rates and failed sign-ins (`api.limits`)."""

from __future__ import annotations

import pytest

from api import limits
from api.limits import Rates, SignIns

OWNER = "192.0.2.1"
OTHER = "198.51.100.7"


def failing(signins: SignIns, times: int, key: str = "key", peer: str = OTHER, now_ms: int = 0) -> None:
    """So many failures at once."""
    for _ in range(times):
        signins.failed(key, peer, now_ms)


def test_a_few_failures_are_free_and_each_more_doubles_the_wait() -> None:
    """Four failures cost nothing; from the fifth on the wait doubles up to a minute, and it runs out."""
    signins = SignIns()
    waits = []
    for _ in range(14):
        failing(signins, 1)
        waits.append(signins.wait_s("key", OTHER, 0))
    assert waits == [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60]
    assert [signins.wait_s("key", OTHER, ms) for ms in (1, 59_000, 59_001, 60_000)] == [60, 1, 1, 0]


def test_nobody_elsewhere_shuts_an_owner_out() -> None:
    """However often a key fails at other addresses, it does not wait at its owner's."""
    signins = SignIns()
    for n in range(1_000):
        failing(signins, 100, peer=f"198.51.{n // 250}.{n % 250}")
    assert signins.wait_s("key", OWNER, 0) == 0
    assert signins.wait_s("key", "198.51.0.0", 0) == 60


def test_an_address_that_tries_many_keys_waits_with_each() -> None:
    """Twenty failures of different keys make an address wait, also with a key that never failed there."""
    signins = SignIns()
    for n in range(20):
        failing(signins, 1, key=f"key{n}")
    assert signins.wait_s("another", OTHER, 0) == 1


def test_the_right_secret_forgets_the_failures_of_its_key_alone() -> None:
    """After a success the key starts anew, but what other keys failed at that address still counts."""
    signins = SignIns()
    failing(signins, 10)
    signins.succeeded("key", OTHER, 0)
    assert signins.wait_s("key", OTHER, 0) == 0
    failing(signins, 10, key="another")
    assert signins.wait_s("key", OTHER, 0) == 1


def test_failures_are_forgotten_after_a_quarter_of_an_hour() -> None:
    """What failed long ago counts no more, and a clock that was set back makes nobody wait."""
    signins = SignIns()
    failing(signins, 30, now_ms=1_000_000)
    failing(signins, 1, now_ms=2_000_000)
    assert signins.wait_s("key", OTHER, 2_000_000) == 0
    failing(signins, 30, now_ms=2_000_000)
    assert signins.wait_s("key", OTHER, 1_000_000) == 0


@pytest.mark.parametrize(
    ("peers", "network"),
    [
        (("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", "2001:db8:1:2::1%eth0"), "2001:db8:1:2::/64"),
        (("192.0.2.1", "::ffff:192.0.2.1"), "192.0.2.1"),
        (("testclient",), "testclient"),
        (("x" * 9_000,), "x" * 128),
    ],
)
def test_an_address_is_what_one_customer_is_given(peers: tuple[str, ...], network: str) -> None:
    """Addresses of one IPv6 network of 64 bits count as one; what is no address is a name of bounded length."""
    assert {limits.network_of(peer) for peer in peers} == {network}


def test_the_tables_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys and addresses that a caller makes up push the oldest out, and never more than so many are held."""
    monkeypatch.setattr(limits, "_KEYS_MAX", 100)
    signins, rates = SignIns(), Rates(1, 1)
    for n in range(1_000):
        failing(signins, 1, key=f"{n}" * 500, peer=f"10.0.{n // 250}.{n % 250}")
        rates.wait_s(f"{n}", 0)
    assert (len(signins._pairs), len(signins._peers), len(rates._buckets)) == (100, 100, 100)
    assert max(len(key) for key, _ in signins._pairs) == 128


def test_failures_are_told_without_the_key(caplog: pytest.LogCaptureFixture) -> None:
    """The log names the address at the first failure and at each power of ten, and never what was given as a key."""
    failing(SignIns(), 250, key="a secret, given as a key")
    assert [r.getMessage() for r in caplog.records] == [
        f"sign-ins are refused: {n} from {OTHER}" for n in (1, 10, 100)
    ]
