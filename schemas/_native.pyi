"""The compiled part (native/): fast ways that only ever say what the Python says."""

from typing import Any

def records(
    data: bytes, at: int, most: int, frame: tuple[int, int, bool, int, bool], after: int
) -> tuple[list[Any], int]: ...
def newest(entries: Any, limit_ms: int, /) -> int: ...
def trim(value: bytes, names: tuple[str, ...], /) -> bytes | tuple[str, str]: ...
def hashes(events: list[tuple[Any, Any]], /) -> bytes: ...

class Record:
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]

class Decoder:
    def __init__(
        self, blank: Any, spec: tuple[tuple[str, str, str, bool], ...], choices: dict[str, dict[str, str]],
        far_end: str, regions: dict[int, str], country: Any, /,
    ) -> None: ...  # fmt: skip
    def batch(self, entries: Any, clock_ms: int, where: str, /) -> tuple[list[Any], list[int]]: ...

class Event:
    def struct(self) -> Any: ...

class Builder:
    def __init__(
        self, names: tuple[str, ...], kinds: tuple[str, ...], send: Any, receive: Any, receipt: Any, life: Any, /
    ) -> None: ...
    def outbound(self, shard: int, lives: list[Any], /) -> list[Any]: ...
    def inbound(self, shard: int, receives: list[Any], settled_ms: int, /) -> list[Any]: ...
    def finish(self) -> list[tuple[int, dict[str, tuple[Any, ...]]]]: ...

class Joiner:
    def __init__(self, blank: Any, send: Any, receipt: Any, /) -> None: ...
    def sends(
        self, events: list[Any], lives: Any, fresh: Any, flushing: Any, held: set[str], suspects: set[int],
        dirty: set[str], young: list[str], now_ms: int, window_ms: int, late_ms: int, other: Any, /,
    ) -> tuple[int, int]: ...  # fmt: skip
    def receipts(
        self, events: list[Any], lives: Any, fresh: Any, dirty: set[str], placed: list[Any], now_ms: int,
        receipts_max: int, other: Any, /,
    ) -> tuple[int, int]: ...  # fmt: skip
    def identities(self, lives: list[Any], /) -> bytes: ...
