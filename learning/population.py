"""A population of FTRL columns with different learning rates in one table, mixed so that no rate has to be tuned.

K columns share a key's row, its look-up and its sum of squared gradients: (z_1 .. z_K, n), and m for restless columns.
For a record x of label y and weight omega, column k with the rate alpha_k (McMahan et al., KDD 2013, Algorithm 1):

    w_k,i = 0 if |z_k,i| <= l1, else -(z_k,i - sgn(z_k,i) l1) / ((beta + sqrt(n_i)) / alpha_k + l2)
    p_k = sigmoid(sum_i w_k,i x_i)
    z_k,i += omega (p_k - y) x_i - (sqrt(n_i') - sqrt(n_i)) / alpha_k w_k,i
    n_i' = n_i + (omega (q - y) x_i)^2,     q = sum_k v_k p_k / sum_k v_k       the columns' own mixture

so one root serves all columns; a root for each of them predicted no better (benchmarks/RESULTS.md). In a restless
column m takes the place of n, m' = keep m + (..)^2: its steps never die. No weight moves when m fades, as z is lifted,
and m remembers about 1 / (1 - keep) of the key's records.

Prediction: all columns, a base rate, and stackers, mixed by fixed share (learning/mixing.py). Weights are those from
before the record's label. With one column, no restless one and no stackers this is learning/ftrl.py, to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from learning.forgetting import forget_columns
from learning.learner import TableSpec
from learning.merge import walk_coupling
from learning.metrics import Prequential
from learning.mixing import width_of
from learning.population_kernels import learn_population, predict_population
from learning.population_merge import merge_mixture, merge_population

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from learning.batch import Batch
    from learning.learner import TableRows

__all__ = ["Population"]

_WEIGHTS, _MIXTURE = range(2)
_COLUMNS_MAX = 64


@dataclass(frozen=True, slots=True)
class Population:
    """The population learner: tables `weights` (z of each column, n, m; the bias among the rows) and `mixture`."""

    rates: tuple[float, ...] = (0.02, 0.06, 0.4, 3.0)
    """alpha of the still columns, at least one."""
    restless: tuple[float, ...] = (0.1, 0.6)
    """alpha of the columns whose squares fade."""
    keep: float = 0.98
    """What a key's record leaves of the restless columns' squares, above 0 and below 1."""
    beta: float = 1.0
    l1: float = 0.0
    l2: float = 0.0
    share: float = 1e-4
    """Share of the experts' weights that is dealt out anew after every record; 0: the Bayes mixture."""
    stackers: tuple[float, ...] = (0.1,)
    """alpha of the stackers; none: a mixture of the columns alone."""
    kappa: float = 1.0
    """Walks of several workers over the same key: 0 adds them, more averages them sooner. One worker: no effect."""

    kind: ClassVar[str] = "population"
    encodes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.rates or not all(rate > 0.0 for rate in (*self.rates, *self.restless, *self.stackers)):
            raise ValueError(
                f"rates should be one or more numbers above 0, restless and stackers any, but they are {self.rates}, "
                f"{self.restless} and {self.stackers}"
            )
        if self.columns > _COLUMNS_MAX or len(self.stackers) > _COLUMNS_MAX:
            raise ValueError(
                f"there are at most {_COLUMNS_MAX} rates, restless ones included, and as many stackers"
            )
        if not 0.0 < self.keep < 1.0 or not 0.0 <= self.share < 1.0:
            raise ValueError(
                f"keep should be in (0, 1) and share in [0, 1), but they are {self.keep}, {self.share}"
            )
        for name in ("beta", "l1", "l2", "kappa"):
            if not getattr(self, name) >= 0.0:
                raise ValueError(f"{name} should be 0 or more, but is {getattr(self, name)}")

    @property
    def columns(self) -> int:
        """K: still and restless ones."""
        return len(self.rates) + len(self.restless)

    @property
    def reacts(self) -> frozenset[str]:
        """Steps, squares and, unless it is one column alone, the share."""
        alone = self.columns == 1 and not self.stackers
        return frozenset({"raise_rates", "forget"} if alone else {"raise_rates", "raise_share", "forget"})

    @property
    def label_range(self) -> tuple[float, float]:
        """Labels are probabilities: 0, 1, or between."""
        return 0.0, 1.0

    @property
    def roles(self) -> tuple[str, ...]:
        """No feature is special."""
        return ()

    @property
    def named(self) -> dict[str, int]:
        """Nobody asks for a weight by its name."""
        return {}

    def specs(self) -> tuple[TableSpec, ...]:
        """The table of weights, and that of the mixture, which has one row, the bias's."""
        width = self.columns + (2 if self.restless else 1)
        mixture = int(width_of(self.columns, len(self.stackers)))
        return TableSpec("weights", width, bias=True, learnt=self.columns), TableSpec(
            "mixture", mixture, bias=True
        )

    def keys(self, batch: Batch) -> tuple[NDArray[np.uint64], ...]:
        """Every entry has a row of weights."""
        return batch.keys, np.empty(0, np.uint64)

    def learn(self, tables: Sequence[TableRows], batch: Batch) -> NDArray[np.float64]:
        """Predict and learn each record in order; changes the rows in place.

        Returns:
            f64 (n,): each record's probability of label 1, as of before the record was learnt.

        """
        weights, mixture = tables
        out = np.empty(len(batch))
        learn_population(
            weights.rows, weights.index, weights.bias, mixture.rows[mixture.bias],
            batch.values, batch.offsets, batch.labels, batch.weights,
            *self._columns(), self._shape(), np.float32(self.keep), _inverse(self.stackers),
            max(self.share, batch.pace.share), np.float32(batch.pace.rate), out,
        )  # fmt: skip
        return out

    def predict(self, tables: Sequence[TableRows], batch: Batch) -> NDArray[np.float64]:
        """Probabilities f64 (n,) without learning; rows of -1 (never seen) count as weight 0."""
        weights, mixture = tables
        out = np.empty(len(batch))
        width = self.specs()[_MIXTURE].width
        state = np.zeros(width, np.float32) if mixture.bias < 0 else mixture.rows[mixture.bias].copy()
        predict_population(
            weights.rows, weights.index, weights.bias, state, batch.values, batch.offsets,
            *self._columns(), _inverse(self.stackers), out,
        )  # fmt: skip
        return out

    def _columns(self) -> tuple[NDArray[np.float32], int, tuple[np.float32, ...]]:
        """1 / alpha of each column, how many are still, and (beta, l1, l2), in the precision of the rows."""
        penalties = np.float32(self.beta), np.float32(self.l1), np.float32(self.l2)
        return _inverse(self.rates + self.restless), len(self.rates), penalties

    def _shape(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Columns and sums of squares of a row, each as the length of a tuple: the kernel is compiled for it."""
        return (0,) * self.columns, (0,) * (self.specs()[_WEIGHTS].width - self.columns)

    def merge(
        self,
        table: int,
        rows: NDArray[np.float32],
        at: NDArray[np.int64],
        base: NDArray[np.float32],
        end: NDArray[np.float32],
        bias: int,
        coupling: float,
    ) -> int:
        """Merge walks from `base` to `end` (f32 (k, width)) into rows[at], as learning/population_merge.py says."""
        if table == _MIXTURE:
            return int(merge_mixture(rows, at, base, end, self.columns, np.array(self.stackers), self.kappa))
        alphas, penalties = np.array(self.rates + self.restless), (self.beta, self.l1, self.l2)
        strength = self.kappa * coupling
        return int(merge_population(rows, at, base, end, bias, alphas, len(self.rates), penalties, strength))

    def coupling(
        self, bases: Sequence[NDArray[np.float32]], tables: Sequence[TableRows], batch: Batch
    ) -> float:
        """How strongly the coordinates of a walk move together, at least 1, measured on the column that counts most."""
        weights, mixture = tables
        column = int(np.argmax(mixture.rows[mixture.bias, : self.columns]))
        pair = [column, self.columns + (column >= len(self.rates))]
        alpha = (self.rates + self.restless)[column]
        return float(
            walk_coupling(
                bases[_WEIGHTS][:, pair].copy(), weights.rows[:, pair].copy(), weights.index, weights.bias,
                batch.values, batch.offsets, alpha, self.beta, self.l1, self.l2,
            )
        )  # fmt: skip

    def forget(self, table: int, rows: NDArray[np.float32], bias: int, keep: float) -> None:
        """Squares keep the share `keep`, and no column's weight moves (learning/forgetting.py); the mixture stays."""
        if table == _MIXTURE:
            return
        columns, still = self.columns, len(self.rates)
        alphas, penalties = np.array(self.rates + self.restless), (self.beta, self.l1, self.l2)
        forget_columns(rows[:, :still], rows[:, columns : columns + 1], alphas[:still], penalties, bias, keep)
        if self.restless:
            forget_columns(
                rows[:, still:columns], rows[:, columns + 1 :], alphas[still:], penalties, bias, keep
            )

    def metrics(self) -> Prequential:
        """Metrics of probabilities."""
        return Prequential.zero()

    def judge(self, metrics: Prequential, predictions: NDArray[np.float64], batch: Batch) -> None:
        """Add a batch's probabilities to `metrics`."""
        metrics.update(predictions, batch.labels)


def _inverse(rates: tuple[float, ...]) -> NDArray[np.float32]:
    return np.array([1.0 / rate for rate in rates], np.float32)
