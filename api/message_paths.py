"""The vendors' lists of messages, and one message: Flowroute, Plivo, CarrierX. What is open is shown too."""

import uuid
from typing import Any, Final

from api import query
from api.http import Answer, Call, Context, Refusal, json_answer, single, with_query
from api.query import Key, Listing
from api.vendors import carrierx, flowroute, plivo
from api.where import EVERYTHING, Range
from schemas.times import format_rfc3339

SETTLED: Final = "MDR-Settled-Through"
_EVER: Final = Range(0, 1 << 42)


# ---- Flowroute -------------------------------------------------------------------------------------------------


def flowroute_list(call: Call, context: Context) -> Answer:
    """Messages of a range, oldest first, so that an offset means the same while newer ones arrive."""
    given = single(call, ("start_date", "end_date", "limit", "offset"), 422)
    asked = flowroute.parse(given, call.now_ms)
    headers = _settled(context)
    ask = Listing(
        call.caller.scope, asked.span, EVERYTHING, True, asked.limit + 1, offset=asked.offset
    )
    rows = query.listing(context.client, ask)
    links = {}
    if len(rows) > asked.limit:
        pairs = {
            "start_date": given["start_date"], "end_date": given.get("end_date", format_rfc3339(asked.span.end_ms)),
            "limit": asked.limit, "offset": asked.offset + asked.limit,
        }  # fmt: skip
        links["next"] = with_query(call.base_url + call.path, pairs.items())
    data = [flowroute.render(row, _version(call)) for row in rows[: asked.limit]]
    return json_answer({"data": data, "links": links}, headers=headers)


def flowroute_one(call: Call, context: Context) -> Answer:
    """One message by either version's id."""
    single(call, (), 422)
    headers = _settled(context)
    mdr_id = call.names["mdr_id"]
    candidates = flowroute.candidates(mdr_id)
    row = next(
        filter(None, (query.record(context.client, call.caller.scope, c) for c in candidates)), None
    )
    if row is None and candidates:
        ask = Listing(call.caller.scope, _EVER, flowroute.means(mdr_id), True, 1)
        row = next(iter(query.listing(context.client, ask)), None)
    if row is None:
        raise Refusal(404, "there is no such message", "id")
    return json_answer({"data": flowroute.render(row, _version(call))}, headers=headers)


def _version(call: Call) -> str:
    return "2.1" if call.path.startswith("/v2.1/") else "2"


# ---- Plivo -----------------------------------------------------------------------------------------------------


def plivo_list(call: Call, context: Context) -> Answer:
    """Messages of the last day, or of the times asked for; oldest first."""
    auth_id = _plivo_account(call)
    given = single(call, plivo.PARAMETERS)
    asked = plivo.parse(given, call.now_ms)
    headers = _settled(context)
    ask = Listing(
        call.caller.scope, asked.span, asked.where, True, asked.limit + 1, offset=asked.offset
    )
    rows = query.listing(context.client, ask)
    path = plivo.messages_path(auth_id)
    pinned = {"message_time__gte": asked.pinned} if asked.pinned else {}

    def page(offset: int) -> str:
        others = {name: value for name, value in given.items() if name not in ("limit", "offset")}
        return with_query(path, {**others, **pinned, "limit": asked.limit, "offset": offset}.items())

    meta = {
        "limit": asked.limit, "offset": asked.offset,
        "next": page(asked.offset + asked.limit) if len(rows) > asked.limit else None,
        "previous": page(max(0, asked.offset - asked.limit)) if asked.offset else None,
    }  # fmt: skip
    objects = [plivo.render(row, auth_id) for row in rows[: asked.limit]]
    return json_answer({"api_id": str(uuid.uuid4()), "meta": meta, "objects": objects}, headers=headers)


def plivo_one(call: Call, context: Context) -> Answer:
    """One message."""
    auth_id = _plivo_account(call)
    single(call, ())
    headers = _settled(context)
    row = query.record(context.client, call.caller.scope, call.names["message_uuid"])
    if row is None:
        raise Refusal(404, "there is no such message", "message_uuid")
    return json_answer({"api_id": str(uuid.uuid4()), **plivo.render(row, auth_id)}, headers=headers)


