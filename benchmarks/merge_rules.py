"""Rules by which a shard may merge a worker's walk into rows that others have moved since, and their simulation.

All but `add` and `average` are of one form. Base row (z0, n0), present row (z, n), end row (zk, nk);
no = n - n0 and dn = nk - n0 are the squared gradients of the others and of the walk, n' = n + dn. Each row is lifted
to n', which leaves its weight as it is:

    lift(z, n) = z - w(z, n) (sqrt(n') - sqrt(n)) / alpha
    O = lift(z, n) - lift(z0, n0)         # the others' way, in z at n'
    G = lift(zk, nk) - lift(z0, n0)       # the walk's way
    z <- lift(z0, n0) + a O + b G;   n <- n'

and a rule is its (a, b): adding is (1, 1). A row that nobody moved becomes (zk, nk) to the bit. A rule that says so
counts the squared gradients in the shares of the ways too: n' = n0 + max(no, dn, a no + b dn).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numba import njit

from learning.learner import TableRows
from learning.staleness import StalenessGate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from benchmarks.merge import Stream
    from learning.ftrl import Ftrl

__all__ = ["ORDERS", "RULES", "Push", "Simulation", "moves"]

WARMED = {f"warmed {share}": share for share in (0.05, 0.1, 0.2)}
ORDERS = ("round", "turns", "ahead", *WARMED)
_TINY = 1e-30


@dataclass(frozen=True, slots=True)
class Push:
    """A worker's walk: rows `at`, base and end rows f32 (k, 2); what else a rule may know of it."""

    at: NDArray[np.int64]
    base: NDArray[np.float32]
    end: NDArray[np.float32]
    workers: int
    holders: NDArray[np.int64]
    """How many workers, this one included, hold each row or have pushed it since this worker's pull; at most all."""
    coupling: float


class Rule(Protocol):
    """Merges a push into `rows`; `bias` is the bias coordinate's row number."""

    def __call__(self, rows: NDArray[np.float32], push: Push, bias: int, ftrl: Ftrl) -> None: ...


@njit(error_model="numpy")
def _weight(z, n, alpha, beta, l1, l2):  # noqa: ANN001, ANN202
    shrunk = max(z - l1, 0.0) + min(z + l1, 0.0)
    return -shrunk / max((beta + math.sqrt(n)) / alpha + l2, _TINY)


@njit(error_model="numpy")
def _lift(z, n, n_new, alpha, beta, l1, l2):  # noqa: ANN001, ANN202
    return z - _weight(z, n, alpha, beta, l1, l2) * (math.sqrt(n_new) - math.sqrt(n)) / alpha


def _linear(share: Any, kappa: float, *, coupled: bool = False, squares: bool = False) -> Rule:
    """The rule of a, b = share(n0, no, dn, O, G, D, holders, alpha, beta, kappa); D = (beta + sqrt(n')) / alpha.

    `coupled`: kappa is multiplied by the walk's coupling; `squares`: squared gradients are shared as the ways are.
    """
    share = njit(error_model="numpy")(share)

    @njit(error_model="numpy")
    def run(rows, at, base, end, holders, bias, alpha, beta, l1_all, l2, kappa):  # noqa: ANN001, ANN202
        for k in range(len(at)):
            row = at[k]
            z, n = np.float64(rows[row, 0]), np.float64(rows[row, 1])
            z0, n0 = np.float64(base[k, 0]), np.float64(base[k, 1])
            if z == z0 and n == n0:
                rows[row, 0], rows[row, 1] = end[k, 0], end[k, 1]
                continue
            zk, nk = np.float64(end[k, 0]), np.float64(end[k, 1])
            l1 = 0.0 if row == bias else l1_all
            n_new = n + nk - n0
            lifted0 = _lift(z0, n0, n_new, alpha, beta, l1, l2)
            others = _lift(z, n, n_new, alpha, beta, l1, l2) - lifted0
            walk = _lift(zk, nk, n_new, alpha, beta, l1, l2) - lifted0
            d = (beta + math.sqrt(n_new)) / alpha
            a, b = share(n0, n - n0, nk - n0, others, walk, d, holders[k], alpha, beta, kappa)
            if squares:
                n_new = n0 + max(n - n0, nk - n0, a * (n - n0) + b * (nk - n0))
                lifted0 = _lift(z0, n0, n_new, alpha, beta, l1, l2)
                others = _lift(z, n, n_new, alpha, beta, l1, l2) - lifted0
                walk = _lift(zk, nk, n_new, alpha, beta, l1, l2) - lifted0
            rows[row, 0], rows[row, 1] = lifted0 + a * others + b * walk, n_new

    def merge(rows: NDArray[np.float32], push: Push, bias: int, ftrl: Ftrl) -> None:
        strength = kappa * push.coupling if coupled else kappa
        parameters = (ftrl.alpha, ftrl.beta, ftrl.l1, ftrl.l2, float(strength))
        run(rows, push.at, push.base, push.end, push.holders, bias, *parameters)

    return merge


