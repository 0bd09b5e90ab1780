"""Who is signed in to the pages: the tables of sessions that live, on the server's side.

A session of a key lives while its row in the store says so: API processes that share the store agree, and a restart
changes nothing. A session of the operator lives in the memory of the process whose secret it began with, which is the
only one that can know it, and is there while the store is away. Both tables are bounded: the oldest session ends when
there is one too many.
"""

# ruff: noqa: S608  # every statement is made of constants and placeholders of bound parameters

from typing import Final

from api import query
from api.query import Client
from api.where import Binder
from schemas.times import parse_rfc3339

LIVE_MAX: Final = 20


class OperatorSessions:
    """The operator's sessions of this process."""

    def __init__(self) -> None:
        self._live: dict[str, None] = {}

    def begin(self, session_id: str) -> None:
        """Add a session; the oldest one too many ends."""
        self._live[session_id] = None
        while len(self._live) > LIVE_MAX:
            del self._live[next(iter(self._live))]

    def is_live(self, session_id: str) -> bool:
        """Tell whether a session was begun here and not ended."""
        return session_id in self._live

    def end(self, session_id: str) -> None:
        """End a session."""
        self._live.pop(session_id, None)


def begin(client: Client, key: str, session_id: str, now_ms: int) -> None:
    """Add a session of a key; the oldest ones too many end."""
    for old_id, began_ms in _live(client, key)[LIVE_MAX - 1 :]:
        _write(client, key, old_id, began_ms, ended=True)
    _write(client, key, session_id, now_ms, ended=False)


def is_live(client: Client, key: str, session_id: str) -> bool:
    """Tell whether a session of a key was begun and not ended."""
    b = Binder()
    sql = (
        f"SELECT 1 AS found FROM mdr.sessions FINAL WHERE key = {b.bind(key, 'String')}"
        f" AND session_id = {b.bind(session_id, 'String')} AND is_ended = 0"
    )
    return bool(query.select(client, sql, b))


def end(client: Client, key: str, session_id: str) -> None:
    """End a session of a key, in every process."""
    for live_id, began_ms in _live(client, key):
        if live_id == session_id:
            _write(client, key, session_id, began_ms, ended=True)


def _live(client: Client, key: str) -> list[tuple[str, int]]:
    """Return the ids of a key's sessions that live, newest first, and when they began."""
    b = Binder()
    sql = (
        f"SELECT session_id, began_at FROM mdr.sessions FINAL WHERE key = {b.bind(key, 'String')} AND is_ended = 0"
        " ORDER BY began_at DESC, session_id"
    )
    return [(row["session_id"], parse_rfc3339(row["began_at"]) or 0) for row in query.select(client, sql, b)]


def _write(client: Client, key: str, session_id: str, began_ms: int, *, ended: bool) -> None:
    values = {
        "key": (key, "String"), "session_id": (session_id, "String"), "is_ended": (int(ended), "UInt8"),
        "version": (2 if ended else 1, "UInt8"),
    }  # fmt: skip
    query.write(client, "sessions", values, {"began_at": began_ms})
