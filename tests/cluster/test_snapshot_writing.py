"""The driver's half of a snapshot: what counts as written."""

from __future__ import annotations

from concurrent.futures import wait
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cluster import parts
from cluster.config import build_pipeline
from cluster.local_store import LocalStore
from cluster.snapshots.errors import SnapshotError, SupersededError
from cluster.snapshots.file_entry import PartFiles
from cluster.snapshots.store import SnapshotStore
from cluster.snapshots.writing import SnapshotWriter
from learning.exchange import Moment
from learning.job_messages import SnapshotWritten, TakeSnapshot
from learning.job_state import JobState

PIPELINE = build_pipeline({"name": "p", "source": {"kind": "kafka", "topic": "t"}}, [], origin="a test")
SHARDS: Any = SimpleNamespace(write=lambda *_: [PartFiles.of("shard0_g1", ())])


def begin(writer: SnapshotWriter, folder: Path, number: int) -> None:
    """Have a snapshot of generation 1 written, to its end."""
    start: Any = SimpleNamespace(run_url=str(folder), ends={0: None}, pipeline=PIPELINE)
    worker = {"encoder.keys": np.empty(0, np.uint64), "encoder.stats": np.empty((0, 3))}
    metrics = PIPELINE.learner.build().metrics()
    state = JobState(number, {0: number}, number, 0, metrics, workers={0: worker})
    writer.begin(start, TakeSnapshot(Moment(1, number), state, final=False), {})
    assert writer._writing is not None
    wait([writer._writing], 30)


def test_a_snapshot_is_written_where_nothing_may_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bucket without the right to delete: said once, and no reason to write each snapshot whole, again and again."""
    said: list[str] = []
    store = SnapshotStore(str(tmp_path), print)

    def refuse(*_: Any) -> list[int]:
        raise SnapshotError("removing 000001 failed: forbidden")

    monkeypatch.setattr(store, "retain", refuse)
    writer = SnapshotWriter(SHARDS, store, PIPELINE, said.append)
    for number in (1, 2):
        begin(writer, tmp_path, number)
        settled = writer.settled()
        assert isinstance(settled, SnapshotWritten)
        assert settled.number == number
    writer.close()
    assert store.numbers() == [1, 2]
    assert said == ["snapshots that are not needed any more stay: removing 000001 failed: forbidden"]


def test_a_job_that_another_has_taken_over_from_ends(tmp_path: Path) -> None:
    """Behind a URL nothing is locked: the older job would learn for ever what never counts."""
    store = SnapshotStore(str(tmp_path), print)
    assert [store.next_generation(), store.next_generation()] == [1, 2]
    writer = SnapshotWriter(SHARDS, store, PIPELINE, print)
    for end in (writer.settled, writer.abandon):
        begin(writer, tmp_path, 1)
        with pytest.raises(SupersededError, match="start 2 has taken over"):
            end()
    writer.close()


def test_a_part_that_cannot_be_written_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full: a table that went on copying rows for it would fill the memory as well."""
    held = LocalStore(PIPELINE.learner.build())

    def fail(*_: Any) -> None:
        assert all(table.changes.reading is not None for table in held.held.tables)
        raise SnapshotError("no space left")

    monkeypatch.setattr(parts, "write_part", fail)
    with pytest.raises(SnapshotError, match="no space left"):
        parts.write_shard(held, 0, Moment(1, 1), str(tmp_path))
    assert all(table.changes.reading is None for table in held.held.tables)
