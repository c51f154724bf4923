from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import shutil
import uuid
from pathlib import Path

import fsspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.models.signed_json import render_signed
from cluster.snapshots import store as store_module
from cluster.snapshots.errors import SnapshotDamagedError, SnapshotError
from cluster.snapshots.manifest import MANIFEST
from cluster.snapshots.part_files import read_arrays, read_part, write_part
from cluster.snapshots.store import SnapshotStore
from learning.table_state import TableState
from learning.texts import TextColumn
from tests.cluster.snapshot_runs import (
    NO_KEYS,
    Part,
    key_of,
    manifest_of,
    parts_of,
    state_of,
    write_files,
    write_snapshot,
)

BASE = {key_of(n): n for n in range(1, 5)}
KEYS_FILE = "shard0_g1.weights.keys"


SLOW = [HealthCheck.function_scoped_fixture]


def signed(folder, change):
    """Rewrite a manifest as somebody would who knows how it is signed."""
    values = json.loads((folder / MANIFEST).read_text())
    values.pop("sha256")
    change(values)
    (folder / MANIFEST).write_bytes(render_signed(values))


def entry_of(values, name=KEYS_FILE):
    """What a manifest says of a file."""
    return next(e for part in [*values["parts"], values["job"]] for e in part["files"] if e["name"] == name)


def replaced(folder, raw, name=KEYS_FILE, **changes):
    """Put other bytes in the place of an array, and sign them."""
    (folder / f"{name}.npy").write_bytes(raw)
    facts = {"sha256": hashlib.sha256(raw).hexdigest(), "bytes": len(raw), **changes}
    signed(folder, lambda values: entry_of(values, name).update(facts))


def npy(array, *, version=None, pickled=False):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version=version, allow_pickle=pickled)
    return file.getvalue()


def refused(local, match=None, number=2):
    """The snapshot is believed by nothing that reads it."""
    with pytest.raises(SnapshotDamagedError, match=match):
        local.load(number)
    with pytest.raises(SnapshotDamagedError, match=match):
        local.load_shard(number, 0, 2)


# Hostile files ---------------------------------------------------------------------------------------


class _Bomb:
    def __reduce__(self):
        return Path.touch, (Path("exploded"),)


@pytest.mark.parametrize("dtype", ["<u8", "|O"])
@pytest.mark.parametrize("as_array", [True, False])
def test_nothing_pickled_is_ever_loaded(chain, local, monkeypatch, as_array, dtype):
    """A hostile file holds a pickle, as such or as an object array, correctly signed."""
    monkeypatch.chdir(chain)
    bomb = np.array([_Bomb()], dtype=object)
    raw = npy(bomb, pickled=True) if as_array else pickle.dumps(_Bomb())
    replaced(chain / "000002", raw, dtype=dtype)
    refused(local)
    assert not Path("exploded").exists()


