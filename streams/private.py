"""Keeps what is stored from other local users: directories that only we can enter, files that only we can read."""

import logging
import os
import stat
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
UMASK: Final = _OTHERS


def directory(path: Path) -> None:
    """Make a directory that only we can enter; one that others could enter is closed, with all that is in it.

    What belongs to somebody else is left as it is, and told.
    """
    path.mkdir(mode=stat.S_IRWXU, parents=True, exist_ok=True)
    state = path.stat()
    if not state.st_mode & _OTHERS:
        return  # nobody else gets to what is below
    if state.st_uid != os.geteuid():
        log.warning("%s belongs to another user, and others may read what is stored in it", path)
        return
    path.chmod(stat.S_IMODE(state.st_mode) & ~_OTHERS)
    _close_below(path)


def _close_below(top: Path) -> None:
    for _, folders, files, at in os.fwalk(top):
        for name in (*folders, *files):
            state = os.stat(name, dir_fd=at, follow_symlinks=False)
            is_open = state.st_mode & _OTHERS and not stat.S_ISLNK(state.st_mode)
            if is_open and state.st_uid == os.geteuid():
                os.chmod(name, stat.S_IMODE(state.st_mode) & ~_OTHERS, dir_fd=at)
