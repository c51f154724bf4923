"""One process, virtual time: code that blocks runs in threads of which exactly one goes at a time, by a seeded order.

What happens is an event at a virtual time. A generator (`Process`) yields seconds to sleep or a `Promise` to wait for;
a worker, which blocks in the middle of its own code, is a `Task` with a thread. Whoever blocks carries out events until
one wakes it; if one wakes another task, the baton is handed to its thread. So a single worker never switches threads,
and the order of everything depends on the seed alone.

The job that is simulated over this: simulation_wire.py, simulation_cluster.py (shards and workers), simulation_disk.py,
simulation_driver.py, simulation_worlds.py (streams, learners, and what an undisturbed run computes), and
simulation_schedules.py (what a seed means).
"""

from __future__ import annotations

import heapq
import random
import threading
from collections import deque
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Any

__all__ = ["Killed", "Process", "Promise", "Simulation", "Steps", "Task"]

Steps = Generator["float | Promise", Any, Any]


class Killed(BaseException):
    """The process of this code is dead; raised where it blocks."""


class Promise:
    """A value or an error that will be there."""

    __slots__ = ("_waiters", "done", "error", "value")

    def __init__(self) -> None:
        self.done = False
        self.value: Any = None
        self.error: BaseException | None = None
        self._waiters: list[Callable[[], object]] = []

    def settle(self, value: Any = None, error: BaseException | None = None) -> None:
        """It is there now; what comes later is ignored."""
        if not self.done:
            self.done, self.value, self.error = True, value, error
            for waiter in self._waiters:
                waiter()

    def then(self, waiter: Callable[[], object]) -> None:
        """Call `waiter` once it is there."""
        if self.done:
            waiter()
        else:
            self._waiters.append(waiter)

    def result(self) -> Any:
        """The value. Raises the error."""
        if self.error is not None:
            raise self.error
        return self.value


class _Thread:
    """A thread that is used again and again: starting one costs more than a whole simulated batch."""

    idle: list[_Thread] = []  # noqa: RUF012 - one pool for all

    def __init__(self) -> None:
        self.go = threading.Lock()
        self.go.acquire()
        self.work: Callable[[], None] = lambda: None
        threading.Thread(target=self._loop, daemon=True, name="simulated-worker").start()

    def _loop(self) -> None:
        while True:
            self.go.acquire()
            self.work()


class Task:
    """Code that blocks, in a thread of its own; it begins when the event comes that `Simulation.task` plans."""

    def __init__(self, simulation: Simulation, function: Callable[[], object]) -> None:
        self._simulation = simulation
        self._function = function
        self._thread: _Thread | None = None
        self._turn = 0
        self.killed = False
        self.ended = Promise()

    def sleep(self, seconds: float) -> None:
        """Block for some virtual time."""
        turn = self._turn
        self._simulation.after(seconds, lambda: self._wake(turn))
        self._block()

    def wait(self, promise: Promise) -> Any:
        """Block until the promise is settled."""
        if not promise.done:
            turn = self._turn
            promise.then(lambda: self._wake(turn))
            self._block()
        return promise.result()

    def kill(self) -> None:
        """Raise Killed where it blocks."""
        if self.ended.done or self.killed:
            return
        self.killed = True
        if self._thread is None:
            self.ended.settle(error=Killed())
        else:
            self._wake(self._turn)

    def begin(self) -> None:
        """Have the function begin next."""
        if not self.killed:
            self._thread = _Thread.idle.pop() if _Thread.idle else _Thread()
            self._thread.work = self._body
            self._simulation.ready.append(self)

    def resume(self) -> None:
        """Give the baton to its thread."""
        assert self._thread is not None
        self._thread.go.release()

    def _wake(self, turn: int) -> None:
        if turn == self._turn and not self.ended.done:
            self._turn += 1
            self._simulation.ready.append(self)

    def _block(self) -> None:
        if not self.killed:  # what a dead process does on its way out takes no time
            thread = self._thread
            assert thread is not None
            if self._simulation.hand_on(self):
                thread.go.acquire()
        if self.killed:
            raise Killed

    def _body(self) -> None:
        thread, error = self._thread, None
        try:
            with suppress(Killed):
                self._function()
        except AssertionError as broken:
            self._simulation.fail(broken)
        except Exception as failed:  # noqa: BLE001 - carried to whoever looks at the task
            error = failed
        self.ended.settle(error=error)
        assert thread is not None
        _Thread.idle.append(thread)
        self._simulation.hand_on(None)


