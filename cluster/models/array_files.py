"""Arrays of numbers in .npy files of version 1.0, read so that a damaged or hostile file does no harm.

Before a number is believed, the file's place, checksum, header and size are checked, in an order in which nothing is
executed and no memory is reserved for more than the file really holds.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ARRAY_NAME",
    "DTYPES",
    "HEADER_BYTES_MAX",
    "ArrayFacts",
    "ArrayFileError",
    "opened_array",
    "possible_shape",
    "read_array",
    "regular_file",
    "sha256_of",
    "sync_folder",
]

DTYPES = frozenset({"<u8", "<i8", "<u4", "<i4", "<u2", "<f8", "<f4", "|u1", "|b1"})
"""Kinds of numbers that our files hold."""

ARRAY_NAME = re.compile(r"[A-Za-z0-9_]{1,60}(\.[A-Za-z0-9_]{1,60}){0,5}", re.ASCII)
"""Names of arrays; a file is called so, with .npy behind it."""

HEADER_BYTES_MAX = 10_000
_NUMBERS_END = 2**40


class ArrayFileError(Exception):
    """A file must not be trusted; the message says which one and why."""


class ArrayFacts(NamedTuple):
    """What a manifest vouches for."""

    dtype: str
    shape: tuple[int, ...]
    sha256: str

    @property
    def data_bytes(self) -> int:
        """Bytes of the numbers, without the header."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


def regular_file(folder: Path, name: str, *, hint: str = "the copy is incomplete") -> Path:
    """The path of a regular file that lies in `folder` itself, links followed. Raises ArrayFileError."""
    path = folder / name
    if not path.is_file():
        raise ArrayFileError(f"{folder} has no file {name}: {hint}")
    if path.resolve().parent != folder.resolve():
        raise ArrayFileError(
            f"{path} is a link that leaves the folder, to {path.resolve()}; copy the file itself"
        )
    return path


def read_array(path: Path, facts: ArrayFacts) -> NDArray[Any]:
    """The numbers of a .npy file that is what `facts` say. Raises ArrayFileError."""
    count = math.prod(facts.shape)
    with opened_array(path, facts) as file:
        numbers = np.fromfile(file, np.dtype(facts.dtype), count)
    if len(numbers) != count:
        raise ArrayFileError(f"{path} became shorter while it was read; something else writes to it")
    return numbers.reshape(facts.shape)


def possible_shape(shape: tuple[int, ...]) -> bool:
    """Whether an array may have it; one without rows is not to claim a size beyond all memory either."""
    return all(size >= 0 for size in shape) and math.prod(max(1, size) for size in shape) < _NUMBERS_END


@contextmanager
def opened_array(path: Path, facts: ArrayFacts) -> Iterator[BinaryIO]:
    """The checked file, at its first number. Raises ArrayFileError if it is not what `facts` say."""
    dtype, shape, sha256 = facts
    if dtype not in DTYPES or not possible_shape(shape):
        raise _foreign(path, f"the manifest gives it dtype {dtype!r} and shape {shape}, which no model has")
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise ArrayFileError(
                f"{path} does not match its checksum; it is truncated or damaged, fetch it again"
            )
        file.seek(0)
        header = _npy_header(path, file)
        if header != (shape, False, np.dtype(dtype)):
            raise _foreign(path, f"expected {dtype} {shape} in C order, but its header says {header}")
        # Sizes first: numpy would reserve memory for as many numbers as a header claims.
        if path.stat().st_size - file.tell() != facts.data_bytes:
            raise _foreign(
                path,
                f"expected {math.prod(shape)} numbers of {dtype} after its header, but its size is different",
            )
        yield file


def sha256_of(path: Path) -> str:
    """The checksum of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Return when the names in `folder` are durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _npy_header(path: Path, file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, Fortran order and dtype of a .npy file of version 1.0; leaves `file` at the first number."""
    try:
        if np.lib.format.read_magic(file) != (1, 0):
            raise _foreign(path, "it is no .npy file of version 1.0")
        return np.lib.format.read_array_header_1_0(file, max_header_size=HEADER_BYTES_MAX)
    except (ValueError, TypeError, SyntaxError, TokenError, RecursionError, MemoryError) as error:
        # numpy has Python's own parser read the header as a literal, and that may end in all of these.
        raise _foreign(path, f"it has no .npy header of version 1.0 ({error})") from error


def _foreign(path: Path, reason: str) -> ArrayFileError:
    return ArrayFileError(f"{path} is not a file as we write it: {reason}; give another copy")
