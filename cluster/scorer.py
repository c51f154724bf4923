"""Scorer: a model folder in, probabilities for DataFrames out; without Ray, Kafka or mlflow.

This file and those that `copy_code` names travel inside the MLflow model, whose loader module it is, so that
`mlflow.pyfunc.load_model` works where the repository is not. A frame means what an Arrow message of the same columns
means: every column but id, ts, label, weight and the ignored ones is a feature; a missing value or column (NaN, None)
is a missing feature, and a feature that was never learnt changes nothing.
"""

from __future__ import annotations

import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cluster.model_files import ModelState, read_model
from learning.batch import Batch, BatchId
from learning.encoding import NumericEncoder
from learning.ftrl import Ftrl
from learning.keys import BIAS_KEY, name_key, number_text, value_key
from learning.table import Table

__all__ = ["Scorer", "ScorerError", "copy_code", "frame_to_batch", "requirements"]

_NO_FEATURES = frozenset({"id", "ts", "label", "weight"})
_FLOAT32_BOUND = (2 - 2.0**-24) * 2.0**127
_CODE = ("cluster/__init__.py", "cluster/model_files.py", "cluster/scorer.py", "learning/*.py")


class ScorerError(ValueError):
    """A frame cannot be scored; the message names the column and what it should hold."""


class Scorer:
    """A frozen model: `predict` learns nothing, and may be called from several threads at once."""

    def __init__(self, state: ModelState) -> None:
        settings = state.pipeline["learner"]
        self._learner = Ftrl(**{name: value for name, value in settings.items() if name != "kind"})
        self._features: dict[str, Any] = state.pipeline.get("features", {})
        self._encoder = NumericEncoder(**self._features.get("numeric", {}))
        self._encoder.restore(state.arrays["encoder.keys"], state.arrays["encoder.stats"])
        self._weights = Table(Ftrl.width)
        self._weights.restore(state.arrays["weights.keys"], state.arrays["weights.rows"])
        self._bias = int(self._weights.find(np.array([BIAS_KEY]))[0])
        self.records = state.records
        self.offsets = state.offsets

    @classmethod
    def load(cls, folder: str | Path) -> Scorer:
        """Read and check a model folder. Raises ModelFilesError."""
        return cls(read_model(folder))

    def predict(self, frame: pd.DataFrame) -> pd.Series[float]:
        """The probability of label 1 of each row: float64, named `prediction`, with the frame's index.

        Raises:
            ScorerError: a column holds what no message may hold (infinity, lists, text where a number is due).

        """
        batch = self._encoder.encode(frame_to_batch(frame, self._features), frozen=True)
        index = self._weights.find(batch.keys)
        probabilities = self._learner.predict(self._weights.rows, index, self._bias, batch)
        return pd.Series(probabilities, index=frame.index, name="prediction", dtype="float64")


def _load_pyfunc(path: str) -> Scorer:
    """MLflow's entry: called by `mlflow.pyfunc.load_model` with the model folder inside the artifact."""
    return Scorer.load(path)


def copy_code(target: Path) -> list[Path]:
    """Copy the sources that scoring needs below `target`; returns the folders to ship (`code_paths`)."""
    root = Path(__file__).resolve().parents[1]
    for pattern in _CODE:
        for source in sorted(root.glob(pattern)):
            copy = target / source.relative_to(root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
    return sorted(path for path in target.iterdir() if path.is_dir())


def requirements() -> list[str]:
    """What scoring imports, pinned to what is installed: the versions under which this model was learnt."""
    return [f"{name}=={version(name)}" for name in ("numpy", "numba", "pandas", "pyarrow")]


class _Column(NamedTuple):
    """One feature of all records: u64 (n,) keys, f32 (n,) values, bool (n,) where it is there at all."""

    keys: NDArray[np.uint64]
    values: NDArray[np.float32]
    there: NDArray[np.bool_]
    numeric: bool


def frame_to_batch(frame: pd.DataFrame, features: dict[str, Any]) -> Batch:
    """The records of a frame, without labels; `features` is the section of the resolved pipeline."""
    if not isinstance(frame, pd.DataFrame):
        raise ScorerError(
            f"expected a pandas DataFrame, but came {type(frame).__name__}; pass pd.DataFrame(...)"
        )
    names = [
        name for name in frame.columns if name not in _NO_FEATURES and name not in features.get("ignore", ())
    ]
    if len(set(names)) < len(names) or not all(isinstance(name, str) for name in names):
        raise ScorerError(f"expected columns with distinct text names, but came {names}; rename the columns")
    columns = [_column(name, frame[name], features) for name in names]
    shape = (len(frame), len(columns))
    there = np.stack([column.there for column in columns], axis=1) if columns else np.zeros(shape, np.bool_)
    keys = np.stack([column.keys for column in columns], axis=1) if columns else np.zeros(shape, np.uint64)
    values = (
        np.stack([column.values for column in columns], axis=1) if columns else np.zeros(shape, np.float32)
    )
    numeric = np.broadcast_to(np.array([column.numeric for column in columns], np.bool_), shape)
    offsets = np.zeros(len(frame) + 1, np.int64)
    np.cumsum(there.sum(axis=1), out=offsets[1:])
    unknown_s = np.full(len(frame), np.nan)
    return Batch(
        batch_id=BatchId(0, 0, len(frame)), keys=keys[there], values=values[there], numeric=numeric[there],
        offsets=offsets, labels=np.zeros(len(frame), np.float32), weights=np.ones(len(frame), np.float32),
        event_times_s=unknown_s, produced_s=unknown_s, positions=np.arange(len(frame)),
    )  # fmt: skip


def _column(name: str, series: pd.Series[Any], features: dict[str, Any]) -> _Column:
    key = name_key(name)
    there = series.notna().to_numpy(np.bool_)
    present = series[there]
    text = _is_text(name, present)
    if text and name in features.get("as_numeric", ()):
        raise ScorerError(
            f"column {name!r} holds text, but the pipeline lists it in as_numeric; convert it to numbers"
        )
    numeric = not text and name not in features.get("as_categorical", ())
    keys = np.full(len(series), key, np.uint64)
    values = np.ones(len(series), np.float32)
    if numeric:
        values[there] = _numbers(name, present)
    else:
        codes, distinct = pd.factorize(present)
        keys[there] = np.array([value_key(key, _text(value)) for value in distinct.tolist()], np.uint64)[
            codes
        ]
    return _Column(keys, values, there, numeric)


def _is_text(name: str, present: pd.Series[Any]) -> bool:
    if pd.api.types.is_numeric_dtype(present.dtype) and present.dtype.kind in "biuf":
        return False
    # The values and not the dtype: object and category columns hold either.
    kinds = {bool if isinstance(value, np.bool_) else type(value) for value in present.tolist()}
    if foreign := kinds - {str, bool, int, float}:
        found = ", ".join(sorted(kind.__name__ for kind in foreign))
        raise ScorerError(
            f"column {name!r} should hold numbers, texts or booleans, but holds {found}; convert it"
        )
    if str in kinds and len(kinds) > 1:
        raise ScorerError(f"column {name!r} mixes texts and numbers; convert it to one of them")
    return kinds == {str}


def _numbers(name: str, present: pd.Series[Any]) -> NDArray[np.float32]:
    numbers = present.to_numpy(np.float64)
    if not (np.abs(numbers) < _FLOAT32_BOUND).all():
        raise ScorerError(
            f"column {name!r} holds a number that is no finite 32-bit float; leave it missing instead"
        )
    return numbers.astype(np.float32)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else number_text(value)
