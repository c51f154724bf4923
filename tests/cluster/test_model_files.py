from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.models import model_files, scorer
from cluster.models.model_files import (
    MANIFEST,
    ModelFilesError,
    ModelState,
    read_model,
    write_model,
)
from cluster.models.model_layout import learner_of, tables_of
from cluster.models.redaction import without_secrets
from cluster.models.scorer import ScorerError, frame_to_batch
from learning.factors_scale import SCALE_WIDTH
from learning.keys import name_key, value_key

PIPELINE = {"name": "clicks", "learner": {"kind": "ftrl", "alpha": 0.1}, "features": {"ignore": ["user"]}}


def make_state(rows=5, features=2, **changes):
    seed = np.random.default_rng(7)
    arrays = {
        "weights.keys": np.arange(rows, dtype=np.uint64) + np.uint64(2**63),
        "weights.rows": seed.normal(size=(rows, 2)).astype(np.float32),
        "encoder.keys": np.arange(features, dtype=np.uint64),
        "encoder.stats": seed.normal(size=(features, 3)),
    }
    base = {"pipeline": PIPELINE, "arrays": arrays, "offsets": {0: 123, 11: 2**40}, "records": 77}
    return ModelState(**{**base, "metrics": {"log_loss": 0.1 + 0.2}, **changes})


def signed(folder, change):
    """Rewrite the manifest as somebody would who knows how its checksum is made."""
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest.pop("sha256")
    change(manifest)
    (folder / MANIFEST).write_bytes(model_files._render(manifest))


@pytest.fixture
def folder(tmp_path):
    write_model(tmp_path / "model", make_state())
    return tmp_path / "model"


@pytest.mark.parametrize("rows", [0, 1, 1000])
def test_a_state_comes_back_as_it_was_written(tmp_path, rows):
    """A model is saved and loaded; also one that has learnt nothing yet."""
    state = make_state(rows)
    write_model(tmp_path / "m", state)
    back = read_model(tmp_path / "m")
    assert (back.pipeline, back.offsets, back.records, back.metrics) == (
        state.pipeline, state.offsets, state.records, state.metrics,
    )  # fmt: skip
    for name, array in state.arrays.items():
        assert back.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(back.arrays[name], array)


def test_two_writes_of_one_state_are_the_same_bytes(tmp_path):
    """A replay ends in the same state, and its files are compared with cmp."""
    for name in "ab":
        write_model(tmp_path / name, make_state())
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_metrics_that_are_not_finite_are_left_out(tmp_path):
    """AUC is NaN as long as only one class has been seen, and JSON has no NaN."""
    write_model(tmp_path / "m", make_state(metrics={"auc": float("nan"), "log_loss": 0.5}))
    assert read_model(tmp_path / "m").metrics == {"log_loss": 0.5}


def test_a_finished_model_is_never_overwritten(folder):
    """Two jobs are given the same folder by mistake."""
    with pytest.raises(ModelFilesError, match="already holds a finished model"):
        write_model(folder, make_state())


def test_a_write_that_died_halfway_can_be_repeated(folder):
    """The process was killed after the arrays and before the manifest."""
    (folder / MANIFEST).unlink()
    with pytest.raises(ModelFilesError, match=r"no file manifest\.json.*never finished"):
        read_model(folder)
    write_model(folder, make_state(rows=9))
    assert len(read_model(folder).arrays["weights.keys"]) == 9


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_changed_byte_of_any_file_is_found(folder, data):
    """A disk or a network turns some bits; the model must not be served."""
    path = data.draw(st.sampled_from(sorted(folder.iterdir())))
    original = path.read_bytes()
    at = data.draw(st.integers(0, len(original) - 1))
    flip = data.draw(st.integers(1, 255))
    path.write_bytes(original[:at] + bytes([original[at] ^ flip]) + original[at + 1 :])
    try:
        with pytest.raises(ModelFilesError):
            read_model(folder)
    finally:
        path.write_bytes(original)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_truncation_or_addition_is_found(folder, data):
    """A download ended early, or a file was appended to."""
    path = data.draw(st.sampled_from(sorted(folder.iterdir())))
    original = path.read_bytes()
    cut = data.draw(st.integers(0, len(original) - 1))
    path.write_bytes(data.draw(st.sampled_from([original[:cut], original + original[: cut + 1]])))
    try:
        with pytest.raises(ModelFilesError):
            read_model(folder)
    finally:
        path.write_bytes(original)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=st.binary(max_size=200) | st.text(alphabet='{}[]":,0e-', max_size=60).map(str.encode))
