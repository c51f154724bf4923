from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.snapshots.errors import SnapshotError, SupersededError
from cluster.snapshots.manifest import NUMBER_MAX
from cluster.snapshots.remote_place import place_of
from cluster.snapshots.store import SnapshotStore
from tests.cluster.snapshot_runs import key_of, parts_of, values_of, write_files, write_snapshot

ROOT = Path(__file__).resolve().parents[2]
BASE = {key_of(n): n for n in range(1, 9)}


def test_what_a_kept_difference_rests_on_stays(anywhere):
    """Two lines of snapshots, of which the newest two, a pinned one, and all below these are kept."""
    for number, parent in ((1, None), (2, 1), (3, 2), (4, None), (5, 4), (6, 4), (7, 6)):
        write_snapshot(anywhere, number, {key_of(number): number}, parent=parent)
    assert anywhere.retain(2, pinned=[2]) == [5, 3]
    assert anywhere.numbers() == [1, 2, 4, 6, 7]
    assert len(values_of(anywhere.load(7)[0]["items"])) == 3
    assert anywhere.retain(1) == [2, 1]
    assert anywhere.numbers() == [4, 6, 7]
    assert anywhere.retain(9) == []
    with pytest.raises(SnapshotError, match="expected to keep 1 snapshot or more"):
        anywhere.retain(0)


def test_a_run_goes_on_behind_its_millionth_snapshot(anywhere):
    """One every few seconds comes there within weeks; numbers, and not names, say which is the newest."""
    for number in (999_999, 1_000_000, NUMBER_MAX):
        write_snapshot(anywhere, number, {1: number % 1000})
    assert (anywhere.numbers(), anywhere.newest().number) == ([999_999, 1_000_000, NUMBER_MAX], NUMBER_MAX)
    assert anywhere.newest(NUMBER_MAX).number == 1_000_000
    assert values_of(anywhere.load(1_000_000)[0]["weights"]) == {1: 0}
    assert anywhere.retain(2) == [999_999]


def test_unfinished_folders_go_once_a_newer_snapshot_is_finished(local, tmp_path):
    """A crash left two folders behind; one is older than the newest, the other may be being written now."""
    write_files(local, 1, parts_of(2, BASE))
    write_snapshot(local, 2, BASE)
    write_files(local, 3, parts_of(2, BASE))
    snapshots = tmp_path / "run" / "snapshots"
    for name in ("notes", "00001", "000000", "0000001"):
        (snapshots / name).mkdir()
    (snapshots / "000009").symlink_to(tmp_path)
    (snapshots / "000008").write_text("a file")
    assert local.retain(1) == []
    left = {"000000", "0000001", "00001", "000002", "000003", "000008", "000009", "notes"}
    assert {path.name for path in snapshots.iterdir()} == left


def test_a_damaged_snapshot_is_not_one_of_the_newest_to_keep(local, tmp_path, said):
    """With keep: 1 and a newest one that lost a file, the one before is what there is to go on from."""
    for number in (1, 2, 3):
        write_snapshot(local, number, BASE)
    next((tmp_path / "run/snapshots/000003").glob("*.rows.npy")).unlink()
    assert local.retain(1) == [1]
    assert local.numbers() == [2, 3]
    assert local.newest().number == 2
    assert "snapshot 3 is passed over: " in said[0]
    next((tmp_path / "run/snapshots/000002").glob("*.rows.npy")).unlink()
    assert local.retain(1) == []  # none is whole: somebody has to look at them


# One job at a time -----------------------------------------------------------------------------------


def test_a_second_job_on_a_run_is_told_who_holds_it(local, tmp_path):
    """Two jobs are started with the same pipeline; the lock goes with the process that held it."""
    code = (
        f"from cluster.snapshots.store import SnapshotStore\ns = SnapshotStore({str(tmp_path / 'run')!r}, print)\n"
        "with s.exclusive():\n  print('held', flush=True)\n  input()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(SnapshotError, match=rf"already being learnt by process {holder.pid} on"):
            local.exclusive().__enter__()
        holder.kill()
    with local.exclusive(), pytest.raises(SnapshotError, match=f"process {os.getpid()} "):
        local.exclusive().__enter__()
    with local.exclusive():
        pass


def test_each_start_has_a_number_of_its_own(anywhere):
    """A job is started three times; then the file is lost, and the snapshots still know."""
    with anywhere.exclusive():
        assert [anywhere.next_generation() for _ in range(3)] == [1, 2, 3]
    write_snapshot(anywhere, 1, BASE, generation=7)
    assert [anywhere.next_generation() for _ in range(2)] == [8, 9]


def test_an_older_start_finishes_no_snapshot(anywhere):
    """A job that was thought dead comes back after another has taken over; its folder is of no use to it."""
    assert [anywhere.next_generation(), anywhere.next_generation()] == [1, 2]
    with pytest.raises(SupersededError, match="start 2 has taken over"):
        write_snapshot(anywhere, 1, BASE, generation=1)
    write_snapshot(anywhere, 1, BASE, generation=2)
    assert anywhere.manifest(1).generation == 2


def test_a_job_that_was_superseded_does_not_take_over_again(run_url, anywhere, said):
    """Behind a URL nothing is locked: were the older job to come back, the two would end each other for ever."""
    assert (anywhere.next_generation(), SnapshotStore(run_url, said.append).next_generation()) == (1, 2)
    with pytest.raises(SupersededError, match="start 2 has taken over"):
        anywhere.next_generation()


def test_a_file_that_goes_while_somebody_looks_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job renames its manifest while jobs.rollback, in another process, lists the folder: that is no failure."""
    (tmp_path / "kept.npy").write_bytes(b"123")
    (tmp_path / ".manifest.json.unfinished").write_bytes(b"12345")
    place = place_of(str(tmp_path))
    with os.scandir(tmp_path) as listed:
        entries = list(listed)
    (tmp_path / ".manifest.json.unfinished").unlink()
    monkeypatch.setattr(place, "_entries", lambda: entries)
    assert place.sizes() == {"kept.npy": 3}
