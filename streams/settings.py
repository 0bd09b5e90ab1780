"""Settings: environment variables `MDR_*`, else `mdr.toml` in the working directory, else the default.

The only file that reads the environment. An unknown name or a bad value is a `SettingsError` that names it.
"""

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import msgspec

PREFIX: Final = "MDR_"
FILE: Final = "mdr.toml"
Network = IPv4Network | IPv6Network
_UNITS_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


class SettingsError(Exception):
    """One sentence that names the setting and what is wrong with it."""


class Settings(msgspec.Struct, frozen=True):
    """Every setting, checked."""

    kafka: str
    kafka_security_protocol: str
    kafka_security_cafile: str
    kafka_security_certfile: str
    kafka_security_keyfile: str
    kafka_security_mechanism: str
    kafka_security_username: str
    kafka_security_password: str
    clickhouse_url: str
    topic_prefix: str
    partitions: int
    settling_window_ms: int
    data_dir: Path
    http: tuple[str, int]
    trusted_proxies: tuple[Network, ...]
    flush_interval_ms: int
    checkpoint_interval_ms: int
    retention_days: int
    body_retention_days: int
    report_days: int
    audit_days: int
    cache_dir: Path

    @property
    def group(self) -> str:
        """The Kafka consumer group of the workers; it follows the topics, so two prefixes never share offsets."""
        return f"{self.topic_prefix}worker"

    @property
    def kept_days(self) -> tuple[int, int, int]:
        """How long records, bodies and the audit log are kept."""
        return self.retention_days, self.body_retention_days, self.audit_days

    @property
    def is_embedded(self) -> bool:
        """Whether the store lives inside one process."""
        return self.clickhouse_url.startswith("chdb://")

    @property
    def chdb_path(self) -> Path:
        """Where the embedded store keeps its data."""
        return Path(self.clickhouse_url.removeprefix("chdb://"))


class _Setting(NamedTuple):
    parse: Callable[[str], Any]
    default: str
    meaning: str
    secret: bool = False


class Shown(NamedTuple):
    """One line of `mdr settings`."""

    name: str
    value: str
    origin: str
    meaning: str


def parse_duration_ms(text: str) -> int:
    """Milliseconds of `250ms`, `90s`, `15m`, `4h` or `7d`."""
    match = re.fullmatch(r"([0-9]{1,9})(ms|s|m|h|d)", text)
    if match is None:
        raise ValueError("is not a duration such as 250ms, 90s, 15m, 4h or 7d")
    return int(match[1]) * _UNITS_MS[match[2]]


def _duration(low: str, high: str) -> Callable[[str], int]:
    def parse(text: str) -> int:
        ms = parse_duration_ms(text)
        if not parse_duration_ms(low) <= ms <= parse_duration_ms(high):
            raise ValueError(f"is not between {low} and {high}")
        return ms

    return parse


def _integer(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text) or not low <= int(text) <= high:
            raise ValueError(f"is not a whole number from {low} to {high}")
        return int(text)

    return parse


def _choice(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"is none of {', '.join(w for w in words if w)}")
        return text

    return parse


def _servers(text: str) -> str:
    for server in filter(None, text.split(",")):
        host, _, port = server.strip().rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise ValueError(f"has {server.strip()!r}, which is not host:port")
    return text


def _prefix(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]{0,100}", text):
        raise ValueError("is not made of letters, digits, dots, dashes and underscores")
    return text


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError("is not host:port")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _networks(text: str) -> tuple[Network, ...]:
    found = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        try:
            found.append(ip_network(part))
        except ValueError:
            raise ValueError(f"has {part!r}, which is no address and no network such as 10.0.0.0/8") from None
    return tuple(found)


def _clickhouse(text: str) -> str:
    if text and urlsplit(text).scheme not in ("chdb", "http", "https", "clickhouse", "clickhouses"):
        raise ValueError("is neither chdb://PATH nor http(s)://USER:PASSWORD@HOST:PORT")
    return text