@pytest.mark.parametrize(
    ("raw", "what"),
    [
        (npy(np.asfortranarray(np.ones((2, 2), np.float32))), "in C order"),
        (npy(np.ones((2, 2), np.float32), version=(2, 0)), "version 1.0"),
        (npy(np.ones((2, 2), ">f4")), "in C order"),
        (npy(np.ones((1, 4), np.float32)), "its header says"),
        (npy(np.ones((2, 2), np.int32)), "its header says"),
        (b"\x93NUMPY\x01\x00\x76\x00" + b"{'descr': '<f4', ".ljust(134), "header of version 1.0"),
        (b"\x93NUMPY\x01\x00\x28\x23" + b"(" * 9000 + b" " * 16, "header of version 1.0"),
        (b"\x93NUMPY\x01\x00\x28\x23" + b"-" * 8999 + b"1" + b" " * 16, "header of version 1.0"),
        (b"\x93NUMPY\x01\x00\xff\xff" + b" " * 9_000, "header of version 1.0"),
        (npy(np.ones((2, 2), np.float32)).replace(b"(2, 2)", b"(2, 3)"), "its header says"),
    ],
)
def test_an_array_that_is_not_what_is_signed_is_refused(chain, local, raw, what):
    """A hostile or confused writer signs bytes that are not the numbers of the manifest."""
    replaced(chain / "000002", raw, "shard0_g1.weights.rows", shape=[2, 2])
    with pytest.raises(SnapshotDamagedError, match=what):
        local.verify(2)


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [2**39]}, {"shape": [2**39], "bytes": 2**42 + 128}, {"shape": [-1]}, {"shape": [2**70]},
        {"shape": [0, 2**39, 2**39]}, {"shape": 5}, {"shape": [True]}, {"shape": [[1]]}, {"shape": [1] * 40},
        {"dtype": "<i8"}, {"dtype": "<f8,<f8"}, {"dtype": {}}, {"dtype": "O"}, {"sha256": None},
        {"sha256": "0" * 64}, {"sha256": "x"}, {"bytes": 2**62}, {"bytes": True}, {"bytes": None}, {"more": 1},
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_is_refused(chain, local, change):
    """A hostile manifest, correctly signed, claims sizes that would not fit into memory, and types of no array."""
    signed(chain / "000002", lambda values: entry_of(values).update(change))
    refused(local)
    assert local.newest().number == (
        2 if change.get("sha256") == "0" * 64 or change == {"dtype": "<i8"} else 1
    )


@pytest.mark.parametrize(
    "name",
    ["../../secret", "/etc/passwd", "a/b", "..", "", "shard0_g1", "shard0_g1.weights", "shard0_g1.a.b.c",
     "shard0_g1.weights.\x00", "shard0_g1.weights." + "x" * 61, "shard1_g1.weights.keys", 3, None, ["a"]],
)  # fmt: skip
def test_a_name_that_leaves_the_folder_is_refused(chain, local, name):
    """A hostile manifest, correctly signed, points at files elsewhere, or at those of another part."""
    np.save(chain / "secret.npy", np.arange(3, dtype=np.uint64))
    signed(chain / "000002", lambda values: entry_of(values).update(name=name))
    refused(local)
    assert local.newest().number == 1


@pytest.mark.parametrize("prefix", ["../000001/shard0_g1", "", ".", "a.b", "x" * 61, 3, None])
def test_a_prefix_that_leaves_the_folder_is_refused(chain, local, prefix):
    """The same with the beginning of the names; readers that are called by hand check it too."""
    entries = local.manifest(2).parts[0].files
    signed(chain / "000002", lambda values: values["parts"][0].update(prefix=prefix))
    refused(local)
    if isinstance(prefix, str):
        with pytest.raises(SnapshotDamagedError):
            read_arrays(local.folder(2), prefix, entries)


@pytest.mark.parametrize("name", [f"{KEYS_FILE}.npy", MANIFEST])
def test_a_link_out_of_the_folder_is_refused(chain, local, name):
    """A hostile archive brings a symbolic link; its target has the right bytes, so only the place is wrong."""
    path = chain / "000002" / name
    path.rename(chain / "outside")
    path.symlink_to(chain / "outside")
    with pytest.raises(SnapshotDamagedError, match=r"a link|link that leaves"):
        local.load(2)
    entry = local.manifest(1).parts[0].files[0]
    if name != MANIFEST:
        with pytest.raises(SnapshotDamagedError, match="link that leaves the folder"):
            read_part(local.folder(2), "shard0_g1", [entry])
    assert local.newest().number == 1


def test_a_pipe_in_the_place_of_a_file_does_not_block(chain, local):
    """Opening a FIFO without a writer waits for ever."""
    for name in (f"{KEYS_FILE}.npy", MANIFEST):
        (chain / "000002" / name).unlink()
        os.mkfifo(chain / "000002" / name)
        refused(local)
        assert local.newest().number == 1


# Hostile manifests -----------------------------------------------------------------------------------


