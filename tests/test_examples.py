"""The golden examples in `schemas/examples`, one event value a file: what its name says must happen to it."""

import json
import time
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.events import REASONS, TOPICS, Rejected
from tests.entries import decoded

pytestmark = pytest.mark.usefixtures("way")
EXAMPLES: Final = Path(__file__).parent.parent / "schemas" / "examples"
FILES: Final = sorted(p for p in EXAMPLES.rglob("*") if p.suffix in (".json", ".bin"))
GOOD: Final = [p for p in FILES if p.name.startswith("good-")]
BAD: Final = [p for p in FILES if p.name.startswith("bad-")]
WITH_FIELD: Final = ("missing_field", "invalid_field", "time_in_future")
ABSENT: Final[tuple[Any, ...]] = (None, "", [], {})
CLOCK_MS: Final = 1_790_000_000_000  # 2026-09-21, after every example that is not time_in_future


def file_id(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def key_of(value: bytes) -> bytes:
    """The entry's key: the UTF-8 `message_id`, nothing where there is none."""
    try:
        message_id = json.loads(value)["message_id"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return b""
    return message_id.encode() if isinstance(message_id, str) else b""


def decode_as(topic: str, value: bytes) -> Any:
    return decoded(topic, key_of(value), value, CLOCK_MS)


def required_only(topic: str, extra: bytes = b"") -> bytes:
    """The smallest good value of a topic, with `extra` members at its end."""
    value = (EXAMPLES / topic / "good-required-only.json").read_bytes().strip()
    return value[:-1] + b", " + extra + b"}" if extra else value


@pytest.mark.parametrize("path", GOOD, ids=file_id)
def test_good_examples_are_accepted(path: Path) -> None:
    """An example called good is an event whose fields hold what the file says, a state aside."""
    value = path.read_bytes()
    event = decode_as(path.parent.name, value)
    assert not isinstance(event, Rejected), event
    stated = json.loads(value)
    for field in msgspec.structs.fields(event):
        content = stated.get(field.encode_name)
        if content not in ABSENT and field.name != "state":
            expected = tuple(content) if isinstance(content, list) else content
            assert getattr(event, field.name) == expected, field.name


@pytest.mark.parametrize("path", BAD, ids=file_id)
def test_bad_examples_are_refused(path: Path) -> None:
    """An example called bad is refused for the reason in its name; the detail starts with the field in it."""
    _, reason, *rest = path.stem.split("-")
    rejected = decode_as(path.parent.name, path.read_bytes())
    assert isinstance(rejected, Rejected)
    assert rejected.reason == reason
    if reason in WITH_FIELD:
        assert rejected.detail.startswith(rest[0] + ":")


@pytest.mark.parametrize("path", [p for p in BAD if p.stem.split("-")[1] not in WITH_FIELD], ids=file_id)
@pytest.mark.parametrize("topic", TOPICS)
def test_bad_bytes_are_bad_in_every_topic(topic: str, path: Path) -> None:
    """What is wrong before there are fields is wrong whatever the topic, and for the same reason."""
    assert decode_as(topic, path.read_bytes()).reason == path.stem.split("-")[1]


def test_every_reason_a_value_can_show_has_examples() -> None:
    """Each topic has a bad example for each reason that one value can show, and for each field it has."""
    shown = set(REASONS) - {"too_large", "key_mismatch", "conflict", "too_many_events", "unstorable"}
    for topic in TOPICS:
        bad = [p.stem.split("-") for p in BAD if p.parent.name == topic]
        assert {words[1] for words in bad} == shown
        wire = {f.encode_name for f in msgspec.structs.fields(type(decode_as(topic, required_only(topic))))}
        assert {words[2] for words in bad if words[1] == "invalid_field"} == {w for w in wire if w[0] != "~"}


@pytest.mark.parametrize(
    ("name", "encoding", "segments", "country"),
    [
        ("required-only", "gsm7", 1, "GB"),
        ("optional-null", "gsm7", 1, "GB"),
        ("no-country", "gsm7", 1, ""),
        ("country-stated", "gsm7", 1, "JE"),
        ("message_type-mms", "gsm7", 1, "GB"),
        ("message_type-whatsapp", "ucs2", 1, "GB"),
        ("encoding-stated-ucs2", "ucs2", 1, "GB"),
        ("encoding-stated-gsm7-lacks-a-character", "gsm7", 1, "GB"),
        ("segments-stated", "gsm7", 3, "GB"),
        ("body-160-septets", "gsm7", 1, "GB"),
        ("body-161-septets", "gsm7", 2, "GB"),
        ("body-escape-pair-at-153", "gsm7", 3, "GB"),
        ("body-gsm7-accents", "gsm7", 1, "GB"),
        ("body-ucs2-cedilla", "ucs2", 1, "GB"),
        ("body-70-units", "ucs2", 1, "GB"),
        ("body-71-units", "ucs2", 2, "GB"),
        ("body-emoji-at-67", "ucs2", 3, "GB"),
    ],
)
def test_what_a_send_leaves_out_is_worked_out(name: str, encoding: str, segments: int, country: str) -> None:
    """Encoding and segments come from the body, the country from the far end's number, unless stated."""
    event = decode_as("sends", (EXAMPLES / "sends" / f"good-{name}.json").read_bytes())
    assert (event.encoding, event.segments, event.country) == (encoding, segments, country)


def test_the_far_end_of_a_receive_is_its_sender() -> None:
    """An inbound message's country is that of `from`; a name and a short code have none."""
    countries = {
        name: decode_as("receives", (EXAMPLES / "receives" / f"good-{name}.json").read_bytes()).country
        for name in ("required-only", "from-alphanumeric", "from-short-code")
    }
    assert countries == {"required-only": "GB", "from-alphanumeric": "", "from-short-code": ""}


@pytest.mark.parametrize(
    ("name", "occurred_ms"),
    [
        ("required-only", 1_769_850_904_250),
        ("occurred_at-offset", 1_769_852_704_000),
        ("occurred_at-offset-negative", 1_769_863_504_000),
        ("occurred_at-lower-case", 1_769_850_904_000),
        ("occurred_at-nanoseconds-are-cut", 1_769_850_904_999),
        ("occurred_at-leap-day", 1_709_251_199_999),
        ("occurred_at-first", 946_684_800_000),
    ],
)
def test_instants_are_utc_milliseconds(name: str, occurred_ms: int) -> None:
    """`occurred_at` becomes UTC, cut to the millisecond."""
    event = decode_as("sends", (EXAMPLES / "sends" / f"good-{name}.json").read_bytes())
    assert event.occurred_ms == occurred_ms


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (
            "sent",
            [
                "sent",
                "smpp-SCHEDULED",
                "smpp-0",
                "smpp-ENROUTE",
                "smpp-1",
                "smpp-ACCEPTD",
                "smpp-ACCEPTED",
                "smpp-6",
            ],
        ),
        ("delivered", ["delivered", "smpp-DELIVRD", "smpp-2", "any-case"]),
        ("expired", ["expired", "smpp-EXPIRED", "smpp-3"]),
        (
            "undelivered",
            ["undelivered", "smpp-DELETED", "smpp-4", "smpp-UNDELIV", "smpp-UNDELIVERABLE", "smpp-5"],
        ),
        ("failed", ["failed", "smpp-UNKNOWN", "smpp-7", "smpp-SKIPPED", "smpp-9"]),
        ("rejected", ["rejected", "smpp-REJECTD", "smpp-8"]),
        ("queued", ["queued"]),
    ],
)
def test_states_are_ours_or_smpp(state: str, words: list[str]) -> None:
    """A receipt's state is one of ours after decoding, whichever word for it the producer used."""
    for word in words:
        value = (EXAMPLES / "receipts" / f"good-state-{word}.json").read_bytes()
        assert decode_as("receipts", value).state == state, word


