"""The driver's loop over a cluster that is only played: what is told, when it gives up, what it forgets."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from actors.ports import LaunchError, StoreError, StreamUnavailableError
from cluster import patience, supervise
from cluster.config import RecoveryConfig
from cluster.supervise import GaveUpError, Supervisor
from learning.job_messages import EndJob, SnapshotFailed, StopAsked


class Played:
    """Cluster, coordinator and writer in one; `told` is what the coordinator was told."""

    def __init__(self) -> None:
        self.coordinator, self.told = self, list[Any]()
        self.failures: list[Any] = []
        self.newest: Any = SimpleNamespace(number=4, records=400)

    def start(self) -> None: ...

    def begin(self, start: Any) -> None: ...

    def check(self) -> None: ...

    def abandon(self) -> None: ...

    def status(self) -> Any:
        return SimpleNamespace(records=0)

    def settled(self) -> Any:
        return None

    def commands(self) -> list[Any]:
        if self.failures:
            raise self.failures.pop(0)
        return [EndJob()]

    def tell(self, event: Any) -> None:
        self.told.append(event)


def supervisor(played: Any, **options: Any) -> Supervisor:
    recovery = SimpleNamespace(unavailable_s=options.pop("unavailable_s", 300.0), attempts_max=5)
    pipeline: Any = SimpleNamespace(recovery=recovery, snapshots=SimpleNamespace(interval_s=0))
    start = SimpleNamespace(number=4, records=400)
    plan = SimpleNamespace(start=start, generation=1)
    starter: Any = SimpleNamespace(begin=lambda _: SimpleNamespace(plan=plan, tables=4, ends={}))
    return Supervisor(played, pipeline, starter, played, lambda _: None, lambda _: None, **options)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """No pause is waited out, but noted."""
    slept: list[float] = []
    monkeypatch.setattr(supervise, "time", SimpleNamespace(monotonic=time.monotonic, sleep=slept.append))
    return slept


def test_an_outage_is_no_death(pauses: list[float]) -> None:
    """A broker that was away for many attempts does not use up those of an actor that dies behind it."""
    played = Played()
    played.failures = [StoreError("dead"), *[StreamUnavailableError("away")] * 20, StoreError("dead")]
    job = supervisor(played)
    job.run()
    assert job.recoveries == 22
    played.failures = [StoreError("dead")] * 6
    with pytest.raises(GaveUpError, match="after 6 attempts"):
        supervisor(played).run()


def test_a_long_outage_is_waited_for(pauses: list[float]) -> None:
    """The pauses stay short however often it was tried."""
    played = Played()
    played.failures = [StoreError("dead"), *[StreamUnavailableError("away")] * 1100]
    supervisor(played, unavailable_s=1e6).run()
    assert max(pauses) == 10.0


def test_ctrl_c_while_the_last_snapshot_is_tried_again_loses_no_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The disk is full at the end: the coordinator hears of each failure, so that it asks for another try."""

    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    played = Played()
    failed, answers = [SnapshotFailed(5)], [list[Any](), list[Any]()]
    monkeypatch.setattr(played, "settled", lambda: failed.pop() if failed else None)
    monkeypatch.setattr(played, "commands", lambda: answers.pop() if answers else [EndJob()])
    job = supervisor(played)
    job._final = True
    with monkeypatch.context() as patch:
        patch.setattr(supervise, "time", SimpleNamespace(monotonic=time.monotonic, sleep=interrupted))
        with pytest.raises(KeyboardInterrupt):  # the second one
            job.run()
    assert played.told == [SnapshotFailed(5), StopAsked()]


def test_what_was_gone_back_from_is_not_the_newest_any_more(pauses: list[float]) -> None:
    """Else a version would be made of it, which would be the champion again."""
    played = Played()
    asked = [True]
    rollbacks: Any = SimpleNamespace(carry_out=lambda: None, due=lambda *_: bool(asked and asked.pop()))
    answers = [[EndJob()], []]
    played.commands = answers.pop  # type: ignore[method-assign]
    with pytest.raises(AssertionError, match="without its last snapshot"):
        supervisor(played, rollbacks=rollbacks).run()
    assert played.newest is None


def test_room_that_does_not_come_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node is gone for good: the job never begins again, and its long life before that does not count."""
    now_s = [0.0]
    monkeypatch.setattr(patience, "time", SimpleNamespace(monotonic=lambda: now_s[0]))
    waiting = patience.Patience(RecoveryConfig(unavailable_s=300))
    waiting.begun()
    now_s[0] = 1000.0
    pauses = [waiting.failed(StoreError("dead"), 4)]
    for _ in range(299):
        now_s[0] += 1.0
        pauses.append(waiting.failed(LaunchError("no room"), 4))
    assert pauses[0] == 0.0
    assert pauses[-1] == 10.0
    now_s[0] = 1302.0
    with pytest.raises(GaveUpError, match="after 301 attempts in 302 s"):
        waiting.failed(LaunchError("no room"), 4)
