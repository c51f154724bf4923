"""From a file of ratings to recommendations by the ids in it: on Ray, out of a snapshot, and by a scorer elsewhere."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cluster.config import Pipeline, build_pipeline
from cluster.job import resolved
from cluster.models.scorer import Scorer
from cluster.recommend import recommender_of
from cluster.snapshots.model import load_model
from cluster.starts import Start
from tests.cluster.commands import run
from tests.cluster.supervised import supervise

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

RECORDS, USERS, ITEMS = 4000, 60, 90


@pytest.fixture(scope="module")
def ratings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Users are numbers, items are texts that JSON escapes, with a time that is a feature of no use."""
    rng = np.random.default_rng(3)
    tastes = rng.normal(size=(USERS, 2)), rng.normal(size=(ITEMS, 2))
    path = tmp_path_factory.mktemp("ratings") / "ratings.jsonl"
    with path.open("w") as file:
        for _ in range(RECORDS):
            user, item = int(rng.integers(USERS)), int(rng.zipf(1.4)) % ITEMS
            liking = 3 + tastes[0][user] @ tastes[1][item] + rng.normal(0, 0.3)
            row = {"user": user, "item": f'fïlm "{item}"', "when": 1, "rating": round(min(max(liking, 1), 5))}
            file.write(f"{json.dumps(row)}\n")
    return path


def values_of(ratings: Path, folder: Path, shards: int) -> dict[str, Any]:
    """A pipeline over the file."""
    return {
        "name": "films",
        "source": {"kind": "file", "path": str(ratings), "label": "rating"},
        "features": {"ignore": ["when"]},
        "learner": {"kind": "factors", "factors": 4},
        "snapshots": {"path": str(folder)},
        "mlflow": {"enabled": False},
        "batch_records": 100,
        "cluster": {"workers": 1, "shards": shards},
    }


def pipeline_of(ratings: Path, folder: Path, shards: int) -> Pipeline:
    return resolved(build_pipeline(values_of(ratings, folder, shards), [], origin="test"))


@pytest.mark.usefixtures("local_ray")
def test_a_snapshot_recommends_what_the_live_shards_do(ratings: Path, tmp_path: Path) -> None:
    """Two shards are asked while they learn and after; so are their snapshot, and three shards that go on from it."""
    from cluster.launch import RayCluster

    pipeline = pipeline_of(ratings, tmp_path, 2)
    with RayCluster(pipeline) as cluster:
        asked: list[list[tuple[str, float]]] = []

        def ask() -> None:
            asked.append(cluster.recommender().recommend("7", 5))

        _, snapshot = supervise(
            cluster, pipeline, tmp_path / "run", lambda _: ask(), lambda _: ask(), status_interval_s=0.02
        )
        live = cluster.recommender()
        best, every = live.recommend("7", 8), live.recommend("nobody", 1000, exclude_seen=False)
        alike = live.similar('fïlm "1"', 8)
    rows = [json.loads(line) for line in ratings.read_text().splitlines()]
    known = {row["item"] for row in rows}
    rated = {row["item"] for row in rows if row["user"] == 7}
    assert {item for item, _ in every} == known
    assert len(best) == len(alike) == 8
    assert not {item for item, _ in best} & rated
    assert asked[0] == []
    assert asked[-1] == best[:5]
    assert len(asked) > 2, "nobody asked while it learnt"

    pipeline = pipeline_of(ratings, tmp_path, 3)
    with RayCluster(pipeline) as cluster:

        def compare(start: Start) -> None:
            assert start.tables > 0
            assert cluster.recommender().recommend("7", 8) == best
            assert cluster.recommender().similar('fïlm "1"', 8) == alike

        supervise(cluster, pipeline, tmp_path / "run", on_begun=compare)

    for arguments, expected, figure in (
        (("--user", "7", "--n", 8), best, "rating"),
        (("--user", "nobody", "--n", 1000, "--no-exclude-seen"), every, "rating"),
        (("--similar-to", 'fïlm "1"', "--n", 8), alike, "cosine"),
    ):
        code, out, err = run("jobs.recommend", snapshot, *arguments, "--json", cwd=tmp_path)
        assert code == 0, err
        assert json.loads(out) == [{"item": item, figure: value} for item, value in expected]


