"""The arithmetic of learning/bandit.py: Cholesky factors, scores of all arms, and draws that depend on numbers only.

No inverse is ever formed. With Lambda = L L^T, u = L^-1 h and v = L^-1 x (forward substitutions),

    x^T Lambda^-1 h = u . v        x^T Lambda^-1 x = v . v
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numba import njit

__all__ = ["EPSILON_GREEDY", "LINUCB", "THOMPSON", "choose", "factor", "learn"]

LINUCB, THOMPSON, EPSILON_GREEDY = range(3)

NODES = 256
_QUANTILES = np.array([NormalDist().inv_cdf((i + 0.5) / NODES) for i in range(NODES)])
"""Of the standard normal distribution, in the middle of 256 equal parts of its mass."""

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_U30, _U27, _U31, _U11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)


@njit(cache=True, nogil=True, error_model="numpy")
def _mixed(h):  # noqa: ANN001, ANN202
    h = (h ^ (h >> _U30)) * _MIX_1
    h = (h ^ (h >> _U27)) * _MIX_2
    return h ^ (h >> _U31)


@njit(cache=True, nogil=True, error_model="numpy")
def _uniform(seed, decision, draw):  # noqa: ANN001, ANN202
    """A number in (0, 1) for each seed, decision and draw: splitmix64 (Steele, Lea & Flood 2014), without a state."""
    h = _mixed(np.uint64(seed) + _GAMMA)
    h = _mixed(h ^ (np.uint64(decision) * _GAMMA))
    h = _mixed(h + np.uint64(draw + 1) * _GAMMA)
    return (np.float64(h >> _U11) + 0.5) * 2.0**-53


@njit(cache=True, nogil=True, error_model="numpy")
def _normal(seed, decision, draw):  # noqa: ANN001, ANN202
    """Box-Muller, of two uniform numbers."""
    radius = math.sqrt(-2.0 * math.log(_uniform(seed, decision, 2 * draw)))
    return radius * math.cos(2.0 * math.pi * _uniform(seed, decision, 2 * draw + 1))


@njit(cache=True, nogil=True, error_model="numpy")
def _forward(lower, b, out):  # noqa: ANN001, ANN202
    """out = L^-1 b."""
    for i in range(len(b)):
        rest = b[i]
        for j in range(i):
            rest -= lower[i, j] * out[j]
        out[i] = rest / lower[i, i]


@njit(cache=True, nogil=True, error_model="numpy")
def factor(squares, prior, h, lower, u):  # noqa: ANN001, ANN201
    """L of prior I + squares = L L^T, and u = L^-1 h; positive definite, for squares is a sum of x x^T."""
    d = len(h)
    for i in range(d):
        for j in range(i + 1):
            rest = squares[i, j] + (prior if i == j else 0.0)
            for k in range(j):
                rest -= lower[i, k] * lower[j, k]
            # Rounding may eat the prior where squares are 1e16 times larger.
            lower[i, j] = math.sqrt(max(rest, prior * 1e-3)) if i == j else rest / lower[j, j]
    _forward(lower, h, u)


@njit(cache=True, nogil=True, error_model="numpy")
def _chances(means, widths, sampled, out):  # noqa: ANN001, ANN202
    """P(arm's normal variable is the largest), by the midpoint rule over 256 parts of the mass of each."""
    total = 0.0
    for a in range(len(means)):
        chance = 0.0
        for node in range(len(_QUANTILES)):
            z = means[a] + widths[a] * _QUANTILES[node]
            below = 1.0
            for b in range(len(means)):
                if b != a:
                    below *= 0.5 * math.erfc((means[b] - z) / (widths[b] * math.sqrt(2.0)))
            chance += below
        out[a] = chance / len(_QUANTILES)
        if a == sampled:
            # It was drawn, so its chance is not 0, even if no node saw it.
            out[a] = max(out[a], 0.25 / len(_QUANTILES))
        total += out[a]
    for a in range(len(means)):
        out[a] /= total


@njit(cache=True, nogil=True, error_model="numpy")
def choose(contexts, lower, u, rule, width, epsilon, seed, first, arms, chances):  # noqa: ANN001, ANN201
    """Write each record's arm i64 (n,) and all arms' propensities f64 (n, K); decisions are numbered from `first`."""
    count, d = u.shape
    v = np.empty(d)
    means, widths, own = np.empty(count), np.empty(count), np.empty(count)
    for i in range(len(contexts)):
        decision = first + i
        for a in range(count):
            _forward(lower[a], contexts[i], v)
            means[a], square = 0.0, 0.0
            for j in range(d):
                means[a] += u[a, j] * v[j]
                square += v[j] * v[j]
            widths[a] = max(width * math.sqrt(square), 1e-12)
            own[a] = means[a] + (widths[a] if rule == LINUCB else 0.0)
        if rule == THOMPSON:
            for a in range(count):
                own[a] = means[a] + widths[a] * _normal(seed, decision, a + 2)
        best = own.max()
        ties = 0
        for a in range(count):
            ties += own[a] == best
        pick = np.int64(_uniform(seed, decision, 0) * ties)
        arms[i] = -1
        for a in range(count):
            if own[a] == best:
                if pick == 0 and arms[i] < 0:
                    arms[i] = a
                pick -= 1
                chances[i, a] = 1.0 / ties
            else:
                chances[i, a] = 0.0
        if rule == THOMPSON:
            _chances(means, widths, arms[i], chances[i])
        if epsilon > 0.0:
            for a in range(count):
                chances[i, a] = (1.0 - epsilon) * chances[i, a] + epsilon / count
            if _uniform(seed, decision, 1) < epsilon:
                arms[i] = min(np.int64(_uniform(seed, decision, 2) * count), count - 1)


@njit(cache=True, nogil=True, error_model="numpy")
def learn(contexts, rewards, state, rule, numbers, seed, first, arms, chances):  # noqa: ANN001, ANN201
    """`choose` for each record, which then learns rewards[i, arm]: no record's reward is known before its choice.

    `state` is (squares, sums, rewarded, lower, u), `numbers` width, epsilon and prior.
    """
    squares, sums, rewarded, lower, u = state
    width, epsilon, prior = numbers
    for i in range(len(contexts)):
        x = contexts[i]
        one = slice(i, i + 1)
        choose(contexts[one], lower, u, rule, width, epsilon, seed, first + i, arms[one], chances[one])
        arm = arms[i]
        for j in range(len(x)):
            for k in range(len(x)):
                squares[arm, j, k] += x[j] * x[k]
            sums[arm, j] += rewards[i, arm] * x[j]
        rewarded[arm] += 1
        factor(squares[arm], prior, sums[arm], lower[arm], u[arm])
