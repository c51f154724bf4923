"""Folders behind fsspec URLs (s3://, gs://, memory:// ...), and the choice between them and folders on a disk.

Files are written to a temporary file and put in one piece, and fetched into a temporary file to be read: they are then
checked exactly as those of a disk are. What an object store has acknowledged is durable; there is nothing to sync.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster.models.redaction import without_secrets
from cluster.snapshots.errors import SnapshotDamagedError, SnapshotError
from cluster.snapshots.places import LocalPlace, Place, os_errors_told

__all__ = ["RemotePlace", "place_of"]


def place_of(url: str) -> Place:
    """The folder that a path or an fsspec URL names. Raises SnapshotError if there is no way to reach it."""
    protocol, found, path = url.partition("://")
    if not found or protocol in {"file", "local"}:
        return LocalPlace(Path(path if found else url))
    from fsspec.core import url_to_fs

    shown = str(without_secrets(url))
    try:
        files, path = url_to_fs(url)
    except Exception as error:
        raise SnapshotError(
            f"expected a folder or an fsspec URL as the run's place, but {shown} cannot be opened: {error}; "
            "install what it asks for, or correct snapshots.path"
        ) from error
    return RemotePlace(files, path, shown)


class RemotePlace:
    """A folder of a file system of fsspec; such folders exist as soon as a file lies in them."""

    def __init__(self, files: Any, path: str, url: str) -> None:
        self._files = files
        self._path = path.rstrip("/")
        self._url = url.rstrip("/")

    @property
    def url(self) -> str:
        """The folder's URL, without secrets."""
        return self._url

    def child(self, name: str) -> RemotePlace:
        """The folder `name` in this one, which need not be there."""
        return RemotePlace(self._files, f"{self._path}/{name}", f"{self._url}/{name}")

    def folders(self) -> list[str]:
        """Names of the folders in it; none if it is not there."""
        return [name for name, kind, _ in self._entries() if kind == "directory"]

    def sizes(self) -> dict[str, int]:
        """Bytes of each file in it, by name; none if it is not there."""
        return {name: size for name, kind, size in self._entries() if kind == "file"}

    def read_bytes(self, name: str, bytes_max: int) -> bytes:
        """A small file. Raises SnapshotDamagedError if it is not there, or longer than `bytes_max`."""
        # Its size is looked up first: not every store can give the beginning of an object, or of an empty one.
        if self.sizes().get(name, 0) > bytes_max:
            raise SnapshotDamagedError(f"{self._url}/{name} is longer than {bytes_max} bytes; we wrote less")
        with self._told("reading", name):
            return bytes(self._files.cat_file(f"{self._path}/{name}"))

    @contextmanager
    def reading(self, name: str) -> Iterator[Path]:
        """A file, fetched into a temporary one. Raises SnapshotDamagedError if it is not there."""
        with _temporary(name) as path:
            with self._told("fetching", name):
                self._files.get_file(f"{self._path}/{name}", str(path))
            yield path

    @contextmanager
    def storing(self, name: str) -> Iterator[Path]:
        """A temporary path to write a file at, which is put in its place at the end."""
        with _temporary(name) as path:
            yield path
            with self._told("putting", name):
                self._files.put_file(str(path), f"{self._path}/{name}")

    def write_whole(self, name: str, data: bytes) -> None:
        """A small file in one put; replaces the one that was there."""
        with self._told("putting", name):
            self._files.pipe_file(f"{self._path}/{name}", data)

    def sync(self) -> None:
        """Nothing to do: what was put is there."""

    def remove_file(self, name: str) -> None:
        """Remove a file; one that is not there is no error."""
        try:
            with self._told("removing", name):
                self._files.rm_file(f"{self._path}/{name}")
        except SnapshotDamagedError:
            return  # it was not there

    def remove(self) -> None:
        """Remove the folder with all that is in it; object stores drop it with its last file."""
        try:
            with self._told("removing", ""):
                self._files.rm(self._path, recursive=True)
        except SnapshotDamagedError:
            return  # it was not there

    def _entries(self) -> list[tuple[str, str, int]]:
        """(name, kind, bytes) of all that lies in it, asked for anew: other processes write there too."""
        try:
            with self._told("looking at", ""):
                self._files.invalidate_cache()
                found = self._files.ls(self._path, detail=True)
        except SnapshotDamagedError:
            return []
        return [
            (
                str(entry["name"]).rstrip("/").rpartition("/")[2],
                str(entry["type"]),
                int(entry.get("size") or 0),
            )
            for entry in found
        ]

    @contextmanager
    def _told(self, action: str, name: str) -> Iterator[None]:
        """Make a sentence of what the library of a file system raises: SnapshotDamagedError for a missing file."""
        where = f"{self._url}/{name}".rstrip("/")
        try:
            yield
        except Exception as error:
            if isinstance(error, FileNotFoundError) and action != "putting":
                raise SnapshotDamagedError(f"{where} is not there: the copy is incomplete") from error
            # Each library has errors of its own, and not all of them are OSErrors.
            reason = without_secrets(" ".join(str(error).split()))
            raise SnapshotError(
                f"{action} {where} failed: {type(error).__name__}: {reason[:400]}; see whether it can be reached "
                "from this machine, and with which rights"
            ) from error


@contextmanager
def _temporary(name: str) -> Iterator[Path]:
    with (
        os_errors_told("writing a temporary copy of", name),
        tempfile.TemporaryDirectory("-millrace") as folder,
    ):
        yield Path(folder, name)
