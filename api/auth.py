"""Who asks, and what they may see: keys, secrets, scopes and the tree of accounts.

A secret is 256 random bits, so its SHA-256 is all that is kept and a slow hash would protect nothing more. Credentials
are looked up at every request: what is revoked is refused from then on, by every process.
"""

# ruff: noqa: S608  # every statement is made of allow-listed names and placeholders of bound parameters

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from api import query
from api.query import Client, Scope
from api.where import Binder
from schemas.times import parse_rfc3339

READ: Final = "sms.read"
MANAGE: Final = "sms.manage"
DESCENDANTS: Final = "sms.read_descendant"
BODIES: Final = "bodies.read"
SCOPES: Final = (READ, MANAGE, DESCENDANTS, BODIES)
ACCOUNTS_MAX: Final = 10_000
# The operator's name, which no stored key has, in whatever case.
OPERATOR_KEY: Final = "operator"
_KEY: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ACCOUNT: Final = re.compile(r"[^\x00-\x1f\x7f]{1,128}")
# 2200-01-01: what the store can hold with room to spare.
_EXPIRY_MS_MAX: Final = 7_258_118_400_000
_NOBODY: Final = hashlib.sha256(b"").hexdigest()


class AccessError(Exception):
    """An account or credential cannot be made or changed so; one sentence, and the field that is wrong."""

    def __init__(self, sentence: str, field: str = "") -> None:
        super().__init__(sentence)
        self.field = field


class Caller(NamedTuple):
    """Whose request it is. `account_id` is `""` for the operator, who sees every account."""

    key: str
    account_id: str
    scopes: frozenset[str]
    scope: Scope

    @property
    def is_operator(self) -> bool:
        """Whether this is the operator of the machine."""
        return self.scope.accounts is None

    @property
    def may_read(self) -> bool:
        """Whether records may be read at all."""
        return self.is_operator or bool(self.scopes & {READ, MANAGE})

    @property
    def may_see_bodies(self) -> bool:
        """Whether pages and dead letters show numbers and bodies unmasked."""
        return BODIES in self.scopes


class Issued(NamedTuple):
    """A new credential; the secret is never to be seen again."""

    key: str
    secret: str
    bearer: str


def presented(headers: Mapping[str, str]) -> tuple[str, str] | None:
    """The key and secret a request carries: `x-api-user` and `x-api-token`, Basic, or Bearer `key.secret`."""
    if "x-api-user" in headers or "x-api-token" in headers:
        return headers.get("x-api-user", ""), headers.get("x-api-token", "")
    kind, _, value = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        key, dot, secret = value.strip().partition(".")
        return (key, secret) if dot else None
    if kind.lower() == "basic":
        return _basic(value.strip())
    return None


def _basic(value: str) -> tuple[str, str] | None:
    try:
        text = base64.b64decode(value, validate=True).decode()
    except (binascii.Error, ValueError):
        return None
    key, colon, secret = text.partition(":")
    return (key, secret) if colon else None


def key_of(text: str) -> str:
    """Return text when a key could be named so, else `""`: what is kept of a name that somebody typed."""
    return text if _KEY.fullmatch(text) else ""


def identify(
    client: Client, pair: tuple[str, str] | None, operator: tuple[str, str] | None, now_ms: int
) -> Caller | None:
    """Return the caller that a key and secret belong to; None when they belong to nobody, or not any more."""
    if pair is None:
        return None
    if operator is not None and (caller := as_operator(pair, operator)):
        return caller
    row = _credential(client, pair[0], now_ms)
    # The comparison is made either way, so that its time does not tell whether a key exists.
    if not hmac.compare_digest(_hash(pair[1]), row["secret_hash"] if row else _NOBODY) or row is None:
        return None
    return _caller(client, row)


