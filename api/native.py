"""The paths under `/mdr/`: records, one record, statistics, credentials. Errors are problem+json."""

from collections.abc import Iterable
from typing import Any, Final

from api import audit, auth, query, stats
from api.http import (
    Answer,
    Call,
    Context,
    Refusal,
    json_answer,
    json_body,
    single,
    whole_number,
    with_query,
)
from api.query import Range
from api.vendors.shared import number_filter
from api.where import ATTRIBUTES, NUMBERS, SCALARS, TIMES, Condition, Every, Is, Some
from schemas.states import RANK, RECEIVED
from schemas.times import format_rfc3339, parse_rfc3339

DAY_MS: Final = 86_400_000
RANGE_DAYS_MAX: Final = 366
LIMIT_MAX: Final = 1_000
VALUES_MAX: Final = 100
_INT_MAX: Final = 2**63 - 1
_KEY_MAX: Final = 64
_PAGING: Final = ("start", "end", "limit", "cursor", "include")
_PHONES: Final = frozenset({"from_number", "to_number", "external_number", "billing_number"})
_WORDS: Final = {
    "state": (*RANK, RECEIVED), "direction": ("inbound", "outbound"),
    "record_type": ("complete", "incomplete", "error", "pending"),
}  # fmt: skip


def records(call: Call, context: Context) -> Answer:
    """A page of records in a range."""
    asked = paging(call.query)
    span = span_of(asked, call.now_ms)
    limit = whole_number("limit", asked.get("limit"), 100, 1, LIMIT_MAX)
    include = asked.get("include")
    if include not in (None, "pending"):
        raise Refusal(400, "include knows only `pending`", "include")
    try:
        page = query.records_page(
            context.client, call.caller.scope, span, filters_of(call.query, _PAGING), limit, asked.get("cursor"),
            include == "pending", context.settled_through(),
        )  # fmt: skip
    except query.BadCursor:
        raise Refusal(400, "cursor is none that this server gave out", "cursor") from None
    body = {"records": page.records, "next_cursor": page.next_cursor, "settled_through": page.settled_through}
    return json_answer(body, headers=_next_link(call, span, page.next_cursor))


def record(call: Call, context: Context) -> Answer:
    """One record with its timeline."""
    direction = single(call, ("direction",)).get("direction")
    if direction not in (None, "inbound", "outbound"):
        raise Refusal(400, "direction is inbound or outbound", "direction")
    settled = context.settled_through()
    found = query.record(context.client, call.caller.scope, call.names["message_id"], direction)
    if found is None:
        raise Refusal(404, "there is no such record", "message_id")
    return json_answer(found | {"settled_through": settled})


def statistics(call: Call, context: Context) -> Answer:
    """Counts, money and delays by groups."""
    own = ("start", "end", "by")
    asked = paging([(n, v) for n, v in call.query if n in own])
    span = span_of(asked, call.now_ms)
    by = tuple(filter(None, asked.get("by", "").split(",")))
    for name in by:
        if name not in stats.GROUPS:
            raise Refusal(400, f"by knows {', '.join(stats.GROUPS)}", "by")
    settled = context.settled_through()
    rows = stats.rows(context.client, call.caller.scope, span, filters_of(call.query, own), tuple(dict.fromkeys(by)))
    if len(rows) > stats.ROWS_MAX:
        raise Refusal(400, f"more than {stats.ROWS_MAX} groups: ask for a smaller range or fewer groups", "by")
    return json_answer({"stats": rows, "settled_through": settled})


def list_credentials(call: Call, context: Context) -> Answer:
    """Every key, for the operator."""
    single(call, ())
    found = auth.list_credentials(context.client)
    return json_answer({"credentials": found, "settled_through": context.settled_through()})


def add_credential(call: Call, context: Context) -> Answer:
    """A new key, for the operator: `account_id`, and optionally `parent_id`, `key`, `scopes`, `expires_at`."""
    body = json_body(call)
    for name in body:
        if name not in ("account_id", "parent_id", "key", "scopes", "expires_at"):
            raise Refusal(400, f"{name} is not a field of a credential", name)
    account, parent, key = body.get("account_id"), body.get("parent_id") or "", body.get("key")
    scopes, expires = body.get("scopes") or [auth.READ], body.get("expires_at") or ""
    for name, value in (("account_id", account), ("parent_id", parent), ("key", key or ""), ("expires_at", expires)):
        if not isinstance(value, str):
            raise Refusal(400, f"{name} is not a string", name)
    if not isinstance(scopes, list) or not all(isinstance(s, str) for s in scopes):
        raise Refusal(400, "scopes is not a list of strings", "scopes")
    assert isinstance(account, str)
    try:
        expires_ms = auth.parse_expiry(expires, call.now_ms) if expires else 0
        act = audit.of_call(call, audit.KEY_ADD, for_account=account, scopes=scopes, expires_at=expires)
        with audit.recorded(context.client, act) as kept:
            issued = auth.add_credential(context.client, account, parent, key or None, scopes, expires_ms)
            kept["made"] = issued.key
    except auth.AccessError as e:
        raise Refusal(400, str(e), e.field) from None
    ends = format_rfc3339(expires_ms) if expires_ms else None
    told = {"account_id": account, "scopes": scopes, "expires_at": ends, **issued._asdict()}
    return json_answer(told | {"settled_through": context.settled_through()}, 201)


