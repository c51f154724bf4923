"""The driver's loop: carries out the coordinator's commands, writes snapshots, and watches for deaths."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

from cluster.models.model_files import ModelState, write_model
from cluster.models.model_layout import arrays_of
from learning.job_messages import EndJob, TakeSnapshot
from learning.table_state import TableState

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from actors.coordinator import Status
    from actors.ports import Tables
    from cluster.config import Pipeline
    from learning.job_messages import Command

__all__ = ["ClusterPort", "Supervisor"]

_LOOP_S = 0.05


class CoordinatorControl(Protocol):
    """The coordinator as the supervisor sees it."""

    def commands(self) -> list[Command]:
        """Commands that have come up since the last call."""

    def snapshot_taken(self, number: int) -> None:
        """The shards hold copies for snapshot `number`."""

    def stop(self) -> None:
        """Ask for an orderly end."""

    def status(self) -> Status:
        """Progress since the start."""


class ClusterPort(Protocol):
    """A running job's actors, on Ray or in this process."""

    @property
    def coordinator(self) -> CoordinatorControl:
        """The job's coordinator."""

    def start(self) -> None:
        """Let the workers learn."""

    def check(self) -> None:
        """Raise the error of a worker that has failed."""

    def snapshot(self) -> list[Any]:
        """Have the shards copy their rows."""

    def fetch(self, copies: list[Any]) -> list[Tables]:
        """The copies themselves."""

    def shard_status(self) -> list[dict[str, Any]]:
        """Counters of each shard."""


class Supervisor:
    """Runs one job to its end.

    `on_status` is called every `status_interval_s` with the job's progress; it must not block.
    """

    def __init__(
        self,
        cluster: ClusterPort,
        pipeline: Pipeline,
        run_folder: Path,
        on_status: Callable[[Status], None],
        *,
        status_interval_s: float = 0.5,
    ) -> None:
        self._cluster = cluster
        self._pipeline = pipeline
        self._run_folder = run_folder
        self._on_status = on_status
        self._status_interval_s = status_interval_s
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="millrace-snapshot")
        self._writing: Future[Path] | None = None

    def run(self) -> tuple[Status, Path]:
        """Start the workers and return the last status and snapshot folder when the job has ended.

        Ctrl-C asks the workers to finish what they have in hand; a second one ends the job at once.
        """
        self._cluster.start()
        next_status_s = time.monotonic() + self._status_interval_s
        asked = False
        while True:
            try:
                if self._carry_out(self._cluster.coordinator.commands()):
                    break
                self._cluster.check()
                if time.monotonic() >= next_status_s:
                    self._on_status(self._cluster.coordinator.status())
                    next_status_s = time.monotonic() + self._status_interval_s
                time.sleep(_LOOP_S)
            except KeyboardInterrupt:
                if asked:
                    raise
                asked = True
                self._cluster.coordinator.stop()
        return self._finished()

    def _finished(self) -> tuple[Status, Path]:
        if self._writing is None:
            msg = "the job ended without its last snapshot; this is a defect, please report it"
            raise RuntimeError(msg)
        folder = self._writing.result()
        self._writer.shutdown()
        status = self._cluster.coordinator.status()
        self._on_status(status)
        return status, folder

    def _carry_out(self, commands: list[Command]) -> bool:
        """Carry out commands in order; True once the job has ended."""
        for command in commands:
            match command:
                case TakeSnapshot():
                    self._take_snapshot(command)
                case EndJob():
                    return True
        return any(self._carry_out(self._cluster.coordinator.commands()) for _ in commands[-1:])

    def _take_snapshot(self, command: TakeSnapshot) -> None:
        """Copy while nobody learns; fetch and write behind the workers' backs, one snapshot at a time."""
        if self._writing is not None:
            self._writing.result()
        copies = self._cluster.snapshot()
        self._cluster.coordinator.snapshot_taken(command.number)
        self._writing = self._writer.submit(self._write, command, copies)

    def _write(self, command: TakeSnapshot, copies: list[Any]) -> Path:
        parts = self._cluster.fetch(copies)
        arrays = {"encoder.keys": command.encoder[0], "encoder.stats": command.encoder[1]}
        for name in parts[0]:
            arrays |= arrays_of(name, TableState.join([part[name] for part in parts]))
        state = ModelState(
            pipeline=self._pipeline.model_dump(mode="json"),
            arrays=arrays,
            offsets=command.offsets,
            records=command.records,
            metrics=command.metrics,
        )
        folder = self._run_folder / "snapshots" / f"{command.number:06d}"
        write_model(folder, state)
        return folder
