"""Watching: the coordinator's eye on drift, and what it has done about it; part of every snapshot, to the bit.

It is told each batch's losses in the order in which a worker learnt them, feeds the detectors (learning/drift.py), and
answers drifts and warnings with the reactions that the pipeline names (learning/reactions.py).

A raise begins at a place in the stream and not at the moment in which a message arrives: `lag_records` records of the
worker behind the batch that told of the drift. A worker therefore learns no batch of which the coordinator has not yet
heard all that lies `lag_records` before it. So with one worker and cuts that do not depend on time, two runs react at
the same record. What changes rows (Forget, Renew) takes place at the next snapshot, right behind it.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from learning.drift import DriftWatch
from learning.drift_blocks import Shift
from learning.drift_events import DriftEvent
from learning.pace import Raise, over, pace_at
from learning.reactions import Forget, LookBack, RaiseRates, RaiseShare, Renew, Snapshot
from learning.state_arrays import joined, section

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from learning.drift import WatchSettings
    from learning.drift_verdicts import Detector
    from learning.job_messages import Watched
    from learning.reactions import Reaction
    from learning.worker_state import Arrays

__all__ = ["Notice", "WatchPlan", "Watching"]

NOTICES_MAX = 200


@dataclass(frozen=True, slots=True)
class Notice:
    """An event, and a sentence for each thing that was done about it; `place` counts all notices of the run, from 1."""

    place: int
    event: DriftEvent
    reactions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WatchPlan:
    """How a job watches, and what it does.

    `tables`: those whose rows can forget, by number; `experts`: the tables of each expert of an ensemble, by its name.
    """

    detector: Detector
    series: tuple[str, ...]
    settings: WatchSettings
    lag_records: int
    drift: tuple[Reaction, ...] = ()
    warning: tuple[Reaction, ...] = ()
    tables: tuple[int, ...] = ()
    experts: Mapping[str, tuple[int, ...]] | None = None

    @property
    def paced(self) -> bool:
        """Whether a reaction changes how fast workers learn."""
        return any(isinstance(r, RaiseRates | RaiseShare) for r in (*self.drift, *self.warning))


RENEW = -1.0
"""In place of what is kept of a table's memory: all its rows begin afresh."""


class Watching:
    """One job's; `arrays` are those of a snapshot, or none at its beginning. Raises ValueError for others."""

    def __init__(self, plan: WatchPlan, arrays: Arrays, workers: int) -> None:
        self._plan = plan
        self.heard = dict.fromkeys(range(workers), 0)
        """By worker, how many of its records in this generation are known here."""
        self.raises: dict[int, tuple[Raise, ...]] = {}
        self.notices: deque[Notice] = deque(maxlen=NOTICES_MAX)
        self._places = 0
        self._changes: dict[int, float] = {}
        self._renewed: dict[str, None] = {}
        found = section(arrays, "watch")
        make = (plan.detector, plan.series, plan.settings)
        self.watch = DriftWatch.of(found, *make) if found else DriftWatch(*make)
        if "told" in arrays:
            self._restore(arrays["told"], workers)

    def see(self, worker: int, batches: Sequence[Watched]) -> tuple[bool, bool]:
        """Take in batches; returns whether a snapshot is wanted, and whether older versions are to be compared."""
        snapshot = look_back = False
        for partition, losses, series in batches:
            self.heard[worker] += len(losses)
            for event in self.watch.update(partition, losses, series):
                reactions = {"drift": self._plan.drift, "warning": self._plan.warning}.get(event.kind, ())
                told = [self._react(reaction) for reaction in reactions]
                snapshot |= any(isinstance(r, Snapshot | Forget | Renew) for r in reactions)
                look_back |= any(isinstance(r, LookBack) for r in reactions)
                self._places += 1
                self.notices.append(Notice(self._places, event, tuple(told)))
        return snapshot, look_back

    def _react(self, reaction: Reaction) -> str:
        """Note what is to be done; returns it as a sentence."""
        match reaction:
            case RaiseRates():
                return self._raise("rate", reaction.factor, reaction)
            case RaiseShare():
                return self._raise("share", reaction.share, reaction)
            case Forget():
                for table in self._plan.tables:
                    kept = self._changes.get(table, 1.0)
                    self._changes[table] = kept if kept == RENEW else kept * reaction.keep
                return f"the optimiser keeps {reaction.keep:g} of its memory from the next snapshot on"
            case Renew():
                self._changes |= dict.fromkeys((self._plan.experts or {})[reaction.expert], RENEW)
                self._renewed[reaction.expert] = None
                return f"the expert {reaction.expert} begins afresh at the next snapshot"
            case Snapshot():
                return "a snapshot is taken"
            case LookBack():
                return "older versions are compared with the present model"

    def _raise(self, what: Any, top: float, reaction: RaiseRates | RaiseShare) -> str:
        before = max(getattr(pace_at(self.raises.get(w, ()), at), what) for w, at in self.heard.items())
        for worker, at in self.heard.items():
            begins = at + self._plan.lag_records
            raised = Raise(what, begins, top, reaction.records, reaction.half_life_records)
            standing = tuple(r for r in self.raises.get(worker, ()) if not over(r, at))
            self.raises[worker] = (*standing, raised)
        name, unit = ("learning rates", "times") if what == "rate" else ("the share of experts' weights", "")
        had = f" (raised before, {before:g} was left)" if before > (what == "rate") else ""
        return f"{name} raised to {top:g} {unit}".rstrip() + f" for {reaction.records:,} records{had}"

    @property
    def has_changes(self) -> bool:
        """Whether rows are to change at the next snapshot."""
        return bool(self._changes)

    def take_changes(self) -> tuple[tuple[tuple[int, float], ...], tuple[str, ...]]:
        """What is to happen to rows right behind the snapshot that is taken now: (table, what is kept); experts."""
        changes, renewed = tuple(self._changes.items()), tuple(self._renewed)
        self._changes, self._renewed = {}, {}
        return changes, renewed

    def arrays(self) -> Arrays:
        """All of it by name; raises are counted from the snapshot's place on."""
        told = {
            "raises": {w: [asdict(r.since(self.heard[w])) for r in of] for w, of in self.raises.items()},
            "notices": [asdict(notice) for notice in self.notices],
            "places": self._places,
            "changes": [*self._changes.items()],
            "renewed": [*self._renewed],
        }
        raw = np.frombuffer(json.dumps(told).encode(), np.uint8)
        return joined("watch", self.watch.arrays()) | {"told": raw.copy()}

    def _restore(self, told: NDArray[Any], workers: int) -> None:
        try:
            values = json.loads(told.tobytes())
            by_worker = {int(w): tuple(Raise(**r) for r in of) for w, of in values["raises"].items()}
            self.notices.extend(_notice(values) for values in values["notices"])
            self._places = int(values["places"])
            self._changes = {int(table): float(kept) for table, kept in values["changes"]}
            self._renewed = dict.fromkeys(map(str, values["renewed"]))
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"expected raises, notices and places, got {error}") from error
        # Where there are other workers now, each takes over the raises of one of those before.
        before = [by_worker[w] for w in sorted(by_worker)]
        self.raises = {w: before[w % len(before)] for w in range(workers)} if before else {}


def _notice(values: dict[str, Any]) -> Notice:
    event = dict(values["event"])
    event["partitions"] = tuple(event["partitions"])
    event["moved"] = tuple(Shift(**moved) for moved in event["moved"])
    return Notice(int(values["place"]), DriftEvent(**event), tuple(map(str, values["reactions"])))
