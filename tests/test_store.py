"""One conformance suite for what the worker asks of its store: over chDB, over HTTP, and over the simulation's fake."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from schemas.record import COLUMNS, PUBLIC, Column
from streams import folding, join, recovery
from streams import store as store_module
from streams.effects import OpenRow, Rows
from streams.fold import columns_of, inbound_row, outbound_row
from streams.join import Life
from streams.lives import saved_version
from streams.store import Store, Unavailable, Unstorable
from streams.tables import OPEN_COLUMNS, Checkpoint, select_columns
from tests.chserver import Fault
from tests.entries import NOON_MS, read
from tests.rows import began_with
from tests.servers import Served, serve
from tests.simulation.store import MemoryStore, Tables

DAY_MS: Final = 86_400_000
NAMES: Final = [c.name for c in COLUMNS]


TABLES: Final = ("mdrs", "open_messages", "open_records", "orphan_log", "checkpoints")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The server of this module, migrated."""
    with serve(tmp_path_factory.mktemp("store")) as it:
        store = Store(it.url)
        store.migrate(3_650, 3_650)
        store.close()
        yield it


@pytest.fixture
def server(served: Served) -> Iterator[Store]:
    """A store over HTTP, empty and without faults."""
    served.fault(Fault())
    store = Store(served.url)
    for table in TABLES:
        store.client.command(f"TRUNCATE TABLE mdr.{table}")
    yield store
    served.fault(Fault())
    store.close()


@pytest.fixture
def chdb(tmp_path: Path) -> Iterator[Store]:
    """An embedded store."""
    store = Store(f"chdb://{tmp_path / 'chdb'}")
    store.migrate(3_650, 3_650)
    yield store
    store.close()


@pytest.fixture
def memory() -> MemoryStore:
    """The simulation's."""
    return MemoryStore(Tables())


@pytest.fixture(params=["chdb", "server", "memory"])
def store(request: pytest.FixtureRequest) -> Any:
    """Each of the three."""
    return request.getfixturevalue(request.param)


@pytest.fixture(params=["chdb", "server"])
def real(request: pytest.FixtureRequest) -> Any:
    """Each that has views."""
    return request.getfixturevalue(request.param)


def outbound(message_id: str = "m1", receipts: int = 1, at_ms: int = NOON_MS, **fields: Any) -> tuple[object, ...]:
    """The row of a settled outbound message, its receipts of states that only grow."""
    send = read("sends", message_id=message_id, at_ms=at_ms, **fields)
    states = ("sent", "failed", "delivered")[:receipts]
    facts = [read("receipts", 7 + n, message_id=message_id, event_id=f"r{n}", state=s) for n, s in enumerate(states)]
    return outbound_row(Life(send, tuple(facts), settled_ms=NOON_MS + 1_000), send, 3)


def inbound(message_id: str = "m1") -> tuple[object, ...]:
    """The row of an inbound message."""
    return inbound_row(read("receives", message_id=message_id), NOON_MS + 1_000, 3)


def open_row(message_id: str, receipts: int = 0, part: str = "", *, deleted: bool = False) -> OpenRow:
    """A row of what is open."""
    send = read("sends", message_id=message_id)
    life = Life(send, tuple(read("receipts", n, message_id=message_id, event_id=f"r{n}") for n in range(receipts)))
    version = saved_version(life) + deleted
    facts = b"" if deleted else msgspec.json.encode(life)
    return OpenRow(3, message_id, part, "a1", NOON_MS, NOON_MS + 5_000, facts, version, int(deleted))


def save(store: Any, rows: list[OpenRow]) -> list[Unstorable]:
    """Writes rows as the worker does: beside each open message the record that it would be now."""
    lives = [join.thaw(r.facts) for r in rows if not r.is_deleted and not r.part]
    refused: list[Unstorable] = store.write_open(rows, folding.records([Rows(3, lives, [], [])], NOON_MS))
    return refused


def checkpoint(shard: int, version: int, **more: int) -> Checkpoint:
    """Where a partition stands."""
    return Checkpoint(
        **{**dict.fromkeys(Checkpoint._fields, 0), "shard": shard, "partitions": 4, "version": version, **more}
    )


