"""Matrix factorisation: prequential RMSE beside river's in the same run, and what several workers cost in quality.

Quality: `jobs.evaluate --learner factors` with its default settings, beside river's Baseline (user and item biases) and
BiasedMF, both at their defaults and with the settings of river's own documentation, predictions clipped to the scale
seen so far. Skips, with a sentence, files that are not there.

Workers: the ratings go to a topic of 4 partitions keyed by user, so that one worker owns a user's row; a bounded job
reads them round robin in batches of 256, on Ray, with 1, 2 and 4 workers over 2 shards; 4 of them three times, because
which push comes first is a matter of timing.

    python -m benchmarks.ratings [--data ../shared/data] [--only quality|workers]
"""

from __future__ import annotations

import csv
import gzip
import io
import logging
import math
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from river import optim, reco

from benchmarks.measure import machine
from cluster.broker.process import BrokerProcess
from cluster.config import KafkaConnection, build_pipeline
from cluster.evaluate import Evaluation, evaluate
from cluster.job import run_job
from cluster.loopback import stay_on_loopback
from cluster.streams.produce import ProducePlan, produce

FILES = ("movielens_latest_small", "bitcoin_otc")
PARTITIONS, BATCH = 4, 256


def peers() -> dict[str, Any]:
    """river's models by the name in the table."""
    normal = optim.initializers.Normal(mu=0.0, sigma=0.1, seed=71)
    documented = reco.BiasedMF(
        n_factors=10,
        bias_optimizer=optim.SGD(0.025),
        latent_optimizer=optim.SGD(0.025),
        latent_initializer=normal,
    )
    return {
        "river Baseline (biases), SGD 0.025": reco.Baseline(optimizer=optim.SGD(0.025)),
        "river BiasedMF, defaults": reco.BiasedMF(seed=1),
        "river BiasedMF, as in its documentation": documented,
    }


def rows_of(path: Path) -> list[tuple[str, str, float]]:
    """(user, item, rating) of a file, in its order."""
    with gzip.open(path, "rt") as file:
        return [(row["user"], row["item"], float(row["rating"])) for row in csv.DictReader(file)]


def prequential(model: Any, rows: list[tuple[str, str, float]]) -> tuple[float, float]:
    """RMSE and MAE of a river model that predicts each rating before it learns it."""
    squares = absolutes = 0.0
    low, high = math.inf, -math.inf
    for user, item, rating in rows:
        predicted = model.predict_one(user=user, item=item)
        if low <= high:
            predicted = min(max(predicted, low), high)
        squares += (predicted - rating) ** 2
        absolutes += abs(predicted - rating)
        low, high = min(low, rating), max(high, rating)
        model.learn_one(user=user, item=item, y=rating)
    return math.sqrt(squares / len(rows)), absolutes / len(rows)


def print_quality(data: Path) -> None:
    """RMSE and MAE of every contestant on every file."""
    print("| stream | ratings | learner | RMSE | MAE |\n|---|--:|---|--:|--:|")
    for name in FILES:
        path = data / f"{name}.csv.gz"
        if not path.is_file():
            print(f"{name} skipped: {path} is not there")
            continue
        rows = rows_of(path)
        for title, model in peers().items():
            rmse, mae = prequential(model, rows)
            print(f"| {name} | {len(rows):,} | {title} | {rmse:.4f} | {mae:.4f} |", flush=True)
        found = evaluate(Evaluation(path, learner="factors"), Console(file=io.StringIO()))
        print(
            f"| {name} | {found['records']:,} | **ours, defaults** | {found['rmse']:.4f} | {found['mae']:.4f} |"
        )


def trained(servers: str, topic: str, folder: str, workers: int) -> float:
    """RMSE of a job of so many workers over the whole topic."""
    values = {
        "name": "ratings",
        "source": {"kind": "kafka", "topic": topic, "until": "end", "bootstrap_servers": servers},
        "learner": {"kind": "factors"},
        "batch_records": BATCH,
        "cluster": {"workers": workers, "shards": 2},
        "snapshots": {"path": folder},
        "mlflow": {"enabled": False},
    }
    result = run_job(build_pipeline(values, [], origin="benchmark"), Console(file=io.StringIO()))
    return result.figures.since_start["rmse"]


def print_workers(data: Path) -> None:
    """RMSE of one and of several workers on Ray over the same partitions."""
    import ray

    from cluster.ray_session import local_ray_options

    print(
        "\n| stream, by user over 4 partitions | 1 worker | 2 workers | 4 workers, three runs |\n|---|--:|--:|---|"
    )
    with (
        tempfile.TemporaryDirectory(prefix="millrace-bench-") as folder,
        BrokerProcess(Path(folder) / "broker", topics=dict.fromkeys(FILES, PARTITIONS)) as broker,
    ):
        ray.init(namespace="millrace", logging_level=logging.ERROR, **local_ray_options(8, folder))
        servers = broker.bootstrap_servers
        for name in FILES:
            path = data / f"{name}.csv.gz"
            if not path.is_file():
                print(f"{name} skipped: {path} is not there")
                continue
            connection = KafkaConnection(bootstrap_servers=servers)
            produce(ProducePlan(str(path), name, connection, key="user", label="rating"))
            one = trained(servers, name, folder, 1)
            found = [trained(servers, name, folder, workers) for workers in (2, 4, 4, 4)]
            shown = [f"{rmse:.4f} ({100 * (rmse / one - 1):+.2f} %)" for rmse in found]
            print(f"| {name} | {one:.4f} | {shown[0]} | {', '.join(shown[1:])} |", flush=True)
        ray.shutdown()


def main(
    data: Annotated[Path, typer.Option(help="Folder of the streams.")] = Path("../shared/data"),
    only: Annotated[str, typer.Option(help="quality or workers; else both.")] = "",
) -> None:
    """Measure and print tables for RESULTS.md."""
    stay_on_loopback()
    print(f"{machine()}\n")
    if only != "workers":
        print_quality(data)
    if only != "quality":
        print_workers(data)


if __name__ == "__main__":
    typer.run(main)
