"""What a manifest vouches for: the files of a part, each with dtype, shape, size and checksum."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cluster.models.array_files import ARRAY_NAME, DTYPES, HEADER_BYTES_MAX, ArrayFacts, possible_shape
from cluster.snapshots.errors import SnapshotDamagedError

__all__ = ["PREFIX", "FileEntry", "PartFiles"]

PREFIX = re.compile(r"[A-Za-z0-9_]{1,60}", re.ASCII)
"""How the files of one part begin: shard0_g3."""

_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_DIMENSIONS_MAX = 4


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One array's file: `name` without its .npy, `size_bytes` with its header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    sha256: str
    size_bytes: int

    @property
    def file(self) -> str:
        """The file's name."""
        return f"{self.name}.npy"

    @property
    def facts(self) -> ArrayFacts:
        """What its bytes must be."""
        return ArrayFacts(self.dtype, self.shape, self.sha256)

    def as_json(self) -> dict[str, Any]:
        """As a manifest holds it."""
        return {
            "name": self.name, "dtype": self.dtype, "shape": list(self.shape),
            "sha256": self.sha256, "bytes": self.size_bytes,
        }  # fmt: skip

    @classmethod
    def from_json(cls, values: Any, where: str) -> FileEntry:
        """Check what a manifest says, and that such a file could be. Raises SnapshotDamagedError."""
        wanted = {"name", "dtype", "shape", "sha256", "bytes"}
        if not isinstance(values, dict) or values.keys() != wanted:
            raise SnapshotDamagedError(f"{where} names a file without, or with more than, {sorted(wanted)}")
        name, dtype, shape, sha256, size = (values[k] for k in ("name", "dtype", "shape", "sha256", "bytes"))
        if not isinstance(name, str) or not ARRAY_NAME.fullmatch(name):
            raise SnapshotDamagedError(f"{where} names a file in a way that is no plain name of an array")
        if (
            not isinstance(dtype, str) or dtype not in DTYPES
            or not isinstance(sha256, str) or not _SHA256.fullmatch(sha256)
            or not isinstance(shape, list) or len(shape) > _DIMENSIONS_MAX
            or not all(type(length) is int for length in shape) or not possible_shape(tuple(shape))
        ):  # fmt: skip
            raise SnapshotDamagedError(f"{where} gives {name} a dtype, shape or checksum that no array has")
        entry = cls(name, dtype, tuple(shape), sha256, size)
        header = size - entry.facts.data_bytes if type(size) is int else -1
        if not 0 < header <= HEADER_BYTES_MAX:
            raise SnapshotDamagedError(f"{where} gives {name} {shape} numbers of {dtype}, but other bytes")
        return entry


@dataclass(frozen=True, slots=True)
class PartFiles:
    """The files that one process wrote; their names begin with `prefix` and a dot."""

    prefix: str
    files: tuple[FileEntry, ...]

    def of_table(self, table: str) -> list[FileEntry]:
        """The files of one table."""
        return [entry for entry in self.files if entry.name.startswith(f"{self.prefix}.{table}.")]

    def tables(self) -> list[str]:
        """Names of the tables that the files belong to, in order."""
        return list(dict.fromkeys(entry.name.split(".")[1] for entry in self.files))

    def as_json(self) -> dict[str, Any]:
        """As a manifest holds it."""
        return {"prefix": self.prefix, "files": [entry.as_json() for entry in self.files]}

    @classmethod
    def of(cls, prefix: str, files: Iterable[FileEntry]) -> PartFiles:
        """What `write_part` or `write_arrays` returned, under the prefix that it was given."""
        return cls(prefix, tuple(files))

    @classmethod
    def from_json(cls, values: Any, where: str) -> PartFiles:
        """Check what a manifest says. Raises SnapshotDamagedError."""
        if not isinstance(values, dict) or values.keys() != {"prefix", "files"}:
            raise SnapshotDamagedError(f"{where} has a part that is not a prefix and files")
        prefix, files = values["prefix"], values["files"]
        if not isinstance(prefix, str) or not PREFIX.fullmatch(prefix) or not isinstance(files, list):
            raise SnapshotDamagedError(f"{where} has a part whose prefix or files are of no such form")
        part = cls.of(prefix, (FileEntry.from_json(entry, where) for entry in files))
        names = {entry.name for entry in part.files}
        if len(names) < len(files) or not all(name.startswith(f"{prefix}.") for name in names):
            raise SnapshotDamagedError(
                f"{where} gives the part {prefix} a file twice, or one of another part"
            )
        return part
