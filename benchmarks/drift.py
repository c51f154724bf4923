"""Drift detectors: false alarms on streams without a change, delays on streams whose changes are known, real streams.

Each detector runs as the product runs it (DriftWatch, one partition, blocks of 32 records), and beside it river's own
in a plain loop over single records with river's defaults. Fed with the same numbers, both say the same: that is counted
here. Shared streams are learnt by FTRL as jobs.evaluate has it; their rows in random order, in which nothing changes,
are the control.

    python -m benchmarks.drift [--data ../shared/data] [--seeds 10]
"""

from __future__ import annotations

import math
import statistics
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from river import drift
from river.drift import binary

from benchmarks.drift_streams import CHANGES, SHARED, of_the_learner, stationary, with_changes
from benchmarks.measure import machine
from learning.drift import DETECTORS, DriftWatch

BATCH = 512
PLAIN: dict[str, Callable[[], Any]] = {
    "adwin": drift.ADWIN,
    "page_hinkley": drift.PageHinkley,
    "kswin": lambda: drift.KSWIN(seed=0),
    "ddm": binary.DDM,
    "hddm_a": binary.HDDMA,
    "hddm_w": binary.HDDMW,
}
"""river's defaults, for single records."""

SAME: dict[str, Callable[[], Any]] = PLAIN | {
    "adwin": lambda: drift.ADWIN(clock=1),
    "page_hinkley": lambda: drift.PageHinkley(delta=0.02, threshold=3.0),
    "kswin": lambda: drift.KSWIN(alpha=0.0005, window_size=200, stat_size=60, seed=0),
}
"""river's, with our parameters."""

Finder = Callable[[np.ndarray], list[int]]


def watch(kind: str, kinds: tuple[str, ...] = ("drift", "improvement")) -> Finder:
    """Where our watch tells of a change."""

    def found(losses: np.ndarray) -> list[int]:
        events, one = [], DriftWatch(DETECTORS[kind]())
        for i in range(0, len(losses), BATCH):
            events += one.update(0, losses[i : i + BATCH])
        return [event.records for event in events if event.kind in kinds]

    return found


