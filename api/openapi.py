"""The OpenAPI 3.1 document of the paths under `/mdr/`, made of the record's own columns. Pure."""

from typing import Any, Final

from api import auth, files, native, openapi_operator, reports, stats
from api import openapi_parts as o
from api.where import NUMBERS, SCALARS, TIMES
from schemas.record import PUBLIC

_EXPIRES: Final = {"type": ["string", "null"], "format": "date-time", "description": "Never when null."}


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
    step = dict.fromkeys(("event_id", "state", "error_code", "source"), o.TEXT)
    problem = {"type": o.TEXT, "title": o.TEXT, "status": o.WHOLE, "detail": o.TEXT}
    return {
        "Record": o.object_of(record),
        "Step": o.object_of(step | {"occurred_at": o.INSTANT, "segment": o.WHOLE}),
        "Problem": o.object_of(problem, {"field": o.TEXT}),
        "Statistic": o.object_of(_statistic()),
        "Report": o.object_of(_report()),
        "ReportRequest": _report_request(),
        "Credential": o.object_of({
            "key": o.TEXT, "account_id": o.TEXT, "parent_id": o.TEXT, "scopes": o.list_of(o.TEXT),
            "created_at": o.INSTANT, "expires_at": _EXPIRES, "revoked": o.FLAG,
        }),
        "CredentialRequest": {
            "type": "object", "additionalProperties": False, "required": ["account_id"],
            "properties": {
                "account_id": {"type": "string", "minLength": 1, "maxLength": 128}, "parent_id": o.TEXT, "key": o.TEXT,
                "scopes": o.list_of({"enum": list(auth.SCOPES)}),
                "expires_at": {"type": "string", "description": "An instant of RFC 3339 or a day; never when absent."},
            },
        },
        **openapi_operator.schemas(),
    }  # fmt: skip


def _column(type_: str) -> dict[str, Any]:
    if type_.startswith("Array"):
        return o.list_of(o.TEXT)
    if type_.startswith("Map"):
        return {"type": "object", "additionalProperties": o.TEXT}
    if type_.startswith("Nullable"):
        return {"type": ["string", "null"], "format": "date-time"}
    return o.INSTANT if "DateTime64" in type_ else o.WHOLE if "Int" in type_ else o.TEXT


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
        "currency": o.TEXT, "amount": o.TEXT, **dict.fromkeys(counts, o.WHOLE),
        **{name: {"type": ["number", "null"]} for name in shares},
    }  # fmt: skip


def _report() -> dict[str, Any]:
    texts = dict.fromkeys(("report_id", "kind", "name", "detail"), o.TEXT)
    times = dict.fromkeys(("start", "end", "created_at", "updated_at", "expires_at"), o.INSTANT)
    return {
        **texts, **times, "format": {"enum": list(files.FORMATS)},
        "status": {"enum": [reports.PENDING, reports.RUNNING, reports.COMPLETE, reports.FAILED, reports.EXPIRED]},
        "filters": {"type": "object"}, "rows_done": o.WHOLE, "rows_total": {"type": ["integer", "null"]},
        "progress": {"type": "number", "minimum": 0, "maximum": 1}, "url": {"type": ["string", "null"]},
    }  # fmt: skip


def _report_request() -> dict[str, Any]:
    values = {"oneOf": [o.TEXT, o.WHOLE, {"type": "array", "items": {"type": ["string", "integer"]}}]}
    return {
        "type": "object", "additionalProperties": False,
        "properties": {
            "start": o.INSTANT, "end": o.INSTANT, "format": {"enum": list(files.FORMATS)},
            "name": {"type": "string", "maxLength": 200},
            "filters": {"type": "object", "additionalProperties": values},
        },
    }  # fmt: skip


# ---- paths -----------------------------------------------------------------------------------------------------


