"""Going back to an older version: in a job that learns, without one, and when the job dies in between."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient

from cluster.broker import Broker
from cluster.job import JobResult
from cluster.mailbox import Mailbox
from cluster.models.registry import RunLog
from cluster.requests import RollbackRequest
from cluster.roll_back import roll_back
from cluster.rollbacks import Rollbacks
from cluster.snapshots import going_back
from cluster.snapshots.errors import SnapshotError
from cluster.snapshots.model import model_of
from cluster.snapshots.store import SnapshotStore
from cluster.versions import VersionBook
from learning.job_messages import SnapshotAsked, SnapshotWritten
from tests.cluster.commands import run
from tests.cluster.live import send
from tests.cluster.test_resume import learn, pipeline_of
from tests.cluster.topics import produce, records

pytestmark = pytest.mark.timeout(200)

SMALL = ("batch_records=10", "snapshots.interval_s=0", "snapshots.keep=100", "learner.l1=0.1")


def weights(store: SnapshotStore, number: int) -> dict[int, tuple[float, ...]]:
    """The rows of a snapshot by key."""
    table = store.load(number)[0]["weights"]
    return {int(key): tuple(row) for key, row in zip(table.keys, table.rows, strict=True)}


def files(store: SnapshotStore, number: int) -> dict[str, bytes]:
    """All files of a snapshot."""
    return {path.name: path.read_bytes() for path in Path(store.folder(number)).iterdir()}


@pytest.fixture(scope="module")
def topic(broker: Broker) -> str:
    """600 records over 2 partitions."""
    produce(broker, "rollback", records(600), 2)
    return "rollback"


@pytest.fixture
def stored(broker: Broker, topic: str, tmp_path: Path) -> SnapshotStore:
    """A run that has learnt them, with snapshots 1 to 3 after about 200, 400 and all 600 records."""
    in_steps(broker, tmp_path, topic)
    return SnapshotStore(str(tmp_path / "r1"), print)


def in_steps(broker: Broker, folder: Path, topic: str, *overrides: str) -> None:
    """Three jobs, each of which takes one snapshot."""
    for records_max in (200, 400, 1000):
        learn(pipeline_of(broker, folder, topic, *SMALL, f"records_max={records_max}", *overrides))


def test_a_run_without_a_job_keeps_its_place_and_gets_older_tables(
    broker: Broker, topic: str, tmp_path: Path, stored: SnapshotStore
) -> None:
    """The job is down: the next one goes on where the stream stood, with the rows and encoders of version 2."""
    last, old = stored.numbers()[-1], files(stored, 2)
    code, out, err = run("jobs.rollback", tmp_path / "r1", "--to", "snapshot:2", cwd=tmp_path)
    assert (code, err) == (0, "")
    assert (
        f"went back to snapshot 2, from the present place in the stream: 600 records, as snapshot {last + 1}"
        in out
    )
    copy, before, version = (stored.manifest(number) for number in (last + 1, last, 2))
    assert (copy.note["rolled_back_to"], copy.note["mode"]) == (2, "keep")
    assert (copy.offsets, copy.records, copy.metrics) == (before.offsets, 600, before.metrics)
    assert weights(stored, last + 1) == weights(stored, 2) != weights(stored, last)
    arrays, expected = (model_of(stored, number).arrays for number in (last + 1, 2))
    assert all(np.array_equal(arrays[name], expected[name]) for name in ("encoder.keys", "encoder.stats"))
    assert files(stored, 2) == old
    assert version.records < 600
    result = learn(pipeline_of(broker, tmp_path, topic, *SMALL))
    assert result.figures.status.records == 600
    assert stored.numbers()[-1] > last + 1
    assert weights(stored, stored.numbers()[-1]) == weights(stored, 2)


def test_a_replay_learns_what_an_undisturbed_run_would_have(
    broker: Broker, topic: str, tmp_path: Path, stored: SnapshotStore
) -> None:
    """Place, counters, turns and encoders go back with the tables: the end is the same, to the bit."""
    last = stored.numbers()[-1]
    told = roll_back(str(tmp_path / "r1"), "snapshot:1", "replay", print, timeout_s=5)
    assert "from its place in the stream" in told
    copy, version = stored.manifest(last + 1), stored.manifest(1)
    assert (copy.offsets, copy.records, copy.metrics) == (version.offsets, version.records, version.metrics)
    result = learn(pipeline_of(broker, tmp_path, topic, *SMALL))
    end = stored.numbers()[-1]
    assert result.figures.status.records == 600
    assert weights(stored, end) == weights(stored, last)
    assert stored.manifest(end).metrics == stored.manifest(last).metrics


def test_tables_with_policies_go_back_with_what_they_know(broker: Broker, topic: str, tmp_path: Path) -> None:
    """Sights of keys that wait, ticks of use and counters lie beside the rows; they go back as well."""
    policy = "tables={weights: {admit_after: 2, expire_after_records: 300}}"
    in_steps(broker, tmp_path, topic, policy)
    store = SnapshotStore(str(tmp_path / "r1"), print)
    last = store.numbers()[-1]
    roll_back(str(tmp_path / "r1"), "snapshot:2", "replay", print, timeout_s=5)
    (tables, sides), (expected, expected_sides) = store.load(last + 1), store.load(2)
    np.testing.assert_array_equal(tables["weights"].used, expected["weights"].used)
    assert sides[0]["weights"].keys() == expected_sides[0]["weights"].keys() != set()
    for name, array in sides[0]["weights"].items():
        np.testing.assert_array_equal(array, expected_sides[0]["weights"][name])
    learn(pipeline_of(broker, tmp_path, topic, *SMALL, policy))
    assert weights(store, store.numbers()[-1]) == weights(store, last)


def live(
    broker: Broker, topic: str, folder: Path, mode: Any, *overrides: str, local: bool = True
) -> tuple[JobResult, str, SnapshotStore]:
    """A job over a live topic of 1500 records; it goes back to snapshot 2 after it has finished a few."""
    broker.create_topic(topic, 2)
    store, told = SnapshotStore(str(folder / "r1"), print), []

    def ask() -> None:
        while len(store.numbers()) < 4:
            threading.Event().wait(0.05)
        told.append(roll_back(str(folder / "r1"), "snapshot:2", mode, print, timeout_s=60))

    asking = threading.Thread(target=ask, daemon=True)
    feeding = threading.Thread(
        target=send, args=(broker, topic, records(1500), 2), kwargs={"pause_s": 0.1}, daemon=True
    )

    def begin() -> None:
        feeding.start()
        asking.start()

    pipeline = pipeline_of(
        broker,
        folder,
        topic,
        *SMALL,
        "snapshots.interval_records=100",
        "source.until=forever",
        "records_max=1500",
        *overrides,
    )
    result = learn(pipeline, local=local, on_ready=begin)
    asking.join(60)
    return result, told[0], store


def copy_in(store: SnapshotStore) -> Any:
    """The one rolled-back copy of a run."""
    (copy,) = (m for m in map(store.manifest, store.numbers()) if "rolled_back_to" in m.note)
    return copy


def test_a_job_that_learns_goes_back_and_loses_no_record(broker: Broker, tmp_path: Path) -> None:
    """Somebody sees that the model went wrong: older tables from the present place, said, and recorded in MLflow."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    recorded = ("mlflow.enabled=true", f"mlflow.tracking_uri={uri}")
    result, told, store = live(broker, "rollback-live", tmp_path, "keep", *recorded)
    copy = copy_in(store)
    assert (copy.note["rolled_back_to"], copy.note["mode"]) == (2, "keep")
    assert weights(store, copy.number) == weights(store, 2)
    assert copy.records > store.manifest(2).records
    assert result.figures.status.records == 1500 == sum(store.manifest(store.numbers()[-1]).offsets.values())
    assert result.recoveries == 0
    assert result.run_id is not None
    tags = MlflowClient(uri).get_run(result.run_id).data.tags
    assert tags[f"millrace.rollback.{copy.number:06d}"] == told
    assert MlflowClient(uri).get_run(result.run_id).data.metrics["rollback/to_snapshot"] == 2


