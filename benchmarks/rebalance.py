"""How long partitions stand still when workers go and come, how much waits then, and when it is caught up: simulated.

As the worker does it: in a rebalance every member stops, saves (bounded), joins, and reads all its partitions' open
messages back; a load that began before the next rebalance is not cut short. A restarted static member gets its
partitions back without a rebalance. Time goes in steps; chance is seeded. `python -m benchmarks.plan` runs it.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np

STEP_S: Final = 0.25
_NEVER: Final = float("inf")


class Times(NamedTuple):
    """What each step takes; the first four are settings of ours or of the brokers."""

    heartbeat_s: float = 2.0
    session_s: float = 10.0
    save_max_s: float = 3.0
    empty_group_delay_s: float = 3.0
    save_s: float = 0.5
    start_s: float = 4.0
    recover_s_per_million: float = 6.0


class Group(NamedTuple):
    """A group of workers at a steady load; `headroom` is the share of a worker's capacity that the load takes."""

    workers: int
    partitions: int
    events_per_s: float
    open_messages: float
    headroom: float = 0.55
    static: bool = False


class Outcome(NamedTuple):
    """What came of it; a backlog is told as seconds of the group's traffic."""

    stood_still_s: float
    longest_s: float
    backlog_s_max: float
    caught_up_s: float
    rebalances: int


class Members:
    """The group: who is in it, who reads, and the rebalance that goes on."""

    def __init__(self, group: Group, times: Times, seed: int) -> None:
        self.group, self.times = group, times
        self._rng = np.random.default_rng(seed)
        count = group.workers
        self.runs = np.ones(count, bool)
        self.member = np.ones(count, bool)
        self.reads_at_s = np.zeros(count)
        # A killed member that is not static is held for a while although it will not come back under its old name.
        self._ghosts_s: list[float] = []
        self._expires_s = np.full(count, _NEVER)
        self._loading_until_s = np.zeros(count)
        self._joins_at_s = np.full(count, _NEVER)
        self._stops_at_s = np.full(count, _NEVER)
        self._completes_s = _NEVER
        self.owner = np.arange(group.partitions) % count
        self.rebalances = 0

    def reading(self, now_s: float) -> np.ndarray:
        return self.runs & (self.reads_at_s <= now_s)

    def at_rest(self, now_s: float) -> bool:
        """Whether everybody reads, and no rebalance goes on or is to come."""
        no_rebalance = self._completes_s == _NEVER and not self._ghosts_s
        return no_rebalance and bool(self.runs.all() and self.reading(now_s).all())

    def go(self, worker: int, now_s: float, *, killed: bool) -> None:
        """Ends a process; one that is told to stop has saved by then, and leaves unless it is static."""
        self.runs[worker] = False
        self.reads_at_s[worker] = self._joins_at_s[worker] = _NEVER
        if self.group.static:
            self._expires_s[worker] = now_s + self.times.session_s
        elif killed:
            self.member[worker] = False
            self._ghosts_s.append(now_s + self.times.session_s)
        else:
            self._leave(worker, now_s)

    def come(self, worker: int, now_s: float) -> None:
        """A process has started and asks to join."""
        was_member = bool(self.member[worker])
        self.runs[worker], self.member[worker], self._expires_s[worker] = True, True, _NEVER
        self._loading_until_s[worker] = now_s
        if self.group.static and was_member and self._completes_s == _NEVER:
            self._recover(np.array([worker]), now_s)
            return
        # Before its first join completes it holds nobody up, and nothing of its own to save.
        was_empty = self.member.sum() == 1
        self._disturb(now_s)
        self._joins_at_s[worker] = now_s + (self.times.empty_group_delay_s if was_empty else 0.0)

    def step(self, now_s: float) -> None:
        """Expires who is silent, and completes a rebalance that everybody has joined."""
        for worker in np.nonzero(self._expires_s <= now_s)[0]:
            self._leave(int(worker), now_s)
        if any(at_s <= now_s for at_s in self._ghosts_s):
            self._ghosts_s = [at_s for at_s in self._ghosts_s if at_s > now_s]
            self._disturb(now_s)
        if self._completes_s == _NEVER:
            return
        self.reads_at_s[self._stops_at_s <= now_s] = _NEVER
        if not self._ghosts_s and self.member.any() and (self._joins_at_s[self.member] <= now_s).all():
            self._completes_s = _NEVER
            self._assign(now_s)

    def _leave(self, worker: int, now_s: float) -> None:
        self.member[worker], self._expires_s[worker] = False, _NEVER
        self._disturb(now_s)

    def _disturb(self, now_s: float) -> None:
        if self._completes_s != _NEVER:
            return
        self._completes_s = now_s
        self.rebalances += 1
        count = len(self.member)
        self._stops_at_s = now_s + self._rng.uniform(0, self.times.heartbeat_s, count)
        saves_s = np.minimum(self._rng.exponential(self.times.save_s, count), self.times.save_max_s)
        joins = self._stops_at_s + np.where(self.reading(now_s), saves_s, 0)
        self._joins_at_s = np.where(self.runs, joins, _NEVER)

    def _assign(self, now_s: float) -> None:
        members = np.nonzero(self.member)[0]
        self.owner = members[np.arange(self.group.partitions) % len(members)]
        self._recover(members, now_s)

    def _recover(self, workers: np.ndarray, now_s: float) -> None:
        share = np.bincount(self.owner, minlength=len(self.member))[workers] / self.group.partitions
        took_s = share * self.group.open_messages / 1e6 * self.times.recover_s_per_million
        # One thread reads: what was asked for in the last generation is read first.
        self.reads_at_s[workers] = np.maximum(self._loading_until_s[workers], now_s) + took_s
        self._loading_until_s[workers] = self.reads_at_s[workers]


