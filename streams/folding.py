"""Settled messages made into blocks by a process of its own: work for the second core that needs no state.

A worker runs under one global lock. Folding and Arrow are a third of its work and a function of the messages alone, so
`Folder` sends them to a child over a pipe and gets Arrow back, which is inserted as it is. The child is asked, never
relied upon: whatever goes wrong with it, the same work is done here. It ends when its input ends, so also when its
parent is killed.
"""

import contextlib
import gc
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import IO, Any, Final, NamedTuple, cast

import msgspec
import pyarrow as pa

from schemas.events import Receive
from schemas.record import COLUMNS
from streams import fold
from streams.blocks import block_of, by_month
from streams.effects import Rows
from streams.fold import Columns
from streams.join import Life

log = logging.getLogger(__name__)
# Below it the way there and back costs more than it saves.
_WORTH_IT: Final = 1_000
_PIECE: Final = 12_000
# What is encoded at once: the lock is held for so long, and the event loop with it.
_FRAME: Final = 2_000
_LENGTH_BYTES: Final = 8


class _Part(msgspec.Struct, array_like=True):
    shard: int
    settled: list[Life]
    inbound: list[Receive]


class _Work(NamedTuple):
    now_ms: int
    parts: list[_Part]


_encode = msgspec.msgpack.Encoder().encode
_decode_head = msgspec.msgpack.Decoder(tuple[int, int]).decode
_decode_part = msgspec.msgpack.Decoder(_Part).decode
_decode_blocks = msgspec.msgpack.Decoder(list[bytes]).decode


class Folded:
    """Records as blocks, each there while the next is made; their columns too, at the price of making them again."""

    def __init__(self, blocks: Iterator[pa.Table], taken: Sequence[Rows], now_ms: int) -> None:
        """`taken` and `now_ms` are what the blocks are made of."""
        self._coming = blocks
        self._made_of = taken, now_ms
        self.blocks: list[pa.Table] = []

    def __iter__(self) -> Iterator[pa.Table]:
        """The blocks, once; raises what went wrong in making one."""
        for block in self._coming:
            self.blocks.append(block)
            yield block

    def columns(self) -> Columns:
        """What `fold.records` makes of the same messages."""
        return fold.records(*self._made_of)

    def __getitem__(self, column: int) -> list[Any]:
        """One scalar column of `Record` by its place, as far as blocks were made; instants in ms."""
        name = COLUMNS[column].name
        return [value for block in self.blocks for value in _plain(block, name)]


def _plain(block: pa.Table, name: str) -> list[Any]:
    if name not in block.column_names:
        nothing = None if "Nullable" in _TYPES[name] else "" if "String" in _TYPES[name] else 0
        return [nothing] * block.num_rows
    column = block.column(name)
    plain: list[Any] = (column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column).to_pylist()
    return plain


_TYPES: Final = {c.name: c.type for c in COLUMNS}


class Folder:
    """Makes records, many at a time in a child process; from one thread only."""

    def __init__(self) -> None:
        """The child starts with the first work that is worth it."""
        self._child: subprocess.Popen[bytes] | None = None
        self._asked = 0

    def records(self, taken: Sequence[Rows], now_ms: int) -> Columns | Folded:
        """The records of what partitions have finished; inbound ones are settled at `now_ms`."""
        if sum(len(part.settled) + len(part.inbound) for part in taken) < _WORTH_IT:
            return fold.records(taken, now_ms)
        return Folded(self._blocks(list(_cut(taken, now_ms))), taken, now_ms)

    def close(self) -> None:
        """Ends the child."""
        child, self._child, self._asked = self._child, None, 0
        if child is not None:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                with contextlib.suppress(OSError):
                    pipe.close()  # type: ignore[union-attr]  # both are pipes

    def _blocks(self, works: list[_Work]) -> Iterator[pa.Table]:
        if self._asked:
            # An answer that nobody waited for would be taken for the next.
            self.close()
        child = self._child = self._child or _start()
        assert child.stdout is not None
        self._asked = len(works)
        sending = threading.Thread(target=_send_all, args=(child, works), name="folding", daemon=True)
        sending.start()
        try:
            for _ in works:
                blocks = _decode_blocks(_receive(child.stdout))
                self._asked -= 1
                if not blocks:
                    raise ValueError("a value that no column can hold")
                yield from (pa.ipc.open_stream(block).read_all() for block in blocks)
        except (OSError, EOFError, msgspec.MsgspecError) as e:
            log.warning("the folding process does not answer, its work is done here: %s", type(e).__name__)
            self.close()
            raise


def _cut(taken: Sequence[Rows], now_ms: int) -> Iterator[_Work]:
    """Pieces of work large enough for an insert, so that one is inserted while the next is made."""
    parts: list[_Part] = []
    rows, step = 0, min(_PIECE, _FRAME)
    for part in taken:
        for at in range(0, max(len(part.settled), len(part.inbound)), step):
            settled, inbound = part.settled[at : at + step], part.inbound[at : at + step]
            parts.append(_Part(part.shard, settled, inbound))
            rows += len(settled) + len(inbound)
            if rows >= _PIECE:
                yield _Work(now_ms, parts)
                parts, rows = [], 0
    if parts:
        yield _Work(now_ms, parts)


def _send_all(child: "subprocess.Popen[bytes]", works: list[_Work]) -> None:
    try:
        pipe = cast("IO[bytes]", child.stdin)
        for work in works:
            _send(pipe, _encode((work.now_ms, len(work.parts))))
            for part in work.parts:
                _send(pipe, _encode(part))
    except (OSError, ValueError, msgspec.MsgspecError):
        # Who reads the answers is not left waiting.
        child.kill()


def _start() -> "subprocess.Popen[bytes]":
    # -P: what lies in the working directory is not ours. A session of its own: Ctrl-C is for the parent.
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "streams.folding"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def _send(pipe: IO[bytes], message: bytes) -> None:
    pipe.write(len(message).to_bytes(_LENGTH_BYTES))
    pipe.write(message)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> bytes:
    length = pipe.read(_LENGTH_BYTES)
    message = pipe.read(int.from_bytes(length))
    if len(length) < _LENGTH_BYTES or len(message) < int.from_bytes(length):
        raise EOFError("it has ended")
    return message


def blocks_of(now_ms: int, frames: list[bytes]) -> bytes:
    """What the child does: messages to Arrow streams, one a month; an empty list if they cannot be written."""
    try:
        taken = [Rows(part.shard, part.settled, part.inbound, []) for part in map(_decode_part, frames)]
        return _encode([_stream(block_of(COLUMNS, part)) for part in by_month(fold.records(taken, now_ms))])
    except (pa.ArrowException, msgspec.MsgspecError, ValueError, TypeError, OverflowError):
        # The parent finds out which row it is.
        return _encode([])


def _stream(block: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, block.schema) as writer:
        writer.write_table(block)
    written: bytes = sink.getvalue().to_pybytes()
    return written


def main() -> None:
    """Answers until the input ends."""
    # Hundreds of thousands of tuples, and none in a cycle.
    gc.disable()
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            now_ms, count = _decode_head(_receive(sys.stdin.buffer))
            _send(sys.stdout.buffer, blocks_of(now_ms, [_receive(sys.stdin.buffer) for _ in range(count)]))


if __name__ == "__main__":
    main()
