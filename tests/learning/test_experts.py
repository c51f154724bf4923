"""Weights over experts: no look at the label, the regret that is promised, reactions, and experts that come and go."""

from __future__ import annotations

import math
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learning.experts import Experts, regret_bound
from learning.experts_rules import RULES, BestRecent, FixedShare, Hedge, InverseError


def stream(seed: int, n: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Predictions f64 (n, k) and labels f32 (n,); the best expert changes halfway."""
    rng = np.random.default_rng(seed)
    p = rng.random(n)
    y = (rng.random(n) < p).astype(np.float32)
    noise = np.where(np.arange(n)[:, None] < n // 2, np.arange(k), np.arange(k)[::-1]) / k
    return np.clip(p[:, None] + noise * rng.normal(0, 1, (n, k)), 0.01, 0.99), y


def cost(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Log-losses, for f64 (n,) or (n, k)."""
    y = labels.astype(np.float64).reshape(-1, *[1] * (predictions.ndim - 1))
    return np.asarray(-(y * np.log(predictions) + (1 - y) * np.log1p(-predictions)))


@pytest.mark.parametrize("name", RULES)
@given(flip=st.integers(0, 59))
def test_no_prediction_depends_on_its_own_label_or_a_later_one(name: str, flip: int) -> None:
    """Any label is turned round: the mixture up to and with that record is the same to the bit, and then differs."""
    p, y = stream(1, 60, 3)
    turned = y.copy()
    turned[flip] = 1 - turned[flip]
    first, second = Experts(3, RULES[name]()).learn(p, y), Experts(3, RULES[name]()).learn(p, turned)
    np.testing.assert_array_equal(first[: flip + 1], second[: flip + 1])


@pytest.mark.parametrize("name", RULES)
def test_labels_against_the_mixture_cost_a_bit_each(name: str) -> None:
    """An adversary answers each mixture with the less likely label: who saw the label first would lose far less.

    Two experts are sure, of opposite labels, so one of them is always right: weights that had seen the label would
    pay next to nothing, and honest ones pay ln 2 or more each time.
    """
    experts = Experts(2, RULES[name]())
    p = np.array([[0.999, 0.001]])
    total = 0.0
    for _ in range(200):
        mixed = experts.mix(p)
        label = np.array([mixed[0] < 0.5], np.float32)
        got = experts.learn(p, label)
        np.testing.assert_array_equal(got, mixed)
        total += cost(got, label)[0]
    assert total >= 200 * math.log(2) * 0.999


def test_the_adversary_would_notice_a_leak() -> None:
    """The same game with weights that take the label first, as update-then-predict does: it costs half of that."""
    experts, total = Experts(2), 0.0
    p = np.array([[0.999, 0.001]])
    for _ in range(200):
        label = np.array([experts.mix(p)[0] < 0.5], np.float32)
        experts.update(cost(p, label))
        total += cost(experts.mix(p), label)[0]
    assert total < 0.5 * 200 * math.log(2)


@pytest.mark.parametrize("name", RULES)
def test_weights_begin_uniform_and_sum_to_one(name: str) -> None:
    """Before any label, and after many, with losses of all sizes."""
    experts = Experts(4, RULES[name]())
    np.testing.assert_allclose(experts.weights(), 0.25, rtol=1e-15)
    for losses in np.random.default_rng(0).lognormal(0, 3, (200, 4)):
        experts.update(losses)
        assert experts.weights().sum() == pytest.approx(1.0)
        assert (experts.weights() >= 0).all()


@pytest.mark.parametrize(("share", "seed"), [(0.3, 0), (0.05, 1), (0.9, 2)])
def test_fixed_share_is_the_mixture_over_all_sequences_of_experts(share: float, seed: int) -> None:
    """All 3^7 sequences of three experts by hand: the same total loss, and none is better by more than allowed."""
    p, y = stream(seed, 7, 3)
    rule = FixedShare(share=share)
    ours = cost(Experts(3, rule).learn(p, y), y).sum()
    each = cost(p, y)
    prior = np.full((3, 3), share / 3) + np.eye(3) * (1 - share)
    evidence = 0.0
    for sequence in product(range(3), repeat=7):
        steps = list(pairwise(sequence))
        loss = sum(each[t, k] for t, k in enumerate(sequence))
        evidence += math.exp(-loss) / 3 * math.prod(prior[step] for step in steps)
        switches = sum(a != b for a, b in steps)
        assert ours <= loss + regret_bound(7, switches, 3, rule) + 1e-12
    assert ours == pytest.approx(-math.log(evidence), rel=1e-12)


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_a_smaller_eta_keeps_its_own_bound(eta: float) -> None:
    """Log-loss is mixable for every eta up to 1, so the bound over eta holds for every sequence."""
    for seed in range(5):
        p, y = stream(seed, 6, 3)
        rule = FixedShare(eta=eta, share=0.1)
        ours, each = cost(Experts(3, rule).learn(p, y), y).sum(), cost(p, y)
        for sequence in product(range(3), repeat=6):
            switches = sum(a != b for a, b in pairwise(sequence))
            assert ours <= each[range(6), sequence].sum() + regret_bound(6, switches, 3, rule) + 1e-12


def test_hedge_loses_at_most_ln_k_against_the_best() -> None:
    """Any stream, any length: Bayes' mixture."""
    for seed in range(10):
        p, y = stream(seed, 500, 5)
        ours = cost(Experts(5, Hedge()).learn(p, y), y).sum()
        assert ours <= cost(p, y).sum(axis=0).min() + math.log(5) + 1e-9


def test_fixed_share_follows_a_change_that_hedge_does_not() -> None:
    """The best becomes the worst halfway through 4,000 records."""
    p, y = stream(3, 4000, 5)
    late = {
        rule.name: cost(Experts(5, rule).learn(p, y), y)[2000:].mean() for rule in (FixedShare(), Hedge())
    }
    best = cost(p, y)[2000:].mean(axis=0).min()
    assert late["fixed_share"] < best + 0.02
    assert late["hedge"] > best + 0.1


@pytest.mark.parametrize("name", RULES)
@given(cuts=st.lists(st.integers(1, 40), max_size=8))
def test_the_numbers_do_not_see_where_batches_are_cut(name: str, cuts: list[int]) -> None:
    """Mixtures, weights: the same to the bit; so is update() with the same losses."""
    p, y = stream(4, 120, 3)
    whole, parts, by_losses = (Experts(3, RULES[name]()) for _ in range(3))
    mixed, seen = [], 0
    for cut in [*cuts, 120]:
        mixed.append(parts.learn(p[seen : seen + cut], y[seen : seen + cut]))
        seen = min(seen + cut, 120)
    np.testing.assert_array_equal(np.concatenate(mixed), whole.learn(p, y))
    by_losses.update(cost(p, y))
    np.testing.assert_allclose(by_losses.weights(), whole.weights(), rtol=1e-9)
    for array, other in zip(whole.arrays().values(), parts.arrays().values(), strict=True):
        assert array.tobytes() == other.tobytes()


@pytest.mark.parametrize("name", RULES)
def test_experts_come_back_from_their_arrays_bit_for_bit(name: str) -> None:
    """Written in the middle, after experts came and went: the rest is the same."""
    p, y = stream(5, 400, 3)
    whole = Experts(3, RULES[name]())
    whole.remove(1)
    whole.spawn(parent=2)
    whole.learn(p[:200], y[:200])
    arrays = {k: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape) for k, a in whole.arrays().items()}
    restored = Experts.of(arrays, RULES[name]())
    np.testing.assert_array_equal(restored.learn(p[200:], y[200:]), whole.learn(p[200:], y[200:]))
    assert restored.ids.tolist() == [0, 2, 3]
    assert restored.spawn() == whole.spawn() == 4
    with pytest.raises(ValueError, match="expected state"):
        Experts.of(arrays | {"state": arrays["state"][:, :2]})


