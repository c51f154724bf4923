"""What a person sees of a running job: one live line on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Self

from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import Console

    from cluster.figures import Figures

__all__ = ["ProgressLine", "number"]

_PLAIN_INTERVAL_S = 2.0
_SHORT = {"log_loss": "loss", "auc": "AUC", "rmse": "RMSE", "mae": "MAE"}


def number(value: float, digits: int = 4) -> str:
    """A figure for people: fixed digits, and a dash where it is undefined."""
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


class ProgressLine:
    """Context manager; `update` is cheap and may be called as often as wanted."""

    def __init__(self, console: Console, name: str, records_total: int | None) -> None:
        self._console = console
        self._name = name
        self._plain_next_s = 0.0
        self._bar = Progress(
            SpinnerColumn(finished_text=" "),
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[line]}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task(name, total=records_total, line="waiting for records")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def total(self, records: int | None) -> None:
        """How many records there will be, once that is known."""
        self._bar.update(self._task, total=records)

    def tell(self, sentence: str) -> None:
        """Print a sentence above the line."""
        self._console.print(escape(sentence), highlight=False, soft_wrap=True)

    def update(self, figures: Figures) -> None:
        """Show the newest figures."""
        line = _line(figures)
        self._bar.update(self._task, completed=figures.status.records, line=line)
        if not self._console.is_terminal and figures.seconds >= self._plain_next_s:
            self._console.print(f"{self._name}  {line}", highlight=False, soft_wrap=True)
            self._plain_next_s = figures.seconds + _PLAIN_INTERVAL_S


def _line(figures: Figures) -> str:
    status, since_start = figures.status, figures.since_start
    parts = [
        f"{status.records:,} records",
        f"{figures.rate:,.0f}/s",
        *(f"{_SHORT.get(name, name)} {number(since_start[name])}" for name in list(since_start)[:2]),
        f"lag {status.lag:,}",
    ]
    if not math.isnan(figures.delay_p50_s):
        parts.append(f"learnt after {figures.delay_p50_s:.2f} s")
    if status.dead:
        parts.append(f"dead {status.dead:,}")
    return "  ".join(parts)
