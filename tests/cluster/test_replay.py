"""The state as of any moment is built anew: as the run had it, and the same each time."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from actors.ports import SourceError
from cluster.broker import Broker
from cluster.replay_plan import journal_of
from cluster.replaying import Replayed, replay_run
from cluster.roll_back import opened_run, roll_back
from cluster.snapshots.digest import state_digest
from cluster.snapshots.errors import SnapshotError
from cluster.snapshots.store import SnapshotStore
from tests.cluster.commands import run
from tests.cluster.live import send, sending
from tests.cluster.test_resume import learn, pipeline_of
from tests.cluster.topics import produce, records

pytestmark = pytest.mark.timeout(200)

RECORDS = 2400


@pytest.fixture(scope="module")
def lived(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one worker over a live topic of 3 partitions, with bad records among the good, stopped once."""
    folder, topic = tmp_path_factory.mktemp("lived"), "replayed"
    broker.create_topic(topic, 3)
    rows: list[Any] = records(RECORDS)
    rows[100::300] = [{"no": "features"}] * len(rows[100::300])
    overrides = (
        "source.until=forever", "batch_records=64", "snapshots.interval_records=150", "snapshots.keep=1000",
        "predictions.topic=replayed-predictions", "snapshots.deltas_max=4",
    )  # fmt: skip
    broker.create_topic("replayed-predictions", 1)
    with sending(broker, topic, rows, 3, pause_s=0.05) as begin:
        for so_far in (RECORDS // 2, RECORDS):
            pipeline = pipeline_of(broker, folder, topic, *overrides, f"records_max={so_far}")
            learn(pipeline, on_ready=begin if so_far < RECORDS else lambda: None)
    return folder / "r1"


def replayed(place: Path, start: str, until: str, name: str) -> Replayed:
    """A replay into a run of its own; what it says is printed."""
    return replay_run(str(place), start, until, print, name=name)


def test_the_replay_of_a_live_run_is_the_run_to_the_bit(lived: Path) -> None:
    """Three partitions in the order in which their records happened to come, over a restart, until any snapshot."""
    store = SnapshotStore(str(lived), print)
    numbers = store.numbers()
    assert len(numbers) >= 6
    journal = journal_of(
        opened_run(str(lived), print), store.manifest(numbers[0]),
        store.manifest(numbers[0]).offsets, store.manifest(numbers[-1]).offsets,
    )  # fmt: skip
    turns = [batch.partition for batch in journal.batches]
    assert turns[:9] != (sorted(set(turns)) * 3)[:9]
    generation = store.manifest(numbers[-1]).generation
    for number in (numbers[1], numbers[len(numbers) // 2], numbers[-1]):
        result = replayed(lived, f"snapshot:{numbers[0]}", f"snapshot:{number}", f"to-{number}")
        assert result.digest == state_digest(store, number)
        assert result.order.startswith("that of the run, ")
        assert result.manifest.records == store.manifest(number).records
        assert result.manifest.note["replay_of"] == str(lived)
    assert result.manifest.dead == len(range(100, RECORDS, 300))
    assert store.numbers() == numbers
    assert store.next_generation() == generation + 1  # a replay does not disturb a job that learns


def test_two_replays_are_the_same_where_the_journal_has_been_removed(lived: Path, tmp_path: Path) -> None:
    """Snapshots in between are gone: the order is another one than the run's, and still the same each time."""
    store = SnapshotStore(str(lived), print)
    first, last = store.numbers()[1], store.numbers()[-1]
    copied = tmp_path / "copied"
    shutil.copytree(lived, copied)
    removed = SnapshotStore(str(copied), print)
    removed.retain(1, {first})
    until = ",".join(f"{p}={at - 7}" for p, at in store.manifest(last).offsets.items())
    results = [replayed(copied, f"snapshot:{first}", until, name) for name in ("one", "two")]
    assert results[0].digest == results[1].digest
    assert "no journals lead further" in results[0].order
    assert results[0].manifest.records == store.manifest(last).records - 21
    exact = replayed(lived, f"snapshot:{first}", until, f"exact-{tmp_path.name}")
    again = replayed(lived, f"snapshot:{first}", until, f"again-{tmp_path.name}")
    assert exact.digest == again.digest != results[0].digest
    assert exact.order.startswith("that of the run, ")


def test_a_replay_ends_at_a_time(broker: Broker, tmp_path: Path) -> None:
    """Somebody wants the model as it was before an incident: what was produced before that moment is learnt."""
    produce(broker, "replay-time", records(300), 2)
    learn(pipeline_of(broker, tmp_path, "replay-time", "records_max=100", "batch_records=20"))
    time.sleep(0.1)
    moment = time.time()
    time.sleep(0.1)
    send(broker, "replay-time", records(200, seed=1), 2)
    code, out, err = run(
        "jobs.replay", tmp_path / "r1", "--from", "snapshot:1", "--until", f"{moment:.3f}", "--run", "before",
        cwd=tmp_path,
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert "300 read" in out
    assert "0=150, 1=150" in out
    digest = state_digest(SnapshotStore(str(tmp_path / "before"), print), 1)
    assert digest in out
    offsets = replayed(tmp_path / "r1", "snapshot:1", "0=150,1=150", "offsets")
    assert offsets.digest == digest
    predicted = learn(pipeline_of(broker, tmp_path, "replay-time", "run=before", "batch_records=20"))
    assert predicted.figures.status.records == 500


def test_journals_end_where_the_run_went_back(broker: Broker, tmp_path: Path) -> None:
    """What was learnt behind a rollback was learnt by other tables: its journal does not lead on from before it."""
    produce(broker, "replay-back", records(600), 2)
    for records_max in (200, 400):
        learn(pipeline_of(broker, tmp_path, "replay-back", "batch_records=20", f"records_max={records_max}"))
    roll_back(str(tmp_path / "r1"), "snapshot:1", "keep", print, timeout_s=5)
    learn(pipeline_of(broker, tmp_path, "replay-back", "batch_records=20"))
    store = SnapshotStore(str(tmp_path / "r1"), print)
    assert (
        "no journals lead further" in replayed(tmp_path / "r1", "snapshot:1", "snapshot:4", "through").order
    )
    behind = replayed(tmp_path / "r1", "snapshot:3", "snapshot:4", "behind")
    assert behind.digest == state_digest(store, 4)


@pytest.mark.parametrize(
    ("start", "until", "reason"),
    [
        ("snapshot:99", "snapshot:2", "no snapshot 99"),
        ("snapshot:2", "snapshot:1", "choose an older one"),
        ("snapshot:2", "0=5", "expected offsets of the partitions"),
        ("snapshot:2", "0=1,1=1,2=1", "choose an older one"),
        ("snapshot:2", "0=999999,1=999999,2=999999", "the topic ends at"),
        ("snapshot:2", "yesterday", "expected offsets"),
        ("snapshot:2", "2001-01-01", "lies before the snapshot"),
        ("snapshot:2", "nan", "which is no time"),
    ],
)
def test_what_cannot_be_replayed_is_said(lived: Path, start: str, until: str, reason: str) -> None:
    """A mistyped moment, one before the version, one that is still to come."""
    with pytest.raises((SnapshotError, SourceError), match=reason):
        replayed(lived, start, until, "refused")


def test_a_replay_never_writes_into_a_run_that_is_there(lived: Path) -> None:
    """The name of the new run is taken, or no name at all."""
    with pytest.raises(SnapshotError, match="holds snapshots already"):
        replayed(lived, "snapshot:2", "snapshot:3", "r1")
    with pytest.raises(SnapshotError, match="expected a name"):
        replayed(lived, "snapshot:2", "snapshot:3", "../r1")
