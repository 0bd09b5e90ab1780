"""Phone numbers, senders, and the country of a number as libphonenumber sees it.

libphonenumber takes 17 us a number, and traffic hardly repeats numbers. To every number of a calling code
with one region it gives that region, so a table of prefixes does too. For a calling code that regions share,
its metadata becomes one regular expression a length, whose last group names the region. A number that starts
with a national prefix may be changed by the library before it looks: it is left to the library.
"""

import re
from collections.abc import Callable, Iterator
from functools import cache, lru_cache
from typing import Final

import phonenumbers
from phonenumbers import COUNTRY_CODE_TO_REGION_CODE, REGION_CODE_FOR_NON_GEO_ENTITY, PhoneMetadata
from phonenumbers.phonemetadata import PhoneNumberDesc

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
    prefix = number[:4]
    region = _REGIONS.get(prefix)
    if region is not None:
        return region if number.isascii() and number[1:].isdigit() else ""
    calling_code = _SHARED_CODES.get(prefix)
    if calling_code is None:
        return ""
    match = _decision(calling_code, len(number))(number)
    if match is None:
        return ""
    return match.lastgroup or _ask(number)


def _prefixes(shared: bool) -> Iterator[tuple[str, int]]:
    """The calling codes that regions share, or do not, by the first four characters of their numbers."""
    for code, regions in COUNTRY_CODE_TO_REGION_CODE.items():
        if (len(regions) > 1) == shared and regions[0] != REGION_CODE_FOR_NON_GEO_ENTITY:
            width = 10 ** (3 - len(str(code)))
            yield from ((f"+{n}", code) for n in range(code * width, (code + 1) * width))


_REGIONS: Final = {prefix: COUNTRY_CODE_TO_REGION_CODE[code][0] for prefix, code in _prefixes(shared=False)}
_SHARED_CODES: Final = dict(_prefixes(shared=True))
# The same by three digits as a number.
SINGLE_REGIONS: Final = {int(prefix[1:]): region for prefix, region in _REGIONS.items()}


@lru_cache(maxsize=10_000)
def _ask(number: str) -> str:
    try:
        return phonenumbers.region_code_for_number(phonenumbers.parse(number)) or ""
    except phonenumbers.NumberParseException:
        return ""


@cache
def _decision(code: int, chars: int) -> Callable[[str], re.Match[str] | None]:
    """Matches the E.164 numbers of a shared calling code that have a region, given their length with the `+`.

    `lastgroup` names the region; it is None where the library has to be asked.
    """
    regions = COUNTRY_CODE_TO_REGION_CODE[code]
    digits = chars - 1 - len(str(code))
    ways = [_prefix_way(_metadata(regions[0]), digits), *(_region_way(r, digits) for r in regions)]
    either = "|".join(filter(None, ways)) or "(?!)"
    return re.compile(rf"\+{code}(?=[0-9]{{{digits}}}\Z)(?:{either})").match


def _prefix_way(main: PhoneMetadata, digits: int) -> str:
    """Matches what may lose a national prefix; "" if too little would remain, then the library keeps it."""
    prefix = main.national_prefix_for_parsing
    shortens = main.national_prefix_transform_rule is None
    too_short = main.general_desc is not None and digits <= main.general_desc.possible_length[0]
    return f"(?:{prefix})()" if prefix and not (shortens and too_short) else ""


def _region_way(region: str, digits: int) -> str:
    """Matches what the library finds in a region: its leading digits or, without those, any number type."""
    metadata = _metadata(region)
    if metadata.leading_digits is not None:
        return f"(?:{metadata.leading_digits})(?P<{region}>)"
    general = _pattern(metadata.general_desc, digits)
    patterns = "|".join(filter(None, (_pattern(desc, digits) for desc in _types(metadata))))
    return rf"(?={general}\Z)(?:{patterns})\Z(?P<{region}>)" if general and patterns else ""


def _types(m: PhoneMetadata) -> Iterator[PhoneNumberDesc | None]:
    # The commonest first; the order cannot change the answer.
    yield m.fixed_line
    if not m.same_mobile_and_fixed_line_pattern:
        yield m.mobile
    yield from (m.toll_free, m.voip, m.personal_number, m.shared_cost, m.premium_rate)
    yield from (m.uan, m.pager, m.voicemail)


def _pattern(desc: PhoneNumberDesc | None, digits: int) -> str:
    """A type's pattern; "" if it has none for that many digits."""
    if desc is None or not desc.national_number_pattern:
        return ""
    if desc.possible_length and digits not in desc.possible_length:
        return ""
    return f"(?:{desc.national_number_pattern})"


def _metadata(region: str) -> PhoneMetadata:
    metadata = PhoneMetadata.metadata_for_region(region)
    if metadata is None:
        raise LookupError(f"libphonenumber has no metadata for {region}")
    return metadata
