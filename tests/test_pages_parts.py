"""The pure parts of the pages: words, charts, masks, copies, seals (`api.pages`)."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api import story
from api.pages import charts, copies, flow, letters, mask, message, records, words
from api.where import EVERYTHING, Every, Is, Range, Scope
from schemas.times import format_rfc3339

HOUR: int = 3_600_000
NOW: int = 1_767_600_000_000


@pytest.mark.parametrize(
    ("ms", "said"),
    [(None, "–"), (0, "0 ms"), (999, "999 ms"), (2_400, "2.4 s"), (60_000, "1 min"), (200_000, "3 min 20 s"),
     (14_520_000, "4 h 2 min"), (183_600_000, "2 d 3 h"), (86_400_000, "1 d"), (-1_500, "-1.5 s")],
)  # fmt: skip
def test_a_duration_is_said_in_its_two_largest_units(ms: float | None, said: str) -> None:
    """Milliseconds as people say them."""
    assert words.duration(ms) == said


@pytest.mark.parametrize(
    ("part", "of", "said"),
    [(0, 5, "0 %"), (5, 5, "100 %"), (1, 3, "33.3 %"), (1, 5_000, "< 0.1 %"), (4_999, 5_000, "> 99.9 %"),
     (None, 5, "–"), (0, 0, "–")],
)  # fmt: skip
def test_a_share_is_never_rounded_to_all_or_nothing(part: float | None, of: float, said: str) -> None:
    """All and none are said only when they are exactly so."""
    assert words.share(part, of) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("the store is away", "The store is away."),
        ("mdr.sends stands", "mdr.sends stands."),
        ("Why?", "Why?"),
        ("", ""),
    ],
)
def test_a_reason_becomes_a_sentence(text: str, said: str) -> None:
    """A word is capitalised, a name is not."""
    assert words.sentence(text) == said


def test_what_is_not_known_is_a_dash() -> None:
    """Neither 1970 nor nothing is shown as a time."""
    for at in (None, "", "1970-01-01T00:00:00.000Z"):
        assert {words.clock(at), words.day_clock(at), words.exact(at), words.ago(at, NOW)} == {words.UNKNOWN}
    assert words.ago(format_rfc3339(NOW - 61_500), NOW) == "1 min 1 s ago"
    assert (words.rate(None), words.whole(None), words.compact(12_345)) == ("–", "–", "12.3k")


@given(st.integers(1_000, 400 * 86_400_000), st.integers(0, 10**12), st.data())
def test_stacks_fill_the_range_and_no_more(span: int, start: int, data: st.DataObject) -> None:
    """Slots cover the range without gap or overlap, bars lie in the box, their heights are the counts."""
    step = charts.step_ms(span)
    series = ("a", "b")
    buckets = range(start // step * step, start + span, step)
    counts = {at: {"a": data.draw(st.integers(0, 9)), "b": at % 7} for at in buckets}
    chart = charts.stacks(counts, series, start, start + span, step)
    assert len(chart.slots) == len(buckets) <= 127
    edges = [0.0, *(slot.x + slot.width for slot in chart.slots)]
    assert [slot.x for slot in chart.slots] == pytest.approx(edges[:-1], abs=1e-6) and edges[-1] == pytest.approx(100)
    assert all(0 <= b.x <= 100 and b.y >= -1e-9 and b.y + b.height <= 100 + 1e-9 for b in chart.bars)
    total = sum(sum(parts.values()) for parts in counts.values())
    top = charts.round_up(max(sum(parts.values()) for parts in counts.values()))
    assert sum(b.height for b in chart.bars) * top / 100 == pytest.approx(total)


@given(st.lists(st.tuples(st.integers(0, HOUR), st.none() | st.floats(0, 1e9)), max_size=400))
def test_a_line_keeps_its_peaks(points: list[tuple[int, float | None]]) -> None:
    """However many points there are, few are drawn, and the highest is among them."""
    line = charts.line(sorted(points, key=lambda p: p[0]), 0, HOUR, str)
    assert len(line.slots) <= 121
    known = [v for _, v in points if v is not None]
    if known and max(known) > 1:
        lowest_y = min(float(p.split(",")[1]) for p in line.points.split())
        assert (100 - lowest_y) / 100 * line.top == pytest.approx(max(known), rel=0.06)


def test_a_life_is_told_from_left_to_right() -> None:
    """Later events lie further right, the last at the end, labels that would touch on other levels."""
    at = [0, 3, 40, 5_000, 5_100, 90_000_000]
    scale = charts.life_scale(at[-1])
    placed = [charts.life_at(ms, scale) for ms in at]
    assert placed == sorted(placed) and placed[0] == 0 and placed[-1] == pytest.approx(100)
    timeline = [{"event_id": str(n), "state": s, "occurred_at": format_rfc3339(NOW + ms), "segment": 0}
                for n, (ms, s) in enumerate(zip(at, ("queued", "sent", "sent", "delivered", "delivered", "failed"), strict=True))]  # fmt: skip
    record = {"timeline": timeline, "state": "delivered", "settled_at": format_rfc3339(0), "amended_at": None}
    marks = message.axis(record, story.events_of(record))["marks"]
    assert [m["label"] for m in marks] == ["queued", "sent", "sent", "delivered", "failed"]
    assert [len(m["also"]) for m in marks] == [0, 0, 0, 1, 0]
    assert [event["won"] for event in story.events_of(record)] == [False, False, False, True, False, False]


@given(st.text(max_size=40))
def test_a_mask_keeps_little(text: str) -> None:
    """Of a number its ends stay, of a short one its first character; of a body its length."""
    masked = mask.number(text)
    assert len(masked) == len(text)
    assert sum(a == b for a, b in zip(masked, text, strict=True)) <= 5 + text.count("•")
    assert mask.hidden(text) == (f"••• {len(text)} characters" if text else "")


def test_a_masked_record_tells_nobody() -> None:
    """Whatever identifies people or was written by them is masked; who may see it sees the row as it is."""
    row: dict[str, Any] = dict.fromkeys((*mask.NUMBERS, *mask.TEXTS), "+14155550100 secret")
    row |= {name: ["+14155550100 secret"] for name in mask.LISTS} | {"attributes": {"k": "secret"}, "state": "sent"}
    assert "secret" not in str(mask.record(row, may_see=False)) and "5550" not in str(mask.record(row, may_see=False))
    assert mask.record(row, may_see=True) == row


def test_sql_names_the_selection_and_the_accounts() -> None:
    """Instants are readable, values are quoted, the tenancy of the caller is part of it."""
    where = Every((Is("body", "in", ["it's \\ {p0:String}\n"]), Is("segments", "in", [2, 3])))
    sql = copies.as_sql(Scope(("acme",)), Range(NOW, NOW + 1), where, pending=True, limit=7)
    assert sql == (
        "SELECT * FROM mdr.messages\nWHERE account_id = 'acme'"
        " AND occurred_at >= toDateTime64('2026-01-05 08:00:00.000', 3, 'UTC')"
        " AND occurred_at < toDateTime64('2026-01-05 08:00:00.001', 3, 'UTC')"
        " AND (`body` IN ['it\\'s \\\\ {p0:String}\\n']) AND (`segments` IN [2, 3])\n"
        "ORDER BY occurred_at DESC, message_id DESC, direction DESC\nLIMIT 7"
    )
    assert "account_id" not in copies.as_sql(Scope(None), Range(0, 1), EVERYTHING, pending=False, limit=1)


def test_commands_survive_the_shell() -> None:
    """What is copied for a shell is one word a value, and holds no secret."""
    pairs = [("state", "a'b $HOME"), ("include", "pending"), ("attributes.k", "v w")]
    assert shlex.split(copies.as_command(pairs)) == [
        "mdr", "query", "--state", "a'b $HOME", "--include-pending", "--attribute", "k=v w",
    ]  # fmt: skip
    curl = shlex.split(copies.as_curl("http://127.0.0.1:8080", "/mdr/records", pairs))
    assert curl[:3] == ["curl", "-u", "$MDR_KEY:$MDR_SECRET"] and curl[3].startswith(
        "http://127.0.0.1:8080/mdr/records?"
    )


def test_a_lane_tells_the_worst_of_its_partitions() -> None:
    """Events add up, seconds and status are the worst; what nobody knows stays unknown."""
    rows = [
        {"topic": "mdr.sends", "agent": "sends", "owner": "w", "end": 5, "lag_events": n, "lag_seconds": s,
         "trend_events_per_second": None, "status": status, "why": status, "watermark": None}
        for n, s, status in ((1, 2.0, "ok"), (4, None, "stalled"), (0, 0.0, "ok"))
    ]  # fmt: skip
    told = flow.lane("sends", {"agents": rows})
    assert (told["lag_events"], told["lag_seconds"], told["status"], told["why"]) == (5, 2.0, "stalled", "stalled")
    assert told["trend"] is None and told["rate"] is None and flow.lane("receipts", {})["status"] == "unknown"
    assert [r["status"] for r in flow.ordered(rows, "lag")] == ["stalled", "ok", "ok"]


def test_bytes_are_readable() -> None:
    """A dump has offsets, base 16 and ASCII; other characters are a dot."""
    assert letters.dump("AEFC/w==") == [("000000", "00 41 42 ff", "·AB·")]
    assert letters.dump(None) == [] and letters.dump("*") == []


def test_a_range_follows_the_clock_unless_it_is_bound() -> None:
    """Without bounds the last 24 hours are meant; a local time of a form is UTC."""
    assert records.asked([], NOW).span == Range(NOW - 24 * HOUR, NOW)
    assert records.asked([("range", "1h")], NOW).span == Range(NOW - HOUR, NOW)
    given = [("start", "2026-01-05T07:00"), ("end", "2026-01-05T07:59:59.5")]
    assert records.asked(given, NOW).span == Range(NOW - HOUR, NOW - 500)


def test_an_axis_has_round_steps() -> None:
    """Between zero and the top lie numbers that people count in."""
    labels = {top: [tick.label for tick in charts.value_ticks(top)] for top in (1, 8, 100, 25_000)}
    assert labels[1] == ["1", "0"] and labels[8] == ["8", "6", "4", "2", "0"]
    assert labels[100] == ["100", "75", "50", "25", "0"]
    assert labels[25_000] == ["25k", "20k", "15k", "10k", "5,000", "0"]
