"""The model folder: a learner's whole state as plain arrays, and a manifest that vouches for every byte.

    manifest.json        format, code version, pipeline, records, offsets, metrics, files (dtype, shape, sha256)
    weights.keys.npy     one .npy file an array; cluster/models/model_layout.py says which arrays a learner has

Files are written first and the manifest is renamed into place last: a folder without one was never finished. The
manifest has one spelling only and holds its own checksum, so a single changed byte in any file is found. Reading
executes nothing: JSON and arrays of numbers. Checksums tell damage, not intent: whoever can rewrite the whole
folder can put other numbers there, but nothing that runs.
"""

from __future__ import annotations

import hashlib
import math
import os
import tomllib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.models.array_files import (
    ARRAY_NAME,
    ArrayFacts,
    ArrayFileError,
    read_array,
    regular_file,
    sha256_of,
    sync_folder,
)
from cluster.models.model_layout import layout_problems
from cluster.models.redaction import without_secrets
from cluster.models.signed_json import SignedJsonError, parse_signed, render_signed

__all__ = [
    "MANIFEST",
    "ModelFilesError",
    "ModelState",
    "code_version",
    "read_manifest",
    "read_model",
    "write_model",
]

MANIFEST = "manifest.json"
FORMAT = 1

_MANIFEST_BYTES_MAX = 16 * 2**20


class ModelFilesError(Exception):
    """A model folder cannot be written or must not be trusted; the message says which file and why."""


@dataclass(frozen=True)
class ModelState:
    """All that a learner knows, and the place in the stream up to which it has learnt.

    `offsets` are the next offsets per partition; `records` were read (learnt or dead-lettered); `arrays` are those of
    LAYOUTS.
    """

    pipeline: dict[str, Any]
    arrays: dict[str, NDArray[Any]]
    offsets: dict[int, int] = field(default_factory=dict)
    records: int = 0
    metrics: dict[str, float] = field(default_factory=dict)


def write_model(folder: str | Path, state: ModelState) -> None:
    """Write `state` into `folder`, durably, without secrets and without metrics that are not finite.

    Raises:
        ModelFilesError: the arrays are not those of the learner, or the folder already holds a model.

    """
    folder = Path(folder)
    if (folder / MANIFEST).exists():
        raise ModelFilesError(
            f"{folder} already holds a finished model; write each version to a folder of its own"
        )
    _check_layout(folder, state.pipeline, state.arrays)
    folder.mkdir(parents=True, exist_ok=True)
    files = [_write_array(folder, name, array) for name, array in sorted(state.arrays.items())]
    manifest = {
        "format": FORMAT,
        "code_version": code_version(),
        "pipeline": without_secrets(state.pipeline),
        "records": int(state.records),
        "offsets": {str(partition): int(offset) for partition, offset in state.offsets.items()},
        "metrics": {name: float(value) for name, value in state.metrics.items() if math.isfinite(value)},
        "files": files,
    }
    temporary = folder / f".{MANIFEST}.unfinished"
    with temporary.open("wb") as file:
        file.write(_render(manifest))
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(folder / MANIFEST)
    sync_folder(folder)


def read_model(folder: str | Path) -> ModelState:
    """Read what `write_model` wrote. Raises ModelFilesError for anything that is missing, damaged or foreign."""
    folder = Path(folder)
    manifest = read_manifest(folder)
    try:
        arrays = {entry["name"]: _read_array(folder, entry) for entry in manifest["files"]}
        state = ModelState(
            pipeline=dict(manifest["pipeline"]),
            arrays=arrays,
            offsets={int(partition): int(offset) for partition, offset in manifest["offsets"].items()},
            records=int(manifest["records"]),
            metrics={name: float(value) for name, value in manifest["metrics"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _foreign(folder / MANIFEST, f"an entry is missing or mistyped ({error!r})") from error
    _check_layout(folder, state.pipeline, arrays)
    return state


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """The checked manifest of a folder, without its arrays. Raises ModelFilesError."""
    path = _inside(Path(folder), MANIFEST)
    if path.stat().st_size > _MANIFEST_BYTES_MAX:
        raise _foreign(path, f"it is longer than {_MANIFEST_BYTES_MAX} bytes")
    try:
        manifest, _ = parse_signed(path.read_bytes())
    except SignedJsonError as error:
        raise _foreign(path, str(error)) from error
    if manifest.get("format") != FORMAT:
        raise _foreign(
            path, f"expected format {FORMAT}, but came {manifest.get('format')!r}; use its code version"
        )
    return manifest


@cache
def code_version() -> str:
    """Version of the running code: that of pyproject.toml, and 12 digits of the SHA-256 of the learning code."""
    root = Path(__file__).resolve().parents[2]
    project = root / "pyproject.toml"
    version = tomllib.loads(project.read_text())["project"]["version"] if project.is_file() else "0"
    digest = hashlib.sha256()
    for source in [*sorted((root / "learning").glob("*.py")), Path(__file__)]:
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    return f"{version}+{digest.hexdigest()[:12]}"


def _write_array(folder: Path, name: str, array: NDArray[Any]) -> dict[str, Any]:
    path = folder / f"{name}.npy"
    with path.open("wb") as file:
        np.lib.format.write_array(file, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())
    return {"name": name, "dtype": array.dtype.str, "shape": list(array.shape), "sha256": sha256_of(path)}


def _read_array(folder: Path, entry: dict[str, Any]) -> NDArray[Any]:
    path = _inside(folder, f"{entry['name']}.npy")
    shape = tuple(int(size) for size in entry["shape"])
    try:
        return read_array(path, ArrayFacts(entry["dtype"], shape, entry["sha256"]))
    except ArrayFileError as error:
        raise ModelFilesError(str(error)) from error


def _inside(folder: Path, name: str) -> Path:
    """The path of a regular file that lies in `folder` itself, links followed."""
    if name != MANIFEST and not ARRAY_NAME.fullmatch(name.removesuffix(".npy")):
        raise ModelFilesError(
            f"{folder / MANIFEST} names the file {name!r}, which is no plain name of an array"
        )
    hint = "it was never finished, or is no model folder" if name == MANIFEST else "the copy is incomplete"
    try:
        return regular_file(folder, name, hint=f"{hint}; give the folder of a finished model")
    except ArrayFileError as error:
        raise ModelFilesError(str(error)) from error


def _check_layout(folder: Path, pipeline: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
    for problem in layout_problems(pipeline, arrays):
        raise ModelFilesError(
            f"model {folder}: {problem}; write and read a model with the same learner and code"
        )


def _render(manifest: dict[str, Any]) -> bytes:
    """The manifest's one spelling, its own checksum included."""
    try:
        return render_signed(manifest)
    except SignedJsonError as error:
        raise ModelFilesError(
            f"the pipeline is not plain JSON: {error}; use model_dump(mode='json')"
        ) from error


def _foreign(path: Path, reason: str) -> ModelFilesError:
    return ModelFilesError(f"{path} is not a file of a model as we write it: {reason}; give another model")
