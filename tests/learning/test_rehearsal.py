"""Old records that are learnt again: which are kept, which are drawn, and what that is good for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from learning.batch import Batch, BatchId
from learning.rehearsal import Rehearsal
from tests.learning.deep_world import SMALL, Rows, encoded, log_loss
from tests.streams import cut


def numbered(first: int, count: int) -> Batch:
    """Records whose weight is their number, from 1 on."""
    batch = encoded(count, seed=first)
    weights = np.arange(first + 1, first + 1 + count, dtype=np.float32)
    return replace(batch, weights=weights, batch_id=BatchId(0, first, first + count))


def test_each_record_seen_is_kept_with_the_same_probability() -> None:
    """Vitter's promise: 200 of 20,000 kept; each tenth of the stream has about a tenth of them."""
    kept = Rehearsal(200, 0.5)
    for first in range(0, 20_000, 500):
        kept.extend(numbered(first, 500))
    numbers = kept.arrays()["weights"]
    assert len(kept) == len(set(numbers.tolist())) == 200
    tenths = np.bincount(((numbers - 1) // 2000).astype(int), minlength=10)
    assert tenths.min() >= 8
    assert tenths.max() <= 36


def test_old_records_come_behind_the_batchs_own() -> None:
    """A quarter as many as the batch has, whole, with their labels; the batch itself is as it was."""
    kept = Rehearsal(100, 0.25, 2.0)
    first, second = numbered(0, 40), numbered(40, 40)
    assert kept.extend(first) is first, "nothing was seen before"
    found = kept.extend(second)
    assert len(found) == 50
    assert found.batch_id == second.batch_id
    assert found.keys[: second.entries].tobytes() == second.keys.tobytes()
    assert found.labels[:40].tobytes() == second.labels.tobytes()
    for i in range(40, 50):
        number = int(found.weights[i] / 2.0) - 1
        assert 0 <= number < 40
        old, new = slice(*first.offsets[number : number + 2]), slice(*found.offsets[i : i + 2])
        assert found.keys[new].tobytes() == first.keys[old].tobytes()
        assert found.values[new].tobytes() == first.values[old].tobytes()
        assert found.labels[i] == first.labels[number]


@pytest.mark.parametrize("at", [0, 1, 7])
def test_what_comes_back_from_a_snapshot_goes_on_as_if_nothing_had_been(at: int) -> None:
    """To the bit: the same records are kept, and the same are drawn."""
    whole = Rehearsal(60, 0.3)
    batches = cut(numbered(0, 1000), 50)
    for part in batches[:at]:
        whole.extend(part)
    again = Rehearsal(60, 0.3).like(whole.arrays())
    for part in batches[at:]:
        a, b = whole.extend(part), again.extend(part)
        assert a.keys.tobytes() == b.keys.tobytes()
        assert a.weights.tobytes() == b.weights.tobytes()
    for name, array in whole.arrays().items():
        assert array.tobytes() == again.arrays()[name].tobytes()


def test_arrays_that_are_none_of_a_sample_are_refused() -> None:
    """Of a damaged snapshot nothing is believed."""
    kept = Rehearsal(10, 0.5)
    kept.extend(numbered(0, 20))
    arrays = kept.arrays()
    for name, bad in (("offsets", arrays["offsets"][::-1].copy()), ("labels", arrays["labels"][:3])):
        with pytest.raises(ValueError, match="expected"):
            kept.like({**arrays, name: bad})


def test_workers_that_become_one_keep_a_sample_of_what_both_have_seen() -> None:
    """One has seen three times as much: about three quarters are its own, and there are no more than fit."""
    one, other = Rehearsal(400, 0.5), Rehearsal(400, 0.5)
    for first in range(0, 3000, 500):
        one.extend(numbered(first, 500))
    for first in range(10_000, 11_000, 500):
        other.extend(numbered(first, 500))
    one.merge(other)
    numbers = one.arrays()["weights"]
    assert len(numbers) == 400
    assert 0.65 < np.count_nonzero(numbers <= 3000) / 400 < 0.85
    assert int(one.arrays()["seen"][0]) == 4000


def test_what_was_learnt_is_forgotten_less() -> None:
    """The labels of a second stretch contradict the first: with rehearsal the first is still known better."""
    first, second = encoded(4000), encoded(4000, seed=1)
    second = replace(second, labels=1.0 - second.labels)
    losses = []
    for share in (0.0, 1.0):
        rows, kept = Rows(SMALL), Rehearsal(2000, share)
        for part in [*cut(first, 100), *cut(second, 100)]:
            rows.learn(kept.extend(part))
        losses.append(log_loss(rows.predict(first), first.labels))
    assert losses[1] < losses[0] - 0.1
