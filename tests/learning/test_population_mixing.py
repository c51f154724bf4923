"""The mixture keeps its promises: regret, following a drift, and forgetting that moves no prediction."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learning.mixing import share_out
from learning.population import Population
from tests.learning.population_world import features_of, learn_all, log_loss, rows_of
from tests.streams import cut, stream

LOSS_MAX = 8.0


def mixed_loss(losses: np.ndarray, share: float) -> float:
    """Log-loss of the mixture of experts with these losses (n, E)."""
    shares = np.full(losses.shape[1], 1.0 / losses.shape[1], np.float32)
    total = 0.0
    for each in losses:
        likelihoods = np.exp(-each)
        total -= math.log(float(likelihoods @ shares) / float(shares.sum()))
        share_out(shares, likelihoods, share)
    return total


def best_path(losses: np.ndarray, share: float) -> float:
    """By brute force over all sequences of experts: the least loss plus the price of the sequence."""
    experts = losses.shape[1]
    move = -math.log(share / experts) if share > 0.0 else math.inf
    stay = -math.log(1.0 - share + share / experts)
    cost = losses[0] + math.log(experts)
    for each in losses[1:]:
        cost = np.minimum(cost + stay, cost.min() + move) + each
    return float(cost.min())


@given(st.integers(0, 2**31), st.integers(1, 9), st.sampled_from([0.0, 1e-4, 0.05]))
@settings(max_examples=40)
def test_regret_against_the_best_sequence_is_at_most_its_price(seed: int, experts: int, share: float) -> None:
    """ln K for one expert throughout, ln K / share more for each change: Herbster and Warmuth's bound."""
    rng = np.random.default_rng(seed)
    losses = rng.uniform(0.0, LOSS_MAX, size=(200, experts)) * rng.uniform(0.0, 1.0, size=experts)
    losses[:100] = losses[:100, ::-1] if seed % 2 else losses[:100]
    assert mixed_loss(losses, share) <= best_path(losses, share) + 1e-3


@pytest.mark.parametrize("restless", [(), (0.3,)])
def test_a_mixture_is_hardly_worse_than_its_best_column(restless: tuple[float, ...]) -> None:
    """Rates from far too small to far too large: within ln K of a population that has the best one alone."""
    batch, rates = stream(3000), (0.001, 0.1, 30.0)
    mixture = Population(rates=rates, restless=restless, stackers=(), share=0.0)
    losses = [
        log_loss(
            learn_all(Population(rates=(rate,), restless=(), stackers=()), [batch])[0], batch.labels
        ).sum()
        for rate in rates
    ]
    together = log_loss(learn_all(mixture, [batch])[0], batch.labels).sum()
    # The squares that columns share make them a little different from columns alone.
    assert together <= min(losses) * 1.01 + math.log(mixture.columns)
    assert together < sorted(losses)[1]


def test_labels_that_come_in_runs_are_followed() -> None:
    """Features that say nothing, and long runs of one label: only who remembers labels can foresee them."""
    batch = stream(3000)
    batch = replace(batch, labels=(np.arange(3000) // 50 % 2).astype(np.float32))
    blind = Population(rates=(0.06,), stackers=(), restless=())
    losses = [
        log_loss(learn_all(learner, [batch])[0], batch.labels)[1000:].mean()
        for learner in (Population(), blind)
    ]
    assert losses[0] < 0.2
    assert losses[1] > 0.5


def test_rare_labels_cost_little_from_the_beginning() -> None:
    """One label in 300: within a fifth of the loss of who knows the rate from the start."""
    rng = np.random.default_rng(1)
    batch = replace(stream(5000), labels=(rng.random(5000) < 1 / 300).astype(np.float32))
    p, _, _ = learn_all(Population(), [batch])
    known = log_loss(np.full(5000, batch.labels.mean()), batch.labels)
    assert log_loss(p, batch.labels).mean() < 1.2 * known.mean()


def test_restless_columns_follow_what_turns_around() -> None:
    """The meaning of every feature is reversed: the still column's steps have died, the restless one's have not."""
    before, after = stream(20_000, seed=1), stream(2000, seed=2)
    after = replace(after, labels=1.0 - after.labels)
    losses = [
        log_loss(learn_all(learner, [before, after])[0][20_000:], after.labels).mean()
        for learner in (
            Population(rates=(0.1,), restless=(), stackers=()),
            Population(rates=(0.1,), restless=(0.1,), stackers=()),
        )
    ]
    assert losses[1] < 0.9 * losses[0]


def test_fading_moves_no_prediction() -> None:
    """A record in which a key has the value 0 tells nothing of it: m fades, and its weight stays where it is."""
    learner = Population(rates=(0.1,), restless=(0.3,), keep=0.5, stackers=())
    batch = stream(300)
    _, tables, bias = learn_all(learner, [batch])
    (last,) = cut(batch, 300)
    probe = replace(cut(batch, 1)[7], labels=np.zeros(1, np.float32))
    nothing = replace(probe, values=np.zeros(probe.entries, np.float32))
    rows = rows_of(learner, tables, bias, probe)
    held = rows[0].rows[rows[0].index].copy()
    learner.learn(rows, nothing)
    left = rows[0].rows[rows[0].index]
    assert len(features_of(last, 7)) == len(left)
    np.testing.assert_allclose(left[:, 3], 0.5 * held[:, 3], rtol=1e-6)
    np.testing.assert_array_equal(left[:, 2], held[:, 2])
    weights = [-row[:, 1] / ((1 + np.sqrt(row[:, 3])) / 0.3) for row in (held, left)]
    np.testing.assert_allclose(weights[1], weights[0], rtol=1e-4, atol=1e-6)
    assert (left[:, 1] != held[:, 1]).any(), "z must be lifted"


def test_counts_of_labels_never_stand_still() -> None:
    """Millions of records: float32 would stop counting at 16,777,216; both counts are halved before."""
    learner, batch = Population(), replace(stream(2000), labels=np.ones(2000, np.float32))
    _, tables, bias = learn_all(learner, cut(batch, 1000))
    mixture, counts = tables[1].rows, learner.columns + 2
    mixture[bias[1], counts : counts + 2] = 2.0**22 - 4, 4
    learner.learn(rows_of(learner, tables, bias, batch), batch)
    zeros, ones = mixture[bias[1], counts : counts + 2]
    assert 2.0**20 < zeros + ones < 2.0**22
    assert ones / (zeros + ones) == pytest.approx(2000 / 2**21, rel=0.1)
