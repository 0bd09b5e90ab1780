"""The page of one message: its life on a time axis, what settled it, its versions; of an unknown id what is known."""

from collections.abc import Sequence
from typing import Any, Final

from api import dead_letters, query, story
from api.http import Answer, Call, Context, Refusal, segment
from api.pages import charts, copies, html, mask, words
from api.pages.desk import Desk, native
from schemas.record import PUBLIC
from schemas.states import FAILURES
from schemas.times import delay_ms

_HEAD: Final = (
    "account_id", "subaccount_id", "profile_id", "connection_id", "provider", "country", "mcc", "mnc", "segments",
    "segments_delivered", "segments_failed", "encoding", "error_code", "vendor_error_code", "campaign_id", "tags",
)  # fmt: skip
# Of marks and of labels, in percent of the axis.
_TOGETHER: Final = 4.0
_LABEL: Final = 11.0
_LETTERS_MAX: Final = "20"


async def find(call: Call, desk: Desk) -> Answer:
    """To the page of the id that was typed in."""
    message_id = dict(call.query).get("id", "").strip()
    if not message_id:
        return html.page(call, "message", found=None, known=None, message_id="", letters=[], letters_why="")
    if message_id in (".", ".."):
        return await page(call._replace(names={"message_id": message_id}), desk)
    return html.redirect(html.message_href(message_id))


async def page(call: Call, desk: Desk) -> Answer:
    """One message, or what is known of an id without one (with status 404)."""
    message_id, direction = call.names["message_id"], dict(call.query).get("direction")
    if direction not in (None, "inbound", "outbound"):
        raise Refusal(400, "direction is inbound or outbound", "direction")
    found, known = await desk.read(_load, call, message_id, direction)
    letters, why = await _letters(call, desk, message_id) if call.caller.is_operator else ([], "")
    status = 200 if found else 404
    return html.page(
        call, "message", status, found=found, known=known, message_id=message_id, letters=letters, letters_why=why
    )


def _load(
    context: Context, call: Call, message_id: str, direction: str | None
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    client, scope = context.client, call.caller.scope
    record = query.record(client, scope, message_id, direction)
    known = None
    if call.caller.is_operator:
        known = {"orphans": story.orphans(client, message_id), "waiting": story.waiting(client, message_id)}
    if record is None:
        return None, (known or {"orphans": [], "waiting": 0}) | {"settled_through": context.settled_through()}
    versions = story.versions(client, scope, message_id)
    deadline = story.deadline(client, scope, message_id) if record["record_type"] == "pending" else None
    return view(call, record, versions, deadline), known


async def _letters(call: Call, desk: Desk, message_id: str) -> tuple[list[dict[str, Any]], str]:
    """Dead letters whose key is the id, and why they are not known if they are not."""
    asked = [("key", message_id), ("limit", _LETTERS_MAX)]
    try:
        told = await desk.read(native, dead_letters.listed, call._replace(query=asked))
    except Refusal as refusal:
        return [], str(refusal)
    return told["dead_letters"], ""


# ---- one record, as it is shown --------------------------------------------------------------------------------


def view(call: Call, record: dict[str, Any], versions: list[dict[str, Any]], deadline: str | None) -> dict[str, Any]:
    """A record with its events, its axis and words about what settled it."""
    shown = mask.record(record, call.caller.may_see_bodies)
    events = story.events_of(record)
    here = [v for v in versions if v["direction"] == record["direction"]]
    others = {v["direction"] for v in versions} - {record["direction"]}
    return {
        "record": shown, "events": events, "axis": axis(record, events), "rule": story.rule(record, deadline),
        "versions": here, "other": next(iter(sorted(others)), ""),
        "facts": [(name, shown[name]) for name in _HEAD if shown[name] not in ("", [], {}, 0)],
        "columns": [(c.name, shown[c.name]) for c in PUBLIC if not c.name.startswith("timeline.")],
        "delay_ms": _between(record["occurred_at"], record["final_at"]),
        "curl": copies.as_curl(
            call.base_url, f"/mdr/records/{segment(record['message_id'])}", [("direction", record["direction"])]
        ),
        "sql": copies.message_sql(record["account_id"], record["message_id"]),
    }  # fmt: skip


def axis(record: dict[str, Any], events: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Where events, settling and amending lie on a logarithmic axis from the first event on."""
    if not events:
        return {"marks": [], "ticks": [], "base": 38}
    start = events[0]["ms"]
    marks = [
        {"after": e["after_ms"], "label": e["state"], "kind": kind_of(e["state"]), "row": n, "at": e["occurred_at"]}
        for n, e in enumerate(events)
    ]
    for name, label in (("settled_at", "settled"), ("amended_at", "amended")):
        at = words.ms_of(record[name])
        if at is not None:
            marks.append({"after": max(0, at - start), "label": label, "kind": "own", "row": None, "at": record[name]})
    longest = max(mark["after"] for mark in marks)
    scale = charts.life_scale(longest)
    placed = [mark | {"x": charts.life_at(mark["after"], scale)} for mark in marks]
    marks = _levelled(_joined(sorted(placed, key=lambda mark: mark["x"])))
    base = 38 + 20 * max(mark["level"] for mark in marks)
    return {"marks": marks, "ticks": charts.life_ticks(longest), "base": base}


def _joined(marks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Marks of one name that lie together share a label."""
    told: list[dict[str, Any]] = []
    for mark in marks:
        last = told[-1] if told else None
        if last and last["label"] == mark["label"] and mark["x"] - last["x"] < _TOGETHER:
            last["also"].append(mark["x"])
        else:
            told.append(mark | {"also": []})
    return told


def _levelled(marks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Labels that would touch go to other levels."""
    ends = [-100.0] * 4
    for mark in marks:
        level = next((n for n, end in enumerate(ends) if mark["x"] > end), len(ends) - 1)
        ends[level] = mark["x"] + _LABEL
        mark["level"] = level
    return marks


def kind_of(state: str) -> str:
    """The colour family of a state."""
    return "bad" if state in FAILURES else "good" if state in ("delivered", "received") else "open"


def _between(start: str | None, end: str | None) -> int | None:
    first, last = words.ms_of(start), words.ms_of(end)
    return None if first is None or last is None else delay_ms(first, last)
