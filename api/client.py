"""A small synchronous client of a running `mdr`, for the command line."""

import http.client
import json
from typing import Any
from urllib.parse import urlencode, urlsplit


class ClientError(Exception):
    """The request failed; one sentence. `status` is 0 when nothing answered."""

    def __init__(self, sentence: str, status: int = 0) -> None:
        super().__init__(sentence)
        self.status = status


class HttpClient:
    """Requests with a credential; a new connection each, none kept."""

    def __init__(self, url: str, key: str, secret: str, timeout_s: float = 60) -> None:
        self._url = url.rstrip("/")
        self._bearer = f"{key}.{secret}"
        self._timeout_s = timeout_s

    def get(self, path: str, params: dict[str, Any] | list[tuple[str, Any]] | None = None) -> dict[str, Any]:
        """The JSON object at a path; raises `ClientError`."""
        return self.send("GET", path, params)

    def send(
        self,
        method: str,
        path: str,
        params: dict[str, Any] | list[tuple[str, Any]] | None = None,
        body: Any = None,
    ) -> dict[str, Any]:
        """The JSON object that answers a request; raises `ClientError`."""
        query = f"?{urlencode(params, doseq=True)}" if params else ""
        status, data = self._exchange(method, path + query, None if body is None else json.dumps(body).encode())
        try:
            answer = json.loads(data or b"{}")
        except ValueError:
            answer = {}
        if status >= 400:
            raise ClientError(answer.get("detail") or f"{self._url} answers {status}", status)
        return dict(answer)

    def _exchange(self, method: str, target: str, body: bytes | None) -> tuple[int, bytes]:
        parts = urlsplit(self._url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname or "127.0.0.1", parts.port, timeout=self._timeout_s)
        headers = {"Authorization": f"Bearer {self._bearer}", "Content-Type": "application/json"}
        try:
            connection.request(method, parts.path + target, body, headers)
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException) as e:
            raise ClientError(f"{self._url} does not answer: {e}") from None
        finally:
            connection.close()
