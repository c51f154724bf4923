"""Gradient steps of a torch model over a batch, on rows of the tables.

A step of n records, with logits s, labels y and weights omega, is one of the mean loss

    L = 1/n sum_i omega_i BCEWithLogits(s_i, y_i)

(of a model with several outputs their losses add, each with its own weight). Dense parameters take a step of Adam
(Kingma and Ba, ICLR 2015) on dL. A key's row is seen by few of a step's records, so it gets the gradient of their sum,
g = n dL / drow, and steps by its own history; by Adagrad (Duchi et al., JMLR 2011), with one sum for the vector:

    a_w += g_w^2;       w -= weight_rate g_w / (1 + sqrt(a_w))
    a_v += mean(g_v^2); v -= row_rate g_v / (0.03 + sqrt(a_v))

or by Adam, with m, s and steps in the row and one s for the vector, where the row is in the step. A gradient that is
not finite counts as 0. What every record is predicted as stands before its own step.

The base stands still for the learner's first `freeze_updates` steps: no gradient is asked of what it is made of, so it
runs as under no_grad. It then moves by moments and a count of steps of its own; those of the head go on.

No number leaves the device within a batch, and no record is waited for: a batch goes there as a few arrays in pinned
memory, and comes back once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from learning.deep_device import Device, models_of
from learning.deep_inputs import Inputs, Side
from learning.deep_layout import BASE, BLOCK, HEAD, DenseLayout, Group, layout_of
from learning.deep_optimisers import step_dense, step_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from learning.deep_entries import Steps
    from learning.deep_parameters import DeepParameters

__all__ = ["Targets", "learn_steps", "predict_steps"]


@dataclass(frozen=True, slots=True)
class Targets:
    """What a model's outputs should be: labels f32 (n, outputs), and the weight of each, f32 (n, outputs)."""

    labels: NDArray[np.float32]
    weights: NDArray[np.float32]


def learn_steps(
    of: DeepParameters,
    rows: NDArray[np.float32],
    dense: NDArray[np.float32],
    steps: Steps,
    targets: Targets,
    place: tuple[int, int],
    pace: float = 1.0,
) -> NDArray[np.float64]:
    """Predict and learn step after step; changes `rows` and `dense` in place.

    Args:
        of: the learner's parameters.
        rows: f32 (r, width), writable.
        dense: f32 (blocks, DENSE_WIDTH), in the order of the layout's keys.
        steps: of the batch's entries.
        targets: of the batch's records.
        place: partition and first offset of the batch, from which all randomness comes.
        pace: multiplies each step, and not what the optimiser remembers of it.

    Returns:
        f64 (n, outputs): probabilities, each as of before its record's step.

    """
    batch = _Batch(of, rows, dense, steps)
    labels, weights = batch.device.send(targets.labels), batch.device.send(targets.weights)
    found = torch.empty(targets.labels.shape, device=batch.device.torch)
    with torch.random.fork_rng(devices=batch.device.numbers, enabled=batch.random):
        if batch.random:
            torch.manual_seed(_mixed(of.seed, *place))
        for step in range(len(steps.lists) - 1):
            part = slice(int(steps.bounds[step]), int(steps.bounds[step + 1]))
            found[part] = batch.step(step, labels[part], weights[part], pace)
    batch.bring_back(rows, dense)
    return _probabilities(found)


def predict_steps(
    of: DeepParameters, rows: NDArray[np.float32], dense: NDArray[np.float32], steps: Steps
) -> NDArray[np.float64]:
    """Probabilities f64 (n, outputs) without learning."""
    batch = _Batch(of, rows if rows.flags.writeable else rows.copy(), dense, steps)
    with torch.no_grad():
        parts = [batch.predicted(step) for step in range(len(steps.lists) - 1)]
    return _probabilities(torch.cat(parts)) if parts else np.empty((0, 1))


def _probabilities(logits: Tensor) -> NDArray[np.float64]:
    found: NDArray[np.float64] = torch.sigmoid(logits.to(torch.float64)).cpu().numpy()
    return found


