"""What OpenAPI documents are put together from. Pure."""

from typing import Any, Final

INSTANT: Final = {"type": "string", "format": "date-time", "examples": ["2026-01-31T09:15:04.123Z"]}
TEXT: Final = {"type": "string"}
WHOLE: Final = {"type": "integer"}
FLAG: Final = {"type": "boolean"}
SETTLED: Final = INSTANT | {"description": "Exclusive: every message that occurred before it is a record."}


def query(name: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    """A parameter of the query string."""
    return {"name": name, "in": "query", "schema": schema, "description": description}


def path(name: str, description: str) -> dict[str, Any]:
    """A parameter of the path."""
    return {
        "name": name,
        "in": "path",
        "required": True,
        "schema": {"type": "string", "minLength": 1},
        "description": description,
    }


def get(summary: str, schema: dict[str, Any], parameters: list[dict[str, Any]], *more: int) -> dict[str, Any]:
    """A request without a body, and its answers."""
    return {"summary": summary, "parameters": parameters, "responses": responses(200, schema, *more)}


def post(summary: str, body: str, schema: dict[str, Any], status: int, *more: int) -> dict[str, Any]:
    """A request with a JSON body, and its answers."""
    content = {"application/json": {"schema": ref(body)}}
    return {
        "summary": summary, "requestBody": {"required": True, "content": content},
        "responses": responses(status, schema, 413, 415, *more),
    }  # fmt: skip


def responses(status: int, schema: dict[str, Any], *more: int) -> dict[str, Any]:
    """The good answer, and the errors that any path may give besides `more`."""
    good = {"description": "What was asked for.", "content": {"application/json": {"schema": schema}}}
    return {str(status): good, **problems(400, 401, 403, 429, 500, 503, *more)}


def problems(*statuses: int) -> dict[str, Any]:
    """Errors by status."""
    return {str(status): {"$ref": "#/components/responses/Problem"} for status in sorted(statuses)}


def ref(name: str) -> dict[str, Any]:
    """A reference to a schema."""
    return {"$ref": f"#/components/schemas/{name}"}


def list_of(items: dict[str, Any]) -> dict[str, Any]:
    """An array."""
    return {"type": "array", "items": items}


def object_of(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    """An object with required and optional members."""
    return {"type": "object", "properties": required | (optional or {}), "required": list(required)}


def body(required: dict[str, Any]) -> dict[str, Any]:
    """An answer, which always says how far records are settled."""
    return object_of({**required, "settled_through": SETTLED})