def test_a_job_that_learns_replays_from_the_older_place(broker: Broker, tmp_path: Path) -> None:
    """Counters and offsets go back too; in the end every record counts once."""
    result, _, store = live(broker, "rollback-live-replay", tmp_path, "replay")
    copy = copy_in(store)
    assert (copy.offsets, copy.records) == (store.manifest(2).offsets, store.manifest(2).records)
    assert result.figures.status.records == 1500 == sum(store.manifest(store.numbers()[-1]).offsets.values())


@pytest.mark.cluster
@pytest.mark.usefixtures("local_ray")
def test_a_job_on_ray_goes_back_in_the_actors_that_live(broker: Broker, tmp_path: Path) -> None:
    """Two workers and two shards begin another generation with the older tables; no record is lost or counted twice."""
    size = ("cluster.workers=2", "cluster.shards=2")
    result, told, store = live(broker, "rollback-ray", tmp_path, "keep", *size, local=False)
    copy = copy_in(store)
    assert "went back to snapshot 2, from the present place" in told
    assert weights(store, copy.number) == weights(store, 2)
    assert result.figures.status.records == 1500 == sum(store.manifest(store.numbers()[-1]).offsets.values())
    assert result.recoveries == 0


def test_the_version_that_was_gone_back_to_is_the_champion(
    broker: Broker, topic: str, tmp_path: Path
) -> None:
    """Whoever loads models:/NAME@champion gets what the job goes on with, though no job runs now."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    in_steps(broker, tmp_path, topic, "mlflow.enabled=true", f"mlflow.tracking_uri={uri}")
    client = MlflowClient(uri)
    assert int(client.get_model_version_by_alias("resumed", "champion").version) == 3
    told = roll_back(str(tmp_path / "r1"), "1", "keep", print, timeout_s=5)
    assert "went back to snapshot 1 (version 1)" in told
    champion = client.get_model_version_by_alias("resumed", "champion")
    assert (int(champion.version), champion.tags["snapshot"]) == (1, "1")
    run_of_it = client.get_run(str(champion.run_id))
    assert (run_of_it.data.tags["millrace.rollback.000004"], run_of_it.info.status) == (told, "FINISHED")


class _Asked:
    """A coordinator that is only listened to."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def tell(self, event: Any) -> None:
        self.told.append(event)

    def records(self) -> int:
        return 900


