"""Who is the champion: what was decided last, however late MLflow hears of it."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.models import mlflow_run, registry
from cluster.models.mlflow_run import MlflowRun, Registration
from cluster.models.registry import RunLog


class _Run(MlflowRun):
    """Versions 2 and up, and the alias, without MLflow, which is there once `there` is set."""

    def __init__(self, *_: object) -> None:
        super().__init__({"name": "p", "mlflow": {"tracking_uri": "unused"}}, "r")
        self.run_id, self.aliases, self.there = "r", list[str](), threading.Event()
        self._client = SimpleNamespace(
            set_registered_model_alias=lambda *named: self.aliases.append(named[2])
        )
        self._last = 1

    def open(self) -> None:
        if not self.there.wait(20):
            raise ConnectionError

    def close(self, status: str) -> None: ...

    def made(self, *arguments: Any) -> int:
        assert isinstance(arguments[4], Registration)
        self._last += 1
        arguments[5](self._last)
        return self._last


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> _Run:
    made = _Run()
    monkeypatch.setattr(registry, "MlflowRun", lambda *_: made)
    monkeypatch.setattr(mlflow_run, "register_version", made.made)
    return made


@pytest.fixture
def log(run: _Run) -> RunLog:
    begun = RunLog(say=print)
    begun.start({}, "r")
    return begun


def test_what_was_rolled_back_from_is_no_champion_when_its_version_is_made_later(
    run: _Run, log: RunLog
) -> None:
    """The rollback comes while the version's files are still being written; the next version is champion again."""
    run.there.set()
    decided = log.decide()
    log.crown(lambda: 1)
    assert log.register("folder", {}, None, decided).result(20) == 2
    assert log.register("folder", {}).result(20) == 3
    assert log.finish()
    assert [alias for alias in run.aliases if alias != "1"] == ["3"] == run.aliases[-1:]


def test_a_version_that_was_decided_on_behind_a_rollback_is_champion(run: _Run, log: RunLog) -> None:
    """MLflow was away during both, and versions are sent before aliases."""
    log.crown(lambda: 1)
    version = log.register("folder", {})
    run.there.set()
    assert version.result(20) == 2
    assert log.finish()
    assert run.aliases[-1] == "2"


@pytest.mark.parametrize("known", [True, False])
def test_a_rollback_to_what_is_no_version_yet(run: _Run, log: RunLog, *, known: bool) -> None:
    """Its version waits for MLflow, and is then the champion; or it never was one, and nobody is crowned."""
    version = log.register("folder", {})
    log.crown(lambda: version.result(0) if known else None)
    run.there.set()
    assert log.finish()
    assert run.aliases == (["2"] if known else [])