def test_any_text_instead_of_the_manifest_is_a_sentence(folder, raw):
    """Another program's manifest.json lies in the folder."""
    original = (folder / MANIFEST).read_bytes()
    (folder / MANIFEST).write_bytes(raw)
    try:
        with pytest.raises(ModelFilesError):
            read_model(folder)
    finally:
        (folder / MANIFEST).write_bytes(original)


def test_a_deeply_nested_manifest_is_a_sentence(folder):
    """A hostile manifest tries to exhaust the parser's stack."""
    (folder / MANIFEST).write_text("[" * 100_000)
    with pytest.raises(ModelFilesError, match="no JSON object"):
        read_model(folder)


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "a/b", "..", "", "a\x00b", "x" * 200, 3, None, ["a"]]
)
def test_a_name_that_leaves_the_folder_is_refused(folder, name):
    """A hostile manifest, correctly signed, points at files elsewhere."""
    np.save(folder.parent / "secret.npy", np.arange(3, dtype=np.uint64))
    signed(folder, lambda manifest: manifest["files"][0].update(name=name))
    with pytest.raises(ModelFilesError):
        read_model(folder)


@pytest.mark.parametrize("name", ["weights.keys.npy", MANIFEST])
def test_a_link_out_of_the_folder_is_refused(folder, name):
    """A hostile archive brings a symbolic link; its target has the right bytes, so only the place is wrong."""
    outside = folder.parent / "outside"
    (folder / name).rename(outside)
    (folder / name).symlink_to(outside)
    with pytest.raises(ModelFilesError, match="link that leaves the folder"):
        read_model(folder)


def test_a_pipe_in_the_place_of_a_file_does_not_block(folder):
    """Opening a FIFO without a writer waits for ever."""
    (folder / "weights.keys.npy").unlink()
    os.mkfifo(folder / "weights.keys.npy")
    with pytest.raises(ModelFilesError, match="has no file"):
        read_model(folder)


class _Bomb:
    def __reduce__(self):
        return Path.touch, (Path("exploded"),)


@pytest.mark.parametrize("as_array", [True, False])
def test_nothing_pickled_is_ever_loaded(folder, monkeypatch, as_array):
    """A hostile file holds a pickle, as such or as an object array, with correct checksums."""
    import hashlib

    monkeypatch.chdir(folder.parent)
    path = folder / "weights.keys.npy"
    if as_array:
        np.save(path, np.array([_Bomb()] * 5, dtype=object), allow_pickle=True)
    else:
        path.write_bytes(pickle.dumps(_Bomb()))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    for dtype in ("<u8", "|O"):
        signed(folder, lambda manifest, d=dtype: manifest["files"][2].update(sha256=digest, dtype=d))
        with pytest.raises(ModelFilesError):
            read_model(folder)
    assert not Path("exploded").exists()


@pytest.mark.parametrize(
    ("index", "change"),
    [
        (2, {"shape": [4]}),
        (2, {"shape": [2**39]}),
        (2, {"shape": [-1]}),
        (2, {"shape": 5}),
        (2, {"dtype": "<i8"}),
        (2, {"dtype": "<f8,<f8"}),
        (2, {"dtype": {}}),
        (2, {"sha256": None}),
    ],
)
def test_a_manifest_that_contradicts_its_file_is_refused(folder, index, change):
    """A hostile or confused writer signs sizes and types that the file does not have."""
    signed(folder, lambda manifest: manifest["files"][index].update(change))
    with pytest.raises(ModelFilesError):
        read_model(folder)


