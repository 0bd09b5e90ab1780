"""Numbers, senders and countries: `schemas.numbers`."""

import random
from collections.abc import Iterator

import phonenumbers
import pytest
from hypothesis import given
from hypothesis import strategies as st
from phonenumbers import COUNTRY_CODE_TO_REGION_CODE, PhoneMetadata

from schemas.numbers import country, is_number, is_sender

DIGITS = "0123456789"
TYPES = (
    "fixed_line", "mobile", "toll_free", "premium_rate", "shared_cost", "personal_number", "voip", "pager",
    "uan", "voicemail",
)  # fmt: skip
SHARED_CODES = [code for code, regions in COUNTRY_CODE_TO_REGION_CODE.items() if len(regions) > 1]


def ask_library(number: str) -> str:
    """The library's own answer, with its None, its refusals and `001` as the empty string."""
    try:
        region = phonenumbers.region_code_for_number(phonenumbers.parse(number))
    except phonenumbers.NumberParseException:
        return ""
    return "" if region in (None, "001") else region


def examples(code: int) -> list[str]:
    """The metadata's example numbers of a calling code: every region, every type."""
    regions = (PhoneMetadata.metadata_for_region_or_calling_code(code, r) for r in COUNTRY_CODE_TO_REGION_CODE[code])
    descs = (getattr(metadata, name) for metadata in regions for name in TYPES)
    return [f"+{code}{desc.example_number}" for desc in descs if desc is not None and desc.example_number]


def numbers_near(code: int, count: int, rng: random.Random) -> Iterator[str]:
    """Examples as they are and with digits changed, added, dropped; and any digits after the calling code."""
    known = examples(code)
    for number in known:
        digits = list(number)
        yield number
        for _ in range(count):
            digits[rng.randrange(2, len(digits))] = rng.choice(DIGITS)
            yield "".join(digits)
        yield number + rng.choice(DIGITS)
        yield number[:-1]
    for _ in range(count):
        national_prefix = rng.choice(["", "", "0", "8", "1", "180020", "1831"])
        yield f"+{code}{national_prefix}" + "".join(rng.choices(DIGITS, k=rng.randint(4, 12)))


@pytest.mark.parametrize("seed", range(2))
def test_country_equals_the_library_for_every_calling_code(seed: int) -> None:
    """In and out of the valid ranges of all calling codes, the country is libphonenumber's region."""
    rng = random.Random(seed)
    for code in COUNTRY_CODE_TO_REGION_CODE:
        for number in numbers_near(code, 40 if code in SHARED_CODES else 4, rng):
            if is_number(number):
                assert country(number) == ask_library(number), number


@given(st.from_regex(r"\+[1-9][0-9]{6,14}", fullmatch=True))
def test_country_equals_the_library_for_any_e164(number: str) -> None:
    """Also where no calling code begins like that."""
    assert country(number) == ask_library(number)


@pytest.mark.parametrize("length", range(7, 16))
@pytest.mark.parametrize("code", SHARED_CODES)
def test_country_equals_the_library_at_every_length(code: int, length: int) -> None:
    """Numbers of a shared calling code too short or too long for its plan included."""
    rng = random.Random(code * 100 + length)
    for _ in range(30):
        number = f"+{code}" + "".join(rng.choices(DIGITS, k=length - len(str(code))))
        assert country(number) == ask_library(number), number


@pytest.mark.parametrize(
    ("number", "region"),
    [
        ("+12125550100", "US"),
        ("+16135550123", "CA"),
        ("+18765551234", "JM"),
        ("+18005550100", "US"),
        ("+442079460018", "GB"),
        ("+447624123456", "IM"),
        ("+78121234567", "RU"),
        ("+77011234567", "KZ"),
        ("+390612345678", "IT"),
        ("+390669812345", "VA"),
        ("+61891621234", "CC"),
        ("+61891641234", "CX"),
        ("+358181234567", "AX"),
        ("+4915112345678", "DE"),
        ("+4900000", "DE"),
        ("+870773111632", ""),
        ("+80012345678", ""),
        ("+99912345678", ""),
        ("+11111111111", ""),
        ("12125550100", ""),
        ("22000", ""),
        ("ACME", ""),
        ("", ""),
    ],
)
def test_known_countries(number: str, region: str) -> None:
    """A few numbers whose country is known by hand; none for a short code, a name, a number of no country."""
    assert country(number) == region


@given(
    st.text(max_size=20)
    | st.text(DIGITS + "+ -a²٣\n", max_size=20)
    | st.builds("+{}{}".format, st.sampled_from(sorted(COUNTRY_CODE_TO_REGION_CODE)), st.text(max_size=12))
)
def test_country_only_of_e164(text: str) -> None:
    """Whatever is no E.164 number has no country, however much it begins like one."""
    if not (is_number(text) and text.startswith("+")):
        assert country(text) == ""


@pytest.mark.parametrize(
    "text",
    ["+1234567", "+123456789012345", "+4915112345678", "123", "12345678", "000"],
)
def test_numbers(text: str) -> None:
    """E.164 has 7 to 15 digits after the `+`, a short code 3 to 8 digits; both may send."""
    assert is_number(text)
    assert is_sender(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "+", "12", "123456789", "+123456", "+1234567890123456", "+0123456789", "0049151123456",
        "++4915112345", "+49 151 1234567", " 12345", "12345\n", "+4915112345678\n", "+٤٩١٥١١٢٣٤٥٦٧٨",
        "１２３４５", "12²45", "+49151x123456",
    ],
)  # fmt: skip
def test_no_numbers(text: str) -> None:
    """Nothing is trimmed, and only ASCII digits are digits."""
    assert not is_number(text)


@pytest.mark.parametrize(
    "sender",
    [
        "A", "ACME", "ACME 24", "My-Shop.com", "Ñ", "Δ", "ß1", "{a}", "[x]~|^\\", "€uro", "a@b", "+49ACME",
        "x" * 11,
    ],
)  # fmt: skip
def test_senders(sender: str) -> None:
    """1 to 11 printable GSM 7-bit characters, any letter of the alphabet among them; each counts one."""
    assert is_sender(sender)
    assert not is_number(sender)


@pytest.mark.parametrize(
    "text",
    [
        "", "x" * 12, "12", "123456789", "€", "+-*/", "ACME`", "Façade", "Ж", "Α", "中", "a\n", "a\r", "a\f",
        "a\x1b", "a\t", "a\x00", "a\u00a0b", "a’b", "😀a",
    ],
)  # fmt: skip
def test_no_senders(text: str) -> None:
    """Too long, without a letter, with a character that GSM 7-bit lacks or that does not print."""
    assert not is_sender(text)


@given(st.text(max_size=14))
def test_sender_rule(text: str) -> None:
    """A sender is a number or a short printable GSM 7-bit text with a letter, and nothing else."""
    printable = (
        "@£$¥èéùìòÇØøÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿"
        "abcdefghijklmnopqrstuvwxyzäöñüà^{}\\[~]|€"
    )
    named = 1 <= len(text) <= 11 and all(c in printable for c in text) and any(c.isalpha() for c in text)
    assert is_sender(text) == (named or is_number(text))