FULL: Final[dict[str, Any]] = {
    "subaccount_id": "s", "profile_id": "p", "connection_id": "c", "message_type": "mms", "body": "it's\n\tü😀\\'",
    "media_urls": ["https://x/1", "https://x/2"], "encoding": "ucs2", "segments": 255, "number_type": "short-code",
    "mcc": "310", "mnc": "01", "country": "NO", "provider": "p0", "rate": "9999999.999999999",
    "carrier_fee": "0.000000001",
    "currency": "EUR", "campaign_id": "ci", "campaign_status": "cs", "powerpack_id": "pp", "conversation_id": "co",
    "conversation_origin": "og", "callback_url": "https://c", "requester_ip": "192.0.2.1", "user_data": "=1+1",
    "external_number": "e", "billing_number": "b", "group_to": ["+1"], "replaced_sender": "rs",
    "registration_type": "10dlc", "tags": ["t", "ü"], "attributes": {"dlt_entity_id": "1201", "k'": "v\n"},
}  # fmt: skip


def test_every_column_comes_back(store: Any) -> None:
    """A record with every column filled is found as it was written, money, times and maps included."""
    row = outbound(receipts=3, **FULL)
    assert store.write_records(columns_of([row])) == []
    found = store.lookup(["m1"])["m1"].records["outbound"]
    told = dict(zip(NAMES, (getattr(found, n.replace(".", "_")) for n in NAMES), strict=True))
    assert told == {n: list(v) if isinstance(v, list) else v for n, v in zip(NAMES, row, strict=True)}
    again = join.restore(found)
    assert again.send is not None
    assert outbound_row(again, again.send, 3) == row


def test_more_knowledge_stays_whoever_writes_last(store: Any) -> None:
    """A row with fewer facts never replaces one with more, in whatever order they are written."""
    for order in ((3, 1), (1, 3)):
        mid = f"m{order}"
        for receipts in order:
            store.write_records(columns_of([outbound(mid, receipts)]))
        assert store.lookup([mid])[mid].records["outbound"].state == "delivered"


def test_both_directions_of_an_id_are_kept_apart(store: Any) -> None:
    """An inbound and an outbound message may have one id."""
    store.write_records(columns_of([outbound(), inbound()]))
    records = store.lookup(["m1"])["m1"].records
    assert {d: r.state for d, r in records.items()} == {"outbound": "sent", "inbound": "received"}


def test_in_brief_a_record_is_the_event_it_began_with(store: Any) -> None:
    """Asked in brief, a record is told by its first event; with an orphan, or not in brief, it is told whole."""
    store.write_records(columns_of([outbound("m1", 2), inbound("m1"), outbound("m2"), outbound("m3")]))
    store.write_orphans(3, [(read("receipts", 5, message_id="m2", event_id="r"), NOON_MS)])
    found = store.lookup(["m1", "m2", "m3", "m4"], {"m1", "m2", "m4"})
    assert sorted(found) == ["m1", "m2", "m3"]
    assert (found["m1"].records, set(found["m1"].begun)) == ({}, {"outbound", "inbound"})
    for direction, record in store.lookup(["m1"])["m1"].records.items():
        assert found["m1"].begun[direction] == began_with(record)
    assert [(set(found[m].records), len(found[m].orphans), found[m].begun) for m in ("m2", "m3")] == [
        ({"outbound"}, 1, {}), ({"outbound"}, 0, {}),
    ]  # fmt: skip


def test_months_are_no_obstacle(store: Any) -> None:
    """Rows of many months go in at once."""
    rows = [outbound(f"m{n}", at_ms=NOON_MS - n * 31 * DAY_MS) for n in range(150)]
    assert store.write_records(columns_of(rows)) == []
    assert len(store.lookup([f"m{n}" for n in range(150)])) == 150


def test_what_is_not_known_is_not_found(store: Any) -> None:
    """An id without record and orphan is left out."""
    store.write_records(columns_of([outbound()]))
    assert store.lookup(["m2", "it's", "m1\\"]) == {}


