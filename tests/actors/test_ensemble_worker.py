"""An ensemble over shards, through workers, barriers and crashes: the same numbers, to the bit, as one process."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from cluster.local_store import DirectShards, LocalStore
from cluster.store import ShardedStore
from learning.batch import BatchId
from learning.coordination import Brain
from learning.drift_adwin import Adwin
from learning.drift_events import WatchSettings
from learning.encoding import NumericEncoder
from learning.ensemble import Ensemble, Expert
from learning.ensemble_state import EnsembleState, Sharing, of_all_workers
from learning.ftrl import Ftrl
from learning.job_messages import Arrived, Reported, SnapshotAsked, SnapshotWritten, TakeSnapshot
from learning.job_state import JobPlan, JobState
from learning.metrics import DelayHistogram, Prequential
from learning.mixer import Mixing
from learning.observing import series_of
from learning.population import Population
from learning.river_build import RiverSettings
from learning.watching import Watching, WatchPlan
from learning.worker_state import WorkerState
from tests.learning.river_models import records

pytestmark = pytest.mark.filterwarnings("ignore")

TREE = RiverSettings("river.tree.HoeffdingTreeClassifier", {"grace_period": 50})
EXPERTS = (Expert("slow", Ftrl(alpha=0.05)), Expert("tree", TREE), Expert("all", Population()))
WEIGHTED = Ensemble(EXPERTS)
CHOSEN = Ensemble(EXPERTS, Mixing("thompson"))
BOTH = [pytest.param(WEIGHTED, id="fixed_share"), pytest.param(CHOSEN, id="thompson")]
BATCHES = 6


def batch_at(i: int, n: int = 100) -> Any:
    return dataclasses.replace(records(n, i), batch_id=BatchId(0, n * i, n * i + n))


def state_of(ensemble: Ensemble, worker: int = 0) -> WorkerState:
    return WorkerState(NumericEncoder(), ensemble=EnsembleState(ensemble, worker))


def step(ensemble: Ensemble, store: Any, state: WorkerState, i: int) -> list[float]:
    """One batch as a worker takes it through: its mixed predictions."""
    batch = state.prepare(batch_at(i))
    store.pull(batch)
    pulled = store.wait()
    mixed = state.mix(ensemble.learn(pulled.tables, batch), batch)
    store.push(pulled)
    store.flush()
    return list(mixed.predictions)


@pytest.mark.parametrize("ensemble", BOTH)
@pytest.mark.parametrize("shards", [1, 3])
def test_shards_change_no_bit(ensemble: Ensemble, shards: int) -> None:
    """One worker over any number of shards predicts and ends as one process does."""
    local, over = LocalStore(ensemble), ShardedStore(0, DirectShards(shards, ensemble), ensemble)
    here, there = state_of(ensemble), state_of(ensemble)
    for i in range(BATCHES):
        assert step(ensemble, local, here, i) == step(ensemble, over, there, i)
    one, other = here.arrays(), there.arrays()
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("ensemble", BOTH)
def test_a_crash_changes_nothing(ensemble: Ensemble) -> None:
    """Tables and state are saved after three batches and loaded by others: the next three are as undisturbed."""
    store, state = LocalStore(ensemble), state_of(ensemble)
    for i in range(3):
        step(ensemble, store, state, i)
    saved, tables = state.arrays(), store.snapshot()
    undisturbed = [step(ensemble, store, state, i) for i in range(3, BATCHES)]
    again, after = LocalStore(ensemble), state_of(ensemble)
    again.restore(tables)
    after.restore(saved)
    assert [step(ensemble, again, after, i) for i in range(3, BATCHES)] == undisturbed


def test_workers_go_on_with_one_mixer_after_a_barrier() -> None:
    """Two workers of their own records: after the barrier both weigh experts alike, and nothing is counted twice."""
    stores = [LocalStore(WEIGHTED) for _ in range(2)]
    states = [state_of(WEIGHTED, worker) for worker in range(2)]
    sharing = Sharing(WEIGHTED, {})
    for i in range(4):
        step(WEIGHTED, stores[i % 2], states[i % 2], i)
    for _ in range(2):  # at the second barrier nobody has learnt anything since the first
        joined = sharing.join({worker: state.arrays() for worker, state in enumerate(states)})
        for state in states:
            assert state.ensemble is not None
            state.ensemble.begin(sharing.shared, ())
            assert state.ensemble.mixer.records == 400
        first, second = (joined[worker]["mixer.weights.state"] for worker in range(2))
        assert first.tolist() == second.tolist()
    shown = of_all_workers(joined.values())
    assert shown.keys() == {name for name in joined[0] if name.startswith(("mixer.", "experts."))}


def test_one_worker_shares_with_nobody() -> None:
    """A barrier of a job with one worker: its state is what it was, to the bit, and no directive carries a mixer."""
    store, state, sharing = LocalStore(WEIGHTED), state_of(WEIGHTED), Sharing(WEIGHTED, {})
    step(WEIGHTED, store, state, 0)
    before = state.arrays()
    after = sharing.join({0: before})[0]
    assert sharing.shared == {}
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_an_expert_begins_afresh_everywhere() -> None:
    """A reaction renews river's tree: its model has learnt nothing, its weight is 0, and the next barrier agrees."""
    stores, sharing = [LocalStore(WEIGHTED) for _ in range(2)], Sharing(WEIGHTED, {})
    states = [state_of(WEIGHTED, worker) for worker in range(2)]
    for i in range(4):
        step(WEIGHTED, stores[i % 2], states[i % 2], i)
    sharing.join({worker: state.arrays() for worker, state in enumerate(states)})
    sharing.renew(("tree",))
    for state in states:
        assert state.ensemble is not None
        state.ensemble.begin(sharing.shared, ("tree",))
        assert state.ensemble.experts["tree"].records == 0
        assert state.ensemble.mixer.weights()["tree"] == 0.0
    first = states[0].ensemble
    assert first is not None
    weights = first.mixer.weights()
    joined = sharing.join({worker: state.arrays() for worker, state in enumerate(states)})
    states[0].restore(joined[0])
    assert first.mixer.weights() == pytest.approx(weights, abs=1e-3)