def test_what_somebody_wants_to_go_back_to_is_not_removed_meanwhile(tmp_path: Path) -> None:
    """A fresh snapshot is taken first, and after it old ones are removed; the one that is wanted stays."""
    url, coordinator = str(tmp_path), _Asked()
    mailbox, book = Mailbox(url, print), VersionBook(url)
    rollbacks = Rollbacks(SnapshotStore(url, print), mailbox, book, RunLog(), print)
    mailbox.ask(RollbackRequest.new(2, "keep"))
    assert not rollbacks.due(coordinator, 800, None)  # type: ignore[arg-type]
    assert coordinator.told == [SnapshotAsked()]
    assert rollbacks.needed() == {2}
    assert rollbacks.due(coordinator, 800, SnapshotWritten(5))  # type: ignore[arg-type]


@pytest.mark.parametrize("at", ["before the copy", "before the answer"])
def test_a_job_that_dies_in_between_goes_back_once(
    broker: Broker,
    topic: str,
    tmp_path: Path,
    stored: SnapshotStore,
    monkeypatch: pytest.MonkeyPatch,
    at: str,
) -> None:
    """The driver is killed while it carries out a request: the next start does what is left of it, and no more."""
    mailbox, request = Mailbox(str(tmp_path / "r1"), print), RollbackRequest.new(2, "keep")
    mailbox.ask(request)

    def die(*_: Any) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        where, name = (going_back, "write_part") if at == "before the copy" else (Mailbox, "answer")
        patch.setattr(where, name, die)
        with pytest.raises(RuntimeError, match="killed"):
            learn(pipeline_of(broker, tmp_path, topic, *SMALL))
    for _ in range(2):
        learn(pipeline_of(broker, tmp_path, topic, *SMALL))
    assert copy_in(stored).note["request"] == request.id
    answer = mailbox.take_answer(request)
    assert answer is not None
    assert answer.done
    assert mailbox.requests() == []
    assert weights(stored, stored.numbers()[-1]) == weights(stored, 2)


