"""Folders of a run, on a disk or behind an fsspec URL, with the few operations that snapshots need of them."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Protocol

from cluster.models.array_files import ArrayFileError, regular_file, sync_folder
from cluster.snapshots.errors import SnapshotDamagedError, SnapshotError

__all__ = ["LocalPlace", "Place", "os_errors_told"]

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_LOST = {errno.ENOENT, errno.ENOTDIR, errno.EIO}


class Place(Protocol):
    """A folder. Names are plain ones, checked by the caller; every error is a SnapshotError."""

    @property
    def url(self) -> str:
        """The folder as people write it, without secrets."""

    def child(self, name: str) -> Place:
        """The folder `name` in this one, which need not be there."""

    def folders(self) -> list[str]:
        """Names of the folders in it; none if it is not there. A link is no folder."""

    def sizes(self) -> dict[str, int]:
        """Bytes of each file in it, by name; none if it is not there. A link is no file."""

    def read_bytes(self, name: str, bytes_max: int) -> bytes:
        """A small file. Raises SnapshotDamagedError if it is not there, or longer than `bytes_max`."""

    def reading(self, name: str) -> AbstractContextManager[Path]:
        """A file, as a path from which it can be read. Raises SnapshotDamagedError if it is not there."""

    def storing(self, name: str) -> AbstractContextManager[Path]:
        """A path to write, and sync, a file at; the file is in its place when the block is left without an error."""

    def write_whole(self, name: str, data: bytes) -> None:
        """A small file, all of it or nothing, durable; replaces the one that was there."""

    def sync(self) -> None:
        """Return when the names of the files in it are durable."""

    def remove_file(self, name: str) -> None:
        """Remove a file, durably; one that is not there is no error."""

    def remove(self) -> None:
        """Remove the folder with all that is in it."""


@contextmanager
def os_errors_told(action: str, where: object) -> Iterator[None]:
    """Make a sentence of what the operating system refuses, with what to do."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        advice = "see to the disk or the network it lies on"
        if error.errno in _FULL:
            advice = "free space there, or give snapshots.path a folder with more"
        elif error.errno in _FORBIDDEN:
            advice = "give this process the right to, or give snapshots.path another folder"
        raise SnapshotError(f"{action} {where} failed: {reason}; {advice}") from error


class LocalPlace:
    """A folder of this machine, or one that all nodes share; it is made when something is written to it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def url(self) -> str:
        """The folder's path."""
        return str(self._folder)

    @property
    def folder(self) -> Path:
        """The folder's path, as one."""
        return self._folder

    def child(self, name: str) -> LocalPlace:
        """The folder `name` in this one, which need not be there."""
        return LocalPlace(self._folder / name)

    def folders(self) -> list[str]:
        """Names of the folders in it; none if it is not there. A link is no folder."""
        return [entry.name for entry in self._entries() if entry.is_dir(follow_symlinks=False)]

    def sizes(self) -> dict[str, int]:
        """Bytes of each file in it, by name; none if it is not there. A link is no file."""
        sizes: dict[str, int] = {}
        with os_errors_told("looking at", self._folder):
            for entry in self._entries():
                with suppress(FileNotFoundError):  # a job that writes here has just given it another name
                    if entry.is_file(follow_symlinks=False):
                        sizes[entry.name] = entry.stat(follow_symlinks=False).st_size
        return sizes

    def read_bytes(self, name: str, bytes_max: int) -> bytes:
        """A small file. Raises SnapshotDamagedError if it is not there, or longer than `bytes_max`."""
        with self.reading(name) as path, path.open("rb") as file:
            raw = file.read(bytes_max + 1)
        if len(raw) > bytes_max:
            raise SnapshotDamagedError(
                f"{self._folder / name} is longer than {bytes_max} bytes; we wrote less"
            )
        return raw

    @contextmanager
    def reading(self, name: str) -> Iterator[Path]:
        """A file, as a path from which it can be read. Raises SnapshotDamagedError if it is not there."""
        try:
            with os_errors_told("reading", self._folder / name):
                yield regular_file(self._folder, name)
        except ArrayFileError as error:
            raise SnapshotDamagedError(str(error)) from error
        except SnapshotError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno in _LOST:
                raise SnapshotDamagedError(str(error)) from error
            raise

    @contextmanager
    def storing(self, name: str) -> Iterator[Path]:
        """A path to write, and sync, a file at: where it is to lie, because nothing counts before the manifest does."""
        with os_errors_told("writing", self._folder / name):
            self.make()
            yield self._folder / name

    def write_whole(self, name: str, data: bytes) -> None:
        """A small file, all of it or nothing, durable; replaces the one that was there."""
        temporary = self._folder / f".{name}.unfinished"
        with os_errors_told("writing", self._folder / name):
            self.make()
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(self._folder / name)
            sync_folder(self._folder)

    def sync(self) -> None:
        """Return when the names of the files in it are durable."""
        with os_errors_told("writing", self._folder):
            self.make()
            sync_folder(self._folder)

    def remove_file(self, name: str) -> None:
        """Remove a file, durably; one that is not there is no error."""
        with os_errors_told("removing", self._folder / name):
            (self._folder / name).unlink(missing_ok=True)
            if self._folder.is_dir():
                sync_folder(self._folder)

    def remove(self) -> None:
        """Remove the folder with all that is in it; links are removed, and not what they point at."""
        with os_errors_told("removing", self._folder):
            shutil.rmtree(self._folder)

    def make(self) -> None:
        """Make the folder and those above it, durably, where they are not there yet."""
        missing = [folder for folder in (self._folder, *self._folder.parents) if not folder.is_dir()]
        self._folder.mkdir(parents=True, exist_ok=True)
        for folder in missing:
            sync_folder(folder.parent)

    def _entries(self) -> list[os.DirEntry[str]]:
        with os_errors_told("looking at", self._folder):
            try:
                with os.scandir(self._folder) as entries:
                    return list(entries)
            except FileNotFoundError:
                return []
