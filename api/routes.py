"""Every path, what answers it, and in whose shape its errors are told. Pure."""

from collections.abc import Callable
from typing import Final

from api import native, report_paths
from api.extract import Cell
from api.http import Answer, Refusal, Route, problem

ROUTES: Final = (
    Route("GET", "/mdr/records", native.records, problem),
    Route("GET", "/mdr/records/{message_id}", native.record, problem),
    Route("GET", "/mdr/stats", native.statistics, problem),
    Route("POST", "/mdr/reports", report_paths.create, problem),
    Route("GET", "/mdr/reports", report_paths.listed, problem),
    Route("GET", "/mdr/reports/{report_id}", report_paths.one, problem),
    Route("DELETE", "/mdr/reports/{report_id}", report_paths.delete, problem),
    Route("GET", "/mdr/files/{token}", report_paths.download, problem, is_public=True),
    Route("GET", "/mdr/credentials", native.list_credentials, problem, operator_only=True),
    Route("POST", "/mdr/credentials", native.add_credential, problem, operator_only=True),
    Route("DELETE", "/mdr/credentials/{key}", native.revoke_credential, problem, operator_only=True),
)

# The cells of reports that a view shows its own way.
VIEWS: Final[dict[str, tuple[Cell, ...]]] = {}


def face_of(path: str) -> Callable[[Refusal], Answer]:
    """Whose error shape a path has that no route takes."""
    return problem
