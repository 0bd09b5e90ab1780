"""`mdr check`: a whole store is clean, and each kind of damage to it is told by its name."""

# ruff: noqa: S608  # every statement is made of our own table names

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

from streams import check, checking
from streams.check import Buried, Facts, Ids, LogPart, Seen
from streams.settings import Settings, load
from streams.simulate import Plan
from streams.store import Store
from streams.tables import Checkpoint
from tests.api_support import START_MS, fill

NOW_MS: Final = START_MS + 5 * 3_600_000
TABLES: Final = ("mdrs", "open_messages", "orphan_log", "checkpoints")
_ZERO: Final = dict.fromkeys(Checkpoint._fields, 0)


# ---- the comparison alone --------------------------------------------------------------------------------------


def _mark(**changes: int) -> Checkpoint:
    """A partition that read 100 of each topic: 290 merged (280 in tables as they are, 10 refused later), and so on."""
    told = {"sends_offset": 100, "receives_offset": 100, "receipts_offset": 100, "events": 300, "merged": 285}
    return Checkpoint(**(_ZERO | told | {"duplicates": 5, "dead_letters": 10, "open": 3, "orphaned": 2} | changes))


def _seen(mark: Checkpoint | None = None, **changes: Any) -> Seen:
    facts = {
        ("sends", 0): Facts(records=92, open=3, last=99),
        ("receives", 0): Facts(records=98, last=99),
        ("receipts", 0): Facts(records=87, waiting=2, orphans=2, last=98),
    }
    log = {(topic, 0): LogPart(0, 100, 100) for topic in ("sends", "receives", "receipts")}
    none = Ids()
    whole = Seen(
        {0: mark or _mark()}, facts, {0: 2}, {0: 3}, log, {0: Buried(10, 1)}, True, True, none, none, none, none, ()
    )
    return whole._replace(**changes)


def _kinds(seen: Seen) -> list[str]:
    return sorted(finding.kind for finding in check.judge(seen).findings)


def test_what_adds_up_is_fine() -> None:
    """Events read are records, open, waiting, orphans, duplicates and dead letters; the difference is nothing."""
    verdict = check.judge(_seen())
    assert (verdict.findings, verdict.notes) == ([], [])
    assert (verdict.rows[0].read, verdict.rows[0].difference) == (300, 0)


_LOG: Final = {(topic, 0): LogPart(0, 100, 100) for topic in ("sends", "receives", "receipts")}


@pytest.mark.parametrize(
    ("seen", "kinds"),
    [
        (_seen(_mark(events=301)), ["counts"]),
        (_seen(_mark(duplicates=4)), ["counts"]),
        (_seen(_mark(events=299, merged=284), log=_LOG | {("sends", 0): LogPart(0, 100, 100, 0)} | {
            (t, 0): LogPart(0, 100, 100, 0) for t in ("receives", "receipts")}), ["passed_over"]),
        (_seen(facts={("sends", 0): Facts(records=279, open=3)}), ["lost"]),
        (_seen(_mark(events=270, merged=255)), ["too_many"]),
        (_seen(open_now={0: 2}), ["open"]),
        (_seen(buried={0: Buried(11, 1)}), ["dead_letters"]),
        (_seen(buried={0: Buried(9, 1)}), ["dead_letters"]),
        (_seen(log=_LOG | {("sends", 0): LogPart(0, 100, 101)}), ["committed_ahead"]),
        (_seen(log=_LOG | {("sends", 0): LogPart(0, 90, 90)}), ["beyond_the_log"]),
        (_seen(facts={("sends", 0): Facts(records=281, open=3, doubled=2)}), ["doubled"]),
        (_seen(many_records=Ids(1, ("m",))), ["many_records"]),
        (_seen(open_with_record=Ids(1, ("m",))), ["open_with_record"]),
        (_seen(orphans_lost=Ids(1, ("m",))), ["orphans_lost"]),
    ],
)  # fmt: skip
def test_each_fault_has_a_name(seen: Seen, kinds: list[str]) -> None:
    """Whatever single number is wrong, exactly that is told."""
    assert _kinds(seen) == kinds


def _part(begin: int, skipped: int | None = None) -> LogPart:
    return LogPart(begin, 100, 100, skipped)


