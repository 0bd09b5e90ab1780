"""A real broker that speaks TLS: SCRAM over TLS on one port, certificates both ways on another, plain text on a third."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

from streams import broker
from streams.broker_port import free_port
from streams.settings import load

USER, PASSWORD = "clerk", "s3cret%and+more"
_MORE = """\
listeners=PLAINTEXT://{{host}}:{{port}},CONTROLLER://{{host}}:{{controller}},SASL_SSL://{{host}}:{sasl},SSL://{{host}}:{ssl}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL,SSL:SSL
sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.ssl.ssl.client.auth=required
ssl.keystore.type=PEM
ssl.keystore.location={keys}
ssl.truststore.type=PEM
ssl.truststore.location={ca}
"""


class Secured(NamedTuple):
    """Where it listens, and the files that fit, or do not."""

    plain: str
    sasl: str
    tls: str
    home: Path

    def of(self, name: str) -> str:
        """A file's path."""
        return str(self.home / name)


@contextmanager
def serve(home: Path) -> Iterator[Secured]:
    """A broker that runs until the block's end."""
    certificates(home)
    (home / "keys.pem").write_text((home / "server.key").read_text() + (home / "server.crt").read_text())
    sasl = free_port(home / "sasl")
    tls = free_port(home / "tls", besides=sasl)
    more = _MORE.format(sasl=sasl, ssl=tls, keys=home / "keys.pem", ca=home / "ca.crt")
    user = ("--add-scram", f'SCRAM-SHA-512=[name={USER},password={PASSWORD}]')
    with patch.object(broker, "_SERVER", broker._SERVER + more), patch.object(broker, "_FORMAT", (*broker._FORMAT, *user)):
        started = broker.start(home, cache_dir=load().cache_dir, tied_to_parent=True)
    try:
        yield Secured(started.bootstrap, f"127.0.0.1:{sasl}", f"127.0.0.1:{tls}", home)
    finally:
        broker.stop(home)


def certificates(home: Path) -> None:
    """An authority with certificates of a server at 127.0.0.1 and a client, another authority, keys of no use."""
    for name in ("ca", "other"):
        _openssl(home, f"req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={name} -keyout {name}.key -out {name}.crt")
    for name, days in (("server", 2), ("client", 2), ("stranger", 2)):
        _openssl(home, f"req -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr")
        (home / "alt").write_text("subjectAltName=IP:127.0.0.1\n")
        by = "other" if name == "stranger" else "ca"
        _openssl(
            home, f"x509 -req -in {name}.csr -CA {by}.crt -CAkey {by}.key -CAcreateserial -days {days} -extfile alt"
            f" -out {name}.crt",
        )  # fmt: skip
    _openssl(home, "pkcs8 -topk8 -in client.key -passout pass:x -out encrypted.key")
    _openssl(home, "pkcs12 -export -in client.crt -inkey client.key -passout pass:x -out client.p12")


def _openssl(home: Path, arguments: str) -> None:
    subprocess.run(["openssl", *arguments.split()], cwd=home, check=True, capture_output=True)
