"""The page of the audit log: who did what, for the operator."""

from api import audit, audit_paths
from api.http import Answer, Call, Refusal, with_query
from api.pages import html
from api.pages.desk import Desk, native

PATH = "/ui/audit"
_LIMIT = "200"


async def page(call: Call, desk: Desk) -> Answer:
    """The newest rows of a selection; a form's blanks count for nothing."""
    given = {name: value.strip() for name, value in call.query if value.strip()}
    asked = call._replace(query=[*given.items(), ("limit", _LIMIT)])
    rows, wrong, status = [], "", 200
    try:
        rows = (await desk.read(native, audit_paths.listed, asked))["audit"]
    except Refusal as refusal:
        wrong, status = refusal.detail, refusal.status
    older = with_query(PATH, (given | {"until": rows[-1]["at"]}).items()) if len(rows) == int(_LIMIT) else ""
    return html.page(
        call, "audit", status, rows=rows, wrong=wrong, given=given, actions=audit.ACTIONS, older=older,
    )  # fmt: skip
