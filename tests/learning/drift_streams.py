"""Streams with changes for tests of drift, and river's detectors beside ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from river import drift
from river.drift import binary

from learning.drift import DETECTORS
from learning.drift_verdicts import NONE, WARNING, Detector

PAIRS: dict[str, tuple[dict[str, Any], Callable[[], Any]]] = {
    "adwin": ({}, lambda: drift.ADWIN(clock=1)),
    "adwin_rarely": ({"clock": 32, "delta": 0.05}, lambda: drift.ADWIN(clock=32, delta=0.05)),
    "page_hinkley": ({}, lambda: drift.PageHinkley(delta=0.02, threshold=3.0)),
    "page_hinkley_river": (
        {"delta": 0.005, "threshold": 50.0, "mode": "up"},
        lambda: drift.PageHinkley(mode="up"),
    ),
    "kswin": ({}, lambda: drift.KSWIN(alpha=0.0005, window_size=200, stat_size=60, seed=0)),
    "kswin_loose": (
        {"alpha": 0.05, "window_size": 40, "stat_size": 12, "seed": 7},
        lambda: drift.KSWIN(alpha=0.05, window_size=40, stat_size=12, seed=7),
    ),
    "ddm": ({}, binary.DDM),
    "hddm_a": ({}, binary.HDDMA),
    "hddm_a_both": ({"two_sided": True}, lambda: binary.HDDMA(two_sided_test=True)),
    "hddm_w": ({}, binary.HDDMW),
    "hddm_w_both": ({"two_sided": True}, lambda: binary.HDDMW(two_sided_test=True)),
}
"""By name: parameters of ours, and river's detector of the same."""


def ours(name: str) -> Detector:
    """Our detector of a pair."""
    kind = next(kind for kind in sorted(DETECTORS, key=len, reverse=True) if name.startswith(kind))
    return DETECTORS[kind](**PAIRS[name][0])


def plain_loop(name: str, values: np.ndarray) -> np.ndarray:
    """river's verdicts i8 (n,), value by value: 0 nothing, 1 warning, 2 drift in either direction."""
    detector = PAIRS[name][1]()
    out = np.zeros(len(values), np.int8)
    for i, x in enumerate(values.tolist()):
        detector.update(x)
        warns = getattr(detector, "warning_detected", False)
        out[i] = 2 if detector.drift_detected else WARNING if warns else NONE
    return out


def errors(seed: int, rates: list[float], each: int) -> np.ndarray:
    """Errors 0 or 1, f64 (len(rates) * each,), at one rate after the other."""
    rng = np.random.default_rng(seed)
    return (rng.random(len(rates) * each) < np.repeat(rates, each)).astype(np.float64)


def losses(seed: int, rates: list[float], each: int) -> np.ndarray:
    """Log-losses f64 (len(rates) * each,) of a model that says 0.1, where the label's rate changes."""
    y = errors(seed, rates, each)
    return np.asarray(np.where(y > 0.5, -np.log(0.1), -np.log(0.9)))


def values_for(name: str, seed: int) -> np.ndarray:
    """A stream for a pair's detector: errors, or blocks of 32 losses."""
    rates = [0.1, 0.1, 0.3, 0.05, 0.4, 0.1]
    feeds = ours(name).feeds
    if feeds == "errors":
        return errors(seed, rates, 1500)
    blocks = losses(seed, rates, 32 * 300).reshape(-1, 32)
    return np.asarray(blocks.sum(axis=1) if feeds == "sums" else blocks.mean(axis=1))
