"""What can go wrong with snapshots.

SnapshotError             it cannot be written or reached now: disk, rights, network, another job
    SnapshotDamagedError  what lies there is not what was written: never to be believed, an older one may be good
"""

from __future__ import annotations

__all__ = ["SnapshotDamagedError", "SnapshotError"]


class SnapshotError(Exception):
    """A snapshot cannot be written or read; the message says which file, why, and what to do."""


class SnapshotDamagedError(SnapshotError):
    """A snapshot must not be trusted; the message says which file and why."""
