"""A shard applies each push once and hands out present rows."""

from __future__ import annotations

import numpy as np
import pytest

from actors.shard import ParameterShard, StalePushError
from learning.batch import BatchId
from learning.ftrl import Ftrl

KEYS = np.array([3, 5, 8], np.uint64)
FIRST, SECOND = BatchId(0, 0, 10), BatchId(0, 10, 20)


def walked(rows: np.ndarray, by: float) -> np.ndarray:
    """Rows after some learning."""
    return rows + np.array([by, abs(by)], np.float32)


def test_a_push_that_comes_twice_counts_once() -> None:
    """Ray may run a call and still report it failed, so the worker repeats it."""
    shard = ParameterShard(0, Ftrl())
    rows = shard.exchange(0, None, (FIRST, KEYS))
    end = walked(rows, 1.0)
    shard.exchange(0, (FIRST, end, 1.0), None)
    shard.exchange(0, (FIRST, end, 1.0), None)
    again = shard.exchange(0, None, (SECOND, KEYS))
    assert np.array_equal(again, end)
    status = shard.status()
    assert (status["rows"], status["pushes"], status["repeated_pushes"], status["moved_rows"]) == (3, 1, 1, 0)


def test_a_pull_in_the_same_call_sees_the_push_before_it() -> None:
    """That is what makes one worker exact."""
    shard = ParameterShard(0, Ftrl())
    end = walked(shard.exchange(0, None, (FIRST, KEYS)), 0.5)
    assert np.array_equal(shard.exchange(0, (FIRST, end, 1.0), (SECOND, KEYS[1:])), end[1:])


def test_a_push_for_a_batch_that_was_never_pulled_is_refused_in_a_sentence() -> None:
    """A message of another life of the job must not reach the rows."""
    shard = ParameterShard(4, Ftrl())
    shard.exchange(1, None, (FIRST, KEYS))
    with pytest.raises(
        StalePushError, match=r"shard 4 expected worker 1 .* came batch \[0\]@10..20 with 3 rows"
    ):
        shard.exchange(1, (SECOND, np.zeros((3, 2), np.float32), 1.0), None)


def test_two_workers_on_the_same_keys_are_merged_and_counted() -> None:
    """The second push finds moved rows; all its squared gradients count."""
    shard = ParameterShard(0, Ftrl())
    a = shard.exchange(0, None, (FIRST, KEYS))
    b = shard.exchange(1, None, (BatchId(1, 0, 10), KEYS))
    shard.exchange(0, (FIRST, walked(a, -1.0), 1.0), None)
    shard.exchange(1, (BatchId(1, 0, 10), walked(b, -1.0), 1.0), None)
    rows = shard.exchange(0, None, (SECOND, KEYS))
    assert shard.status()["moved_rows"] == 3
    assert np.all(rows[:, 1] == 2.0)
    once, both = (
        -0.5 * (1.0 + np.sqrt(2.0)),
        -(1.0 + np.sqrt(2.0)),
    )  # z at n = 2 of one walk's weight, and of two
    assert np.all((rows[:, 0] < once) & (rows[:, 0] > both))


def test_rows_handed_out_do_not_change_while_others_push() -> None:
    """A worker's base is its own copy."""
    shard = ParameterShard(0, Ftrl())
    mine = shard.exchange(0, None, (FIRST, KEYS))
    before = mine.copy()
    theirs = shard.exchange(1, None, (FIRST, KEYS))
    shard.exchange(1, (FIRST, walked(theirs, 2.0), 1.0), None)
    assert np.array_equal(mine, before)


def test_a_restored_shard_goes_on_from_the_state_and_forgets_open_pulls() -> None:
    """After a rollback an old push has nothing to come back to."""
    shard, other = ParameterShard(0, Ftrl()), ParameterShard(0, Ftrl())
    end = walked(shard.exchange(0, None, (FIRST, KEYS)), 1.0)
    shard.exchange(0, (FIRST, end, 1.0), (SECOND, KEYS))
    other.exchange(0, None, (SECOND, KEYS))
    other.restore(*shard.snapshot())
    with pytest.raises(StalePushError):
        other.exchange(0, (SECOND, end, 1.0), None)
    assert np.array_equal(other.exchange(0, None, (FIRST, KEYS)), end)
