"""The figures of a job, from its status: names as they appear in MLflow, in the progress line and in the summary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from learning.staleness import StalenessHistogram

if TYPE_CHECKING:
    from actors.status import Status

__all__ = ["Figures", "group_points", "metric_points", "staleness_of"]

CHARTED_MAX = 200
"""A group with more figures gets no charts in MLflow; its newest state is there as a table."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What a job has done: since its start, and in the window before `status`.

    `rate` is records per second over the window; `delay_p50_s`, `delay_p99_s` are from produced to learnt, over the
    window (NaN where the stream has no production times).
    """

    status: Status
    seconds: float
    rate: float
    since_start: dict[str, float]
    window: dict[str, float]
    delay_p50_s: float
    delay_p99_s: float

    @classmethod
    def between(cls, earlier: tuple[Status, float] | None, status: Status, seconds: float) -> Figures:
        """Figures of `status`, `seconds` after the start; the window began at `earlier` = (status, seconds)."""
        metrics, delays, records, window_s = status.metrics, status.delays, status.records, seconds
        if earlier is not None:
            metrics, delays = metrics - earlier[0].metrics, delays - earlier[0].delays
            records, window_s = records - earlier[0].records, seconds - earlier[1]
        return cls(
            status=status,
            seconds=seconds,
            rate=records / max(window_s, 1e-9),
            since_start=status.metrics.summary(),
            window=metrics.summary(),
            delay_p50_s=delays.quantile_s(0.50),
            delay_p99_s=delays.quantile_s(0.99),
        )


def metric_points(figures: Figures, shards: list[dict[str, Any]]) -> dict[str, float]:
    """MLflow metrics of one moment; the x axis is records."""
    points = {f"prequential/{name}": value for name, value in figures.since_start.items()}
    points |= {f"window/{name}": value for name, value in figures.window.items()}
    status = figures.status
    return points | {
        "stream/records": float(status.records),
        "stream/dead_letters": float(status.dead),
        "stream/lag_records": float(status.lag),
        "throughput/records_per_s": figures.rate,
        "freshness/produce_to_learnt_p50_s": figures.delay_p50_s,
        "freshness/produce_to_learnt_p99_s": figures.delay_p99_s,
        "snapshots/number": float(status.snapshots),
        "snapshots/pause_p50_s": status.pauses.quantile_s(0.50),
        "snapshots/pause_p99_s": status.pauses.quantile_s(0.99),
        "recovery/generation": float(status.generation),
        **_state_points(shards),
        **{f"staleness/{name}": value for name, value in staleness_of(shards).items()},
    }


def group_points(groups: dict[str, dict[str, dict[str, float]]]) -> dict[str, float]:
    """Further figures, as GROUP/FIGURE/ROW: MLflow draws all weights of experts side by side."""
    return {
        f"{group}/{name}/{row}": value
        for group, rows in groups.items()
        if sum(len(figures) for figures in rows.values()) <= CHARTED_MAX
        for row, figures in rows.items()
        for name, value in figures.items()
    }


def _state_points(shards: list[dict[str, Any]]) -> dict[str, float]:
    """Each table's counters over all shards, and what the fullest shard holds."""
    points: dict[str, float] = {}
    for name in shards[0]["tables"] if shards else ():
        tables = [shard["tables"][name] for shard in shards]
        for counter in tables[0]:
            values = [float(table[counter]) for table in tables]
            points[f"state/{name}_{counter}"] = max(values) if counter == "load" else sum(values)
    totals = [list(shard["tables"].values()) for shard in shards]
    of_shards = [sum(table["bytes"] for table in tables) for tables in totals]
    return points | {
        "state/rows": float(sum(table["rows"] for tables in totals for table in tables)),
        "state/bytes": float(sum(of_shards)),
        "state/bytes_of_largest_shard": float(max(of_shards, default=0)),
    }


def staleness_of(shards: list[dict[str, Any]]) -> dict[str, float]:
    """How many records of other workers a push had missed, over all pushes since the start; empty: one worker only."""
    if not shards or "staleness" not in shards[0]:
        return {}
    staleness = StalenessHistogram(np.sum([shard["staleness"] for shard in shards], axis=0).tolist())
    return {
        "records_p50": staleness.quantile(0.50),
        "records_p99": staleness.quantile(0.99),
        "records_max": float(max(shard["staleness_max"] for shard in shards)),
        "waits": float(sum(shard["waits"] for shard in shards)),
        "moved_rows": float(sum(shard["moved_rows"] for shard in shards)),
    }