def test_losses_of_an_interval_count_as_their_sum() -> None:
    """Under hedge, 100 records one by one or as one sum: the same weights; the share is that of 100 records."""
    p, y = stream(6, 100, 3)
    single, summed = Experts(3, Hedge()), Experts(3, Hedge())
    single.update(cost(p, y))
    summed.update(cost(p, y).sum(axis=0), records=100)
    np.testing.assert_allclose(summed.weights(), single.weights(), rtol=1e-9)
    shared = Experts(2, FixedShare(share=0.01))
    shared.update(np.array([0.0, 1e9]), records=100)
    assert shared.weights()[1] == pytest.approx((1 - 0.99**100) / 2)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("parent", [None, 2])
def test_an_expert_that_comes_does_not_make_predictions_jump(name: str, parent: int | None) -> None:
    """A copy of another, or a fresh one without weight: the next mixture is what it would have been without it."""
    if name == "hedge" and parent is None:
        pytest.skip("hedge gives a fresh expert weight at once; see the next test")
    p, y = stream(7, 300, 3)
    experts = Experts(3, RULES[name]())
    experts.learn(p[:200], y[:200])
    before = experts.mix(p[200:])
    new = experts.spawn(parent)
    fresh = p[200:, 2] if parent == 2 else np.full(100, 0.9)
    wide = np.column_stack((p[200:], fresh))
    np.testing.assert_allclose(experts.mix(wide), before, rtol=1e-12)
    mixed = experts.learn(wide, y[200:])
    assert np.isfinite(mixed).all()
    assert experts.ids.tolist() == [0, 1, 2, new]
    assert experts.weights().sum() == pytest.approx(1.0)


