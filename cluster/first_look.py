"""Where a run's partitions begin and end, noted in RUN/begin.json when the run first looks at its stream.

A run that dies before its first snapshot begins there again: with `source.start: latest` it would otherwise begin at a
later end, and skip what came in between.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from cluster.assembly import wanted_records
from cluster.snapshots.errors import SnapshotError
from cluster.snapshots.remote_place import place_of
from cluster.streams.open import describe_source

if TYPE_CHECKING:
    from cluster.config import Pipeline
    from cluster.snapshots.manifest import SnapshotManifest
    from cluster.streams.open import Bounds

__all__ = ["FirstLook"]

_NAME = "begin.json"
_BYTES_MAX = 4 * 2**20


class FirstLook:
    """The bounds of one run's partitions. Raises SourceError where the stream cannot be described."""

    def __init__(self, pipeline: Pipeline, run_url: str) -> None:
        self._pipeline = pipeline
        self._place = place_of(run_url)
        self._begun: dict[int, Bounds] | None = None
        self._now: dict[int, Bounds] | None = None

    def first(self) -> dict[int, Bounds]:
        """Bounds of a run without a snapshot: those of its first look; of partitions made since, from their start."""
        if self._begun is not None:
            return self._begun
        noted = self._noted()
        if noted is None:
            self._begun = self._described(self._pipeline)
            raw = json.dumps({str(partition): bounds for partition, bounds in self._begun.items()})
            self._place.write_whole(_NAME, raw.encode())
            return self._begun
        return {partition: noted.get(partition, bounds) for partition, bounds in self._present().items()}

    def again(self) -> int:
        """Look anew, so that the next generation has partitions that are new; how many there are."""
        self._now = None
        return len(self._present())

    def behind(self, manifest: SnapshotManifest) -> dict[int, Bounds]:
        """Bounds behind a snapshot. Ends are kept until they are reached, and then are those of today."""
        noted = self._noted() or {}
        kept = {} if manifest.note.get("finished") else manifest.ends
        bounds = {}
        for partition, (earliest, end) in self._present().items():
            first = noted[partition][0] if partition in noted else earliest
            last = kept.get(partition)
            # A pipeline that is to read for ever now has no end, whatever it had.
            bounds[partition] = (manifest.offsets.get(partition, first), end if None in (last, end) else last)
        return bounds

    def _present(self) -> dict[int, Bounds]:
        """All partitions as they are today, from their earliest record; looked at once a job."""
        if self._now is None:
            source = self._pipeline.source
            if source.kind == "kafka":
                source = source.model_copy(update={"start": "earliest"})
            self._now = self._described(self._pipeline.model_copy(update={"source": source}))
        return self._now

    @staticmethod
    def _described(pipeline: Pipeline) -> dict[int, Bounds]:
        return describe_source(pipeline, **wanted_records(pipeline))

    def _noted(self) -> dict[int, Bounds] | None:
        if _NAME not in self._place.sizes():
            return None
        try:
            values = json.loads(self._place.read_bytes(_NAME, _BYTES_MAX))
            return {
                int(partition): (_offset(first), end if end is None else _offset(end))
                for partition, (first, end) in values.items()
            }
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise SnapshotError(
                f"{self._place.url}/{_NAME} does not say where the run began ({error}); remove it if the run has a "
                "snapshot, else begin another run"
            ) from error


def _offset(value: object) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError(f"expected an offset, but came {value!r}")
    return value
