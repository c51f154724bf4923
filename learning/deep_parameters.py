"""What a pipeline may say about the torch learner, and what follows from it; meanings in learning/deep.py."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass, field
from typing import Literal

__all__ = ["MODELS", "DeepParameters"]

MODELS = ("mlp", "deepfm", "two_tower", "multi_task")
"""The models that are ready-made; any other name is that of a class `package.module.Class`."""

_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
_EMBEDDING_MAX, _NEGATIVES_MAX, _STEPS_MAX = 1024, 256, 2**24


@dataclass(frozen=True, slots=True)
class DeepParameters:
    """The fields of the torch learner."""

    model: str = "deepfm"
    """mlp, deepfm, two_tower, multi_task, or the dotted name of a torch.nn.Module."""
    model_options: dict[str, bool | int | float | str] = field(default_factory=dict)
    """What the constructor of a model by dotted name gets beside `embedding`."""
    embedding: int = 8
    """Columns of each key's vector."""
    hidden: tuple[int, ...] = (64, 32)
    """Widths of the hidden layers."""
    dropout: float = 0.0
    step_records: int = 128
    """Records to a gradient step; a batch is cut into as many as it takes."""
    dense_rate: float = 1e-3
    """Adam's rate for the dense parameters."""
    row_optimizer: Literal["adagrad", "adam"] = "adagrad"
    row_rate: float = 0.01
    """Rate of the keys' vectors."""
    weight_rate: float = 0.1
    """Rate of the keys' own weights."""
    birth_scale: float = 0.01
    """New vectors are uniform in [-birth_scale, birth_scale)."""
    user: str = "user"
    item: str = "item"
    """Names of the features of which the two towers of two_tower are made."""
    negatives: int = 0
    """For two_tower: items of the same step that stand for what each record did not choose."""
    second_label: str = ""
    """For multi_task: the feature that is the second task's label; it is no input."""
    second_weight: float = 1.0
    base_parameters: tuple[str, ...] = ()
    """Dense parameters that are the base, by name or by what their names begin with; `rows`: all keys' rows."""
    freeze_updates: int = 0
    """The base stands still for so many gradient steps."""
    base_rate: float | None = None
    """Adam's rate for the base once it moves; None: dense_rate."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    autocast: bool = False
    """Compute the model in bfloat16 where torch holds it safe."""
    compile: bool = False
    """Have torch.compile translate the model."""
    threads: int = 1
    """Threads of torch on a CPU; results are the same to the bit only for the same number."""
    kappa: float = 1.0
    """Strength with which walks of several workers that point the same way are averaged. One worker: no effect."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("hidden", "base_parameters"):  # as a recorded pipeline, JSON, gives lists
            object.__setattr__(self, name, tuple(getattr(self, name)))
        _check(self)

    @property
    def key(self) -> str:
        """One text for all fields, by which what was derived from them is found again."""
        return json.dumps(asdict(self), sort_keys=True)

    @property
    def ready_made(self) -> bool:
        """False for a model by dotted name."""
        return self.model in MODELS


def _check(of: DeepParameters) -> None:
    """Raise ValueError for the first parameter that cannot be."""
    if not of.ready_made and not _DOTTED.fullmatch(of.model):
        names = ", ".join(MODELS)
        raise ValueError(f"model should be one of {names}, or package.module.Class, but is {of.model!r}")
    if of.ready_made and of.model_options:
        raise ValueError(f"model_options are for models by dotted name; {of.model} takes hidden and dropout")
    _check_sizes(of)
    for name in ("dense_rate", "row_rate", "weight_rate"):
        if not 0.0 < getattr(of, name) < math.inf:
            raise ValueError(f"{name} should be above 0, but is {getattr(of, name)}")
    if of.base_rate is not None and not 0.0 < of.base_rate < math.inf:
        raise ValueError(f"base_rate should be above 0, but is {of.base_rate}")
    for name in ("birth_scale", "second_weight", "kappa"):
        if not 0.0 <= getattr(of, name) < math.inf:
            raise ValueError(f"{name} should be 0 or more, but is {getattr(of, name)}")
    if not 0.0 <= of.dropout < 1.0:
        raise ValueError(f"dropout should be in [0, 1), but is {of.dropout}")
    if not 0 <= of.seed < 2**63:
        raise ValueError(f"seed should be 0 to 2^63 - 1, but is {of.seed}")
    for name, allowed in (("row_optimizer", ("adagrad", "adam")), ("device", ("auto", "cpu", "cuda"))):
        if getattr(of, name) not in allowed:
            raise ValueError(f"{name} should be one of {', '.join(allowed)}, but is {getattr(of, name)!r}")
    _check_roles(of)
    if of.freeze_updates and not of.base_parameters:
        raise ValueError("freeze_updates holds the base, but base_parameters name none of it")


def _check_sizes(of: DeepParameters) -> None:
    bounds = {
        "embedding": (1, _EMBEDDING_MAX),
        "step_records": (1, 1_000_000),
        "negatives": (0, _NEGATIVES_MAX),
        "freeze_updates": (0, _STEPS_MAX - 1),
        "threads": (1, 1024),
    }
    for name, (low, high) in bounds.items():
        if not low <= getattr(of, name) <= high:
            raise ValueError(f"{name} should be {low} to {high:,}, but is {getattr(of, name)}")
    if not all(width >= 1 for width in of.hidden):
        raise ValueError(f"hidden should be widths of layers, 1 or more, but is {of.hidden}")


def _check_roles(of: DeepParameters) -> None:
    if of.model == "two_tower" and (not of.user or not of.item or of.user == of.item):
        raise ValueError(f"user and item should name two features, but are {of.user!r} and {of.item!r}")
    if (of.model == "multi_task") != bool(of.second_label):
        raise ValueError(
            "second_label names the feature that is the second label of multi_task, and of no other model"
        )
    if of.negatives and of.model != "two_tower":
        raise ValueError(f"negatives are drawn by two_tower, not by {of.model}")