@pytest.mark.parametrize("topic", TOPICS)
def test_no_value_is_an_empty_value(topic: str) -> None:
    """A tombstone is refused like an empty value."""
    assert decoded(topic, b"msg", None, CLOCK_MS).reason == "empty_value"  # type: ignore[union-attr]


@pytest.mark.parametrize("topic", TOPICS)
def test_values_up_to_a_mebibyte(topic: str) -> None:
    """A value of 1 MiB is read, one byte more is too large, whatever the bytes are."""
    value = required_only(topic, b'"x": ""')
    full = value[:-2] + b"a" * ((1 << 20) - len(value)) + value[-2:]
    assert not isinstance(decode_as(topic, full), Rejected)
    assert decode_as(topic, full + b" ").reason == "too_large"
    assert decode_as(topic, b"\xff" * ((1 << 20) + 1)).reason == "too_large"


@pytest.mark.parametrize("topic", ["sends", "receives"])
def test_bodies_up_to_64_kibibytes(topic: str) -> None:
    """A body may have 64 KiB in UTF-8, not a byte more; other strings have 8 KiB."""
    size = 64 << 10
    value = required_only(topic, b'"segments": 1, "body": "' + b"x" * size + b'"')
    assert not isinstance(decode_as(topic, value), Rejected)
    value = required_only(topic, b'"segments": 1, "body": "' + b"x" * (size - 2) + "€".encode() + b'"')
    assert decode_as(topic, value).reason == "invalid_field"
    assert decode_as(topic, value).detail.startswith("body:")


