"""What each record cost: the losses that drift detectors watch and models are compared by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from learning.metrics import LOSS_P_MIN, Prequential

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from learning.learner import Learner

    Loss = Callable[[NDArray[np.float64], NDArray[np.float32]], NDArray[np.float64]]

__all__ = ["log_loss", "loss_max_of", "loss_of", "squared_error"]


def log_loss(predictions: NDArray[np.float64], labels: NDArray[np.float32]) -> NDArray[np.float64]:
    """Each record's log-loss f64 (n,); a prediction that is NaN counts as certain and wrong."""
    y = labels.astype(np.float64)
    wrong = np.where(y >= 0.5, 0.0, 1.0)
    p = np.clip(np.where(np.isnan(predictions), wrong, predictions), LOSS_P_MIN, 1.0 - LOSS_P_MIN)
    return np.asarray(-(y * np.log(p) + (1.0 - y) * np.log1p(-p)))


def squared_error(predictions: NDArray[np.float64], labels: NDArray[np.float32]) -> NDArray[np.float64]:
    """Each record's squared error f64 (n,), with NaN for a prediction that is NaN."""
    return np.asarray((predictions - labels.astype(np.float64)) ** 2)


def loss_of(learner: Learner) -> Loss:
    """The loss of a learner's own predictions: log-loss of probabilities, squared error of ratings."""
    return log_loss if isinstance(learner.metrics(), Prequential) else squared_error


def loss_max_of(learner: Learner) -> float:
    """More than this no record counts as, where losses are averaged."""
    low, high = learner.label_range
    return 35.0 if isinstance(learner.metrics(), Prequential) else float(min((high - low) ** 2, 1e9))
