"""The tables of a snapshot, as they are registered and compared: without what its shards had still to sweep."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cluster.snapshots.model import tables_of_snapshot
from cluster.snapshots.store import SnapshotStore
from learning.table_state import TableState
from tests.cluster.snapshot_runs import NO_KEYS, Part, key_of, manifest_of, write_files


def test_a_row_that_is_too_old_is_in_no_table(tmp_path: Path) -> None:
    """A restart drops it and tells nobody, so it stays in the files: its run is to equal the undisturbed one.

    Each shard has counted other records, and so has a cutoff of its own.
    """
    store = SnapshotStore(str(tmp_path), print)
    keys = np.array([key_of(n) for n in range(40)], np.uint64)
    used = np.arange(40)
    whole = TableState(keys, np.ones((40, 2), np.float32), None, used)
    cutoffs = (9, 29)
    parts = [
        Part({"weights": (share, NO_KEYS, {"age": np.array([[50, cutoff]], np.int64)})})
        for share, cutoff in zip(whole.split(2), cutoffs, strict=True)
    ]
    store.commit(manifest_of(store, 1, *write_files(store, 1, parts)))
    expected = {
        int(key)
        for share, cutoff in zip(whole.split(2), cutoffs, strict=True)
        for key in share.keys[np.asarray(share.used) > cutoff]
    }
    kept = tables_of_snapshot(store, 1)["weights"]
    assert {*kept.keys.tolist()} == expected
    assert len(kept.keys) == len(expected) < 40
    assert kept.used is not None
