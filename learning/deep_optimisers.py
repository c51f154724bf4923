"""Steps of Adam and Adagrad in place, on dense parameters and on rows of keys; deep_training.py has the equations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from learning.deep_merge import VECTOR_BETA, WEIGHT_BETA

if TYPE_CHECKING:
    from torch import Tensor

    from learning.deep_parameters import DeepParameters

__all__ = ["step_dense", "step_rows"]

_FIRST, _SECOND, _EPSILON = 0.9, 0.999, 1e-8


def step_dense(p: Tensor, m: Tensor, s: Tensor, gradient: Tensor, steps: int, rate: float) -> None:
    """Adam's step number `steps` (from 1 on) on parameters and moments f32 (k,)."""
    m.mul_(_FIRST).add_(gradient, alpha=1.0 - _FIRST)
    s.mul_(_SECOND).addcmul_(gradient, gradient, value=1.0 - _SECOND)
    root = (s / (1.0 - _SECOND**steps)).sqrt_().add_(_EPSILON)
    p.addcdiv_(m, root, value=-rate / (1.0 - _FIRST**steps))


def step_rows(of: DeepParameters, rows: Tensor, g: Tensor, pace: float) -> None:
    """One step on rows f32 (u, row_width) of keys, by gradients f32 (u, 1 + embedding) of the records' sum."""
    squares = torch.cat((g[:, :1] ** 2, (g[:, 1:] ** 2).mean(1, keepdim=True)), 1)
    if of.row_optimizer == "adagrad":
        _adagrad(of, rows, g, squares, pace)
    else:
        _adam(of, rows, g, squares, pace)


def _adagrad(of: DeepParameters, rows: Tensor, g: Tensor, squares: Tensor, pace: float) -> None:
    width = g.shape[1]
    rows[:, width:] += squares
    root = rows[:, width:].sqrt()
    rows[:, :1] -= pace * of.weight_rate * g[:, :1] / (WEIGHT_BETA + root[:, :1])
    rows[:, 1:width] -= pace * of.row_rate * g[:, 1:] / (VECTOR_BETA + root[:, 1:])


def _adam(of: DeepParameters, rows: Tensor, g: Tensor, squares: Tensor, pace: float) -> None:
    width = g.shape[1]
    rows[:, -1] += 1.0
    t = rows[:, -1:]
    rows[:, width : 2 * width] = _FIRST * rows[:, width : 2 * width] + (1.0 - _FIRST) * g
    rows[:, 2 * width : -1] = _SECOND * rows[:, 2 * width : -1] + (1.0 - _SECOND) * squares
    root = (rows[:, 2 * width : -1] / (1.0 - torch.pow(_SECOND, t))).sqrt() + _EPSILON
    m = rows[:, width : 2 * width] / (1.0 - torch.pow(_FIRST, t))
    rows[:, :1] -= pace * of.weight_rate * m[:, :1] / root[:, :1]
    rows[:, 1:width] -= pace * of.row_rate * m[:, 1:] / root[:, 1:]
