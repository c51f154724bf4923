"""A run that is continued by a pipeline that says something else than the one that began it."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from cluster.config import Pipeline, build_pipeline
from cluster.job import JobError, JobResult, run_job
from cluster.snapshots.store import SnapshotStore
from cluster.streams.sinks import FileDeadLetters


def pipeline_of(folder: Path, *overrides: str) -> Pipeline:
    path = folder / "d.csv"
    if not path.exists():
        rows = [f"u{i},{i % 11},{i % 2}" for i in range(2000)]
        path.write_text("\n".join(["a,b,y", *rows, ""]))
    values = {
        "name": "p", "run": "r1", "source": {"kind": "file", "path": str(path)}, "batch_records": 100,
        "mlflow": {"enabled": False}, "snapshots": {"path": str(folder), "interval_s": 0},
    }  # fmt: skip
    return build_pipeline(values, list(overrides), origin="a test")


def learn(pipeline: Pipeline) -> JobResult:
    return run_job(pipeline, Console(quiet=True), local=True)


@pytest.mark.parametrize("other", ["batch_records=70", "cluster.workers=3", "cluster.workers=1"])
def test_the_rows_of_a_file_are_dealt_out_once(tmp_path: Path, other: str) -> None:
    """Other blocks, or other workers: which rows were read could not be told, so the job does not begin."""
    learn(pipeline_of(tmp_path, "cluster.workers=2", "records_max=700"))
    with pytest.raises(JobError, match="begin another run"):
        learn(pipeline_of(tmp_path, "cluster.workers=2", other))
    assert learn(pipeline_of(tmp_path, "cluster.workers=2")).figures.status.records == 2000


def test_one_partition_may_be_cut_otherwise(tmp_path: Path) -> None:
    """Nothing is dealt out, so a row number says all."""
    learn(pipeline_of(tmp_path, "cluster.workers=1", "records_max=700"))
    result = learn(pipeline_of(tmp_path, "cluster.workers=1", "batch_records=70"))
    assert result.figures.status.records == 2000


def test_a_table_with_another_policy_begins_another_chain(tmp_path: Path) -> None:
    """Rows with ticks of use and rows without cannot lie in one chain: it could never be loaded again."""
    policy = "tables.weights.expire_after_records=100000"
    learn(pipeline_of(tmp_path, "records_max=500"))
    learn(pipeline_of(tmp_path, "records_max=1000", policy))
    learn(pipeline_of(tmp_path, "records_max=1500", policy))
    learn(pipeline_of(tmp_path))
    store = SnapshotStore(str(tmp_path / "r1"), print)
    assert [store.manifest(number).parent for number in store.numbers()] == [None, 2, None]
    for number in store.numbers():
        store.load(number)


def test_half_a_line_of_a_killed_job_costs_no_letter(tmp_path: Path) -> None:
    """The next job's first letter begins a line of its own."""
    from tests.cluster.test_sinks import letter

    path = tmp_path / "worker-0.jsonl"
    for torn in (b'{"place": "t[0]@', b""):
        path.write_bytes(torn)
        sink = FileDeadLetters(path, 100)
        sink.write([letter()])
        sink.close()
        lines = path.read_bytes().splitlines()
        assert lines[:-1] == ([torn] if torn else [])
        assert lines[-1].startswith(b'{"place":')
        assert lines[-1].endswith(b"}")
