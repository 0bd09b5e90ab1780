"""The OpenAPI document as one page of HTML: no script, nothing loaded from elsewhere. Pure."""

import base64
import hashlib
from html import escape
from typing import Any, Final

_STYLE: Final = (
    ":root{color-scheme:light dark}"
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "code{font-family:ui-monospace,monospace}h2 code{font-weight:600}table{border-collapse:collapse;width:100%}"
    "td,th{text-align:left;padding:.2rem .6rem .2rem 0;border-bottom:1px solid #8884;vertical-align:top}"
    "section{margin:2rem 0}summary{cursor:pointer}"
)
# The page's own style is all that a browser may apply.
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
SECURITY: Final = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none';"
        " frame-ancestors 'none'"
    ),
}


def page(document: dict[str, Any]) -> bytes:
    """The page."""
    info = document["info"]
    parts = [
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{escape(info['title'])}</title>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<style>{_STYLE}</style></head><body><h1>{escape(info['title'])} {escape(info['version'])}</h1>",
        f"<p>{escape(info['description'])} The machine-readable form is <a href='/openapi.json'>/openapi.json</a>.</p>",
        "<h2>Credentials</h2><ul>",
        *(
            f"<li>{escape(n)}: {_code(s['description'])}</li>"
            for n, s in document["components"]["securitySchemes"].items()
        ),
        "</ul>",
    ]
    parts += [_operation(m, p, o) for p, item in document["paths"].items() for m, o in item.items()]
    parts += ["<h2>Shapes</h2>", *(_schema(n, s) for n, s in document["components"]["schemas"].items())]
    return "".join([*parts, "</body></html>"]).encode()


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    head = f"<section><h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(operation['summary'])}</p>"
    rows = [
        f"<tr><td><code>{escape(p['name'])}</code></td><td>{escape(_kind(p['schema']))}</td><td>{_code(p['description'])}</td></tr>"
        for p in operation.get("parameters", [])
    ]
    table = (
        f"<details><summary>{len(rows)} parameters</summary><table>{''.join(rows)}</table></details>" if rows else ""
    )
    return f"{head}{table}<p>Answers {escape(', '.join(operation['responses']))}.</p></section>"


def _schema(name: str, schema: dict[str, Any]) -> str:
    rows = [
        f"<tr><td><code>{escape(field)}</code></td><td>{escape(_kind(kind))}</td></tr>"
        for field, kind in schema["properties"].items()
    ]
    return f"<details><summary>{escape(name)}</summary><table>{''.join(rows)}</table></details>"


def _kind(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return " | ".join(schema["enum"])
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    if schema.get("type") == "array":
        return f"list of {_kind(schema['items'])}"
    kind = schema.get("type", "any")
    return " or ".join(kind) if isinstance(kind, list) else str(schema.get("format", kind))


def _code(text: str) -> str:
    """Escaped text whose parts between backticks are code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if at % 2 else part for at, part in enumerate(parts))
