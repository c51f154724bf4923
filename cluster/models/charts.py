"""Charts of a run as PNG files, drawn by matplotlib (which MLflow brings) in MLflow's thread, where it is imported.

overview.png      loss in the window and since the start, with the loss of knowing nothing; weights of experts;
                  records a second; each event (drift, rollback) as a line
calibration.png   how often it was 1 when so much was predicted; binary labels only
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Calibration", "ChartPoint", "Marked", "calibration_of", "calibration_png", "overview_png"]

_INK, _BLUE, _GREY, _RED = "#333333", "#1f6feb", "#9a9a9a", "#c0392b"
_LOGIT_MAX = 16.0
_CALIBRATION_BINS = 15
_WIDTH_IN, _DPI = 9.0, 110
_KNOWS_NOTHING = {"log_loss": "prior_log_loss", "rmse": "deviation"}
_WORDS = {"log_loss": "log-loss", "rmse": "RMSE"}
_MARKS_MAX = 50
_LOG_SCALE_FROM = 8.0


@dataclass(frozen=True, slots=True)
class ChartPoint:
    """One moment: metrics of the window and since the start, rate, and the weights of experts, if there are any."""

    records: int
    window: dict[str, float]
    since_start: dict[str, float]
    records_per_s: float
    weights: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Marked:
    """An event at a number of records."""

    records: int
    kind: str


@dataclass(frozen=True, slots=True)
class Calibration:
    """Records by prediction: f64 (bins,) mean prediction, f64 (bins,) share of ones, i64 (bins,) records."""

    predicted: NDArray[np.float64]
    observed: NDArray[np.float64]
    records: NDArray[np.int64]


def calibration_of(histograms: NDArray[np.int64]) -> Calibration | None:
    """Bins with equally many records, from counts i64 (2, n) of zeros and ones by logit; None: nothing is there."""
    negatives, positives = histograms
    both = negatives + positives
    total = int(both.sum())
    if not total:
        return None
    width = 2 * _LOGIT_MAX / len(both)
    logits = -_LOGIT_MAX + width * (np.arange(len(both)) + 0.5)
    predictions = 1.0 / (1.0 + np.exp(-logits))
    # By where a bin begins: one that holds many records (those that are certain) takes none of the next into its group.
    group = (np.cumsum(both) - both) * _CALIBRATION_BINS // total
    filled = both > 0
    records = np.bincount(group[filled], both[filled], _CALIBRATION_BINS)
    kept = records > 0
    predicted = (
        np.bincount(group[filled], (both * predictions)[filled], _CALIBRATION_BINS)[kept] / records[kept]
    )
    observed = np.bincount(group[filled], positives[filled], _CALIBRATION_BINS)[kept] / records[kept]
    return Calibration(predicted, observed, records[kept].astype(np.int64))


def calibration_png(calibration: Calibration, title: str) -> bytes:
    """Predicted against observed on scales of log-odds, where rare events are not squeezed into a corner."""
    figure = _figure(6.4, width_in=7.0)
    axes = figure.subplots()
    low = max(1e-6, min(calibration.predicted.min(), 0.5 / calibration.records.max()) / 2)
    ends = np.array([low, 1 - low])
    axes.plot(_odds(ends, low), _odds(ends, low), color=_GREY, linewidth=1, linestyle="--", label="perfect")
    bounds = _odds(np.array(_wilson(calibration)), low)
    axes.vlines(_odds(calibration.predicted, low), *bounds, color=_BLUE, linewidth=1, alpha=0.5)
    share = calibration.records / calibration.records.sum()
    axes.scatter(
        _odds(calibration.predicted, low), _odds(calibration.observed, low), s=20 + 400 * share, color=_BLUE,
        alpha=0.8, edgecolor="white", label="share of ones, with its 95 % interval; area: records",
    )  # fmt: skip
    ticks = [t for t in (1e-5, 1e-4, 1e-3, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999) if low <= t <= 1 - low]
    for set_ticks in (axes.set_xticks, axes.set_yticks):
        set_ticks([_odds(np.array(t), low) for t in ticks], [f"{t:g}" for t in ticks])
    axes.set_xlabel("mean prediction")
    axes.set_ylabel("share of ones")
    axes.legend(frameon=False, loc="upper left")
    return _png(figure, title)


def overview_png(points: list[ChartPoint], marks: list[Marked], title: str) -> bytes:
    """The run over records, one chart below the other."""
    name = next(iter(points[-1].since_start))
    has_weights = any(point.weights for point in points)
    figure = _figure(6.4 if has_weights else 5.2)
    heights = [3, 2, 1.3] if has_weights else [3, 1.3]
    axes = figure.subplots(len(heights), 1, sharex=True, gridspec_kw={"height_ratios": heights})
    x = [point.records for point in points]
    loss, rate = axes[0], axes[-1]
    loss.plot(x, [p.window.get(name, math.nan) for p in points], color=_BLUE, linewidth=1.2, label="window")
    loss.plot(x, [p.since_start[name] for p in points], color=_INK, linewidth=1.8, label="since the start")
    if (nothing := _KNOWS_NOTHING.get(name)) in points[-1].since_start:
        known = [p.since_start[str(nothing)] for p in points]
        loss.plot(x, known, color=_GREY, linewidth=1, linestyle="--", label="if it knew nothing")
    loss.set_ylabel(_WORDS.get(name, name.replace("_", " ")))
    shown = np.array([line.get_ydata() for line in loss.lines]).ravel()
    shown = shown[np.isfinite(shown) & (shown > 0)]
    if len(shown) and shown.max() > _LOG_SCALE_FROM * shown.min():
        loss.set_yscale("log")  # else a good model's loss lies on the axis, below that of knowing nothing
        loss.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    else:
        loss.set_ylim(bottom=0)
    loss.legend(frameon=False, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, fontsize=9)
    if has_weights:
        _draw_weights(axes[1], x, points)
    rate.fill_between(x, [point.records_per_s for point in points], color=_BLUE, alpha=0.25, linewidth=0)
    rate.set_ylabel("records/s")
    rate.set_ylim(bottom=0)
    rate.set_xlabel("records")
    for axis in (rate.xaxis, rate.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    for chart in axes:
        for mark in marks[-_MARKS_MAX:]:
            chart.axvline(mark.records, color=_RED, linewidth=1, alpha=0.6)
    for mark in marks[-_MARKS_MAX:]:
        loss.annotate(
            mark.kind, (mark.records, 1), xycoords=("data", "axes fraction"), xytext=(3, -10),
            textcoords="offset points", color=_RED, fontsize=8,
        )  # fmt: skip
    return _png(figure, title)


def _draw_weights(axes: Any, x: list[int], points: list[ChartPoint]) -> None:
    names = list(dict.fromkeys(name for point in points for name in point.weights))
    layers = [[point.weights.get(name, 0.0) for point in points] for name in names]
    axes.stackplot(x, layers, labels=names, alpha=0.8)
    axes.set_ylim(0, 1)
    axes.set_ylabel("weight of experts")
    if len(names) <= 12:
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)


def _wilson(calibration: Calibration) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Between which shares of ones the true one lies, with 95 % (E. B. Wilson, 1927)."""
    n, p, z = calibration.records, calibration.observed, 1.96
    middle, half = (p + z * z / (2 * n)), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


def _odds(share: Any, low: float) -> Any:
    bounded = np.clip(share, low, 1 - low)
    return np.log(bounded / (1 - bounded))


def _figure(height_in: float, width_in: float = _WIDTH_IN) -> Any:
    from matplotlib.figure import Figure  # not pyplot, which keeps figures, and is for one thread

    return Figure(figsize=(width_in, height_in), dpi=_DPI, layout="constrained")


def _png(figure: Any, title: str) -> bytes:
    figure.suptitle(title, fontsize=11, color=_INK, x=0.01, ha="left")
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, linewidth=0.5)
        axes.tick_params(labelsize=8)
    target = io.BytesIO()
    figure.savefig(target, format="png")
    return target.getvalue()
