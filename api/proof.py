"""How a server proves to a command that it knows the operator's secret, before the command tells it. Pure.

The command sends a fresh nonce; the server answers with its signature by the secret, over the nonce and the address it
serves. Whoever merely listens there, after the process that wrote the secret has died, cannot answer, and what it
relays to another address does not fit.
"""

import hashlib
import re
from typing import Final

from itsdangerous import Signer

PATH: Final = "/mdr/operator"
_NONCE: Final = re.compile(r"[A-Za-z0-9_-]{22,64}")


def is_nonce(text: str) -> bool:
    """Tell whether a text may be asked for a proof of."""
    return _NONCE.fullmatch(text) is not None


def proof(secret: str, nonce: str, url: str) -> str:
    """Return what proves that the secret is known at an address."""
    return _signer(secret).get_signature(_text(nonce, url)).decode()


def is_proof(secret: str, nonce: str, url: str, given: str) -> bool:
    """Tell whether an answer proves it, in constant time."""
    return _signer(secret).verify_signature(_text(nonce, url), given.encode("utf-8", "replace"))


def _signer(secret: str) -> Signer:
    return Signer(secret, salt="operator proof", digest_method=hashlib.sha256)


def _text(nonce: str, url: str) -> str:
    return f"{nonce} {url.rstrip('/')}"