@pytest.mark.parametrize("rule", ["fixed_share", "hedge", "best_recent", "thompson"])
def test_a_renewal_holds_for_workers_that_have_finished(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Worker 1 has finished when river's tree is renewed: no later barrier brings back its weight, or worker 1's tree.

    At the second barrier worker 0 has learnt nothing since the renewal, so what is joined is what it holds.
    """
    ensemble = Ensemble(EXPERTS, Mixing(rule))
    stores, states = [LocalStore(ensemble) for _ in range(2)], [state_of(ensemble, w) for w in range(2)]
    start = JobState(0, {}, 0, 0, Prequential.zero())
    watch = WatchPlan(Adwin(), series_of(()), WatchSettings(), 60, experts=ensemble.tables_of_experts)
    brain = Brain(JobPlan([(0,), (1,)], start, watch=watch, ensemble=ensemble))
    for i in range(6):
        step(ensemble, stores[i > 1], states[i > 1], i)  # of the two, worker 1 has learnt most
    brain.handle(Arrived(1, 1, 0, states[1].arrays(), finished=True))
    with monkeypatch.context() as drifted:
        drifted.setattr(Watching, "take_changes", lambda _: ((), ("tree",)))
        barrier(brain, states[0])
    live = states[0].ensemble
    assert live is not None
    live.begin(brain.directive.shared, brain.directive.renewed)
    renewed = live.mixer.weights()
    assert brain.handle(SnapshotWritten(1, 100)) == []
    state = barrier(brain, states[0])
    joined = state_of(ensemble)
    joined.restore(state.workers[0])
    assert joined.ensemble is not None
    assert joined.ensemble.mixer.weights() == renewed
    assert of_all_workers(state.workers.values())["experts.tree.records"].tolist() == [0, 0]


def barrier(brain: Brain, state: WorkerState) -> JobState:
    """Somebody asks for a snapshot, and worker 0 arrives at its barrier."""
    metrics = Prequential.zero()
    metrics.update(np.array([0.5]), np.ones(1, np.float32))
    brain.handle(Reported(0, 1, metrics, DelayHistogram(), 0, [BatchId(0, 0, 1)], {}))
    brain.handle(SnapshotAsked())
    (taken,) = brain.handle(Arrived(0, 1, brain.directive.barrier, state.arrays(), finished=False))
    assert isinstance(taken, TakeSnapshot)
    return taken.state


def test_a_state_of_another_ensemble_is_refused() -> None:
    """A snapshot of a job with other experts."""
    other = Ensemble((Expert("slow", Ftrl()), Expert("oak", TREE), Expert("all", Population())))
    with pytest.raises(ValueError, match="expected what an ensemble of slow, oak, all knows"):
        state_of(other).restore(state_of(WEIGHTED).arrays())
