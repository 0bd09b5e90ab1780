"""The oracle's formats: JSON, RFC 3339, GSM 7 bit, countries. Plain, and sharing no code with the product."""

from __future__ import annotations

import json
import re
from datetime import date

import phonenumbers

YEAR_2000_MS = 946_684_800_000


class Refused(Exception):
    """The entry is a dead letter; the only argument is the reason."""


def require(condition: object) -> None:
    if not condition:
        raise Refused("invalid_field")


# ---- JSON: RFC 8259 to the letter ----


class OddNumber:
    """A number with a fraction, an exponent or more digits than any field takes: legal JSON, no integer."""


def read_json(text: str) -> object:
    if deepest(text) > 64:
        raise Refused("invalid_json")
    try:
        value = json.loads(
            text,
            object_pairs_hook=whole_pairs,
            parse_constant=refuse_constant,
            parse_float=lambda _: OddNumber(),
            parse_int=lambda digits: int(digits) if len(digits) < 20 else OddNumber(),
        )
        whole(value)
    except ValueError:
        raise Refused("invalid_json") from None
    return value


def deepest(text: str) -> int:
    """The deepest nesting of arrays and objects; the outermost one counts 1."""
    depth = most = 0
    for bracket in re.findall(r"[][{}]", re.sub(r'"(?:[^"\\]|\\.)*+"', "", text, flags=re.DOTALL)):
        depth += 1 if bracket in "[{" else -1
        most = max(most, depth)
    return most


def refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def whole_pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Also looks into the values that a later duplicate key replaces."""
    for name, value in pairs:
        whole(name)
        whole(value)
    return dict(pairs)


def whole(value: object) -> None:
    """Refuses lone surrogates; objects were looked into when they were built."""
    for item in value if isinstance(value, list) else []:
        whole(item)
    if isinstance(value, str):
        value.encode("utf-8")  # UnicodeEncodeError is a ValueError


# ---- time ----

RFC_3339 = (
    "([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})"
    r"(?:\.([0-9]+))?(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))"
)


def moment_ms(words: str) -> int:
    """RFC 3339 with an offset to ms since the epoch, cut."""
    match = re.fullmatch(RFC_3339, words)
    if not match:
        raise Refused("invalid_field")
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    fraction, sign, offset_hours, offset_minutes = match.groups()[6:]
    ahead = int(offset_hours or 0), int(offset_minutes or 0)
    require(hour < 24 and minute < 60 and second < 60 and ahead[0] < 24 and ahead[1] < 60)
    east_minutes = (ahead[0] * 60 + ahead[1]) * (-1 if sign == "-" else 1)
    minutes = (days_of(year, month, day) * 24 + hour) * 60 + minute - east_minutes
    since_ms = (minutes * 60 + second) * 1000 + int(((fraction or "") + "000")[:3])
    require(since_ms >= YEAR_2000_MS)
    return since_ms


def days_of(year: int, month: int, day: int) -> int:
    """Days since the epoch."""
    try:
        return date(year, month, day).toordinal() - date(1970, 1, 1).toordinal()
    except ValueError:
        raise Refused("invalid_field") from None


# ---- numbers, encoding, parts: E.164, 3GPP TS 23.038 section 6.2.1, TS 23.040 ----

BASIC = (
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
EXTENDED = "\f^{}\\[~]|€"


def country_of(far_end: str) -> str:
    if not far_end.startswith("+"):
        return ""
    try:
        region = phonenumbers.region_code_for_number(phonenumbers.parse(far_end))
    except phonenumbers.NumberParseException:
        return ""
    return region if region and region != "001" else ""


def encoding_of(words: str) -> str:
    return "gsm7" if all(char in BASIC + EXTENDED for char in words) else "ucs2"


def parts_of(words: str, encoding: str) -> int:
    """Parts of an SMS; what a character costs is never split over two parts."""
    if encoding == "gsm7":
        costs, alone, joined = [2 if char in EXTENDED else 1 for char in words], 160, 153
    else:
        costs, alone, joined = [2 if ord(char) > 0xFFFF else 1 for char in words], 70, 67
    if sum(costs) <= alone:
        return 1
    parts, room = 1, joined
    for cost in costs:
        if cost > room:
            parts, room = parts + 1, joined
        room -= cost
    return parts
