"""Encoding and segments: `schemas.text`."""

import pytest
import smsutil
from hypothesis import given
from hypothesis import strategies as st

from schemas.text import measure

# TS 23.038, table 1 of 6.2.1, a row of the code's low four bits at a time; the blank is the escape.
TABLE_ROWS = (
    "@Δ 0¡P¿p", "£_!1AQaq", "$Φ\"2BRbr", "¥Γ#3CScs", "èΛ¤4DTdt", "éΩ%5EUeu", "ùΠ&6FVfv", "ìΨ'7GWgw",
    "òΣ(8HXhx", "ÇΘ)9IYiy", "\nΞ*:JZjz", "Ø +;KÄkä", "øÆ,<LÖlö", "\ræ-=MÑmñ", "Åß.>NÜnü", "åÉ/?O§oà",
)  # fmt: skip
EXTENDED = "\f^{}\\[~]|€"
DEFAULT = "".join(TABLE_ROWS)


def naive(body: str, stated: str, message_type: str) -> tuple[str, int]:
    """One character at a time into the first segment with room: the rule in its plainest form."""
    gsm7 = all(c in DEFAULT or c in EXTENDED for c in body)
    encoding = stated or ("gsm7" if gsm7 else "ucs2")
    if message_type != "sms":
        return encoding, 1
    if encoding == "gsm7":
        single, part, costs = 160, 153, [2 if c in EXTENDED else 1 for c in body]
    else:
        single, part, costs = 70, 67, [2 if ord(c) > 0xFFFF else 1 for c in body]
    if sum(costs) <= single:
        return encoding, 1
    segments, used = 1, 0
    for cost in costs:
        if used + cost > part:
            segments, used = segments + 1, 0
        used += cost
    return encoding, segments


def near(limit: int, alphabet: str) -> st.SearchStrategy[str]:
    """Bodies of one filler with a few others strewn in, of a length about a multiple of `limit`."""
    lengths = st.builds(lambda parts, off: max(0, parts * limit + off), st.integers(0, 4), st.integers(-8, 8))
    strewn = st.lists(st.tuples(st.integers(0, 4 * limit), st.sampled_from(alphabet)), max_size=12)

    def build(filler: str, length: int, others: list[tuple[int, str]]) -> str:
        characters = [filler] * length
        for place, other in others:
            if place < length:
                characters[place] = other
        return "".join(characters)

    return st.builds(build, st.sampled_from(alphabet), lengths, strewn)


BODIES = st.one_of(
    st.text(max_size=400),
    st.text(st.sampled_from(DEFAULT + EXTENDED), max_size=700),
    near(153, "aé[€\n"),
    near(160, "aé[€"),
    near(67, "aЖ中😀"),
    near(70, "Ж😀"),
    near(76, "[a"),
)


@given(BODIES, st.sampled_from(["", "gsm7", "ucs2"]), st.sampled_from(["sms", "mms", "whatsapp"]))
def test_agrees_with_the_naive_model(body: str, stated: str, message_type: str) -> None:
    """Every body, stated encoding and type gives what filling segments one character at a time gives."""
    assert measure(body, stated, message_type) == naive(body, stated, message_type)


@given(BODIES.filter(lambda body: body != "" and "\x1b" not in body))
def test_agrees_with_smsutil(body: str) -> None:
    """smsutil agrees, but for no body (it says UCS-2) and the escape (it takes it for a GSM character)."""
    split = smsutil.split(body)
    encoding = "gsm7" if split.encoding == "gsm0338" else "ucs2"
    assert measure(body, "", "sms") == (encoding, len(split.parts))