def revoke_credential(call: Call, context: Context) -> Answer:
    """Ends a key, for the operator."""
    with audit.recorded(context.client, audit.of_call(call, audit.KEY_REVOKE, ended=call.names["key"][:_KEY_MAX])):
        if not auth.revoke(context.client, call.names["key"]):
            raise Refusal(404, "there is no such live key", "key")
    told = {"key": call.names["key"], "revoked": True}
    return json_answer(told | {"settled_through": context.settled_through()})


# ---- parameters ------------------------------------------------------------------------------------------------


def paging(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The parameters that are no filters; each may come once."""
    found: dict[str, str] = {}
    for name, value in pairs:
        if name in (*_PAGING, "by"):
            if name in found:
                raise Refusal(400, f"{name} may be given once", name)
            found[name] = value
    return found


def span_of(asked: dict[str, str], now_ms: int) -> Range:
    """[start, end) of the parameters, by default the last 24 hours before `end`, and `end` is now."""
    end_ms = _instant("end", asked["end"]) if "end" in asked else max(now_ms, _instant("start", asked.get("start")) + 1)
    start_ms = _instant("start", asked["start"]) if "start" in asked else end_ms - DAY_MS
    if start_ms >= end_ms:
        raise Refusal(400, "start is not before end", "start")
    if end_ms - start_ms > RANGE_DAYS_MAX * DAY_MS:
        raise Refusal(400, f"the range from start to end is longer than {RANGE_DAYS_MAX} days", "start")
    return Range(start_ms, end_ms)


def _instant(name: str, text: str | None) -> int:
    if text is None:
        return -1
    # A `+` of an offset that was not percent-encoded arrives as a blank.
    fixed = f"{text[:-6]}+{text[-5:]}" if len(text) > 19 and text[-6] == " " else text
    fixed = f"{fixed}T00:00:00Z" if len(fixed) == 10 else fixed
    ms = parse_rfc3339(fixed)
    if ms is None or ms < 0:
        raise Refusal(400, f"{name} is not an instant of RFC 3339 such as 2026-01-31T09:15:04Z", name)
    return ms


def filters_of(pairs: Iterable[tuple[str, str]], others: Iterable[str]) -> Condition:
    """The filters among parameters: a column given several times is any of its values; unknown names are refused."""
    values: dict[str, list[str]] = {}
    known = frozenset(others)
    for name, value in pairs:
        if name not in known:
            values.setdefault(name, []).append(value)
    return Every(tuple(_filter(name, given) for name, given in values.items()))


def _filter(name: str, given: list[str]) -> Condition:
    if len(given) > VALUES_MAX:
        raise Refusal(400, f"{name} is given more than {VALUES_MAX} times", name)
    if name == "tags":
        return Is(name, "has_any", given)
    if name.startswith(ATTRIBUTES) and name != ATTRIBUTES:
        return Is(name, "in", given)
    if name not in SCALARS:
        raise Refusal(400, f"{name} is not a parameter of this path", name)
    if name in TIMES:
        return Is(name, "in", [_instant(name, text) for text in given])
    if name in NUMBERS:
        return Is(name, "in", [_number(name, text) for text in given])
    if name in _PHONES:
        return Some(tuple(number_filter(name, text) for text in given))
    return Is(name, "in", [_word(name, text) for text in given])


def _word(name: str, text: str) -> str:
    """A value of a column, in the case in which it is stored where that is one of few words."""
    if name == "country":
        if text and not (len(text) == 2 and text.isascii() and text.isalpha()):
            raise Refusal(400, "country is two letters, or nothing", name)
        return text.upper()
    words = _WORDS.get(name)
    if words and text.lower() not in words:
        raise Refusal(400, f"{name} is none of {', '.join(words)}", name)
    return text.lower() if words else text


def _number(name: str, text: str) -> int:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal()) or len(digits) > 20 or abs(int(text)) > _INT_MAX:
        raise Refusal(400, f"{name} is not a whole number", name)
    return int(text)


def _next_link(call: Call, span: Range, cursor: str | None) -> dict[str, str]:
    if cursor is None:
        return {}
    pairs: list[tuple[str, Any]] = [(n, v) for n, v in call.query if n not in ("cursor", "start", "end")]
    # The range is written out, so that the default one stands still from page to page.
    pairs += [
        ("start", format_rfc3339(span.start_ms)),
        ("end", format_rfc3339(span.end_ms)),
        ("cursor", cursor),
    ]
    return {"Link": f'<{with_query(call.base_url + call.path, pairs)}>; rel="next"'}