def test_a_run_behind_a_url_goes_back_when_its_next_job_begins(
    broker: Broker, topic: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An object store has no lock that tells whether a job runs: the request waits in it, and is not withdrawn."""
    monkeypatch.chdir(tmp_path)
    url = f"memory://{tmp_path.name}"
    for records_max in (200, 400):
        learn(
            pipeline_of(
                broker, tmp_path, topic, *SMALL, f"snapshots.path={url}", f"records_max={records_max}"
            )
        )
    with pytest.raises(SnapshotError, match=r"answered within 0\.5 s; the request stays"):
        roll_back(f"{url}/r1", "snapshot:1", "replay", print, timeout_s=0.5)
    result = learn(pipeline_of(broker, tmp_path, topic, *SMALL, f"snapshots.path={url}"))
    store = SnapshotStore(f"{url}/r1", print)
    assert copy_in(store).note["rolled_back_to"] == 1
    assert copy_in(store).records == store.manifest(1).records
    assert result.figures.status.records == 600


def test_what_cannot_be_gone_back_to_is_refused(
    broker: Broker, topic: str, tmp_path: Path, stored: SnapshotStore
) -> None:
    """A damaged snapshot, none at all, a folder of something else: a sentence, and the run is as it was."""
    path = next(path for path in Path(stored.folder(2)).glob("*.rows.npy"))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    before = stored.numbers()
    with pytest.raises(SnapshotError, match=r"did not go back to snapshot 2: .*checksum"):
        roll_back(str(tmp_path / "r1"), "snapshot:2", "keep", print, timeout_s=5)
    code, _, err = run("jobs.rollback", tmp_path / "r1", "--to", "snapshot:77", cwd=tmp_path)
    assert (code, "the run has no snapshot 77" in err) == (1, True)
    with pytest.raises(SnapshotError, match="holds no finished snapshot"):
        roll_back(str(tmp_path), "1", "keep", print, timeout_s=5)
    assert stored.numbers() == before
    assert learn(pipeline_of(broker, tmp_path, topic, *SMALL)).figures.status.records == 600


@pytest.mark.parametrize(
    "text",
    ["", "no JSON", "[" * 9000, "{}", '{"to": "2", "mode": "keep", "reason": ""}',
     '{"to": 2, "mode": "rm", "reason": ""}', json.dumps({"to": 2, "mode": "keep", "reason": "x" * 70_000})],
)  # fmt: skip
def test_what_is_no_request_is_removed_and_said(tmp_path: Path, text: str) -> None:
    """Whoever may write into the run's folder leaves rubbish there: the job says so and goes on."""
    said: list[str] = []
    mailbox = Mailbox(str(tmp_path), said.append)
    request = RollbackRequest.new(2, "keep", "it was better")
    mailbox.ask(request)
    rubbish = tmp_path / "control" / f"request-{'0' * 32}.json"
    rubbish.write_text(text)
    assert mailbox.requests() == [request]
    assert not rubbish.exists()
    assert len(said) == 1
    mailbox.withdraw(request)
    assert mailbox.requests() == []


def test_a_request_that_cannot_be_read_blocks_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else's file, without the right to read it: said once, and the next one is carried out."""
    said: list[str] = []
    mailbox = Mailbox(str(tmp_path), said.append)
    locked, request = RollbackRequest("0" * 32, 1, "keep"), RollbackRequest("1" * 32, 2, "keep")
    for asked in (locked, request):
        mailbox.ask(asked)
    read = mailbox._get

    def get(name: str) -> Any:
        if locked.id in name:
            raise SnapshotError(f"reading {name} failed: permission denied")
        return read(name)

    monkeypatch.setattr(mailbox, "_get", get)
    assert [mailbox.requests(), mailbox.requests()] == [[request], [request]]
    assert len(said) == 1
    assert "permission denied" in said[0]


def test_a_reason_brings_no_escape_codes(tmp_path: Path) -> None:
    """It is printed on the terminal of whoever runs the job."""
    mailbox = Mailbox(str(tmp_path), print)
    asked = RollbackRequest.new(2, "keep", "worse\x1b[2J\x9b\r\nthan before, 5 \u00b5s")
    mailbox.ask(asked)
    assert mailbox.requests() == [replace(asked, reason="worse [2J   than before, 5 \u00b5s")]


def test_answers_that_nobody_fetches_hide_no_request(tmp_path: Path) -> None:
    """Each automatic rollback leaves one."""
    mailbox = Mailbox(str(tmp_path), print)
    for n in range(120):
        (tmp_path / "control").mkdir(exist_ok=True)
        (tmp_path / "control" / f"answer-{n:032x}.json").write_text("{}")
    request = RollbackRequest.new(2, "keep")
    mailbox.ask(request)
    assert mailbox.requests() == [request]