SETTINGS: Final[dict[str, _Setting]] = {
    "kafka": _Setting(_servers, "", "bootstrap servers, host:port with commas; empty: the local broker"),
    "kafka_security_protocol": _Setting(
        _choice("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"), "PLAINTEXT", "how to speak to the broker"
    ),
    "kafka_security_cafile": _Setting(str, "", "PEM file of the authorities that sign the broker's certificate"),
    "kafka_security_certfile": _Setting(str, "", "PEM file of our own certificate"),
    "kafka_security_keyfile": _Setting(str, "", "PEM file of our own key"),
    "kafka_security_mechanism": _Setting(_choice("", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"), "", "SASL mechanism"),
    "kafka_security_username": _Setting(str, "", "SASL user"),
    "kafka_security_password": _Setting(str, "", "SASL password", secret=True),
    "clickhouse_url": _Setting(
        _clickhouse,
        "",
        "chdb://PATH or http(s)://USER:PASSWORD@HOST:PORT; empty: chDB in the data directory",
        secret=True,
    ),
    "topic_prefix": _Setting(_prefix, "mdr.", "what the topics' names begin with"),
    "partitions": _Setting(_integer(1, 10_000), "8", "partitions of the topics that are created"),
    "settling_window": _Setting(_duration("1s", "7d"), "4h", "how long a message waits for its final receipt"),
    "data_dir": _Setting(
        lambda text: Path(text).absolute(), "./data", "broker, embedded store, reports, local credential"
    ),
    "http": _Setting(_address, "127.0.0.1:8080", "where the API listens"),
    "trusted_proxies": _Setting(
        _networks, "", "addresses and networks, with commas, whose X-Forwarded-For, -Proto and -Host are heeded"
    ),
    "flush_interval": _Setting(_duration("50ms", "1m"), "1s", "finished records are inserted this often"),
    "checkpoint_interval": _Setting(_duration("100ms", "10m"), "5s", "open messages are saved and offsets committed"),
    "retention_days": _Setting(_integer(1, 3650), "90", "days a record is kept after it settled"),
    "body_retention_days": _Setting(_integer(1, 3650), "30", "days a body is kept after its record settled"),
    "report_days": _Setting(_integer(1, 365), "30", "days a report is kept"),
    "audit_days": _Setting(_integer(1, 3650), "365", "days a row of the audit log is kept"),
}
_FIELDS: Final = {
    "settling_window": "settling_window_ms",
    "flush_interval": "flush_interval_ms",
    "checkpoint_interval": "checkpoint_interval_ms",
}


def load(environ: Mapping[str, str] | None = None, directory: Path | None = None) -> Settings:
    """The settings of this process."""
    environ = os.environ if environ is None else environ
    texts = {name: text for name, (text, _) in _texts(environ, directory or Path.cwd()).items()}
    values: dict[str, Any] = {}
    for name, text in texts.items():
        try:
            values[_FIELDS.get(name, name)] = SETTINGS[name].parse(text)
        except ValueError as e:
            shown = "" if SETTINGS[name].secret else f" {text!r}"
            raise SettingsError(f"{PREFIX}{name.upper()}{shown} {e}") from None
    values["clickhouse_url"] = values["clickhouse_url"] or f"chdb://{values['data_dir'] / 'chdb'}"
    values["cache_dir"] = Path(environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME", "/tmp")) / ".cache") / "mdr"
    return Settings(**values)


def show(environ: Mapping[str, str] | None = None, directory: Path | None = None) -> list[Shown]:
    """Every setting with its value and where it came from; secrets are masked."""
    texts = _texts(os.environ if environ is None else environ, directory or Path.cwd())
    return [
        Shown(PREFIX + name.upper(), "***" if text and SETTINGS[name].secret else text, origin, SETTINGS[name].meaning)
        for name, (text, origin) in texts.items()
    ]


def _texts(environ: Mapping[str, str], directory: Path) -> dict[str, tuple[str, str]]:
    known = {PREFIX + name.upper(): name for name in SETTINGS}
    for variable in environ:
        if variable.startswith(PREFIX) and variable not in known:
            raise SettingsError(f"{variable} is not a setting; `mdr settings` lists them")
    from_file = _read_file(directory / FILE)
    texts: dict[str, tuple[str, str]] = {}
    for variable, name in known.items():
        if variable in environ:
            texts[name] = (environ[variable], "environment")
        elif name in from_file:
            texts[name] = (from_file[name], FILE)
        else:
            texts[name] = (SETTINGS[name].default, "default")
    return texts


def _read_file(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    try:
        content = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as e:
        raise SettingsError(f"{FILE} cannot be read: {e}") from None
    for name, value in content.items():
        if name not in SETTINGS:
            raise SettingsError(f"{FILE}: {name} is not a setting; `mdr settings` lists them")
        if not isinstance(value, str | int) or isinstance(value, bool):
            raise SettingsError(f"{FILE}: {name} is neither a string nor a whole number")
    return {name: str(value) for name, value in content.items()}
