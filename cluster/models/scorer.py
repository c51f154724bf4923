"""Scorer: a model folder in, predictions for DataFrames out; without Ray, Kafka or mlflow.

This file and those that `copy_code` names travel inside the MLflow model, whose loader module it is, so that
`mlflow.pyfunc.load_model` works where the repository is not. A frame means what an Arrow message of the same columns
means: every column but id, ts, label, weight and the ignored ones is a feature; a missing value or column (NaN, None)
is a missing feature, and a feature that was never learnt changes nothing.
"""

from __future__ import annotations

import ast
import shutil
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from cluster.decode.arrow_records import read_arrow
from cluster.decode.decoded_rows import Rows
from cluster.decode.record_rules import AS_CATEGORICAL, AS_NUMERIC, IGNORED, Rules
from cluster.models.model_files import ModelState, read_model
from cluster.models.model_layout import learner_of
from learning.batch import Batch, BatchId
from learning.encoding import NumericEncoder
from learning.ensemble import Ensemble
from learning.ensemble_state import EnsembleState
from learning.keys import BIAS_KEY
from learning.learner import Learner, TableRows
from learning.table import Table

__all__ = ["Scorer", "ScorerError", "copy_code", "frame_to_batch", "requirements"]

_NO_FEATURES = frozenset({"id", "ts", "label", "weight"})
_KINDS = {"as_numeric": AS_NUMERIC, "as_categorical": AS_CATEGORICAL, "ignore": IGNORED}
_MESSAGE_ROWS = 65_536


class ScorerError(ValueError):
    """A frame cannot be scored; the message names the row or the column and what it should hold."""


class Scorer:
    """A frozen model: `predict` learns nothing, and may be called from several threads at once."""

    def __init__(self, state: ModelState) -> None:
        self._learner = learner_of(state.pipeline)
        self._features: dict[str, Any] = state.pipeline.get("features", {})
        self._encoder = NumericEncoder(**self._features.get("numeric", {}))
        self._encoder.restore(state.arrays["encoder.keys"], state.arrays["encoder.stats"])
        self._ensemble: EnsembleState | None = None
        if isinstance(self._learner, Ensemble):
            self._ensemble = EnsembleState(self._learner)
            self._ensemble.restore(state.arrays)
        self._tables = []
        for spec in self._learner.specs():
            table = Table(spec.width, birth=spec.birth)
            table.restore(state.arrays[f"{spec.name}.keys"], state.arrays[f"{spec.name}.rows"])
            self._tables.append(table)
        self._biases = [int(table.find(np.array([BIAS_KEY]))[0]) for table in self._tables]
        self.records = state.records
        self.offsets = state.offsets

    @classmethod
    def load(cls, folder: str | Path) -> Scorer:
        """Read and check a model folder. Raises ModelFilesError."""
        return cls(read_model(folder))

    def predict(self, frame: pd.DataFrame) -> pd.Series[float]:
        """The prediction for each row (a probability, a rating): float64, `prediction`, with the frame's index.

        Raises:
            ScorerError: the frame holds what no message may hold (infinity, lists, text where a number is due).

        """
        # What is known only with the label has no say in a prediction.
        more = getattr(self._learner, "more_labels", ())
        if more and isinstance(frame, pd.DataFrame):
            frame = frame.assign(**{name: "" for name in more if name not in frame})
        predictions = self.score(frame_to_batch(frame, self._features, self._learner.roles))
        return pd.Series(predictions, index=frame.index, name="prediction", dtype="float64")

    def score(self, batch: Batch) -> NDArray[np.float64]:
        """Predictions f64 (n,) for a batch as a decoder gives it."""
        if self._ensemble is not None:
            batch = self._ensemble.seen(batch)
        if self._learner.encodes:
            batch = self._encoder.encode(batch, frozen=True)
        index = [table.find(k) for table, k in zip(self._tables, self._learner.keys(batch), strict=True)]
        tables = zip(self._tables, index, self._biases, strict=True)
        rows = [TableRows(table.rows, at, bias) for table, at, bias in tables]
        predictions = self._learner.predict(rows, batch)
        return predictions if self._ensemble is None else self._ensemble.mixer.mix(predictions, batch)


