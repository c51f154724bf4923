"""Which snapshots may go: none that is among the newest, pinned, or needed by one of these."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from cluster.snapshots.errors import SnapshotDamagedError
from cluster.snapshots.manifest import MANIFEST, SnapshotManifest
from cluster.snapshots.places import Place

__all__ = ["removable", "remove_snapshots"]


def removable(
    finished: list[int],
    whole: Callable[[int], list[SnapshotManifest]],
    parent: Callable[[int], int | None],
    keep: int,
    pinned: Collection[int],
) -> list[int]:
    """Which of the `finished` ones, ascending, are not needed; newest first.

    Only whole ones count as kept: `whole` gives the checked chain or raises SnapshotDamagedError. What is newer than
    the newest whole one stays too, for somebody to look at; and if none is whole, everything does.
    """
    needed: set[int] = set()
    newest = None
    kept = 0
    for number in reversed(finished):
        if kept == keep:
            break
        try:
            needed |= {manifest.number for manifest in whole(number)}
        except SnapshotDamagedError:
            continue
        newest = newest or number
        kept += 1
    if newest is None:
        return []
    needed |= _lines(pinned, parent)
    return [number for number in reversed(finished) if number < newest and number not in needed]


def _lines(numbers: Iterable[int], parent: Callable[[int], int | None]) -> set[int]:
    """`numbers` and those before them, as far as they can be read."""
    found: set[int] = set()
    for start in numbers:
        number: int | None = start
        while number is not None and number not in found:
            found.add(number)
            try:
                number = parent(number)
            except SnapshotDamagedError:
                break
    return found


def remove_snapshots(snapshots: Place, names: Iterable[str]) -> None:
    """Remove folders, each manifest first, so that what is half removed is never taken for whole."""
    for name in names:
        folder = snapshots.child(name)
        folder.remove_file(MANIFEST)
        folder.remove()
