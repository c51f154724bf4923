"""Which snapshots of a run are model versions: noted in its folder, so that they stay when the job is started again.

RUN/versions.json: {"versions": [{"snapshot": 12, "model": "clicks", "version": 3}]}; the version is null until MLflow
has given it.
"""

from __future__ import annotations

import json
import re
import threading
from typing import TYPE_CHECKING, NamedTuple

from cluster.snapshots.errors import SnapshotError
from cluster.snapshots.remote_place import place_of

if TYPE_CHECKING:
    from cluster.snapshots.store import SnapshotStore

__all__ = ["Version", "VersionBook", "snapshot_meant"]

_FILE = "versions.json"
_BYTES_MAX = 16 * 2**20
_SNAPSHOT = re.compile(r"snapshot:([0-9]{1,10})", re.ASCII)


class Version(NamedTuple):
    """Snapshot `snapshot` is version `version` of the registered model `model`."""

    snapshot: int
    model: str
    version: int | None


class VersionBook:
    """The versions of the run at `run_url`; may be used from several threads. Raises SnapshotError."""

    def __init__(self, run_url: str) -> None:
        self._place = place_of(run_url)
        self._lock = threading.Lock()
        self._versions = self._read()

    def all(self) -> list[Version]:
        """By snapshot, ascending."""
        with self._lock:
            return sorted(self._versions.values())

    def pinned(self) -> set[int]:
        """Numbers of the snapshots that must stay."""
        with self._lock:
            return set(self._versions)

    def put(self, version: Version) -> None:
        """Note a version, durably; from now on its snapshot stays."""
        with self._lock:
            self._versions[version.snapshot] = version
            self._write()

    def drop(self, snapshot: int) -> None:
        """Forget one that did not become a version."""
        with self._lock:
            if self._versions.pop(snapshot, None) is not None:
                self._write()

    def last(self, model: str) -> int | None:
        """The number of the newest version of a model in this run."""
        return max(
            (v.version for v in self.all() if v.model == model and v.version is not None), default=None
        )

    def version_of(self, snapshot: int) -> int | None:
        """The number under which a snapshot is registered."""
        return next((v.version for v in self.all() if v.snapshot == snapshot), None)

    def _write(self) -> None:
        noted = {"versions": [version._asdict() for version in sorted(self._versions.values())]}
        self._place.write_whole(_FILE, (json.dumps(noted, indent=1) + "\n").encode())

    def _read(self) -> dict[int, Version]:
        if _FILE not in self._place.sizes():
            return {}
        raw = self._place.read_bytes(_FILE, _BYTES_MAX)
        try:
            versions = [Version(**values) for values in json.loads(raw)["versions"]]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise self._damaged() from error
        for version in versions:
            kinds = (type(version.snapshot), type(version.model), type(version.version))
            if kinds not in {(int, str, int), (int, str, type(None))}:
                raise self._damaged()
        return {version.snapshot: version for version in versions}

    def _damaged(self) -> SnapshotError:
        return SnapshotError(
            f"{self._place.url}/{_FILE} is not as we write it; correct it by the tags `snapshot` of the run's versions "
            "in MLflow, or remove it: then no snapshot is kept for a version"
        )


def snapshot_meant(text: str, book: VersionBook, store: SnapshotStore) -> int:
    """The snapshot that is named: `3`, a version of the registered model, or `snapshot:12`. Raises SnapshotError."""
    found = _SNAPSHOT.fullmatch(text)
    if found is None and not (text.isascii() and text.isdigit()):
        raise SnapshotError(f"expected a version, such as 3, or snapshot:12, but came {text!r}")
    numbers = store.numbers()
    if found is not None:
        number = int(found[1])
        if number not in numbers:
            raise SnapshotError(f"the run has no snapshot {number}; it has {_listed(numbers)}")
        return number
    versions = {v.version: v.snapshot for v in book.all() if v.version is not None}
    if int(text) not in versions:
        told = [f"{version} (snapshot {snapshot})" for version, snapshot in sorted(versions.items())]
        raise SnapshotError(
            f"version {text} is none of this run, whose versions are {_listed(told)}; name a snapshot as snapshot:N, "
            f"of which there are {_listed(numbers)}"
        )
    return versions[int(text)]


def _listed(things: list[int] | list[str]) -> str:
    shown = [str(thing) for thing in things]
    return ", ".join(["..."] * (len(shown) > 20) + shown[-20:]) or "none"
