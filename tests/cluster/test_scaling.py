"""Scaling a job while it learns: workers and shards come and go, and nothing is lost, repeated, or learnt otherwise."""

from __future__ import annotations

import io
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from cluster.broker import Broker
from cluster.config import Pipeline, build_pipeline
from cluster.job import JobResult, run_job
from cluster.models.model_files import ModelState
from cluster.scaling import ask_scale
from cluster.snapshots.model import load_model
from tests.cluster.fed import Feed
from tests.cluster.topics import consume, records

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

RECORDS = 200_000


def pipeline_of(broker: Broker, folder: Path, topic: str, *overrides: str) -> Pipeline:
    """A job that ends once all records are read."""
    values = {
        "name": "scaled", "run": "r1", "batch_records": 500, "records_max": RECORDS,
        "source": {"kind": "kafka", "topic": topic, "bootstrap_servers": broker.bootstrap_servers},
        "cluster": {"workers": 1, "shards": 2},
        "snapshots": {"path": str(folder), "interval_s": 5},
        "mlflow": {"enabled": False},
    }  # fmt: skip
    return build_pipeline(values, list(overrides), origin="test")


class Job:
    """A job with somebody who scales it: `steps` run beside it once it learns; what they raise, the test raises."""

    def __init__(self, pipeline: Pipeline, feed: Feed, steps: Callable[[Job], None]) -> None:
        self._pipeline, self._feed, self._steps = pipeline, feed, steps
        self._said = io.StringIO()
        self._error: BaseException | None = None
        self.answers: list[str] = []

    @property
    def folder(self) -> Path:
        """Of the run."""
        return Path(self._pipeline.snapshots.path) / "r1"

    @property
    def said(self) -> str:
        """What the job says."""
        return self._said.getvalue()

    def scale(self, **sizes: int) -> None:
        """Scale, and wait until that is done."""
        self.answers.append(ask_scale(str(self.folder), **sizes, say=print, timeout_s=120))

    def run(self) -> JobResult:
        """To the end."""
        thread = threading.Thread(target=self._scale, daemon=True)

        def begin() -> None:
            self._feed.start()
            thread.start()

        result = run_job(self._pipeline, Console(file=self._said, width=200), on_ready=begin)
        thread.join(60)
        print(self.said)
        if self._error is not None:
            raise self._error
        return result

    def _scale(self) -> None:
        try:
            self._steps(self)
        except BaseException as error:  # noqa: BLE001 - carried to the test's thread
            self._error = error
        finally:
            self._feed.hurry()


def rows_of(model: ModelState) -> tuple[np.ndarray, np.ndarray]:
    """Keys, ascending, and their rows."""
    order = np.argsort(model.arrays["weights.keys"])
    return model.arrays["weights.keys"][order], model.arrays["weights.rows"][order]


@pytest.mark.usefixtures("local_ray")
def test_workers_and_shards_come_and_go_while_a_stream_is_learnt(broker: Broker, tmp_path: Path) -> None:
    """Every record is learnt once and predicted once, whoever had its partition; the job never goes back."""
    rows = records(RECORDS)
    broker.create_topic("scaled-predictions", 1)

    def steps(job: Job) -> None:
        job.scale(workers=3)
        job.scale(shards=4)
        job.scale(workers=2, shards=3)

    with Feed(broker, "scaled", rows, 3) as feed:
        job = Job(
            pipeline_of(broker, tmp_path, "scaled", "predictions.topic=scaled-predictions"), feed, steps
        )
        result = job.run()
    assert [answer.partition(" at ")[0] for answer in job.answers] == [
        "went from 1 worker and 2 shards to 3 workers and 2 shards",
        "went from 3 workers and 2 shards to 3 workers and 4 shards",
        "went from 3 workers and 4 shards to 2 workers and 3 shards",
    ]
    assert result.recoveries == 0
    assert result.figures.status.records == RECORDS
    model = load_model(result.snapshot)
    assert model.records == RECORDS
    assert np.max(model.arrays["encoder.stats"][:, 0]) == RECORDS
    predicted = Counter(message["id"] for message in consume(broker, "scaled-predictions"))
    assert len(predicted) == RECORDS
    assert set(predicted.values()) == {1}