def test_what_is_open_comes_back_and_tombstones_win(store: Any) -> None:
    """An open row is found with its facts until its tombstone, and then again only if it knows more."""
    save(store, [open_row("m1", 1), open_row("m2"), open_row("m2", part="p1")])
    save(store, [open_row("m2", 1, deleted=True)])
    save(store, [open_row("m2", 1)])
    rows = sorted(store.open_rows([3]))
    assert [(r[1], r[2]) for r in rows] == [(b"m1", b""), (b"m2", b"p1")]
    assert rows[0][3:] == (open_row("m1", 1).facts, NOON_MS + 5_000, NOON_MS, 0, True)
    assert list(store.open_rows([0])) == []
    save(store, [open_row("m2", 2)])
    assert [r[3] for r in store.open_rows([3]) if r[1:3] == (b"m2", b"")] == [open_row("m2", 2).facts]


def test_an_open_row_says_whether_its_message_is_settled(store: Any) -> None:
    """0: no record. 1: the record holds as many facts. 2: it holds fewer."""
    save(store, [open_row("m1", 1), open_row("m2", 1), open_row("m3", 1)])
    store.write_records(columns_of([outbound("m2", 2), outbound("m3", 0), inbound("m1")]))
    assert {r[1]: r[6] for r in store.open_rows([3])} == {b"m1": 0, b"m2": 1, b"m3": 2}


def test_orphans_are_found_also_when_adopted(store: Any) -> None:
    """A receipt that never met a message is found with all it said, and still after it was adopted."""
    said = {"error_code": "E1", "vendor_error_code": "v", "provider": "p", "mcc": "310", "mnc": "01", "segment": 2}
    orphan = read("receipts", 5, event_id="r", state="failed", rate="0.1", carrier_fee="0.2", **said)
    assert store.write_orphans(3, [(orphan, NOON_MS)]) == []
    store.drop_orphans(3, [])
    for _ in range(2):
        (found,) = store.lookup(["m1"])["m1"].orphans
        orphan.occurred_at = ""
        assert msgspec.structs.asdict(found) == msgspec.structs.asdict(orphan)
        store.drop_orphans(3, [(orphan, NOON_MS + 1)])
    assert (store.orphan_ids(3), store.orphan_ids(0)) == (["m1"], [])


def test_checkpoints_never_go_back(store: Any) -> None:
    """Of each partition the checkpoint of the highest version counts."""
    store.write_checkpoints([checkpoint(0, 5, sends_offset=7, sends_mark=NOON_MS), checkpoint(1, 1)])
    store.write_checkpoints([checkpoint(0, 4, sends_offset=3)])
    stored = store.checkpoints()
    assert sorted(stored) == [0, 1]
    assert stored[0] == checkpoint(0, 5, sends_offset=7, sends_mark=NOON_MS)


def test_recent_ids_are_those_settled_since(store: Any) -> None:
    """Ids of records settled at or after a time, with their directions, of one partition."""
    store.write_records(columns_of([outbound("m1"), inbound("m2")]))
    assert sorted(store.recent_ids(3, NOON_MS + 1_000)) == [("m1", "outbound"), ("m2", "inbound")]
    assert (store.recent_ids(3, NOON_MS + 1_001), store.recent_ids(0, 0)) == ([], [])


# ---- what only the real ones can show --------------------------------------------------------------------------


def test_migrating_again_does_nothing(real: Store) -> None:
    """Migrations are idempotent."""
    assert real.migrate(3_650, 3_650) == []
    assert real.migrate(3_649, 3_649) == []


def test_only_the_bad_rows_are_refused(real: Store) -> None:
    """Rows that cannot be stored are given back with the entries they were made of; all others are written."""
    rows = [list(outbound(f"m{n}")) for n in range(64)]
    for n in (0, 17, 63):
        rows[n][NAMES.index("segments")] = 70_000
    bad = real.write_records(columns_of([tuple(row) for row in rows]))
    assert [b.row[0] for b in bad] == ["m0", "m17", "m63"]
    assert all(b.sources == ("mdr.sends:0:0", "mdr.receipts:0:7") and b.detail for b in bad)
    assert len(real.lookup([f"m{n}" for n in range(64)])) == 61


def test_each_message_is_shown_once(real: Store) -> None:
    """`mdr` has a record once, in its latest version; `messages` also what is open, and nothing twice."""
    real.write_records(columns_of([outbound("m1", 1)]))
    real.write_records(columns_of([outbound("m1", 3)]))
    save(real, [open_row("m1"), open_row("m2")])
    ask = "SELECT message_id, record_type FROM {} ORDER BY message_id"
    assert real.query(ask.format("mdr"), {}) == [("m1", "complete")]
    assert real.query(ask.format("messages"), {}) == [("m1", "complete"), ("m2", "pending")]


