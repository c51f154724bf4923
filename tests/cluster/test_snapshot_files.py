from __future__ import annotations

import json
import resource
import shutil
import time
import weakref
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.snapshots import part_files
from cluster.snapshots.errors import SnapshotDamagedError, SnapshotError
from cluster.snapshots.file_entry import PartFiles
from cluster.snapshots.manifest import MANIFEST
from cluster.snapshots.part_files import read_arrays, read_part, write_part
from cluster.snapshots.store import SnapshotStore
from learning.keys import segment_of
from learning.table_state import TableState
from tests.cluster.snapshot_runs import (
    NO_KEYS,
    Part,
    key_of,
    manifest_of,
    parts_of,
    state_of,
    values_of,
    write_files,
    write_snapshot,
)

BASE = {key_of(n): n for n in range(1, 9)}


def test_a_base_and_differences_are_loaded_as_one(anywhere):
    """A job wrote a base and two differences: rows replaced, added, removed, and one removed and born again."""
    write_snapshot(anywhere, 1, BASE)
    write_snapshot(anywhere, 2, {key_of(1): 11, key_of(20): 20}, parent=1, removed=[key_of(2), key_of(3)])
    write_snapshot(anywhere, 4, {key_of(3): 33}, parent=2, removed=[key_of(20), key_of(3), key_of(99)])
    expected = {**BASE, key_of(1): 11, key_of(3): 33}
    del expected[key_of(2)]
    tables, sides = anywhere.load(4)
    assert list(tables) == ["weights", "items"]
    assert values_of(tables["weights"]) == values_of(tables["items"]) == expected
    assert (tables["weights"].names, tables["weights"].used) == (None, None)
    assert [side["items"]["age"] for side in sides] == [np.array(0.0), np.array(1.0)]
    np.testing.assert_array_equal(sides[1]["weights"]["cells"], np.full((2, 3), 1, np.uint16))
    assert anywhere.numbers() == [1, 2, 4]
    assert [manifest.number for manifest in anywhere.chain(4)] == [1, 2, 4]
    assert values_of(anywhere.load(1)[0]["items"]) == BASE
    anywhere.verify(4)


def test_a_manifest_comes_back_as_it_was_written(anywhere):
    """A job goes on from a snapshot: offsets, ends and turns have their numbers; secrets and NaN stay out."""
    changes = {
        "pipeline": {"name": "x", "source": {"options": {"sasl_plain_password": "hunter2"}}},
        "metrics": {"log_loss": 0.1 + 0.2, "auc": float("nan")},
        "note": {"rolled_back_to": 3},
        "offsets": {np.int64(3): np.int64(5)},
    }
    written = write_snapshot(anywhere, 1, BASE, **changes)
    back = anywhere.manifest(1)
    assert (back.ends, back.turns, back.note) == (written.ends, written.turns, written.note)
    assert (back.parts, back.job, back.created_s) == (written.parts, written.job, 1.5)
    assert (back.metrics, back.offsets) == ({"log_loss": 0.1 + 0.2}, {3: 5})
    assert back.pipeline["source"]["options"]["sasl_plain_password"] == "***"
    assert anywhere.newest() == back
    arrays = read_arrays(anywhere.folder(1), back.job.prefix, back.job.files)
    assert list(arrays) == ["encoder.keys", "encoder.stats"]
    assert arrays["encoder.stats"].shape == (3, 3)


@pytest.mark.parametrize("chunk", [1, 3, 1000])
def test_a_part_is_read_as_it_was_streamed(run_url, chunk):
    """A shard writes in pieces; names of all pieces lie in one file, and arrays may have any shape, or no rows."""
    state = state_of(BASE, named=True)
    side = {"waiting": np.empty(0), "scalar": np.array(7, np.int64), "flags": np.array([True, False])}
    part = Part({"items": (state, state.keys[:2], side)}, chunk)
    entries = write_part(f"{run_url}/x", "shard0_g3", part)
    assert {entry.name for entry in entries} > {"shard0_g3.items.keys", "shard0_g3.items.name_ends"}
    change = read_part(f"{run_url}/x", "shard0_g3", entries)["items"]
    assert values_of(change.state) == BASE
    assert change.removed.tolist() == state.keys[:2].tolist()
    assert change.side.keys() == side.keys()
    for name, array in side.items():
        np.testing.assert_array_equal(change.side[name], array)
        assert (change.side[name].dtype, change.side[name].shape) == (array.dtype, array.shape)


def test_files_are_those_that_numpy_writes(tmp_path):
    """Somebody looks into a snapshot with nothing but numpy."""
    write_part(str(tmp_path), "p", Part({"t": (state_of(BASE), NO_KEYS, {})}, chunk=3))
    for path in tmp_path.glob("*.npy"):
        array = np.load(path, allow_pickle=False)
        np.save(tmp_path / "again.npy", array)
        assert path.read_bytes() == (tmp_path / "again.npy").read_bytes()