@pytest.mark.parametrize("length", [0, 1, 34, 35, 36, 80, 81, 153, 160, 161, 306, 307, 39_015, 39_016])
def test_plain_ascii_is_arithmetic(length: int) -> None:
    """A septet a character: 160 in one segment, 153 in each of several, and no upper bound."""
    assert measure("a" * length, "", "sms") == ("gsm7", 1 if length <= 160 else -(-length // 153))


@pytest.mark.parametrize(
    ("body", "encoding", "segments"),
    [
        ("", "gsm7", 1),
        ("a" * 160, "gsm7", 1),
        ("a" * 161, "gsm7", 2),
        ("a" * 306, "gsm7", 2),
        ("a" * 307, "gsm7", 3),
        ("€" * 80, "gsm7", 1),
        ("€" * 81, "gsm7", 2),
        ("€" * 152, "gsm7", 2),
        ("€" * 153, "gsm7", 3),  # 76 pairs a segment: the 153rd septet stays empty
        ("a" * 158 + "€", "gsm7", 1),
        ("a" * 159 + "€", "gsm7", 2),
        ("a" * 152 + "[" + "a" * 152, "gsm7", 3),  # the pair leaves the 153rd septet of the first segment
        ("a" * 151 + "[" + "a" * 153, "gsm7", 2),  # the same size, the pair ends the segment
        ("a" * 304 + "~", "gsm7", 2),
        ("a" * 305 + "~", "gsm7", 3),
        ("\f", "gsm7", 1),
        ("\f" * 81, "gsm7", 2),
        ("ΔΦΓΛΩΠΨΣΘΞ" * 16, "gsm7", 1),
        ("Α" * 70, "ucs2", 1),  # Greek capital alpha is not the Latin letter
        ("Ç" * 160, "gsm7", 1),
        ("ç" * 70, "ucs2", 1),
        ("ç" + "a" * 70, "ucs2", 2),
        ("`", "ucs2", 1),
        ("`" + "a" * 70, "ucs2", 2),
        ("\u00a0" + "a" * 70, "ucs2", 2),
        ("\t" + "a" * 70, "ucs2", 2),
        ("\x1b" + "a" * 70, "ucs2", 2),
        ("\x00" + "a" * 70, "ucs2", 2),
        ("’" + "a" * 69, "ucs2", 1),
        ("Ж" * 70, "ucs2", 1),
        ("Ж" * 71, "ucs2", 2),
        ("Ж" * 134, "ucs2", 2),
        ("Ж" * 135, "ucs2", 3),
        ("😀" * 35, "ucs2", 1),
        ("😀" * 36, "ucs2", 2),
        ("😀" * 66, "ucs2", 2),
        ("😀" * 67, "ucs2", 3),  # 33 pairs a segment: the 67th unit stays empty
        ("Ж" * 66 + "😀" + "Ж" * 66, "ucs2", 3),
        ("Ж" * 65 + "😀" + "Ж" * 67, "ucs2", 2),
        ("👨‍👩‍👧‍👦" * 6, "ucs2", 1),  # a family is four pairs and three joiners
        ("👨‍👩‍👧‍👦" * 7, "ucs2", 2),
    ],
)
def test_known_edges(body: str, encoding: str, segments: int) -> None:
    """The edges a producer would try by hand."""
    assert measure(body, "", "sms") == (encoding, segments)


@pytest.mark.parametrize(
    ("body", "stated", "segments"),
    [
        ("", "ucs2", 1),
        ("a" * 71, "ucs2", 2),
        ("[" * 70, "ucs2", 1),
        ("Ж" * 160, "gsm7", 1),
        ("Ж" * 161, "gsm7", 2),
        ("😀" * 160, "gsm7", 1),
        ("Ж" * 158 + "€", "gsm7", 1),
        ("Ж" * 159 + "€", "gsm7", 2),
        ("\x1b" * 160, "gsm7", 1),
        ("a" * 152 + "\x1b" + "[" + "a" * 151, "gsm7", 2),
        ("’" * 160, "gsm7", 1),
    ],
)
def test_a_stated_encoding_is_followed(body: str, stated: str, segments: int) -> None:
    """What the producer states decides; a character GSM 7-bit lacks is one septet."""
    assert measure(body, stated, "sms") == (stated, segments)


@pytest.mark.parametrize("message_type", ["mms", "whatsapp"])
def test_only_sms_is_cut(message_type: str) -> None:
    """An MMS and a WhatsApp message are one segment however long, in the encoding their body needs."""
    assert measure("a" * 2000, "", message_type) == ("gsm7", 1)
    assert measure("Ж" * 2000, "", message_type) == ("ucs2", 1)
    assert measure("a" * 2000, "ucs2", message_type) == ("ucs2", 1)
