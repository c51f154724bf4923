"""Where a torch model is computed: the device, how arrays get there, and the model as a function of its parameters."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.func import functional_call

from learning.deep_layout import modules_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from learning.deep_inputs import Inputs
    from learning.deep_parameters import DeepParameters

__all__ = ["Device", "models_of"]

_DTYPES = {"<f4": torch.float32, "<i8": torch.int64}


@lru_cache(maxsize=1)
def _has_cuda() -> bool:
    return torch.cuda.is_available()


class Device:
    """The device of a learner: a GPU where there is one and the pipeline does not forbid it."""

    def __init__(self, of: DeepParameters) -> None:
        if of.device == "cuda" and not _has_cuda():
            raise RuntimeError(
                "learner.device is cuda, but torch finds no CUDA device here; set cluster.gpus_per_worker, so that "
                "workers are placed where there are GPUs, or learner.device to auto"
            )
        self.is_cuda = of.device != "cpu" and _has_cuda()
        self.torch = torch.device("cuda" if self.is_cuda else "cpu")
        self.numbers = [torch.cuda.current_device()] if self.is_cuda else []
        if not self.is_cuda and torch.get_num_threads() != of.threads:
            torch.set_num_threads(of.threads)  # of this thread

    def send(self, array: NDArray[Any]) -> Tensor:
        """A tensor with memory of its own, which torch aligns: what a product rounds to may depend on that."""
        if self.is_cuda:
            pinned = torch.from_numpy(np.ascontiguousarray(array)).pin_memory()
            return pinned.to(self.torch, non_blocking=True)
        return torch.empty(array.shape, dtype=_DTYPES[array.dtype.str]).copy_(torch.from_numpy(array))

    def rows(self, array: NDArray[np.float32]) -> Tensor:
        """A table's rows, f32 (r, width), writable: on a CPU the very memory, which is so changed in place."""
        return self.send(array) if self.is_cuda else torch.from_numpy(array)

    def autocast(self, *, enabled: bool) -> torch.autocast:
        """A context in which torch computes in bfloat16 where it holds that safe."""
        return torch.autocast(self.torch.type, torch.bfloat16, enabled=enabled)


class _Called:
    """A module as a function of its parameters and inputs."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def __call__(self, parameters: dict[str, Tensor], inputs: Inputs) -> Tensor:
        logits: Tensor = functional_call(self._module, parameters, (inputs,))
        return logits


_COMPILED: dict[str, Any] = {}


def models_of(of: DeepParameters) -> tuple[Any, Any, bool]:
    """The model for training, compiled if that is wanted, the one for prediction, and whether they may differ."""
    training, predicting = modules_of(of)
    called: Any = _Called(training)
    if of.compile:
        if of.key not in _COMPILED:
            _COMPILED[of.key] = torch.compile(called.__call__, dynamic=True)
        called = _COMPILED[of.key]
    differ = not of.ready_made or of.dropout > 0.0
    return called, _Called(predicting), differ
