"""The operator's paths in the OpenAPI document: lag, dead letters, check, trace. Pure."""

from typing import Any, Final

from api import audit, dead_letters
from api import openapi_parts as o

_CHECK_COLUMNS: Final = (
    "partition", "read", "events", "records", "open", "waiting", "orphans", "duplicates", "dead_letters", "again",
    "removed", "skipped", "difference", "unread",
)  # fmt: skip
_LAG_STATUSES: Final = ["ok", "catching_up", "falling_behind", "stalled", "stopped"]
_LETTER_FILTERS: Final[dict[str, tuple[dict[str, Any], str]]] = {
    "reason": (o.TEXT, "Why it was refused."), "topic": (o.TEXT, "Where the input stood."),
    "fingerprint": (o.TEXT, "What is wrong with it."), "until": (o.INSTANT, "Letters that came before."),
}  # fmt: skip


def schemas() -> dict[str, Any]:
    """The shapes the paths refer to."""
    return {
        "DeadLetter": o.object_of(_dead_letter()),
        "DeadLetterGroup": o.object_of({
            **dict.fromkeys(("reason", "fingerprint", "topic", "detail", "example_id"), o.TEXT), "count": o.WHOLE,
            "first": o.INSTANT, "last": o.INSTANT,
        }),
        "RedriveRequest": _redrive_request(),
        "ErasureRequest": {
            "type": "object", "additionalProperties": False,
            "oneOf": [{"required": ["number"]}, {"required": ["account"]}],
            "properties": {"number": o.TEXT, "account": o.TEXT, "dry_run": o.FLAG},
        },
    }  # fmt: skip


def paths() -> dict[str, Any]:
    """The paths."""
    return _lag_paths() | _dead_letter_paths() | _whole_paths()


def _dead_letter() -> dict[str, Any]:
    texts = dict.fromkeys(("id", "reason", "detail", "fingerprint", "topic"), o.TEXT)
    wholes = dict.fromkeys(("partition", "offset", "size", "attempts", "redriven"), o.WHOLE)
    bytes_ = {name: {"type": ["string", "null"]} for name in ("key", "value_text", "value_base64")}
    return {
        **texts, **wholes, **bytes_, "timestamp": o.INSTANT, "landed": o.INSTANT, "cut": o.FLAG, "masked": o.FLAG,
        "redriven_at": {"type": ["string", "null"], "format": "date-time"},
    }  # fmt: skip


def _redrive_request() -> dict[str, Any]:
    ids = o.list_of(o.TEXT) | {"maxItems": dead_letters.IDS_MAX}
    wanted = {"type": "object", "additionalProperties": False, "properties": dict.fromkeys(_LETTER_FILTERS, o.TEXT)}
    rate = {"type": "number", "minimum": 0.1, "maximum": dead_letters.RATE_MAX, "default": dead_letters.RATE}
    flags = dict.fromkeys(("dry_run", "force", "again"), o.FLAG)
    return {
        "type": "object", "additionalProperties": False, "oneOf": [{"required": ["ids"]}, {"required": ["filter"]}],
        "properties": {"ids": ids, "filter": wanted, "rate": rate, **flags},
    }  # fmt: skip


def _lag_paths() -> dict[str, Any]:
    number: dict[str, Any] = {"type": ["number", "null"]}
    instant: dict[str, Any] = {"type": ["string", "null"], "format": "date-time"}
    agent = {
        **dict.fromkeys(("agent", "topic", "owner", "why"), o.TEXT), "status": {"enum": _LAG_STATUSES},
        **dict.fromkeys(("partition", "end", "lag_events", "lost_events"), o.WHOLE),
        "committed": {"type": ["integer", "null"]}, "lag_seconds": number, "trend_events_per_second": number,
        "watermark": instant,
    }  # fmt: skip
    settling = {
        "partition": o.WHOLE, "open": o.WHOLE, "oldest_open": instant,
        "due": o.object_of(dict.fromkeys(("1m", "10m", "1h", "later"), o.WHOLE)),
        "checkpoint_age_seconds": number, "flush_age_seconds": number,
    }  # fmt: skip
    rates = {"type": ["object", "null"]}
    told = o.body({
        "status": {"enum": _LAG_STATUSES}, "why": o.TEXT, "at": o.INSTANT, "agents": o.list_of(o.object_of(agent)),
        "settling": o.list_of(o.object_of(settling)), "rates": rates, "trouble": o.list_of(o.TEXT),
    })  # fmt: skip
    names = ("lag_seconds", "events_per_second", "records_per_second", "dead_letters_per_second")
    point = o.object_of({"at": o.INSTANT, "lag_events": o.WHOLE, "open": o.WHOLE, **dict.fromkeys(names, number)})
    history = o.body({"every_seconds": o.WHOLE, "points": o.list_of(point)})
    return {
        "/mdr/lag": {"get": o.get("Lag by agent and partition, what settles, what is wrong; operators only", told, [])},
        "/mdr/lag/history": {"get": o.get("The last hour of it", history, [])},
    }


