"""Figures in words for people: 1.2 MiB, 340 ms, 3 min ago; a dash where one is unknown; small charts of characters."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ago", "clock", "count", "duration", "rate", "share", "size", "spark"]

NONE = "-"
_BARS = "▁▂▃▄▅▆▇█"


def count(value: float | None) -> str:
    """A whole number with commas."""
    return NONE if value is None else f"{value:,.0f}"


def rate(value: float | None) -> str:
    """So many a second: whole from ten on."""
    if value is None:
        return NONE
    return f"{value:,.0f}" if value >= 10 or value == 0 else f"{value:.1f}"


def share(value: float | None) -> str:
    """Percent."""
    return NONE if value is None else f"{100 * value:.0f} %"


def size(value: float | None) -> str:
    """Bytes, in the largest unit that leaves at least one."""
    if value is None:
        return NONE
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:,.1f} TiB"


def duration(seconds: float | None) -> str:
    """A length of time in the unit that suits it."""
    if seconds is None:
        return NONE
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes = seconds / 60
    if minutes < 100:
        return f"{minutes:.0f} min"
    return f"{minutes / 60:.0f} h" if minutes < 60 * 48 else f"{minutes / 60 / 24:.0f} days"


def ago(seconds: float) -> str:
    """How long ago."""
    if seconds < 1.5:
        return "now"
    return f"{seconds:.0f} s ago" if seconds < 100 else f"{duration(seconds)} ago"


def clock(unix_s: float) -> str:
    """A time of this machine; with the day, if it was another."""
    at = time.localtime(unix_s)
    today = time.strftime("%Y%m%d", at) == time.strftime("%Y%m%d")
    return time.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M", at)


def spark(values: Sequence[float | None], width: int) -> str:
    """The last `width` values as bars from the least to the largest; what is unknown is a space."""
    shown = [value for value in values if value is None or math.isfinite(value)][-width:]
    known = [value for value in shown if value is not None]
    if not known:
        return ""
    low, span = min(known), (max(known) - min(known)) or 1.0
    return "".join(
        " " if value is None else _BARS[round((value - low) / span * (len(_BARS) - 1))] for value in shown
    )
