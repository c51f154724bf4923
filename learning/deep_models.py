"""The ready-made torch models, and how a model is found by its dotted name.

With a record's entries (row of weight w_j and vector v_j, value x_j), s = sum_j x_j v_j and the pairs' interactions
b = (s^2 - sum_j (x_j v_j)^2) / 2, taken column by column:

    mlp         logit = c + sum_j x_j w_j + MLP(s)
    deepfm      logit = c + sum_j x_j w_j + sum_columns b + MLP(s, b)
                (Guo et al., "DeepFM", IJCAI 2017; the MLP reads pooled interactions instead of fields laid side by
                side, as He and Chua, "Neural Factorization Machines", SIGIR 2017, do: records may have any features)
    two_tower   logit = c + w of all + U(s of the user's side) . I(s of the item's side) / sqrt(width)
                (Yi et al., "Sampling-Bias-Corrected Neural Modeling", RecSys 2019, without the correction)
    multi_task  deepfm's MLP with a head for each of two tasks on its last hidden layer

MLP is linear layers with ReLU between. All are made of what is deterministic on a CPU.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn

from learning.deep_inputs import Inputs
from learning.deep_parameters import DeepParameters

__all__ = ["Mlp", "ModelError", "build_model"]


class ModelError(ValueError):
    """The model that the pipeline names cannot be used; the message says why."""


class _Layers(nn.Sequential):
    """Linear layers with ReLU and dropout between; the last one has no activation."""

    def __init__(self, inputs: int, hidden: tuple[int, ...], outputs: int, dropout: float) -> None:
        layers: list[nn.Module] = []
        for width in hidden:
            layers += [nn.Linear(inputs, width), nn.ReLU()]
            layers += [nn.Dropout(dropout)] if dropout else []
            inputs = width
        super().__init__(*layers, nn.Linear(inputs, outputs))


class Mlp(nn.Module):
    """A linear model and layers on the pooled vectors."""

    def __init__(self, embedding: int, hidden: tuple[int, ...], dropout: float) -> None:
        super().__init__()
        self.layers = _Layers(embedding, hidden, 1, dropout)

    def forward(self, inputs: Inputs) -> Tensor:
        """Logits f32 (n,)."""
        sums = inputs.sums()
        logits: Tensor = sums[:, 0] + self.layers(sums[:, 1:]).squeeze(1)
        return logits


class DeepFm(nn.Module):
    """A factorisation machine and layers on what it pooled; `tasks` outputs, all of which have the linear part."""

    def __init__(self, embedding: int, hidden: tuple[int, ...], dropout: float, tasks: int = 1) -> None:
        super().__init__()
        self.layers = _Layers(2 * embedding, hidden, tasks, dropout)
        self.tasks = tasks
        if tasks > 1:
            self.shares = nn.Parameter(torch.ones(tasks))

    def forward(self, inputs: Inputs) -> Tensor:
        """Logits f32 (n,), or (n, tasks)."""
        sums = inputs.sums()
        pooled = sums[:, 1:]
        pairs = 0.5 * (pooled**2 - inputs.squares())
        shallow = sums[:, 0] + pairs.sum(1)
        deep: Tensor = self.layers(torch.cat((pooled, pairs), 1))
        if self.tasks == 1:
            return shallow + deep.squeeze(1)
        return shallow[:, None] * self.shares + deep


class TwoTower(nn.Module):
    """Two towers of layers, whose product says how well user and item go together.

    While it trains it also returns the logits of each user with the items of the `negatives` records before.
    """

    def __init__(self, embedding: int, hidden: tuple[int, ...], dropout: float, negatives: int) -> None:
        super().__init__()
        width = hidden[-1] if hidden else embedding
        self.user = _Layers(embedding, hidden[:-1], width, dropout)
        self.item = _Layers(embedding, hidden[:-1], width, dropout)
        self.bias = nn.Parameter(torch.zeros(1))
        self.scale = width**-0.5
        self.negatives = negatives

    def forward(self, inputs: Inputs) -> Tensor:
        """Logits f32 (n,), or (n, 1 + negatives)."""
        ours, theirs = inputs.sums(0), inputs.sums(1)
        users, items = self.user(ours[:, 1:]), self.item(theirs[:, 1:])
        logits: Tensor = self._logits(ours[:, 0], users, theirs[:, 0], items)
        if not self.training or not self.negatives:
            return logits
        others = [
            self._logits(ours[:, 0], users, theirs[:, 0].roll(k), items.roll(k, 0))
            for k in range(1, self.negatives + 1)
        ]
        return torch.stack((logits, *others), 1)

    def _logits(self, user_weight: Tensor, users: Tensor, item_weight: Tensor, items: Tensor) -> Tensor:
        logits: Tensor = self.bias + user_weight + item_weight + (users * items).sum(1) * self.scale
        return logits


def build_model(of: DeepParameters) -> nn.Module:
    """The model as torch initialises it from the present seed. Raises ModelError."""
    if of.model == "mlp":
        return Mlp(of.embedding, of.hidden, of.dropout)
    if of.model == "two_tower":
        return TwoTower(of.embedding, of.hidden, of.dropout, of.negatives)
    if of.ready_made:
        return DeepFm(of.embedding, of.hidden, of.dropout, 2 if of.model == "multi_task" else 1)
    return _by_name(of)


def _by_name(of: DeepParameters) -> nn.Module:
    """A model of the user's. Its module must have been imported by whoever trusts it: nothing is imported here."""
    module, _, name = of.model.rpartition(".")
    if module not in sys.modules:
        raise ModelError(
            f"the model {of.model} is not imported; a pipeline file that names it imports it, what was recorded does "
            f"not: run `import {module}` first, if you trust it"
        )
    made = getattr(sys.modules[module], name, None)
    if not (isinstance(made, type) and issubclass(made, nn.Module)):
        raise ModelError(f"expected {of.model} to be a class of torch.nn.Module, but it is {made!r}")
    model: nn.Module = made(embedding=of.embedding, **of.model_options)
    if kept := [name for name in model.state_dict() if name not in dict(model.named_parameters())]:
        raise ModelError(
            f"the model {of.model} keeps {', '.join(kept)} beside its parameters, which would be lost; use layers "
            "without running statistics (LayerNorm), or register_buffer(..., persistent=False)"
        )
    if not [*model.parameters()]:
        raise ModelError(f"the model {of.model} has no parameters; give it at least a bias")
    return model
