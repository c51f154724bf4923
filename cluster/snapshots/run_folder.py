"""What keeps the starts of one run apart: a lock while a job runs, and a number for each start."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from cluster.snapshots.errors import SnapshotError
from cluster.snapshots.places import LocalPlace, Place, os_errors_told

__all__ = ["exclusive", "held", "last_generation", "write_generation"]

_GENERATION = "generation.json"
_LOCK = "lock"
_BYTES_MAX = 10_000


@contextmanager
def exclusive(run: Place) -> Iterator[None]:
    """Hold a local run folder's lock; the operating system lets go of it when the process ends, however it does.

    A URL has no such lock: there the generation keeps an older job from finishing snapshots.
    """
    if not isinstance(run, LocalPlace):
        yield
        return
    path = run.folder / _LOCK
    with os_errors_told("locking", path):
        run.make()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        with os_errors_told("locking", path):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "unknown"
                raise SnapshotError(
                    f"run {run.url} is already being learnt by process {holder}; stop that job, "
                    "or give this one a run of its own"
                ) from error
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def held(run: Place) -> bool:
    """Whether a job on a machine that shares this folder holds the run's lock; a URL has none."""
    if not isinstance(run, LocalPlace) or not (run.folder / _LOCK).is_file():
        return False
    path = run.folder / _LOCK
    with os_errors_told("looking at", path):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:  # shared, and only for a moment: a job that begins just now would still be refused
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
    return False


def last_generation(run: Place) -> int | None:
    """The number of the newest start of a run; None if none was noted. Raises SnapshotError."""
    if _GENERATION not in run.sizes():
        return None
    raw = run.read_bytes(_GENERATION, _BYTES_MAX)
    try:
        generation = json.loads(raw)["generation"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _unreadable(run) from error
    if type(generation) is not int or not 0 <= generation < 2**53:
        raise _unreadable(run)
    return generation


def write_generation(run: Place, generation: int) -> None:
    """Note the number of a start, durably."""
    run.write_whole(_GENERATION, f"{json.dumps({'generation': generation})}\n".encode())


def _unreadable(run: Place) -> SnapshotError:
    return SnapshotError(
        f'{run.url}/{_GENERATION} is damaged: expected {{"generation": N}}; write it anew with an N above every '
        "_gN in the names of the run's files"
    )
