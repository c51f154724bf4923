"""The driver's half of a snapshot: what counts as written."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cluster.config import build_pipeline
from cluster.snapshots.errors import SnapshotError
from cluster.snapshots.file_entry import PartFiles
from cluster.snapshots.store import SnapshotStore
from cluster.snapshots.writing import SnapshotWriter
from learning.exchange import Moment
from learning.job_messages import SnapshotWritten, TakeSnapshot
from learning.job_state import JobState


def test_a_snapshot_is_written_where_nothing_may_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bucket without the right to delete: said once, and no reason to write each snapshot whole, again and again."""
    pipeline = build_pipeline({"name": "p", "source": {"kind": "kafka", "topic": "t"}}, [], origin="a test")
    said: list[str] = []
    store = SnapshotStore(str(tmp_path), print)

    def refuse(*_: Any) -> list[int]:
        raise SnapshotError("removing 000001 failed: forbidden")

    monkeypatch.setattr(store, "retain", refuse)
    shards: Any = SimpleNamespace(write=lambda *_: [PartFiles.of("shard0_g1", ())])
    writer = SnapshotWriter(shards, store, pipeline, said.append)
    start: Any = SimpleNamespace(run_url=str(tmp_path), ends={0: None})
    metrics = pipeline.learner.build().metrics()
    encoder = (np.empty(0, np.uint64), np.empty((0, 3)))
    for number in (1, 2):
        state = JobState(number, {0: number}, number, 0, metrics, encoders={0: encoder})
        writer.begin(start, TakeSnapshot(Moment(1, number), state, final=False), {})
        assert writer._writing is not None
        writer._writing.result(30)
        settled = writer.settled()
        assert isinstance(settled, SnapshotWritten)
        assert settled.number == number
    writer.close()
    assert store.numbers() == [1, 2]
    assert said == ["snapshots that are not needed any more stay: removing 000001 failed: forbidden"]
