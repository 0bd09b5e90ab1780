"""How to speak to a broker, TLS and SASL as the settings say; and why it does not work, in one true sentence.

Clients say of any failure that nothing answers. So a broker that cannot be reached is asked once more, step by step, by
hand: does anybody listen, is it TLS, whose certificate, does it want ours, does it know the user.
"""

import asyncio
import socket
import ssl
import struct
from pathlib import Path
from typing import Any, Final, NoReturn

from aiokafka.conn import create_conn
from aiokafka.errors import (
    AuthenticationFailedError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)

from streams.settings import Settings, SettingsError

_TIMEOUT_S: Final = 5.0
_PROTOCOL: Final = "MDR_KAFKA_SECURITY_PROTOCOL"
_CAFILE: Final = "MDR_KAFKA_SECURITY_CAFILE"
_CERTFILE: Final = "MDR_KAFKA_SECURITY_CERTFILE"
_KEYFILE: Final = "MDR_KAFKA_SECURITY_KEYFILE"
# ApiVersions and Metadata of no topic, both version 0 or 1, which every broker answers.
_VERSIONS: Final = struct.pack(">hhih", 18, 0, 0, -1)
_METADATA: Final = struct.pack(">hhihi", 3, 1, 0, -1, 0)
_HANDSHAKE: Final = 0x15  # what a TLS server says to somebody who does not speak TLS
_EXPIRED, _OTHER_HOST, _OTHER_ADDRESS = 10, 62, 64


def client_options(settings: Settings) -> dict[str, Any]:
    """What every aiokafka client needs to connect: servers, TLS, SASL; raises `SettingsError` for files of no use."""
    protocol = settings.kafka_security_protocol
    made: dict[str, Any] = {"bootstrap_servers": settings.kafka, "security_protocol": protocol}
    if protocol in ("SSL", "SASL_SSL"):
        made["ssl_context"] = _context(settings)
    if protocol.startswith("SASL"):
        if not settings.kafka_security_username:
            raise SettingsError(f"MDR_KAFKA_SECURITY_USERNAME is empty, but {_PROTOCOL} is {protocol}")
        made["sasl_mechanism"] = settings.kafka_security_mechanism or "PLAIN"
        made["sasl_plain_username"] = settings.kafka_security_username
        made["sasl_plain_password"] = settings.kafka_security_password
    return made


async def why(settings: Settings) -> str:
    """What is wrong with the connection, `""` when nothing is found; takes seconds."""
    try:
        async with asyncio.timeout(3 * _TIMEOUT_S):
            found = [await _why_server(settings, server.strip()) for server in settings.kafka.split(",")]
    except TimeoutError:
        return ""
    return next(filter(None, found), "")


# ---- files -----------------------------------------------------------------------------------------------------


def _context(settings: Settings) -> ssl.SSLContext:
    cafile, certfile, keyfile = (
        settings.kafka_security_cafile, settings.kafka_security_certfile, settings.kafka_security_keyfile,
    )  # fmt: skip
    for name, path in ((_CAFILE, cafile), (_CERTFILE, certfile), (_KEYFILE, keyfile)):
        _check_file(name, path)
    try:
        context = ssl.create_default_context(cafile=cafile or None)
    except ssl.SSLError:
        raise SettingsError(f"{_CAFILE} {cafile!r} holds no certificate in PEM") from None
    if keyfile and not certfile:
        raise SettingsError(f"{_KEYFILE} is of no use without {_CERTFILE}")
    if certfile:
        _load(context, certfile, keyfile)
    return context


def _check_file(name: str, path: str) -> None:
    try:
        if path:
            Path(path).open("rb").close()
    except OSError as e:
        raise SettingsError(f"{name} {path!r} cannot be read: {e.strerror}") from None


def _load(context: ssl.SSLContext, certfile: str, keyfile: str) -> None:
    where = f"{_KEYFILE} {keyfile!r}" if keyfile else f"{_CERTFILE} {certfile!r}"

    def encrypted() -> NoReturn:
        raise SettingsError(f"{where} holds an encrypted key: it must be one without a password")

    try:
        context.load_cert_chain(certfile, keyfile or None, encrypted)
    except ssl.SSLError as e:
        if e.reason == "KEY_VALUES_MISMATCH":
            raise SettingsError(f"{where} holds another key than the certificate of {_CERTFILE}") from None
        held = "hold no certificate and key" if keyfile else "holds no certificate with its key"
        raise SettingsError(f"{_CERTFILE} {certfile!r}{' and ' + where if keyfile else ''} {held} in PEM") from None


# ---- asking step by step ---------------------------------------------------------------------------------------


async def _why_server(settings: Settings, server: str) -> str:
    host, _, port = server.rpartition(":")
    host = host.strip("[]")
    found = await asyncio.to_thread(_why_not, settings, host, int(port))
    if not found and settings.kafka_security_protocol.startswith("SASL"):
        found = await _why_no_user(settings, host, int(port))
    return found