def _dead_letter_paths() -> dict[str, Any]:
    filters = [o.query(name, kind, what) for name, (kind, what) in _LETTER_FILTERS.items()]
    limit = {"type": "integer", "minimum": 1, "maximum": dead_letters.LIMIT_MAX, "default": 100}
    masked = o.query(
        "masked", {"enum": ["true", "false"]}, "`true` hides numbers and bodies from whoever may see them."
    )
    paging = [o.query("key", o.TEXT, "The entry's key."), o.query("limit", limit, "Letters a page."),
              o.query("cursor", o.TEXT, "`next_cursor` of the page before."), masked]  # fmt: skip
    scanned = {"scanned": o.WHOLE, "truncated": o.FLAG}
    page = {
        "dead_letters": o.list_of(o.ref("DeadLetter")),
        "next_cursor": {"type": ["string", "null"]},
        "total": o.WHOLE,
    }
    refused = o.list_of(o.object_of({"id": o.TEXT, "why": o.TEXT}))
    counts = dict.fromkeys(("would", "redriven"), o.WHOLE)
    told = {"dry_run": o.FLAG, "refused": refused, "refused_total": o.WHOLE, "outcomes": {"type": "object"},
            "remaining": o.WHOLE, "truncated": o.FLAG}  # fmt: skip
    return {
        "/mdr/dead-letters": {
            "get": o.get("Dead letters, newest first, for the operator", o.object_of(page), [*filters, *paging])
        },
        "/mdr/dead-letters/summary": {
            "get": o.get(
                "Dead letters by what is wrong with them, for the operator",
                o.object_of({"groups": o.list_of(o.ref("DeadLetterGroup"))} | scanned), filters,
            )
        },
        "/mdr/dead-letters/{id}": {
            "get": o.get(
                "One dead letter, and what the decoder says of it now, for the operator",
                o.object_of({"dead_letter": o.ref("DeadLetter"), "now": o.TEXT}),
                [o.path("id", "The letter's id."), masked], 404,
            )
        },
        "/mdr/dead-letters/redrive": {
            "post": o.post(
                "Sends dead letters once more, as many as the rate allows in half a minute, for the operator",
                "RedriveRequest", o.object_of(told, counts), 200, 409,
            )
        },
    }  # fmt: skip


def _audit() -> dict[str, Any]:
    texts = ("action", "outcome", "key", "account_id", "client", "method", "path")
    row = o.object_of({
        "at": o.INSTANT, **dict.fromkeys(texts, o.TEXT), "status": o.WHOLE, "ids": o.list_of(o.TEXT),
        "detail": {"type": "object"},
    })  # fmt: skip
    parameters = [
        o.query("key", o.TEXT, "Only what this key did."), o.query("account", o.TEXT, "Only what its keys did."),
        o.query("action", {"enum": list(audit.ACTIONS)}, "Only this kind of act."),
        o.query("id", o.TEXT, "Only what was done with this id, which is kept as a keyed hash."),
        o.query("since", o.TEXT, "From this day or instant on."), o.query("until", o.TEXT, "Before it."),
        o.query(
            "limit", {"type": "integer", "minimum": 1, "maximum": audit.ROWS_MAX, "default": 100}, "At most so many."
        ),
    ]  # fmt: skip
    return o.get("Who did what, newest first, for the operator", o.body({"audit": o.list_of(row)}), parameters)


def _erasure() -> dict[str, Any]:
    counts = dict.fromkeys(("records", "versions", "orphan_receipts"), o.WHOLE)
    still = o.object_of({"messages": o.WHOLE, "settled_by": {"type": ["string", "null"], "format": "date-time"}})
    kind = {"enum": ["number", "account"]}
    told = {"dry_run": o.FLAG, "kind": kind, "open_messages": still, "settled_through": o.SETTLED}
    receipt = dict.fromkeys(("erasure_id", "subject_hash", "who"), o.TEXT) | {
        "at": o.INSTANT, "erased": o.object_of(counts | {"reports": o.WHOLE}),
    }  # fmt: skip
    return o.post(
        "Erases all records of a number or an account, for the operator; what still settles, once it has settled",
        "ErasureRequest", o.object_of(told, counts | receipt), 200,
    )  # fmt: skip


def _whole_paths() -> dict[str, Any]:
    row = o.object_of(dict.fromkeys(_CHECK_COLUMNS, o.WHOLE))
    finding = o.object_of({
        "kind": o.TEXT, "partition": {"type": ["integer", "null"]}, "count": o.WHOLE, "what": o.TEXT,
        "examples": o.list_of(o.TEXT),
    })  # fmt: skip
    checked = o.object_of({
        "ok": o.FLAG, "at": o.INSTANT, "tries": o.WHOLE, "partitions": o.list_of(row),
        "findings": o.list_of(finding), "notes": o.list_of(o.TEXT),
    })  # fmt: skip
    traced = o.body({
        "message_id": o.TEXT, "records": o.list_of(o.ref("Record")), "waiting": o.WHOLE,
        "orphans": o.list_of({"type": "object"}), "dead_letters": o.list_of(o.ref("DeadLetter")),
        "dead_letters_why": o.TEXT,
    })  # fmt: skip
    check = "Whether the counts of log and store add up, by partition, for the operator; takes its time"
    trace = "All that is known of a message id, why it settled, and the gaps between its events, for the operator"
    return {
        "/mdr/audit": {"get": _audit()},
        "/mdr/erasures": {"post": _erasure()},
        "/mdr/check": {"get": o.get(check, checked, [], 409)},
        "/mdr/trace/{message_id}": {"get": o.get(trace, traced, [o.path("message_id", "The message's id.")], 404)},
    }
