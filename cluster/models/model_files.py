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
import json
import math
import os
import re
import tomllib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from cluster.models.model_layout import layout_problems
from cluster.models.redaction import without_secrets

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

_DTYPES = frozenset({"<u8", "<i8", "<u4", "<i4", "<f8", "<f4", "|u1", "|b1"})
_ARRAY_NAME = re.compile(r"[A-Za-z0-9_]{1,60}(\.[A-Za-z0-9_]{1,60}){0,3}", re.ASCII)
_MANIFEST_BYTES_MAX = 16 * 2**20
_HEADER_BYTES_MAX = 10_000


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
    _sync_folder(folder)


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
    raw = path.read_bytes()
    try:
        manifest = json.loads(raw)
        claimed = {name: value for name, value in manifest.items() if name != "sha256"}
        intact = _render(claimed) == raw
    except (ValueError, AttributeError, RecursionError) as error:
        raise _foreign(path, f"it is no JSON object as we write it ({error})") from error
    if not intact:
        raise ModelFilesError(
            f"{path} does not match its own checksum; the copy is damaged, fetch the model again"
        )
    if manifest.get("format") != FORMAT:
        raise _foreign(
            path, f"expected format {FORMAT}, but came {manifest.get('format')!r}; use its code version"
        )
    return claimed


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
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"name": name, "dtype": array.dtype.str, "shape": list(array.shape), "sha256": digest}


def _read_array(folder: Path, entry: dict[str, Any]) -> NDArray[Any]:
    path = _inside(folder, f"{entry['name']}.npy")
    dtype, shape = entry["dtype"], tuple(int(size) for size in entry["shape"])
    if dtype not in _DTYPES or not all(0 <= size < 2**40 for size in shape):
        raise _foreign(path, f"the manifest gives it dtype {dtype!r} and shape {shape}, which no model has")
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != entry["sha256"]:
            raise ModelFilesError(
                f"{path} does not match its checksum; it is truncated or damaged, fetch it again"
            )
        file.seek(0)
        header = _npy_header(path, file)
        if header != (shape, False, np.dtype(dtype)):
            raise _foreign(path, f"expected {dtype} {shape} in C order, but its header says {header}")
        count = math.prod(shape)
        # Sizes first: numpy would reserve memory for as many numbers as a header claims.
        if path.stat().st_size - file.tell() != count * np.dtype(dtype).itemsize:
            raise _foreign(
                path, f"expected {count} numbers of {dtype} after its header, but its size is different"
            )
        return np.fromfile(file, np.dtype(dtype), count).reshape(shape)


def _npy_header(path: Path, file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, Fortran order and dtype of a .npy file of version 1.0; leaves `file` at the first number."""
    try:
        if np.lib.format.read_magic(file) != (1, 0):
            raise _foreign(path, "it is no .npy file of version 1.0")
        return np.lib.format.read_array_header_1_0(file, max_header_size=_HEADER_BYTES_MAX)
    except (ValueError, TypeError) as error:
        raise _foreign(path, f"it has no .npy header of version 1.0 ({error})") from error


def _inside(folder: Path, name: str) -> Path:
    """The path of a regular file that lies in `folder` itself, links followed."""
    path = folder / name
    if name != MANIFEST and not _ARRAY_NAME.fullmatch(name.removesuffix(".npy")):
        raise ModelFilesError(
            f"{folder / MANIFEST} names the file {name!r}, which is no plain name of an array"
        )
    if not path.is_file():
        hint = (
            "it was never finished, or is no model folder" if name == MANIFEST else "the copy is incomplete"
        )
        raise ModelFilesError(f"{folder} has no file {name}: {hint}; give the folder of a finished model")
    if path.resolve().parent != folder.resolve():
        raise ModelFilesError(
            f"{path} is a link that leaves the folder, to {path.resolve()}; copy the file itself"
        )
    return path


def _check_layout(folder: Path, pipeline: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
    for problem in layout_problems(pipeline, arrays):
        raise ModelFilesError(
            f"model {folder}: {problem}; write and read a model with the same learner and code"
        )


def _render(manifest: dict[str, Any]) -> bytes:
    """The manifest's one spelling, its own checksum included."""
    try:
        body = json.dumps(manifest, sort_keys=True, allow_nan=False)
    except TypeError as error:
        raise ModelFilesError(
            f"the pipeline is not plain JSON: {error}; use model_dump(mode='json')"
        ) from error
    signed = {**manifest, "sha256": hashlib.sha256(body.encode()).hexdigest()}
    return (json.dumps(signed, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def _foreign(path: Path, reason: str) -> ModelFilesError:
    return ModelFilesError(f"{path} is not a file of a model as we write it: {reason}; give another model")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
