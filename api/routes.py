"""Every path, what answers it, and in whose shape its errors are told. Pure."""

from collections.abc import Callable
from typing import Final

from api import native
from api.http import Answer, Refusal, Route, problem

ROUTES: Final = (
    Route("GET", "/mdr/records", native.records, problem),
    Route("GET", "/mdr/records/{message_id}", native.record, problem),
    Route("GET", "/mdr/stats", native.statistics, problem),
    Route("GET", "/mdr/credentials", native.list_credentials, problem, operator_only=True),
    Route("POST", "/mdr/credentials", native.add_credential, problem, operator_only=True),
    Route("DELETE", "/mdr/credentials/{key}", native.revoke_credential, problem, operator_only=True),
)


def face_of(path: str) -> Callable[[Refusal], Answer]:
    """Whose error shape a path has that no route takes."""
    return problem