def _why_not(settings: Settings, host: str, port: int) -> str:
    try:
        raw = socket.create_connection((host, port), _TIMEOUT_S)
    except socket.gaierror:
        return f"the name {host} is not known (MDR_KAFKA)"
    except OSError as e:
        return "nothing answers there" if not isinstance(e, TimeoutError) else f"no answer within {_TIMEOUT_S:.0f} s"
    with raw:
        if settings.kafka_security_protocol.endswith("SSL"):
            return _why_no_tls(settings, raw, host, port)
        return _why_not_plain(settings, raw, host, port)


def _why_not_plain(settings: Settings, raw: socket.socket, host: str, port: int) -> str:
    if not _answers(raw, _VERSIONS):
        speaks = _speaks_tls(host, port)
        meant = "SASL_SSL" if settings.kafka_security_protocol.startswith("SASL") else "SSL or SASL_SSL"
        return f"it speaks TLS: {_PROTOCOL} is to be {meant}" if speaks else "what answers there is no Kafka broker"
    return _why_no_sign_in(settings, raw, "SASL_PLAINTEXT")


def _why_no_sign_in(settings: Settings, connection: socket.socket, meant: str) -> str:
    """Of a broker that spoke to us: whether it hangs up on who does not sign in."""
    if settings.kafka_security_protocol.startswith("SASL") or _answers(connection, _METADATA):
        return ""
    return f"it wants a user to sign in: {_PROTOCOL} is to be {meant}"


def _why_no_tls(settings: Settings, raw: socket.socket, host: str, port: int) -> str:
    try:
        with client_options(settings)["ssl_context"].wrap_socket(raw, server_hostname=host) as connection:
            # What it thinks of our certificate it says only after the handshake.
            if _answers(connection, _VERSIONS):
                return _why_no_sign_in(settings, connection, "SASL_SSL")
            return _of_our_certificate(settings)
    except ssl.SSLCertVerificationError as e:
        return _of_its_certificate(settings, e, host)
    except OSError:
        if _speaks_tls(host, port):
            return _of_our_certificate(settings)
        meant = "SASL_PLAINTEXT" if settings.kafka_security_protocol.startswith("SASL") else "PLAINTEXT"
        return f"it does not speak TLS: {_PROTOCOL} is to be {meant}, or it has another port for TLS (MDR_KAFKA)"


def _of_our_certificate(settings: Settings) -> str:
    if settings.kafka_security_certfile:
        return f"it does not accept the certificate of {_CERTFILE}"
    return f"it wants a certificate of ours: {_CERTFILE} and {_KEYFILE} are empty"


def _of_its_certificate(settings: Settings, e: ssl.SSLCertVerificationError, host: str) -> str:
    if e.verify_code == _EXPIRED:
        return "its certificate has expired"
    if e.verify_code in (_OTHER_HOST, _OTHER_ADDRESS):
        return f"its certificate is not for {host}: MDR_KAFKA must name it as the certificate does"
    if settings.kafka_security_cafile:
        return f"its certificate is not signed by an authority of {_CAFILE} ({e.verify_message})"
    return f"its certificate is not signed by an authority that this machine knows, and {_CAFILE} is empty"


def _answers(connection: socket.socket, request: bytes) -> bool:
    """Whether a Kafka broker answers a request."""
    try:
        connection.sendall(struct.pack(">i", len(request)) + request)
        head = connection.recv(8)
    except OSError:
        return False
    return len(head) == 8 and head[4:] == bytes(4) and head[0] != _HANDSHAKE


def _speaks_tls(host: str, port: int) -> bool:
    """Whether a handshake begins there, whatever comes of it."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is sent or believed
    try:
        with (
            socket.create_connection((host, port), _TIMEOUT_S) as raw,
            context.wrap_socket(raw, server_hostname=host) as connection,
        ):
            return connection.version() is not None
    except OSError as e:
        return "ALERT" in (getattr(e, "reason", "") or "")


async def _why_no_user(settings: Settings, host: str, port: int) -> str:
    how = {**client_options(settings), "request_timeout_ms": int(_TIMEOUT_S * 1000)}
    del how["bootstrap_servers"]
    try:
        (await create_conn(host, port, **how)).close()
    except UnsupportedSaslMechanismError:
        return f"it does not know {how['sasl_mechanism']}: MDR_KAFKA_SECURITY_MECHANISM is to be another"
    except (AuthenticationFailedError, SaslAuthenticationFailed):
        user = settings.kafka_security_username
        return f"it refuses the user {user!r}: MDR_KAFKA_SECURITY_USERNAME or MDR_KAFKA_SECURITY_PASSWORD is wrong"
    except (KafkaError, OSError, TimeoutError) as e:
        return f"it lets nobody sign in ({type(e).__name__}): {_PROTOCOL} or MDR_KAFKA_SECURITY_MECHANISM is another"
    return ""
