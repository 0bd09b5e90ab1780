"""The paths of the dead letters, for the operator: what was refused, why, and sending it once more.

The letters lie on their topic, which whoever runs the API reads for it (`Letters`); what they hold is masked here.
"""

from typing import Any, Final, NamedTuple, Protocol

from api.http import Answer, Call, Context, Refusal, json_answer, json_body, single, whole_number
from schemas.times import format_rfc3339, parse_rfc3339

LIMIT_MAX: Final = 500
IDS_MAX: Final = 1_000
RATE: Final = 100.0
RATE_MAX: Final = 10_000.0
# One request must not outlast whoever waits for it.
REQUEST_S: Final = 30
_FILTERS: Final = ("reason", "topic", "fingerprint", "until")
_FIELDS: Final = ("ids", "filter", "dry_run", "rate", "force", "again")


class Filter(NamedTuple):
    """Which letters: each part that is given must fit; `until_ms` is when they came, exclusive."""

    reason: str = ""
    topic: str = ""
    fingerprint: str = ""
    key: str = ""
    until_ms: int | None = None


class Redrive(NamedTuple):
    """What is to be sent once more: the letters named, or those a filter finds."""

    ids: tuple[str, ...] = ()
    filter: Filter | None = None
    dry_run: bool = False
    rate: float = RATE
    force: bool = False
    again: bool = False


class Letters(Protocol):
    """Reads the topic; every answer is the body of a path. Raises `Refusal`."""

    def page(self, wanted: Filter, limit: int, cursor: str | None, may_see: bool) -> dict[str, Any]:
        """Letters, newest first; raises `ValueError` for a cursor that is none."""
        ...

    def summary(self, wanted: Filter) -> dict[str, Any]:
        """Letters counted by reason, fingerprint and topic."""
        ...

    def one(self, id_: str, may_see: bool) -> dict[str, Any] | None:
        """One letter, whole."""
        ...

    def redrive(self, asked: Redrive, who: str) -> dict[str, Any]:
        """Sends letters once more, as many as the rate allows within half a minute."""
        ...


def listed(call: Call, context: Context) -> Answer:
    """Letters, newest first."""
    given = single(call, (*_FILTERS, "key", "limit", "cursor", "masked"))
    limit = whole_number("limit", given.get("limit"), 100, 1, LIMIT_MAX)
    try:
        return json_answer(_letters(context).page(_filter(given), limit, given.get("cursor"), _may_see(call, given)))
    except ValueError:
        raise Refusal(400, "cursor is none that this server gave out", "cursor") from None


def summary(call: Call, context: Context) -> Answer:
    """Letters counted by what is wrong with them."""
    return json_answer(_letters(context).summary(_filter(single(call, _FILTERS))))


def one(call: Call, context: Context) -> Answer:
    """One letter with its headers, what the decoder says of it now, and when it was sent once more."""
    given = single(call, ("masked",))
    found = _letters(context).one(call.names["id"], _may_see(call, given))
    if found is None:
        raise Refusal(404, "there is no such dead letter", "id")
    return json_answer(found)


def redrive(call: Call, context: Context) -> Answer:
    """Sends letters once more, or says what would be sent."""
    single(call, ())
    return json_answer(_letters(context).redrive(_redrive(json_body(call)), call.caller.key))


def _letters(context: Context) -> Letters:
    if context.letters is None:
        raise Refusal(503, "this process does not know the broker")
    return context.letters


def _may_see(call: Call, given: dict[str, str]) -> bool:
    if given.get("masked", "false") not in ("true", "false"):
        raise Refusal(400, "masked is true or false", "masked")
    return call.caller.may_see_bodies and given.get("masked") != "true"


def _filter(given: dict[str, str]) -> Filter:
    until_ms = None
    if "until" in given:
        until_ms = parse_rfc3339(given["until"].replace(" ", "+"))
        if until_ms is None or until_ms < 0:
            raise Refusal(400, f"until is not an instant of RFC 3339 such as {format_rfc3339(0)}", "until")
    reason, topic, fingerprint, key = (given.get(name, "") for name in (*_FILTERS[:3], "key"))
    return Filter(reason, topic, fingerprint, key, until_ms)


def _redrive(body: dict[str, Any]) -> Redrive:
    for name in body:
        if name not in _FIELDS:
            raise Refusal(400, f"{name} is not a field of a redrive", name)
    if ("ids" in body) == ("filter" in body):
        raise Refusal(400, "either ids or a filter say which letters", "ids")
    flags = [body.get(name, False) for name in ("dry_run", "force", "again")]
    for name, flag in zip(("dry_run", "force", "again"), flags, strict=True):
        if not isinstance(flag, bool):
            raise Refusal(400, f"{name} is true or false", name)
    if flags[2] and "ids" not in body:
        raise Refusal(400, "again needs ids: with a filter there would be no end of it", "again")
    filter_ = _body_filter(body["filter"]) if "filter" in body else None
    return Redrive(_ids(body.get("ids", [])), filter_, flags[0], _rate(body.get("rate", RATE)), *flags[1:])


def _ids(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(id_, str) for id_ in value) or len(value) > IDS_MAX:
        raise Refusal(400, f"ids is not a list of at most {IDS_MAX} strings", "ids")
    return tuple(dict.fromkeys(value))


def _rate(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0.1 <= value <= RATE_MAX:
        raise Refusal(400, f"rate is not a number from 0.1 to {RATE_MAX:g}", "rate")
    return float(value)


def _body_filter(value: Any) -> Filter:
    if not isinstance(value, dict):
        raise Refusal(400, "filter is not an object", "filter")
    for name, text in value.items():
        if name not in _FILTERS or not isinstance(text, str):
            raise Refusal(400, f"the filter knows {', '.join(_FILTERS)}, each a string", "filter")
    return _filter(value)