Script = Callable[[Members, float], bool]
"""Lets workers go and come as time passes; false once it has nothing left to do."""


def loss(members: Members) -> Script:
    """One worker is killed and started anew by its supervisor."""
    return _restarts(members, [0], killed=True)


def whole_group(members: Members) -> Script:
    """Every worker is told to stop at once, and started anew."""
    return _restarts(members, list(range(members.group.workers)), killed=False)


def _restarts(members: Members, workers: list[int], *, killed: bool) -> Script:
    done: set[str] = set()

    def script(members: Members, now_s: float) -> bool:
        if "gone" not in done:
            done.add("gone")
            for worker in workers:
                members.go(worker, now_s, killed=killed)
        elif "back" not in done and now_s >= members.times.start_s:
            done.add("back")
            for worker in workers:
                members.come(worker, now_s)
        return "back" not in done

    return script


def rolling(members: Members) -> Script:
    """One after the other is restarted, each once the one before it is ready."""
    waiting, back_s, current = list(range(members.group.workers)), _NEVER, -1

    def script(members: Members, now_s: float) -> bool:
        nonlocal back_s, current
        if back_s != _NEVER and now_s >= back_s:
            members.come(current, now_s)
            back_s = _NEVER
        elif back_s == _NEVER and (current < 0 or members.reading(now_s)[current]) and waiting:
            current = waiting.pop(0)
            members.go(current, now_s, killed=False)
            back_s = now_s + members.times.start_s
        return bool(waiting) or back_s != _NEVER

    return script


def simulate(
    group: Group, times: Times, make: Callable[[Members], Script], *, seconds_max: float = 12 * 3_600, seed: int = 1
) -> Outcome:
    """Runs a script until nothing disturbs the group any more; infinity stands for never, and for time that is over."""
    members = Members(group, times, seed)
    script = make(members)
    arriving = group.events_per_s / group.partitions * STEP_S
    room = group.events_per_s / group.workers / group.headroom * STEP_S
    backlog, still, longest, stood = np.zeros(group.partitions), np.zeros(group.partitions), 0.0, 0.0
    most, now_s, goes_on, caught_up_s = 0.0, 0.0, True, _NEVER
    while now_s < seconds_max:
        goes_on = script(members, now_s) if goes_on else False
        members.step(now_s)
        reading = members.reading(now_s)
        backlog += arriving
        wanted = np.bincount(members.owner, backlog, len(reading))
        share = np.where(reading, np.minimum(1.0, room / np.maximum(wanted, 1e-9)), 0.0)
        backlog *= 1 - share[members.owner]
        idle = ~reading[members.owner]
        still = np.where(idle, still + STEP_S, 0.0)
        longest, stood = max(longest, float(still.max())), stood + float(idle.mean()) * STEP_S
        most = max(most, float(backlog.sum()))
        now_s += STEP_S
        if not goes_on and members.at_rest(now_s):
            caught_up_s = now_s + _work_off_s(members.owner, backlog, arriving, room)
            break
    return Outcome(stood, longest, most / group.events_per_s, caught_up_s, members.rebalances)


def _work_off_s(owner: np.ndarray, backlog: np.ndarray, arriving: float, room: float) -> float:
    """How long the fullest worker needs, now that nothing disturbs it."""
    waits, spare = np.bincount(owner, backlog), room - np.bincount(owner) * arriving
    behind = waits > arriving
    if (spare[behind] < 1e-6 * room).any():
        return _NEVER
    return float((waits[behind] / spare[behind]).max(initial=0.0)) * STEP_S
