"""The files of a part: what a shard writes of its tables, and the driver of the job's own arrays, and reads again.

    PREFIX.TABLE.keys  PREFIX.TABLE.rows           rows that changed since the snapshot before
    PREFIX.TABLE.names PREFIX.TABLE.name_ends      of a named table the texts of the keys: bytes, and where each ends
    PREFIX.TABLE.used                              of a table that tracks it, the tick of each row's last use
    PREFIX.TABLE.removed                           keys that went since the snapshot before
    PREFIX.TABLE.FIELD                             each side array, whole
    PREFIX.NAME                                    the job's arrays; a NAME may have a dot

Every array has a file, an empty one too. A part is streamed: the writer holds one chunk at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cluster.models.array_files import ARRAY_NAME, ArrayFileError, read_array
from cluster.snapshots.array_writer import ArrayWriter, growing_array
from cluster.snapshots.errors import SnapshotDamagedError, SnapshotError
from cluster.snapshots.file_entry import PREFIX, FileEntry
from cluster.snapshots.manifest import MANIFEST
from cluster.snapshots.places import Place
from cluster.snapshots.remote_place import place_of
from learning.table_state import TableChange, TableState
from learning.texts import TextColumn

__all__ = ["FrozenPart", "read_arrays", "read_part", "write_arrays", "write_part"]

_ROW_FIELDS = ("keys", "rows", "names", "name_ends", "used")
_OWN_FIELDS = frozenset({*_ROW_FIELDS, "removed"})
_NOTHING = TableState(np.empty(0, np.uint64), np.empty((0, 0), np.float32))
_KINDS = {"keys": ("<u8", 1), "rows": ("<f4", 2), "names": ("|u1", 1), "name_ends": ("<i8", 1)}
_KINDS |= {"used": ("<i8", 1), "removed": ("<u8", 1)}


class FrozenPart(Protocol):
    """What a shard knew at the instant of a snapshot, while it goes on learning."""

    def tables(self) -> list[str]:
        """Names of all tables, changed or not."""

    def chunks(self, table: str) -> Iterator[TableState]:
        """Live rows that changed since the snapshot before, as of the instant; at least one piece, if an empty one."""

    def removed(self, table: str) -> NDArray[np.uint64]:
        """Keys that went since the snapshot before."""

    def side(self, table: str) -> dict[str, NDArray[Any]]:
        """Small arrays of the table as a whole, by name."""


def write_part(folder_url: str, prefix: str, part: FrozenPart) -> list[FileEntry]:
    """Write a shard's part into a snapshot's folder, durably; nothing of it is left if that fails.

    Raises:
        SnapshotError: it cannot be written there, or holds what no part may hold.

    """
    place = place_of(folder_url)
    entries = []
    with _all_or_nothing(place) as names:
        for table in part.tables():
            stem = f"{prefix}.{table}"
            entries += _write_rows(place, stem, part.chunks(table), names)
            entries.append(
                _write(place, f"{stem}.removed", _checked("removed", part.removed(table), stem), names)
            )
            for field, array in part.side(table).items():
                if field in _OWN_FIELDS:
                    raise SnapshotError(
                        f"{stem} has a side array {field}, which is what a part's own is called"
                    )
                entries.append(_write(place, f"{stem}.{field}", array, names))
        place.sync()
    return entries


def write_arrays(folder_url: str, prefix: str, arrays: dict[str, NDArray[Any]]) -> list[FileEntry]:
    """Write the job's own arrays into a snapshot's folder, durably. Raises SnapshotError."""
    place = place_of(folder_url)
    with _all_or_nothing(place) as names:
        entries = [_write(place, f"{prefix}.{name}", array, names) for name, array in sorted(arrays.items())]
        place.sync()
    return entries


def read_part(folder_url: str, prefix: str, entries: Iterable[FileEntry]) -> dict[str, TableChange]:
    """What `write_part` wrote, by table; `entries` may be those of some tables. Raises SnapshotDamagedError."""
    tables: dict[str, dict[str, NDArray[Any]]] = {}
    for name, array in read_arrays(folder_url, prefix, entries).items():
        table, _, field = name.partition(".")
        tables.setdefault(table, {})[field] = array
    where = f"{place_of(folder_url).url}/{prefix}"
    return {table: _change(arrays, f"{where}.{table}") for table, arrays in tables.items()}


def read_arrays(folder_url: str, prefix: str, entries: Iterable[FileEntry]) -> dict[str, NDArray[Any]]:
    """What `write_arrays` wrote, by name. Raises SnapshotDamagedError."""
    place = place_of(folder_url)
    return {entry.name.removeprefix(f"{prefix}."): _read(place, prefix, entry) for entry in entries}


@contextmanager
def _all_or_nothing(place: Place) -> Iterator[list[str]]:
    """Names of files that are being written, which are removed if not all of them can be."""
    if MANIFEST in place.sizes():
        raise SnapshotError(
            f"{place.url} holds a finished snapshot already; write each into a folder of its own"
        )
    names: list[str] = []
    try:
        yield names
    except BaseException:
        for name in names:
            with suppress(SnapshotError):  # the first error is the one to tell
                place.remove_file(f"{name}.npy")
        raise


def _write_rows(place: Place, stem: str, chunks: Iterable[TableState], names: list[str]) -> list[FileEntry]:
    writers: dict[str, ArrayWriter] = {}
    name_bytes = 0
    with ExitStack() as files:

        def append(chunk: TableState) -> None:
            arrays = _row_arrays(chunk, name_bytes, stem)
            for field, array in arrays.items() if not writers else ():
                names.append(_plain(f"{stem}.{field}"))
                writers[field] = files.enter_context(growing_array(place, names[-1], array))
            if arrays.keys() != writers.keys():
                raise SnapshotError(
                    f"{stem}: expected {', '.join(writers)} in every chunk, but came {', '.join(arrays)}"
                )
            for field, array in arrays.items():
                writers[field].append(array)

        for chunk in chunks:
            append(chunk)
            name_bytes += 0 if chunk.names is None else len(chunk.names.data)
            del chunk  # or it would be in memory beside the next one
        if not writers:
            append(_NOTHING)
    return [writer.entry for writer in writers.values() if writer.entry is not None]


def _row_arrays(chunk: TableState, name_bytes: int, stem: str) -> dict[str, NDArray[Any]]:
    """The arrays of a chunk's rows; the names of those before take `name_bytes`."""
    arrays: dict[str, NDArray[Any]] = {"keys": chunk.keys, "rows": chunk.rows}
    if chunk.names is not None:
        arrays |= {"names": chunk.names.data, "name_ends": chunk.names.offsets[1:] + name_bytes}
    if chunk.used is not None:
        arrays["used"] = chunk.used
    for field, array in arrays.items():
        _checked(field, array, stem)
        if field != "names" and len(array) != len(chunk.keys):
            raise SnapshotError(
                f"{stem}: expected {len(chunk.keys)} {field} for as many keys, but came {len(array)}"
            )
    return arrays


