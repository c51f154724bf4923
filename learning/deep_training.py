"""Gradient steps of a torch model over a batch, on rows of the tables.

A step of n records, with logits s, labels y and weights omega, is one of the mean loss

    L = 1/n sum_i omega_i BCEWithLogits(s_i, y_i)

Dense parameters take a step of Adam (Kingma and Ba, ICLR 2015) on dL. A key's row is seen by few of a step's records,
so it gets the gradient of their sum, g = n dL / drow, and steps by its own history; for Adagrad (Duchi et al., JMLR
2011, with one accumulator for all columns of the vector):

    a_w += g_w^2;       w -= weight_rate g_w / (1 + sqrt(a_w))
    a_v += mean(g_v^2); v -= row_rate g_v / (sqrt(a_v) + 1e-8)

and for Adam m, s and steps in the row, one s for the vector, updated only where the row is in the step. A gradient that
is not finite counts as 0. What every record is predicted as stands before its own step.

No number leaves the device within a batch, and no record is waited for: a batch goes there as a few arrays in pinned
memory, and comes back once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.func import functional_call
from torch.nn import functional

from learning.deep_inputs import Inputs, Side
from learning.deep_layout import BASE, BLOCK, HEAD, DenseLayout, Group, layout_of, modules_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from learning.deep_entries import Steps
    from learning.deep_parameters import DeepParameters

__all__ = ["Targets", "learn_steps", "predict_steps", "row_width"]

_BETA = 0.1
_FIRST, _SECOND, _EPSILON = 0.9, 0.999, 1e-8


@dataclass(frozen=True, slots=True)
class Targets:
    """What a model's outputs should be: labels f32 (n, outputs), and the weight of each, f32 (n, outputs)."""

    labels: NDArray[np.float32]
    weights: NDArray[np.float32]


def row_width(of: DeepParameters) -> int:
    """Columns of a key's row: weight, vector, and what the optimiser keeps."""
    values = 1 + of.embedding
    return values + 2 if of.row_optimizer == "adagrad" else 2 * values + 3


def learn_steps(
    of: DeepParameters,
    rows: NDArray[np.float32],
    dense: NDArray[np.float32],
    steps: Steps,
    targets: Targets,
    place: tuple[int, int],
) -> NDArray[np.float64]:
    """Predict and learn step after step; changes `rows` and `dense` in place.

    Args:
        of: the learner's parameters.
        rows: f32 (r, row_width), writable.
        dense: f32 (blocks, DENSE_WIDTH), in the order of the layout's keys.
        steps: of the batch's entries.
        targets: of the batch's records.
        place: partition and first offset of the batch, from which all randomness comes.

    Returns:
        f64 (n, outputs): probabilities, each as of before its record's step.

    """
    batch = _OnDevice(of, rows, dense, steps)
    labels, weights = batch.send(targets.labels), batch.send(targets.weights)
    found = torch.empty(targets.labels.shape, device=batch.device)
    with torch.random.fork_rng(devices=batch.cuda, enabled=batch.random):
        if batch.random:
            torch.manual_seed(_mixed(of.seed, *place))
        for step in range(len(steps.lists) - 1):
            part = slice(int(steps.bounds[step]), int(steps.bounds[step + 1]))
            found[part] = batch.step(step, labels[part], weights[part])
    probabilities: NDArray[np.float64] = torch.sigmoid(found).to(torch.float64).cpu().numpy()
    batch.bring_back(rows, dense)
    return probabilities


def predict_steps(
    of: DeepParameters, rows: NDArray[np.float32], dense: NDArray[np.float32], steps: Steps
) -> NDArray[np.float64]:
    """Probabilities f64 (n, outputs) without learning."""
    batch = _OnDevice(of, rows.copy() if not rows.flags.writeable else rows, dense, steps)
    parts = []
    with torch.no_grad():
        for step in range(len(steps.lists) - 1):
            own = batch.gathered(step)[:, : 1 + of.embedding]
            parts.append(batch.run(batch.predicting, batch.parameters(), Inputs(own, batch.sides(step))))
        logits = torch.cat(parts) if parts else torch.zeros(0)
    found: NDArray[np.float64] = torch.sigmoid(logits).to(torch.float64).cpu().numpy()
    return found.reshape(len(found), -1)


def _mixed(*numbers: int) -> int:
    """A seed of 63 bits from some numbers."""
    return int(np.random.SeedSequence([abs(n) for n in numbers]).generate_state(1, np.uint64)[0] >> np.uint64(1))


@lru_cache(maxsize=1)
def _cuda() -> bool:
    return torch.cuda.is_available()


