"""Settings: where they come from, and what a bad one says."""

from pathlib import Path

import pytest

from streams import settings
from streams.cli import serving


def test_defaults_are_fine(tmp_path: Path) -> None:
    """With nothing set everything has a value, and the store is embedded in the data directory."""
    loaded = settings.load({"HOME": str(tmp_path)}, tmp_path)
    assert loaded.settling_window_ms == 4 * 3_600_000
    assert loaded.partitions == 8
    assert loaded.is_embedded
    assert loaded.chdb_path == loaded.data_dir / "chdb"


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    """A variable is taken before `mdr.toml`, and that before the default; `mdr settings` says which."""
    (tmp_path / "mdr.toml").write_text('partitions = 3\nsettling_window = "1h"\n')
    environ = {"MDR_PARTITIONS": "5"}
    loaded = settings.load(environ, tmp_path)
    assert (loaded.partitions, loaded.settling_window_ms) == (5, 3_600_000)
    origins = {line.name: line.origin for line in settings.show(environ, tmp_path)}
    assert origins["MDR_PARTITIONS"] == "environment"
    assert origins["MDR_SETTLING_WINDOW"] == "mdr.toml"
    assert origins["MDR_HTTP"] == "default"


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("MDR_SETTLING_WINDOW", "500ms", "MDR_SETTLING_WINDOW '500ms' is not between 1s and 7d"),
        ("MDR_SETTLING_WINDOW", "four", "MDR_SETTLING_WINDOW 'four' is not a duration such as"),
        ("MDR_SETTLING_WINDOW", "8d", "is not between 1s and 7d"),
        ("MDR_PARTITIONS", "0", "MDR_PARTITIONS '0' is not a whole number from 1"),
        ("MDR_PARTITIONS", "2.0", "MDR_PARTITIONS '2.0' is not a whole number"),
        ("MDR_KAFKA", "broker", "MDR_KAFKA 'broker' has 'broker', which is not host:port"),
        ("MDR_HTTP", "8080", "MDR_HTTP '8080' is not host:port"),
        ("MDR_TRUSTED_PROXIES", "10.0.0.1/8", "MDR_TRUSTED_PROXIES '10.0.0.1/8' has '10.0.0.1/8', which is no address"),
        ("MDR_TRUSTED_PROXIES", "127.0.0.1, proxy", "MDR_TRUSTED_PROXIES '127.0.0.1, proxy' has 'proxy'"),
        ("MDR_CLICKHOUSE_URL", "mysql://x", "MDR_CLICKHOUSE_URL is neither chdb://PATH"),
        ("MDR_TOPIC_PREFIX", "a b", "MDR_TOPIC_PREFIX 'a b' is not made of letters"),
        ("MDR_KAFKA_SECURITY_PROTOCOL", "TLS", "MDR_KAFKA_SECURITY_PROTOCOL 'TLS' is none of"),
        ("MDR_SETLING_WINDOW", "4h", "MDR_SETLING_WINDOW is not a setting"),
    ],
)
def test_a_bad_setting_is_named(name: str, value: str, sentence: str, tmp_path: Path) -> None:
    """An unknown name or a bad value is one sentence with the name and what is wrong."""
    with pytest.raises(settings.SettingsError) as error:
        settings.load({name: value}, tmp_path)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["partitons = 3", "partitions = [3]", "partitions = ", "partitions = true"])
def test_a_bad_file_is_named(text: str, tmp_path: Path) -> None:
    """What cannot be read in `mdr.toml` is told with the file's name."""
    (tmp_path / "mdr.toml").write_text(text)
    with pytest.raises(settings.SettingsError, match=r"mdr\.toml"):
        settings.load({}, tmp_path)


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    """Neither a listing nor an error shows a password."""
    environ = {"MDR_KAFKA_SECURITY_PASSWORD": "hunter2", "MDR_CLICKHOUSE_URL": "http://u:hunter2@h:1"}
    assert "hunter2" not in str(settings.show(environ, tmp_path))
    with pytest.raises(settings.SettingsError) as error:
        settings.load({"MDR_CLICKHOUSE_URL": "ftp://u:hunter2@h"}, tmp_path)
    assert "hunter2" not in str(error.value)


def test_addresses_and_networks_of_proxies(tmp_path: Path) -> None:
    """By default no proxy is trusted; addresses and networks of both kinds can be named, an IPv6 address to listen at too."""
    assert settings.load({}, tmp_path).trusted_proxies == ()
    environ = {"MDR_TRUSTED_PROXIES": "127.0.0.1, 10.0.0.0/8,fd00::/8", "MDR_HTTP": "[::1]:8080"}
    loaded = settings.load(environ, tmp_path)
    assert [str(network) for network in loaded.trusted_proxies] == ["127.0.0.1/32", "10.0.0.0/8", "fd00::/8"]
    assert loaded.http == ("::1", 8080)


@pytest.mark.parametrize(
    ("http", "proxies", "is_told"),
    [("127.0.0.1:8080", "", False), ("localhost:8080", "", False), ("[::1]:8080", "", False), ("0.0.0.0:8080", "", True),
     ("192.0.2.1:80", "", True), ("0.0.0.0:8080", "10.0.0.1", False)],
)  # fmt: skip
def test_open_to_others_is_told(
    http: str, proxies: str, is_told: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Beyond loopback, without a proxy that may keep secrets on the way, a warning names both settings."""
    serving._warn_if_open(settings.load({"MDR_HTTP": http, "MDR_TRUSTED_PROXIES": proxies}, tmp_path))
    assert ("MDR_HTTP" in caplog.text and "MDR_TRUSTED_PROXIES" in caplog.text) is is_told
