"""Choice of an arm by context: the regression, propensities, late rewards, workers, and state that comes back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learning.bandit import RULES, Bandit, BanditSettings


def world(seed: int, n: int, arms: int = 3, d: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Contexts f64 (n, d) with a constant, and the rewards f64 (n, arms) that each arm would bring."""
    rng = np.random.default_rng(seed)
    x = np.column_stack((np.ones(n), rng.normal(size=(n, d - 1))))
    theta = rng.normal(size=(arms, d))
    return x, x @ theta.T + rng.normal(0, 0.3, (n, arms))


def played(bandit: Bandit, x: np.ndarray, rewards: np.ndarray, cut: int = 20) -> np.ndarray:
    """The arms of a stream whose rewards come after each batch of `cut` records."""
    arms = []
    for i in range(0, len(x), cut):
        choices = bandit.choose(x[i : i + cut])
        ids = choices.first + np.arange(len(choices.arms))
        bandit.reward(ids, rewards[i : i + cut][np.arange(len(ids)), choices.arms])
        arms.append(choices.arms)
    return np.concatenate(arms)


@pytest.mark.parametrize("rule", RULES)
def test_the_best_arm_for_a_context_is_found(rule: str) -> None:
    """3,000 records: the last 1,000 get nearly the reward of who knows all."""
    x, rewards = world(0, 3000)
    epsilon = 0.05 if rule == "epsilon_greedy" else 0.0
    arms = played(Bandit(3, 4, BanditSettings(rule, width=0.5, epsilon=epsilon)), x, rewards)
    got = rewards[np.arange(2000, 3000), arms[2000:]].mean()
    assert got > rewards[2000:].max(axis=1).mean() - 0.25
    assert got > rewards[2000:].mean() + 0.5