def _plivo_account(call: Call) -> str:
    """The account in the path must be the credential's own."""
    auth_id = call.names["auth_id"]
    if auth_id not in (call.caller.key, call.caller.account_id) and not call.caller.is_operator:
        raise Refusal(404, "there is no such account", "auth_id")
    return auth_id


# ---- CarrierX --------------------------------------------------------------------------------------------------


def carrierx_list(call: Call, context: Context) -> Answer:
    """Messages with order, filters, offset or keyset, and the total."""
    given = single(call, ("limit", "offset", "order", "filter", "after", "before", "fields", "includeFields"))
    asked = carrierx.parse(given, call.now_ms)
    headers = _settled(context)
    ask = Listing(
        call.caller.scope, asked.span, asked.where, True, asked.limit + 1, offset=asked.offset, order=asked.order,
        descending=asked.descending,
    )  # fmt: skip
    total = query.count(context.client, ask)
    rows, has_more, has_less = _carrierx_page(call, context, asked, ask)
    items = [carrierx.render(row) for row in rows]
    body = {
        "count": len(items), "has_more": has_more, "items": [_chosen(item, asked.fields) for item in items],
        "limit": asked.limit, "offset": asked.offset,
        "pagination": _carrierx_links(call, given, asked, items, has_more, has_less), "total": total,
    }  # fmt: skip
    return json_answer(body, headers=headers)


def _carrierx_page(
    call: Call, context: Context, asked: carrierx.Asked, ask: Listing
) -> tuple[list[dict[str, Any]], bool, bool]:
    """The rows of a page, and whether there are others after and before it."""
    if asked.before:
        # The page before a key is read backwards, and turned around.
        back = ask._replace(after=_key(call, context, "before", asked.before), descending=not ask.descending)
        rows = query.listing(context.client, back)
        return rows[: asked.limit][::-1], True, len(rows) > asked.limit
    if asked.after:
        ask = ask._replace(after=_key(call, context, "after", asked.after))
    rows = query.listing(context.client, ask)
    return rows[: asked.limit], len(rows) > asked.limit, bool(asked.after or asked.offset)


def _key(call: Call, context: Context, name: str, dr_sid: str) -> Key:
    row = query.record(context.client, call.caller.scope, dr_sid)
    if row is None:
        raise Refusal(400, f"{name} is not the dr_sid of a message", name)
    return query.key_of(row)


def _carrierx_links(
    call: Call,
    given: dict[str, str],
    asked: carrierx.Asked,
    items: list[dict[str, Any]],
    has_more: bool,
    has_less: bool,
) -> dict[str, str]:
    kept = {name: value for name, value in given.items() if name not in ("after", "before", "limit", "offset")}
    url = call.base_url + call.path
    limit = asked.limit
    if asked.order:
        # Only time can be a keyset: other orders are paged by offset.
        links = {"next": asked.offset + limit} if has_more else {}
        links |= {"previous": max(0, asked.offset - limit)} if asked.offset else {}
        return {n: with_query(url, {**kept, "limit": limit, "offset": at}.items()) for n, at in links.items()}
    sids = {}
    if has_more:
        sids["next"] = {"after": items[-1]["dr_sid"] if items else asked.before}
    if has_less and items:
        sids["previous"] = {"before": items[0]["dr_sid"]}
    return {n: with_query(url, {**kept, **sid, "limit": limit, "offset": 0}.items()) for n, sid in sids.items()}


def carrierx_one(call: Call, context: Context) -> Answer:
    """One message, bare."""
    asked = carrierx.parse(single(call, ("fields", "includeFields")), call.now_ms)
    headers = _settled(context)
    row = query.record(context.client, call.caller.scope, call.names["dr_sid"])
    if row is None:
        raise Refusal(404, "there is no such message", "dr_sid")
    return json_answer(_chosen(carrierx.render(row), asked.fields), headers=headers)


def _chosen(item: dict[str, Any], fields: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in item.items() if name in fields} if fields else item


def _settled(context: Context) -> dict[str, str]:
    """The header, read before the records are: what it says of them is then true."""
    return {SETTLED: context.settled_through()}
