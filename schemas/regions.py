r"""Which of several patterns a number matches first, digit by digit: an automaton that is worked out as it is walked.

A state is a list of ten: where each next digit leads. `None` there was not asked for yet; what is no list is an
outcome. The compiled decoder walks the same lists (native/decode.c) and comes back to Python for a `None`. The patterns
are those of libphonenumber: digits, `\d`, classes, groups, `|`, `?`, `{n}` and `{n,m}`.
"""

import re
from collections import deque
from typing import Any, Final, NamedTuple

# What only the library can tell.
ASK: Final = ...
Outcome = Any  # a region, "" or ASK

_TOKEN: Final = re.compile(r"\\d|\[[0-9-]+\]|\(\?:|[()|?]|\{\d+(?:,\d+)?\}|\d")
_ALL: Final = "0123456789"
# ("digit", digits), ("or", sequences) or ("repeat", sequence, least, most); a sequence is a tuple of them.
Sequence = tuple[Any, ...]
Pattern = frozenset[Sequence]
NOTHING: Final[Pattern] = frozenset()


def parse(pattern: str) -> Pattern:
    """A pattern as what may come next: any of some sequences."""
    tokens = deque(_TOKEN.findall(pattern))
    if "".join(tokens) != pattern:
        raise ValueError(f"a pattern of numbers that is not understood: {pattern}")
    return frozenset(_options(tokens))


def _options(tokens: "deque[str]") -> tuple[Sequence, ...]:
    options: list[Sequence] = []
    nodes: list[Any] = []
    while tokens and tokens[0] != ")":
        token = tokens.popleft()
        if token == "|":
            options.append(tuple(nodes))
            nodes = []
        elif token[0] == "(":
            nodes.append(("or", _options(tokens)))
            tokens.popleft()
        elif token[0] in "?{":
            least, _, most = ("0,1" if token == "?" else token[1:-1]).partition(",")
            nodes[-1] = ("repeat", (nodes[-1],), int(least), int(most or least))
        else:
            nodes.append(("digit", _digits(token)))
    return (*options, tuple(nodes))


def _digits(token: str) -> str:
    if token == r"\d":
        return _ALL
    spans = re.findall(r"(\d)-(\d)|(\d)", token)
    return "".join(one or _ALL[int(first) : int(last) + 1] for first, last, one in spans)


def _after(sequence: Sequence, digit: str) -> Pattern:
    """What may come after a digit (Antimirov's partial derivatives)."""
    if not sequence:
        return NOTHING
    (kind, what, *times), rest = sequence[0], sequence[1:]
    if kind == "digit":
        return frozenset((rest,)) if digit in what else NOTHING
    if kind == "or":
        return frozenset().union(*(_after((*option, *rest), digit) for option in what))
    least, most = times
    more = (("repeat", what, max(least - 1, 0), most - 1),) if most > 1 else ()
    skipped = _after(rest, digit) if least == 0 else NOTHING
    return _after((*what, *more, *rest), digit) | skipped


def _may_end(sequence: Sequence) -> bool:
    return all(
        any(map(_may_end, node[1])) if node[0] == "or" else node[0] == "repeat" and node[2] == 0 for node in sequence
    )


class Way(NamedTuple):
    """A number that matches all of `patterns` has this outcome; `begins`: it is enough that it begins so."""

    outcome: Outcome
    begins: bool
    patterns: tuple[Pattern, ...]

    def after(self, digit: str) -> "Way":
        """What is left of it after a digit."""
        if self.is_matched(left=1):
            return self
        left = (frozenset().union(*(_after(s, digit) for s in pattern)) for pattern in self.patterns)
        return self._replace(patterns=tuple(left))

    def is_matched(self, left: int) -> bool:
        """Whether what was read so far decides for it, with so many digits to come."""
        return (self.begins or left == 0) and all(any(map(_may_end, pattern)) for pattern in self.patterns)


class State(list[Any]):
    """Where the next digit leads; `left` digits are to come."""

    def __init__(self, ways: tuple[Way, ...], left: int, known: dict[Any, Any]) -> None:
        super().__init__([None] * 10)
        self._ways, self._left, self._known = ways, left, known

    def step(self, digit: str) -> Any:
        """The state or outcome after a digit, from now on in this list."""
        ways = (way.after(digit) for way in self._ways)
        self[int(digit)] = there = enter(tuple(w for w in ways if all(w.patterns)), self._left - 1, self._known)
        return there


def walk(there: Any, digits: str) -> Any:
    """The state or outcome after some digits."""
    for digit in digits:
        if not isinstance(there, State):
            break
        known = there[int(digit)]
        there = there.step(digit) if known is None else known
    return there


def enter(ways: tuple[Way, ...], left: int, known: dict[Any, Any]) -> Any:
    """The state or outcome where these ways are open and so many digits to come; the first that matches decides."""
    if (ways, left) not in known:
        known[ways, left] = _decided(ways, left, known)
    return known[ways, left]


def _decided(ways: tuple[Way, ...], left: int, known: dict[Any, Any]) -> Any:
    if ways and ways[0].is_matched(left):
        return ways[0].outcome
    if left:
        return State(ways, left, known) if ways else ""
    return next((way.outcome for way in ways if way.is_matched(0)), "")
