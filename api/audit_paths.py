"""The path of the audit log, for the operator."""

from typing import Any, Final

from api import audit
from api.http import Answer, Call, Context, Refusal, json_answer, single, whole_number
from api.seals import Seals
from schemas.times import format_rfc3339, parse_rfc3339

PARAMETERS: Final = ("key", "account", "action", "id", "since", "until", "limit")


def listed(call: Call, context: Context) -> Answer:
    """Rows of the audit log, newest first."""
    found = audit.rows(context.client, wanted(single(call, PARAMETERS), context.seals))
    return json_answer({"audit": found, "settled_through": context.settled_through()})


def wanted(given: dict[str, str], seals: Seals) -> audit.Wanted:
    """Return which rows parameters mean; raises `Refusal` that names what is wrong."""
    action = given.get("action", "")
    if action and action not in audit.ACTIONS:
        raise Refusal(400, f"action is one of {', '.join(audit.ACTIONS)}", "action")
    values: dict[str, Any] = {"key": given.get("key", ""), "account_id": given.get("account", ""), "action": action}
    values |= {f"{name}_ms": _instant(name, given[name]) for name in ("since", "until") if given.get(name)}
    if given.get("id"):
        values["id_hash"] = audit.hashed(seals, given["id"])
    return audit.Wanted(**values, limit=whole_number("limit", given.get("limit"), 100, 1, audit.ROWS_MAX))


def _instant(name: str, text: str) -> int:
    ms = parse_rfc3339(f"{text}T00:00:00Z" if len(text) == 10 else text.replace(" ", "+"))
    if ms is None or ms < 0:
        raise Refusal(400, f"{name} is not a day or an instant of RFC 3339 such as {format_rfc3339(0)}", name)
    return ms
