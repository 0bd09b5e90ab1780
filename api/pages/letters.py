"""The pages of the dead letters: by what is wrong, one with its bytes, a dry run, and sending once more."""

import asyncio
import base64
import binascii
import re
from functools import partial
from typing import Any, Final

import orjson

from api import dead_letters
from api.http import Answer, Call, Refusal, segment, with_query
from api.pages import html
from api.pages.desk import Desk, form_of, native

PATH: Final = "/ui/dead-letters"
_FILTERS: Final = ("reason", "topic", "fingerprint", "until")
_LIMIT: Final = "50"
# A browser chokes on a megabyte of text; the whole is to be downloaded.
_SHOWN_CHARS: Final = 16_384
_HEX_BYTES: Final = 2_048
# What only the worker finds, with the store or other events at hand.
_UNDECIDED: Final = ("conflict", "too_many_events", "unstorable")
_HEX_LINE: Final = 16
_NO_NAME: Final = re.compile(r"[^A-Za-z0-9._-]+")


async def page(call: Call, desk: Desk) -> Answer:
    """Dead letters by reason and fingerprint, and the newest of a selection."""
    wanted = {n: v for n, v in call.query if n in _FILTERS and v}
    cursor = [(n, v) for n, v in call.query if n == "cursor"]
    try:
        shown = await _load(desk, call, wanted, cursor)
    except Refusal as refusal:
        if refusal.status < 500:
            raise
        return html.page(call, "letters", 503, shown=None, wanted=wanted, why=str(refusal))
    return html.page(call, "letters", shown=shown, wanted=wanted, why="")


async def one(call: Call, desk: Desk) -> Answer:
    """One dead letter: its bytes, its headers, and what the decoder says of it now."""
    found = await desk.read(native, dead_letters.one, call._replace(query=[]))
    letter = found["dead_letter"]
    text, bytes_ = letter["value_text"] or "", letter.get("value_base64")
    return html.page(
        call, "letter", letter=letter, now=found["now"], text=text[:_SHOWN_CHARS], is_long=len(text) > _SHOWN_CHARS,
        hex=dump(bytes_), hex_max=_HEX_BYTES, has_bytes=bool(bytes_), is_undecided=letter["reason"] in _UNDECIDED,
    )  # fmt: skip


async def value(call: Call, desk: Desk) -> Answer:
    """The value of a dead letter, byte for byte, as a file."""
    found = await desk.read(native, dead_letters.one, call._replace(query=[]))
    told = found["dead_letter"].get("value_base64")
    if told is None:
        raise Refusal(404, "there is no value that this key may see")
    name = _NO_NAME.sub("-", found["dead_letter"]["id"])
    headers = {"Content-Disposition": f'attachment; filename="{name}.bin"'}
    return Answer(base64.b64decode(told), content_type="application/octet-stream", headers=html.SECURITY | headers)


async def redrive(call: Call, desk: Desk) -> Answer:
    """A dry run, or the redrive it leads to; the form says which letters."""
    form = form_of(call)
    body, is_dry = body_of(form), form.get("do") != "redrive"
    try:
        ask = partial(native, body=orjson.dumps(body | {"dry_run": is_dry}))
        told = await desk.read(ask, dead_letters.redrive, call)
    except Refusal as refusal:
        told = {"why": str(refusal)}
    back = f"{PATH}/{segment(form['id'])}" if form.get("id") else with_query(PATH, _chosen(form).items())
    given: dict[str, Any] = {"told": told, "form": form, "is_dry": is_dry, "back": back, "wanted": _chosen(form)}
    return html.page(call, "redrive", **given)


def body_of(form: dict[str, str]) -> dict[str, Any]:
    """What the API is asked to send once more; raises `Refusal`."""
    try:
        rate = float(form.get("rate") or dead_letters.RATE)
    except ValueError:
        raise Refusal(400, f"rate is not a number from 0.1 to {dead_letters.RATE_MAX:g}", "rate") from None
    body: dict[str, Any] = {"rate": rate}
    if form.get("force"):
        body["force"] = True
    if form.get("id"):
        return body | {"ids": [form["id"]]} | ({"again": True} if form.get("again") else {})
    return body | {"filter": _chosen(form)}


def _chosen(form: dict[str, str]) -> dict[str, str]:
    return {name: form[name] for name in _FILTERS if form.get(name)}


async def _load(desk: Desk, call: Call, wanted: dict[str, str], cursor: list[tuple[str, str]]) -> dict[str, Any]:
    bounds = [(n, v) for n, v in wanted.items() if n == "until"]
    asked = [*wanted.items(), ("limit", _LIMIT), *cursor]
    # Both read the topic: one does not wait for the other.
    groups, listed = await asyncio.gather(
        desk.read(native, dead_letters.summary, call._replace(query=bounds)),
        desk.read(native, dead_letters.listed, call._replace(query=asked)),
    )
    more = listed["next_cursor"]
    return {
        "groups": [group | {"href": _narrowed(group, bounds)} for group in groups["groups"]],
        "scanned": groups["scanned"], "truncated": groups["truncated"], "letters": listed["dead_letters"],
        "total": listed["total"], "count": sum(group["count"] for group in groups["groups"]),
        "more": with_query(PATH, [*wanted.items(), ("cursor", more)]) if more else "",
    }  # fmt: skip


def _narrowed(group: dict[str, Any], bounds: list[tuple[str, str]]) -> str:
    return with_query(PATH, [*((n, group[n]) for n in ("reason", "topic", "fingerprint")), *bounds])


def dump(value_base64: str | None) -> list[tuple[str, str, str]]:
    """Lines of offset, bytes in base 16, and the ASCII among them; the first bytes of a value only."""
    try:
        value = base64.b64decode(value_base64 or "")[:_HEX_BYTES]
    except (binascii.Error, ValueError):
        return []
    lines = [value[at : at + _HEX_LINE] for at in range(0, len(value), _HEX_LINE)]
    return [
        (f"{n * _HEX_LINE:06x}", line.hex(" "), "".join(chr(b) if 32 <= b < 127 else "·" for b in line))
        for n, line in enumerate(lines)
    ]
