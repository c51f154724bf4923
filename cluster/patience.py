"""Patience: how often a job comes back from failures, and how long it waits for what may come by itself."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from actors.ports import LaunchError, StreamUnavailableError
from cluster.snapshots.errors import SnapshotError

if TYPE_CHECKING:
    from cluster.config import RecoveryConfig

__all__ = ["PAUSE_MAX_S", "WAITED_FOR", "GaveUpError", "Patience"]

PAUSE_MAX_S = 10.0

WAITED_FOR = (StreamUnavailableError, LaunchError, SnapshotError)
"""What may come by itself: a broker, room for actors or on the disk; once the job has begun, it is waited for."""


class GaveUpError(Exception):
    """The job does not come back, or its last snapshot cannot be written; the message says why and what to do."""


class Patience:
    """Counts failures in a row, which is as long as there is no newer snapshot and no long life in between."""

    def __init__(self, config: RecoveryConfig) -> None:
        self._config = config
        self._attempts, self._deaths, self._recovered_at, self._failing_since_s = 0, 0, -1, 0.0
        self._begun_s: float | None = None

    def begun(self) -> None:
        """A generation has begun."""
        self._begun_s = time.monotonic()

    def failed(self, error: Exception, newest: int) -> float:
        """A generation ended by `error`, with snapshot `newest` on disk; how many seconds to wait before another.

        Raises:
            GaveUpError: there were too many in a row.

        """
        # One that never began has not lived: else a cluster without room would be asked again for ever.
        lasted_s = 0.0 if self._begun_s is None else time.monotonic() - self._begun_s
        self._begun_s = None
        if newest != self._recovered_at or lasted_s > self._config.unavailable_s:
            self._attempts, self._deaths = 0, 0
            self._recovered_at, self._failing_since_s = newest, time.monotonic()
        waited_for = isinstance(error, WAITED_FOR)  # which is no death, however often it is tried
        self._attempts += 1
        self._deaths += not waited_for
        config, failing_s = self._config, time.monotonic() - self._failing_since_s
        if failing_s > config.unavailable_s if waited_for else self._deaths > config.attempts_max:
            raise GaveUpError(
                f"{error}; after {self._attempts} attempts in {failing_s:.0f} s the job got no further than snapshot "
                f"{newest}, so it ends; start it again under the same run name to continue it"
            ) from error
        return min(2.0 ** min(self._attempts - 2, 10), PAUSE_MAX_S) if self._attempts > 1 else 0.0
