"""A test-only ClickHouse server: its HTTP interface over chDB, with faults on demand. Never part of the wheel.

    python -m tests.chserver --path DIR --port 0 --ready-file F

`F` then holds `{"port", "control", "pid"}`. The control port is apart, so that it answers while the other refuses:
`POST /fault` with a JSON `Fault` sets one (`{"kind": "none"}` ends it), `GET /stats` tells what was done so far.

Spoken: GET and POST, the query in the URL, the body or a form, `param_*`, settings, `session_id`, compressed bodies,
`INSERT ... FORMAT` with its data, `/ping`, errors with their code as header and text. Not spoken: compressed answers,
users, external tables, progress headers.
"""

import argparse
import contextlib
import email.parser
import email.policy
import json
import os
import re
import socket
import struct
import tempfile
import threading
import uuid
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import chdb
import cramjam
import msgspec
import pyarrow as pa

_NOT_SETTINGS: Final = re.compile(
    "query|database|default_format|buffer_size|session_(id|timeout|check)|query_id|quota_key|(de)?compress|role|user"
    "|password|wait_end_of_query|client_protocol_version|send_progress_in_http_headers|enable_http_compression"
    "|http_headers_progress_interval_ms|cancel_http_readonly_queries_on_client_close|param_.*"
)
_INSERT: Final = re.compile(
    rb"\s*(INSERT\s+INTO\s+(?:TABLE\s+)?(?P<table>[\w.`\"]+)(?:\s*\([^)]*\))?)(?P<settings>\s+SETTINGS\s[^\n]*?)?"
    rb"\s+FORMAT\s+(?P<format>\w+)\s*?(?:\n|;|$)",
    re.IGNORECASE,
)
_SHOWS: Final = re.compile(rb"\s*\(*\s*(SELECT|WITH|SHOW|DESCRIBE|DESC|EXISTS|EXPLAIN|CHECK)\b", re.IGNORECASE)
_FORMAT: Final = re.compile(rb"\bFORMAT\s+(\w+)\s*;?\s*$", re.IGNORECASE)
_CODE: Final = re.compile(r"Code: (\d+)")
_STATUS: Final = {"60": 404, "81": 404, "47": 404, "62": 400, "36": 400, "516": 403, "497": 403, "202": 503}
_NAMES: Final = {
    117: "INCORRECT_DATA", 202: "TOO_MANY_SIMULTANEOUS_QUERIES", 241: "MEMORY_LIMIT_EXCEEDED", 252: "TOO_MANY_PARTS",
    319: "UNKNOWN_STATUS_OF_INSERT",
}  # fmt: skip
_UNPACK: Final = {
    "gzip": cramjam.gzip.decompress, "deflate": cramjam.deflate.decompress, "zstd": cramjam.zstd.decompress,
    "lz4": cramjam.lz4.decompress, "br": cramjam.brotli.decompress,
}  # fmt: skip


class Fault(msgspec.Struct):
    """What goes wrong with requests, from now on and `count` times (-1: until told otherwise).

    `refuse`: nobody listens. `busy`: 503. `hang`: accepted and never answered. `drop`: done, but the answer is lost.
    `cut`: the connection ends half-way through the request. `code`: error `code`. `slow`: answered after `seconds`.
    `marker`: error `code` for inserts that hold these bytes.
    """

    kind: str = "none"
    count: int = -1
    only: str = "insert"
    code: int = 241
    seconds: float = 0.0
    marker: str = ""


class _Refused(Exception):
    """The statement is refused; the text is ClickHouse's own."""


