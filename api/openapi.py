"""The OpenAPI 3.1 document of the paths under `/mdr/`, made of the record's own columns. Pure."""

from typing import Any, Final

from api import dead_letters, files, native, reports, stats
from api.where import NUMBERS, SCALARS, TIMES
from schemas.record import PUBLIC

_INSTANT: Final = {"type": "string", "format": "date-time", "examples": ["2026-01-31T09:15:04.123Z"]}
_TEXT: Final = {"type": "string"}
_WHOLE: Final = {"type": "integer"}
_FLAG: Final = {"type": "boolean"}
_LAG_STATUSES: Final = ["ok", "catching_up", "falling_behind", "stalled", "stopped"]
_LETTER_FILTERS: Final[dict[str, tuple[dict[str, Any], str]]] = {
    "reason": (_TEXT, "Why it was refused."), "topic": (_TEXT, "Where the input stood."),
    "fingerprint": (_TEXT, "What is wrong with it."), "until": (_INSTANT, "Letters that came before."),
}  # fmt: skip
_SETTLED: Final = _INSTANT | {"description": "Exclusive: every message that occurred before it is a record."}


def document(version: str) -> dict[str, Any]:
    """The whole document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Message detail records", "version": version,
            "description": "Records of messages in a range, statistics, and reports. Errors are RFC 9457.",
        },
        "security": [{"basic": []}, {"bearer": []}, {"user": [], "token": []}],
        "paths": _paths(),
        "components": {"securitySchemes": _security(), "schemas": _schemas(), "responses": {"Problem": _problem()}},
    }  # fmt: skip


def _security() -> dict[str, Any]:
    return {
        "basic": {"type": "http", "scheme": "basic", "description": "`key:secret`"},
        "bearer": {"type": "http", "scheme": "bearer", "description": "`key.secret`"},
        "user": {"type": "apiKey", "in": "header", "name": "x-api-user", "description": "the key"},
        "token": {"type": "apiKey", "in": "header", "name": "x-api-token", "description": "the secret"},
    }


def _problem() -> dict[str, Any]:
    return {
        "description": "What is wrong; `field` names it.",
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }


def _schemas() -> dict[str, Any]:
    record = {c.name: _column(c.type) for c in PUBLIC if not c.name.startswith("timeline.")}
    record["timeline"] = {"type": "array", "items": {"$ref": "#/components/schemas/Step"}}
    record["record_type"] = {"enum": ["complete", "incomplete", "error", "pending"]}
    record["direction"] = {"enum": ["inbound", "outbound"]}
    step = dict.fromkeys(("event_id", "state", "error_code", "source"), _TEXT)
    problem = {"type": _TEXT, "title": _TEXT, "status": _WHOLE, "detail": _TEXT}
    return {
        "Record": _object(record),
        "Step": _object(step | {"occurred_at": _INSTANT, "segment": _WHOLE}),
        "Problem": _object(problem, {"field": _TEXT}),
        "Statistic": _object(_statistic()),
        "Report": _object(_report()),
        "ReportRequest": _report_request(),
        "Credential": _object({
            "key": _TEXT, "account_id": _TEXT, "parent_id": _TEXT, "scopes": _list(_TEXT), "created_at": _INSTANT,
            "revoked": {"type": "boolean"},
        }),
        "DeadLetter": _object(_dead_letter()),
        "DeadLetterGroup": _object({
            **dict.fromkeys(("reason", "fingerprint", "topic", "detail", "example_id"), _TEXT), "count": _WHOLE,
            "first": _INSTANT, "last": _INSTANT,
        }),
        "RedriveRequest": _redrive_request(),
    }  # fmt: skip


def _column(type_: str) -> dict[str, Any]:
    if type_.startswith("Array"):
        return _list(_TEXT)
    if type_.startswith("Map"):
        return {"type": "object", "additionalProperties": _TEXT}
    if type_.startswith("Nullable"):
        return {"type": ["string", "null"], "format": "date-time"}
    return _INSTANT if "DateTime64" in type_ else _WHOLE if "Int" in type_ else _TEXT


def _statistic() -> dict[str, Any]:
    counts = [
        "messages",
        "inbound",
        "outbound",
        "complete",
        "error",
        "incomplete",
        "partial",
        "delivered",
        "segments",
        "amount_nanos",
    ]
    shares = ["delivery_rate", "unconfirmed_share", "delivery_ms_p50", "delivery_ms_p90", "delivery_ms_p99"]
    return {
        "currency": _TEXT, **dict.fromkeys(counts, _WHOLE), **{name: {"type": ["number", "null"]} for name in shares},
    }  # fmt: skip


def _report() -> dict[str, Any]:
    texts = dict.fromkeys(("report_id", "kind", "name", "detail"), _TEXT)
    times = dict.fromkeys(("start", "end", "created_at", "updated_at", "expires_at"), _INSTANT)
    return {
        **texts, **times, "format": {"enum": list(files.FORMATS)},
        "status": {"enum": [reports.PENDING, reports.RUNNING, reports.COMPLETE, reports.FAILED, reports.EXPIRED]},
        "filters": {"type": "object"}, "rows_done": _WHOLE, "rows_total": {"type": ["integer", "null"]},
        "progress": {"type": "number", "minimum": 0, "maximum": 1}, "url": {"type": ["string", "null"]},
    }  # fmt: skip


def _report_request() -> dict[str, Any]:
    values = {"oneOf": [_TEXT, _WHOLE, {"type": "array", "items": {"type": ["string", "integer"]}}]}
    return {
        "type": "object", "additionalProperties": False,
        "properties": {
            "start": _INSTANT, "end": _INSTANT, "format": {"enum": list(files.FORMATS)},
            "name": {"type": "string", "maxLength": 200},
            "filters": {"type": "object", "additionalProperties": values},
        },
    }  # fmt: skip


def _dead_letter() -> dict[str, Any]:
    texts = dict.fromkeys(("id", "reason", "detail", "fingerprint", "topic"), _TEXT)
    wholes = dict.fromkeys(("partition", "offset", "size", "attempts", "redriven"), _WHOLE)
    bytes_ = {name: {"type": ["string", "null"]} for name in ("key", "value_text", "value_base64")}
    return {
        **texts, **wholes, **bytes_, "timestamp": _INSTANT, "landed": _INSTANT, "cut": _FLAG, "masked": _FLAG,
        "redriven_at": {"type": ["string", "null"], "format": "date-time"},
    }  # fmt: skip


def _redrive_request() -> dict[str, Any]:
    ids = _list(_TEXT) | {"maxItems": dead_letters.IDS_MAX}
    wanted = {"type": "object", "additionalProperties": False, "properties": dict.fromkeys(_LETTER_FILTERS, _TEXT)}
    rate = {"type": "number", "minimum": 0.1, "maximum": dead_letters.RATE_MAX, "default": dead_letters.RATE}
    flags = dict.fromkeys(("dry_run", "force", "again"), _FLAG)
    return {
        "type": "object", "additionalProperties": False, "oneOf": [{"required": ["ids"]}, {"required": ["filter"]}],
        "properties": {"ids": ids, "filter": wanted, "rate": rate, **flags},
    }  # fmt: skip


# ---- paths -----------------------------------------------------------------------------------------------------


def _paths() -> dict[str, Any]:
    report_id = _path("report_id", "The report's id.")
    listing = _body({"reports": _list(_ref("Report"))})
    records = _body({"records": _list(_ref("Record")), "next_cursor": {"type": ["string", "null"]}})
    report = {"allOf": [_ref("Report"), _object({"settled_through": _SETTLED})]}
    record = {"allOf": [_ref("Record"), _object({"settled_through": _SETTLED})]}
    statistics = _body({"stats": _list(_ref("Statistic"))})
    direction = _query("direction", {"enum": ["inbound", "outbound"]}, "Outbound unless there is only an inbound one.")
    return {
        "/mdr/records": {"get": _get("Records in a range, oldest first", records, _record_parameters())},
        "/mdr/records/{message_id}": {
            "get": _get(
                "One record with its timeline", record, [_path("message_id", "The message's id."), direction], 404
            )
        },
        "/mdr/stats": {"get": _get("Counts, amounts, rates and delays by groups", statistics, _stats_parameters())},
        "/mdr/reports": {
            "get": _get("Every report, newest first", listing, []),
            "post": _post("Asks for a report, which is built in the background", "ReportRequest", report, 202),
        },
        "/mdr/reports/{report_id}": {
            "get": _get("One report, with a link when it is complete", report, [report_id], 404),
            "delete": _get("Deletes a report and its file", report, [report_id], 404),
        },
        "/mdr/files/{token}": {"get": _download()},
        **_lag_paths(),
        **_dead_letter_paths(),
        "/mdr/credentials": {
            "get": _get("Every key, for the operator", _body({"credentials": _list(_ref("Credential"))}), [])
        },
    }


def _lag_paths() -> dict[str, Any]:
    number: dict[str, Any] = {"type": ["number", "null"]}
    instant: dict[str, Any] = {"type": ["string", "null"], "format": "date-time"}
    agent = {
        **dict.fromkeys(("agent", "topic", "owner", "why"), _TEXT), "status": {"enum": _LAG_STATUSES},
        **dict.fromkeys(("partition", "end", "lag_events", "lost_events"), _WHOLE),
        "committed": {"type": ["integer", "null"]}, "lag_seconds": number, "trend_events_per_second": number,
        "watermark": instant,
    }  # fmt: skip
    settling = {
        "partition": _WHOLE, "open": _WHOLE, "oldest_open": instant,
        "due": _object(dict.fromkeys(("1m", "10m", "1h", "later"), _WHOLE)),
        "checkpoint_age_seconds": number, "flush_age_seconds": number,
    }  # fmt: skip
    rates = {"type": ["object", "null"]}
    told = _body({
        "status": {"enum": _LAG_STATUSES}, "why": _TEXT, "at": _INSTANT, "agents": _list(_object(agent)),
        "settling": _list(_object(settling)), "rates": rates, "trouble": _list(_TEXT),
    })  # fmt: skip
    names = ("lag_seconds", "events_per_second", "records_per_second", "dead_letters_per_second")
    point = _object({"at": _INSTANT, "lag_events": _WHOLE, "open": _WHOLE, **dict.fromkeys(names, number)})
    history = _body({"every_seconds": _WHOLE, "points": _list(point)})
    return {
        "/mdr/lag": {"get": _get("Lag by agent and partition, what settles, what is wrong; operators only", told, [])},
        "/mdr/lag/history": {"get": _get("The last hour of it", history, [])},
    }


def _dead_letter_paths() -> dict[str, Any]:
    filters = [_query(name, kind, what) for name, (kind, what) in _LETTER_FILTERS.items()]
    limit = {"type": "integer", "minimum": 1, "maximum": dead_letters.LIMIT_MAX, "default": 100}
    masked = _query("masked", {"enum": ["true", "false"]}, "`true` hides numbers and bodies from whoever may see them.")
    paging = [_query("key", _TEXT, "The entry's key."), _query("limit", limit, "Letters a page."),
              _query("cursor", _TEXT, "`next_cursor` of the page before."), masked]  # fmt: skip
    scanned = {"scanned": _WHOLE, "truncated": _FLAG}
    page = {"dead_letters": _list(_ref("DeadLetter")), "next_cursor": {"type": ["string", "null"]}, "total": _WHOLE}
    refused = _list(_object({"id": _TEXT, "why": _TEXT}))
    counts = dict.fromkeys(("would", "redriven"), _WHOLE)
    told = {"dry_run": _FLAG, "refused": refused, "refused_total": _WHOLE, "outcomes": {"type": "object"},
            "remaining": _WHOLE, "truncated": _FLAG}  # fmt: skip
    return {
        "/mdr/dead-letters": {
            "get": _get("Dead letters, newest first, for the operator", _object(page | scanned), [*filters, *paging])
        },
        "/mdr/dead-letters/summary": {
            "get": _get(
                "Dead letters by what is wrong with them, for the operator",
                _object({"groups": _list(_ref("DeadLetterGroup"))} | scanned), filters,
            )
        },
        "/mdr/dead-letters/{id}": {
            "get": _get(
                "One dead letter, and what the decoder says of it now, for the operator",
                _object({"dead_letter": _ref("DeadLetter"), "now": _TEXT}),
                [_path("id", "The letter's id."), masked], 404,
            )
        },
        "/mdr/dead-letters/redrive": {
            "post": _post(
                "Sends dead letters once more, as many as the rate allows in half a minute, for the operator",
                "RedriveRequest", _object(told, counts), 200, 409,
            )
        },
    }  # fmt: skip


def _record_parameters() -> list[dict[str, Any]]:
    whole = {"type": "integer", "minimum": 1, "maximum": native.LIMIT_MAX, "default": 100}
    return [
        *_span_parameters(), _query("limit", whole, "Records a page."),
        _query("cursor", _TEXT, "`next_cursor` of the page before."),
        _query("include", {"enum": ["pending"]}, "`pending` adds what still settles."), *_filters(),
    ]  # fmt: skip


def _stats_parameters() -> list[dict[str, Any]]:
    by = f"Groups, joined by commas: {', '.join(stats.GROUPS)}."
    return [*_span_parameters(), _query("by", _TEXT, by), *_filters()]


def _span_parameters() -> list[dict[str, Any]]:
    bound = f"At most {native.RANGE_DAYS_MAX} days."
    return [
        _query("start", _INSTANT, f"From this `occurred_at` on; 24 hours before `end` when absent. {bound}"),
        _query("end", _INSTANT, "Before this `occurred_at`; now when absent."),
    ]


def _filters() -> list[dict[str, Any]]:
    found = []
    for name in (*SCALARS, "tags"):
        kind = _INSTANT if name in TIMES else _WHOLE if name in NUMBERS else _TEXT
        found.append(_query(name, _list(kind) | {"maxItems": native.VALUES_MAX}, "Any of the values."))
    return found


def _query(name: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema, "description": description}


def _path(name: str, description: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "schema": {"type": "string", "minLength": 1},
        "description": description,
    }


def _get(summary: str, schema: dict[str, Any], parameters: list[dict[str, Any]], *more: int) -> dict[str, Any]:
    return {"summary": summary, "parameters": parameters, "responses": _responses(200, schema, *more)}


def _post(summary: str, body: str, schema: dict[str, Any], status: int, *more: int) -> dict[str, Any]:
    content = {"application/json": {"schema": _ref(body)}}
    return {
        "summary": summary, "requestBody": {"required": True, "content": content},
        "responses": _responses(status, schema, 413, *more),
    }  # fmt: skip


def _download() -> dict[str, Any]:
    binary: dict[str, Any] = {media: {} for media in files.MEDIA_TYPES.values()}
    return {
        "summary": "The file of a report; the link is the credential, and ends within minutes", "security": [],
        "parameters": [_path("token", "The secret part of `url`.")],
        "responses": {
            "200": {"description": "The file.", "content": binary}, **_problems(400, 404, 500, 503),
        },
    }  # fmt: skip


def _responses(status: int, schema: dict[str, Any], *more: int) -> dict[str, Any]:
    good = {"description": "What was asked for.", "content": {"application/json": {"schema": schema}}}
    return {str(status): good, **_problems(400, 401, 403, 429, 500, 503, *more)}


def _problems(*statuses: int) -> dict[str, Any]:
    return {str(status): {"$ref": "#/components/responses/Problem"} for status in sorted(statuses)}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _object(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"type": "object", "properties": required | (optional or {}), "required": list(required)}


def _body(required: dict[str, Any]) -> dict[str, Any]:
    return _object({**required, "settled_through": _SETTLED})
