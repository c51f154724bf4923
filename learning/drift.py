"""Has the stream changed? Detectors on each partition's losses, a vote over the partitions, and what moved with it.

Each partition has its own detector, fed with means of blocks of `block_records` log-losses in offset order (or, for
DDM and HDDM, with an error of 0 or 1 for each record): windows of several detectors cannot be merged, and a mixture of
partitions has no order. A partition's signal is a vote, which counts for `window_records` records a partition. Of the
partitions that had records in that time,

    drift         a share of `quorum` or more say that the loss rose
    improvement   a share of `quorum` or more say that it fell (the model learns; what was hard went away)
    warning       a share of `warning_quorum` or more say that it rose or may be rising; once in a window
    joined        one that had not voted says so within a window after either: it is the same one, not another

A vote is spent by the event that it brought about. Every event says when, where and between which levels, and which of
the other series (share of missing values or of new keys, losses of a slice) moved with the loss. Nothing here begins
anew without an event or, for a single partition's detector, without a count in `signals`.

The state is arrays, and exact. With one partition, events are the same to the bit for any cut into batches; with
several, a vote is dated by the order in which their batches came.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from learning.drift_adwin import Adwin
from learning.drift_blocks import Shift
from learning.drift_errors import Ddm, HddmA, HddmW
from learning.drift_events import DriftEvent, WatchSettings
from learning.drift_kswin import Kswin
from learning.drift_means import PageHinkley, Window
from learning.drift_partition import Partition
from learning.drift_verdicts import FALL, RISE, WARNING, Detector
from learning.state_arrays import restored

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["DETECTORS", "DriftEvent", "DriftWatch", "WatchSettings"]

DETECTORS: dict[str, type[Detector]] = {
    kind.kind: kind for kind in (Adwin, PageHinkley, Kswin, Ddm, HddmA, HddmW, Window)
}
"""By name; the first is the default."""

_WARNINGS, _RISES, _FALLS = range(3)
_VOTES_OF = {"drift": (_RISES,), "improvement": (_FALLS,), "warning": (_WARNINGS, _RISES)}
_EVENTS = ("drift", "improvement", "warning", "joined")
_VERDICTS = (WARNING, RISE, FALL)


class DriftWatch:
    """Watches the losses of a job, and further named `series` of numbers a record."""

    def __init__(
        self,
        detector: Detector | None = None,
        series: Sequence[str] = (),
        settings: WatchSettings | None = None,
    ) -> None:
        self.detector: Detector = detector or Adwin()
        self.names = ("loss", *series)
        self.settings = settings or WatchSettings()
        self.records = 0
        self.counts: Counter[str] = Counter()
        """Events so far, by kind."""
        self.signals: Counter[int] = Counter()
        """Verdicts of single partitions so far: WARNING, RISE and FALL."""
        self._warned_at = -1
        self._moved_at = {"drift": -1, "improvement": -1}
        self._partitions: dict[int, Partition] = {}

    def update(
        self,
        partition: int,
        losses: NDArray[np.float64],
        series: NDArray[np.float64] | None = None,
    ) -> list[DriftEvent]:
        """Take a batch's losses f64 (n,) of one partition, in offset order, made before their labels were learnt.

        `series` f64 (s, n) are the other series' values, in the order of their names; NaN where one has none.
        """
        values = self._rows(losses, series)
        part = self._partitions.get(partition)
        if part is None:
            part = Partition.new(self.detector, self.settings.block_records, len(self.names))
            self._partitions[partition] = part
        if len(losses):
            part.seen_at = self.records + len(losses)
        means, signals = part.look(self.detector, values)
        events, remembered = [], 0
        for signal in signals:
            part.remember(means[:, remembered : signal.blocks], self.settings.history_blocks)
            remembered = signal.blocks
            self.signals[signal.verdict] += 1
            part.note(signal.verdict, self.names, self.records + signal.at)
            events += self._decide(partition, signal.verdict, self.records + signal.at)
        part.remember(means[:, remembered:], self.settings.history_blocks)
        self.records += len(losses)
        return events

    def _rows(self, losses: NDArray[np.float64], series: NDArray[np.float64] | None) -> NDArray[np.float64]:
        others = np.empty((0, len(losses))) if series is None else series
        if losses.ndim != 1 or others.shape != (len(self.names) - 1, len(losses)):
            raise ValueError(
                f"expected losses (n,) and series ({len(self.names) - 1}, n), got {losses.shape} and {others.shape}"
            )
        most = self.settings.loss_max
        bounded = np.clip(np.nan_to_num(losses, nan=most, posinf=most, neginf=-most), -most, most)
        return np.vstack((bounded, others))

    def _decide(self, partition: int, verdict: int, records: int) -> list[DriftEvent]:
        since = records - self.settings.window_records * len(self._partitions)
        if verdict == WARNING:
            return self._warn(records, since)
        kind: Literal["drift", "improvement"] = "drift" if verdict == RISE else "improvement"
        own, rose = self._partitions[partition], verdict == RISE
        if self._moved_at[kind] >= max(since, 0) and own.joined_in(verdict) < self.counts[kind]:
            own.spend(verdict, self.counts[kind])
            self.counts["joined"] += 1
            return [self._event("joined", self.counts[kind], records, [partition], rose=rose)]
        voters = self._voters(kind, since)
        if not voters:
            return self._warn(records, since) if rose else []
        self.counts[kind] += 1
        self._moved_at[kind] = records
        if rose:
            self._warned_at = records  # a drift is a warning too
        for voter in voters:
            self._partitions[voter].spend(verdict, self.counts[kind])
        return [self._event(kind, self.counts[kind], records, voters, rose=rose)]

    def _warn(self, records: int, since: int) -> list[DriftEvent]:
        voters = self._voters("warning", since)
        if not voters or self._warned_at >= max(since, 0):
            return []
        self._warned_at = records
        self.counts["warning"] += 1
        return [self._event("warning", self.counts["warning"], records, voters, rose=True)]

    def _voters(self, kind: str, since: int) -> list[int]:
        """The partitions whose votes count for `kind`, if they are enough."""
        since = max(since, 0)
        active = sum(part.seen_at >= since for part in self._partitions.values())
        kinds = list(_VOTES_OF[kind])
        voters = [n for n, part in self._partitions.items() if part.votes[kinds].max() >= since]
        least = self.settings.warning_quorum if kind == "warning" else self.settings.quorum
        return voters if len(voters) >= least * active else []

    def _event(self, kind: Any, number: int, records: int, voters: list[int], *, rose: bool) -> DriftEvent:
        parts = [self._partitions[voter] for voter in voters]
        levels = np.stack([part.levels for part in parts])
        before, after, errors = np.moveaxis(levels, 2, 0)
        known = np.maximum((~np.isnan(errors)).sum(axis=0), 1)
        mean_before, mean_after = np.nansum(before, axis=0) / known, np.nansum(after, axis=0) / known
        total = np.nansum(errors, axis=0) / np.sqrt(known)
        unknown = np.isnan(errors).all(axis=0)
        moved = [
            Shift(name, float(mean_before[i]), float(mean_after[i]), float(total[i]))
            for i, name in enumerate(self.names)
            if i and not unknown[i] and abs(total[i]) >= self.settings.moved_errors
        ]
        return DriftEvent(
            kind, number, records, tuple(sorted(voters)), rose, max(part.age_records for part in parts),
            np.nan if unknown[0] else float(mean_before[0]), np.nan if unknown[0] else float(mean_after[0]),
            tuple(sorted(moved, key=lambda shift: -abs(shift.errors))),
        )  # fmt: skip

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All of it but detector, names and settings, by name; the arrays of P partitions are stacked."""
        blocks_max = self.settings.history_blocks
        parts = [part.arrays(blocks_max) for part in self._partitions.values()]
        # One more, which makes the shapes of no partitions those of some.
        parts.append(
            Partition.new(self.detector, self.settings.block_records, len(self.names)).arrays(blocks_max)
        )
        stacked = {name: np.stack([part[name] for part in parts])[:-1] for name in parts[0]}
        job = [self.records, self._warned_at, *self._moved_at.values()]
        job += [self.counts[kind] for kind in _EVENTS] + [self.signals[verdict] for verdict in _VERDICTS]
        numbers = np.array(list(self._partitions), np.int64)
        return {"partitions": numbers, "job": np.array(job, np.int64), **stacked}

    @classmethod
    def of(
        cls,
        arrays: Mapping[str, NDArray[Any]],
        detector: Detector | None = None,
        series: Sequence[str] = (),
        settings: WatchSettings | None = None,
    ) -> Self:
        """The watch that gave `arrays`, given what it was made with; raises ValueError for anything else."""
        watch = cls(detector, series, settings)
        forms = {
            name: (array.dtype, ("partitions", *array.shape[1:])) for name, array in watch.arrays().items()
        }
        found = restored(arrays, forms | {"job": (np.int64, (4 + len(_EVENTS) + len(_VERDICTS),))})
        watch.records, watch._warned_at, drift_at, improvement_at, *counts = found.pop("job").tolist()
        watch._moved_at = {"drift": drift_at, "improvement": improvement_at}
        watch.counts.update(dict(zip(_EVENTS, counts, strict=False)))
        watch.signals.update(dict(zip(_VERDICTS, counts[len(_EVENTS) :], strict=True)))
        for i, number in enumerate(found.pop("partitions").tolist()):
            rows = {name: array[i] for name, array in found.items()}
            watch._partitions[number] = Partition.of(rows, watch.settings.block_records)
        return watch