def fed(kind: str, losses: np.ndarray, block: int) -> np.ndarray:
    """What a detector is fed with: errors of single records, or means of blocks of losses."""
    if DETECTORS[kind].feeds == "errors":
        return (losses > math.log(2)).astype(np.float64)
    means = losses[: len(losses) // block * block].reshape(-1, block).mean(axis=1)
    return np.asarray(means * block if DETECTORS[kind].feeds == "sums" else means)


def plain(kind: str) -> Finder:
    """Where river's detector finds a drift, record by record."""

    def found(losses: np.ndarray) -> list[int]:
        detector, places = PLAIN[kind](), []
        for i, value in enumerate(fed(kind, losses, 1).tolist()):
            detector.update(value)
            if detector.drift_detected:
                places.append(i + 1)
        return places

    return found


def equal(kind: str, losses: np.ndarray) -> tuple[int, int]:
    """How many values both were fed with, and how many verdicts differ."""
    values, theirs, ours = fed(kind, losses, 32), SAME[kind](), DETECTORS[kind]()
    verdicts = np.abs(ours.update(ours.initial(), values)) == 2
    differ = 0
    for value, verdict in zip(values.tolist(), verdicts.tolist(), strict=True):
        theirs.update(value)
        differ += bool(theirs.drift_detected) != verdict
    return len(values), differ


def alarms(finder: Finder, rate: float, streams: int) -> str:
    """Alarms per 100,000 stationary records."""
    return f"{sum(len(finder(stationary(seed, rate))) for seed in range(streams)) / streams:.1f}"


def delays(finder: Finder, kind: str, streams: int) -> str:
    """How many of the changes were found before they ended, and the median delay in records (and 90 %)."""
    found, total = [], 0
    for seed in range(streams):
        known = with_changes(kind, 1000 + seed)
        places = np.array(finder(known.losses), np.int64)
        for rise, end in zip(known.rises, known.ends, strict=True):
            total += 1
            after = places[(places > rise) & (places <= end)]
            found += [int(after[0]) - rise] if len(after) else []
    if not found:
        return f"0 of {total}"
    late = f"{statistics.median(found):,.0f} ({np.quantile(found, 0.9):,.0f})"
    return late if len(found) == total else f"{late}, {len(found)} of {total}"


def cost(finder: Finder, losses: np.ndarray) -> str:
    """Microseconds a record: the median of five runs."""
    times = []
    for _ in range(5):
        started_s = time.perf_counter()
        finder(losses)
        times.append((time.perf_counter() - started_s) * 1e6 / len(losses))
    return f"{statistics.median(times):.3f}"


def known_changes(seeds: int) -> None:
    """The table of seeded streams; river's KSWIN is too slow for more than one of each."""
    print(f"| detector | alarms, rate 20 % | alarms, rate 2 % | {' | '.join(CHANGES)} | us a record |")
    print("|---|" + "--:|" * (len(CHANGES) + 3))
    rows = [(kind, watch(kind), False) for kind in DETECTORS]
    rows += [(f"river {kind}, each record", plain(kind), kind == "kswin") for kind in PLAIN]
    for name, finder, slow in rows:
        cells = [alarms(finder, rate, 1 if slow else seeds) for rate in (0.2, 0.02)]
        cells += [delays(finder, change, 1 if slow else seeds) for change in CHANGES]
        cells.append(cost(finder, stationary(0, 0.2, 2000 if slow else 50_000)))
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def equality(seeds: int) -> None:
    """Whether ours and river's differ anywhere, fed with the same numbers."""
    for kind in SAME:
        values = differ = 0
        for seed in range(max(seeds // 4, 1)):
            for change in CHANGES:
                n, d = equal(kind, with_changes(change, 1000 + seed).losses)
                values, differ = values + n, differ + d
        print(
            f"{kind}: {differ} of {values:,} verdicts differ from river's, fed with the same numbers",
            flush=True,
        )


def shared_streams(data: Path) -> None:
    """Events on real streams, and on the same rows in random order."""
    print("| stream | log-loss | " + " | ".join(DETECTORS) + " |")
    print("|---|--:|" + "--:|" * len(DETECTORS))
    for name, (categories, numbers) in SHARED.items():
        file = data / f"{name}.csv.gz"
        if not file.is_file():
            print(f"{name} skipped: {file} is not there")
            continue
        for title, seed in ((name, None), (f"{name}, shuffled", 0)):
            losses = of_the_learner(file, categories, numbers, seed)
            cells = [told(kind, losses) for kind in DETECTORS]
            print(f"| {title} | {losses.mean():.4f} | {' | '.join(cells)} |", flush=True)
            if name == "syn_interchangingrbf" and seed is None:
                found = " | ".join(of_66(kind, losses) for kind in DETECTORS)
                print(f"| {name}, changes found | | {found} |")


def told(kind: str, losses: np.ndarray) -> str:
    """Drifts and improvements."""
    counts: Counter[str] = Counter()
    one = DriftWatch(DETECTORS[kind]())
    for i in range(0, len(losses), BATCH):
        counts.update(event.kind for event in one.update(0, losses[i : i + BATCH]))
    return f"{counts['drift']} / {counts['improvement']}"


def of_66(kind: str, losses: np.ndarray) -> str:
    """Of the changes every 3,000 records, those with a drift before the next; the median delay; drifts beside them."""
    places = np.array(watch(kind, ("drift",))(losses))
    places = places[places > 3000]
    first = [p % 3000 for i, p in enumerate(places.tolist()) if not i or p // 3000 != places[i - 1] // 3000]
    late = f", {statistics.median(first):,.0f}" if first else ""
    return f"{len(first)} of 66{late}, {len(places) - len(first)} more"


def main(
    data: Annotated[Path, typer.Option(help="Folder of the streams.")] = Path("../shared/data"),
    seeds: Annotated[int, typer.Option(min=1, help="Streams of each kind of change.")] = 10,
) -> None:
    """Measure and print tables for RESULTS.md."""
    print(
        f"{machine()}; {seeds} streams each: alarms per 100,000 records; median delay in records (90 %), and how"
    )
    print("many changes were found before they ended, where it was not all\n")
    known_changes(seeds)
    print()
    equality(seeds)
    print("\nDrifts / improvements on shared streams:\n")
    shared_streams(data)


if __name__ == "__main__":
    typer.run(main)
