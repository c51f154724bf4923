"""A job that was submitted refuses places that would be lost with it, and has a name by which it goes on."""

from __future__ import annotations

from typing import Any

import pytest

from actors.ports import LaunchError
from cluster.actors_on_ray import ShardActor
from cluster.config import Pipeline, PipelineError, build_pipeline
from cluster.submitted import as_submitted
from learning.exchange import Moment

SUBMITTED = {"RAY_JOB_CONFIG_JSON_ENV_VAR": "{}"}


def pipeline(**sections: Any) -> Pipeline:
    values = {
        "name": "clicks",
        "source": {"kind": "kafka", "topic": "t"},
        "snapshots": {"path": "/shared/runs"},
        "mlflow": {"tracking_uri": "https://mlflow.example.com"},
    }
    return build_pipeline(values | sections, [], origin="test")


def test_on_a_laptop_nothing_changes():
    """Relative places are what one wants there, and each start is a run of its own."""
    laptop = pipeline(snapshots={"path": "runs"}, mlflow={})
    assert as_submitted(laptop, {}) is laptop


def test_a_run_without_a_name_takes_the_pipelines():
    """Submitted again, it goes on; a name that is given is kept."""
    assert as_submitted(pipeline(), SUBMITTED).run == "clicks"
    assert as_submitted(pipeline(run="spring"), SUBMITTED).run == "spring"


@pytest.mark.parametrize(
    ("sections", "reason"),
    [
        ({"snapshots": {"path": "runs"}}, "snapshots.path is 'runs'; give the absolute path"),
        ({"snapshots": {"path": "s3://bucket/runs"}}, "give dead_letters.topic"),
        ({"mlflow": {}}, "mlflow.tracking_uri is 'sqlite:///mlruns/mlflow.db'; give a tracking server"),
        ({"mlflow": {"tracking_uri": "mlruns"}}, "mlflow.tracking_uri is 'mlruns'"),
    ],
)
def test_a_place_that_would_be_lost_is_refused(sections, reason):
    """Hours of learning would lie in a temporary folder of some node."""
    with pytest.raises(PipelineError, match=reason):
        as_submitted(pipeline(**sections), SUBMITTED)


@pytest.mark.parametrize(
    ("sections", "environment"),
    [
        ({"snapshots": {"path": "s3://bucket/runs"}, "dead_letters": {"topic": "bad"}}, {}),
        ({"mlflow": {}}, {"MLFLOW_TRACKING_URI": "http://mlflow:5000"}),
        ({"mlflow": {"tracking_uri": "${MLFLOW}"}}, {}),
        ({"mlflow": {"tracking_uri": "sqlite:////shared/mlflow.db"}}, {}),
        ({"mlflow": {"enabled": False}}, {}),
    ],
)
def test_a_place_that_stays_is_taken(sections, environment):
    """A URL, a server, an absolute path, or what only the environment knows."""
    assert as_submitted(pipeline(**sections), SUBMITTED | environment).run == "clicks"


def test_a_shard_whose_node_does_not_see_the_runs_folder_says_so() -> None:
    """Its files would lie on its own disk, and the snapshot would be whole only as long as that node lives."""
    shard = ShardActor(0, pipeline())
    with pytest.raises(
        LaunchError, match=r"expected the run's folder /nowhere/runs/clicks on node .* share, or a URL"
    ):
        shard.begin(Moment(1, 0), "/nowhere/runs/clicks", 0, 0, held=False)
