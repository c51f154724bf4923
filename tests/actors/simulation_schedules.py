"""A seed is a schedule: which world, how bad it is, and when what happens, all of it is drawn from that one number."""

from __future__ import annotations

import random

from tests.actors.simulation_driver import Job
from tests.actors.simulation_wire import Profile
from tests.actors.simulation_worlds import WORLDS, world

__all__ = ["job_of"]


def job_of(seed: int) -> Job:
    """The job of a seed, ready to run; one in ten is left in peace."""
    choice = random.Random(seed * 7919 + 1).choice
    name = [*WORLDS][seed % len(WORLDS)]
    is_calm = choice((True, *[False] * 9))
    delay_s = choice((0.001, 0.005, 0.02))
    profile = Profile(
        delay_s=delay_s,
        lost=choice((0.0, 0.002, 0.01)),
        repeated=choice((0.0, 0.01, 0.1)),
        late=choice((0.0, 0.05, 0.2)),
        slow_disk_s=delay_s * choice((0.0, 1.0, 4.0, 12.0, 60.0)),
        full_disk=choice((0.0, 0.02, 0.1)),
        rows_max=choice((3, 6, 15, 60)),
        no_stream=choice((0.0, 0.0, 0.01)),
        damaged=choice((0.0, 0.1, 0.3)),
        budget=0 if is_calm else 12,
    )
    return Job(seed, world(name), profile, 0 if is_calm else choice((0, 1, 2, 3, 6)))
