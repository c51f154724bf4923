"""The headline equality, without a cluster: any number of shards computes what one process computes."""

from __future__ import annotations

import numpy as np
import pytest

from actors.ports import DeadLetter
from cluster.local_store import DirectShards, LocalStore
from cluster.store import ShardedStore
from learning.batch import Batch
from learning.encoding import NumericEncoder
from learning.ftrl import Ftrl
from learning.job_messages import EndJob, TakeSnapshot
from learning.metrics import Prequential
from tests.direct import ListSource, Rig, coordinator_for, rows_by_key
from tests.streams import cut, stream

LEARNER = Ftrl(alpha=0.1, l1=0.2, l2=0.01)
RECORDS = 3000


def run_local(batches: list[Batch]) -> tuple[np.ndarray, dict[int, tuple[float, ...]]]:
    """Predictions and state of one process."""
    store = LocalStore(LEARNER)
    rig = Rig(LEARNER, store, ListSource(batches), coordinator_for(LEARNER))
    rig.build().run()
    return np.concatenate(rig.predicted.predictions), rows_by_key([store])


@pytest.mark.parametrize("shards", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [1, 7, 256, 4096])
@pytest.mark.parametrize("in_flight", [1, 2])
def test_one_worker_over_any_shards_equals_one_process_to_the_bit(
    shards: int, size: int, in_flight: int
) -> None:
    """Every prediction and every (z, n), for any cut of the stream into batches, pulled ahead or not."""
    expected, state = run_local([stream(RECORDS)])
    direct = DirectShards(shards, LEARNER)
    rig = Rig(
        LEARNER,
        ShardedStore(0, direct, LEARNER),
        ListSource(cut(stream(RECORDS), size)),
        coordinator_for(LEARNER),
        in_flight=in_flight,
    )
    rig.build().run()
    assert np.array_equal(np.concatenate(rig.predicted.predictions), expected)
    assert rows_by_key(direct.shards) == state


def test_snapshots_in_between_change_nothing_and_hold_whole_batches() -> None:
    """A barrier each 500 records: same predictions, and each snapshot's offsets are what was learnt."""
    expected, state = run_local([stream(RECORDS)])
    direct = DirectShards(2, LEARNER)
    coordinator = coordinator_for(LEARNER, interval_records=500)
    rig = Rig(LEARNER, ShardedStore(0, direct, LEARNER), ListSource(cut(stream(RECORDS), 100)), coordinator)
    rig.build().run()
    rig.carry_out()
    snapshots = [command for command in rig.commands if isinstance(command, TakeSnapshot)]
    assert len(snapshots) >= 4
    assert all(s.state.offsets == {0: s.state.records} for s in snapshots)
    assert all(s.state.workers[0]["encoder.stats"][0, 0] == s.state.records for s in snapshots), (
        "the encoder ran ahead of the offsets"
    )
    assert snapshots[-1].final
    assert np.array_equal(np.concatenate(rig.predicted.predictions), expected)
    assert rows_by_key(direct.shards) == state
    rig.carry_out()
    assert isinstance(rig.commands[-1], EndJob)


def test_dead_letters_and_learnt_records_add_up() -> None:
    """A batch brings two bad records, another holds nothing but a bad one."""
    batches = [
        *cut(stream(20), 10),
        Batch.empty(stream(1).batch_id._replace(first_offset=20, next_offset=21)),
    ]
    bad = [DeadLetter("topic", 0, offset, None, "label is missing", b"{}") for offset in (3, 4, 20)]
    source = ListSource(batches, {0: bad[:2], 2: bad[2:]})
    coordinator = coordinator_for(LEARNER)
    rig = Rig(LEARNER, LocalStore(LEARNER), source, coordinator)
    rig.build().run()
    status = coordinator.status()
    assert (status.records, status.dead, status.metrics.records) == (23, 3, 20)
    assert rig.letters.letters == bad
    assert rig.letters.flushes >= 1


def test_a_worker_that_is_told_to_stop_learns_what_it_has_in_hand() -> None:
    """No record that was polled is lost, and the offsets say where to go on."""
    coordinator = coordinator_for(LEARNER, records_max=100)
    rig = Rig(LEARNER, LocalStore(LEARNER), ListSource(cut(stream(1000), 50)), coordinator)
    rig.build().run()
    rig.carry_out()
    status = coordinator.status()
    assert 100 <= status.records <= 250
    command = rig.commands[0]
    assert isinstance(command, TakeSnapshot)
    assert command.state.offsets == {0: status.records} == {0: rig.source.given * 50}


def test_four_workers_over_stale_rows_stay_near_one_process() -> None:
    """All four pull, then all four learn and push, round after round: log-loss within 3 percent of sequential."""
    whole = stream(16_000)
    sequential = Prequential.zero()
    sequential.update(run_local([NumericEncoder().encode(whole)])[0], whole.labels)
    direct, merged = DirectShards(3, LEARNER), Prequential.zero()
    stores = [ShardedStore(worker, direct, LEARNER) for worker in range(4)]
    batches = cut(NumericEncoder().encode(whole), 250)
    for turn in range(0, len(batches), 4):
        together = list(zip(stores, batches[turn : turn + 4], strict=True))
        for store, batch in together:
            store.pull(batch)
        for store, batch in together:
            pulled = store.wait()
            merged.update(LEARNER.learn(pulled.tables, batch), batch.labels)
            store.push(pulled)
        for store in stores:
            store.flush()
    assert merged.records == 16_000
    assert sum(shard.status()["moved_rows"] for shard in direct.shards) > 1000
    assert merged.summary()["log_loss"] == pytest.approx(sequential.summary()["log_loss"], rel=0.03)