def as_operator(pair: tuple[str, str], operator: tuple[str, str]) -> Caller | None:
    """The operator, when the key and secret are the operator's; the store is not asked."""
    same = [hmac.compare_digest(given.encode(), held.encode()) for given, held in zip(pair, operator, strict=True)]
    return OPERATOR(operator[0]) if all(same) else None


def still_valid(client: Client, key: str, now_ms: int) -> Caller | None:
    """Return the caller of a stored key that was checked before, unless it was revoked or has expired since."""
    row = _credential(client, key, now_ms)
    return _caller(client, row) if row else None


def OPERATOR(key: str) -> Caller:  # noqa: N802  # reads as the constant it nearly is
    """The operator of the machine: every account, every scope."""
    return Caller(key, "", frozenset(SCOPES), Scope(None))


def _caller(client: Client, row: Mapping[str, Any]) -> Caller:
    account, scopes = row["account_id"], frozenset(row["scopes"])
    below = descendants(account, tree(client)) if DESCENDANTS in scopes else ()
    return Caller(row["key"], account, scopes, Scope((account, *below)))


def _is_key(key: str) -> bool:
    return _KEY.fullmatch(key) is not None and key.lower() != OPERATOR_KEY


def _credential(client: Client, key: str, now_ms: int) -> dict[str, Any] | None:
    """Return a key that may be used now. One of the operator's name, which an older version stored, may not."""
    row = _live(client, key) if _is_key(key) else None
    return row if row is not None and not 0 < _expiry_ms(row) <= now_ms else None


def _live(client: Client, key: str) -> dict[str, Any] | None:
    """Return a key that is not revoked."""
    b = Binder()
    sql = (
        "SELECT key, account_id, secret_hash, scopes, created_at, expires_at FROM mdr.credentials FINAL"
        f" WHERE key = {b.bind(key, 'String')} AND revoked = 0"
    )
    rows = query.select(client, sql, b)
    return rows[0] if rows else None


def _expiry_ms(row: Mapping[str, Any]) -> int:
    """Return when a key ends; 0 for never."""
    return parse_rfc3339(row["expires_at"]) or 0


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


# ---- accounts --------------------------------------------------------------------------------------------------


def tree(client: Client) -> dict[str, str]:
    """Every account's parent, `""` for none."""
    rows = query.select(client, "SELECT account_id, parent_id FROM mdr.accounts FINAL", Binder())
    return {row["account_id"]: row["parent_id"] for row in rows}


def descendants(account: str, parents: Mapping[str, str]) -> tuple[str, ...]:
    """The accounts below an account, nearest first, at most `ACCOUNTS_MAX`. Pure."""
    children: dict[str, list[str]] = {}
    for child, parent in sorted(parents.items()):
        children.setdefault(parent, []).append(child)
    found: dict[str, None] = {}
    level: Iterable[str] = (account,)
    while level and len(found) < ACCOUNTS_MAX:
        level = [c for p in level for c in children.get(p, ()) if c not in found and c != account]
        found.update(dict.fromkeys(level))
    return tuple(found)[:ACCOUNTS_MAX]


def add_account(client: Client, account_id: str, parent_id: str = "") -> None:
    """Makes an account, or moves it below another parent; raises `AccessError`."""
    for name, value in (("account", account_id), ("parent", parent_id or "-")):
        if not _ACCOUNT.fullmatch(value):
            raise AccessError(f"the {name} is not 1 to 128 characters without control characters", f"{name}_id")
    parents = tree(client)
    if account_id in parents and (parents[account_id] == parent_id or not parent_id):
        return
    if parent_id and (parent_id == account_id or parent_id in descendants(account_id, parents)):
        why = "it is the account itself or below it"
        raise AccessError(f"{parent_id} cannot be the parent of {account_id}: {why}", "parent_id")
    if parent_id and parent_id not in parents:
        _write_account(client, parent_id, "")
    _write_account(client, account_id, parent_id)


