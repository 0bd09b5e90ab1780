"""Encoding and segment count of a message body: 3GPP TS 23.038 (alphabets) and TS 23.040 (concatenation)."""

import re
from codecs import utf_16_le_encode
from typing import Final

# TS 23.038 6.2.1 in code order; 0x1B, the escape to the extension table, is not a character.
DEFAULT_ALPHABET: Final = (
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
# TS 23.038 6.2.1.1: each costs two septets, the escape and its code.
EXTENSION_TABLE: Final = "\f^{}\\[~]|€"

SEPTETS_SINGLE_MAX: Final = 160
SEPTETS_PART_MAX: Final = 153
UNITS_SINGLE_MAX: Final = 70
UNITS_PART_MAX: Final = 67

_ESCAPE: Final = "\x1b"
# One translate() and isascii() is the fastest way to ask "only these bytes?" of a short string.
_MARK_OTHERS: Final = bytes(0 if chr(b) in DEFAULT_ALPHABET and b < 128 else 128 for b in range(256))
_ALL_BUT_EXTENSION: Final = bytes(b for b in range(256) if chr(b) not in EXTENSION_TABLE)
_default_run: Final = re.compile(f"[{re.escape(DEFAULT_ALPHABET)}]*").match
_is_gsm7: Final = re.compile(f"[{re.escape(DEFAULT_ALPHABET + EXTENSION_TABLE)}]*").fullmatch
_escape_extension: Final = re.compile(f"[{re.escape(EXTENSION_TABLE)}]").sub


def measure(body: str, stated: str, message_type: str) -> tuple[str, int]:
    """The encoding (`gsm7` or `ucs2`) and the number of segments, 1 or more without an upper bound.

    `stated` is the encoding the producer names, "" for none: it is followed, and a character that GSM 7-bit
    lacks then counts one septet. Only an `sms` is cut into segments; `mms` and `whatsapp` are one.
    """
    plain = body.isascii() and body.encode().translate(_MARK_OTHERS).isascii()
    if not plain:
        run = _default_run(body)
        end = run.end() if run else 0
        plain = end == len(body)
    encoding = stated or ("gsm7" if plain or _is_gsm7(body, end) else "ucs2")
    if message_type != "sms":
        return encoding, 1
    if encoding == "ucs2":
        return encoding, _unit_segments(body)
    if plain:
        return encoding, 1 if len(body) <= SEPTETS_SINGLE_MAX else -(-len(body) // SEPTETS_PART_MAX)
    return encoding, _septet_segments(body)


def _septet_segments(body: str) -> int:
    if len(body) <= SEPTETS_SINGLE_MAX // 2:
        return 1
    ascii_extended = len(body.encode("utf-8", "surrogatepass").translate(None, _ALL_BUT_EXTENSION))
    septets = len(body) + ascii_extended + body.count("€")
    if septets <= SEPTETS_SINGLE_MAX:
        return 1
    return _least_if_certain(septets, SEPTETS_PART_MAX) or _cut_septets(body)


def _unit_segments(body: str) -> int:
    if len(body) <= UNITS_SINGLE_MAX // 2:
        return 1
    units = utf_16_le_encode(body, "surrogatepass")[0]
    count = len(units) // 2
    if count <= UNITS_SINGLE_MAX:
        return 1
    if count == len(body):
        return -(-count // UNITS_PART_MAX)
    return _least_if_certain(count, UNITS_PART_MAX) or _cut_units(units)


def _least_if_certain(size: int, part_max: int) -> int:
    """The segments of `size` if all could be full, 0 when a unit lost at each cut could take one more."""
    least = -(-size // part_max)
    return least if size <= least * (part_max - 1) + 1 else 0


def _cut_septets(body: str) -> int:
    # An escape character in the body is one the alphabet lacks: a septet of its own, not half a pair.
    septets = _escape_extension(_ESCAPE + "x", body.replace(_ESCAPE, "x"))
    segments, end = 1, SEPTETS_PART_MAX
    while end < len(septets):
        # An escape as the last septet moves to the next segment with its other half.
        end += SEPTETS_PART_MAX - (septets[end - 1] == _ESCAPE)
        segments += 1
    return segments


def _cut_units(units: bytes) -> int:
    segments, end = 1, 2 * UNITS_PART_MAX
    while end < len(units):
        # A low surrogate as the first unit of the next segment: its other half moves there too.
        end += 2 * UNITS_PART_MAX - 2 * (units[end + 1] & 0xFC == 0xDC)
        segments += 1
    return segments