@pytest.mark.parametrize("topic", ["sends", "receives"])
@pytest.mark.parametrize(
    ("character", "length", "reason"),
    [
        ("a", 255 * 153, ""),
        ("a", 255 * 153 + 1, "segments"),
        ("Ж", 255 * 67, ""),
        ("Ж", 255 * 67 + 1, "segments"),
    ],
)
def test_bodies_up_to_255_segments(topic: str, character: str, length: int, reason: str) -> None:
    """A body that takes more than 255 segments is refused by the name of the field it would need."""
    decoded = decode_as(topic, required_only(topic, b'"body": "' + (character * length).encode() + b'"'))
    if reason:
        assert decoded.reason == "invalid_field"
        assert decoded.detail.startswith(f"{reason}:")
    else:
        assert decoded.segments == 255


@pytest.mark.parametrize("topic", TOPICS)
@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":'])
def test_bottomless_nesting(topic: str, opening: bytes) -> None:
    """100,000 levels are refused like 65, closed or not."""
    assert decode_as(topic, required_only(topic, b'"x": ' + opening * 100_000)).reason == "invalid_json"
    assert decode_as(topic, opening * 100_000).reason == "invalid_json"
    assert decode_as(topic, b"[" * 100_000 + b"]" * 100_000).reason == "invalid_json"


def test_refusing_takes_no_time() -> None:
    """Deep nesting and an endless string of escapes: read once, not once from every quote."""
    value = b"[" * 65 + b'"' + b'\\"' * 20_000
    began = time.thread_time()
    assert decode_as("sends", value).reason == "invalid_json"
    assert time.thread_time() - began < 2, "of this thread's own time, whatever else the machine does"


@pytest.mark.parametrize("topic", TOPICS)
@pytest.mark.parametrize("key", [None, b"", b"msg", b"MSG-7B21", b"\xff", b"x" * (1 << 20)])
def test_the_key_is_the_message_id(topic: str, key: bytes | None) -> None:
    """A good value under another key than its `message_id` is a key mismatch."""
    rejected = decoded(topic, key, required_only(topic), CLOCK_MS)
    assert isinstance(rejected, Rejected)
    assert rejected.reason == "key_mismatch"
    assert rejected.detail.startswith("message_id:")


@pytest.mark.parametrize("topic", TOPICS)
def test_the_first_reason_counts(topic: str) -> None:
    """Fields before the key, the key before the time."""
    future = required_only(topic, b'"occurred_at": "3000-01-01T00:00:00Z"')
    bad_too = required_only(topic, b'"occurred_at": "3000-01-01T00:00:00Z", "rate": 1, "mcc": 1, "provider": 1')
    assert decoded(topic, b"other", future, CLOCK_MS).reason == "key_mismatch"  # type: ignore[union-attr]
    assert decoded(topic, b"other", bad_too, CLOCK_MS).reason == "invalid_field"  # type: ignore[union-attr]


@pytest.mark.parametrize("topic", TOPICS)
def test_ten_minutes_ahead(topic: str) -> None:
    """Ten minutes ahead of the clock is a clock that is off, a millisecond more is the future."""
    value = required_only(topic)
    ahead_ms = decode_as(topic, value).occurred_ms - 600_000
    assert not isinstance(decoded(topic, key_of(value), value, ahead_ms), Rejected)
    assert decoded(topic, key_of(value), value, ahead_ms - 1).reason == "time_in_future"  # type: ignore[union-attr]


@given(
    st.sampled_from([p for p in FILES if p.stat().st_size < 2000]),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 1), st.binary(max_size=3)), min_size=1, max_size=4),
)
def test_whatever_the_bytes_there_is_an_answer(path: Path, edits: list[tuple[int, int, bytes]]) -> None:
    """An example with bytes changed is an event or refused for a known reason, never an error."""
    value = path.read_bytes()
    for place, dropped, added in edits:
        value = value[:place] + added + value[place + dropped :]
    decoded = decode_as(path.parent.name, value)
    assert not isinstance(decoded, Rejected) or decoded.reason in REASONS