def test_a_table_without_a_chunk_is_written_empty(anywhere):
    """Nothing changed in one shard, which gives no chunk at all; the other one knows the table's width."""

    class Silent(Part):
        def chunks(self, table):
            return iter(())

    busy = parts_of(2, BASE)
    write_snapshot(anywhere, 1, {})
    silent = [Silent(busy[0]._tables), busy[1]]
    parts, job = write_files(anywhere, 2, silent)
    anywhere.commit(manifest_of(anywhere, 2, parts, job))
    tables, _ = anywhere.load(2)
    assert values_of(tables["items"]) == {k: v for k, v in BASE.items() if k >= 2**63}
    assert anywhere.load(1)[0]["items"].rows.shape == (0, 2)


def test_a_shard_of_as_many_reads_its_own_part_alone(local, monkeypatch):
    """A shard starts again under the old layout; under another it reads the parts that overlap with its keys."""
    write_snapshot(local, 1, BASE, shards=4)
    write_snapshot(local, 2, {key_of(1): 11}, parent=1, shards=4)
    read: list[str] = []
    real = part_files._read

    def reading(place, prefix, entry):
        read.append(prefix)
        return real(place, prefix, entry)

    monkeypatch.setattr(part_files, "_read", reading)
    for shards, expected in ((4, {"shard1_g1"}), (2, {"shard2_g1", "shard3_g1"})):
        read.clear()
        tables, sides = local.load_shard(2, 1, shards)
        assert set(read) == expected
        assert len(sides) == len(expected)
        own = state_of({**BASE, key_of(1): 11}).split(shards)[1]
        assert values_of(tables["items"]) == values_of(own)


