"""Snapshots become model versions while the job learns, and stay as long as they are versions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from cluster.broker import Broker
from cluster.snapshots.errors import SnapshotError
from cluster.snapshots.store import SnapshotStore
from cluster.versions import Version, VersionBook, snapshot_meant
from tests.cluster.live import sending
from tests.cluster.snapshot_runs import write_snapshot
from tests.cluster.test_resume import learn, pipeline_of
from tests.cluster.topics import records

pytestmark = pytest.mark.timeout(200)


def test_versions_are_made_while_the_job_learns_and_outlive_retention(broker: Broker, tmp_path: Path) -> None:
    """A version every fraction of a second, two jobs, only one snapshot kept: those behind versions stay."""
    broker.create_topic("versions", 1)
    overrides = (
        "source.until=forever",
        "mlflow.enabled=true", f"mlflow.tracking_uri=sqlite:///{tmp_path}/mlflow.db",
        "mlflow.version_interval_s=0.3", "snapshots.interval_records=50", "snapshots.keep=1",
        "snapshots.deltas_max=0", "batch_records=5",
    )  # fmt: skip
    results = []
    for so_far in (1000, 2000):
        rows = records(1000, seed=so_far)
        pipeline = pipeline_of(broker, tmp_path, "versions", f"records_max={so_far}", *overrides)
        with sending(broker, "versions", rows, 1, pause_s=0.1) as begin:
            results.append(learn(pipeline, on_ready=begin))
    first, second = results
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    made = sorted(client.search_model_versions("name='resumed'"), key=lambda version: int(version.version))
    assert [int(version.version) for version in made] == list(range(1, len(made) + 1))
    assert first.version is not None
    assert second.version == len(made) > first.version > 1
    parents = [version.tags.get("parent_version") for version in made]
    assert parents == [None, *(str(version.version) for version in made[:-1])]
    store, book = SnapshotStore(str(tmp_path / "r1"), print), VersionBook(str(tmp_path / "r1"))
    noted = {version.version: version.snapshot for version in book.all()}
    assert noted == {int(version.version): int(version.tags["snapshot"]) for version in made}
    assert store.numbers() == sorted(noted.values())
    for version in made:
        manifest = store.manifest(int(version.tags["snapshot"]))
        assert json.loads(version.tags["offsets"]) == {"0": manifest.offsets[0]}
        assert version.tags["records"] == str(manifest.records)
        assert version.tags["generation"] == str(manifest.generation)
        assert (version.tags["run"], version.tags["run_folder"]) == ("r1", str(tmp_path / "r1"))
        assert np.isclose(float(version.tags["log_loss"]), manifest.metrics["log_loss"], rtol=1e-4)
        store.verify(manifest.number)
    assert client.get_model_version_by_alias("resumed", "champion").version == made[-1].version
    assert not list((tmp_path / "r1" / "versions").iterdir())


def test_a_version_or_a_snapshot_is_named(tmp_path: Path) -> None:
    """People know the versions of MLflow and the folders on the disk; what is neither is told with what there is."""
    store, book = SnapshotStore(str(tmp_path), print), VersionBook(str(tmp_path))
    write_snapshot(store, 4, {1: 1})
    write_snapshot(store, 6, {1: 2})
    book.put(Version(4, "clicks", 2))
    book.put(Version(6, "clicks", None))
    again = VersionBook(str(tmp_path))
    assert (again.pinned(), again.last("clicks"), again.last("other")) == ({4, 6}, 2, None)
    assert [snapshot_meant(text, again, store) for text in ("2", "snapshot:4", "snapshot:6")] == [4, 4, 6]
    for text, reason in [
        ("4", r"version 4 is none of this run, whose versions are 2 \(snapshot 4\)"),
        ("snapshot:5", "no snapshot 5; it has 4, 6"),
        ("../6", "expected a version"),
        ("-1", "expected a version"),
    ]:
        with pytest.raises(SnapshotError, match=reason):
            snapshot_meant(text, again, store)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"versions": [{"snapshot": "1", "model": "a", "version": 1}]}', "[" * 5000]
)
def test_a_damaged_list_of_versions_is_said_and_not_taken_for_none(tmp_path: Path, text: str) -> None:
    """Were it taken for empty, the snapshots behind all versions would be removed."""
    (tmp_path / "versions.json").write_text(text)
    with pytest.raises(SnapshotError, match=r"versions\.json is not as we write it"):
        VersionBook(str(tmp_path))
