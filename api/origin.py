"""Where a request was sent to and where it comes from: what its headers say is checked before it is believed. Pure.

Forwarding headers count only from proxies that `MDR_TRUSTED_PROXIES` names. A `Host` that is malformed, or that names
another host while we listen under a known name, is refused: links lead back by it, and a name of somebody else that
resolves to us would make a browser take their pages for ours.
"""

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from api.http import Call, Refusal

Network = IPv4Network | IPv6Network
_LABEL: Final = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST: Final = re.compile(rf"({_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:.]{{2,45}}\])(?::([0-9]{{1,5}}))?")
_HOST_CHARACTERS_MAX: Final = 260
_PORTS: Final = {"http": 80, "https": 443}
_SAFE: Final = ("GET", "HEAD", "OPTIONS")
_JSON: Final = re.compile(r"application/(?:[A-Za-z0-9.-]+\+)?json", re.IGNORECASE)


class BadHost(Refusal):
    """A request whose address cannot be believed; told in our own shape on every path."""

    def __init__(self, detail: str) -> None:
        super().__init__(400, detail)


class Came(NamedTuple):
    """The address a client used, without a default port, and the client's own; `""` when that is unknown."""

    base_url: str
    client: str


class Origins:
    """What this server is called, and whose forwarding headers it heeds."""

    def __init__(self, own_url: str, trusted: Sequence[Network] = ()) -> None:
        self._own_url = own_url.rstrip("/")
        self._own_host = urlsplit(own_url).hostname or ""
        self._trusted = tuple(trusted)

    def of(self, scheme: str, peer: str, headers: Iterable[tuple[str, str]]) -> Came:
        """Return where a request was sent to and by whom; raises `BadHost`."""
        found: dict[str, list[str]] = {}
        for name, value in headers:
            found.setdefault(name.lower(), []).append(value)
        hosts, client = found.get("host", []), peer
        is_forwarded = self._is_trusted(peer)
        if is_forwarded:
            scheme = _last(found, "x-forwarded-proto").lower() or scheme
            hosts = [_last(found, "x-forwarded-host")] if "x-forwarded-host" in found else hosts
            client = self._client(found.get("x-forwarded-for", []), peer)
        return Came(self._base_url(scheme, hosts, is_forwarded), client)

    def _base_url(self, scheme: str, hosts: list[str], is_forwarded: bool) -> str:
        if scheme not in _PORTS:
            raise BadHost("X-Forwarded-Proto is neither http nor https")
        if not hosts:
            return self._own_url
        parsed = parse_host(hosts[0]) if len(hosts) == 1 else None
        if parsed is None:
            raise BadHost("the header Host is not one host name or address with a port from 1 to 65535")
        host, port = parsed
        if not is_forwarded and not self._is_ours(host):
            raise BadHost("the header Host names another host than this one")
        return f"{scheme}://{host}" + ("" if port in (None, _PORTS[scheme]) else f":{port}")

    def _is_ours(self, host: str) -> bool:
        """Tell whether a name may be ours. Under an address that others reach we do not know our names."""
        if is_loopback(self._own_host):
            return is_loopback(host)
        return not self._own_host or _is_address(self._own_host) or host == self._own_host

    def _is_trusted(self, peer: str) -> bool:
        return _is_address(peer) and any(ip_address(peer) in network for network in self._trusted)

    def _client(self, forwarded: list[str], peer: str) -> str:
        """Return the last address that no trusted proxy has; what stands before it anybody can write."""
        for text in reversed([part.strip() for value in forwarded for part in value.split(",")]):
            if not _is_address(text):
                return peer
            if not self._is_trusted(text):
                return text
        return peer


def parse_host(text: str) -> tuple[str, int | None] | None:
    """Return host (lower case, IPv6 in brackets) and port of a `Host` header; None when it is malformed."""
    match = _HOST.fullmatch(text) if len(text) <= _HOST_CHARACTERS_MAX else None
    if match is None:
        return None
    host, port = match[1].lower(), int(match[2]) if match[2] else None
    if port is not None and not 0 < port < 65_536:
        return None
    if host.startswith("["):
        return (f"[{ip_address(host[1:-1]).compressed}]", port) if ":" in host and _is_address(host) else None
    # A host that ends in a number is an IPv4 address, or nothing.
    return (host, port) if not host.rpartition(".")[2].isdecimal() or _is_address(host) else None


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine's own loopback, by name or address."""
    if _is_address(host):
        return ip_address(host.strip("[]")).is_loopback
    return host == "localhost" or host.endswith(".localhost")


def _is_address(host: str) -> bool:
    try:
        ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return "%" not in host


def _last(found: dict[str, list[str]], name: str) -> str:
    return found[name][-1].rpartition(",")[2].strip() if name in found else ""


def refuse_foreign_write(call: Call) -> None:
    """Refuse what another site could make a browser send: an unsafe method from elsewhere, or a body that is no JSON.

    Programs send neither `Origin` nor `Sec-Fetch-Site`, and a browser asks before it sends JSON to another site.
    """
    if call.method in _SAFE:
        return
    site = call.headers.get("sec-fetch-site", "none")
    if call.headers.get("origin", call.base_url) != call.base_url or site not in ("none", "same-origin"):
        raise Refusal(403, "the request was sent by a page of another site")
    kind = call.headers.get("content-type", "").partition(";")[0].strip()
    if _announces_body(call) and not _JSON.fullmatch(kind):
        raise Refusal(415, "the Content-Type of a body is application/json")


def _announces_body(call: Call) -> bool:
    return call.headers.get("content-length", "0") != "0" or "transfer-encoding" in call.headers


def is_from_page(call: Call) -> bool:
    """Tell whether a browser sent a request, for which a challenge to Basic would open its own prompt."""
    return any(name.startswith("sec-fetch-") for name in call.headers) or "text/html" in call.headers.get("accept", "")
