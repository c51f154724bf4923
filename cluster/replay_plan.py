"""Until where a replay goes, and in which order: the journals of the run's later snapshots, as far as they reach."""

from __future__ import annotations

import contextlib
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from actors.ports import SourceError
from cluster.snapshots.errors import SnapshotDamagedError, SnapshotError
from cluster.snapshots.part_files import read_arrays
from cluster.streams.open import end_offsets, offsets_at
from cluster.versions import snapshot_meant
from learning.batch import BatchId

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cluster.config import Pipeline
    from cluster.roll_back import OpenedRun
    from cluster.snapshots.manifest import SnapshotManifest

__all__ = ["Journal", "journal_of", "offsets_meant"]

_OFFSETS = re.compile(r"\d{1,9}=\d{1,18}(,\d{1,9}=\d{1,18})*", re.ASCII)


class Journal(NamedTuple):
    """Batches in the order in which the run's workers counted them; `whole` if they reach to where the replay ends."""

    batches: tuple[BatchId, ...]
    whole: bool
    workers: int


def offsets_meant(text: str, run: OpenedRun, pipeline: Pipeline, first: dict[int, int]) -> dict[int, int]:
    """The offset that each partition is to be replayed to; `first` are those that it is replayed from.

    `text` is `0=1200,1=1180`, `snapshot:12`, or a time: unix seconds or ISO 8601 (UTC, if it names no zone).

    Raises:
        SnapshotError, SourceError: it is none of these, lies before `first`, or beyond what the topic holds.

    """
    if _OFFSETS.fullmatch(text):
        pairs = (pair.partition("=") for pair in text.split(","))
        until = {int(partition): int(offset) for partition, _, offset in pairs}
    elif text.startswith("snapshot:"):
        until = run.store.manifest(snapshot_meant(text, run.book, run.store)).offsets
    else:
        at = offsets_at(pipeline, _seconds(text))
        if all(at.get(partition, 0) < offset for partition, offset in first.items()):
            raise SnapshotError(
                f"{text} lies before the snapshot to begin at, which is at {first}; choose an older one"
            )
        until = {partition: max(offset, at.get(partition, offset)) for partition, offset in first.items()}
    if until.keys() != first.keys():
        raise SnapshotError(
            f"expected offsets of the partitions {sorted(first)}, but came {sorted(until)}; name each"
        )
    for partition, offset in until.items():
        if offset < first[partition]:
            raise SnapshotError(
                f"partition {partition} is to be replayed until {offset}, but the snapshot to begin at stands at "
                f"{first[partition]} already; choose an older one"
            )
    if pipeline.source.kind == "kafka":
        ends = end_offsets(pipeline)
        beyond = {p: ends.get(p, 0) for p, offset in until.items() if offset > ends.get(p, 0)}
        if beyond:
            raise SourceError(
                f"the topic ends at {beyond}, but {text} lies behind that; replay until there, or later"
            )
    return until


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):  # then it is no number, but may be a date
        return float(text)
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise SnapshotError(
            f"expected offsets (0=1200,1=1180), a snapshot (snapshot:12) or a time (2026-01-31T12:00, unix seconds), "
            f"but came {text!r}"
        ) from error
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


def journal_of(
    run: OpenedRun, start: SnapshotManifest, first: dict[int, int], until: dict[int, int]
) -> Journal:
    """What the run learnt behind `start`, in its order, cut at `until`.

    It ends early where a snapshot is gone or holds no journal, or where the run went back to an older snapshot.
    """
    stands, batches, workers = dict(first), list[BatchId](), set[int]()
    for rows, offsets in _journals(run, start.number):
        if all(stands[partition] >= end for partition, end in until.items()):
            break
        journal = [BatchId(*row[1:]) for row in rows]
        reached = _followed(stands, journal)
        if reached is None or any(reached.get(p, at) != at for p, at in offsets.items()):
            break
        stands, batches = reached, batches + journal
        workers |= {row[0] for row in rows}
    whole = all(stands[partition] >= end for partition, end in until.items())
    return Journal(_cut(batches, until), whole, len(workers))


def _journals(run: OpenedRun, after: int) -> Iterator[tuple[list[list[int]], dict[int, int]]]:
    """Rows (worker, partition, first, next offset) and offsets of each later snapshot, as far as they are one line."""
    for number in run.store.numbers():
        if number <= after:
            continue
        try:
            manifest = run.store.manifest(number)
            entries = [entry for entry in manifest.job.files if entry.name.endswith(".journal.batches")]
            arrays = read_arrays(run.store.folder(number), manifest.job.prefix, entries)
        except SnapshotDamagedError:
            return
        if "rolled_back_to" in manifest.note or "journal.batches" not in arrays:
            return
        yield arrays["journal.batches"].tolist(), manifest.offsets


def _followed(stands: dict[int, int], journal: list[BatchId]) -> dict[int, int] | None:
    """Where partitions stand after a journal; None if it does not go on from where they do."""
    reached = dict(stands)
    for batch in journal:
        if reached.get(batch.partition) != batch.first_offset:
            return None
        reached[batch.partition] = batch.next_offset
    return reached


def _cut(batches: list[BatchId], until: dict[int, int]) -> tuple[BatchId, ...]:
    return tuple(
        batch._replace(next_offset=min(batch.next_offset, until[batch.partition]))
        for batch in batches
        if batch.first_offset < until[batch.partition]
    )
