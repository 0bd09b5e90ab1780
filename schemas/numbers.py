"""Phone numbers, senders, and the country of a number as libphonenumber sees it.

libphonenumber takes 17 us a number, and traffic hardly repeats numbers. To every number of a calling code
with one region it gives that region, so a table of prefixes does too. For a calling code that regions share,
its metadata becomes one automaton a length (`regions.py`). A number that starts with a national prefix may be
changed by the library before it looks: it is left to the library.
"""

import re
from collections.abc import Iterator
from functools import cache, lru_cache
from typing import Any, Final

import phonenumbers
from phonenumbers import COUNTRY_CODE_TO_REGION_CODE, REGION_CODE_FOR_NON_GEO_ENTITY, PhoneMetadata
from phonenumbers.phonemetadata import PhoneNumberDesc

from schemas.regions import ASK, NOTHING, Pattern, Way, enter, parse, walk
from schemas.text import DEFAULT_ALPHABET, EXTENSION_TABLE

SENDER_CHARS_MAX: Final = 11
E164_CHARS_MIN: Final = 8
E164_CHARS_MAX: Final = 16

_PRINTABLE: Final = "".join(c for c in DEFAULT_ALPHABET + EXTENSION_TABLE if c not in "\r\n\f")
_LETTERS: Final = "".join(filter(str.isalpha, _PRINTABLE))
# Patterns that mean the same to Python and to ECMA-262, which JSON Schema refers to.
NUMBER_PATTERN: Final = r"(?:\+[1-9][0-9]{6,14}|[0-9]{3,8})"
_CHOICE: Final = re.sub(r"([\\\]\[^-])", r"\\\1", _PRINTABLE)
NAME_PATTERN: Final = f"(?=.*[{_LETTERS}])[{_CHOICE}]{{1,{SENDER_CHARS_MAX}}}"

_is_number: Final = re.compile(NUMBER_PATTERN).fullmatch
_is_name: Final = re.compile(NAME_PATTERN).fullmatch


def is_number(s: str) -> bool:
    """Whether `s` is an E.164 number (`+`, 7 to 15 digits, not 0 first) or a short code (3 to 8 digits)."""
    return _is_number(s) is not None


def is_sender(s: str) -> bool:
    """Whether `s` may send: a number, or 1 to 11 printable GSM 7-bit characters with at least one letter.

    Printable: all but CR, LF and form feed. Letters: accented and Greek ones too. Every character counts one.
    """
    return _is_number(s) is not None or _is_name(s) is not None


def country(number: str) -> str:
    """libphonenumber's region (ISO 3166-1 alpha-2) of an E.164 number.

    "" when there is none or it is no country (`001`), and for whatever is not E.164.
    """
    if not E164_CHARS_MIN <= len(number) <= E164_CHARS_MAX:
        return ""
    if number[0] != "+" or not (number.isascii() and number[1:].isdigit()):
        return ""
    found = REGIONS.get(int(number[1:4]), "")
    if isinstance(found, str):
        return found
    there = found[len(number)]
    there = walk(_start(number, found) if there is None else there, number[4:])
    return _ask(number) if there is ASK else str(there)


def _prefixes(shared: bool) -> Iterator[tuple[int, int]]:
    """The calling codes that regions share, or do not, by the first three digits of their numbers."""
    for code, regions in COUNTRY_CODE_TO_REGION_CODE.items():
        if (len(regions) > 1) == shared and regions[0] != REGION_CODE_FOR_NON_GEO_ENTITY:
            width = 10 ** (3 - len(str(code)))
            yield from ((n, code) for n in range(code * width, (code + 1) * width))


_SHARED_CODES: Final = dict(_prefixes(shared=True))
# By the first three digits: the region, or where the calling code is shared a state for each count of characters.
REGIONS: Final[dict[int, Any]] = {n: COUNTRY_CODE_TO_REGION_CODE[code][0] for n, code in _prefixes(shared=False)}
REGIONS.update((n, [None] * (E164_CHARS_MAX + 1)) for n in _SHARED_CODES)


@lru_cache(maxsize=10_000)
def _ask(number: str) -> str:
    try:
        return phonenumbers.region_code_for_number(phonenumbers.parse(number)) or ""
    except phonenumbers.NumberParseException:
        return ""


def _start(number: str, states: list[Any]) -> Any:
    """Where a number whose calling code is shared stands after its first three digits."""
    code = _SHARED_CODES[int(number[1:4])]
    begin = 1 + len(str(code))
    states[len(number)] = there = walk(_root(code, len(number) - begin), number[begin:4])
    return there


@cache
def _root(code: int, digits: int) -> Any:
    """Where every number of a shared calling code starts, given how many digits come after the code."""
    regions = COUNTRY_CODE_TO_REGION_CODE[code]
    ways = [*_prefix_way(_metadata(regions[0]), digits), *(way for r in regions for way in _region_way(r, digits))]
    return enter(tuple(ways), digits, {})


def _prefix_way(main: PhoneMetadata, digits: int) -> Iterator[Way]:
    """Matches what may lose a national prefix; none if too little would remain, then the library keeps it."""
    prefix = main.national_prefix_for_parsing
    shortens = main.national_prefix_transform_rule is None
    too_short = main.general_desc is not None and digits <= main.general_desc.possible_length[0]
    if prefix and not (shortens and too_short):
        yield Way(ASK, True, (parse(prefix),))


def _region_way(region: str, digits: int) -> Iterator[Way]:
    """Matches what the library finds in a region: its leading digits or, without those, any number type."""
    metadata = _metadata(region)
    if metadata.leading_digits is not None:
        yield Way(region, True, (parse(metadata.leading_digits),))
        return
    general = _pattern(metadata.general_desc, digits)
    types = NOTHING.union(*(_pattern(desc, digits) for desc in _types(metadata)))
    if general and types:
        yield Way(region, False, (general, types))


def _types(m: PhoneMetadata) -> Iterator[PhoneNumberDesc | None]:
    yield m.fixed_line
    if not m.same_mobile_and_fixed_line_pattern:
        yield m.mobile
    yield from (m.toll_free, m.voip, m.personal_number, m.shared_cost, m.premium_rate)
    yield from (m.uan, m.pager, m.voicemail)


def _pattern(desc: PhoneNumberDesc | None, digits: int) -> Pattern:
    """A type's pattern; nothing if it has none for that many digits."""
    if desc is None or not desc.national_number_pattern:
        return NOTHING
    if desc.possible_length and digits not in desc.possible_length:
        return NOTHING
    return parse(desc.national_number_pattern)


def _metadata(region: str) -> PhoneMetadata:
    metadata = PhoneMetadata.metadata_for_region(region)
    if metadata is None:
        raise LookupError(f"libphonenumber has no metadata for {region}")
    return metadata