@settings(max_examples=100, suppress_health_check=SLOW)
@given(raw=st.binary(max_size=200) | st.text(alphabet='{}[]":,0e-', max_size=60).map(str.encode))
def test_any_text_instead_of_the_manifest_is_a_sentence(chain, local, raw):
    """Another program's manifest.json lies in the folder."""
    (chain / "000002" / MANIFEST).write_bytes(raw)
    refused(local)
    assert local.newest().number == 1


@pytest.mark.parametrize(
    "raw",
    ["[" * 100_000, '{"a":' * 100_000, '{"a":' * 600 + "1" + "}" * 600, " " * (16 * 2**20 + 1), "9" * 5000],
)
def test_a_manifest_that_exhausts_a_parser_is_a_sentence(chain, local, raw):
    """A hostile manifest tries the parser's stack and the reader's memory."""
    (chain / "000002" / MANIFEST).write_text(raw)
    refused(local, r"manifest\.json")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_json_does_not_have_are_refused(chain, local, value):
    """Python's own JSON writes NaN; it is signed here as its own reader would have it."""
    values = json.loads((chain / "000002" / MANIFEST).read_text())
    values.pop("sha256")
    values["metrics"]["log_loss"] = value
    body = json.dumps(values, sort_keys=True)
    values["sha256"] = hashlib.sha256(body.encode()).hexdigest()
    (chain / "000002" / MANIFEST).write_text(json.dumps(values, indent=1, sort_keys=True) + "\n")
    refused(local, "no JSON object as we write it")


FIELDS = (
    "format", "number", "generation", "parent", "parent_signature", "shards", "pipeline", "offsets", "ends",
    "records", "dead", "turns", "metrics", "parts", "job", "code_version", "created_s", "note",
)  # fmt: skip
PLAIN = {"pipeline", "note"}


@pytest.mark.parametrize("field", FIELDS)
def test_a_manifest_with_a_foreign_value_is_refused(chain, local, field):
    """A hostile or future manifest, correctly signed, has other types than ours, or lacks something."""
    original = (chain / "000002" / MANIFEST).read_bytes()
    foreign = [
        None,
        True,
        -1,
        2**70,
        "x",
        0.5,
        [],
        [7],
        {"a": "b"},
        {"1": -1},
        {"-1": 1},
        {"01": 1},
        {"٣": 1},
    ]
    for value in foreign:
        fits = (isinstance(value, dict) and field in PLAIN) or (field, value) == ("code_version", "x")
        if fits or (field == "created_s" and value == 0.5) or (field in {"offsets", "ends"} and value == {}):
            continue
        (chain / "000002" / MANIFEST).write_bytes(original)
        signed(chain / "000002", lambda values, v=value: values.update({field: v}))
        refused(local)
    (chain / "000002" / MANIFEST).write_bytes(original)
    signed(chain / "000002", lambda values: values.pop(field))
    refused(local)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"parent": 2}, "expected a parent older than 2, but came 2"),
        ({"parent": 3}, "expected a parent older than 2, but came 3"),
        ({"parent": None}, "expected a parent and its signature, or neither"),
        ({"parent_signature": "0" * 64}, "two copies of the run were mixed"),
        ({"number": 3}, "its folder was renamed"),
        ({"shards": 3}, "expected the parts of 3 shards, but came 2"),
        ({"note": {"x": "y" * 70_000}}, "the note is longer"),
    ],
)
def test_a_manifest_that_contradicts_itself_or_its_chain_is_refused(chain, local, changes, what):
    """A hostile manifest, correctly signed, would have a reader go round in circles, or add up what is not one run."""
    signed(chain / "000002", lambda values: values.update(changes))
    refused(local, what)


def test_a_chain_without_its_base_is_refused(chain, local, said):
    """Somebody removed the base by hand; a chain is also bounded."""
    write_snapshot(local, 3, BASE)
    shutil.rmtree(chain / "000001")
    refused(local, "snapshot 2 rests on 1, but .*000001 has no file")
    assert local.newest(before=3) is None
    assert len(said) == 1