class Process:
    """A generator that is carried on by events; `ended` has what it returned."""

    def __init__(self, simulation: Simulation, steps: Steps) -> None:
        self._simulation = simulation
        self._steps = steps
        self.ended = Promise()

    def step(self, promise: Promise | None = None) -> None:
        """Go on until it waits for something again."""
        if self.ended.done:
            return
        try:
            if promise is not None and promise.error is not None:
                wanted = self._steps.throw(promise.error)
            else:
                wanted = self._steps.send(None if promise is None else promise.value)
        except StopIteration as stopped:
            self.ended.settle(stopped.value)
        except AssertionError:  # not for who waits, but for who tests
            raise
        except Exception as error:  # noqa: BLE001 - carried to whoever waits for it
            self.ended.settle(error=error)
        else:
            if isinstance(wanted, Promise):
                wanted.then(lambda: self._simulation.after(0.0, lambda: self.step(wanted)))
            else:
                self._simulation.after(wanted, self.step)

    def kill(self, error: BaseException) -> None:
        """End it; who waits for it gets `error`."""
        if not self.ended.done:
            self.ended.settle(error=error)
            self._steps.close()


class Simulation:
    """Events by virtual time; `on_event` is called before each, which is where faults come from."""

    def __init__(self, seed: int, steps_max: int = 60_000) -> None:
        self.random = random.Random(seed)
        self.now_s = 0.0
        self.steps = 0
        self.ready: deque[Task] = deque()
        self.on_event: Callable[[], None] = lambda: None
        self._steps_max = steps_max
        self._planned: list[tuple[float, int, Callable[[], object]]] = []
        self._count = 0
        self._tasks: list[Task] = []
        self._main = threading.Lock()
        self._main.acquire()
        self._over = False
        self._failure: BaseException | None = None

    def after(self, seconds: float, action: Callable[[], object]) -> None:
        """Carry out `action` in so many seconds."""
        self._count += 1
        heapq.heappush(self._planned, (self.now_s + seconds, self._count, action))

    def process(self, steps: Steps) -> Process:
        """Begin a process."""
        made = Process(self, steps)
        self.after(0.0, made.step)
        return made

    def task(self, function: Callable[[], None]) -> Task:
        """Begin a task."""
        made = Task(self, function)
        self._tasks.append(made)
        self.after(0.0, made.begin)
        return made

    def run(self, root: Steps) -> None:
        """Carry out events until `root` has ended. Raises what it, or any event, raised."""
        ended = self.process(root).ended
        ended.then(lambda: self.fail(ended.error))
        if self.hand_on(None):
            self._main.acquire()
        for task in self._tasks:
            if not task.ended.done:
                task.kill()
                if not task.ended.done:
                    task.resume()
                    self._main.acquire()
        if self._failure is not None:
            raise self._failure

    def hand_on(self, me: Task | None) -> bool:
        """Carry out events until a task is to go on; if it is another than `me`, its thread has the baton: True."""
        while not self._over and not self.ready:
            self._step()
        if self._over:
            self._main.release()
            return True
        task = self.ready.popleft()
        if task is me:
            return False
        task.resume()
        return True

    def _step(self) -> None:
        self.steps += 1
        try:
            assert self._planned, "nothing will ever happen again, and the job has not ended"
            assert self.steps < self._steps_max, f"the job has not ended after {self.steps} events"
            self.now_s, _, action = heapq.heappop(self._planned)
            self.on_event()
            action()
        except BaseException as error:  # noqa: BLE001 - raised by run
            self.fail(error)

    def fail(self, error: BaseException | None) -> None:
        """Nothing is carried out any more; `run` raises the first error, if there is one."""
        self._over = True
        self._failure = self._failure or error