STEPS = st.lists(
    st.tuples(
        st.integers(1, 3),
        st.dictionaries(st.integers(1, 12), st.integers(0, 99), max_size=6),
        st.frozensets(st.integers(1, 12), max_size=4),
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, bases=st.sets(st.integers(2, 6)), shards=st.integers(1, 5))
def test_any_chain_equals_a_dictionary(local, tmp_path, steps, bases, shards):
    """Rows come, change, go and come again while the number of shards changes, with bases now and then."""
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    model: dict[int, int] = {}
    parent = None
    for number, (count, changed, removed) in enumerate(steps, 1):
        values = {key_of(n): value for n, value in changed.items()}
        model = {k: v for k, v in model.items() if k not in {key_of(n) for n in removed}} | values
        if number in bases:
            parent = None
        whole = model if parent is None else values
        gone = [key_of(n) for n in removed]
        write_snapshot(local, number, whole, parent=parent, removed=gone, shards=count)
        parent = number
        assert values_of(local.load(number)[0]["items"]) == model
    pieces = [local.load_shard(parent, shard, shards)[0]["weights"] for shard in range(shards)]
    assert [values_of(piece) for piece in pieces] == [values_of(p) for p in state_of(model).split(shards)]


def test_a_million_rows_with_ten_differences_load_in_seconds(local):
    """A job of ordinary size starts again; the bound is ten times what it takes, because machines are shared."""

    def part(keys):
        state = TableState(keys, np.ones((len(keys), 2), np.float32))
        return Part({"weights": (state, NO_KEYS, {})}, chunk=1 << 16)

    keys = np.unique(np.random.default_rng(1).integers(0, 2**64, 1_100_000, np.uint64))
    for number in range(1, 12):
        changed = keys[:1_000_000] if number == 1 else keys[number * 9_000 :: 11]
        parts, job = write_files(local, number, [part(changed)])
        local.commit(manifest_of(local, number, parts, job, parent=number - 1 or None))
    started_s = time.monotonic()
    tables, _ = local.load(11)
    assert time.monotonic() - started_s < 10
    assert 1_000_000 < len(tables["weights"].keys) <= len(keys)


def test_the_writer_holds_one_chunk_at_a_time(tmp_path):
    """A shard has more rows than there is memory for a second time: each chunk is free once the next one is asked."""
    alive: list[weakref.ref] = []

    class Counting(Part):
        def chunks(self, table):
            for start in range(0, 50, 5):
                assert sum(reference() is not None for reference in alive) <= 1
                rows = np.full((5, 2), start, np.float32)
                alive.append(weakref.ref(rows))
                yield TableState(np.arange(start, start + 5, dtype=np.uint64), rows)
                del rows

    entries = write_part(str(tmp_path), "p", Counting({"t": (None, NO_KEYS, {})}))
    assert len(read_part(str(tmp_path), "p", entries)["t"].state.keys) == 50


# What cannot be written ------------------------------------------------------------------------------


def test_a_file_that_the_driver_does_not_see_is_told(anywhere):
    """snapshots.path is a folder of each node's own disk: the shard wrote, and the driver looks elsewhere."""
    parts, job = write_files(anywhere, 1, parts_of(2, BASE))
    elsewhere = replace(parts[1], prefix="shard1_g2", files=())
    entries = [replace(e, name=e.name.replace("_g1", "_g2")) for e in parts[1].files]
    missing = PartFiles.of(elsewhere.prefix, entries)
    with pytest.raises(SnapshotError, match="a folder that all nodes share, or an fsspec URL"):
        anywhere.commit(manifest_of(anywhere, 1, [parts[0], missing], job))
    assert (anywhere.numbers(), anywhere.newest()) == ([], None)


def test_a_finished_snapshot_is_never_written_again(anywhere):
    """A late process writes into a folder that is finished, or the driver counts wrongly."""
    manifest = write_snapshot(anywhere, 1, BASE)
    with pytest.raises(SnapshotError, match="finished"):
        anywhere.commit(manifest)
    with pytest.raises(SnapshotError, match="holds a finished snapshot"):
        write_files(anywhere, 1, parts_of(2, BASE))
    anywhere.verify(1)


def test_a_difference_to_nothing_is_not_finished(anywhere):
    """The parent was removed by hand while the difference was written."""
    with pytest.raises(SnapshotError, match=r"000001.*manifest\.json"):
        write_snapshot(anywhere, 2, BASE, parent=1)
    assert anywhere.numbers() == []


def test_a_full_disk_leaves_nothing_that_counts(local, tmp_path):
    """The disk, here a limit on the size of files, is full in the middle of a part: a sentence, and no remains."""
    write_snapshot(local, 1, BASE)
    big = TableState(np.arange(100_000, dtype=np.uint64), np.ones((100_000, 2), np.float32))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, hard))
    try:
        with pytest.raises(SnapshotError, match=r"\.npy failed: File too large; free space there"):
            write_part(local.folder(2), "shard0_g1", Part({"t": (big, NO_KEYS, {})}, chunk=1000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list((tmp_path / "run/snapshots/000002").iterdir()) == []
    assert local.newest().number == 1


def test_a_folder_that_must_not_be_written_is_a_sentence(tmp_path):
    """snapshots.path names a file, or a place of somebody else."""
    (tmp_path / "file").write_text("")
    store = SnapshotStore(str(tmp_path / "file" / "run"), print)
    with pytest.raises(SnapshotError, match="failed: Not a directory"):
        write_snapshot(store, 1, BASE)
    with pytest.raises(SnapshotError, match=r"expected a folder or an fsspec URL.*nowhere://x"):
        SnapshotStore("nowhere://x", print)


@pytest.mark.parametrize(
    ("tables", "what"),
    [
        ({"t": (state_of(BASE)._replace(rows=np.zeros((8, 2))), NO_KEYS, {})}, "expected rows as <f4"),
        ({"t": (state_of(BASE)._replace(keys=np.zeros(8, np.int64)), NO_KEYS, {})}, "expected keys as <u8"),
        ({"t": (state_of(BASE), np.zeros(2), {})}, "expected removed as <u8"),
        ({"t": (state_of(BASE), NO_KEYS, {"keys": NO_KEYS})}, "a side array keys"),
        ({"t": (state_of(BASE), NO_KEYS, {"a": np.array([object()])})}, "but came |O"),
        ({"a/../b": (state_of(BASE), NO_KEYS, {})}, "expected a plain name"),
    ],
)
def test_a_part_that_no_reader_would_take_is_not_written(tmp_path, tables, what):
    """A learner's author changed a type; it is told when it is written, and not when the state is needed."""
    with pytest.raises(SnapshotError, match=what.replace("|", r"\|")):
        write_part(str(tmp_path), "p", Part(tables, chunk=1000))
    assert list(tmp_path.iterdir()) == []


def test_json_in_a_manifest_is_what_people_can_read(local, tmp_path):
    """Somebody looks at a snapshot in an editor."""
    write_snapshot(local, 1, BASE)
    values = json.loads((tmp_path / "run/snapshots/000001" / MANIFEST).read_text())
    assert (values["format"], values["number"], values["offsets"]) == (2, 1, {"0": 12, "7": 2**40})
    with pytest.raises(SnapshotDamagedError, match="000002"):
        local.manifest(2)


def test_keys_of_another_shard_are_found(local):
    """The parts of two shards were mixed up by whoever called commit."""
    parts, job = write_files(local, 1, parts_of(2, BASE))
    local.commit(manifest_of(local, 1, parts[::-1], job))
    assert len(np.unique(segment_of(state_of(BASE).keys) < 512)) == 2
    with pytest.raises(SnapshotDamagedError, match="keys of another shard than 0 of 2"):
        local.load(1)