def test_a_manifest_behind_a_url_is_no_longer_than_ours(said):
    """An object of any size lies where a manifest is to be; it is not fetched."""
    url = f"memory://{uuid.uuid4().hex}/run"
    store = SnapshotStore(url, said.append)
    write_snapshot(store, 1, BASE)
    for raw, what in ((b" " * (16 * 2**20 + 1), "is longer than"), (b"", "no JSON object")):
        fsspec.filesystem("memory").pipe_file(f"{url}/snapshots/000001/{MANIFEST}", raw)
        refused(store, what, number=1)


def test_a_chain_is_bounded(chain, local, monkeypatch):
    """A hostile run has a chain of a million manifests."""
    monkeypatch.setattr(store_module, "_CHAIN_MAX", 1)
    refused(local, "rests on more than 1 others")


def test_a_run_that_was_relearnt_is_not_added_to_its_older_self(chain, local, tmp_path):
    """A run was taken back and learnt anew, then copied over a copy of the old one: 2 is new, 3 is old."""
    write_snapshot(local, 3, {}, parent=2)
    shutil.move(chain / "000003", tmp_path / "old")
    shutil.rmtree(chain / "000002")
    write_snapshot(local, 2, {}, parent=1)
    shutil.move(tmp_path / "old", chain / "000003")
    refused(local, "two copies of the run were mixed", number=3)
    assert local.newest().number == 2


@pytest.mark.parametrize(
    ("state", "what"),
    [
        (TableState(np.zeros(2, np.uint64), np.zeros((2, 2), np.float32)), "a key comes twice"),
        (TableState(np.zeros(1, np.uint64), np.zeros((1, 3), np.float32)), "rows of several widths"),
    ],
)
def test_rows_that_do_not_belong_together_are_refused(chain, local, state, what):
    """A faulty shard wrote a key twice, or another learner's rows."""
    parts, job = write_files(local, 3, [Part({"weights": (state, NO_KEYS, {})})])
    local.commit(manifest_of(local, 3, parts, job, parent=2))
    with pytest.raises(SnapshotDamagedError, match=what):
        local.load(3)


@pytest.mark.parametrize("ends", [(3, 2), (2, 6), (2, 4), (-1, 5), (2**63 - 1, -(2**63))])
def test_names_that_do_not_lie_in_their_bytes_are_refused(tmp_path, ends):
    """A name would begin before the bytes or end behind them."""
    names = TextColumn(np.zeros(5, np.uint8), np.array([0, *ends], np.int64))
    state = state_of({1: 1, 2: 2})._replace(names=names)

    class Whole(Part):
        def chunks(self, table):
            yield state

    entries = write_part(str(tmp_path), "p", Whole({"t": (state, NO_KEYS, {})}))
    with pytest.raises(SnapshotDamagedError, match="do not rise from 0 to the bytes"):
        read_part(str(tmp_path), "p", entries)


def test_a_part_without_one_of_its_arrays_is_refused(local):
    """A list of files is not whole; nothing is made up for what is missing."""
    parts, _ = write_files(local, 1, parts_of(1, BASE))
    for field in ("keys", "rows", "removed", "names", "name_ends"):
        left = [entry for entry in parts[0].files if entry.name != f"shard0_g1.items.{field}"]
        with pytest.raises(SnapshotDamagedError, match="lacks"):
            read_part(local.folder(1), "shard0_g1", left)


@pytest.mark.parametrize("raw", ["", "{}", "[]", "[" * 9999, '{"generation": true}', '{"generation": -1}'])
def test_a_damaged_count_of_starts_is_a_sentence(local, tmp_path, raw):
    """Somebody edited generation.json."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "generation.json").write_text(raw)
    with pytest.raises(SnapshotError, match="write it anew with an N above every _gN"):
        local.next_generation()