@pytest.mark.parametrize("key", ["pipeline", "files", "offsets", "metrics", "records", "format"])
@pytest.mark.parametrize("value", [None, 7, "x", [], [7], {"a": "b"}])
def test_a_manifest_with_a_foreign_value_is_refused(folder, key, value):
    """A hostile or future manifest, correctly signed, has other types than ours."""
    signed(folder, lambda manifest: manifest.update({key: value}))
    if (key, value) != ("records", 7):
        with pytest.raises(ModelFilesError):
            read_model(folder)


@pytest.mark.parametrize(
    ("name", "array", "what"),
    [
        ("weights.rows", np.zeros((5, 3), np.float32), "weights.rows as <f4"),
        ("weights.rows", np.zeros((4, 2), np.float32), "weights.rows as <f4"),
        ("weights.rows", np.zeros((5, 2)), "weights.rows as <f4"),
        ("weights.keys", np.array([object()] * 5), "weights.keys as <u8"),
        ("another", np.zeros(1), "expected the arrays"),
    ],
)
def test_arrays_that_no_learner_has_are_not_written(tmp_path, name, array, what):
    """A learner's author changed a shape and not LAYOUTS; the model would be found unreadable much later."""
    state = make_state()
    with pytest.raises(ModelFilesError, match=what):
        write_model(tmp_path / "m", ModelState(PIPELINE, {**state.arrays, name: array}))
    assert not (tmp_path / "m").exists()


def test_secrets_of_the_pipeline_do_not_reach_the_folder(tmp_path):
    """A model folder is copied to people who may see the weights but not the broker's password."""
    options = {
        "sasl_plain_password": "hunter2",
        "ssl_keyfile": "k",
        "ssl_password": "${PW}",
        "client_id": "me",
    }
    pipeline = {
        **PIPELINE,
        "source": {"options": options},
        "mlflow": {"tracking_uri": "https://bob:hunter2@host/x"},
    }
    write_model(tmp_path / "m", make_state(pipeline=pipeline))
    assert b"hunter2" not in (tmp_path / "m" / MANIFEST).read_bytes()
    back = read_model(tmp_path / "m").pipeline
    assert back["source"]["options"] == {
        "sasl_plain_password": "***", "ssl_keyfile": "***", "ssl_password": "${PW}", "client_id": "me",
    }  # fmt: skip
    assert back["mlflow"]["tracking_uri"] == "https://bob:***@host/x"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://u:p@ss:w@db:5432/x", "postgresql://u:***@db:5432/x"),
        ("https://u:${PW}@host", "https://u:${PW}@host"),
        ("https://host/?api_token=abc&x=1", "https://host/?api_token=***&x=1"),
        ("sqlite:///mlruns/mlflow.db", "sqlite:///mlruns/mlflow.db"),
        ("127.0.0.1:9092,10.0.0.1:9092", "127.0.0.1:9092,10.0.0.1:9092"),
    ],
)
def test_passwords_in_addresses_are_hidden_and_the_rest_stays(text, shown):
    """A tracking URI or an error that quotes it is logged."""
    assert without_secrets(text) == shown


def test_a_frame_means_what_a_message_means():
    """Keys of numbers, texts and booleans in a frame equal those that training used."""
    frame = pd.DataFrame({"site": ["a", None], "n": [3, 4], "yes": [True, False], "c": [3.0, 0.5]})
    batch = frame_to_batch(frame, {"as_categorical": ["c"]})
    site, c = name_key("site"), name_key("c")
    assert batch.keys[:4].tolist() == [
        value_key(site, "a"), name_key("n"), name_key("yes"), value_key(c, "3"),
    ]  # fmt: skip
    assert batch.values.tolist() == [1, 3, 1, 1, 4, 0, 1]
    assert batch.kinds.tolist() == [0, 1, 1, 0, 1, 1, 0]
    assert batch.offsets.tolist() == [0, 4, 7]


