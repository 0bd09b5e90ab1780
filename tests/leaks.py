"""What must never stand in a log: the numbers and bodies of what was produced."""

import json
import re
from collections.abc import Iterable


def secrets_of(values: Iterable[bytes | None]) -> set[str]:
    """Every number and body in event values, in all the ways it may be written."""
    found: set[str] = set()
    for value in values:
        try:
            fields = json.loads(value or b"")
        except (ValueError, RecursionError):
            continue
        if isinstance(fields, dict):
            texts = [fields.get(name) for name in ("from", "to", "external_number", "billing_number", "body")]
            found |= {text for text in texts if isinstance(text, str)}
    numbers = {text.lstrip("+") for text in found if re.fullmatch(r"\+?[0-9]{9,15}", text)}
    bodies = {json.dumps(text)[1:-1] for text in found if len(text) > 8} | {text for text in found if len(text) > 8}
    return numbers | bodies
