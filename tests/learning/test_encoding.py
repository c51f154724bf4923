"""Numbers are standardised in stream order, and statistics of parts merge to those of the whole."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learning.batch import CATEGORY, NUMBER, ROLE_FIRST, Batch
from learning.encoding import NumericEncoder, merge_stats
from learning.keys import derived_key
from tests.streams import COLUMNS, cut, stream


def numbers(batch: Batch, column: int) -> np.ndarray:
    """All raw values of a numeric column."""
    return batch.values.reshape(-1, COLUMNS)[:, column].astype(np.float64)


def test_each_number_becomes_its_z_score_so_far_and_a_bin_of_it() -> None:
    """Record t is standardised by the mean and deviation of records 0..t."""
    batch = stream(50)
    encoded = NumericEncoder(clip=6.0, bins_per_sd=3.0).encode(batch)
    assert encoded.entries == batch.entries + 2 * 50
    raw = numbers(batch, 0)
    for t in (1, 10, 49):
        z = (raw[t] - raw[: t + 1].mean()) / raw[: t + 1].std()
        at = encoded.offsets[t]
        np.testing.assert_allclose(encoded.values[at], z, rtol=1e-4)
        assert encoded.keys[at] == batch.keys[0]
        assert encoded.keys[at + 1] == derived_key(batch.keys[0], int(np.floor(z * 3)))
        assert encoded.values[at + 1] == 1.0


@given(st.integers(1, 60))
@settings(max_examples=20)
def test_where_batches_are_cut_changes_no_bit(size: int) -> None:
    """The encoder goes record by record."""
    whole = stream(60)
    expected = NumericEncoder().encode(whole)
    encoder = NumericEncoder()
    parts = [encoder.encode(part) for part in cut(whole, size)]
    assert np.array_equal(np.concatenate([p.keys for p in parts]), expected.keys)
    assert np.array_equal(np.concatenate([p.values for p in parts]), expected.values)


def test_statistics_of_four_workers_merge_to_those_of_one() -> None:
    """Chan's formula: count exact, mean and spread to 1e-12."""
    whole = stream(4000)
    one = NumericEncoder()
    one.encode(whole)
    states = []
    for part in cut(whole, 1000):
        encoder = NumericEncoder()
        encoder.encode(part)
        states.append(encoder.state())
    keys, stats = merge_stats(states)
    assert np.array_equal(keys, one.state()[0])
    assert np.array_equal(stats[:, 0], one.state()[1][:, 0])
    np.testing.assert_allclose(stats, one.state()[1], rtol=1e-12)


def test_the_statistics_of_a_single_worker_pass_through_the_merge_to_the_bit() -> None:
    """One worker must stay exact, also in what its snapshot says."""
    encoder = NumericEncoder()
    encoder.encode(stream(500))
    keys, stats = merge_stats([encoder.state()])
    assert np.array_equal(keys, encoder.state()[0])
    assert np.array_equal(stats, encoder.state()[1])


def test_scoring_leaves_the_statistics_alone() -> None:
    """A frozen encoder neither counts nor gives rows to unknown features."""
    encoder = NumericEncoder()
    encoder.encode(stream(100))
    before = encoder.state()
    encoder.encode(stream(100, seed=9, columns=9), frozen=True)
    assert np.array_equal(encoder.state()[1], before[1])


def test_a_constant_column_is_zero_and_one_bin() -> None:
    """No division by a deviation of zero."""
    batch = stream(20)
    constant = batch.with_entries(batch.keys, np.full_like(batch.values, 7.0), batch.kinds, batch.offsets)
    encoded = NumericEncoder(bins_per_sd=0).encode(constant)
    assert np.all(encoded.values.reshape(-1, COLUMNS)[:, :2] == 0.0)


def test_turned_off_the_encoder_passes_numbers_through() -> None:
    """standardize: false and no bins learn the number as it came."""
    batch = stream(20)
    encoded = NumericEncoder(standardize=False, bins_per_sd=0).encode(batch)
    assert np.array_equal(encoded.values, batch.values)
    assert np.array_equal(encoded.keys, batch.keys)


@pytest.mark.parametrize(
    "options",
    [{}, {"exact": True}, {"bins_per_sd": 0, "exact": True}, {"bins_per_sd": 0, "standardize": False}],
)
def test_what_a_number_becomes_is_of_the_numbers_feature(options: dict[str, Any]) -> None:
    """Every entry after encoding can be told to be of the feature that it was made of, whole numbers' as well."""
    batch = stream(50)
    values = batch.values.copy()
    values[::COLUMNS] = np.round(values[::COLUMNS])
    values[COLUMNS] = 2.0**24 + 2
    values[2 * COLUMNS] = -0.0
    features = np.where(batch.kinds == NUMBER, batch.keys, np.uint64(7))
    encoder = NumericEncoder(**options)
    encoded = encoder.encode(batch.with_entries(batch.keys, values, batch.kinds, batch.offsets, features))
    assert encoded.features is not None
    assert len(encoded.features) == encoded.entries
    of: dict[int, np.uint64] = {}
    for feature in batch.keys[:2]:
        of |= dict.fromkeys(
            [int(feature), *(int(derived_key(feature, number)) for number in range(-18, 18))], feature
        )
        exact = np.uint64(derived_key(feature, 2**62))
        of |= {int(derived_key(exact, number)): feature for number in range(-10, 20)}
    expected = [of.get(key, np.uint64(7)) for key in encoded.keys.tolist()]
    assert encoded.features.tolist() == expected
    assert encoder.encode(stream(3)).features is None


@pytest.mark.parametrize("encoder", [NumericEncoder(), NumericEncoder(standardize=False, bins_per_sd=0)])
def test_the_encoder_keeps_the_kind_of_roles_and_leaves_no_number(encoder: NumericEncoder) -> None:
    """A record's user and item go through unchanged, with or without encoding; what was a number is none any more."""
    batch = stream(30)
    kinds = batch.kinds.copy()
    kinds[2::COLUMNS], kinds[5::COLUMNS] = ROLE_FIRST, ROLE_FIRST + 1
    encoded = encoder.encode(replace(batch, kinds=kinds))
    assert encoded.kinds.dtype == np.uint8
    assert set(encoded.kinds.tolist()) == {CATEGORY, ROLE_FIRST, ROLE_FIRST + 1}
    for kind in (ROLE_FIRST, ROLE_FIRST + 1):
        at, was_at = encoded.kinds == kind, kinds == kind
        assert np.array_equal(encoded.keys[at], batch.keys[was_at])
        assert np.array_equal(encoded.values[at], batch.values[was_at])
