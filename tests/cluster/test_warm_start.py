"""New runs that begin with what was trained elsewhere: files, snapshots, MLflow; and what is refused."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from cluster.base_files import BaseError, read_tensors, read_weights
from cluster.broker import Broker
from cluster.config import Pipeline, build_pipeline
from cluster.job import JobError, JobResult, run_job
from cluster.snapshots.model import load_model
from learning.deep import Deep
from learning.deep_layout import layout_of
from learning.keys import BIAS_KEY, name_key, value_key
from learning.warm_start import KEYS, ROWS
from tests.cluster.live import send
from tests.cluster.topics import produce, records

DEEP: dict[str, Any] = {"kind": "deep", "model": "mlp", "embedding": 4, "hidden": [8], "step_records": 32}


def pipeline_of(broker: Broker, topic: str, folder: Path, learner: dict, run: str, **more: Any) -> Pipeline:
    """A short bounded job."""
    values = {
        "name": "warm", "run": run, "batch_records": 64, "learner": learner,
        "source": {
            "kind": "kafka", "topic": topic, "until": "end", "bootstrap_servers": broker.bootstrap_servers,
        },
        "snapshots": {"path": str(folder), "keep": 9}, "mlflow": {"enabled": False}, **more,
    }  # fmt: skip
    return build_pipeline(values, [], origin="test")


def learn(pipeline: Pipeline) -> JobResult:
    """In this process."""
    return run_job(pipeline, Console(file=io.StringIO()), local=True)


def write_safetensors(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """The format as its specification says it: a length, a JSON header, the bytes."""
    names = {"<f4": "F32", "<u8": "U64", "<f2": "F16"}
    header, data = {}, b""
    for name, array in arrays.items():
        raw = array.tobytes()
        header[name] = {
            "dtype": names[array.dtype.str],
            "shape": list(array.shape),
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def test_ftrl_begins_with_weights_that_were_given(broker: Broker, tmp_path: Path) -> None:
    """The run's first snapshot predicts by them; learning goes on from there, and the base is read only once."""
    weights = {"bias": -0.5, "features": {"price": 0.8, "city": {"Oslo": 1.5}}}
    base = tmp_path / "weights.json"
    base.write_text(json.dumps(weights))
    produce(broker, "warm-ftrl", records(300), 1)
    warm = pipeline_of(
        broker, "warm-ftrl", tmp_path, {"kind": "ftrl"}, "warm", base={"path": str(base), "confidence": 4.0}
    )
    done = learn(warm)
    first = load_model(tmp_path / "warm" / "snapshots" / "000001")
    found = dict(zip(first.arrays["weights.keys"].tolist(), first.arrays["weights.rows"][:, 1], strict=True))
    price, oslo = name_key("price"), value_key(name_key("city"), "Oslo")
    assert found == {int(BIAS_KEY): 4.0, int(price): 4.0, int(oslo): 4.0}
    assert first.records == 0
    cold = learn(pipeline_of(broker, "warm-ftrl", tmp_path, {"kind": "ftrl"}, "cold"))
    losses = [of.figures.since_start["log_loss"] for of in (done, cold)]
    assert losses[0] != losses[1]
    base.unlink()
    send(broker, "warm-ftrl", records(50), 1)
    assert learn(warm).figures.status.records == 350, "a run that goes on needs its base no more"


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_torch_model_begins_with_tensors_by_name(broker: Broker, tmp_path: Path, suffix: str) -> None:
    """The base layer and two keys' rows; a frozen base is still the same to the bit after the stream."""
    rng = np.random.default_rng(1)
    given: dict[str, Any] = {
        "layers.0.weight": rng.normal(size=(8, 4)).astype(np.float32),
        "layers.0.bias": rng.normal(size=8).astype(np.float32),
        KEYS: np.array([int(name_key("price")), 7], np.uint64),
        ROWS: rng.normal(size=(2, 5)).astype(np.float32),
    }
    path = tmp_path / f"base{suffix}"
    if suffix == ".pt":
        torch.save(
            {
                name: torch.from_numpy(array.astype(np.int64) if name == KEYS else array)
                for name, array in given.items()
            },
            path,
        )
    else:
        write_safetensors(path, given)
    produce(broker, f"warm{suffix}", records(200), 1)
    learner = {**DEEP, "base_parameters": ["layers.0"], "freeze_updates": 10_000}
    done = learn(pipeline_of(broker, f"warm{suffix}", tmp_path, learner, "warm", base={"path": str(path)}))
    state = load_model(done.snapshot)
    layout = layout_of(Deep(**{name: value for name, value in learner.items() if name != "kind"}))
    place = {key: i for i, key in enumerate(state.arrays["dense.keys"].tolist())}
    rows = state.arrays["dense.rows"][[place[key] for key in layout.keys.tolist()]]
    found = layout.unpack(rows)
    assert found["layers.0.weight"].tobytes() == given["layers.0.weight"].tobytes()
    assert rows[-1, 0] == 200 // 32 + 1, "while the head took its steps"
    at = state.arrays["embeddings.keys"].tolist().index(7)
    assert state.arrays["embeddings.rows"][at, :5].tobytes() == given[ROWS][1].tobytes()