@pytest.mark.parametrize(
    ("receives", "kinds"),
    [(_part(100), ["passed_over"]), (_part(0, 0), ["passed_over"]), (_part(99), []), (None, [])],
    ids=["nothing there", "looked at", "not looked at", "no such topic"],
)
def test_an_empty_partition_makes_the_check_blind_for_nothing(receives: LogPart | None, kinds: list[str]) -> None:
    """What holds no entry needs no look; what was not looked at may hold what is missing."""
    log = {("sends", 0): _part(0, 0), ("receipts", 0): _part(0, 0)}
    log |= {} if receives is None else {("receives", 0): receives}
    events = 299 - (receives.begin if receives else 0)
    facts = {("sends", 0): Facts(records=events - 15, last=99)}
    seen = _seen(_mark(events=events, merged=events - 15, open=0), log=log, facts=facts, open_now={})
    assert _kinds(seen) == kinds


def test_the_log_is_looked_at_as_far_as_it_is_bounded() -> None:
    """The smallest partitions first; one that is too large leaves the others seen."""
    log = {(topic, n): LogPart(0, 100 + 900 * n, 0) for n in (0, 1) for topic in ("sends", "receives", "receipts")}
    large = _mark(sends_offset=1_000, shard=1)
    seen = _seen(checkpoints={0: _mark(events=299), 1: large}, log=log)
    assert {shard for _, shard, _, _ in check.needs_log(seen, 10_000)} == {0, 1}
    assert {shard for _, shard, _, _ in check.needs_log(seen, 300)} == {0}
    assert check.needs_log(seen, 299) == []