def add(rows: NDArray[np.float32], push: Push, bias: int, ftrl: Ftrl) -> None:
    """Differences of (z, n) are added."""
    _scaled(rows, push, 1.0)


def average(rows: NDArray[np.float32], push: Push, bias: int, ftrl: Ftrl) -> None:
    """Differences of (z, n) are divided by the number of workers."""
    _scaled(rows, push, 1.0 / push.workers)


def _scaled(rows: NDArray[np.float32], push: Push, factor: float) -> None:
    if push.workers == 1 and np.array_equal(rows[push.at], push.base):
        rows[push.at] = push.end
    else:
        rows[push.at] += ((push.end - push.base) * factor).astype(np.float32)


def _damped(n0, no, dn, others, walk, d, holders, alpha, beta, kappa):  # noqa: ANN001, ANN202
    """numerics.md 2: the walk, in z at nk, shrinks by how far the others have gone."""
    gone = math.exp(-kappa * no * alpha / (beta + math.sqrt(n0 + no) + _TINY))
    return 1.0, gone * (beta + math.sqrt(n0 + dn)) / (alpha * d)


def _held(n0, no, dn, others, walk, d, holders, alpha, beta, kappa):  # noqa: ANN001, ANN202
    """A row that others moved takes the walk divided by the number of workers that share it."""
    return 1.0, 1.0 / holders


def _gauss(n0, no, dn, others, walk, d, holders, alpha, beta, kappa):  # noqa: ANN001, ANN202
    """Natural parameters add: prior precision 1 / rate, each walk brings kappa times its squared gradients."""
    prior = (beta + math.sqrt(n0)) / alpha
    whole = prior + kappa * (no + dn) + _TINY
    return (prior + kappa * no) / whole, (prior + kappa * dn) / whole


def _shared(n0, no, dn, others, walk, d, holders, alpha, beta, kappa):  # noqa: ANN001, ANN202
    """The mean of 'the walk after the others' and 'the others after the walk', weighted by squared gradients."""
    gone = math.exp(-2.0 * kappa * alpha * no / (2.0 * beta + math.sqrt(n0) + math.sqrt(n0 + no) + _TINY))
    went = math.exp(-2.0 * kappa * alpha * dn / (2.0 * beta + math.sqrt(n0) + math.sqrt(n0 + dn) + _TINY))
    part = no / (no + dn + _TINY)
    return part + (1.0 - part) * went, 1.0 - part + part * gone


def _delayed(n0, no, dn, others, walk, d, holders, alpha, beta, kappa):  # noqa: ANN001, ANN202
    """DC-ASGD (Zheng 2017): G + kappa dn (w - w0), which is O times kappa dn / D; clipped so as not to turn O round."""
    return max(0.0, 1.0 - kappa * dn / d), 1.0


def _revised(n0, no, dn, others, walk, d, holders, alpha, beta, kappa):  # noqa: ANN001, ANN202
    """AdaptiveRevision (McMahan & Streeter 2014) a walk at a time: rate from n' + 2 max(0, O G); n keeps squares."""
    shrink = d * alpha / (beta + math.sqrt(n0 + no + dn + 2.0 * max(0.0, others * walk)) + _TINY)
    part = no / (no + dn + _TINY)
    return max(shrink, part), max(shrink, 1.0 - part)  # without this floor it is far worse


def _trusted(n0, no, dn, others, walk, d, holders, alpha, beta, kappa):  # noqa: ANN001, ANN202
    """Add, but go no further than the longer of two ways in one direction."""
    a = 1.0 if others * walk <= 0.0 else max(abs(others), abs(walk)) / abs(others + walk)
    return a, a


RULES: dict[str, Rule] = {
    "add the differences": add,
    "average": average,
    "divide by holders of the row": _linear(_held, 0.0),
    **{f"damped, kappa {kappa}": _linear(_damped, kappa) for kappa in (2, 4, 8, 16)},
    "trust region": _linear(_trusted, 0.0),
    "AdaptiveRevision": _linear(_revised, 0.0),
    "DC-ASGD, lambda 4": _linear(_delayed, 4.0),
    "Gaussian, kappa 4": _linear(_gauss, 4.0),
    "shared way, kappa 4": _linear(_shared, 4.0),
    "Gaussian, coupled x 0.5": _linear(_gauss, 0.5, coupled=True),
    "shared way, coupled x 0.7": _linear(_shared, 0.7, coupled=True),
    "shared way, coupled x 1": _linear(_shared, 1.0, coupled=True),
    "shared way, coupled x 1.5": _linear(_shared, 1.5, coupled=True),
    "shared way, coupled, squares too": _linear(_shared, 1.0, coupled=True, squares=True),
}
"""Every rule by the name it has in the tables."""


