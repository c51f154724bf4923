"""A job goes back to an older version by itself when that is better on the same records, and only then."""

from __future__ import annotations

import io
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cluster import auto_rollback
from cluster.auto_rollback import AutoRollback
from cluster.broker import Broker
from cluster.config import PipelineError
from cluster.job import JobResult, run_job
from cluster.snapshots.manifest import SnapshotManifest
from cluster.snapshots.store import SnapshotStore
from cluster.versions import Version, VersionBook
from tests.cluster.live import send
from tests.cluster.test_resume import learn, pipeline_of
from tests.cluster.topics import produce, records

pytestmark = pytest.mark.timeout(300)

CLEAN, POISONED, AFTER = 4000, 8000, 12_000
OVERRIDES = (
    "batch_records=50", "learner.alpha=0.1", "snapshots.interval_records=400", "snapshots.interval_s=0",
    "rollback={automatic: true, records: 2000, alpha: 0.01}",
)  # fmt: skip


def poisoned(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same with labels turned round."""
    return [{**row, "label": 1 - row["label"]} for row in rows]


def observed(
    broker: Broker, folder: Path, rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, *, wanted: int
) -> tuple[JobResult, list[SnapshotManifest], int, str]:
    """Learn the clean start, which becomes version 1, and then `rows` as they come, with older versions watched.

    Ends after a rollback, or when all rows are learnt and `wanted` comparisons were made.
    """
    topic, output = f"auto-{folder.name}"[:60], io.StringIO()
    made: list[Any] = []
    ended: list[bool] = []
    produce(broker, topic, records(CLEAN, seed=1), 1)
    learn(pipeline_of(broker, folder, topic, *OVERRIDES))
    store = SnapshotStore(str(folder / "r1"), print)
    VersionBook(str(folder / "r1")).put(Version(store.numbers()[-1], "resumed", 1))

    def noted(*arguments: Any) -> Any:
        made.append(arguments)
        return compared(*arguments)

    compared = auto_rollback.compare
    monkeypatch.setattr(auto_rollback, "compare", noted)
    feeding = threading.Thread(
        target=send, args=(broker, topic, rows, 1), kwargs={"pause_s": 0.02}, daemon=True
    )
    ends_s = time.monotonic() + 60

    def copies() -> list[SnapshotManifest]:
        return [m for m in map(store.manifest, store.numbers()) if "rolled_back_to" in m.note]

    def watch() -> None:
        enough = not feeding.is_alive() and len(made) >= wanted
        if not ended and feeding.ident and (copies() or enough or time.monotonic() > ends_s):
            ended.append(True)
            raise KeyboardInterrupt

    pipeline = pipeline_of(broker, folder, topic, *OVERRIDES, "source.until=forever", "snapshots.keep=1000")
    result = run_job(
        pipeline, Console(file=output, width=1000), local=True, on_ready=feeding.start, watch=watch
    )
    feeding.join(60)
    return result, copies(), len(made), output.getvalue()


def test_a_model_that_poisoned_labels_have_ruined_gives_way_to_the_version_before(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upstream bug turns labels round for a while; once they are good again, version 1 is better, by numbers."""
    bad, good = poisoned(records(POISONED, seed=2)), records(AFTER, seed=3)
    _, copies, _, said = observed(broker, tmp_path, bad + good, monkeypatch, wanted=100)
    (copy,) = copies
    book = VersionBook(str(tmp_path / "r1"))
    assert book.version_of(copy.note["rolled_back_to"]) == 1
    assert copy.note["mode"] == "keep"
    assert copy.records >= CLEAN + POISONED
    assert "(version 1), from the present place in the stream" in said
    assert f"because {copy.note['reason']}" in said
    assert "its loss is 0." in copy.note["reason"]


def test_a_stream_that_stays_as_it_is_makes_nobody_go_back(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The present model has only learnt more of the same: several comparisons, and no rollback."""
    result, copies, made, _ = observed(broker, tmp_path, records(9000, seed=2), monkeypatch, wanted=2)
    assert copies == []
    assert made >= 2
    assert result.figures.status.records == CLEAN + 9000


def test_versions_of_all_ages_are_compared() -> None:
    """An hour of bad labels with a version a minute: the three newest are all ruined, an older one is not."""
    assert auto_rollback.spread([3, 5], 3) == [3, 5]
    assert auto_rollback.spread(list(range(1, 101)), 3) == [1, 91, 100]
    assert auto_rollback.spread(list(range(1, 101)), 1) == [100]
    assert auto_rollback.spread([], 3) == []
    for count in range(1, 50):
        for count_max in range(1, 8):
            chosen = auto_rollback.spread(list(range(count)), count_max)
            assert chosen == sorted(set(chosen))
            assert 1 <= len(chosen) <= count_max


def test_it_is_off_by_default_and_refused_where_nothing_can_be_compared(
    broker: Broker, tmp_path: Path
) -> None:
    """Nobody is surprised by a rollback; choices have no labels that would tell which model is better."""
    pipeline = pipeline_of(broker, tmp_path, "none")
    assert not pipeline.rollback.automatic
    judge = AutoRollback(pipeline, None, None, None, print)  # type: ignore[arg-type]
    judge.look(None)
    choices = ("learner={kind: factors, feedback: implicit}", "rollback.automatic=true")
    with pytest.raises(PipelineError, match="choices have no label"):
        pipeline_of(broker, tmp_path, "none", *choices)