@pytest.mark.parametrize(
    ("column", "features", "what"),
    [
        ([1.0, np.inf], {}, "row 1 .*'x' is inf"),
        ([1.0, "x"], {}, "column x"),
        (["a", "b"], {"as_numeric": ["x"]}, "row 0 .*as_numeric wants"),
        ([[1], [2]], {}, "'x' has the type list"),
        ([pd.Timestamp(0)] * 2, {}, "'x' has the type timestamp"),
        ([b"a", b"b"], {}, "'x' has the type binary"),
    ],
)
def test_a_frame_that_no_message_could_hold_is_a_sentence(column, features, what):
    """A client's frame is spoilt; the answer names the row or the column."""
    with pytest.raises(ScorerError, match=what):
        frame_to_batch(pd.DataFrame({"x": column}), features)


def test_a_long_frame_is_read_in_parts(monkeypatch):
    """A nightly job scores more rows than one message may hold; the error still names the frame's row."""
    monkeypatch.setattr(scorer, "_MESSAGE_ROWS", 3)
    frame = pd.DataFrame({"site": pd.Series([None, None, None, "a", "b", "c", "d"]), "n": np.arange(7.0)})
    batch = frame_to_batch(frame, {})
    assert (len(batch), batch.values[batch.kinds == 1].tolist()) == (7, list(range(7)))
    with pytest.raises(ScorerError, match="row 5 of the frame"):
        frame_to_batch(frame.replace(5.0, np.inf), {})
    assert len(frame_to_batch(frame.head(0), {})) == 0


def factors_state(names, ends):
    """A model of a factor learner with two items."""
    widths = {"users": 5, "items": 5, "scale": SCALE_WIDTH, "seen": 1}
    sizes = {"users": 0, "items": 2, "scale": 1, "seen": 0}
    arrays = {"encoder.keys": np.empty(0, np.uint64), "encoder.stats": np.empty((0, 3))}
    for table, width in widths.items():
        arrays[f"{table}.keys"] = np.arange(sizes[table], dtype=np.uint64)
        arrays[f"{table}.rows"] = np.zeros((sizes[table], width), np.float32)
    arrays |= {
        "items.names": np.frombuffer(names.encode(), np.uint8),
        "items.name_ends": np.array(ends, np.int64),
    }
    return ModelState({"learner": {"kind": "factors", "factors": 1}}, arrays)


@pytest.mark.parametrize("ends", [(0, 0), (2, 5), (5, 5), (0, 5)])
def test_names_of_items_come_back_as_they_were(tmp_path, ends):
    """Items have names, but for those that were learnt without; stores get them as they were sent."""
    names = "fïlm"[: 4 if ends[1] else 0]
    write_model(tmp_path / "m", factors_state(names, ends))
    state = read_model(tmp_path / "m")
    items = tables_of(learner_of(state.pipeline), state.arrays)["items"]
    assert items.names is not None
    assert items.names.offsets.tolist() == [0, *ends]
    assert items.names.data.tobytes().decode() == names


@pytest.mark.parametrize("ends", [(-1, 5), (3, 2), (2, 6), (2, 4)])
def test_names_that_do_not_lie_in_their_bytes_are_refused(tmp_path, ends):
    """Somebody has made the arrays by other means: a name would begin before the bytes or end behind them."""
    with pytest.raises(ModelFilesError, match=r"expected items\.name_ends to rise from 0 to the 5 bytes"):
        write_model(tmp_path / "m", factors_state("fïlm", ends))


def test_a_model_without_the_names_of_its_items_is_refused(tmp_path):
    """A snapshot of an older version."""
    state = factors_state("", (0, 0))
    del state.arrays["items.names"], state.arrays["items.name_ends"]
    with pytest.raises(ModelFilesError, match=r"expected the arrays .*items\.names, items\.name_ends"):
        write_model(tmp_path / "m", state)
