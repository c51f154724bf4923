"""Reactions to drift: a job that crashes reacts at the same records as one that does not."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from learning.drift_adwin import Adwin
from learning.drift_events import WatchSettings
from learning.ftrl import Ftrl
from learning.observing import series_of
from learning.reactions import Forget, LookBack, RaiseRates, RaiseShare, Snapshot
from learning.watching import Watching, WatchPlan
from tests.actors.test_recovery import Disk, Job
from tests.streams import cut, stream

if TYPE_CHECKING:
    from learning.batch import Batch
    from learning.reactions import Reaction

RECORDS, SIZE = 4000, 25
SETTINGS = WatchSettings(block_records=8, window_records=512)


def watch(*reactions: Reaction, lag_records: int = 60) -> WatchPlan:
    """A watch that reacts to drifts."""
    return WatchPlan(Adwin(), series_of(()), SETTINGS, lag_records, drift=reactions, tables=(0,))


def drifting() -> list[Batch]:
    """A stream whose labels turn around in the middle."""
    whole = stream(RECORDS, seed=3)
    labels = np.where(np.arange(RECORDS) < RECORDS // 2, whole.labels, 1.0 - whole.labels)
    produced_s = -0.01 * np.arange(RECORDS, dtype=np.float64)
    return cut(replace(whole, labels=labels.astype(np.float32), produced_s=produced_s), SIZE)


def lived(batches: list[Batch], plan: WatchPlan | None, deaths: list[int | None], late: int = 0) -> Job:
    """A job over two shards that dies after so many batches of each generation."""
    job = Job(LEARNER, {}, batches, Disk(late=late), watch=plan)
    for generation, dies_after in enumerate(deaths, 1):
        job.live(generation, 2, dies_after)
    return job


LEARNER = Ftrl(alpha=0.05)


def notices(job: Job) -> list[str]:
    """What the watch of the job's last snapshot has to say."""
    state = job.disk.finished[max(job.disk.finished)].state
    return [str(notice) for notice in Watching(watch(), state.watch, 1).notices]


@pytest.mark.parametrize("late", [0, 4])
def test_a_job_that_crashes_raises_its_rates_at_the_same_records(late: int) -> None:
    """Before the drift, between drift and raise, while it is raised, while it fades: the end is the same."""
    batches = drifting()
    plan = watch(RaiseRates(factor=4.0, records=300, half_life_records=100.0), RaiseShare())
    calm = lived(batches, None, [None])
    job = lived(batches, plan, [70, 20, 9, 5, 3, 12, 30, None], late)
    undisturbed = lived(batches, plan, [None])
    job.assert_same(undisturbed)
    assert any("learning rates raised to 4 times" in notice for notice in notices(job))
    assert notices(job) == notices(undisturbed)
    first = next(at for at in sorted(calm.predictions) if (calm.predictions[at] != job.predictions[at]).any())
    assert first > RECORDS // 2, "nothing differs before the drift"
    half = [
        np.concatenate([p for at, p in sorted(of.predictions.items()) if at > first]) for of in (calm, job)
    ]
    labels = np.concatenate([b.labels for b in batches if b.batch_id.first_offset > first])
    losses = [-np.log(np.where(labels > 0.5, p, 1.0 - p)).mean() for p in half]
    assert losses[1] < losses[0], "it follows the drift faster"


def test_what_is_forgotten_at_a_snapshot_is_forgotten_after_a_crash_too() -> None:
    """Rows change right behind the snapshot, whether or not the job lives on."""
    batches = drifting()
    plan = watch(Forget(keep=0.01))
    undisturbed = lived(batches, plan, [None])
    changed = [n for n, on in undisturbed.disk.finished.items() if on.state.changes]
    assert changed, "the drift had something forgotten"
    records = undisturbed.disk.finished[changed[0]].state.records
    for behind in (1, 2, 6):
        job = lived(batches, plan, [records // SIZE + behind, None])
        job.assert_same(undisturbed)


def test_raising_what_is_raised_says_what_had_been_left() -> None:
    """No countdown begins anew in silence."""
    plan = watch(RaiseRates(factor=3.0, records=100_000, half_life_records=10.0))
    watching = Watching(plan, {}, 1)
    random = np.random.default_rng(0)
    for level in (0.1, 0.6, 2.0, 5.0):
        losses = random.normal(level, 0.05, 2000)
        watching.see(0, [(0, losses, np.zeros((2, 2000)))])  # type: ignore[list-item]
    told = [sentence for notice in watching.notices for sentence in notice.reactions]
    assert len(told) >= 2
    assert "before" not in told[0]
    assert all("raised before, 3 was left" in sentence for sentence in told[1:])


def test_a_watch_that_comes_back_from_its_arrays_says_the_same_to_the_bit() -> None:
    """Detectors, votes, raises and notices go on as if nothing had happened."""
    plan = watch(RaiseRates(), Snapshot(), LookBack())
    random = np.random.default_rng(1)
    rows = [
        (
            int(random.integers(3)),
            random.exponential(0.2 + 0.5 * (step > 150), 40),
            random.normal(size=(2, 40)),
        )
        for step in range(300)
    ]
    whole, part = Watching(plan, {}, 2), Watching(plan, {}, 2)
    wanted = [whole.see(row[0] % 2, [row]) for row in rows]  # type: ignore[list-item]
    found = []
    for step, row in enumerate(rows):
        if step % 7 == 0:
            before, heard = part.arrays(), dict(part.heard)
            part = Watching(plan, before, 2)
            assert {n: a.tobytes() for n, a in part.arrays().items()} == {
                n: a.tobytes() for n, a in before.items()
            }
            assert heard is not part.heard
        found.append(part.see(row[0] % 2, [row]))  # type: ignore[list-item]
    assert found == wanted
    assert [str(n) for n in part.notices] == [str(n) for n in whole.notices]
    assert any(snapshot and compare for snapshot, compare in wanted)