def _device(of: DeepParameters) -> torch.device:
    if of.device == "cuda" and not _cuda():
        raise RuntimeError(
            "learner.device is cuda, but torch finds no CUDA device here; set cluster.gpus_per_worker so that workers "
            "are placed where there are GPUs, or learner.device to auto"
        )
    return torch.device("cuda" if of.device != "cpu" and _cuda() else "cpu")


class _OnDevice:
    """One batch's rows, dense parameters and entries where they are computed on."""

    def __init__(
        self, of: DeepParameters, rows: NDArray[np.float32], dense: NDArray[np.float32], steps: Steps
    ) -> None:
        self._of = of
        self.device = _device(of)
        self.cuda = [torch.cuda.current_device()] if self.device.type == "cuda" else []
        if not self.cuda and torch.get_num_threads() != of.threads:
            torch.set_num_threads(of.threads)
        self._layout: DenseLayout = layout_of(of)
        training, self.predicting = modules_of(of)
        self._training = compiled(of.key, _Model(training)) if of.compile else _Model(training)
        self.random = any(isinstance(m, torch.nn.modules.dropout._DropoutNd) for m in training.modules())
        self.random = self.random or not of.ready_made
        # On a CPU the table's own memory is changed in place; elsewhere a copy, that bring_back returns.
        self._rows = torch.from_numpy(rows) if not self.cuda else self.send(rows)
        self._dense = self.send(dense)
        self._lists, self._starts = steps.lists.tolist(), steps.bounds.tolist()
        self._list = self.send(steps.rows)
        self._sides = [
            (self.send(s.places), self.send(s.values), self.send(s.starts), s.offsets[steps.bounds].tolist())
            for s in steps.sides
        ]
        self._state = {g: self._unpacked(group) for g, group in enumerate(self._layout.groups)}
        first = [int(dense[group.first_block, 0]) if group.blocks else 0 for group in self._layout.groups]
        self._steps = {BASE: first[BASE], HEAD: first[HEAD]}

    def send(self, array: NDArray[Any]) -> Tensor:
        """A tensor of its own memory, which torch aligns: what a product rounds to may depend on that."""
        if self.cuda:
            return torch.from_numpy(np.ascontiguousarray(array)).pin_memory().to(self.device, non_blocking=True)
        return torch.empty(array.shape, dtype=_DTYPES[array.dtype.str]).copy_(torch.from_numpy(array))

    def _unpacked(self, group: Group) -> list[Tensor]:
        """Parameters, first and second moments of a group, f32 (3 x blocks x BLOCK), each end to end."""
        rows = self._dense[group.first_block : group.first_block + group.blocks, 1:]
        return [part.contiguous().view(-1) for part in rows.split(BLOCK, 1)]

    def parameters(self, leaves: dict[int, Tensor] | None = None) -> dict[str, Tensor]:
        """The model's parameters by name, as views of their groups."""
        named = {}
        for g, group in enumerate(self._layout.groups):
            flat = self._state[g][0] if leaves is None else leaves[g]
            start = 0
            for name, shape, end in zip(group.names, group.shapes, group.ends, strict=True):
                named[name] = flat[start:end].view(shape)
                start = end
        return named

    def gathered(self, step: int) -> Tensor:
        """The rows of a step, f32 (u, row_width), copied."""
        return self._rows.index_select(0, self._list[self._lists[step] : self._lists[step + 1]])

    def sides(self, step: int) -> tuple[Side, ...]:
        """The entries of a step."""
        records = slice(self._starts[step], self._starts[step + 1])
        return tuple(
            Side(places[at[step] : at[step + 1]], values[at[step] : at[step + 1]], starts[records])
            for places, values, starts, at in self._sides
        )

    def run(self, model: Any, parameters: dict[str, Tensor], inputs: Inputs) -> Tensor:
        """Logits f32."""
        call = model if isinstance(model, _Model) or not isinstance(model, torch.nn.Module) else _Model(model)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._of.autocast):
            logits: Tensor = call(parameters, inputs)
        return logits.float()

    def step(self, step: int, labels: Tensor, weights: Tensor) -> Tensor:
        """One gradient step; logits f32 (n, outputs) as they were before it."""
        held = self._steps[HEAD] < self._of.freeze_updates
        rows, sides = self.gathered(step), self.sides(step)
        values = rows[:, : 1 + self._of.embedding].clone()
        learns_rows = not (held and self._layout.freezes_rows) and len(rows) > 0
        trained = [g for g in (BASE, HEAD) if self._layout.groups[g].blocks and not (held and g == BASE)]
        leaves = {g: state[0] for g, state in self._state.items()}
        # What needs no gradient is computed without a graph, so the frozen base runs as under no_grad.
        leaves |= {g: leaves[g].detach().requires_grad_() for g in trained}
        wanted = [leaves[g] for g in trained] + [values.requires_grad_()] * learns_rows
        logits = self.run(self._training, self.parameters(leaves), Inputs(values, sides))
        outputs = logits.view(len(labels), -1)
        loss = functional.binary_cross_entropy_with_logits(outputs, labels, weights, reduction="sum") / len(labels)
        gradients = [torch.nan_to_num(g, 0.0, 0.0, 0.0) for g in torch.autograd.grad(loss, wanted)]
        shown = outputs.detach()
        if self.random:
            with torch.no_grad():
                shown = shown.clone()
                own = self.run(self.predicting, self.parameters(), Inputs(values.detach(), sides))
                shown[:, : own.numel() // len(labels)] = own.view(len(labels), -1)
        for g, gradient in zip(trained, gradients, strict=False):
            self._adam(g, gradient)
        if learns_rows:
            self._learn_rows(step, rows, gradients[-1] * len(labels))
        return shown

    def _adam(self, g: int, gradient: Tensor) -> None:
        """One step of Adam on a group's parameters, in place."""
        self._steps[g] += 1
        rate = self._of.base_rate if g == BASE and self._of.base_rate is not None else self._of.dense_rate
        p, m, s = self._state[g]
        m.mul_(_FIRST).add_(gradient, alpha=1.0 - _FIRST)
        s.mul_(_SECOND).addcmul_(gradient, gradient, value=1.0 - _SECOND)
        t = self._steps[g]
        root = (s / (1.0 - _SECOND**t)).sqrt_().add_(_EPSILON)
        p.addcdiv_(m, root, value=-rate / (1.0 - _FIRST**t))

    def _learn_rows(self, step: int, rows: Tensor, g: Tensor) -> None:
        of, width = self._of, 1 + self._of.embedding
        squares = torch.cat((g[:, :1] ** 2, (g[:, 1:] ** 2).mean(1, keepdim=True)), 1)
        if of.row_optimizer == "adagrad":
            rows[:, width:] += squares
            root = rows[:, width:].sqrt()
            rows[:, :1] -= of.weight_rate * g[:, :1] / (1.0 + root[:, :1])
            rows[:, 1:width] -= of.row_rate * g[:, 1:] / (_BETA + root[:, 1:])
        else:
            rows[:, -1] += 1.0
            t = rows[:, -1:]
            rows[:, width : 2 * width] = _FIRST * rows[:, width : 2 * width] + (1.0 - _FIRST) * g
            rows[:, 2 * width : -1] = _SECOND * rows[:, 2 * width : -1] + (1.0 - _SECOND) * squares
            root = (rows[:, 2 * width : -1] / (1.0 - torch.pow(_SECOND, t))).sqrt() + _EPSILON
            m = rows[:, width : 2 * width] / (1.0 - torch.pow(_FIRST, t))
            rows[:, :1] -= of.weight_rate * m[:, :1] / root[:, :1]
            rows[:, 1:width] -= of.row_rate * m[:, 1:] / root[:, 1:]
        self._rows[self._list[self._lists[step] : self._lists[step + 1]]] = rows

    def bring_back(self, rows: NDArray[np.float32], dense: NDArray[np.float32]) -> None:
        """Write what was learnt to the arrays that it came from."""
        for g, group in enumerate(self._layout.groups):
            if group.blocks:
                part = slice(group.first_block, group.first_block + group.blocks)
                moved = [of.view(-1, BLOCK) for of in self._state[g]]
                dense[part, 1:] = torch.cat(moved, 1).cpu().numpy()
                dense[part, 0] = self._steps[g]
        if self.cuda:
            rows[:] = self._rows.cpu().numpy()


class _Model:
    """A module as a function of its parameters and inputs."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def __call__(self, parameters: dict[str, Tensor], inputs: Inputs) -> Tensor:
        logits: Tensor = functional_call(self._module, parameters, (inputs,))
        return logits


_DTYPES = {"<f4": torch.float32, "<i8": torch.int64}
_COMPILED: dict[str, Any] = {}


def compiled(key: str, model: _Model) -> Any:
    """The same, translated; once for each set of parameters."""
    if key not in _COMPILED:
        _COMPILED[key] = torch.compile(model.__call__, dynamic=True)
    return _COMPILED[key]


assert math.isfinite(_EPSILON)
