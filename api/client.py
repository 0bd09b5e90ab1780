"""A small synchronous client of a running `mdr`, for the command line."""

import http.client
import json
import secrets
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from api import proof

_PROOF_BYTES_MAX: Final = 4_096


class ClientError(Exception):
    """The request failed; one sentence. `status` is 0 when nothing answered."""

    def __init__(self, sentence: str, status: int = 0) -> None:
        super().__init__(sentence)
        self.status = status


class Impostor(ClientError):
    """Who listens there does not know the operator's secret, and was not told it; one sentence."""


class HttpClient:
    """Requests with a credential; a new connection each, none kept.

    With `is_operator` the server proves on each connection that it knows the secret before the secret is sent over it.
    """

    def __init__(self, url: str, key: str, secret: str, timeout_s: float = 60, *, is_operator: bool = False) -> None:
        self._url = url.rstrip("/")
        self._secret = secret
        self._bearer = f"{key}.{secret}"
        self._timeout_s = timeout_s
        self._is_operator = is_operator

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
            if self._is_operator:
                self._refuse_impostor(connection)
            connection.request(method, parts.path + target, body, headers)
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException) as e:
            raise ClientError(f"{self._url} does not answer: {e}") from None
        finally:
            connection.close()

    def _refuse_impostor(self, connection: http.client.HTTPConnection) -> None:
        connection.connect()
        # What was proven was proven on this connection: a second one is never made in its place.
        connection.auto_open = 0
        nonce = secrets.token_urlsafe(32)
        connection.request("GET", f"{proof.PATH}?{urlencode({'nonce': nonce})}")
        answer = connection.getresponse().read(_PROOF_BYTES_MAX)
        if not proof.is_proof(self._secret, nonce, self._url, _proof_in(answer)):
            raise Impostor(f"whoever listens at {self._url} is not the mdr of this data directory: it was told nothing")


def _proof_in(answer: bytes) -> str:
    try:
        told = json.loads(answer)
    except ValueError:
        return ""
    return str(told.get("proof", "")) if isinstance(told, dict) else ""