@pytest.mark.parametrize(
    ("seen", "note"),
    [
        (_seen(_mark(events=299, merged=284), log=None, buried=None, buried_whole=False), "the broker was not asked"),
        (_seen(buried={0: Buried(3, 1)}, buried_whole=False), "not every dead letter is on its topic"),
        (_seen(facts={("sends", 0): Facts(records=10)}, records_whole=False), "older than the records are kept"),
        (_seen(_mark(events=310, duplicates=15)), "10 events were counted again"),
        (_seen(_mark(events=260, merged=245), facts={("sends", 0): Facts(records=245)},
               log=_LOG | {("sends", 0): LogPart(40, 100, 100)}), "40 log entries were removed by retention"),
        (_seen(_mark(events=290, merged=275), facts={("sends", 0): Facts(records=275)},
               log={(t, 0): LogPart(0, 100, 100, n) for t, n in (("sends", 10), ("receives", 0), ("receipts", 0))}),
         "10 offsets hold no entry"),
        (_seen(_mark(events=290, merged=275), facts={("sends", 0): Facts(records=275)}),
         "10 offsets before the checkpoint hold no entry or one never counted"),
        (_seen(_mark(events=302, merged=287, orphaned=4), orphaned_once={0: 2}), "2 orphaned receipts have no row"),
        (_seen(checkpoints={}, facts={}, open_now={}), "no partition has a checkpoint yet"),
        (_seen(_mark(events=340, merged=325), facts={("sends", 0): Facts(records=284, open=3, later=40, last=99)}),
         "40 events were counted again"),
        (_seen(foreign=("x.sends",)), "events of other topics: x.sends"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_a_note(seen: Seen, note: str) -> None:
    """Retention, crashes, markers and an absent broker are told, and are no fault."""
    verdict = check.judge(seen)
    assert verdict.is_fine, verdict.findings
    assert any(note in told for told in verdict.notes), verdict.notes


def test_the_difference_is_what_nothing_explains() -> None:
    """Below zero for what is missing, above for what is too much; what a crash made be counted again is none."""
    lost = check.judge(_seen(facts={("sends", 0): Facts(records=279, open=3)})).rows[0]
    extra = check.judge(_seen(buried={0: Buried(11, 1)})).rows[0]
    crashed = check.judge(_seen(facts={("sends", 0): Facts(records=285, open=3)})).rows[0]
    assert [(row.difference, row.again) for row in (lost, extra, crashed)] == [(-2, 0), (1, 0), (0, 3)]


# ---- a real store, damaged -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Settings]]:
    """A store written by the real core, with open messages and orphans; and a copy of each table."""
    home = tmp_path_factory.mktemp("check")
    store = Store(f"chdb://{home / 'chdb'}")
    fill(store, Plan(1_500, seed=9, rate_per_s=0.09, account="a", broken_share=0.02), NOW_MS)
    for table in TABLES:
        store.command(f"CREATE TABLE copy_{table} AS {table}", {})
        store.command(f"INSERT INTO copy_{table} SELECT * FROM {table}", {})
    yield (
        store,
        load(
            {
                "MDR_DATA_DIR": str(home),
                "MDR_RETENTION_DAYS": "3650",
                "MDR_CHECKPOINT_INTERVAL": "100ms",
                "HOME": str(home),
            },
            home,
        ),
    )
    store.close()


@pytest.fixture
def verdict(whole: tuple[Store, Settings]) -> Iterator[Callable[..., dict[str, Any]]]:
    """Runs the check over the store after statements that damage it; it is whole again afterwards."""
    store, settings = whole

    def run(*damage: str) -> dict[str, Any]:
        for statement in damage:
            store.command(statement, {})
        return asyncio.run(checking.run(settings, store, lambda: NOW_MS, lambda *_: None))

    yield run
    for table in TABLES:
        store.command(f"TRUNCATE TABLE {table}", {})
        store.command(f"INSERT INTO {table} SELECT * FROM copy_{table}", {})


def test_a_store_of_the_real_core_is_clean(verdict: Callable[..., dict[str, Any]]) -> None:
    """With open, waiting, orphaned, repeated and refused events the sum is what was read, to the last one."""
    told = verdict()
    assert (told["ok"], told["tries"]) == (True, 1), told
    row = told["partitions"][0]
    assert min(row[name] for name in ("records", "open", "orphans", "duplicates")) > 0
    assert row["difference"] == 0 and row["read"] == row["events"]


_KEPT: Final = "SELECT * FROM copy_{0} WHERE {1}"


def _only(table: str, where: str) -> tuple[str, str]:
    """Statements that leave of a table what fulfils a condition."""
    return f"TRUNCATE TABLE {table}", f"INSERT INTO {table} {_KEPT.format(table, where)}"


def _marked(changes: str) -> str:
    """A statement that changes the checkpoint."""
    return f"INSERT INTO checkpoints SELECT * REPLACE (version + 1 AS version, {changes}) FROM checkpoints FINAL"


_SETTLED: Final = "(SELECT min(message_id) FROM copy_mdrs WHERE direction = 'outbound')"
_OPENED: Final = "(SELECT min(message_id) FROM copy_open_messages FINAL WHERE part = '')"
_ORPHAN: Final = "(SELECT min(message_id) FROM copy_orphan_log FINAL)"


def _moved(table: str, which: str) -> str:
    """A statement that gives a row of a table to a message that has a record."""
    row = f"SELECT * FROM copy_{table} FINAL WHERE {which} LIMIT 1"
    return f"INSERT INTO {table} SELECT * REPLACE ({_SETTLED} AS message_id) FROM ({row})"


@pytest.mark.parametrize(
    ("damage", "kinds"),
    [
        ((_marked("events + 1 AS events"),), ["counts"]),
        ((_marked("events + 1 AS events, merged + 1 AS merged"),), ["lost"]),
        ((_marked("open + 1 AS open"),), ["open"]),
        ((_marked("events - 90 AS events, merged - 90 AS merged"),), ["too_many"]),
        (_only("mdrs", f"message_id != {_SETTLED}"), ["lost"]),
        (_only("open_messages", f"message_id != {_OPENED}"), ["lost", "open"]),
        ((f"INSERT INTO mdrs SELECT * REPLACE ('b' AS account_id) FROM mdrs FINAL WHERE message_id = {_SETTLED}",),
         ["doubled", "many_records"]),
        ((_moved("open_messages", f"message_id = {_OPENED} AND part = ''"),), ["open", "open_with_record"]),
        ((_moved("orphan_log", f"message_id = {_ORPHAN}"),), ["orphans_lost"]),
    ],
)  # fmt: skip
def test_damage_is_told(verdict: Callable[..., dict[str, Any]], damage: tuple[str, ...], kinds: list[str]) -> None:
    """A count that was changed, a row that is missing, is there twice or stands where it must not."""
    told = verdict(*damage)
    assert sorted(finding["kind"] for finding in told["findings"]) == kinds, told
    assert not told["ok"]


def test_a_missing_orphan_is_a_note(verdict: Callable[..., dict[str, Any]]) -> None:
    """A receipt that was orphaned twice has one row, so one row too few is told and is no fault by itself."""
    told = verdict(*_only("orphan_log", f"message_id != {_ORPHAN}"))
    assert told["ok"] and any("orphaned" in note for note in told["notes"])
