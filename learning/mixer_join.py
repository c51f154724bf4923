"""Several workers' mixers, each ahead of the same base by its own records, as one; the rule is in learning/mixer.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from learning.experts_kernels import COUNT, SCORE, SHARE, WEIGHT, advance
from learning.mixer import Mixer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from learning.experts_rules import Rule
    from learning.mixer import Mixing

    Arrays = Mapping[str, NDArray[Any]]

__all__ = ["joined_mixers"]

_TINY = 1e-300


def joined_mixers(
    mixing: Mixing, names: Sequence[str], base: Arrays | None, parts: Sequence[Arrays]
) -> dict[str, NDArray[Any]]:
    """What all of `parts` (as Mixer.arrays gave them) have learnt since `base`; None: since the beginning.

    A part with no record more than `base` (a worker that has finished) has no say.
    """
    if not parts:
        raise ValueError("expected the mixer of one worker or more")
    if len(parts) == 1:
        return dict(parts[0])
    start = Mixer(mixing, names).arrays() if base is None else base
    parts = [part for part in parts if int(part["records"][0]) != int(start["records"][0])]
    if len(parts) <= 1:
        return dict(parts[0] if parts else start)
    joined: dict[str, NDArray[Any]] = {}
    for name in ("losses", "records"):
        joined[name] = _added(start[name], [part[name] for part in parts])
    if mixing.is_bandit:
        for name in ("bandit.counts", "bandit.rewarded", "bandit.squares", "bandit.sums"):
            joined[name] = _added(start[name], [part[name] for part in parts])
        return dict(parts[0]) | joined
    states = [part["weights.state"] for part in parts]
    joined["weights.state"] = _weights(mixing.weighting(), start["weights.state"], states)
    return dict(parts[0]) | joined


def _added(start: NDArray[Any], parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    total = np.array(parts[0])
    for part in parts[1:]:
        total += part - start
    return total


def _weights(
    rule: Rule, start: NDArray[np.float64], states: Sequence[NDArray[np.float64]]
) -> NDArray[np.float64]:
    """The state f64 (4, K) of the weights."""
    if rule.code == SHARE:
        return _multiplied(rule, start, states)
    state = np.array(states[0])
    state[[SCORE, COUNT]] = np.mean([other[[SCORE, COUNT]] for other in states], axis=0)
    if (state[COUNT] > 0.0).all():
        # No record more: the weights are made of the sums anew.
        advance(state, np.zeros(state.shape[1]), 0.0, rule.code, rule.numbers)
    return state


def _multiplied(
    rule: Rule, start: NDArray[np.float64], states: Sequence[NDArray[np.float64]]
) -> NDArray[np.float64]:
    share = rule.numbers[1]
    row = SCORE if share == 0.0 else WEIGHT
    logs = [
        state[row] if share == 0.0 else np.log(np.maximum(state[row], _TINY)) for state in (start, *states)
    ]
    total = _added(logs[0], logs[1:])
    total -= np.logaddexp.reduce(total)
    state = np.array(states[0])
    if share == 0.0:
        state[SCORE] = total
        state[WEIGHT] = np.exp(total)
    else:
        # Evidence of several workers may leave less than the share that every record deals out.
        state[WEIGHT] = (1.0 - share) * np.exp(total) + share / len(total)
    return state
