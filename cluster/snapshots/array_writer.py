"""ArrayWriter: a .npy file that grows by stretches of rows, so that no array has to be in memory as a whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from cluster.models.array_files import DTYPES, sha256_of
from cluster.snapshots.errors import SnapshotError
from cluster.snapshots.file_entry import FileEntry
from cluster.snapshots.places import Place, os_errors_told

__all__ = ["ArrayWriter", "growing_array"]


class ArrayWriter:
    """Writes the rows of one array; `entry` is there once `finish` is done.

    The header comes first and says how many rows there are, so it is written twice: numpy leaves room in it for any
    number of rows.
    """

    def __init__(self, name: str, path: Path, file: BinaryIO, like: NDArray[Any]) -> None:
        if like.dtype.str not in DTYPES:
            raise SnapshotError(
                f"expected numbers of {', '.join(sorted(DTYPES))} for {name}, but came {like.dtype.str}; "
                "convert them where they are made"
            )
        self.entry: FileEntry | None = None
        self._name, self._path, self._file = name, path, file
        self._dtype, self._row = like.dtype, like.shape[1:]
        self._scalar = like.ndim == 0
        self._rows = 0
        self._header_bytes = self._write_header()

    def append(self, rows: NDArray[Any]) -> None:
        """Write rows behind those that were written. Raises SnapshotError if they are of another kind."""
        if rows.dtype != self._dtype or rows.shape[1:] != self._row:
            raise SnapshotError(
                f"expected rows of {self._dtype} {self._row} for {self._name}, as those before, "
                f"but came {rows.dtype} {rows.shape[1:]}"
            )
        if rows.size:
            # Bytes and not tofile(): that one does not say why a write failed.
            self._file.write(np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data)
        self._rows += len(rows) if rows.ndim else 1

    def finish(self) -> None:
        """Write the header anew, make the file durable, and take its checksum from what was written."""
        self._file.seek(0)
        if self._write_header() != self._header_bytes:
            raise SnapshotError(
                f"the header of {self._path} grew while it was written; use numpy 2.0 or newer"
            )
        self._file.flush()
        os.fsync(self._file.fileno())
        size = os.fstat(self._file.fileno()).st_size
        self.entry = FileEntry(self._name, self._dtype.str, self._shape(), sha256_of(self._path), size)

    def _shape(self) -> tuple[int, ...]:
        return () if self._scalar else (self._rows, *self._row)

    def _write_header(self) -> int:
        header = {"descr": self._dtype.str, "fortran_order": False, "shape": self._shape()}
        np.lib.format.write_array_header_1_0(self._file, header)
        return self._file.tell()


@contextmanager
def growing_array(place: Place, name: str, like: NDArray[Any]) -> Iterator[ArrayWriter]:
    """A writer of the array `name` in `place`, for rows like those of `like`, which it does not write yet."""
    with place.storing(f"{name}.npy") as path, os_errors_told("writing", path), path.open("wb") as file:
        writer = ArrayWriter(name, path, file, like)
        del like  # this frame lives until the file is finished, and a chunk must not
        yield writer
        writer.finish()
