"""The status as rich draws it: a line of what matters, then tables side by side where the terminal is wide enough."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.console import Group
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from cluster.status.tables import (
    GROUP_ROWS_MAX,
    experts_table,
    group_tables,
    partitions_table,
    quality_table,
    shards_table,
    workers_table,
)
from cluster.status.words import ago, clock, count, duration, rate, size, spark

if TYPE_CHECKING:
    from rich.console import RenderableType

    from cluster.status.document import StatusDocument
    from cluster.status.find import Verdict

__all__ = ["view_of"]

WIDE = 96
"""Columns from which on two tables stand side by side."""
_STYLES = {
    "running": "bold black on green", "ended": "bold black on cyan", "failed": "bold white on red",
    "stuck": "bold black on yellow", "silent": "bold white on red", "dead": "bold white on red",
}  # fmt: skip
_LINES_AROUND = 24
"""Lines that are not rows of partitions or workers, about."""
_ROWS_MIN = 4
_EVENTS_SHOWN = 5


def view_of(
    status: StatusDocument, verdict: Verdict, width: int, height: int | None = None
) -> RenderableType:
    """All of it; with a `height` in lines, fewer rows of the longer tables."""
    rows = 64 if height is None else max(_ROWS_MIN, (height - _LINES_AROUND) // 2)
    parts: list[RenderableType] = [_head(status, verdict), _strip(status), _snapshots(status, verdict.age_s)]
    tables = [
        quality_table(status),
        shards_table(status, rows),
        partitions_table(status, rows),
        workers_table(status, rows),
        experts_table(status),
    ]
    parts += _side_by_side([table for table in tables if table is not None], wide=width >= WIDE)
    parts += _events(status)
    groups = group_tables(status, GROUP_ROWS_MAX if height is None else min(rows, GROUP_ROWS_MAX))
    parts += _side_by_side(list(groups), wide=False)
    return Padding(Group(*parts), (0, 1))


def _head(status: StatusDocument, verdict: Verdict) -> RenderableType:
    """Whose status it is, how the job is, how old the word is; and a sentence where one is needed."""
    job = status.job
    badge = status.state if verdict.kind in {"running", "ended"} else verdict.kind
    line = Table.grid(expand=True)
    line.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    line.add_column(justify="right", no_wrap=True)
    line.add_row(
        Text.assemble((f" {badge} ", _STYLES[verdict.kind]), " ", (job.run, "bold")),
        Text(f"written {ago(verdict.age_s)}", style="dim"),
    )
    actors = f"{count(len(status.workers))} workers, {count(len(status.shards))} shards on {job.place}"
    about = f"{job.source}  ·  {job.learner}  ·  {actors if status.workers else job.place}"
    since = f"since {clock(job.started_s)}, process {job.pid} on {job.host}"
    lines: list[RenderableType] = [line, Text(f"{about}  ·  {since}", style="dim")]
    if verdict.sentence:
        lines.append(Text(verdict.sentence, style="yellow" if verdict.well else "red"))
    return Group(*lines)


def _strip(status: StatusDocument) -> RenderableType:
    """Four figures that say at a glance whether all is well."""
    fresh, past = status.freshness, [point.records_per_s for point in status.history]
    of_total = f"of {count(status.records_total)}, " if status.records_total else ""
    cells = [
        ("records", count(status.records), Text(f"{of_total}{count(status.dead)} dead", "dim")),
        ("a second", rate(status.records_per_s), Text(spark(past, 16), "green")),
        ("lag", count(status.lag), Text("unknown" if status.lag is None else "not yet read", "dim")),
        ("produced to learnt", duration(fresh.p50_s), Text(f"p99 {duration(fresh.p99_s)}", "dim")),
    ]
    grid = Table.grid(expand=True, padding=(0, 1))
    for _ in cells:
        grid.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    grid.add_row(*[Text(name, style="dim") for name, _, _ in cells])
    grid.add_row(*[Text(value, style="bold") for _, value, _ in cells])
    grid.add_row(*[beside for _, _, beside in cells])
    return Padding(grid, (1, 0))


def _side_by_side(tables: list[RenderableType], *, wide: bool) -> list[RenderableType]:
    rows: list[RenderableType] = []
    for left, right in zip(tables[::2], [*tables[1::2], None], strict=False):
        if wide and right is not None:
            grid = Table.grid(expand=True, padding=(0, 4, 0, 0))
            grid.add_column(ratio=1)
            grid.add_column(ratio=1)
            grid.add_row(left, right)
            rows.append(Padding(grid, (0, 0, 1, 0)))
        else:
            rows += [Padding(table, (0, 0, 1, 0)) for table in (left, right) if table is not None]
    return rows


def _snapshots(status: StatusDocument, written_ago_s: float) -> RenderableType:
    last = status.snapshots
    said = "none yet"
    if last.number and last.created_s is not None:
        age_s = max(0.0, status.written_s + written_ago_s - last.created_s)
        at = f" at {count(last.records)} records" if last.records is not None else ""
        said = f"{last.number}, {ago(age_s)}{at}, {size(last.size_bytes)}"
        if last.write_s is not None:
            said += f", written in {duration(last.write_s)}"
    if last.pause_p99_s is not None:
        said += f"; workers stood still for {duration(last.pause_p50_s)} (p99 {duration(last.pause_p99_s)})"
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row("snapshot", said)
    came_back = f", came back {status.recoveries} time(s)" if status.recoveries else ", no recoveries"
    grid.add_row("generation", f"{status.generation}{came_back}, {duration(status.seconds)} of learning")
    if status.job.mlflow_run:
        grid.add_row("MLflow run", status.job.mlflow_run)
    return Padding(grid, (0, 0, 1, 0))


def _events(status: StatusDocument) -> list[RenderableType]:
    if not status.events:
        return []
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(no_wrap=True, style="yellow")
    grid.add_column(overflow="fold")
    for event in status.events[-_EVENTS_SHOWN:]:
        kind = "" if event.kind == "said" else event.kind
        grid.add_row(time.strftime("%H:%M:%S", time.localtime(event.time_s)), kind, escape(event.sentence))
    return [Text("events", style="bold"), Padding(grid, (0, 0, 1, 0))]