def test_a_run_begins_with_another_runs_model_and_its_moments(broker: Broker, tmp_path: Path) -> None:
    """A snapshot of the same form: all rows as they were; with another base, parameters go by name."""
    produce(broker, "warm-model", records(300), 1)
    first = learn(pipeline_of(broker, "warm-model", tmp_path, DEEP, "first"))
    expected = load_model(first.snapshot).arrays
    learn(pipeline_of(broker, "warm-model", tmp_path, DEEP, "second", base={"path": first.snapshot}))
    second = load_model(tmp_path / "second" / "snapshots" / "000001").arrays
    for table in ("embeddings", "dense"):
        rows = [
            dict(zip(of[f"{table}.keys"].tolist(), map(bytes, of[f"{table}.rows"]), strict=True))
            for of in (expected, second)
        ]
        assert rows[0] == rows[1]
    assert second["encoder.stats"].tobytes() == expected["encoder.stats"].tobytes()
    frozen = {**DEEP, "base_parameters": ["layers.0"], "freeze_updates": 5}
    third = learn(pipeline_of(broker, "warm-model", tmp_path, frozen, "third", base={"path": first.snapshot}))
    assert third.figures.status.records == 300


@pytest.mark.parametrize(
    ("name", "content", "learner", "reason"),
    [
        ("a.safetensors", struct.pack("<Q", 2**40) + b"{}", DEEP, "safetensors"),
        ("a.safetensors", b"abc", DEEP, "safetensors"),
        ("a.pt", b"not a zip", DEEP, "state_dict"),
        ("a.json", b"{}", {"kind": "ftrl"}, "holds no weights"),
        ("a.json", b"{}", DEEP, "for the learner ftrl"),
        ("a.pt", b"", {"kind": "ftrl"}, "for the learner deep"),
    ],
)
def test_a_base_that_cannot_be_used_ends_the_job_before_it_begins(
    broker: Broker, tmp_path: Path, name: str, content: bytes, learner: dict, reason: str
) -> None:
    """A sentence, no snapshot, and nothing that the file says is run."""
    topic = tmp_path.name.replace("[", "-")
    produce(broker, topic, records(5), 1)
    (tmp_path / name).write_bytes(content)
    pipeline = pipeline_of(broker, topic, tmp_path, learner, "r", base={"path": str(tmp_path / name)})
    with pytest.raises(JobError, match=reason):
        learn(pipeline)
    assert not list(tmp_path.glob("r/snapshots/*/manifest.json"))


def test_a_state_dict_that_would_run_code_is_not_read(tmp_path: Path) -> None:
    """torch.save of anything but tensors is a pickle; weights_only refuses it."""
    torch.save({"a": torch.zeros(1), "run": Broker}, tmp_path / "evil.pt")
    with pytest.raises(BaseError, match="tensors alone"):
        read_tensors(tmp_path / "evil.pt")


def test_half_precision_is_read_and_odd_types_are_refused(tmp_path: Path) -> None:
    """F16 becomes numbers; a type that nobody asked for is a sentence."""
    write_safetensors(tmp_path / "h.safetensors", {"a": np.array([1.5, -2.0], np.float16)})
    assert read_tensors(tmp_path / "h.safetensors")["a"].tolist() == [1.5, -2.0]
    text = json.dumps({"a": {"dtype": "F8", "shape": [1], "data_offsets": [0, 1]}}).encode()
    (tmp_path / "o.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"\0")
    with pytest.raises(BaseError, match="F8"):
        read_tensors(tmp_path / "o.safetensors")
    with pytest.raises(BaseError, match="no file"):
        read_tensors(tmp_path / "missing.pt")
    (tmp_path / "w.json").write_text('{"features": {"a": 1e999}}')
    with pytest.raises(BaseError, match="not finite"):
        read_weights(tmp_path / "w.json")