@pytest.fixture(scope="module")
def trained(ratings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which `jobs.train --local` has learnt the file and registered the model."""
    folder = tmp_path_factory.mktemp("trained")
    values = values_of(ratings, folder / "snapshots", 1) | {"mlflow": {"enabled": True}}
    (folder / "p.yaml").write_text(json.dumps(values))
    environment = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/tracking.db"}
    code, out, err = run("jobs.train", "p.yaml", "--local", cwd=folder, environment=environment)
    assert code == 0, err
    assert "films v1" in out
    return folder


def snapshot_of(trained: Path) -> Path:
    return max(trained.glob("snapshots/*/snapshots/*"))


def test_a_model_is_asked_on_the_terminal(trained: Path) -> None:
    """Somebody asks for films: a table with names and ratings, or a sentence if there is no answer."""
    snapshot = snapshot_of(trained)
    code, out, err = run("jobs.recommend", snapshot, "--user", "7", "--n", 3, cwd=trained)
    assert code == 0, err
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["for", "7"]
    assert lines[1] == ["item", "rating"]
    expected = recommender_of(snapshot).recommend("7", 3)
    assert lines[2:] == [[*item.split(), f"{rating:.3f}"] for item, rating in expected]
    for arguments, sentence in (
        (
            ("--similar-to", "film 1"),
            "expected an item that the model has learnt, but 'film 1' is none of them",
        ),
        ((), "expected either --user or --similar-to; give the one to ask about"),
        (("--user", "7", "--n", 0), "expected to be asked for 1 item or more, but it was 0"),
    ):
        code, _, err = run("jobs.recommend", snapshot, *arguments, cwd=trained)
        assert code == 1
        assert sentence in err
    code, _, err = run("jobs.recommend", trained, "--user", "7", cwd=trained)
    assert code == 1
    assert "has no file manifest.json" in err


SCORING = """
import json, mlflow, pandas as pd
mlflow.set_tracking_uri({uri!r})
model = mlflow.pyfunc.load_model("models:/films@champion")
frame = pd.read_json({frame!r}, orient="split", dtype={{"item": str}})
print(json.dumps([model.predict(frame.astype({{"user": kind}})).tolist() for kind in ("int64", "str")]))
"""


def test_a_registered_model_predicts_ratings_elsewhere(trained: Path, tmp_path: Path) -> None:
    """A web service without our code and without Ray rates pairs; users come as numbers or as texts."""
    items = [item for item, _ in recommender_of(snapshot_of(trained)).recommend("7", 3)]
    frame = pd.DataFrame({"user": [7, 7, 7, 99999], "item": [*items, items[0]]})
    frame.to_json(tmp_path / "frame.json", orient="split")
    script = SCORING.format(uri=f"sqlite:///{trained}/tracking.db", frame=str(tmp_path / "frame.json"))
    scored = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
    )  # fmt: skip
    assert scored.returncode == 0, scored.stderr
    numbers, texts = json.loads(scored.stdout.splitlines()[-1])
    assert numbers == texts == Scorer(load_model(snapshot_of(trained))).predict(frame).tolist()
    expected = [rating for _, rating in recommender_of(snapshot_of(trained)).recommend("7", 3)]
    assert numbers[:3] == pytest.approx(expected)
    assert 1 <= numbers[3] <= 5


def test_a_model_that_ranks_nothing_says_so(tmp_path: Path) -> None:
    """Somebody asks the model of another learner for films."""
    lines = "".join(f"{i % 7},{i % 2}\n" for i in range(100))
    (tmp_path / "clicks.csv").write_text(f"x,y\n{lines}")
    values = {
        "name": "clicks", "source": {"kind": "file", "path": "clicks.csv", "label": "y"},
        "learner": {"kind": "ftrl"}, "snapshots": {"path": "snapshots"}, "mlflow": {"enabled": False},
    }  # fmt: skip
    (tmp_path / "p.yaml").write_text(json.dumps(values))
    code, _, err = run("jobs.train", "p.yaml", "--local", cwd=tmp_path)
    assert code == 0, err
    code, _, err = run("jobs.recommend", snapshot_of(tmp_path), "--user", "7", cwd=tmp_path)
    assert code == 1
    assert "the learner ftrl recommends nothing; learn with `learner: {kind: factors}`" in err
