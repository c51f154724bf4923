"""The simulation of benchmarks/merge.py computes what workers over ShardedStore do, in the same interleaving."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.merge import Stream, product, zipf_stream
from benchmarks.merge_rules import ORDERS, Simulation, moves
from cluster.local_store import DirectShards
from cluster.store import ShardedStore
from learning.ftrl import Ftrl
from learning.learner import TableRows

LEARNER = Ftrl(alpha=0.3, l1=0.1)
RECORDS, SIZE = 2000, 50


@pytest.fixture(scope="module")
def zipf() -> Stream:
    """A short Zipf stream."""
    return zipf_stream(RECORDS)


def simulated(zipf: Stream, workers: int, order: str) -> np.ndarray:
    """Predictions of the simulation."""
    return Simulation(zipf, LEARNER, product, workers, SIZE).run(order)


def driven(
    zipf: Stream, workers: int, *, in_flight: int, flushes: bool = False
) -> tuple[np.ndarray, list[int]]:
    """Predictions of stores over two shards, one turn after the other as Worker does it; staleness in batches."""
    shards = DirectShards(2, LEARNER)
    stores = [ShardedStore(worker, shards, LEARNER) for worker in range(workers)]
    batches = [batch for batch, _, _ in zipf.cut(SIZE)]
    predictions, staleness = [], []
    for store, batch in zip(stores, batches, strict=False):
        if in_flight == 2:
            store.pull(batch)
    for m, batch in enumerate(batches):
        store = stores[m % workers]
        if in_flight == 1:
            store.pull(batch)
        pulled = store.wait()
        if in_flight == 2 and m + workers < len(batches):
            store.pull(batches[m + workers])
        predictions.append(LEARNER.learn(pulled.tables, batch))
        store.push(pulled)
        if flushes:
            store.flush()
        staleness.append(shards.shards[0].status()["staleness_max"] // SIZE)
    return np.concatenate(predictions), staleness


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
def test_stores_that_pull_ahead_predict_what_the_simulation_does(zipf, workers) -> None:
    """cluster.pulls_in_flight_max 2, the default: what the order `ahead` says holds for the product, to the bit."""
    predictions, _ = driven(zipf, workers, in_flight=2)
    assert predictions.tobytes() == simulated(zipf, workers, "ahead").tobytes()


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
def test_stores_that_pull_after_their_push_predict_what_the_simulation_does(zipf, workers) -> None:
    """cluster.pulls_in_flight_max 1: what the order `turns` says holds for the product, to the bit."""
    predictions, _ = driven(zipf, workers, in_flight=1)
    assert predictions.tobytes() == simulated(zipf, workers, "turns").tobytes()


@pytest.mark.parametrize("order", ORDERS)
def test_one_worker_learns_sequentially_in_every_order(zipf, order) -> None:
    """The product's headline: with one worker nothing is merged and nothing is late."""
    rows = TableRows(zipf.fresh(), zipf.index, zipf.bias)
    assert simulated(zipf, 1, order).tobytes() == LEARNER.learn([rows], zipf.whole).tobytes()


def test_pulling_ahead_doubles_the_pushes_of_others_that_come_in_between(zipf) -> None:
    """Three workers: a push waits for the next pull, so 2 (W - 1) pushes of others come in between, not W - 1."""
    for in_flight, behind in ((1, 2), (2, 4)):
        _, staleness = driven(zipf, 3, in_flight=in_flight)
        assert max(staleness) == behind


def test_a_push_that_is_sent_at_once_makes_pulling_ahead_as_fresh_as_taking_turns(zipf) -> None:
    """A store that is flushed after each push: the own walk that is carried is all that the pull had missed."""
    predictions, staleness = driven(zipf, 3, in_flight=2, flushes=True)
    assert predictions.tobytes() == simulated(zipf, 3, "turns").tobytes()
    assert max(staleness) == 2


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("order", ORDERS)
def test_every_batch_is_pulled_learnt_and_pushed_in_this_order(workers, order) -> None:
    """An interleaving is only fair if it leaves nothing out; the last pushes change no prediction."""
    done = list(moves(order, 10, workers))
    for m in range(10):
        assert [move for move, of in done if of == m][:2] == ["pull", "learn"]
    pushes = [m for move, m in done if move == "push"]
    assert pushes == list(range(len(pushes)))
    assert len(pushes) >= 10 - workers