def _checked(field: str, array: NDArray[Any], stem: str) -> NDArray[Any]:
    dtype, dimensions = _KINDS[field]
    if array.dtype.str != dtype or array.ndim != dimensions:
        raise SnapshotError(
            f"{stem}: expected {field} as {dtype} of {dimensions} dimension(s), "
            f"but came {array.dtype.str} {array.shape}"
        )
    return array


def _write(place: Place, name: str, array: NDArray[Any], names: list[str]) -> FileEntry:
    names.append(_plain(name))
    with growing_array(place, name, array) as writer:
        writer.append(array)
    assert writer.entry is not None  # finished
    return writer.entry


def _plain(name: str) -> str:
    if not ARRAY_NAME.fullmatch(name):
        raise SnapshotError(
            f"expected a plain name for an array, such as shard0_g1.weights.keys, but came {name!r}"
        )
    return name


def _read(place: Place, prefix: str, entry: FileEntry) -> NDArray[Any]:
    entry = FileEntry.from_json(entry.as_json(), place.url)  # whoever made it
    if not PREFIX.fullmatch(prefix) or not entry.name.startswith(f"{prefix}."):
        raise SnapshotDamagedError(f"{place.url}: the file {entry.name} is not one of the part {prefix!r}")
    try:
        with place.reading(entry.file) as path:
            return read_array(path, entry.facts)
    except ArrayFileError as error:
        raise SnapshotDamagedError(str(error)) from error


def _change(arrays: dict[str, NDArray[Any]], where: str) -> TableChange:
    """A table's change from its arrays, whose shapes must agree."""
    missing = {"keys", "rows", "removed"} - arrays.keys()
    if missing or ("names" in arrays) != ("name_ends" in arrays):
        raise SnapshotDamagedError(f"{where} lacks {', '.join(sorted(missing)) or 'names or name_ends'}")
    keys, ends = arrays["keys"], arrays.get("name_ends")
    for field, (dtype, dimensions) in _KINDS.items():
        array = arrays.get(field, keys)
        fits = field in {"names", "removed"} or len(array) == len(keys) if array.ndim else False
        if field in arrays and (array.dtype.str != dtype or array.ndim != dimensions or not fits):
            raise SnapshotDamagedError(
                f"{where}.{field} is {array.dtype.str} {array.shape}: not what it is to be"
            )
    names = None
    if ends is not None:
        names = TextColumn(arrays["names"], np.concatenate((np.zeros(1, np.int64), ends)))
        if (names.offsets[1:] < names.offsets[:-1]).any() or names.offsets[-1] != len(names.data):
            raise SnapshotDamagedError(f"{where}.name_ends do not rise from 0 to the bytes of the names")
    side = {field: array for field, array in arrays.items() if field not in _OWN_FIELDS}
    return TableChange(TableState(keys, arrays["rows"], names, arrays.get("used")), arrays["removed"], side)
