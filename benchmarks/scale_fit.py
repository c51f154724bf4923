"""The cost model of docs/scaling.md, fitted to the measured jobs of benchmarks/scale.py by least squares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.scale_jobs import Case, Cost
from learning.learners import LEARNERS

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.scale_parts import Traffic

JOBS_MIN = 8
"""Fewer measured jobs would fit whatever they say."""

__all__ = ["fit", "print_fits", "shape"]


def shape(case: Case) -> Case:
    """What of a case decides how its batches and calls look."""
    return Case(case.topic, 2, 1, case.learner, case.batch_records, watched=False)


def fit(
    costs: list[Cost], role: str, terms: Callable[[Cost], dict[str, float]]
) -> tuple[dict[str, float], float]:
    """Least squares of a role's CPU seconds over its terms, none below 0; with the share that is not explained."""
    rows = [terms(cost) for cost in costs]
    names = list(rows[0])
    matrix = np.array([[row[name] for name in names] for row in rows])
    wanted = np.array([cost.used.cpu_s.get(role, 0.0) for cost in costs])
    kept = list(range(len(names)))
    while True:
        found = np.linalg.lstsq(matrix[:, kept], wanted, rcond=None)[0]
        if (found >= 0).all():
            break
        del kept[int(np.argmin(found))]
    missed = matrix[:, kept] @ found - wanted
    solved = dict.fromkeys(names, 0.0) | {
        names[k]: float(value) for k, value in zip(kept, found, strict=True)
    }
    return solved, float(np.sqrt((missed**2).sum() / (wanted**2).sum()))


def print_fits(costs: list[Cost], traffic: dict[Case, Traffic]) -> None:
    """Microseconds of each term, by learner and kind of message."""
    plain = [c for c in costs if c.case.watched and not c.case.turns and not c.case.snapshot_records]

    def shard(cost: Cost) -> dict[str, float]:
        t = traffic[shape(cost.case)]
        return {"process": cost.case.shards, "call": t.batches * cost.case.shards, "key": t.keys}

    def worker(cost: Cost) -> dict[str, float]:
        t, is_json = traffic[shape(cost.case)], cost.case.topic.endswith("json")
        return {
            "process": cost.case.workers,
            "record": cost.records,
            "JSON record more": cost.records * is_json,
            "batch": t.batches,
            "call": t.batches * cost.case.shards,
            "key": t.keys,
        }

    for learner in sorted({c.case.learner for c in plain} & set(LEARNERS)):
        those = [c for c in plain if c.case.learner == learner]
        if len(those) < JOBS_MIN:
            continue
        kinds: dict[str, Any] = {"shard": shard}
        if learner == "population":  # of the other there are too few for so many terms
            kinds["worker"] = worker
        for role, terms in kinds.items():
            solved, missed = fit(those, role, terms)
            told = ", ".join(f"{value * 1e6:,.2f} us a {name}" for name, value in solved.items())
            print(f"{learner}, {role}: {told}; {len(those)} jobs, {missed:.0%} unexplained")
