"""Speaking to the local broker by hand: to find out whether it is ready needs no client library and no event loop."""

import hashlib
import hmac
import secrets
import socket
import struct
from base64 import b64decode, b64encode
from typing import Final, NamedTuple

MECHANISM: Final = "SCRAM-SHA-512"
_ANSWER_BYTES_MAX: Final = 1 << 16
_HANDSHAKE, _AUTHENTICATE = 17, 36


class Login(NamedTuple):
    """Who signs in at a broker that asks for it."""

    user: str
    password: str


def ask(connection: socket.socket, key: int, version: int, body: bytes) -> bytes:
    """The body of a broker's answer; raises `OSError` when there is none."""
    request = struct.pack(">hhih", key, version, 0, -1) + body
    connection.sendall(struct.pack(">i", len(request)) + request)
    with connection.makefile("rb") as answers:
        head = answers.read(8)
        size = struct.unpack(">i", head[:4])[0] - 4 if len(head) == 8 else 0
        answer = answers.read(min(max(size, 0), _ANSWER_BYTES_MAX))
    if len(answer) < 2:
        raise ConnectionError("the broker hung up")
    return answer


def sign_in(connection: socket.socket, login: Login) -> None:
    """Signs in by SCRAM (RFC 5802); raises `OSError` where the broker refuses."""
    name = MECHANISM.encode()
    _check(ask(connection, _HANDSHAKE, 1, struct.pack(">h", len(name)) + name))
    first = f"n={login.user},r={secrets.token_hex(16)}"
    said = _step(connection, f"n,,{first}")
    told = dict(part.split("=", 1) for part in said.split(","))
    salted = hashlib.pbkdf2_hmac("sha512", login.password.encode(), b64decode(told["s"]), int(told["i"]))
    key = hmac.digest(salted, b"Client Key", "sha512")
    last = f"c=biws,r={told['r']}"
    signature = hmac.digest(hashlib.sha512(key).digest(), f"{first},{said},{last}".encode(), "sha512")
    proof = bytes(a ^ b for a, b in zip(key, signature, strict=True))
    _step(connection, f"{last},p={b64encode(proof).decode()}")


def _step(connection: socket.socket, message: str) -> str:
    said = message.encode()
    answer = _check(ask(connection, _AUTHENTICATE, 0, struct.pack(">i", len(said)) + said))
    # Without an error there is no message of one: its length is -1.
    return answer[8:].decode()


def _check(answer: bytes) -> bytes:
    if answer[:2] != b"\0\0":
        raise ConnectionRefusedError("the broker lets nobody in by this name and password")
    return answer
