"""The credential that a running `mdr up` or `mdr api` leaves in the data directory, for commands on this machine."""

import os
from pathlib import Path
from typing import Final

import msgspec

_NAME: Final = "operator.json"


class Operator(msgspec.Struct):
    """The credential of whoever runs commands on this machine, and where they are answered."""

    url: str
    key: str
    secret: str


def path(data_dir: Path) -> Path:
    """Where the operator's credential lies while this runs."""
    return data_dir / _NAME


def keep(data_dir: Path, operator: Operator) -> None:
    """Leaves the credential, readable by nobody else."""
    at = path(data_dir)
    at.unlink(missing_ok=True)
    with os.fdopen(os.open(at, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(msgspec.json.encode(operator))


def read(data_dir: Path) -> Operator | None:
    """The credential of the `mdr up` that runs on this data directory, if one left it there."""
    try:
        return msgspec.json.decode(path(data_dir).read_bytes(), type=Operator)
    except (OSError, msgspec.MsgspecError):
        return None
