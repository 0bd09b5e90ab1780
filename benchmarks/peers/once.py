"""The rules of a peer that settles a message once, as `java/common/.../Join.java` has them too. Pure.

The first final receipt in the log settles, or the window; what comes later changes nothing. What is held of a message
is a dict that can be JSON; each function returns what is held now, the very same when nothing changed, and a row.
"""

from typing import Any, Final

from benchmarks.peers import rows
from benchmarks.peers.rows import Row
from schemas.states import FINAL_RANK, RANK, parse_state
from schemas.times import parse_rfc3339

Held = dict[str, Any]
WINDOW_MS: Final = 4 * 3_600_000
_TELLING: Final = frozenset({"mcc", "mnc", "provider", "rate", "carrier_fee"})


def send(held: Held, event: Row, written_ms: int) -> tuple[Held, Row | None]:
    """Takes a send; a copy, or another send of the same message, changes nothing."""
    if "send" in held or "settled" in held:
        return held, None
    due_ms = max(parse_rfc3339(event["occurred_at"]) or 0, written_ms) + WINDOW_MS
    held = held | {"send": event, "due": due_ms}
    final = held.pop("final", None)
    return _settle(held, final) if final and held["written"] < due_ms else (held, None)


def receipt(held: Held, event: Row, written_ms: int) -> tuple[Held, Row | None]:
    """Takes a receipt, which may be read before its send."""
    if "settled" in held or "final" in held or written_ms >= held.get("due", written_ms + 1):
        return held, None
    state = parse_state(event["state"]) or ""
    if RANK[state] >= FINAL_RANK:
        return _settle(held, event) if "send" in held else (held | {"final": event, "written": written_ms}, None)
    return (_pass(held, event) if state == "sent" else held), None


def expire(held: Held) -> Row:
    """The row of a send whose window has passed."""
    return rows.outbound(held["send"], held.get("sent"), held.get("teller"), None)


def _settle(held: Held, final: Row) -> tuple[Held, Row]:
    return {"settled": True}, rows.outbound(held["send"], held.get("sent"), held.get("teller"), final)


def _pass(held: Held, event: Row) -> Held:
    at_ms, heard = parse_rfc3339(event["occurred_at"]) or 0, held.get("heard", [])
    if [at_ms, event["event_id"]] in heard:  # a copy: what the first one said counts
        return held
    is_first = not heard or at_ms < held["sent"]
    tells = not _TELLING.isdisjoint(event) and (is_first or "teller" not in held)
    held = held | {"heard": [*heard, [at_ms, event["event_id"]]]}
    return held | ({"sent": at_ms} if is_first else {}) | ({"teller": event} if tells else {})
