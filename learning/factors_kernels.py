"""The recursion of the factor model over a batch, record after record; equations in learning/factors.py.

A row of users or items (f32, K + 4): bias b, count of ratings, information about b, information about a factor, the K
factors. Users and items are gathered and scattered by row number; arithmetic between is float64 and nothing is
reordered, so the numbers depend neither on batch size nor on the number of shards.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from learning.factors_scale import add_rating, deviation, read_scale
from learning.keys import derived_key

__all__ = [
    "BIAS",
    "COUNT",
    "FACTORS",
    "OF_BIAS",
    "OF_FACTORS",
    "learn_choices",
    "learn_ratings",
    "predict_pairs",
    "predict_scores",
]

BIAS, COUNT, OF_BIAS, OF_FACTORS, FACTORS = 0, 1, 2, 3, 4
"""Columns of a row."""

_ERROR_MAX = 8.0
"""Deviations that one rating can be off: an absurd one must not throw a row out of its place."""
_LOGIT_MAX = 35.0
_DRAWS = 8
"""Attempts to draw a negative that the user did not choose."""


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _score(users, u, items, i):  # noqa: ANN001, ANN202
    """b_u + b_i + p_u . q_i."""
    score = np.float64(users[u, BIAS]) + np.float64(items[i, BIAS])
    for c in range(FACTORS, users.shape[1]):
        score += np.float64(users[u, c]) * np.float64(items[i, c])
    return score


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _sigmoid(logit):  # noqa: ANN001, ANN202
    return 1.0 / (1.0 + math.exp(-min(max(logit, -_LOGIT_MAX), _LOGIT_MAX)))


@njit(cache=True, nogil=True, error_model="numpy")
def _learn_pair(users, u, items, i, pull, h, h_max, counts, prior, keep, rate):  # noqa: ANN001, ANN202
    """One observation: `pull` is the loss's slope downwards in the score, `h` its curvature, `h_max` the largest one
    on the way to where it pulls.

    `prior` = (information about a bias, about a factor) at birth; `keep` = what each observation leaves of the
    information about (user's bias, item's bias, factors); `rate` multiplies the step, and not what it tells.
    """
    pp = qq = 0.0
    for c in range(FACTORS, users.shape[1]):
        pp += np.float64(users[u, c]) * np.float64(users[u, c])
        qq += np.float64(items[i, c]) * np.float64(items[i, c])
    bu, bi = 1.0 / (prior[0] + users[u, OF_BIAS]), 1.0 / (prior[0] + items[i, OF_BIAS])
    vu, vi = 1.0 / (prior[1] + users[u, OF_FACTORS]), 1.0 / (prior[1] + items[i, OF_FACTORS])
    variance = bu + bi + vu * qq + vi * pp
    g = rate * (pull / (1.0 + h_max * variance))
    users[u, BIAS] = np.float32(users[u, BIAS] + bu * g)
    items[i, BIAS] = np.float32(items[i, BIAS] + bi * g)
    step_u, step_i = vu * g, vi * g
    for c in range(FACTORS, users.shape[1]):
        p, q = np.float64(users[u, c]), np.float64(items[i, c])
        users[u, c] = np.float32(p + step_u * q)
        items[i, c] = np.float32(q + step_i * p)
    users[u, OF_BIAS] = np.float32(keep[0] * users[u, OF_BIAS] + h / (1.0 + h * (variance - bu)))
    items[i, OF_BIAS] = np.float32(keep[1] * items[i, OF_BIAS] + h / (1.0 + h * (variance - bi)))
    share = h / math.sqrt(max(users.shape[1] - FACTORS, 1))
    told_u, told_i = (
        share * qq / (1.0 + h * (variance - vu * qq)),
        share * pp / (1.0 + h * (variance - vi * pp)),
    )
    users[u, OF_FACTORS] = np.float32(keep[2] * users[u, OF_FACTORS] + told_u)
    items[i, OF_FACTORS] = np.float32(keep[2] * items[i, OF_FACTORS] + told_i)
    users[u, COUNT] = np.float32(users[u, COUNT] + counts)
    items[i, COUNT] = np.float32(items[i, COUNT] + counts)


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _rating(scale, row, score, bounds):  # noqa: ANN001, ANN202
    """mu + sd score, clipped to the configured bounds (NaN: none) or the scale seen; no ratings yet: their middle."""
    n, mean, squares, least, greatest = 0.0, 0.0, 0.0, -np.inf, np.inf
    if row >= 0:
        n, mean, squares, least, greatest = read_scale(scale, row)
    if n == 0.0:
        least, greatest = -np.inf, np.inf
        mean = 0.5 * (bounds[0] + bounds[1])
        if math.isnan(mean):
            mean = 0.0
    if not math.isnan(bounds[0]):
        least = bounds[0]
    if not math.isnan(bounds[1]):
        greatest = bounds[1]
    return min(max(mean + deviation(n, squares) * score, least), greatest)


@njit(cache=True, nogil=True, error_model="numpy")
def learn_ratings(  # noqa: ANN201
    users, at_u, items, at_i, scale, row, labels, weights, noise, prior, keep, bounds, rate, out,  # noqa: ANN001
):  # fmt: skip
    """Explicit feedback: predict, then learn, each rating in order; `out` f64 (n,)."""
    for t in range(len(labels)):
        u, i = (
            np.uint64(at_u[t]),
            np.uint64(at_i[t]),
        )  # unsigned: no test for an index that counts from the end
        score = _score(users, u, items, i)
        out[t] = _rating(scale, row, score, bounds)
        rating, weight = np.float64(labels[t]), np.float64(weights[t])
        add_rating(scale, row, rating, weight)
        n, mean, squares, _, _ = read_scale(scale, row)
        unit = deviation(n, squares)
        h = weight / noise
        # While all ratings are the same there is no unit to learn in; the rating is counted and teaches nothing.
        error, h = ((rating - mean) / unit - score, h) if unit > 0.0 else (0.0, 0.0)
        pull = h * min(max(error, -_ERROR_MAX), _ERROR_MAX)
        _learn_pair(users, u, items, i, pull, h, h, 1.0, prior, keep, rate)


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _negative(at_u, at_i, t, bits):  # noqa: ANN001, ANN202
    """Row of another user's item in this batch, drawn by hash; -1 if every draw is the user's own choice.

    Users come in bursts: what the same user chose a moment ago, or will in a moment, is no negative.
    """
    for draw in range(_DRAWS):
        other = np.int64(derived_key(bits, np.int64(draw)) % np.uint64(len(at_i)))
        if at_i[other] != at_i[t] and at_u[other] != at_u[t]:
            return at_i[other]
    return np.int64(-1)


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _learn_choice(users, u, items, i, error, weight, counts, prior, keep, rate):  # noqa: ANN001, ANN202
    """One observation of label - probability = `error`; from the wrong half the way leads over a curvature of 1/4."""
    h = weight * abs(error) * (1.0 - abs(error))
    h_max = 0.25 * weight if abs(error) > 0.5 else h
    _learn_pair(users, u, items, i, weight * error, h, h_max, counts, prior, keep, rate)


@njit(cache=True, nogil=True, error_model="numpy")
def learn_choices(users, at_u, items, at_i, scale, row, labels, weights, place, prior, keep, rate, out):  # noqa: ANN001, ANN201
    """Implicit feedback: each record is a choice, its negatives are items of the same batch; `out` f64 (n, 1 + m).

    `place` = (seed, partition, first offset) decides what is drawn. All of a record's probabilities are made before
    any of them is learnt.
    """
    negatives = out.shape[1] - 1
    offset = -math.log(negatives)
    seed = derived_key(derived_key(place[0], place[1]), place[2])
    drawn = np.empty(negatives, np.int64)
    for t in range(len(labels)):
        u, own = np.uint64(at_u[t]), np.uint64(at_i[t])
        weight = np.float64(weights[t])
        add_rating(scale, row, np.float64(labels[t]), weight)
        out[t, 0] = _sigmoid(offset + _score(users, u, items, own))
        bits = derived_key(seed, np.int64(t))
        for j in range(negatives):
            drawn[j] = _negative(at_u, at_i, t, derived_key(bits, np.int64(j)))
            out[t, 1 + j] = np.nan
            if drawn[j] >= 0:
                out[t, 1 + j] = _sigmoid(offset + _score(users, u, items, np.uint64(drawn[j])))
        _learn_choice(users, u, items, own, 1.0 - out[t, 0], weight, 1.0, prior, keep, rate)
        for j in range(negatives):
            if drawn[j] >= 0:
                i = np.uint64(drawn[j])
                p = _sigmoid(offset + _score(users, u, items, i))
                _learn_choice(users, u, items, i, -p, weight, 0.0, prior, keep, rate)


@njit(cache=True, nogil=True, error_model="numpy")
def predict_pairs(users, at_u, items, at_i, scale, row, negatives, bounds, out):  # noqa: ANN001, ANN201
    """Predict only: ratings or (negatives > 0) probabilities; a row of -1 counts as bias 0 and no factors."""
    for t in range(len(out)):
        u, i = at_u[t], at_i[t]
        score = 0.0
        if u >= 0 and i >= 0:
            score = _score(users, u, items, i)
        elif u >= 0:
            score = np.float64(users[u, BIAS])
        elif i >= 0:
            score = np.float64(items[i, BIAS])
        if negatives > 0:
            out[t] = _sigmoid(score - math.log(negatives))
        else:
            out[t] = _rating(scale, row, score, bounds)


@njit(cache=True, nogil=True, error_model="numpy")
def predict_scores(scale, row, scores, bounds):  # noqa: ANN001, ANN201
    """Ratings f64 (n,) that scores f64 (n,) stand for."""
    out = np.empty(len(scores))
    for t in range(len(out)):
        out[t] = _rating(scale, row, scores[t], bounds)
    return out
