"""What all benchmarks share: repeated measurement, one core for each contestant, and the machine's name."""

from __future__ import annotations

import multiprocessing as mp
import os
import platform
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["machine", "median_of", "on_one_core", "spread"]

REPEATS = 5


def machine() -> str:
    """CPU model and core count, as the figures' context."""
    model = platform.processor() or "unknown CPU"
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return f"{model}, {os.cpu_count()} shared cores, Python {platform.python_version()}"


def median_of(values: list[float]) -> float:
    """The median of at least five measurements."""
    assert len(values) >= REPEATS, f"expected {REPEATS} measurements or more, got {len(values)}"
    return statistics.median(values)


def spread(values: list[float]) -> str:
    """Median with the smallest and the largest measurement."""
    return f"{median_of(values):,.0f} ({min(values):,.0f} to {max(values):,.0f})"


def on_one_core(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run `function` in a fresh process that is pinned to one core; returns what it returns."""
    with mp.get_context("spawn").Pool(1, initializer=_pin) as pool:
        return pool.apply(function, arguments)


def _pin() -> None:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
