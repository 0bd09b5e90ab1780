"""The dead letters as the HTTP side and the command line ask for them: read, audited, judged, shown."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Final

from api import audit
from api.dead_letters import REQUEST_S, Filter, Redrive
from api.http import Refusal
from schemas.times import format_rfc3339
from streams import dead_letters, kafka, letters, running
from streams.clock import clock_ms
from streams.dead_letters import Tell, Wanted, identity
from streams.letters import Letter
from streams.settings import Settings
from streams.store import Store, StoreError, Unavailable

_TOLD_MAX: Final = 1_000
_SILENT: Final[Tell] = lambda _, __: None  # noqa: E731


class Desk:
    """What can be asked of the dead letters; each answer is the body of its path under `/mdr/dead-letters`."""

    def __init__(self, settings: Settings, tell: Tell = _SILENT) -> None:
        self._settings = settings
        self._tell = tell
        self._redriving = threading.Lock()

    def page(self, wanted: Filter, limit: int, cursor: str | None, may_see: bool) -> dict[str, Any]:
        """Letters, newest first, and how many were looked at; raises `ValueError` for a cursor that is none."""
        after = _place(cursor) if cursor is not None else None
        with told():
            scan = self._scan(wanted)
            left = [letter for letter in scan.letters if after is None or letters.place(letter) < after]
            rows = self._shown(left[:limit], may_see)
        more = ".".join(map(str, letters.place(left[limit - 1]))) if len(left) > limit else None
        return {
            "dead_letters": rows, "next_cursor": more, "total": len(scan.letters), "scanned": scan.scanned,
            "truncated": scan.truncated,
        }  # fmt: skip

    def summary(self, wanted: Filter) -> dict[str, Any]:
        """Letters counted by reason, fingerprint and topic, the most frequent first."""
        with told():
            scan = self._scan(wanted)
        groups: dict[tuple[str, str, str], list[Letter]] = {}
        for letter in scan.letters:
            kind = letter.reason, letters.fingerprint(letter.reason, letter.detail), letter.topic
            groups.setdefault(kind, []).append(letter)
        counted = [_group(kind, found) for kind, found in groups.items()]
        counted.sort(key=lambda group: (-group["count"], group["reason"], group["fingerprint"], group["topic"]))
        return {"groups": counted, "scanned": scan.scanned, "truncated": scan.truncated}

    def one(self, id_: str, may_see: bool) -> dict[str, Any] | None:
        """One letter, whole, with its headers and what the decoder says of it now."""
        with told():
            found = asyncio.run(dead_letters.named(self._ready(), [id_]))
            if not found:
                return None
            shown = self._shown(found, may_see, whole=True)[0]
        said = letters.verdict(found[0], self._settings.topic_prefix, clock_ms())
        shown["headers"] = [
            {"name": name, "value": letters.readable(value) if may_see else letters.masked(value)}
            for name, value in found[0].headers
        ]
        return {"dead_letter": shown, "now": "ok" if said is None else f"{said.reason} {said.detail}".rstrip()}

    def redrive(self, asked: Redrive, who: str) -> dict[str, Any]:
        """Sends letters once more, as many as the rate allows within half a minute; the rest is `remaining`."""
        if not self._redriving.acquire(blocking=False):
            raise Refusal(409, "another redrive is under way")
        try:
            with told(), self._store() as store:
                return self._redrive(store, asked, who)
        finally:
            self._redriving.release()

    def _redrive(self, store: Store, asked: Redrive, who: str) -> dict[str, Any]:
        ready = self._ready()
        found, truncated = self._selected(ready, asked)
        plan = dead_letters.plan(
            letters.once(found), dead_letters.audit(store, found), ready.topic_prefix, clock_ms(), force=asked.force,
            again=asked.again,
        )  # fmt: skip
        there = {letter.id for letter in found}
        refused = [(id_, "there is no such dead letter") for id_ in asked.ids if id_ not in there]
        refused += [(letter.id, why) for letter, why in plan.refused]
        if asked.dry_run:
            sent = len(plan.go)
        else:
            act = audit.Entry(clock_ms(), audit.REDRIVE, key=who, detail={"letters": len(plan.go)})
            with audit.recorded(store.client, act) as kept:
                sent = kept["redriven"] = self._send(ready, store, plan.go, asked, who)
        return {
            "would" if asked.dry_run else "redriven": sent, "dry_run": asked.dry_run,
            "refused": [{"id": id_, "why": why} for id_, why in refused[:_TOLD_MAX]], "refused_total": len(refused),
            "outcomes": plan.outcomes, "remaining": len(plan.go) - sent, "truncated": truncated,
        }  # fmt: skip

    def _selected(self, ready: Settings, asked: Redrive) -> tuple[Sequence[Letter], bool]:
        if asked.filter is None:
            return asyncio.run(dead_letters.named(ready, asked.ids)), False
        scan = self._scan(asked.filter)
        return scan.letters, scan.truncated

    def _send(self, ready: Settings, store: Store, go: Sequence[Letter], asked: Redrive, who: str) -> int:
        most = max(1, int(asked.rate * REQUEST_S))
        if not go:
            return 0
        if asked.ids and len(go) > most:
            raise Refusal(400, f"at {asked.rate:g} a second a request takes at most {most} ids", "ids")
        # Who named letters is not asked to name them again.
        within_s = 2 * REQUEST_S if asked.ids else REQUEST_S
        send = dead_letters.send(ready, store, go, who, asked.rate, clock_ms, within_s, self._tell)
        return asyncio.run(send)

    def _shown(self, found: Sequence[Letter], may_see: bool, *, whole: bool = False) -> list[dict[str, Any]]:
        with self._store() as store:
            times = dead_letters.audit(store, found)
        return [letters.shown(letter, may_see, times.get(identity(letter), ()), whole=whole) for letter in found]

    def _scan(self, wanted: Filter) -> dead_letters.Scan:
        key = wanted.key.encode() if wanted.key else None
        meant = Wanted(wanted.reason, wanted.topic, wanted.fingerprint, key, wanted.until_ms)
        return asyncio.run(dead_letters.scan(self._ready(), meant, tell=self._tell))

    def _ready(self) -> Settings:
        return running.with_running_broker(self._settings)

    @contextlib.contextmanager
    def _store(self) -> Iterator[Store]:
        store = Store(self._settings.clickhouse_url)
        try:
            yield store
        finally:
            store.close()


def _group(kind: tuple[str, str, str], found: Sequence[Letter]) -> dict[str, Any]:
    reason, fingerprint, topic = kind
    return {
        "reason": reason, "fingerprint": fingerprint, "topic": topic, "detail": letters.kind(found[0].detail),
        "count": len(found),
        "first": format_rfc3339(found[-1].landed_ms), "last": format_rfc3339(found[0].landed_ms),
        "example_id": found[0].id,
    }  # fmt: skip


def _place(cursor: str) -> tuple[int, int, int]:
    landed_ms, partition, offset = (int(part) for part in cursor[:64].split("."))
    return landed_ms, partition, offset


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Turns what the broker or the store cannot do now into an answer."""
    try:
        yield
    except (kafka.KafkaUnavailable, running.NoBroker, StoreError, Unavailable) as e:
        raise Refusal(503, str(e), headers={"Retry-After": "5"}) from None
