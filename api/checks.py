"""The operator's questions about the whole: whether the counts add up, and all that is known of one message."""

from typing import Any, Final

from api import query, story
from api.dead_letters import Filter, Letters
from api.http import Answer, Call, Context, Refusal, json_answer, single
from api.query import Client, Scope

_LETTERS_MAX: Final = 100


def check(call: Call, context: Context) -> Answer:
    """Reconciles counts; what is wrong is in the body, and the status is 200 all the same."""
    single(call, ())
    if context.check is None:
        raise Refusal(503, "this process does not know the broker")
    return json_answer(context.check())


def trace(call: Call, context: Context) -> Answer:
    """All that is known of a message id; of an unknown one perhaps orphans and dead letters."""
    single(call, ())
    told = known(
        context.client, call.caller.scope, call.names["message_id"], context.letters, call.caller.may_see_bodies,
    )  # fmt: skip
    return json_answer(told | {"settled_through": context.settled_through()})


def known(
    client: Client, scope: Scope, message_id: str, letters: Letters | None, may_see: bool
) -> dict[str, Any]:
    """The records of an id with gaps and what settled them, and its receipts and dead letters without a record."""
    found = [query.record(client, scope, message_id, direction) for direction in query.DIRECTIONS]
    dead, why = _letters(letters, message_id, may_see)
    return {
        "message_id": message_id, "records": [_told(client, scope, record) for record in found if record is not None],
        "waiting": story.waiting(client, message_id), "orphans": story.orphans(client, message_id),
        "dead_letters": dead, "dead_letters_why": why,
    }  # fmt: skip


def _told(client: Client, scope: Scope, record: dict[str, Any]) -> dict[str, Any]:
    is_open = record["record_type"] == "pending"
    deadline = story.deadline(client, scope, record["message_id"]) if is_open else None
    steps = [{name: e[name] for name in e if name != "ms"} for e in story.events_of(record)]
    return record | {"timeline": steps, "why": story.rule(record, deadline), "deadline": deadline}


def _letters(letters: Letters | None, message_id: str, may_see: bool) -> tuple[list[dict[str, Any]], str]:
    """Dead letters whose key is the id, newest first; and why they are not known, or not all."""
    if letters is None:
        return [], "this process does not know the broker"
    try:
        page = letters.page(Filter(key=message_id), _LETTERS_MAX, None, may_see)
    except Refusal as refusal:
        return [], str(refusal)
    return page["dead_letters"], "older dead letters were not looked at" if page["truncated"] else ""