def test_the_regression_is_that_of_the_normal_equations() -> None:
    """Each arm's coefficients solve (prior I + X^T X) theta = X^T r, on its own records."""
    x, rewards = world(1, 500)
    bandit = Bandit(3, 4, BanditSettings("thompson", prior=2.0))
    arms = played(bandit, x, rewards)
    for arm, theta in enumerate(bandit.coefficients()):
        own = arms == arm
        squares = 2.0 * np.eye(4) + x[own].T @ x[own]
        np.testing.assert_allclose(squares @ theta, x[own].T @ rewards[own, arm], rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(bandit.rewarded, np.bincount(arms, minlength=3))


def test_linucb_takes_the_largest_upper_end() -> None:
    """By hand, from the sums: theta . x + width sqrt(x^T Lambda^-1 x), with certainty as its propensity."""
    x, rewards = world(2, 300)
    bandit = Bandit(3, 4, BanditSettings(width=0.7))
    arms = played(bandit, x, rewards)
    ends = []
    for arm in range(3):
        own = arms == arm
        squares = np.eye(4) + x[own].T @ x[own]
        theta = np.linalg.solve(squares, x[own].T @ rewards[own, arm])
        ends.append(x @ theta + 0.7 * np.sqrt(np.einsum("ij,ij->i", x, np.linalg.solve(squares, x.T).T)))
    choices = bandit.choose(x)
    np.testing.assert_array_equal(choices.arms, np.argmax(ends, axis=0))
    np.testing.assert_array_equal(choices.own, 1.0)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("epsilon", [0.0, 0.3])
def test_arms_are_chosen_as_often_as_their_propensities_say(rule: str, epsilon: float) -> None:
    """20,000 decisions on one context, after some learning and before any (all arms equal)."""
    x, rewards = world(3, 60)
    bandit = Bandit(3, 4, BanditSettings(rule, width=1.5, epsilon=epsilon))
    for learn in (False, True):
        if learn:
            played(bandit, x, rewards)
        choices = bandit.choose(np.repeat(x[:1], 20_000, axis=0))
        often = np.bincount(choices.arms, minlength=3) / 20_000
        np.testing.assert_allclose(choices.propensities.sum(axis=1), 1.0)
        np.testing.assert_allclose(often, choices.propensities[0], atol=0.015)
        assert (choices.own > 0).all()
        if not learn:
            np.testing.assert_allclose(choices.propensities[0], 1 / 3, atol=1e-9)


def test_propensities_make_another_policy_comparable() -> None:
    """Inverse propensity weighting on a log of Thompson sampling gives the value of a policy that never ran."""
    x, rewards = world(4, 4000)
    bandit = Bandit(3, 4, BanditSettings("thompson", width=1.0, epsilon=0.3))
    choices = [bandit.choose(row[None]) for row in x]
    arms = np.concatenate([c.arms for c in choices])
    own = np.concatenate([c.own for c in choices])
    got = rewards[np.arange(4000), arms]
    estimate = np.mean(got * (arms == 1) / own)
    assert estimate == pytest.approx(rewards[:, 1].mean(), abs=0.15)


@given(cuts=st.lists(st.integers(1, 50), max_size=6), rule=st.sampled_from(sorted(RULES)))
def test_decisions_do_not_see_where_batches_are_cut(cuts: list[int], rule: str) -> None:
    """The number of a decision and the seed say what is drawn; another seed draws otherwise."""
    x, rewards = world(5, 200)
    settings = BanditSettings(rule, epsilon=0.2)
    whole, parts, seen, told = Bandit(3, 4, settings), Bandit(3, 4, settings), 100, []
    played(whole, x[:100], rewards[:100])
    played(parts, x[:100], rewards[:100])
    for cut in [*cuts, 200]:
        told.append(parts.choose(x[seen : seen + cut]))
        seen = min(seen + cut, 200)
    choices = whole.choose(x[100:])
    np.testing.assert_array_equal(np.concatenate([c.arms for c in told]), choices.arms)
    np.testing.assert_array_equal(np.concatenate([c.propensities for c in told]), choices.propensities)
    other = Bandit(3, 4, BanditSettings(rule, epsilon=0.2, seed=1))
    assert (other.choose(x).arms != Bandit(3, 4, settings).choose(x).arms).any()


def test_rewards_may_come_late_and_in_any_order() -> None:
    """The context is that of the decision; what expired or came twice is counted and changes nothing."""
    x, _ = world(6, 30)
    bandit = Bandit(3, 4, BanditSettings(pending_max=10))
    first = bandit.choose(x[:6])
    bandit.choose(x[6:12])
    assert (bandit.pending, bandit.expired) == (10, 2)
    bandit.reward(np.array([5, 0, 5, 99, -1]), np.ones(5))
    assert (bandit.pending, bandit.late) == (9, 4)
    assert bandit.rewarded[first.arms[5]] == 1
    arm = int(first.arms[5])
    np.testing.assert_allclose((np.eye(4) + np.outer(x[5], x[5])) @ bandit.coefficients()[arm], x[5])
    bandit.choose(x)
    assert (bandit.pending, bandit.expired, bandit.decisions) == (10, 2 + 9 + 20, 42)


def test_workers_that_began_with_nothing_merge_to_one() -> None:
    """Sums add, and the prior counts once: coefficients as if one had learnt all records."""
    x, rewards = world(7, 400)
    first, second, one = Bandit(3, 4), Bandit(3, 4), Bandit(3, 4)
    for part, here in ((first, slice(0, 150)), (second, slice(150, 400))):
        choices, waits = part.choose(x[here]), one.choose(x[here])
        ids = np.arange(len(choices.arms))
        one._arms[waits.first + ids] = choices.arms  # as if it had chosen so
        got = rewards[here][ids, choices.arms]
        part.reward(choices.first + ids, got)
        one.reward(waits.first + ids, got)
    first.merge(second)
    np.testing.assert_allclose(first.coefficients(), one.coefficients(), rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(first.rewarded, one.rewarded)
    with pytest.raises(ValueError, match="expected arms and context"):
        first.merge(Bandit(2, 4))


def test_forgetting_everything_is_beginning_anew() -> None:
    """keep 0 leaves the prior alone; keep 1 changes nothing."""
    x, rewards = world(8, 200)
    bandit = Bandit(3, 4)
    played(bandit, x, rewards)
    before = bandit.coefficients()
    bandit.forget(1.0)
    np.testing.assert_array_equal(bandit.coefficients(), before)
    bandit.forget(0.0)
    np.testing.assert_array_equal(bandit.coefficients(), 0.0)


@pytest.mark.parametrize("rule", RULES)
def test_a_bandit_comes_back_from_its_arrays_bit_for_bit(rule: str) -> None:
    """Written while decisions wait: later choices, propensities and rewards are the same."""
    x, rewards = world(9, 300)
    settings = BanditSettings(rule, epsilon=0.1, pending_max=64)
    whole = Bandit(3, 4, settings)
    played(whole, x[:200], rewards[:200])
    whole.choose(x[200:250])
    arrays = {
        name: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape) for name, a in whole.arrays().items()
    }
    second = Bandit.of(arrays, settings)
    for bandit in (whole, second):
        bandit.reward(np.arange(190, 240), np.linspace(0, 1, 50))
    a, b = whole.choose(x), second.choose(x)
    np.testing.assert_array_equal(a.arms, b.arms)
    np.testing.assert_array_equal(a.propensities, b.propensities)
    pairs = zip(whole.arrays().values(), second.arrays().values(), strict=True)
    assert all(one.tobytes() == other.tobytes() for one, other in pairs)
    with pytest.raises(ValueError, match="known arms"):
        Bandit.of(arrays | {"waiting_arms": arrays["waiting_arms"] + 9}, settings)


@pytest.mark.parametrize(
    "wrong",
    [{"rule": "ucb1"}, {"width": -1.0}, {"epsilon": 2.0}, {"prior": 0.0}, {"pending_max": 0}, {"seed": -1}],
)
def test_settings_that_cannot_be_are_named(wrong: dict) -> None:
    """A slip in the pipeline file."""
    with pytest.raises(ValueError, match="should be"):
        BanditSettings(**wrong)


def test_contexts_that_are_no_numbers_are_refused() -> None:
    """One infinity would be in Lambda for ever."""
    with pytest.raises(ValueError, match="finite contexts"):
        Bandit(2, 2).choose(np.array([[1.0, np.inf]]))
    with pytest.raises(ValueError, match="finite reward"):
        Bandit(2, 2).reward(np.array([0]), np.array([np.nan]))
