"""Where the local broker listens, and whether a Kafka answers there."""

import errno
import os
import socket
import struct
import zlib
from pathlib import Path
from typing import Final

from streams.broker_jars import BrokerError
from streams.broker_login import Login, ask, sign_in

HOST: Final = "127.0.0.1"
# Below the ports that systems hand out to outgoing connections (from 32,768): a client that keeps trying
# while the broker is down could be given its port, connect to itself, and keep the broker out for good.
_PORTS: Final = range(19_092, 29_092)


def answers(port: int, login: Login | None = None) -> bool:
    """Whether a Kafka there is ready for consumer groups: it answers FindCoordinator (v1) without error.

    Asking also makes a fresh broker create its offsets topic, so that the first real client need not wait.
    """
    group = b"mdr"
    try:
        with socket.create_connection((HOST, port), timeout=1.0) as connection:
            if login is not None:
                sign_in(connection, login)
            answer = ask(connection, 10, 1, struct.pack(">h3sb", len(group), group, 0))
    except OSError:
        return False
    # The throttle time, then the error code.
    return answer[4:6] == b"\0\0"


def choose_port(home: Path, asked: int | None, former: int | None) -> int:
    """The port asked for, else the one of last time so that clients find it again, else a free one."""
    if asked is not None:
        refusal = _refusal(asked)
        if refusal:
            raise BrokerError(f"port {asked} on {HOST} cannot be used: {refusal}")
        return asked
    return former if former is not None and not _refusal(former) else free_port(home)


def free_port(home: Path, besides: int | None = None) -> int:
    """A port nobody listens on, the same one each time as far as it is free."""
    # Each directory looks in a place of its own, so that two that start at once do not take the same.
    first = zlib.crc32(os.fsencode(home.resolve()))
    for port in (_PORTS[(first + step) % len(_PORTS)] for step in range(len(_PORTS))):
        if port != besides and not _refusal(port):
            return port
    raise BrokerError(f"no port from {_PORTS.start} to {_PORTS.stop - 1} on {HOST} is free")


def _refusal(port: int) -> str:
    if not 0 < port < 65_536:
        return "it is not between 1 and 65535"
    with socket.socket() as probe:
        # As the broker does: connections of a former one that still fade away are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            return "another program has it" if error.errno == errno.EADDRINUSE else str(error.strerror)
    return ""
