from __future__ import annotations

import io
import os
import shutil
import uuid
from pathlib import Path

import fsspec
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from cluster.snapshots.errors import SnapshotDamagedError
from cluster.snapshots.manifest import MANIFEST
from cluster.snapshots.part_files import read_part
from cluster.snapshots.store import SnapshotStore
from tests.cluster.snapshot_runs import (
    key_of,
    values_of,
    write_snapshot,
)

BASE = {key_of(n): n for n in range(1, 5)}
AFTER = {**BASE, key_of(2): 22, key_of(9): 9}
KEYS_FILE = "shard0_g1.weights.keys"


def newest(local):
    """The number of the newest whole snapshot."""
    manifest = local.newest()
    return manifest and manifest.number


SLOW = [HealthCheck.function_scoped_fixture]


@settings(max_examples=100, suppress_health_check=SLOW)
@given(data=st.data())
def test_any_changed_byte_of_any_file_is_found(chain, local, data):
    """A disk or a network turns some bits of one byte, anywhere in a chain."""
    path = data.draw(st.sampled_from(sorted(chain.glob("*/*"))))
    original = path.read_bytes()
    at = data.draw(st.integers(0, len(original) - 1))
    flip = data.draw(st.integers(1, 255))
    path.write_bytes(original[:at] + bytes([original[at] ^ flip]) + original[at + 1 :])
    try:
        with pytest.raises(SnapshotDamagedError):
            local.verify(2)
        if not path.name.startswith("job"):
            with pytest.raises(SnapshotDamagedError):
                local.load(2)
    finally:
        path.write_bytes(original)
    local.verify(2)


def test_every_byte_of_one_file_and_one_manifest_counts(tmp_path, local):
    """The same without chance: each byte of a small array, and of a manifest."""
    write_snapshot(local, 1, BASE, shards=1)
    entry = local.manifest(1).parts[0].files[0]
    for name, read in (
        (entry.file, lambda: read_part(local.folder(1), "shard0_g1", [entry])),
        (MANIFEST, lambda: local.manifest(1)),
    ):
        path = tmp_path / "run/snapshots/000001" / name
        original = path.read_bytes()
        for at in range(len(original)):
            path.write_bytes(original[:at] + bytes([original[at] ^ 1]) + original[at + 1 :])
            with pytest.raises(SnapshotDamagedError):
                read()
        path.write_bytes(original)
    local.verify(1)


@settings(max_examples=60, suppress_health_check=SLOW)
@given(data=st.data())
def test_any_truncation_or_addition_or_loss_is_found(chain, local, said, data):
    """A crash of the machine left some files short or lost, in any order; the one before is used, and that is said."""
    paths = sorted((chain / "000002").glob("*"))
    hit = data.draw(st.lists(st.sampled_from(paths), min_size=1, max_size=4, unique=True))
    originals = {path: path.read_bytes() for path in hit}
    sizes = {path: st.integers(-1, 2 * len(raw)) for path, raw in originals.items()}
    changes = {path: data.draw(sizes[path]) for path in hit}
    assume(all(size != len(originals[path]) for path, size in changes.items()))
    for path, size in changes.items():
        path.unlink() if size < 0 else path.write_bytes((2 * originals[path])[:size])
    said.clear()
    try:
        assert newest(local) == 1
        assert len(said) == 1
        assert said[0].startswith("snapshot 2 is passed over: ")
        with pytest.raises(SnapshotDamagedError):
            local.load(2)
        assert values_of(local.load(1)[0]["items"]) == BASE
    finally:
        for path, original in originals.items():
            path.write_bytes(original)
    assert newest(local) == 2


def test_damage_behind_a_url_is_found(said):
    """An object was overwritten; a file that is missing is found without reading the others."""
    url = f"memory://{uuid.uuid4().hex}/run"
    store = SnapshotStore(url, said.append)
    write_snapshot(store, 1, BASE)
    write_snapshot(store, 2, BASE)
    files, root = fsspec.core.url_to_fs(url)
    path = f"{root}/snapshots/000002/{KEYS_FILE}.npy"
    original = files.cat_file(path)
    files.pipe_file(path, original[:-1] + bytes([original[-1] ^ 1]))
    with pytest.raises(SnapshotDamagedError, match="does not match its checksum"):
        store.load(2)
    assert newest(store) == 2  # its size is right: load tells
    files.rm_file(path)
    assert newest(store) == 1
    assert store.newest(before=1) is None
    assert "is not there" in said[0]


# Crashes ---------------------------------------------------------------------------------------------


class _Crashed(BaseException):
    """The process is gone."""


def crash_at(monkeypatch, operations_max):
    """Let so many operations on files happen, and none after that; returns the names of those that did."""
    done: list[str] = []

    def counted(name, function):
        def run(*args, **kwargs):
            if len(done) >= operations_max:
                raise _Crashed
            done.append(f"{name} {Path(args[0]).name if isinstance(args[0], Path) else args[0]}")
            return function(*args, **kwargs)

        return run

    for name in ("fsync", "rename", "unlink", "rmdir", "mkdir"):
        monkeypatch.setattr(os, name, counted(name, getattr(os, name)))
    monkeypatch.setattr(io, "open", counted("open", io.open))
    return done


def test_a_crash_between_any_two_operations_of_a_write_leaves_the_one_before(tmp_path, monkeypatch, said):
    """The machine stops while a snapshot is written, wherever that is; the next start uses the one before, or it."""
    outcomes = []
    for operations in range(1000):
        store = SnapshotStore(str(tmp_path / str(operations)), said.append)
        write_snapshot(store, 1, BASE, shards=1)
        with monkeypatch.context() as patched:
            done = crash_at(patched, operations)
            try:
                write_snapshot(store, 2, {key_of(2): 22, key_of(9): 9}, parent=1, shards=1)
                crashed = False
            except _Crashed:
                crashed = True
        number = newest(store)
        assert values_of(store.load(number)[0]["items"]) == (BASE if number == 1 else AFTER)
        store.verify(number)
        outcomes.append(number)
        if not crashed:
            break
        shutil.rmtree(tmp_path / str(operations))
    assert outcomes == sorted(outcomes)  # once finished, it stays so
    assert operations > 60
    assert outcomes[-1] == 2
    assert [line.partition(" ")[0] for line in done[-4:]] == ["open", "fsync", "rename", "fsync"]


def test_a_crash_between_any_two_operations_of_a_removal_leaves_whole_ones(tmp_path, monkeypatch, said):
    """The machine stops while old snapshots are removed; what still counts as finished is all there."""
    for operations in range(1000):
        store = SnapshotStore(str(tmp_path / str(operations)), said.append)
        for number, parent in ((1, None), (2, 1), (3, None)):
            write_snapshot(store, number, BASE, parent=parent, shards=1)
        with monkeypatch.context() as patched:
            crash_at(patched, operations)
            try:
                store.retain(1)
                crashed = False
            except _Crashed:
                crashed = True
        for number in store.numbers():
            store.verify(number)
        store.retain(1)
        assert store.numbers() == [3]
        assert [path.name for path in (tmp_path / str(operations) / "snapshots").iterdir()] == ["000003"]
        if not crashed:
            break
        shutil.rmtree(tmp_path / str(operations))
    assert operations > 30