def moves(order: str, count: int, workers: int, size: int = 1) -> Iterator[tuple[str, int]]:
    """The interleaving: what is done to which of `count` batches. Pushes of the last batches are left out."""
    if order.startswith("warmed"):
        yield from _warmed(count, workers, size, StalenessGate(share_max=WARMED[order]))
        return
    if order == "round":
        for first in range(0, count, workers):
            of_round = range(first, min(first + workers, count))
            yield from (("pull", m) for m in of_round)
            yield from (("learn", m) for m in of_round)
            yield from (("push", m) for m in of_round)
        return
    ahead = workers if order == "ahead" else 0
    yield from (("pull", m) for m in range(min(ahead, count)))
    for m in range(count):
        if m >= workers:
            yield "push", m - workers
        if m + ahead < count:
            yield "pull", m + ahead
        yield "learn", m


def _warmed(count: int, workers: int, size: int, gate: StalenessGate) -> Iterator[tuple[str, int]]:
    """Workers in turns, each doing what ShardedStore does, with pulls that the gate lets in or has wait."""
    pulled: list[int | None] = [None] * workers  # let in, not learnt yet
    learnt: list[int | None] = [None] * workers  # not pushed yet
    following = list(range(workers))
    while any(m is not None for m in pulled) or min(following) < count:
        for worker in range(workers):
            m = learnt[worker]
            if m is not None:
                gate.leave(worker, m)
                learnt[worker] = None
                yield "push", m
            now, asked = pulled[worker], following[worker]
            if asked < count and gate.enter(worker, asked, size):
                yield "pull", asked
                pulled[worker], following[worker] = asked, asked + workers
            if now is not None:
                yield "learn", now
                learnt[worker] = now
                pulled[worker] = pulled[worker] if pulled[worker] != now else None


@dataclass(slots=True)
class _Walk:
    """A batch that is pulled: its rows, how often each had been pushed; once it is learnt, the end and the coupling."""

    base: NDArray[np.float32]
    before: NDArray[np.int64]
    end: NDArray[np.float32]
    coupling: float = 1.0


class Simulation:
    """`workers` workers and the rows that they share, with pushes merged by `rule`."""

    def __init__(self, stream: Stream, ftrl: Ftrl, rule: Rule, workers: int, size: int) -> None:
        self._cut, self._bias, self._rows = stream.cut(size), stream.bias, stream.fresh()
        self._ftrl, self._rule, self._workers = ftrl, rule, workers
        self._done = np.zeros(stream.rows, np.int64)  # pushes of each row
        self._holds = np.zeros(stream.rows, np.int64)
        self._place = np.full(stream.rows, -1, np.int64)
        self._walks: dict[int, _Walk] = {}
        self._size = size
        self.predictions: dict[int, NDArray[np.float64]] = {}

    def run(self, order: str) -> NDArray[np.float64]:
        """Predictions of the whole stream."""
        for move, m in moves(order, len(self._cut), self._workers, self._size):
            getattr(self, move)(m)
        return np.concatenate([self.predictions[m] for m in range(len(self._cut))])

    def pull(self, m: int) -> None:
        """The rows as they are."""
        at = self._cut[m][2]
        self._walks[m] = _Walk(self._rows[at], self._done[at], self._rows[at])
        self._holds[at] += 1

    def learn(self, m: int) -> None:
        """Predict and learn on the rows that were pulled."""
        (batch, grouped, _), walk = self._cut[m], self._walks[m]
        walk.end = walk.base.copy()
        tables = [TableRows(walk.end, grouped.index, grouped.bias)]
        self.predictions[m] = self._ftrl.learn(tables, batch)
        walk.coupling = self._ftrl.coupling([walk.base], tables, batch)

    def push(self, m: int) -> None:
        """Merge the walk into the shared rows, and into what its worker has pulled already."""
        at, walk, following = self._cut[m][2], self._walks.pop(m), m + self._workers
        whole = np.arange(len(at))
        self._merge(self._rows, at, self._bias, walk, at, whole)
        if following in self._walks:
            _, grouped, its = self._cut[following]
            self._place[at] = whole
            places = self._place[its]
            self._place[at] = -1
            to = np.flatnonzero(places >= 0)
            self._merge(self._walks[following].base, to, grouped.bias, walk, its[to], places[to])
        self._holds[at] -= 1
        self._done[at] += 1

    def _merge(
        self,
        rows: NDArray[np.float32],
        to: NDArray[np.int64],
        bias: int,
        walk: _Walk,
        shared: NDArray[np.int64],
        places: NDArray[np.int64],
    ) -> None:
        """Rows `places` of the walk, which are rows `shared` of all, into rows[to]."""
        since = self._done[shared] - walk.before[places]
        holders = np.minimum(self._holds[shared] + since, self._workers)
        push = Push(to, walk.base[places], walk.end[places], self._workers, holders, walk.coupling)
        self._rule(rows, push, bias, self._ftrl)
