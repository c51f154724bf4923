"""SnapshotStore: a run's snapshots, what they hold, and which of them can be believed.

    RUN/lock, generation.json        the job that runs, and how often the run was started
    RUN/snapshots/000007/*.npy       arrays, one file each; shards and driver write their own
    RUN/snapshots/000007/manifest.json   last: with it the snapshot is finished

Writing a snapshot, in order: 1. every shard streams its part into the folder and syncs it (part_files.py); 2. the
driver writes the job's arrays; 3. `commit` looks whether all of it is there, and renames the manifest into place. A
crash before 3 leaves a folder without a manifest, which counts for nothing. A difference names its parent, and the
checksum of the parent's manifest, so that it is never added to another state than the one that it was taken from.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from cluster.models.array_files import ArrayFileError, opened_array
from cluster.snapshots import run_folder
from cluster.snapshots.errors import SnapshotDamagedError, SnapshotError, SupersededError
from cluster.snapshots.manifest import MANIFEST, MANIFEST_BYTES_MAX, NUMBER_MAX, SnapshotManifest
from cluster.snapshots.part_files import read_arrays
from cluster.snapshots.places import Place
from cluster.snapshots.remote_place import place_of
from cluster.snapshots.replay import Layers, ShardOf, TableSides, differences, replay
from cluster.snapshots.retention import removable, remove_snapshots
from learning.table_state import TableState

__all__ = ["SnapshotStore"]

_FOLDER = re.compile(r"[0-9]{6}|[1-9][0-9]{6,9}", re.ASCII)
_CHAIN_MAX = 1000


class SnapshotStore:
    """The snapshots of one run; belongs to the driver. Every error is a SnapshotError.

    Parameters:
        run_url: the run's folder: a path, or an fsspec URL.
        say: takes sentences for the user.
    """

    def __init__(self, run_url: str, say: Callable[[str], None]) -> None:
        self._run = place_of(run_url)
        self._run_url = run_url.rstrip("/")
        self._snapshots = self._run.child("snapshots")
        self._say = say
        self._generation = 0  # the last that this job has counted

    def folder(self, number: int) -> str:
        """The folder of a snapshot, for `write_part` and `write_arrays`; a path or URL as the run's own."""
        return f"{self._run_url}/snapshots/{number:06d}"

    def exclusive(self) -> AbstractContextManager[None]:
        """Hold the run while a job learns it. Raises SnapshotError if another job does; a URL cannot be held."""
        return run_folder.exclusive(self._run)

    def next_generation(self) -> int:
        """Count this start of the run, durably; 1 for the first. Raises SupersededError if another job has begun."""
        last = run_folder.last_generation(self._run) or 0
        if self._generation and last > self._generation:
            raise SupersededError(
                f"start {self._generation} of run {self._run.url} may not begin again: start {last} has taken over; "
                "end this job"
            )
        generation = last + 1
        for number in reversed(self.numbers()):  # the file may have been left behind when the run was copied
            try:
                generation = max(generation, self.manifest(number).generation + 1)
                break
            except SnapshotDamagedError as error:
                self._say(f"snapshot {number} cannot be used: {error}")
        run_folder.write_generation(self._run, generation)
        self._generation = generation
        return generation

    def numbers(self) -> list[int]:
        """Numbers of the finished snapshots, damaged ones among them, ascending."""
        return [number for number, finished in self._folders() if finished]

    def commit(self, manifest: SnapshotManifest) -> None:
        """Finish a snapshot whose files have all been written.

        Raises:
            SupersededError: a later start of the run has taken over.
            SnapshotError: a file is not there, the parent is gone, it was finished before, or it cannot be written.

        """
        place = self._snapshots.child(manifest.folder)
        if MANIFEST in place.sizes():
            raise SnapshotError(
                f"{place.url} was finished already; give the next snapshot a number of its own"
            )
        if (latest := run_folder.last_generation(self._run) or 0) > manifest.generation:
            raise SupersededError(
                f"start {manifest.generation} of run {self._run.url} may not finish snapshot {manifest.number}: "
                f"start {latest} has taken over; end this job"
            )
        parent = manifest.parent
        signed = replace(
            manifest, parent_signature=None if parent is None else self.manifest(parent).signature
        )
        raw = signed.render()
        for problem in _absent(place, signed):
            raise SnapshotError(
                f"{problem}. A shard wrote it where the driver does not see it: snapshots.path must be a folder that "
                "all nodes share, or an fsspec URL"
            )
        place.sync()
        place.write_whole(MANIFEST, raw)

    def manifest(self, number: int) -> SnapshotManifest:
        """The checked manifest of a snapshot. Raises SnapshotDamagedError."""
        place = self._snapshots.child(f"{number:06d}")
        where = f"{place.url}/{MANIFEST}"
        manifest = SnapshotManifest.parse(place.read_bytes(MANIFEST, MANIFEST_BYTES_MAX), where)
        if manifest.number != number:
            raise SnapshotDamagedError(
                f"{where} is that of snapshot {manifest.number}; its folder was renamed"
            )
        return manifest

    def job_arrays(self, manifest: SnapshotManifest) -> dict[str, NDArray[Any]]:
        """The job's own arrays of a snapshot, by name. Raises SnapshotDamagedError."""
        return read_arrays(self.folder(manifest.number), manifest.job.prefix, manifest.job.files)

    def chain(self, number: int) -> list[SnapshotManifest]:
        """The manifests of what a snapshot consists of: base first, itself last. Raises SnapshotDamagedError."""
        manifests = [self.manifest(number)]
        while (child := manifests[-1]).parent is not None:
            if len(manifests) == _CHAIN_MAX:
                raise SnapshotDamagedError(f"snapshot {number} rests on more than {_CHAIN_MAX} others")
            try:
                parent = self.manifest(child.parent)  # which is older than its child, so this ends
            except SnapshotDamagedError as error:
                raise SnapshotDamagedError(
                    f"snapshot {number} rests on {child.parent}, but {error}"
                ) from error
            if parent.signature != child.parent_signature:
                raise SnapshotDamagedError(
                    f"snapshot {child.number} rests on another {parent.number} than the one that is there; "
                    "two copies of the run were mixed"
                )
            manifests.append(parent)
        return manifests[::-1]

    def newest(self, before: int | None = None) -> SnapshotManifest | None:
        """The newest snapshot, older than `before`, that is there with its whole chain and all its files.

        The files are counted and measured, and not read: `load` does that. What is passed over is said.
        """
        for number, finished in reversed(self._folders()):
            if before is not None and number >= before:
                continue
            try:
                if not finished:
                    raise SnapshotDamagedError("it was never finished")
                return self._whole(number)[-1]
            except SnapshotDamagedError as error:
                self._say(f"snapshot {number} is passed over: {error}")
        return None

    def verify(self, number: int) -> None:
        """Read every byte of a snapshot's chain. Raises SnapshotDamagedError for the first that is not as written."""
        for manifest in self._whole(number):
            place = self._snapshots.child(manifest.folder)
            for entry in (entry for part in manifest.all_parts() for entry in part.files):
                try:
                    with place.reading(entry.file) as path, opened_array(path, entry.facts):
                        continue
                except ArrayFileError as error:
                    raise SnapshotDamagedError(str(error)) from error

    def load(self, number: int) -> tuple[dict[str, TableState], TableSides]:
        """The tables as of a snapshot, and the side arrays of each of its parts. Raises SnapshotDamagedError."""
        return replay(self._whole(number), self._folder_of)

    def load_shard(self, number: int, shard: int, shards: int) -> tuple[dict[str, TableState], TableSides]:
        """What one shard of `shards` is to hold of it, and the side arrays of the parts which that came from.

        Parts without keys of that shard are not read: with as many shards as it was written by, one part is.
        """
        return replay(self._whole(number), self._folder_of, ShardOf.checked(shard, shards))

    def load_since(self, before: SnapshotManifest, number: int, shard: int, shards: int) -> Layers | None:
        """What changed for a shard from an older snapshot to a newer one; None if that does not rest on it."""
        chain = self._whole(number)
        places = [place for place, link in enumerate(chain) if link.signature == before.signature]
        if not places:
            return None
        return differences(chain[places[0] + 1 :], self._folder_of, ShardOf.checked(shard, shards))

    def retain(self, keep: int, pinned: Collection[int] = ()) -> list[int]:
        """Remove snapshots other than the newest `keep` (1 and up), the pinned, and those that they rest on.

        Damaged ones do not count among the newest. Folders that were never finished go too, if a newer one was. Only
        folders that are named as a snapshot's are touched. Returns the finished ones that were removed.
        """
        if keep < 1:
            raise SnapshotError(f"expected to keep 1 snapshot or more, but came {keep}")
        folders = self._folders()
        finished = [number for number, is_finished in folders if is_finished]
        gone = removable(finished, self._whole, lambda number: self.manifest(number).parent, keep, pinned)
        abandoned = [
            number for number, is_finished in folders if not is_finished and number < max(finished, default=0)
        ]
        remove_snapshots(self._snapshots, (f"{number:06d}" for number in [*gone, *abandoned]))
        return gone

    def _folders(self) -> list[tuple[int, bool]]:
        """The number of each snapshot's folder, ascending, and whether it was finished."""
        names = {int(name): name for name in self._snapshots.folders() if _FOLDER.fullmatch(name)}
        return [
            (number, MANIFEST in self._snapshots.child(name).sizes())
            for number, name in sorted(names.items())
            if 0 < number <= NUMBER_MAX
        ]

    def _folder_of(self, manifest: SnapshotManifest) -> str:
        return self.folder(manifest.number)

    def _whole(self, number: int) -> list[SnapshotManifest]:
        """The chain of a snapshot whose files are all there, with their sizes. Raises SnapshotDamagedError."""
        chain = self.chain(number)
        for manifest in chain:
            for problem in _absent(self._snapshots.child(manifest.folder), manifest):
                raise SnapshotDamagedError(problem)
        return chain


def _absent(place: Place, manifest: SnapshotManifest) -> list[str]:
    """A sentence for each file of a snapshot that is not there, or not as long as it is to be."""
    sizes = place.sizes()
    return [
        f"{place.url}/{entry.file} is to have {entry.size_bytes} bytes, but "
        + (f"has {sizes[entry.file]}" if entry.file in sizes else "is not there, or is a link")
        for part in manifest.all_parts()
        for entry in part.files
        if sizes.get(entry.file) != entry.size_bytes
    ]
