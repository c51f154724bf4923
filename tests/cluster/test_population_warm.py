"""After warm-up a population compiles nothing: half a minute in the stream would look like a stuck job."""

from __future__ import annotations

from cluster.local_store import DirectShards
from cluster.store import ShardedStore
from cluster.warm import warm_up
from learning import mixing, population_kernels, population_merge
from learning.merge import walk_coupling
from learning.population import Population
from tests.streams import cut, stream

KERNELS = (
    population_kernels.learn_population,
    population_kernels.predict_population,
    population_merge.merge_population,
    population_merge.merge_mixture,
    walk_coupling,
    mixing.open_mixture,
)


def test_nothing_is_compiled_once_a_job_runs() -> None:
    """Two workers who move each other's rows, over two shards: no kernel meets types that it has not met."""
    learner = Population()
    warm_up(learner)
    known = [len(kernel.signatures) for kernel in KERNELS]
    direct = DirectShards(2, learner)
    stores = [ShardedStore(worker, direct, learner) for worker in range(2)]
    for batch in cut(stream(500), 50):
        for store in stores:
            store.pull(batch)
        for store in stores:
            pulled = store.wait()
            learner.learn(pulled.tables, batch)
            store.push(pulled)
            store.flush()
    assert sum(shard.status()["moved_rows"] for shard in direct.shards) > 0
    assert [len(kernel.signatures) for kernel in KERNELS] == known
