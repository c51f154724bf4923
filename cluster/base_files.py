"""Files from which a run may begin: safetensors, torch's state_dict, weights as JSON. Reading them runs nothing."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from learning.keys import BIAS_KEY, name_key, value_key

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BaseError", "read_tensors", "read_weights"]

_HEADER_BYTES_MAX = 100_000_000
_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "U64": "<u8", "I32": "<i4"}


class BaseError(Exception):
    """The base of a run cannot be used; the message says why."""


def read_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Arrays by name of a .safetensors file, or of a state_dict as torch.save writes it. Raises BaseError."""
    if not path.is_file():
        raise BaseError(f"base.path {path} is no file; give that of a safetensors file, state_dict or model")
    return _safetensors(path) if path.suffix == ".safetensors" else _state_dict(path)


def _safetensors(path: Path) -> dict[str, NDArray[Any]]:
    """The format: u64 length of a JSON header, the header (name: dtype, shape, offsets), then the bytes."""
    raw = path.read_bytes()
    try:
        (size,) = struct.unpack_from("<Q", raw)
        if size > min(_HEADER_BYTES_MAX, len(raw) - 8):
            raise ValueError(f"its header is said to have {size} bytes")
        header, data = json.loads(raw[8 : 8 + size]), memoryview(raw)[8 + size :]
        return {name: _tensor(of, data) for name, of in header.items() if name != "__metadata__"}
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BaseError(f"base.path {path} is no safetensors file that can be read: {error}") from error


def _tensor(of: dict[str, Any], data: memoryview) -> NDArray[Any]:
    start, end = of["data_offsets"]
    if not 0 <= start <= end <= len(data):
        raise ValueError(f"a tensor is said to lie at bytes {start} to {end} of {len(data)}")
    if of["dtype"] == "BF16":  # the upper half of a float32
        halves = np.frombuffer(data[start:end], "<u2").astype(np.uint32)
        return (halves << 16).view(np.float32).reshape(of["shape"])
    if of["dtype"] not in _TYPES:
        raise ValueError(f"a tensor is of type {of['dtype']}, and {', '.join(_TYPES)} and BF16 are read")
    return np.frombuffer(data[start:end], _TYPES[of["dtype"]]).reshape(of["shape"])


def _state_dict(path: Path) -> dict[str, NDArray[Any]]:
    import torch

    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise BaseError(
            f"base.path {path} is no state_dict of tensors alone ({type(error).__name__}: {reason}); write it by "
            "torch.save(model.state_dict(), ...)"
        ) from error
    if not isinstance(found, dict) or not all(isinstance(of, torch.Tensor) for of in found.values()):
        raise BaseError(
            f"base.path {path} holds {type(found).__name__}, and a state_dict is wanted: name to tensor"
        )
    return {
        str(name): (of.float() if of.is_floating_point() else of).detach().numpy()
        for name, of in found.items()
    }


def read_weights(path: Path) -> tuple[NDArray[np.uint64], NDArray[np.float64]]:
    """Keys and weights of linear weights as JSON.

    {"bias": -1.2, "features": {"price": 0.3, "city": {"Oslo": 0.5, "Rome": -0.1}}}: a number is the weight of a numeric
    feature (of its z-score, if it is standardised), a mapping has that of each value. Raises BaseError.
    """
    try:
        found = json.loads(path.read_bytes())
        weights = {} if "bias" not in found else {int(BIAS_KEY): float(found["bias"])}
        for name, of in found["features"].items():
            values = of.items() if isinstance(of, dict) else [(None, of)]
            for value, weight in values:
                key = name_key(name) if value is None else value_key(name_key(name), value)
                weights[int(key)] = float(weight)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BaseError(
            f"base.path {path} holds no weights: {type(error).__name__}: {error}; expected "
            '{"bias": w, "features": {"name": w, "name": {"value": w}}}'
        ) from error
    if not all(math.isfinite(weight) for weight in weights.values()):
        raise BaseError(f"base.path {path} holds a weight that is not finite")
    return np.array([*weights], np.uint64), np.array([*weights.values()], np.float64)
