"""The data directory: one broker at a time, and files that are replaced as a whole."""

from __future__ import annotations

import fcntl
import os
import uuid
from pathlib import Path

from cluster.broker.errors import DataDirError, DataDirLockedError


class DataDirLock:
    """Holds a data directory for one broker, until released or until the process ends, however it ends.

    Args:
        data_dir: created by take() if missing.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._fd = -1

    def take(self) -> None:
        """Lock the directory.

        Raises:
            DataDirLockedError: another broker holds it.
            DataDirError: it cannot be created or written.
        """
        try:
            self._data_dir.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self._data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise DataDirError(
                f"Cannot use the data directory {self._data_dir}: {error.strerror}. Choose one that can be written."
            ) from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._fd)
            raise DataDirLockedError(
                f"Another broker uses the data directory {self._data_dir}. Stop it, or choose another directory."
            ) from error

    def release(self) -> None:
        """Unlock the directory."""
        os.close(self._fd)


def cluster_id(data_dir: Path) -> str:
    """The cluster's id, made at the first start.

    Raises:
        OSError: it cannot be read or written.
    """
    path = data_dir / "cluster-id"
    if not path.exists():
        replace_file(path, f"{uuid.uuid4().hex}\n".encode(), fsync=False)
    return path.read_text().strip()


def replace_file(path: Path, data: bytes, *, fsync: bool) -> None:
    """Write a file so that after a crash it has either its old or its new content.

    Raises:
        OSError: it cannot be written; the old content stands.
    """
    draft = path.with_name(path.name + ".new")
    with draft.open("wb") as file:
        file.write(data)
        file.flush()
        if fsync:
            os.fsync(file.fileno())
    draft.replace(path)


def read_number(path: Path) -> int:
    """The whole number in a file, 0 if there is no file.

    Raises:
        DataDirError: there is something else in it.
    """
    try:
        return int(path.read_text())
    except FileNotFoundError:
        return 0
    except ValueError as error:
        raise DataDirError(
            f"Expected one whole number in {path}, got something else. Write there a number as large as any in use, "
            "or remove the data directory to start anew."
        ) from error