def _write_account(client: Client, account_id: str, parent_id: str) -> None:
    b = Binder()
    sql = f"SELECT max(version) AS v FROM mdr.accounts WHERE account_id = {b.bind(account_id, 'String')}"
    version = int(query.select(client, sql, b)[0]["v"]) + 1
    values = {
        "account_id": (account_id, "String"),
        "parent_id": (parent_id, "String"),
        "version": (version, "UInt64"),
    }
    query.write(client, "accounts", values)


# ---- credentials -----------------------------------------------------------------------------------------------


def add_credential(
    client: Client,
    account_id: str,
    parent_id: str = "",
    key: str | None = None,
    scopes: Sequence[str] = (READ,),
    expires_ms: int = 0,
) -> Issued:
    """Make a key for an account, and the account when there is none; it never expires by default.

    Raises `AccessError`.
    """
    key = secrets.token_hex(12) if key is None else key
    _refuse_bad(client, key, scopes)
    add_account(client, account_id, parent_id)
    secret = secrets.token_urlsafe(32)
    values = {
        "key": (key, "String"), "account_id": (account_id, "String"), "secret_hash": (_hash(secret), "String"),
        "scopes": (list(scopes or (READ,)), "Array(String)"), "version": (1, "UInt64"),
    }  # fmt: skip
    query.write(client, "credentials", values, {"expires_at": expires_ms})
    return Issued(key, secret, f"{key}.{secret}")


def _refuse_bad(client: Client, key: str, scopes: Sequence[str]) -> None:
    if not _KEY.fullmatch(key):
        raise AccessError("a key is 1 to 64 letters, digits, - and _", "key")
    if not _is_key(key):
        raise AccessError(f"{OPERATOR_KEY} is no name for a key, in whatever case", "key")
    for scope in scopes:
        if scope not in SCOPES:
            raise AccessError(f"there is no scope {scope}: it is one of {', '.join(SCOPES)}", "scopes")
    if any(row["key"] == key for row in list_credentials(client)):
        raise AccessError(f"the key {key} is taken, or was once", "key")


def parse_expiry(text: str, now_ms: int) -> int:
    """Return when a key ends: an instant of RFC 3339, or a day as it begins; raises `AccessError`."""
    ms = parse_rfc3339(f"{text}T00:00:00Z" if len(text) == len("2026-01-31") else text)
    if ms is None or not now_ms < ms < _EXPIRY_MS_MAX:
        why = "is not a day or an instant to come, such as 2030-01-31 or 2030-01-31T09:15:04Z"
        raise AccessError(f"expires_at {why}", "expires_at")
    return ms


def list_credentials(client: Client) -> list[dict[str, Any]]:
    """Every key: key, account_id, parent_id, scopes, created_at, expires_at (None: never), revoked. No secrets."""
    parents = tree(client)
    sql = (
        "SELECT key, account_id, arraySort(scopes) AS scopes, created_at, expires_at, revoked"
        " FROM mdr.credentials FINAL ORDER BY account_id, key"
    )
    return [_shown(row, parents) for row in query.select(client, sql, Binder())]


def _shown(row: dict[str, Any], parents: Mapping[str, str]) -> dict[str, Any]:
    expires = row["expires_at"] if _expiry_ms(row) else None
    parent = parents.get(row["account_id"], "")
    return row | {"parent_id": parent, "expires_at": expires, "revoked": bool(row["revoked"])}


def revoke(client: Client, key: str) -> bool:
    """End a key at once; False when there is no such live key."""
    row = _live(client, key)
    if row is None:
        return False
    values = {
        "key": (key, "String"), "account_id": (row["account_id"], "String"), "scopes": (row["scopes"], "Array(String)"),
        "revoked": (1, "UInt8"), "version": (2, "UInt64"),
    }  # fmt: skip
    times = {"created_at": parse_rfc3339(row["created_at"]) or 0, "expires_at": _expiry_ms(row)}
    query.write(client, "credentials", values, times)
    return True