def _load_pyfunc(path: str) -> Scorer:
    """MLflow's entry: called by `mlflow.pyfunc.load_model` with the model folder inside the artifact."""
    return Scorer.load(path)


def copy_code(target: Path) -> list[Path]:
    """Copy this file and all of ours that it imports below `target`; returns the folders to ship (`code_paths`)."""
    root = Path(__file__).resolve().parents[2]
    found = [Path("cluster/models/scorer.py")]
    for module in found:
        copy = target / module
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / module, copy)
        packages = {parent / "__init__.py" for parent in module.parents if parent.parts}
        found += sorted((_imported(root, copy.read_text()) | packages).difference(found))
    return sorted({target / module.parts[0] for module in found})


def _imported(root: Path, code: str) -> set[Path]:
    """Files of ours that code imports at run time, at the margin or inside of a function."""
    names = {
        name
        for found in _imports(ast.parse(code))
        for name in (found.module or "", *(f"{found.module}.{alias.name}" for alias in found.names))
    }
    files = {Path(f"{name.replace('.', '/')}.py") for name in names}
    return {file for file in files if (root / file).is_file()}


def _imports(code: ast.AST) -> Iterator[ast.ImportFrom]:
    """All `from ... import ...` but those for the type checker."""
    for node in ast.iter_child_nodes(code):
        if isinstance(node, ast.ImportFrom):
            yield node
        elif not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield from _imports(node)


def requirements(learner: Learner) -> list[str]:
    """What scoring imports, pinned to what is installed: the versions under which this model was learnt."""
    experts = [getattr(expert, "learner", None) for expert in getattr(learner, "experts", ())]
    more = {name for each in (learner, *experts) for name in getattr(each, "libraries", ())}
    names = ("numpy", "numba", "pandas", "pyarrow", "orjson", *sorted(more))
    return [f"{name}=={version(name).partition('+')[0]}" for name in names]


def frame_to_batch(
    frame: pd.DataFrame, features: dict[str, Any], roles: tuple[str, ...] = (), *, want_features: bool = False
) -> Batch:
    """The records of a frame, without labels, read as the Arrow messages that they would be.

    `features` is that section of the resolved pipeline; with `want_features` the batch tells of which each entry is.
    """
    if not isinstance(frame, pd.DataFrame):
        raise ScorerError(
            f"expected a pandas DataFrame, but came {type(frame).__name__}; pass pd.DataFrame(...)"
        )
    kinds = {name: kind for section, kind in _KINDS.items() for name in features.get(section, ())}
    rules = Rules(kinds, roles=roles, want_features=want_features)
    unwanted = [name for name in frame.columns if name in _NO_FEATURES or rules.kinds.get(name) == IGNORED]
    parts, refused = read_arrow(_messages(frame.drop(columns=unwanted)), rules, want_ids=False)
    if refused:
        row = refused[0].message * _MESSAGE_ROWS + (refused[0].row or 0)
        raise ScorerError(f"row {row} of the frame cannot be scored: {refused[0].reason}")
    return Batch.concat(BatchId(0, 0, len(frame)), [_batch(rows) for rows in parts])


def _messages(features: pd.DataFrame) -> list[bytes]:
    """The frame as Arrow streams; every record gets a label of 0, because a message needs one."""
    try:
        table = pa.Table.from_pandas(features.assign(label=0.0), preserve_index=False)
    except (pa.ArrowException, ValueError, TypeError) as error:
        reason = " ".join(str(part) for part in error.args)
        raise ScorerError(
            f"the frame cannot be read as columns of numbers or texts: {reason}; convert it"
        ) from error
    messages = []
    for start in range(0, len(features), _MESSAGE_ROWS):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table.slice(start, _MESSAGE_ROWS))
        messages.append(sink.getvalue().to_pybytes())
    return messages


def _batch(rows: Rows) -> Batch:
    records = len(rows.labels)
    return rows.batch(BatchId(0, 0, records), np.full(records, np.nan), rows.message)
