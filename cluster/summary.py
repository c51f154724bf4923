"""What a finished job, or an answer, says on the terminal."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from cluster.models.redaction import without_secrets
from cluster.progress import number

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from cluster.job import JobResult
    from cluster.replaying import Replayed

__all__ = ["saying_how_to_go_on", "show_items", "show_metrics", "show_replayed", "show_result"]


def show_result(result: JobResult, console: Console) -> None:
    """Print the summary of a finished job."""
    figures, status = result.figures, result.figures.status
    rows = [
        (
            "records",
            f"{status.records:,} read = {status.metrics.records:,} learnt + {status.dead:,} dead letters",
        ),
        ("time", f"{result.seconds:.1f} s, {figures.rate:,.0f} records/s"),
        *[(name.replace("_", " "), number(value)) for name, value in figures.since_start.items()],
    ]
    if not math.isnan(figures.delay_p50_s):
        rows.append(
            ("produced to learnt", f"p50 {figures.delay_p50_s:.2f} s, p99 {figures.delay_p99_s:.2f} s")
        )
    rows += [
        ("snapshot", _shown_path(result.snapshot)),
        *([("came back", f"{result.recoveries} times, from its last snapshot")] if result.recoveries else []),
        ("model version", f"{result.model} v{result.version}" if result.version else "not registered"),
        ("MLflow run", f"{result.name} ({result.run_id})" if result.run_id else "not recorded"),
        *([] if result.finished else [("to go on", f"start it again with --run {result.name}")]),
    ]
    console.print()
    _print_table(result.name, rows, console)


@contextlib.contextmanager
def saying_how_to_go_on(console: Console) -> Iterator[None]:
    """Print what an error's notes advise, before its own sentence."""
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        for note in getattr(error, "__notes__", ()):
            if note:
                console.print(escape(note), highlight=False, soft_wrap=True)
        raise


def show_replayed(replayed: Replayed, console: Console) -> None:
    """Print where a replay has ended, and what it found."""
    manifest = replayed.manifest
    rows = [
        ("records", f"{manifest.records:,} read, {manifest.dead:,} of them dead letters"),
        ("offsets", ", ".join(f"{p}={at}" for p, at in sorted(manifest.offsets.items()))),
        *[(name.replace("_", " "), number(value)) for name, value in manifest.metrics.items()],
        ("order", replayed.order),
        ("snapshot", _shown_path(replayed.snapshot)),
        ("digest", replayed.digest),
    ]
    _print_table(replayed.name, rows, console)


def show_metrics(title: str, metrics: dict[str, float], console: Console) -> None:
    """Print metrics by name."""
    shown = [
        (name.replace("_", " "), f"{value:,}" if isinstance(value, int) else number(value))
        for name, value in metrics.items()
    ]
    _print_table(title, shown, console)


def show_items(title: str, figure: str, items: list[tuple[str, float]], console: Console) -> None:
    """Print items, best first, each with its figure."""
    table = Table(box=None, padding=(0, 2))
    table.add_column("item", overflow="fold")
    table.add_column(figure, justify="right")
    for item, value in items:
        table.add_row(escape(item), f"{value:.3f}")
    console.print(f"[bold]{escape(title)}[/]", highlight=False, soft_wrap=True)
    console.print(table if items else "no items")


def _shown_path(place: str) -> str:
    """A path as a person would type it, relative to the working folder if it lies in it; a URL without secrets."""
    path = Path(place)
    if "://" in place:
        return str(without_secrets(place))
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _print_table(title: str, rows: list[tuple[str, str]], console: Console) -> None:
    """A title, and below it two columns of names and figures."""
    table = Table(show_header=False, box=None, padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, escape(value))
    console.print(f"[bold]{escape(title)}[/]", highlight=False, soft_wrap=True)
    console.print(table)