class Engine:
    """chDB, one handle a request; a session keeps its handle."""

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self._path = str(path)
        self._anchor = chdb.connect(self._path)  # the engine lives as long as any handle
        self._sessions: dict[str, tuple[Any, threading.Lock]] = {}
        self._guard = threading.Lock()
        self.version = self._anchor.query("SELECT version()", "TabSeparated").bytes().decode().strip()

    @contextlib.contextmanager
    def _handle(self, session: str) -> Any:
        if not session:
            handle = chdb.connect(self._path)
            try:
                yield handle
            finally:
                handle.close()
            return
        with self._guard:
            if session not in self._sessions:
                self._sessions[session] = chdb.connect(self._path), threading.Lock()
            handle, lock = self._sessions[session]
        if not lock.acquire(blocking=False):
            raise _Refused(f"Code: 373. DB::Exception: Session {session} is locked by a concurrent client.")
        try:
            yield handle
        finally:
            lock.release()

    def run(self, query: bytes, params: dict[str, str]) -> tuple[bytes, str, int]:
        """The answer's bytes, its format and how many rows were written; raises `_Refused`."""
        settings = {k: v for k, v in params.items() if not _NOT_SETTINGS.fullmatch(k)}
        bound = {k.removeprefix("param_"): v for k, v in params.items() if k.startswith("param_")}
        with self._handle(params.get("session_id", "")) as handle:
            try:
                handle.query(f"USE `{params.get('database') or 'default'}`", "TabSeparated")
                for name, value in settings.items():
                    handle.query(f"SET {name} = '{value}'", "TabSeparated")
                insert = _INSERT.match(query)
                if insert is not None and insert["format"].lower() != b"values":
                    return b"", "", self._insert(handle, insert, query[insert.end() :])
                return self._answer(handle, query, params, bound)
            except RuntimeError as e:
                raise _Refused(str(e)) from None

    def _insert(self, handle: Any, insert: re.Match[bytes], data: bytes) -> int:
        with tempfile.NamedTemporaryFile(suffix=".rows") as file:
            file.write(data)
            file.flush()
            into, settings, format_ = (
                insert[1].decode(),
                (insert["settings"] or b"").decode(),
                insert["format"].decode(),
            )
            result = handle.query(f"{into} FROM INFILE '{file.name}'{settings} FORMAT {format_}", "TabSeparated")
        return int(result.rows_read())

    def _answer(
        self, handle: Any, query: bytes, params: dict[str, str], bound: dict[str, str]
    ) -> tuple[bytes, str, int]:
        stated = _FORMAT.search(query)
        format_ = stated[1].decode() if stated else params.get("default_format") or "TabSeparated"
        result = handle.query(query.decode(), format_, params=bound)
        return result.bytes() or b"", format_ if _SHOWS.match(query) else "", 0


