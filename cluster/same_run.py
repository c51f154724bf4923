"""Whether a run's snapshots, and its stream, are those of the pipeline that is to go on with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.ports import SourceError

if TYPE_CHECKING:
    from cluster.config import Pipeline
    from cluster.snapshots.manifest import SnapshotManifest

__all__ = ["OtherRunError", "check_partitions", "check_same"]


class OtherRunError(Exception):
    """The run's snapshots are of another pipeline; the message says in what they differ."""


def check_partitions(pipeline: Pipeline, manifest: SnapshotManifest, there: set[int]) -> None:
    """Refuse a source whose partitions are not those that were read. Raises SourceError."""
    before = set(manifest.offsets)
    if gone := sorted(before - there):
        raise SourceError(
            f"expected the partitions {sorted(before)} of snapshot {manifest.number}, but {gone} are not "
            "there; give the same source, and for a file the same cluster.workers, or begin another run"
        )
    # Which rows are a file's partition depends on both numbers, unless one partition has them all.
    then, now = (len(before), manifest.pipeline.get("batch_records")), (len(there), pipeline.batch_records)
    if pipeline.source.kind == "file" and len(there) > 1 and then != now:
        raise SourceError(
            f"expected cluster.workers {then[0]} and batch_records {then[1]}, by which the file's rows were dealt out "
            f"up to snapshot {manifest.number}, but the pipeline says {now[0]} and {now[1]}; set them back, or begin "
            "another run"
        )


def check_same(pipeline: Pipeline, manifest: SnapshotManifest) -> None:
    """Refuse a snapshot that another learner, or another stream, has made. Raises OtherRunError."""
    present = pipeline.model_dump(mode="json")
    for section, keys in (("learner", None), ("source", ("kind", "topic", "path")), ("features", None)):
        now, then = present[section], manifest.pipeline.get(section) or {}
        names = keys or sorted(
            {*now, *then}, key=lambda name: (name != "kind", name)
        )  # another kind has other keys
        for name in names:
            if now.get(name) != then.get(name):
                raise OtherRunError(
                    f"expected {section}.{name} {then.get(name)!r}, with which snapshot {manifest.number} of the run "
                    f"was learnt, but the pipeline says {now.get(name)!r}; set it back, or begin another run"
                )
