"""The wire of a simulated job, the processes at its ends, and how bad their world is.

A message takes a random time, but those of one caller to one process keep their order, as Ray's do. Some are lost, of
some the answer is (then the caller learns it after the time-out, and its generation ends), and some are sent twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from actors.ports import StaleGenerationError, StoreError
from actors.shard import StalePushError
from tests.actors.simulation import Process, Promise, Simulation, Task

__all__ = ["CALL_TIMEOUT_S", "Actor", "Profile", "Wire"]

CALL_TIMEOUT_S = 3.0


@dataclass
class Profile:
    """How bad the world is in one schedule; shares are of all messages, and `budget` bounds what happens in all."""

    delay_s: float
    lost: float
    repeated: float
    late: float
    slow_disk_s: float
    full_disk: float
    rows_max: int
    no_stream: float
    damaged: float
    budget: int
    happened: Counter[str] = field(default_factory=Counter)

    def strikes(self, simulation: Simulation, what: str) -> bool:
        """True if `what` happens now."""
        if not self.budget or simulation.random.random() >= getattr(self, what):
            return False
        self.budget -= 1
        self.happened[what] += 1
        return True


class Actor:
    """A process: it lives, or it is dead for ever. `mind` is what it holds in memory."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.mind: Any = None
        self.alive = True
        self.processes: list[Process] = []
        self.task: Task | None = None

    def kill(self) -> None:
        """Memory is gone, and whatever runs in it."""
        if self.alive:
            self.alive = False
            for process in self.processes:
                process.kill(StoreError(f"{self.name} has died"))
            if self.task is not None:
                self.task.kill()


class Wire:
    """Delivers calls; `late` ones of old generations go to whoever has that place `now_at`."""

    def __init__(self, simulation: Simulation, profile: Profile) -> None:
        self._simulation = simulation
        self.profile = profile
        self._free_s: dict[tuple[object, str], float] = {}
        self.refused = 0

    def delay_s(self) -> float:
        """How long a message takes."""
        random = self._simulation.random
        scale = 40.0 if random.random() < 0.02 else 1.0
        return self.profile.delay_s * scale * random.expovariate(1.0)

    def call(
        self, caller: object, actor: Actor, function: Callable[[], Any], *, repeats: bool = False
    ) -> Promise:
        """Have the actor call `function`, which `repeats`: it may be made twice; its answer, or why there is none."""
        sim, profile, promise = self._simulation, self.profile, Promise()
        at_s = max(self._free_s.get((caller, actor.name), 0.0), sim.now_s + self.delay_s())
        if profile.strikes(sim, "lost"):
            is_heard = sim.random.random() < 0.5
            if is_heard:
                sim.after(at_s - sim.now_s, lambda: self._deliver(actor, function, Promise()))
            silence = StoreError(f"expected {actor.name} to answer within {CALL_TIMEOUT_S:g} s")
            sim.after(CALL_TIMEOUT_S, lambda: promise.settle(error=silence))
        else:
            if repeats and profile.strikes(
                sim, "repeated"
            ):  # the first answer was lost, and the call is made again
                first = Promise()
                sim.after(at_s - sim.now_s, lambda: self._deliver(actor, function, first))
                at_s += self.delay_s()
                promise.then(lambda: self._same(first, promise))
            sim.after(at_s - sim.now_s, lambda: self._deliver(actor, function, promise))
        self._free_s[caller, actor.name] = at_s
        return promise

    @staticmethod
    def _same(first: Promise, again: Promise) -> None:
        """What was done is not refused when it is asked for again."""
        refused = isinstance(again.error, StalePushError) and first.done and first.error is None
        assert not refused, f"a repeated push was refused: {again.error}"

    def _deliver(self, actor: Actor, function: Callable[[], Any], promise: Promise) -> None:
        sim = self._simulation
        value: Any = None
        error: Exception | None = None
        if actor.alive:
            try:
                value = function()
            except StoreError as refused:
                error = refused
                self.refused += isinstance(refused, StaleGenerationError)
            except AssertionError:
                raise
            except Exception as failed:  # noqa: BLE001 - raised at the caller
                error = failed
        else:
            error = StoreError(f"{actor.name} has died")
        sim.after(self.delay_s(), lambda: promise.settle(value, error))
