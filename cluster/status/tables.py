"""The tables of the status: quality, partitions, workers, shards, experts, and any further group of figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from cluster.status.words import NONE, count, duration, rate, share, size, spark

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.status.document import StatusDocument

__all__ = [
    "GROUP_ROWS_MAX",
    "experts_table",
    "group_tables",
    "partitions_table",
    "quality_table",
    "shards_table",
    "workers_table",
]

GROUP_ROWS_MAX = 12
_BAR = 16
_COLUMNS_MAX = 6


def quality_table(status: StatusDocument) -> Table | None:
    """Each metric in the window and since the start, the first one's past as a small chart."""
    if not status.quality:
        return None
    table = _table("quality", "metric", f"last {duration(max(status.window_s, 1.0))}", "since start")
    for name, quality in status.quality.items():
        table.add_row(name.replace("_", " "), _figure(quality.window), _figure(quality.since_start))
    if past := spark([point.quality for point in status.history], 24):
        first = next(iter(status.quality)).replace("_", " ")
        _say(table, f"{first} over time  [cyan]{past}[/]")
    return table


def partitions_table(status: StatusDocument, rows_max: int) -> Table | None:
    """Offsets, lag and, where it is known, the recent loss; of too many, those with the longest lag."""
    if not status.partitions:
        return None
    own = status.groups.get("partitions", {})
    metric = next((name for name in _names(own) if name.startswith("window_")), None)
    more = [] if metric is None else [metric.removeprefix("window_").replace("_", " ")]
    table = _table("partitions", "partition", "worker", "offset", "lag", "a second", *more)
    longest = sorted(status.partitions, key=lambda p: -(p.lag or 0))[:rows_max]
    for p in sorted(longest, key=lambda p: p.partition):
        quality = [] if metric is None else [_figure(own.get(str(p.partition), {}).get(metric))]
        table.add_row(str(p.partition), str(p.worker), count(p.offset), count(p.lag), rate(p.per_s), *quality)
    _say_rest(table, len(status.partitions) - len(longest), "with less lag")
    return table


def workers_table(status: StatusDocument, rows_max: int) -> Table | None:
    """What each learns; of too many, the slowest."""
    if not status.workers:
        return None
    table = _table("workers", "worker", "partitions", "records", "a second", "")
    slowest = sorted(status.workers, key=lambda w: w.records_per_s or 0.0)[:rows_max]
    for w in sorted(slowest, key=lambda w: w.worker):
        state = "finished" if w.finished else ("" if w.records else "idle")
        table.add_row(str(w.worker), _ranges(w.partitions), count(w.records), rate(w.records_per_s), state)
    _say_rest(table, len(status.workers) - len(slowest), "that learn faster")
    return table


def shards_table(status: StatusDocument, rows_max: int) -> Table | None:
    """What each holds; of too many, the fullest."""
    if not status.shards:
        return None
    table = _table("shards", "shard", "rows", "memory", "index full", "pushes")
    fullest = sorted(status.shards, key=lambda s: -s.bytes)[:rows_max]
    for s in sorted(fullest, key=lambda s: s.shard):
        table.add_row(str(s.shard), count(s.rows), size(s.bytes), share(s.load), count(s.pushes))
    _say_rest(table, len(status.shards) - len(fullest), "with less")
    if len(status.tables) > 1:
        by_table = ", ".join(f"{name} {count(own.get('rows'))}" for name, own in status.tables.items())
        _say(table, f"rows by table: {by_table}")
    if (p99 := status.staleness.get("records_p99")) is not None:
        p50, most = status.staleness.get("records_p50"), status.staleness.get("records_max")
        _say(table, f"staleness p50 {count(p50)}, p99 {count(p99)}, most {count(most)} records")
    return table


def experts_table(status: StatusDocument) -> Table | None:
    """Each expert's weight as a bar, the heaviest first, and its other figures."""
    experts = status.groups.get("experts")
    if not experts or any("weight" not in figures for figures in experts.values()):
        return None
    others = [name for name in _names(experts) if name != "weight"][:3]
    table = _table("experts", "expert", "weight", *(name.replace("_", " ") for name in others))
    table.columns[1].justify = "left"
    ordered = sorted(experts.items(), key=lambda item: -(item[1]["weight"] or 0.0))
    for name, figures in ordered[:GROUP_ROWS_MAX]:
        weight = figures["weight"] or 0.0
        bar = "█" * round(weight * _BAR)
        row = [_figure(figures.get(other)) for other in others]
        table.add_row(escape(name), f"[cyan]{bar or '▏'}[/] {100 * weight:.1f} %", *row)
    _say_rest(table, len(ordered) - GROUP_ROWS_MAX, "that weigh less")
    return table


def group_tables(status: StatusDocument, rows_max: int) -> list[Table]:
    """Every other group, whatever it is called: slices, features, what is still to come."""
    tables = []
    for group, rows in status.groups.items():
        shown_above = group == "partitions" or (group == "experts" and experts_table(status) is not None)
        if not rows or shown_above:
            continue
        names = _names(rows)[:_COLUMNS_MAX]
        table = _table(group, group.removesuffix("s"), *(name.replace("_", " ") for name in names))
        columns = [
            _column([figures.get(name) for figures in list(rows.values())[:rows_max]]) for name in names
        ]
        for row, *figures in zip(rows, *columns, strict=False):
            table.add_row(escape(row), *figures)
        _say_rest(table, len(rows) - rows_max, "")
        tables.append(table)
    return tables


def _table(title: str, *columns: str) -> Table:
    """A title above, dim heads, figures to the right, and no lines but one."""
    table = Table(
        title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0),
        header_style="dim", caption_style="dim",
    )  # fmt: skip
    for number, column in enumerate(columns):
        left = number == 0 or column == ""
        table.add_column(column, justify="left" if left else "right", no_wrap=True, overflow="ellipsis")
    return table


def _say_rest(table: Table, left_out: int, which: str) -> None:
    if left_out > 0:
        _say(table, f"and {left_out:,} more {which}".rstrip())


def _say(table: Table, line: str) -> None:
    """One more line below the table."""
    table.caption = line if table.caption is None else f"{table.caption}\n{line}"
    table.caption_justify = "left"


def _names(rows: dict[str, dict[str, float | None]]) -> list[str]:
    """The figures' names in the order in which they first come."""
    return list(dict.fromkeys(name for figures in rows.values() for name in figures))


def _figure(value: float | None) -> str:
    return NONE if value is None else f"{value:,.4f}"


def _column(values: Sequence[float | None]) -> list[str]:
    """A column's figures: whole numbers if all of them are, else four digits behind the point."""
    whole = all(value is None or value == round(value) for value in values)
    return [count(value) if whole else _figure(value) for value in values]


def _ranges(numbers: Sequence[int]) -> str:
    """0-3, 7: numbers in a row as a range."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    shown = [str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in parts]
    return ", ".join([*shown[:4], *(["..."] if len(shown) > 4 else [])])