def _paths() -> dict[str, Any]:
    report_id = o.path("report_id", "The report's id.")
    listing = o.body({"reports": o.list_of(o.ref("Report"))})
    records = o.body({"records": o.list_of(o.ref("Record")), "next_cursor": {"type": ["string", "null"]}})
    report = {"allOf": [o.ref("Report"), o.object_of({"settled_through": o.SETTLED})]}
    record = {"allOf": [o.ref("Record"), o.object_of({"settled_through": o.SETTLED})]}
    statistics = o.body({"stats": o.list_of(o.ref("Statistic"))})
    direction = o.query("direction", {"enum": ["inbound", "outbound"]}, "Outbound unless there is only an inbound one.")
    return {
        "/mdr/records": {"get": o.get("Records in a range, oldest first", records, _record_parameters())},
        "/mdr/records/{message_id}": {
            "get": o.get(
                "One record with its timeline", record, [o.path("message_id", "The message's id."), direction], 404
            )
        },
        "/mdr/stats": {"get": o.get("Counts, amounts, rates and delays by groups", statistics, _stats_parameters())},
        "/mdr/reports": {
            "get": o.get("Every report, newest first", listing, []),
            "post": o.post("Asks for a report, which is built in the background", "ReportRequest", report, 202),
        },
        "/mdr/reports/{report_id}": {
            "get": o.get("One report, with a link when it is complete", report, [report_id], 404),
            "delete": o.get("Deletes a report and its file", report, [report_id], 404),
        },
        "/mdr/files/{token}": {"get": _download()},
        **openapi_operator.paths(),
        **_credential_paths(),
    }


def _credential_paths() -> dict[str, Any]:
    """The operator's alone."""
    texts = dict.fromkeys(("account_id", "key", "secret", "bearer"), o.TEXT)
    made = o.body({**texts, "scopes": o.list_of(o.TEXT), "expires_at": _EXPIRES})
    ended = o.body({"key": o.TEXT, "revoked": o.FLAG})
    return {
        "/mdr/credentials": {
            "get": o.get("Every key, for the operator", o.body({"credentials": o.list_of(o.ref("Credential"))}), []),
            "post": o.post("A new key; its secret is told this once", "CredentialRequest", made, 201),
        },
        "/mdr/credentials/{key}": {
            "delete": o.get("Ends a key at once, for the operator", ended, [o.path("key", "The key.")], 404)
        },
    }


def _record_parameters() -> list[dict[str, Any]]:
    whole = {"type": "integer", "minimum": 1, "maximum": native.LIMIT_MAX, "default": 100}
    return [
        *_span_parameters(), o.query("limit", whole, "Records a page."),
        o.query("cursor", o.TEXT, "`next_cursor` of the page before."),
        o.query("include", {"enum": ["pending"]}, "`pending` adds what still settles."), *_filters(),
    ]  # fmt: skip


def _stats_parameters() -> list[dict[str, Any]]:
    by = f"Groups, joined by commas: {', '.join(stats.GROUPS)}."
    return [*_span_parameters(), o.query("by", o.TEXT, by), *_filters()]


def _span_parameters() -> list[dict[str, Any]]:
    bound = f"At most {native.RANGE_DAYS_MAX} days."
    return [
        o.query("start", o.INSTANT, f"From this `occurred_at` on; 24 hours before `end` when absent. {bound}"),
        o.query("end", o.INSTANT, "Before this `occurred_at`; now when absent."),
    ]


def _filters() -> list[dict[str, Any]]:
    found = []
    for name in (*SCALARS, "tags"):
        kind = o.INSTANT if name in TIMES else o.WHOLE if name in NUMBERS else o.TEXT
        found.append(o.query(name, o.list_of(kind) | {"maxItems": native.VALUES_MAX}, "Any of the values."))
    return found


def _download() -> dict[str, Any]:
    binary: dict[str, Any] = {media: {} for media in files.MEDIA_TYPES.values()}
    return {
        "summary": "The file of a report; the link is the credential, and ends within minutes", "security": [],
        "parameters": [o.path("token", "The secret part of `url`.")],
        "responses": {
            "200": {"description": "The file.", "content": binary}, **o.problems(400, 404, 500, 503),
        },
    }  # fmt: skip
