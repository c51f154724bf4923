"""A shard applies each push once, hands out present rows, and carries a worker's walk into its next pull."""

from __future__ import annotations

import numpy as np
import pytest

from actors.shard import ParameterShard, StalePushError
from learning.batch import BatchId
from learning.exchange import Moment, Pull, Push, Rows, Wait
from learning.ftrl import Ftrl
from learning.policy import TablePolicy
from tests.direct import rows_by_key

KEYS = np.array([3, 5, 8], np.uint64)
FIRST, SECOND, THIRD = BatchId(0, 0, 10), BatchId(0, 10, 20), BatchId(0, 20, 30)
NO_PLACES = np.empty(0, np.int32)
MOMENT = Moment()


def pull(batch_id: BatchId, keys: np.ndarray = KEYS, carried: np.ndarray = NO_PLACES) -> Pull:
    """A pull of `keys`, the first of which are `carried` from the pull before; read-only, as after a journey."""
    keys.flags.writeable = False
    return Pull(batch_id, 10, float("nan"), (len(keys),), (len(carried),), keys, carried, None)


def ask(shard: ParameterShard, worker: int, push: Push | None, wanted: Pull) -> np.ndarray:
    """The rows of a pull that need not wait."""
    answer = shard.exchange(worker, MOMENT, push, wanted)
    assert isinstance(answer, Rows)
    assert answer.absent is None
    return answer.flat.reshape(-1, 2).copy()


def walked(rows: np.ndarray, by: float) -> np.ndarray:
    """Rows after some learning."""
    return rows + np.array([by, abs(by)], np.float32)


def push(batch_id: BatchId, end: np.ndarray) -> Push:
    """The push of end rows, read-only."""
    flat = end.ravel()
    flat.flags.writeable = False
    return Push(batch_id, flat, 1.0)


def test_a_push_that_comes_twice_counts_once() -> None:
    """Ray may run a call and still report it failed, so the worker repeats it."""
    shard = ParameterShard(0, Ftrl())
    end = walked(ask(shard, 0, None, pull(FIRST)), 1.0)
    shard.exchange(0, MOMENT, push(FIRST, end), None)
    shard.exchange(0, MOMENT, push(FIRST, end), None)
    assert np.array_equal(ask(shard, 0, None, pull(SECOND)), end)
    status = shard.status()
    assert status["tables"]["weights"]["rows"] == 3
    assert (status["pushes"], status["repeated_pushes"], status["moved_rows"]) == (1, 1, 0)


def test_a_pull_in_the_same_call_sees_the_push_before_it() -> None:
    """That is what makes one worker exact."""
    shard = ParameterShard(0, Ftrl())
    end = walked(ask(shard, 0, None, pull(FIRST)), 0.5)
    assert np.array_equal(ask(shard, 0, push(FIRST, end), pull(SECOND, KEYS[1:])), end[1:])


def test_a_pull_ahead_of_a_push_is_pushed_as_if_it_had_come_after_it() -> None:
    """Two pulls in flight, two of three keys in both: the second push finds no row moved, and the walks chain."""
    shard = ParameterShard(0, Ftrl())
    first = walked(ask(shard, 0, None, pull(FIRST)), 0.5)
    wanted = np.array([8, 3, 40], np.uint64)
    ahead = ask(shard, 0, None, pull(SECOND, wanted, carried=np.array([2, 0], np.int32)))
    assert not ahead.any(), "the pull came before the push"
    shard.exchange(0, MOMENT, push(FIRST, first), None)
    ahead[:2] = first[[2, 0]]  # what the worker does with the rows it has
    shard.exchange(0, MOMENT, push(SECOND, walked(ahead, 0.25)), None)
    assert shard.status()["moved_rows"] == 0
    rows = rows_by_key([shard])
    assert rows[8] == rows[3] == (0.75, 0.75)
    assert rows[5] == (0.5, 0.5)
    assert rows[40] == (0.25, 0.25)


def test_a_push_for_a_batch_that_was_never_pulled_is_refused_in_a_sentence() -> None:
    """A message of another life of the job must not reach the rows."""
    shard = ParameterShard(4, Ftrl())
    shard.exchange(1, MOMENT, None, pull(FIRST))
    with pytest.raises(
        StalePushError, match=r"shard 4 expected worker 1 .* came batch \[0\]@10..20 with 6 numbers"
    ):
        shard.exchange(1, MOMENT, push(SECOND, np.zeros((3, 2), np.float32)), None)