def test_an_open_message_is_shown_as_its_record_would_be(real: Store) -> None:
    """Each column that `pending` shows of an open message is the fold's, in its latest version, until it is settled."""
    send = read("sends", message_id="m1", **FULL)
    receipt = read("receipts", 7, message_id="m1", event_id="r0", state="sent", provider="p1", mcc="311", rate="0.5")
    for receipts in ((), (receipt,)):
        life = Life(send, receipts, NOON_MS + 5_000)
        row = OpenRow(3, "m1", "", "a1", NOON_MS, NOON_MS + 5_000, msgspec.json.encode(life), saved_version(life), 0)
        save(real, [row])
        shown = real.query(f"SELECT {select_columns(PUBLIC)} FROM pending AS t", {})  # noqa: S608  # our own names
        expected = dict(zip(NAMES, outbound_row(life, send, 3), strict=True)) | {"record_type": "pending"}
        assert [dict(zip([c.name for c in PUBLIC], map(plain, row), strict=True)) for row in shown] == [
            {name: plain(expected[name]) for name in (c.name for c in PUBLIC)}
        ]
    save(real, [open_row("m1", 1, deleted=True)])
    assert real.query("SELECT * FROM pending", {}) == []
    save(real, [open_row("m1", 1)])
    assert real.query("SELECT * FROM pending", {}) == []


def test_what_is_open_and_not_shown_is_saved_again(real: Store) -> None:
    """An open message without its record, by a crash or an older worker, gets it with the next checkpoint after recovery."""
    save(real, [open_row("m1")])
    real._write("open_messages", OPEN_COLUMNS, columns_of([open_row("m1", 1), open_row("m2"), open_row("m3", part="p")]))
    for missing in ({"m1", "m2"}, set()):
        partition = recovery.load(real, [3], 60_000, NOON_MS).partitions[3]
        snapshot = partition.snapshot(NOON_MS)
        assert {life.send.message_id for life in snapshot.opened if life.send} == missing
        real.write_open(snapshot.rows, folding.records([Rows(3, snapshot.opened, [], [])], NOON_MS))
    shown = real.query("SELECT message_id, length(timeline.event_id), shard FROM open_records FINAL ORDER BY message_id", {})
    assert shown == [("m1", 2, 3), ("m2", 1, 3)]


def plain(value: Any) -> Any:
    """A value whether its list came as a tuple or not."""
    return list(value) if isinstance(value, tuple) else value


