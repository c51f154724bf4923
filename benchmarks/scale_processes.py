"""CPU time and memory of a job's processes, told apart by what they are: worker, shard, coordinator, driver, Ray.

The kernel counts the user and system time of every process in /proc/PID/stat, to a hundredth of a second, and says in
/proc/PID/smaps_rollup how much of its memory is its own (Pss: shared pages are divided among those who share them).
Ray names its processes after the actor that they are. Linux only.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

__all__ = ["ROLES", "Process", "Usage", "family", "usage"]

_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
_ROLE_OF = {  # what stands in the command line of a process; the first that fits counts
    "ray::WorkerActor": "worker",
    "ray::ShardActor": "shard",
    "ray::ParameterShard": "shard",
    "ray::Coordinator": "coordinator",
    "ray::": "idle workers of Ray",
    "jobs.broker": "broker",
    "gcs_server": "GCS",
    "raylet/raylet": "raylet",
    "log_monitor.py": "log monitor",
    "agent": "agents of Ray",
    "dashboard": "agents of Ray",
}
RAY = ("raylet", "GCS", "log monitor", "agents of Ray", "idle workers of Ray")
"""Roles that a node has for Ray alone; all but GCS are there on every node."""
ROLES = ("worker", "shard", "coordinator", "driver", "broker", *RAY, "other")


class Process(NamedTuple):
    """One process: its parent, what it is, seconds of CPU so far, and bytes of memory that are its own."""

    parent: int
    role: str
    cpu_s: float
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Usage:
    """By role, what all its processes together have used between two moments, and how many they are."""

    cpu_s: dict[str, float]
    memory_bytes: dict[str, int]
    count: dict[str, int]

    def of_ray(self) -> float:
        """Seconds of CPU in Ray's own processes."""
        return sum(self.cpu_s.get(role, 0.0) for role in RAY)


def family(*, memory: bool = False) -> dict[int, Process]:
    """This process and all its descendants, by pid. Reading memory takes long, so it has to be asked for."""
    every = {
        pid: found
        for pid in (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
        if (found := _process(pid)) is not None
    }
    ours, grown = {os.getpid()}, True
    while grown:
        more = {pid for pid, found in every.items() if found.parent in ours} - ours
        ours, grown = ours | more, bool(more)
    own = {pid: every[pid] for pid in ours if pid in every}
    own[os.getpid()] = own[os.getpid()]._replace(role="driver")
    if memory:
        return {pid: found._replace(memory_bytes=_memory(pid)) for pid, found in own.items()}
    return own


def usage(before: dict[int, Process], after: dict[int, Process]) -> Usage:
    """What was used from `before` to `after`, by those who were there at the end."""
    cpu_s: dict[str, float] = {}
    memory_bytes: dict[str, int] = {}
    count: dict[str, int] = {}
    for pid, found in after.items():
        began_s = before[pid].cpu_s if pid in before else 0.0
        cpu_s[found.role] = cpu_s.get(found.role, 0.0) + found.cpu_s - began_s
        memory_bytes[found.role] = memory_bytes.get(found.role, 0) + found.memory_bytes
        count[found.role] = count.get(found.role, 0) + 1
    return Usage(cpu_s, memory_bytes, count)


def _process(pid: int) -> Process | None:
    """None if it has ended since it was listed."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # behind the name, which may hold anything
    ticks = int(fields[11]) + int(fields[12])
    role = next((role for sign, role in _ROLE_OF.items() if sign in line), "other")
    return Process(int(fields[1]), role, ticks / _TICKS_A_SECOND, 0)


def _memory(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)
