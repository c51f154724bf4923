"""Breaks jobs by seed and compares what comes out: `python -m tests.cluster.chaos --seeds 0:200` (`make chaos`).

A seed is a fault, the time at which it strikes, and one worker or three. One JSON line a seed says what happened; the
exit code is 1 if any differs from the undisturbed run. A seed is run again, alone, by `--seeds 17:18`.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import random
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.console import Console

from cluster.config import Pipeline
from cluster.job import run_job
from cluster.models.model_layout import learner_of
from cluster.snapshots.job_arrays import read_job
from cluster.snapshots.model import load_model
from cluster.snapshots.store import SnapshotStore
from tests.cluster.chaos_faults import FAULTS, Scene, kill_driver, wait_until
from tests.cluster.chaos_world import RATINGS, RECORDS, World
from tests.cluster.topics import consume

QUALITY = 0.1
_JOB_TIMEOUT_S = 180.0


@dataclass
class Outcome:
    """What a job came to."""

    digest: str
    counted: int
    metrics: dict[str, float]
    offsets: dict[int, int]
    known: dict[str, bytes]
    said: str = ""
    seconds: float = 0.0


@dataclass
class Chaos:
    """Runs seeds in one world."""

    world: World
    references: dict[int, Outcome] = field(default_factory=dict)

    def seed(self, seed: int) -> dict[str, Any]:
        """Run one seed; `wrong` is empty if nothing was lost and nothing counted twice."""
        fault = list(FAULTS)[seed % len(FAULTS)]
        workers = 1 if seed // len(FAULTS) % 2 == 0 else 3
        run = f"seed-{seed}-{time.monotonic_ns()}"
        scene = Scene(self.world, run, random.Random(seed))
        pipeline = self.world.pipeline(run, workers=workers)
        started_s = time.monotonic()
        outcome = self._drive(scene, pipeline) if fault == "driver" else self._strike(scene, pipeline, fault)
        wrong = self._wrong(outcome, workers, f"predicted-{run}")
        return {
            "seed": seed, "fault": fault, "workers": workers, "struck": scene.struck, "wrong": wrong,
            "seconds": round(time.monotonic() - started_s, 1), "said": outcome.said if wrong else "",
            "came_back": outcome.said.count("learning again"),
        }  # fmt: skip

    def reference(self, workers: int) -> Outcome:
        """The undisturbed run, in one process."""
        if workers not in self.references:
            pipeline = self.world.pipeline(f"undisturbed-{workers}", workers=workers)
            result = run_job(pipeline, Console(file=io.StringIO()), local=True)
            self.references[workers] = _outcome(result.snapshot)
        return self.references[workers]

    def _strike(self, scene: Scene, pipeline: Pipeline, fault: str) -> Outcome:
        """A job in this process, and the fault in another thread."""
        said = io.StringIO()
        thread = threading.Thread(target=_after, args=(scene, fault), daemon=True)
        result = run_job(pipeline, Console(file=said, width=200), on_ready=thread.start)
        thread.join(_JOB_TIMEOUT_S)
        self.world.add_node()
        outcome = _outcome(result.snapshot)
        outcome.said = said.getvalue()
        return outcome

    def _drive(self, scene: Scene, pipeline: Pipeline) -> Outcome:
        """A job in a process of its own, killed and started again."""
        file = self.world.folder / f"{scene.run}.yaml"
        file.write_text(yaml.safe_dump(pipeline.model_dump(mode="json")))
        command = [sys.executable, "-m", "jobs.train", str(file)]
        said = self.world.folder / f"{scene.run}.out"
        with said.open("wb") as output:
            first = subprocess.Popen(command, stdout=output, stderr=output)
            scene.driver = first.pid
            wait_until(lambda: bool(list(scene.snapshots.glob("[0-9]*/manifest.json"))))
            time.sleep(scene.rng.uniform(0.0, 0.6))
            if first.poll() is None:
                kill_driver(scene)
            first.wait(_JOB_TIMEOUT_S)
            subprocess.run(command, stdout=output, stderr=output, timeout=_JOB_TIMEOUT_S, check=False)
        manifests = scene.snapshots.glob("[0-9]*/manifest.json")
        last = max(manifests, key=lambda path: int(path.parent.name))
        outcome = _outcome(str(last.parent))
        outcome.said = said.read_text(errors="replace")
        return outcome

    def _wrong(self, outcome: Outcome, workers: int, predictions: str) -> list[str]:
        """What differs from the undisturbed run."""
        reference, wrong = self.reference(workers), []
        if outcome.offsets != reference.offsets:
            wrong.append(f"offsets {outcome.offsets} instead of {reference.offsets}")
        if outcome.counted != reference.counted:
            wrong.append(f"{outcome.counted} records counted instead of {reference.counted}")
        if workers == 1 and outcome.digest != reference.digest:
            wrong.append("the state is another")
        if workers == 1 and (others := {k for k, _ in outcome.known.items() ^ reference.known.items()}):
            wrong.append(
                f"what is known of drift, slices and features is another: {', '.join(sorted(others))}"
            )
        if workers == 1 and outcome.metrics != reference.metrics:
            wrong.append(f"metrics {outcome.metrics} instead of {reference.metrics}")
        if workers > 1 and abs(outcome.metrics["rmse"] / reference.metrics["rmse"] - 1) > QUALITY:
            wrong.append(f"rmse {outcome.metrics['rmse']} and not about {reference.metrics['rmse']}")
        return wrong + self._wrong_predictions(predictions, RATINGS if workers > 1 else RECORDS)

    def _wrong_predictions(self, topic: str, records: int) -> list[str]:
        """Every record has a prediction, and those of one record have one place."""
        places: dict[str, str] = {}
        for message in consume(self.world.broker, topic):
            if places.setdefault(message["id"], message["place"]) != message["place"]:
                return [f"the record {message['id']} has predictions of two places"]
        return [] if len(places) == records else [f"{len(places)} records predicted instead of {records}"]


def _after(scene: Scene, fault: str) -> None:
    """Strike once a snapshot or two are there, so that there is something to go back to, and something to lose."""
    if fault != "in-snapshot":
        snapshots = scene.rng.randint(1, 2)
        wait_until(lambda: len(list(scene.snapshots.glob("[0-9]*/manifest.json"))) >= snapshots)
        time.sleep(scene.rng.uniform(0.0, 0.4))
    FAULTS[fault](scene)


def _outcome(snapshot: str) -> Outcome:
    """State, metrics and offsets of a finished job; `counted` are records by the state itself."""
    model = load_model(snapshot)
    digest = hashlib.sha256()
    for name in sorted(model.arrays):
        if name.endswith((".keys", ".stats", ".rows")):
            keys = model.arrays[f"{name.rpartition('.')[0]}.keys"]
            digest.update(name.encode() + model.arrays[name][np.argsort(keys, kind="stable")].tobytes())
    counted = model.records
    if "users.rows" in model.arrays:
        learner: Any = learner_of(model.pipeline)
        counts = [learner.ratings_of(row) for row in model.arrays["users.rows"]]
        counted = sum(counts) if max(counts) == 1 else -max(counts)
    return Outcome(digest.hexdigest(), counted, model.metrics, model.offsets, _known(Path(snapshot)))


def _known(snapshot: Path) -> dict[str, bytes]:
    """What the coordinator knows of drift, and the first worker of features and slices; a job's places included."""
    store = SnapshotStore(str(snapshot.parent.parent), print)
    manifest = store.newest()
    assert manifest is not None
    assert manifest.number == int(snapshot.name)
    state = read_job(store, manifest)
    found = state.workers[0] | {f"watch.{name}": array for name, array in state.watch.items()}
    missing = {"statistics.counts", "slices.keys", "feature_names", "watch.told"} - set(found)
    assert not missing, f"the job does not keep {missing}"
    return {name: array.tobytes() for name, array in found.items()}


def seeds_of(text: str) -> list[int]:
    """FIRST:END without END, and single ones, with commas between them."""
    seeds: list[int] = []
    for part in text.split(","):
        first, found, end = part.partition(":")
        seeds += range(int(first), int(end) if found else int(first) + 1)
    return seeds


def main() -> int:
    """Run the seeds that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0:18", help="FIRST:END, or some: 4,17")
    failed = 0
    with World() as world:
        chaos = Chaos(world)
        for seed in seeds_of(parser.parse_args().seeds):
            report = chaos.seed(seed)
            failed += bool(report["wrong"])
            print(json.dumps(report), flush=True)
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