def _mixed(*numbers: int) -> int:
    """A seed of 63 bits from some numbers."""
    state = np.random.SeedSequence([abs(number) for number in numbers]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


class _Batch:
    """One batch's rows, dense parameters and entries on the device, for as long as it is learnt."""

    def __init__(
        self, of: DeepParameters, rows: NDArray[np.float32], dense: NDArray[np.float32], steps: Steps
    ) -> None:
        self._of = of
        self.device = Device(of)
        self._layout: DenseLayout = layout_of(of)
        self._training, self._predicting, self.random = models_of(of)
        send = self.device.send
        self._rows, self._dense = self.device.rows(rows), send(dense)
        self._list, self._lists, self._bounds = send(steps.rows), steps.lists.tolist(), steps.bounds.tolist()
        self._sides = [
            (send(s.places), send(s.values), send(s.starts), s.offsets[steps.bounds].tolist())
            for s in steps.sides
        ]
        self._state = [self._unpacked(group) for group in self._layout.groups]
        self._steps = [int(dense[of.first_block, 0]) if of.blocks else 0 for of in self._layout.groups]

    def _unpacked(self, group: Group) -> list[Tensor]:
        """Parameters, first and second moments of a group, f32 (blocks x BLOCK,) each, end to end."""
        rows = self._dense[group.first_block : group.first_block + group.blocks, 1:]
        return [part.contiguous().view(-1) for part in rows.split(BLOCK, 1)]

    def _parameters(self, flat: list[Tensor]) -> dict[str, Tensor]:
        """The model's parameters by name, as views of their groups'."""
        named = {}
        for values, group in zip(flat, self._layout.groups, strict=True):
            start = 0
            for name, shape, end in zip(group.names, group.shapes, group.ends, strict=True):
                named[name] = values[start:end].view(shape)
                start = end
        return named

    def _listed(self, step: int) -> Tensor:
        """The rows of a step, i64 (u,)."""
        return self._list[self._lists[step] : self._lists[step + 1]]

    def _inputs(self, step: int, values: Tensor) -> Inputs:
        records = slice(self._bounds[step], self._bounds[step + 1])
        sides = tuple(
            Side(places[at[step] : at[step + 1]], of[at[step] : at[step + 1]], starts[records])
            for places, of, starts, at in self._sides
        )
        return Inputs(values, sides)

    def _logits(self, model: Any, flat: list[Tensor], inputs: Inputs) -> Tensor:
        """Logits f32 (n, outputs)."""
        with self.device.autocast(enabled=self._of.autocast):
            logits: Tensor = model(self._parameters(flat), inputs)
        return logits.float().view(len(inputs.sides[0].starts), -1)

    def predicted(self, step: int) -> Tensor:
        """Logits f32 (n, outputs) of the model that does not train."""
        values = self._rows.index_select(0, self._listed(step))[:, : 1 + self._of.embedding]
        flat = [parameters for parameters, _, _ in self._state]
        return self._logits(self._predicting, flat, self._inputs(step, values))

    def step(self, step: int, labels: Tensor, weights: Tensor, pace: float) -> Tensor:
        """One gradient step; logits f32 (n, outputs) as they were before it."""
        held = self._steps[HEAD] < self._of.freeze_updates
        rows = self._rows.index_select(0, self._listed(step))
        values = rows[:, : 1 + self._of.embedding].clone()
        learns_rows = len(rows) > 0 and not (held and self._layout.freezes_rows)
        trained = [g for g in (BASE, HEAD) if self._layout.groups[g].blocks and not (held and g == BASE)]
        flat = [
            of[0].detach().requires_grad_() if g in trained else of[0] for g, of in enumerate(self._state)
        ]
        wanted = [flat[g] for g in trained] + [values.requires_grad_()] * learns_rows
        logits = self._logits(self._training, flat, self._inputs(step, values))
        losses = functional.binary_cross_entropy_with_logits(logits, labels, weights, reduction="sum")
        found = torch.autograd.grad(losses / len(labels), wanted, materialize_grads=True)
        gradients = [torch.nan_to_num(gradient, 0.0, 0.0, 0.0) for gradient in found]
        shown = logits.detach().clone()
        if self.random:
            with torch.no_grad():
                own = self.predicted(step)
            shown[:, : own.shape[1]] = own
        for g, gradient in zip(trained, gradients, strict=False):
            self._steps[g] += 1
            p, m, s = self._state[g]
            step_dense(p, m, s, gradient, self._steps[g], pace * self._rate(g))
        if learns_rows:
            step_rows(self._of, rows, gradients[-1] * len(labels), pace)
            self._rows[self._listed(step)] = rows
        return shown

    def _rate(self, g: int) -> float:
        of_base = self._of.base_rate if g == BASE else None
        return self._of.dense_rate if of_base is None else of_base

    def bring_back(self, rows: NDArray[np.float32], dense: NDArray[np.float32]) -> None:
        """Write what was learnt to the arrays that it came from."""
        for state, steps, group in zip(self._state, self._steps, self._layout.groups, strict=True):
            if group.blocks:
                part = slice(group.first_block, group.first_block + group.blocks)
                dense[part, 1:] = torch.cat([of.view(-1, BLOCK) for of in state], 1).cpu().numpy()
                dense[part, 0] = steps
        if self.device.is_cuda:
            rows[:] = self._rows.cpu().numpy()
