"""What a torch model is given: the rows of a step's keys, and which of them each record has, with which values.

A model is a torch.nn.Module that is made as `Model(embedding=8, **model_options)` and called as `forward(inputs)`; it
returns logits, f32 (n,) or (n, tasks). Its parameters are all that it may learn: it must not have persistent buffers
(running statistics), because only parameters travel between workers. It must not depend on the order of rows.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["Inputs", "Side"]


class Side(NamedTuple):
    """Entries: row numbers i64 (e,), values f32 (e,), and where each of the n records begins, i64 (n,)."""

    places: Tensor
    values: Tensor
    starts: Tensor


class Inputs(NamedTuple):
    """One step. `rows` f32 (u, 1 + embedding): of each key its own weight, then its vector.

    `sides`: one, or for two_tower the entries of the user and of the item.
    """

    rows: Tensor
    sides: tuple[Side, ...]

    def sums(self, side: int = 0) -> Tensor:
        """For each record the sum of its rows times their values (a bag of embeddings): f32 (n, 1 + embedding)."""
        of = self.sides[side]
        return _bag(of, self.rows, of.values)

    def squares(self, side: int = 0) -> Tensor:
        """For each record the sum of the squares of (vector times value): f32 (n, embedding)."""
        of = self.sides[side]
        return _bag(of, self.rows[:, 1:] ** 2, of.values**2)

    def entries(self, side: int = 0) -> Tensor:
        """For each entry its row times its value: f32 (e, 1 + embedding)."""
        of = self.sides[side]
        return functional.embedding(of.places, self.rows) * of.values[:, None]

    def counts(self, side: int = 0) -> Tensor:
        """How many entries each record has: f32 (n,)."""
        of = self.sides[side]
        end = of.starts.new_full((1,), len(of.places))
        return torch.diff(of.starts, append=end).to(torch.float32)


def _bag(of: Side, rows: Tensor, values: Tensor) -> Tensor:
    return functional.embedding_bag(of.places, rows, of.starts, mode="sum", per_sample_weights=values)
