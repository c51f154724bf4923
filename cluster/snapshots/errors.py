"""What can go wrong with snapshots.

SnapshotError             it cannot be written or reached now: disk, rights, network, another job
    SnapshotDamagedError  what lies there is not what was written: never to be believed, an older one may be good
    SupersededError       another job has taken over the run: this one is to end
"""

from __future__ import annotations

__all__ = ["SnapshotDamagedError", "SnapshotError", "SupersededError"]


class SnapshotError(Exception):
    """A snapshot cannot be written or read; the message says which file, why, and what to do."""


class SnapshotDamagedError(SnapshotError):
    """A snapshot must not be trusted; the message says which file and why."""


class SupersededError(SnapshotError):
    """A later start of the run has taken over; the message says which. No snapshot of this job will ever count."""
