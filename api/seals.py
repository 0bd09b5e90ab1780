"""Seals small values, so that only processes that share the data directory can write them and each can read them.

The keys lie in `seal.keys` in the data directory, base64, one a line, the newest last. Values are sealed with the
newest key and opened with any, so a key is rotated by appending one and, a day later, removing the older one. A purpose
is a salt: what is sealed for one purpose does not open for another.
"""

import base64
import binascii
import hashlib
import hmac
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from itsdangerous import BadData, TimestampSigner, URLSafeTimedSerializer

FILE: Final = "seal.keys"
_KEY_BYTES: Final = 32
_HASH_DIGITS: Final = 32
# Processes that share the keys need not share a clock to the second.
_SKEW_S: Final = 60


class SealError(Exception):
    """The keys cannot be used; one sentence that names the file."""


class Opened(NamedTuple):
    """A value that was sealed, and when."""

    value: Any
    sealed_ms: int


class _Signer(TimestampSigner):
    """Signs with SHA-256 and with the time that it is given."""

    default_digest_method = staticmethod(hashlib.sha256)

    def __init__(self, *args: Any, now_s: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._now_s = now_s

    def get_timestamp(self) -> int:
        """Return the given time."""
        return self._now_s


class Seals:
    """Seals JSON values and opens them again within their time."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = list(keys)

    def seal(self, purpose: str, value: Any, now_ms: int) -> str:
        """Return the sealed value: URL-safe text."""
        text = self._serializer(purpose, now_ms // 1000).dumps(value)
        return text if isinstance(text, str) else text.decode()

    def opened(self, purpose: str, text: str, now_ms: int, max_age_s: int) -> Opened | None:
        """Return a value and when it was sealed; None when it is not ours, for another purpose or too old."""
        serializer = self._serializer(purpose, now_ms // 1000 + _SKEW_S)
        given = text.encode("utf-8", "replace")
        try:
            value, sealed = serializer.loads(given, max_age=max_age_s + _SKEW_S - 1, return_timestamp=True)
        except BadData:
            return None
        return Opened(value, int(sealed.timestamp() * 1000))

    def hashed(self, purpose: str, text: str) -> str:
        """Return a keyed hash of text: whoever lacks the keys cannot tell by trying which text it is of."""
        whole = f"{purpose}\0{text}".encode("utf-8", "surrogatepass")
        return hmac.new(self._keys[-1], whole, hashlib.sha256).hexdigest()[:_HASH_DIGITS]

    def _serializer(self, purpose: str, now_s: int) -> URLSafeTimedSerializer:
        return URLSafeTimedSerializer(self._keys, salt=purpose, signer=_Signer, signer_kwargs={"now_s": now_s})


def load(data_dir: Path) -> Seals:
    """Return the seals of a data directory; the first process that asks makes the key. Raises `SealError`."""
    path = data_dir / FILE
    if not path.exists():
        _make(path)
    try:
        keys = [base64.b64decode(line, validate=True) for line in path.read_bytes().split()]
    except binascii.Error:
        keys = []
    if not keys or any(len(key) < _KEY_BYTES for key in keys):
        raise SealError(f"{path} does not hold keys of {_KEY_BYTES} bytes in base64, one a line: remove it")
    return Seals(keys)


def _make(path: Path) -> None:
    draft = path.with_name(f"{FILE}.{secrets.token_hex(8)}")
    draft.touch(mode=0o600)
    draft.write_bytes(base64.b64encode(secrets.token_bytes(_KEY_BYTES)) + b"\n")
    try:
        # Linking never replaces: of processes that start together, one makes the key and all read the same.
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
