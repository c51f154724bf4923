"""Whole jobs in virtual time: whatever is delayed, lost, repeated, killed or full, what was learnt is the same.

A seed is a whole schedule. A failing one is printed, and is played again alone, event for event, by

    MILLRACE_SEED=1234 .venv/bin/python -m pytest tests/actors/test_simulation.py

MILLRACE_SCHEDULES says how many there are (1,000), MILLRACE_FIRST_SEED where they begin (0). What the simulation is
made of: simulation.py.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest

from learning.watching import Watching
from tests.actors.simulation_driver import Job
from tests.actors.simulation_schedules import job_of
from tests.actors.simulation_watching import PLAN
from tests.actors.simulation_worlds import WORLDS, world

SCHEDULES = int(os.environ.get("MILLRACE_SCHEDULES", "1000"))
FIRST = int(os.environ.get("MILLRACE_FIRST_SEED", "0"))
ONLY = os.environ.get("MILLRACE_SEED")
SEEDS = range(FIRST, FIRST + SCHEDULES) if ONLY is None else range(int(ONLY), int(ONLY) + 1)


def played(seed: int) -> Job:
    """The job of a seed, after it has come to its end; a failure says how to see it again."""
    job = job_of(seed)
    try:
        job.run()
    except Exception as error:
        raise AssertionError(
            f"seed {seed}, after {job.sim.steps} events ({'; '.join(job.happened) or 'nobody was killed'}): {error}\n"
            f"again: MILLRACE_SEED={seed} .venv/bin/python -m pytest tests/actors/test_simulation.py"
        ) from error
    return job


@pytest.mark.slow
@pytest.mark.timeout(60 + SCHEDULES)
@pytest.mark.parametrize("number", range(len(WORLDS)), ids=[*WORLDS])
def test_whatever_happens_what_is_learnt_is_the_same(number: int) -> None:
    """Workers, shards, coordinator and driver die at any moment, also while a snapshot is written and while the job
    comes back from another death; messages are late, lost, repeated, or of a generation that is gone; the disk is slow,
    full or damaged. Every snapshot equals what an undisturbed run has at its offsets, to the bit with one worker and in
    its counts with several; nothing is lost, counted twice, or waits for ever; predictions keep their places.
    """
    for seed in SEEDS:
        if seed % len(WORLDS) == number:
            played(seed)


def test_the_watched_world_has_something_to_remember() -> None:
    """Else the comparison of its snapshots would say nothing: a drift, a raise that fades, names, slices, figures."""
    prefixes = [*world("watched")._prefixes[0].values()]
    watching = [Watching(PLAN, prefix.watch, 1) for prefix in prefixes]
    assert {"drift", "joined"} <= {notice.event.kind for notice in watching[-1].notices}
    raised = [prefix.records for prefix, watch in zip(prefixes, watching, strict=True) if watch.raises]
    assert raised[0] < prefixes[-1].records - 40
    state = world("watched").state(prefixes[-1].state)
    assert sorted(state.feature_names.values()) == ["city", "price", "user", "visits"]
    assert state.statistics is not None
    assert state.statistics.records == 110
    assert sorted(state.slice_texts.values()) == ["v0", "v1"]


def test_a_seed_is_played_again_event_for_event() -> None:
    """Somebody looks for the cause of a failure: the second run takes the very same steps."""
    for seed in range(len(WORLDS)):
        first, again = job_of(seed), job_of(seed)
        for job in (first, again):
            job.run()
        assert (first.sim.steps, first.sim.now_s) == (again.sim.steps, again.sim.now_s)
        assert first.happened == again.happened
        assert first.sim.random.random() == again.sim.random.random()


def test_the_schedules_are_as_bad_as_they_are_said_to_be() -> None:
    """A hundred schedules: all that can happen does, or the others would prove less than they seem to."""
    jobs = [played(seed) for seed in range(100)]
    happened = " ".join(event for job in jobs for event in job.happened)
    for kind in ("worker", "shard", "coordinator", "driver", "stop", "ask", "resize"):
        assert happened.count(kind) > 3, kind
    written = [written for job in jobs for written in job.disk.snapshots.values()]
    assert sum(job.generations for job in jobs) > 200
    assert sum(job.resizes for job in jobs) > 5
    assert sum(job.wire.refused for job in jobs) > 30
    assert sum(one.moment.since > 0 for one in written) > 25
    accidents = sum((job.wire.profile.happened for job in jobs), Counter())
    kinds = ("lost", "repeated", "late", "full_disk", "no_stream", "damaged")
    assert min(accidents[kind] for kind in kinds) > 3, accidents
