"""Jobs with a teacher: who it is, that a replay has the same, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.broker import Broker
from cluster.config import PipelineError, build_pipeline
from cluster.job import JobError
from cluster.replaying import replay_run
from cluster.snapshots.digest import state_digest
from cluster.snapshots.store import SnapshotStore
from cluster.teaching import recorded_teacher
from cluster.versions import Version, VersionBook
from tests.cluster.test_warm_start import DEEP, learn, pipeline_of
from tests.cluster.topics import produce, records

pytestmark = pytest.mark.timeout(200)


def test_the_newest_version_teaches_from_the_next_start_on(broker: Broker, tmp_path: Path) -> None:
    """None at first, then version 1 of two starts; the second start, replayed, is the run to the bit."""
    produce(broker, "taught", records(600), 1)

    def taught(records_max: int, weight: float = 0.5, **more: Any) -> SnapshotStore:
        wanted = {"weight": weight, **more}
        learn(
            pipeline_of(broker, "taught", tmp_path, DEEP, "r", distillation=wanted, records_max=records_max)
        )
        return SnapshotStore(str(tmp_path / "r"), print)

    store = taught(200)
    (first,) = store.numbers()
    assert recorded_teacher(store, first) == 0, "there was no version"
    VersionBook(str(tmp_path / "r")).put(Version(first, "warm", 1))
    with pytest.raises(JobError, match=r"distillation.*version 7 is none of this run.*distillation\.version"):
        taught(400, version=7)
    store = taught(400)
    last = store.numbers()[-1]
    assert recorded_teacher(store, last) == recorded_teacher(store, first) == first
    replayed = replay_run(str(tmp_path / "r"), f"snapshot:{first}", f"snapshot:{last}", print, name="again")
    assert replayed.digest == state_digest(store, last)
    plain = replay_run(
        str(tmp_path / "r"), f"snapshot:{first}", f"snapshot:{last}", print, name="plain",
        overrides=["distillation.weight=0"],
    )  # fmt: skip
    assert plain.digest != replayed.digest


@pytest.mark.parametrize("kind", ["ftrl", "factors", "population", "ensemble"])
def test_learners_that_have_no_use_for_a_teacher_are_refused(kind: str) -> None:
    """In a sentence, and only where there would be one."""
    experts = {"experts": [{"kind": "ftrl"}, {"kind": "population"}]} if kind == "ensemble" else {}
    values = {
        "name": "t", "source": {"kind": "file", "path": "a.csv"}, "learner": {"kind": kind, **experts},
    }  # fmt: skip
    assert build_pipeline(values, [], origin="test").distillation.weight == 0.0
    with pytest.raises(PipelineError, match="distillation: expected the learner deep"):
        build_pipeline(values, ["distillation.weight=0.5"], origin="test")


@pytest.mark.parametrize("wrong", ["weight=-1", "weight=101", "version=0", "teacher=3"])
def test_settings_that_make_no_sense_are_refused(wrong: str) -> None:
    """Each names its key."""
    values = {"name": "t", "source": {"kind": "file", "path": "a.csv"}, "learner": {"kind": "deep"}}
    with pytest.raises(PipelineError, match=rf"distillation\.{wrong.partition('=')[0]}"):
        build_pipeline(values, [f"distillation.{wrong}"], origin="test")
