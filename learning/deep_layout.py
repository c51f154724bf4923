"""How a model's dense parameters lie in rows of the table `dense`, and how those rows begin.

Parameters are laid end to end in the model's own order, those of the base first, then those of the head; each of the
two groups is cut into blocks of 256. A row is one block:

    steps, 256 parameters, 256 first moments, 256 second moments (Adam's; its bias correction needs the steps)

The rows' keys depend on nothing but group and block, so they lie on all shards. A new row begins as torch initialises
the model from `seed`, in every process.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from learning.keys import value_key

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from learning.deep_parameters import DeepParameters

__all__ = [
    "BASE",
    "BLOCK",
    "DENSE_WIDTH",
    "HEAD",
    "DenseBirth",
    "DenseLayout",
    "Group",
    "layout_of",
    "modules_of",
]

BLOCK = 256
DENSE_WIDTH = 1 + 3 * BLOCK
BASE, HEAD = 0, 1
_ROWS = "rows"
_NAME = np.uint64(0xD6E8FEB86659FD93)
"""Seeds the keys of blocks; no other table uses them."""
_OWN = threading.local()


class Group(NamedTuple):
    """Parameters of the base or of the head: their names, shapes and places, and the blocks that hold them."""

    names: list[str]
    shapes: list[tuple[int, ...]]
    ends: list[int]
    first_block: int
    blocks: int


@dataclass(frozen=True, slots=True)
class DenseLayout:
    """Of one model: its groups (base, head), the keys u64 (blocks,) of all their rows, and their first values."""

    groups: tuple[Group, Group]
    keys: NDArray[np.uint64]
    first: NDArray[np.float32]
    """f32 (blocks, BLOCK)."""
    freezes_rows: bool

    def pack(self, values: dict[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        """Rows f32 (blocks, DENSE_WIDTH) of given parameters; those that are not given begin as new ones."""
        rows = np.zeros((len(self.keys), DENSE_WIDTH), np.float32)
        rows[:, 1 : 1 + BLOCK] = self.first
        for group in self.groups:
            flat = rows[group.first_block : group.first_block + group.blocks, 1 : 1 + BLOCK].reshape(-1)
            for name, start, end in _spans(group):
                if name in values:
                    flat[start:end] = values[name].reshape(-1)
            rows[group.first_block : group.first_block + group.blocks, 1 : 1 + BLOCK] = flat.reshape(
                -1, BLOCK
            )
        return rows

    def unpack(self, rows: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """The parameters by name that rows f32 (blocks, DENSE_WIDTH), in the order of `keys`, hold."""
        found = {}
        for group in self.groups:
            flat = rows[group.first_block : group.first_block + group.blocks, 1 : 1 + BLOCK].reshape(-1)
            for (name, start, end), shape in zip(_spans(group), group.shapes, strict=True):
                found[name] = flat[start:end].reshape(shape)
        return found


def _spans(group: Group) -> list[tuple[str, int, int]]:
    return list(zip(group.names, [0, *group.ends][:-1], group.ends, strict=True))


def layout_of(of: DeepParameters) -> DenseLayout:
    """The layout of the model that `of` describes; made once. Raises ModelError."""
    return _layout(of.key, _Hidden(of))


class _Hidden:
    """Parameters that take no part in the comparison of a cache: their text, beside them, does."""

    def __init__(self, of: DeepParameters) -> None:
        self.of = of

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Hidden)

    def __hash__(self) -> int:
        return 0


@lru_cache(maxsize=16)
def _layout(key: str, hidden: _Hidden) -> DenseLayout:
    of, model = hidden.of, _seeded(hidden.of)
    parameters = {name: p.detach().numpy() for name, p in model.named_parameters()}
    based = {name for name in parameters if name.startswith(of.base_parameters or ("\0",))}
    unknown = [p for p in of.base_parameters if p != _ROWS and not any(n.startswith(p) for n in parameters)]
    if unknown:
        raise ValueError(
            f"base_parameters name {', '.join(unknown)}, but the parameters of {of.model} are {', '.join(parameters)}"
        )
    if of.freeze_updates and len(based) == len(parameters):
        raise ValueError(
            f"freeze_updates would hold all parameters of {of.model}; leave at least one out of base_parameters"
        )
    base = _group([name for name in parameters if name in based], parameters, 0)
    head = _group([name for name in parameters if name not in based], parameters, base.blocks)
    blocks = [(g, block) for g, group in enumerate((base, head)) for block in range(group.blocks)]
    keys = np.array([value_key(_NAME, f"{g} {block}") for g, block in blocks], np.uint64)
    made = DenseLayout(
        (base, head), keys, np.zeros((len(keys), BLOCK), np.float32), _ROWS in of.base_parameters
    )
    made.first[:] = made.pack({name: np.asarray(p, np.float32) for name, p in parameters.items()})[
        :, 1 : 1 + BLOCK
    ]
    return made


def _group(names: list[str], parameters: dict[str, NDArray[Any]], first_block: int) -> Group:
    ends = np.cumsum([parameters[name].size for name in names]).tolist()
    blocks = -(-ends[-1] // BLOCK) if ends else 0
    return Group(names, [parameters[name].shape for name in names], ends, first_block, blocks)


def _seeded(of: DeepParameters) -> nn.Module:
    """The model as the seed makes it, without touching torch's own stream of random numbers."""
    import torch

    from learning.deep_models import build_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(of.seed)
        return build_model(of)


def modules_of(of: DeepParameters) -> tuple[nn.Module, nn.Module]:
    """The model for training and the model for prediction, of this thread: none is ever switched.

    Their own parameters are never used: what the tables hold is given with each call.
    """
    cache: dict[str, tuple[nn.Module, nn.Module]] = _OWN.__dict__.setdefault("modules", {})
    if (key := of.key) not in cache:
        if len(cache) >= 16:
            cache.clear()
        cache[key] = _seeded(of).train(), _seeded(of).eval()
    return cache[key]


@dataclass(frozen=True, slots=True)
class DenseBirth:
    """How rows of the table `dense` begin."""

    of: DeepParameters

    def fill(self, keys: NDArray[np.uint64], rows: NDArray[Any]) -> None:
        """Write the first parameters into rows (n, DENSE_WIDTH) of `keys` u64 (n,), in place."""
        layout = layout_of(self.of)
        block_of = {int(key): block for block, key in enumerate(layout.keys.tolist())}
        for i, key in enumerate(keys.tolist()):
            if (block := block_of.get(key)) is not None:
                rows[i, 1 : 1 + BLOCK] = layout.first[block]
