"""A selection of records as something to paste elsewhere: SQL, a request, a command. Pure."""

import re
import shlex
from collections.abc import Iterable, Sequence
from typing import Any, Final

from api.http import with_query
from api.where import ATTRIBUTES, Binder, Condition, Range, Scope, condition_sql, range_sql, scope_sql
from schemas.times import format_rfc3339

_INSTANT: Final = re.compile(r"fromUnixTimestamp64Milli\(\{(p\d+):Int64\}, 'UTC'\)")
_PLACE: Final = re.compile(r"\{(p\d+):[^}]+\}")
_ESCAPES: Final = str.maketrans({"\\": "\\\\", "'": "\\'", "\n": "\\n", "\r": "\\r", "\t": "\\t"})


def as_sql(scope: Scope, span: Range, where: Condition, pending: bool, limit: int) -> str:
    """A statement over the views `mdr` or `messages` that gives the newest rows of a selection."""
    b = Binder()
    parts = [] if scope.accounts is None else [scope_sql(scope, b)]
    parts += [range_sql(span, b)]
    chosen = condition_sql(where, b)
    parts += [chosen] if chosen != "1" else []
    text = (
        f"SELECT * FROM mdr.{'messages' if pending else 'mdr'}\nWHERE {' AND '.join(parts)}\n"  # noqa: S608  # shown, never run
        f"ORDER BY occurred_at DESC, message_id DESC, direction DESC\nLIMIT {limit}"
    )
    text = _INSTANT.sub(lambda m: _instant(b.values[m[1]]), text)
    return _PLACE.sub(lambda m: literal(b.values[m[1]]), text).replace("\nWHERE 1 AND ", "\nWHERE ")


def message_sql(account_id: str, message_id: str) -> str:
    """A statement that gives one message."""
    where = f"account_id = {literal(account_id)} AND message_id = {literal(message_id)}"
    return f"SELECT * FROM mdr.messages\nWHERE {where}"  # noqa: S608  # shown, never run


def literal(value: Any) -> str:
    """A value as ClickHouse reads it in a statement."""
    if isinstance(value, str):
        return f"'{value.translate(_ESCAPES)}'"
    if isinstance(value, Sequence):
        return f"[{', '.join(map(literal, value))}]"
    return str(int(value))


def _instant(ms: int) -> str:
    return f"toDateTime64('{format_rfc3339(ms)[:-1].replace('T', ' ')}', 3, 'UTC')"


def as_curl(base_url: str, path: str, pairs: Iterable[tuple[str, str]]) -> str:
    """A request for curl; the credential is left to the shell's variables."""
    return f'curl -u "$MDR_KEY:$MDR_SECRET" {shlex.quote(with_query(base_url + path, pairs))}'


def as_command(pairs: Iterable[tuple[str, str]]) -> str:
    """The same question for `mdr query`."""
    parts = ["mdr query"]
    for name, value in pairs:
        if name == "include":
            parts.append("--include-pending")
        elif name.startswith(ATTRIBUTES):
            parts.append(f"--attribute {shlex.quote(name.removeprefix(ATTRIBUTES) + '=' + value)}")
        else:
            parts.append(f"--{name.replace('_', '-')} {shlex.quote(value)}")
    return " ".join(parts)
