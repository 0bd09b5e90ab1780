"""The path that erases a number or an account, for the operator."""

from typing import Final

from api import audit, erasure
from api.http import Answer, Call, Context, Refusal, json_answer, json_body, single

SECONDS: Final = 3_600
_FIELDS: Final = ("number", "account", "dry_run")


def erase(call: Call, context: Context) -> Answer:
    """Erase, and answer with the receipt; with `dry_run` say how much there is."""
    single(call, ())
    body = json_body(call)
    for name in body:
        if name not in _FIELDS:
            raise Refusal(400, f"{name} is not a field of an erasure", name)
    subject, is_dry = _subject(body.get("number"), body.get("account")), body.get("dry_run", False)
    if not isinstance(is_dry, bool):
        raise Refusal(400, "dry_run is true or false", "dry_run")
    if is_dry:
        told = {"dry_run": True, "kind": subject.kind} | erasure.counted(context.client, subject, call.now_ms)
    else:
        act = audit.of_call(call, audit.ERASE)
        told = {"dry_run": False} | erasure.erase(context.client, context.shelf, context.seals, subject, act)
    return json_answer(told | {"settled_through": context.settled_through()})


def _subject(number: object, account: object) -> erasure.Subject:
    if (number is None) == (account is None):
        raise Refusal(400, "either number or account says what is to be erased", "number")
    text, name = (account, "account") if number is None else (number, "number")
    found = erasure.subject_of(text, is_account=number is None) if isinstance(text, str) else None
    if found is None or found.kind != name:
        raise Refusal(400, f"{name} is none: a number has its country code, or is a short code", name)
    return found
