"""`mdr credentials`: accounts, their tree and their keys, in the `mdr up` that runs or in the store itself."""

import contextlib
from collections.abc import Iterator
from typing import Any, Protocol

import click

from api import audit, auth
from api.client import ClientError, HttpClient
from api.http import segment
from schemas.times import format_rfc3339
from streams import settings
from streams.cli import asking
from streams.cli.common import cli, json_option
from streams.clock import clock_ms
from streams.settings import Settings
from streams.store import Store
from streams.terminal import err, print_json, print_table, say

_PATH = "/mdr/credentials"


class Keys(Protocol):
    """Where keys are kept; the answers are those of `/mdr/credentials`."""

    def add(self, account: str, parent: str, key: str | None, scopes: tuple[str, ...], expires: str) -> dict[str, Any]:
        """A new key with its secret; `expires` is an instant, a day or `""`."""
        ...

    def every(self) -> list[dict[str, Any]]:
        """Every key without its secret."""
        ...

    def revoke(self, key: str) -> bool:
        """Ends a key; False when there is no such live one."""
        ...


class _Served:
    """The keys of a running `mdr up` or `mdr api`."""

    def __init__(self, client: HttpClient) -> None:
        self._client = client

    def add(self, account: str, parent: str, key: str | None, scopes: tuple[str, ...], expires: str) -> dict[str, Any]:
        body = {"account_id": account, "parent_id": parent, "key": key, "scopes": list(scopes), "expires_at": expires}
        told = self._client.send("POST", _PATH, body=body)
        return {name: told[name] for name in ("account_id", "scopes", "expires_at", "key", "secret", "bearer")}

    def every(self) -> list[dict[str, Any]]:
        return list(self._client.get(_PATH)["credentials"])

    def revoke(self, key: str) -> bool:
        try:
            self._client.send("DELETE", f"{_PATH}/{segment(key)}")
        except ClientError as e:
            if e.status == 404:
                return False
            raise
        return True


class _Stored:
    """The keys in the store, which nobody else has open."""

    def __init__(self, store: Store) -> None:
        self._client = store.client

    def add(self, account: str, parent: str, key: str | None, scopes: tuple[str, ...], expires: str) -> dict[str, Any]:
        expires_ms = auth.parse_expiry(expires, clock_ms()) if expires else 0
        detail = {"for_account": account, "scopes": list(scopes), "expires_at": expires}
        with audit.recorded(self._client, _act(audit.KEY_ADD, detail)) as kept:
            issued = auth.add_credential(self._client, account, parent, key, scopes, expires_ms)
            kept["made"] = issued.key
        ends = format_rfc3339(expires_ms) if expires_ms else None
        return {"account_id": account, "scopes": list(scopes), "expires_at": ends, **issued._asdict()}

    def every(self) -> list[dict[str, Any]]:
        return auth.list_credentials(self._client)

    def revoke(self, key: str) -> bool:
        with audit.recorded(self._client, _act(audit.KEY_REVOKE, {"ended": key[:64]})):
            return auth.revoke(self._client, key)


def _act(action: str, detail: dict[str, Any]) -> audit.Entry:
    return audit.Entry(clock_ms(), action, key=audit.COMMAND_LINE, detail=detail)


@contextlib.contextmanager
def _keys(wanted: Settings) -> Iterator[Keys]:
    client = asking.answering(wanted)
    if client is not None:
        yield _Served(client)
        return
    with contextlib.closing(asking.migrated(wanted)) as store:
        yield _Stored(store)


@cli.group()
def credentials() -> None:
    """Who may read: accounts, the accounts below them, and their keys."""


@credentials.command("add")
@click.argument("account")
@click.option("--parent", default="", help="The account that this one is below.")
@click.option("--key", help="1 to 64 letters, digits, - and _; made up by default. Plivo wants MA and 18 more.")
@click.option(
    "--scope", "scopes", multiple=True, type=click.Choice(auth.SCOPES), default=(auth.READ,), show_default=True,
    help="What the key may do; may be given several times. sms.read_descendant adds the accounts below.",
)  # fmt: skip
@click.option("--expires", default="", help="When the key ends: in 90d or 12h, on 2030-01-31; never by default.")
@json_option
def add_command(
    account: str, parent: str, key: str | None, scopes: tuple[str, ...], expires: str, as_json: bool
) -> None:
    """Make a key for ACCOUNT, and the account when there is none. The secret is printed this once."""
    with _keys(settings.load()) as keys:
        made = keys.add(account, parent, key, scopes, _instant(expires))
    if as_json:
        print_json(made)
        return
    width = max(map(len, ("account", "key", "secret", "bearer")))
    for name, shown in (("account", "account_id"), ("key", "key"), ("secret", "secret"), ("bearer", "bearer")):
        say(f"{name:<{width}}  {made[shown]}")
    err.print("The secret is not kept: this is the only time it is shown.")


def _instant(text: str) -> str:
    """Return an instant for a duration from now; a day or an instant as it is."""
    try:
        return format_rfc3339(clock_ms() + settings.parse_duration_ms(text))
    except (ValueError, OverflowError):
        return text


@credentials.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """Every key, live, expired or revoked; no secrets."""
    with _keys(settings.load()) as keys:
        found = keys.every()
    if as_json:
        for line in found:
            print_json(line)
        return
    print_table(("account", "parent", "key", "scopes", "created", "expires", "revoked"), map(_cells, found))


def _cells(line: dict[str, Any]) -> tuple[str, ...]:
    scopes, revoked = " ".join(line["scopes"]), "yes" if line["revoked"] else ""
    created, expires = line["created_at"], line["expires_at"] or "never"
    return line["account_id"], line["parent_id"], line["key"], scopes, created, expires, revoked


@credentials.command("revoke")
@click.argument("key")
@json_option
def revoke_command(key: str, as_json: bool) -> None:
    """End KEY at once, in every process; it can never be made again."""
    with _keys(settings.load()) as keys:
        if not keys.revoke(key):
            raise auth.AccessError(f"there is no live key {key}")
    if as_json:
        print_json({"key": key, "revoked": True})
    else:
        say(f"{key} is revoked")