def test_two_workers_on_the_same_keys_are_merged_and_counted() -> None:
    """The second push finds moved rows; all its squared gradients count."""
    shard = ParameterShard(0, Ftrl())
    a = ask(shard, 0, None, pull(FIRST))
    b = ask(shard, 1, None, pull(BatchId(1, 0, 10)))
    shard.exchange(0, MOMENT, push(FIRST, walked(a, -1.0)), None)
    shard.exchange(1, MOMENT, push(BatchId(1, 0, 10), walked(b, -1.0)), None)
    rows = ask(shard, 0, None, pull(SECOND))
    status = shard.status()
    assert (status["moved_rows"], status["staleness_max"]) == (3, 10)
    assert np.all(rows[:, 1] == 2.0)
    once, both = (
        -0.5 * (1.0 + np.sqrt(2.0)),
        -(1.0 + np.sqrt(2.0)),
    )  # z at n = 2 of one walk's weight, and of two
    assert np.all((rows[:, 0] < once) & (rows[:, 0] > both))


def test_rows_handed_out_do_not_change_while_others_push() -> None:
    """A worker's base is its own copy."""
    shard = ParameterShard(0, Ftrl())
    mine = shard.exchange(0, MOMENT, None, pull(FIRST))
    assert isinstance(mine, Rows)
    before = mine.flat.copy()
    theirs = ask(shard, 1, None, pull(FIRST))
    shard.exchange(1, MOMENT, push(FIRST, walked(theirs, 2.0)), None)
    assert np.array_equal(mine.flat, before)


def test_a_pull_that_would_be_too_stale_waits_and_is_asked_again() -> None:
    """A bound of 15 records lets two pulls of 10 be open, until one of them is 10 behind."""
    shard = ParameterShard(0, Ftrl(), staleness_examples_max=15)
    end = walked(ask(shard, 0, None, pull(FIRST)), 1.0)
    ask(shard, 1, None, pull(BatchId(1, 0, 10)))
    assert shard.exchange(0, MOMENT, push(FIRST, end), pull(SECOND)) == Wait(10)
    assert shard.exchange(0, MOMENT, None, pull(SECOND)) == Wait(10)
    shard.exchange(1, MOMENT, push(BatchId(1, 0, 10), np.zeros((3, 2), np.float32)), None)
    assert np.array_equal(ask(shard, 0, None, pull(SECOND)), end)
    assert np.array_equal(ask(shard, 0, None, pull(SECOND)), end)
    shard.exchange(0, MOMENT, push(SECOND, end), None)
    status = shard.status()
    assert (status["waits"], status["staleness_max"]) == (2, 10)


def test_a_pull_that_is_asked_again_reads_its_rows_again_and_counts_once() -> None:
    """Another shard said wait: what this one gave is old by now, but its keys were seen, and its rows opened, once."""
    policy = TablePolicy(admit_after=2, admission="exact")
    shard = ParameterShard(1, Ftrl(), {"weights": policy})
    for _ in range(3):
        answer = shard.exchange(0, MOMENT, None, pull(FIRST))
        assert isinstance(answer, Rows)
        assert answer.absent is not None
        assert len(answer.absent[0]) == 3, "seen once, however often it is asked"
    kept, theirs = ParameterShard(1, Ftrl()), BatchId(1, 0, 10)
    ask(kept, 0, None, pull(FIRST))
    end = walked(ask(kept, 1, None, pull(theirs)), 1.0)
    kept.exchange(1, MOMENT, push(theirs, end), None)
    assert np.array_equal(ask(kept, 0, None, pull(FIRST)), end)
    kept.exchange(0, MOMENT, push(FIRST, end), None)
    assert kept.status()["moved_rows"] == 0, "the base is what was read last"


def test_a_question_whether_a_pull_may_come_in_opens_the_door_and_no_rows() -> None:
    """Who waits sends no keys; once it may come in, the pull itself is not held up by those who have come since."""
    shard = ParameterShard(0, Ftrl(), staleness_examples_max=0)
    question = Pull(SECOND, 10, float("nan"), (), (), np.empty(0, np.uint64), NO_PLACES, None)
    answer = shard.exchange(0, MOMENT, None, question)
    assert isinstance(answer, Rows)
    assert not len(answer.flat)
    assert shard.status()["tables"]["weights"]["rows"] == 0
    assert shard.exchange(1, MOMENT, None, pull(FIRST)) == Wait(0)
    assert not ask(shard, 0, None, pull(SECOND)).any()


def test_a_restored_shard_goes_on_from_the_state_and_forgets_open_pulls() -> None:
    """After a rollback an old push has nothing to come back to."""
    shard, other = ParameterShard(0, Ftrl()), ParameterShard(0, Ftrl())
    end = walked(ask(shard, 0, None, pull(FIRST)), 1.0)
    shard.exchange(0, MOMENT, push(FIRST, end), pull(SECOND))
    other.exchange(0, MOMENT, None, pull(SECOND))
    other.restore(shard.snapshot())
    with pytest.raises(StalePushError):
        other.exchange(0, MOMENT, push(SECOND, end), None)
    assert np.array_equal(ask(other, 0, None, pull(FIRST)), end)
