"""A world of processes under a seeded scheduler: each has an event loop of its own, all share one fake clock.

Nothing runs by itself: `World.run` picks a loop that has something to do, lets it make one round, and moves the clock
when nobody has. A stopped process is one that is not picked; a killed one never is again. What was asked of the
environment (a store, a broker) before that still happens, or not: the seed decides.
"""

import asyncio
import contextlib
import heapq
from asyncio import events
from collections.abc import Callable
from random import Random
from typing import Any

START_MS = 1_790_000_000_000
NEVER_MS = 1 << 60


class _NoSelector:
    def select(self, timeout: float | None) -> list[Any]:
        return []


class Loop(asyncio.BaseEventLoop):
    """An event loop that is driven from outside; executors run in the world, after a while."""

    def __init__(self, process: "Process") -> None:
        super().__init__()
        self._selector = _NoSelector()
        self._clock_resolution = 1e-3
        self.process = process
        self._busy_until_ms: dict[int, int] = {}
        self.set_exception_handler(lambda loop, context: None)

    def time(self) -> float:
        return self.process.world.now_ms / 1000

    def _process_events(self, event_list: Any) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def _check_closed(self) -> None:
        pass

    def __del__(self) -> None:
        pass

    def step(self) -> None:
        """What is ready now, and what that makes ready: processes meet in the environment only, which comes after."""
        ready, scheduled, now = self._ready, self._scheduled, self.time()  # type: ignore[attr-defined]
        while scheduled and scheduled[0]._when <= now + self._clock_resolution:
            handle = heapq.heappop(scheduled)
            handle._scheduled = False
            ready.append(handle)
        events._set_running_loop(self)
        try:
            while ready and self.process.alive:
                handle = ready.popleft()
                if not handle._cancelled:
                    handle._run()
        finally:
            events._set_running_loop(None)

    def due_ms(self) -> int:
        """When there is something to do next."""
        if self._ready:  # type: ignore[attr-defined]
            return 0
        scheduled = self._scheduled  # type: ignore[attr-defined]
        while scheduled and scheduled[0]._cancelled:
            heapq.heappop(scheduled)._scheduled = False
        return round(scheduled[0]._when * 1000) if scheduled else NEVER_MS

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override]
        """The call happens in the world, one at a time for each executor, whatever becomes of who waits for it."""
        world, process = self.process.world, self.process
        future = self.create_future()
        begin_ms = max(world.now_ms, self._busy_until_ms.get(id(executor), 0))
        end_ms = begin_ms + world.latency_ms()
        self._busy_until_ms[id(executor)] = end_ms

        def happen() -> None:
            try:
                result = func(*args)
            except Killed:
                process.kill()
            except Exception as e:
                world.after(0, lambda e=e: _give(process, future, None, e))  # type: ignore[misc]
            else:
                world.after(world.latency_ms(), lambda: _give(process, future, result, None))

        world.at(end_ms, lambda: happen() if process.alive or process.leaves_something() else None)
        return future


def _give(process: "Process", future: "asyncio.Future[Any]", result: Any, error: Exception | None) -> None:
    if not process.alive or future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)


class Killed(BaseException):
    """The process whose call this is died at this point of it."""


class Process:
    """Something that can be stopped, continued and killed."""

    def __init__(self, world: "World", name: str) -> None:
        self.world = world
        self.name = name
        self.alive = True
        self.stopped = False
        self.silenced = False  # nothing it asked for before its end happens any more
        self.skew_ms = 0  # how far its clock is ahead of the world's
        self.asked_ms = 0  # when the broker is done with what it was asked last
        self.loop = Loop(self)

    def spawn(self, work: Any) -> "asyncio.Task[Any]":
        """Begins a coroutine in the process."""
        before = events._get_running_loop()
        events._set_running_loop(self.loop)
        try:
            return self.loop.create_task(work)
        finally:
            events._set_running_loop(before)

    def leaves_something(self) -> bool:
        """Whether what it asked for before its end happens all the same."""
        return not self.silenced and self.world.random.random() < 0.5

    def kill(self) -> None:
        """Ends the process; nothing in it runs any more, not even what cleans up."""
        self.alive = False
        for task in asyncio.all_tasks(self.loop):
            setattr(task, "_log_destroy_pending", False)  # noqa: B010  # no stub knows it
            if task is not asyncio.current_task(self.loop):
                with contextlib.suppress(ValueError, RuntimeError):  # a part of the one that is running
                    task.get_coro().close()


class World:
    """The clock, the environment's own events, and who runs next."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.now_ms = START_MS
        self.processes: list[Process] = []
        self.ever: list[Process] = []
        self.steps = 0
        self._events: list[tuple[int, int, Callable[[], object]]] = []
        self._count = 0
        self._hastened = False
        self.slowness = self.random.choice((1, 1, 1, 5))

    def latency_ms(self) -> int:
        """How long something outside takes: mostly a moment, at times seconds."""
        if self.random.random() < 0.02:
            return self.random.randint(200, 2_500)
        return self.random.randint(0, 20) * self.slowness

    def at(self, at_ms: int, call: Callable[[], object]) -> None:
        """Has the environment do something at a time."""
        self._count += 1
        heapq.heappush(self._events, (max(at_ms, self.now_ms), self._count, call))

    def after(self, delay_ms: int, call: Callable[[], object]) -> None:
        """The same, after a while."""
        self.at(self.now_ms + delay_ms, call)

    def hasten(self, ms: int) -> None:
        """Lets what the environment would do soon happen at once: between two reads of one call, others write."""
        if self._hastened:
            return
        self._hastened = True
        while self._events and self._events[0][0] <= self.now_ms + ms:
            heapq.heappop(self._events)[2]()
        self._hastened = False

    def process(self, name: str) -> Process:
        """A new process."""
        self.processes = [p for p in self.processes if p.alive]
        made = Process(self, name)
        self.processes.append(made)
        self.ever.append(made)
        return made

    def run(self, until_ms: int, done: Callable[[], bool] = lambda: False) -> None:
        """Lets the world go on until a time, or until `done`, which is asked ten times a second."""
        ask_ms = 0
        while True:
            if self._events and self._events[0][0] <= self.now_ms:
                heapq.heappop(self._events)[2]()
                continue
            due = [(p.loop.due_ms(), p) for p in self.processes if p.alive and not p.stopped]
            ready = [p for at, p in due if at <= self.now_ms]
            if ready:
                self.steps += 1
                (ready[0] if len(ready) == 1 else self.random.choice(ready)).loop.step()
                continue
            next_ms = min([at for at, _ in due] + [e[0] for e in self._events[:1]], default=NEVER_MS)
            if next_ms > until_ms:
                return
            if next_ms > ask_ms:
                if done():
                    return
                ask_ms = next_ms + 100
            self.now_ms = next_ms
