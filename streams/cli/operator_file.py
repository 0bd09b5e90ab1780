"""The credential that a running `mdr up` or `mdr api` leaves in the data directory, for commands on this machine.

The file is locked for as long as the process that wrote it lives, however it ends: one that is not locked is a trace,
and is removed. Whether who listens at its address is that process, the client asks before it tells the secret
(`api.proof`).
"""

import contextlib
import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

import msgspec

_NAME: Final = "operator.json"
_BYTES_MAX: Final = 4_096


class OperatorFileUnsafe(Exception):
    """The credential may have been put there by somebody else; one sentence that names the file."""


class Operator(msgspec.Struct):
    """The credential of whoever runs commands on this machine, and where they are answered."""

    url: str
    key: str
    secret: str


def path(data_dir: Path) -> Path:
    """Where the operator's credential lies while this runs."""
    return data_dir / _NAME


@contextlib.contextmanager
def kept(data_dir: Path, operator: Operator) -> Iterator[None]:
    """Leave the credential, whole, locked and readable by nobody else, until the block ends."""
    at = path(data_dir)
    draft = at.with_name(f"{_NAME}.{secrets.token_hex(8)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(msgspec.json.encode(operator))
        file.flush()
        draft.rename(at)
        try:
            yield
        finally:
            _remove(at, file)


def read(data_dir: Path) -> Operator | None:
    """Return the credential of the process that serves this data directory, if one lives; a dead one's is removed.

    Raises `OperatorFileUnsafe` for a symbolic link, for what is no file, and for a file that is not ours alone.
    """
    at = path(data_dir)
    try:
        # Neither is a link followed, nor a pipe waited for.
        opened = os.open(at, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as e:
        why = "is a symbolic link" if e.errno == errno.ELOOP else f"cannot be read: {e.strerror}"
        raise OperatorFileUnsafe(f"{at} {why}") from None
    try:
        _refuse_foreign(at, os.fstat(opened))
    except OperatorFileUnsafe:
        os.close(opened)
        raise
    with os.fdopen(opened, "rb") as file:
        if not _is_locked(file):
            _remove(at, file)
            return None
        return _decoded(at, file)


def _refuse_foreign(at: Path, state: os.stat_result) -> None:
    if not stat.S_ISREG(state.st_mode):
        raise OperatorFileUnsafe(f"{at} is no regular file")
    if state.st_uid != os.geteuid():
        raise OperatorFileUnsafe(f"{at} belongs to another user: run this as the user who runs mdr")


def _is_locked(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _decoded(at: Path, file: IO[bytes]) -> Operator:
    if os.fstat(file.fileno()).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise OperatorFileUnsafe(f"{at} is open to other users: its secret may be known, start mdr anew")
    try:
        return msgspec.json.decode(file.read(_BYTES_MAX), type=Operator)
    except msgspec.MsgspecError:
        raise OperatorFileUnsafe(f"{at} does not hold a credential") from None


def _remove(at: Path, file: IO[bytes]) -> None:
    """Remove the file unless another process has put its own there since."""
    with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(at.lstat(), os.fstat(file.fileno())):
            at.unlink()