class Server:
    """The engine behind a port that can be closed and opened again, and the fault in force."""

    def __init__(self, path: Path, port: int) -> None:
        self.engine = Engine(path)
        self.fault = Fault()
        self.stats: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._http: _Http | None = None
        self.port = port
        self.listen()

    def listen(self) -> None:
        """Opens the port; nothing if it is open."""
        if self._http is None:
            self._http = _Http(self.port, _Handler, self)
            self.port = self._http.server_address[1]
            threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()

    def refuse(self) -> None:
        """Closes the port and every connection to it."""
        if self._http is not None:
            http, self._http = self._http, None
            http.shutdown()
            http.server_close()
            http.hang_up()

    def set_fault(self, fault: Fault) -> None:
        """Puts a fault in force; what hangs for the one before goes on."""
        with self._changed:
            self.fault = fault
            self._changed.notify_all()
        (self.refuse if fault.kind == "refuse" else self.listen)()

    def drawn(self, is_insert: bool) -> Fault:
        """The fault this request meets."""
        with self._lock:
            fault = self.fault
            if fault.kind in ("none", "refuse", "marker") or (fault.only == "insert" and not is_insert):
                return Fault("marker", marker=fault.marker, code=fault.code) if fault.kind == "marker" else Fault()
            if fault.count == 0:
                return Fault()
            fault.count -= fault.count > 0
            self.stats[f"fault {fault.kind}"] += 1
            return fault

    def hang(self, fault: Fault) -> None:
        """Returns when the fault is no longer in force, or its time is over."""
        with self._changed:
            self._changed.wait_for(lambda: self.fault is not fault, fault.seconds or None)


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, port: int, handler: type[BaseHTTPRequestHandler], owner: Server) -> None:
        super().__init__(("127.0.0.1", port), handler)
        self.owner = owner
        self._open: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        for request in list(self._open):
            _reset(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: connections are cut here on purpose."""


def _reset(connection: socket.socket) -> None:
    """Ends a connection at once, as a process does that dies."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Http

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def _serve(self) -> None:
        owner = self.server.owner
        params = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        path = urlsplit(self.path).path
        if path == "/ping":
            return self._reply(200, b"Ok.\n", {})
        if owner.fault.kind == "cut" and "INSERT" in params.get("query", "INSERT") and self._cut():
            return None
        body = self._body()
        query, params = _query(params, self.headers, body)
        is_insert = query[:200].lstrip()[:6].upper() == b"INSERT"
        fault = owner.drawn(is_insert)
        if fault.kind == "hang":
            owner.hang(fault)
            return self._abort()
        if fault.kind == "slow":
            owner.hang(fault)
        if fault.kind == "busy":
            return self._reply(503, b"Service Unavailable\n", {})
        if fault.kind == "code" or (fault.marker and is_insert and _holds(query, fault.marker)):
            return self._refuse(f"Code: {fault.code}. DB::Exception: on purpose. ({_NAMES.get(fault.code, 'ERROR')})")
        return self._run(query, params, is_insert, drop=fault.kind == "drop")

    def _run(self, query: bytes, params: dict[str, str], is_insert: bool, *, drop: bool) -> None:
        owner = self.server.owner
        try:
            answer, format_, written = owner.engine.run(query, params)
        except _Refused as e:
            return self._refuse(str(e))
        owner.stats["inserts" if is_insert else "queries"] += 1
        owner.stats["rows"] += written
        if drop:
            return self._abort()
        summary = {"read_rows": "0", "written_rows": str(written), "elapsed_ns": "1"}
        headers = {"X-ClickHouse-Summary": json.dumps(summary), "X-ClickHouse-Timezone": "UTC"}
        headers |= {"X-ClickHouse-Format": format_} if format_ else {}
        return self._reply(200, answer, headers | {"X-ClickHouse-Query-Id": params.get("query_id", str(uuid.uuid4()))})

    def _refuse(self, text: str) -> None:
        code = _CODE.search(text)
        number = code[1] if code else "1002"
        told = f"{text} (version {self.server.owner.engine.version} (official build))\n".encode()
        self._reply(_STATUS.get(number, 500), told, {"X-ClickHouse-Exception-Code": number})

    def _reply(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _abort(self) -> None:
        self.close_connection = True
        _reset(self.connection)

    def _cut(self) -> bool:
        """Reads half of a large request, then ends the connection; False when it is none."""
        length = int(self.headers.get("Content-Length") or 400)
        if length < 200 or self.server.owner.drawn(True).kind != "cut":
            return False
        self.rfile.read(length // 2)
        self._abort()
        return True

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            data = b"".join(iter(self._chunk, b""))
        else:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        encoding = self.headers.get("Content-Encoding", "identity")
        return data if encoding == "identity" else bytes(_UNPACK[encoding](data))

    def _chunk(self) -> bytes:
        size = int(self.rfile.readline().split(b";")[0] or b"0", 16)
        data = self.rfile.read(size)
        self.rfile.readline()
        return data


def _holds(insert: bytes, marker: str) -> bool:
    """Whether the marker is among the rows; Arrow compresses them."""
    statement = _INSERT.match(insert)
    if statement is not None and statement["format"] == b"Arrow":
        rows = pa.ipc.open_file(pa.BufferReader(insert[statement.end() :])).read_all()
        return marker in str(rows.to_pydict())
    return marker.encode() in insert


def _query(params: dict[str, str], headers: Any, body: bytes) -> tuple[bytes, dict[str, str]]:
    """The statement with its data, and the parameters, wherever they came."""
    kind = headers.get("Content-Type", "")
    if kind.startswith("multipart/form-data"):
        whole = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(
            f"Content-Type: {kind}\n\n".encode() + body
        )
        parts: dict[Any, Any] = {p.get_param("name", header="content-disposition"): p for p in whole.iter_parts()}
        params = params | {name: part.get_payload(decode=True).decode() for name, part in parts.items()}
        return params["query"].encode(), params
    stated = params.get("query", "").encode()
    return (stated + b"\n" + body if stated else body), params


class _Control(_Handler):
    def _serve(self) -> None:
        owner = self.server.owner
        body = self._body()
        if self.path == "/fault":
            owner.set_fault(msgspec.json.decode(body, type=Fault))
        answer = json.dumps({"fault": owner.fault.kind, **owner.stats})
        self._reply(200, answer.encode(), {"Content-Type": "application/json"})


def main() -> None:
    """Serves until killed."""
    options = argparse.ArgumentParser()
    options.add_argument("--path", type=Path, required=True)
    options.add_argument("--port", type=int, default=0)
    options.add_argument("--ready-file", type=Path)
    told = options.parse_args()
    server = Server(told.path, told.port)
    control = _Http(0, _Control, server)
    if told.ready_file:
        half = told.ready_file.with_suffix(".half")
        half.write_text(json.dumps({"port": server.port, "control": control.server_address[1], "pid": os.getpid()}))
        half.rename(told.ready_file)
    control.serve_forever()


if __name__ == "__main__":
    main()
