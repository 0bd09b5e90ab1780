"""The one rule for cells that a spreadsheet would take for a formula: a quote before them. Pure.

A number that was validated as E.164 begins with `+` and is none. Reports apply the rule in SQL, `mdr query --csv` here.
"""

import re
from typing import Final

NUMBERS: Final = frozenset({"from_number", "to_number"})
_RISKY: Final = r"[=+\-@\t\r\n\x00]"
_NUMBER: Final = r"\+[1-9][0-9]{6,14}"
_STARTS: Final = re.compile(_RISKY)
_IS_NUMBER: Final = re.compile(_NUMBER)


def safe(column: str, text: str) -> str:
    """Return a cell of a column as a file shows it."""
    if not _STARTS.match(text) or (column in NUMBERS and _IS_NUMBER.fullmatch(text)):
        return text
    return f"'{text}"


def safe_sql(column: str) -> str:
    """Return the expression that gives the same of a column of text.

    A function of one argument is decided once for each distinct value of a column with few of them.
    """
    name = f"`{column}`"
    quoted = f"replaceRegexpOne({name}, '{_escaped(f'^({_RISKY})')}', '\\'\\\\1')"
    if column not in NUMBERS:
        return quoted
    return f"if(match({name}, '{_escaped(f'^{_NUMBER}$')}'), {name}, {quoted})"


def _escaped(pattern: str) -> str:
    return pattern.replace("\\", "\\\\")