def test_a_mass_moves_predictions_by_no_more_than_it_says() -> None:
    """q |p_new - p_mixed| at most, when it comes; w |p_removed - p_others|, when one goes."""
    p, y = stream(8, 300, 3)
    for rule in (Hedge(), FixedShare()):
        experts = Experts(3, rule)
        experts.learn(p[:200], y[:200])
        before = experts.mix(p[200:])
        new = experts.spawn(mass=0.2)
        wide = np.column_stack((p[200:], np.full(100, 0.9)))
        after = experts.mix(wide)
        assert (np.abs(after - before) <= 0.2 * np.abs(0.9 - before) + 1e-12).all()
        assert experts.remove(new) == pytest.approx(0.2)
        np.testing.assert_allclose(experts.mix(p[200:]), before, rtol=1e-12)
    assert Experts(3, Hedge()).spawn() == 3


def test_a_fresh_expert_that_is_better_takes_over() -> None:
    """Under every rule it gets the weight that it earns, although it began with none."""
    y = (np.random.default_rng(0).random(6000) < 0.5).astype(np.float32)
    bad, good = np.full((6000, 2), 0.5), np.abs(y - 0.1).astype(np.float64)
    for rule in (FixedShare(), Hedge(), InverseError(), BestRecent()):
        experts = Experts(2, rule)
        experts.learn(bad[:3000], y[:3000])
        experts.spawn()
        experts.learn(np.column_stack((bad, good))[3000:], y[3000:])
        assert experts.weights()[2] > 0.6


def test_an_expert_that_is_lost_is_left_out_of_the_mixture_and_pays() -> None:
    """NaN predictions: the mixture is of the others, and the weight goes."""
    p = np.column_stack((np.full(50, 0.6), np.full(50, np.nan)))
    experts = Experts(2)
    mixed = experts.learn(p, np.ones(50, np.float32))
    np.testing.assert_allclose(mixed, 0.6)
    assert experts.weights()[1] < 0.01
    assert math.isnan(experts.mix(np.full((1, 2), np.nan))[0])
    squared = Experts(2, squared=True)
    squared.learn(np.column_stack((np.full(50, 3.0), np.full(50, np.nan))), np.full(50, 3.0, np.float32))
    assert squared.weights()[1] < 0.01


def test_equal_experts_share_and_removing_goes_on() -> None:
    """best_recent with ties; the last expert stays; unknown ids are named."""
    experts = Experts(3, BestRecent())
    experts.update(np.array([[0.1, 0.1, 0.2]]))
    assert experts.weights().tolist() == [0.5, 0.5, 0.0]
    experts.remove(0)
    experts.remove(1)
    assert experts.weights().tolist() == [1.0]
    with pytest.raises(ValueError, match="last expert"):
        experts.remove(2)
    with pytest.raises(ValueError, match="id of one"):
        experts.remove(7)
    with pytest.raises(ValueError, match="columns of 1 experts"):
        experts.mix(np.zeros((2, 3)))