def test_what_an_older_version_saved_is_shown_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store of an older version ends equal to one that is new: open messages get their records as it is migrated."""
    sends = [read("sends", message_id=f"m{n}", **(FULL if n % 2 else {})) for n in range(6)]
    more: dict[str, Any] = {"provider": "p1", "mnc": "07", "carrier_fee": "1.5", "error_code": "e", "vendor_error_code": "v"}
    receipts = [read("receipts", n, message_id=f"m{n}", event_id="r", state="sent", **more) for n in range(6)]
    lives = [Life(send, (receipts[n],) if n < 3 else (), NOON_MS) for n, send in enumerate(sends)]
    rows = [
        OpenRow(3, f"m{n}", "", "a1", NOON_MS, NOON_MS, msgspec.json.encode(life), saved_version(life), 0)
        for n, life in enumerate(lives)
    ]
    old = Store(f"chdb://{tmp_path / 'chdb'}")
    whole = store_module._migrations()
    with monkeypatch.context() as before:
        before.setattr(store_module, "_migrations", lambda: whole[:4])
        before.setattr(Store, "_set_retention", lambda *_: None)  # of tables that it does not have yet
        old.migrate(90, 30)
    old._write("open_messages", OPEN_COLUMNS, columns_of([*rows, open_row("m9", deleted=True), open_row("m8", part="p")]))
    assert old.migrate(90, 30) == [name for name, _ in whole[4:]]
    assert old.migrate(90, 30) == []
    columns = (*PUBLIC, Column("saved", "UInt64"), Column("is_deleted", "UInt8"), Column("shard", "UInt16"))
    ask = f"SELECT {select_columns(columns)} FROM open_records AS t"  # noqa: S608  # our own names
    migrated = old.query(f"{ask} ORDER BY message_id", {})
    old.command("TRUNCATE TABLE open_records", {})
    save(old, rows)
    assert len(migrated) == 6 and migrated == old.query(f"{ask} ORDER BY message_id", {})
    old.close()


def test_adopted_orphans_are_not_shown(real: Store) -> None:
    """`orphan_receipts` shows receipts that never met a message, and no longer those that did."""
    orphans = [(read("receipts", 5, message_id=m, event_id="r"), NOON_MS) for m in ("m1", "m2")]
    real.write_orphans(3, orphans)
    real.drop_orphans(3, orphans[:1])
    assert real.query("SELECT message_id FROM orphan_receipts", {}) == [("m2",)]


def test_settled_through_counts_partitions_without_a_worker(real: Store) -> None:
    """A partition nobody has reached yet holds the overall time at 1970."""
    times = "toUnixTimestamp64Milli(settled_through), toUnixTimestamp64Milli(overall)"
    ask = f"SELECT partition, {times} FROM settled_through ORDER BY partition"  # noqa: S608  # our own words
    real.write_checkpoints([checkpoint(n, 1, settled_through=NOON_MS + n, updated_at=NOON_MS) for n in (0, 1, 2)])
    assert real.query(ask, {}) == [(0, NOON_MS, 0), (1, NOON_MS + 1, 0), (2, NOON_MS + 2, 0), (3, 0, 0)]
    real.write_checkpoints([checkpoint(3, 1, settled_through=NOON_MS + 3, updated_at=NOON_MS)])
    assert {overall for _, _, overall in real.query(ask, {})} == {NOON_MS}


def test_delivery_stats_add_up(real: Store) -> None:
    """The statistics count each record once, by what became of it."""
    real.write_records(columns_of([outbound("m1", 3), outbound("m2", 1), outbound("m3", 2), inbound("m4")]))
    ask = (
        "SELECT direction, sum(messages), sum(complete), sum(error), sum(unconfirmed) FROM delivery_stats"
        " GROUP BY direction ORDER BY direction"
    )
    assert real.query(ask, {}) == [("inbound", 1, 1, 0, 0), ("outbound", 3, 1, 1, 1)]


# ---- what only a server can do ---------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [
    Fault("code", code=241), Fault("code", code=252), Fault("code", code=319), Fault("busy"), Fault("drop"),
    Fault("cut"), Fault("refuse"), Fault("code", code=202), Fault("code", code=999),
], ids=lambda f: f"{f.kind}-{f.code}")  # fmt: skip
def test_what_passes_is_told_as_unavailable(served: Served, server: Store, fault: Fault) -> None:
    """Whatever may pass is `Unavailable`, and the same insert works when it has passed."""
    served.fault(fault)
    with pytest.raises(Unavailable):
        server.write_records(columns_of([outbound(f"m{n}") for n in range(50)]))
    served.fault(Fault())
    assert server.write_records(columns_of([outbound(f"m{n}") for n in range(50)])) == []
    assert server.query("SELECT count() FROM mdr", {}) == [(50,)]


def test_a_row_the_server_refuses_is_halved_out(served: Served, server: Store) -> None:
    """A row that the server refuses for good is found by halving, whatever the table; the others are in."""
    served.fault(Fault("marker", marker="unbearable", code=117))
    rows = [outbound(f"m{n}", user_data="unbearable" if n == 11 else "fine") for n in range(20)]
    assert [b.row[0] for b in server.write_records(columns_of(rows))] == ["m11"]
    (bad,) = save(server, [open_row("m1"), open_row("unbearable"), open_row("m3")])
    assert (bad.row[1], bad.sources) == ("unbearable", ("mdr.sends:0:0",))
    orphans = [(read("receipts", 5, message_id=m, event_id="r"), NOON_MS) for m in ("m1", "unbearable")]
    assert [b.sources for b in server.write_orphans(3, orphans)] == [("mdr.receipts:0:5",)]
    assert server.query("SELECT count() FROM mdr", {}) == [(19,)]


def test_nobody_there_is_told_in_one_sentence() -> None:
    """A server that cannot be reached is `Unavailable`, named by host and port and without the password."""
    with pytest.raises(Unavailable, match=r"^ClickHouse at 127\.0\.0\.1:9 cannot be opened: ") as failure:
        Store("http://user:secret@127.0.0.1:9")
    assert "secret" not in str(failure.value)
