"""AutoRollback: asks for a rollback when an older version beats the present model on the same recent records.

Accuracies of different periods are not comparable, so no curve decides. Once `rollback.records` records have come
behind a snapshot, the tables as they were there and those of older versions predict these very records, which none of
them has learnt; nothing is learnt meanwhile. The losses are compared in pairs (learning/comparison.py), and only what
is beyond the noise counts. All of it happens in a thread of the driver; each record is used in one comparison.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from actors.ports import SourceError, StreamUnavailableError
from cluster.assembly import wanted_records
from cluster.models.scorer import Scorer
from cluster.requests import RollbackRequest
from cluster.snapshots.errors import SnapshotDamagedError, SnapshotError
from cluster.snapshots.model import model_of
from cluster.streams.open import open_source
from learning.comparison import Comparison
from learning.losses import loss_of
from learning.metrics import Prequential

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from cluster.config import Pipeline
    from cluster.mailbox import Mailbox
    from cluster.snapshots.manifest import SnapshotManifest
    from cluster.snapshots.store import SnapshotStore
    from cluster.versions import VersionBook
    from learning.batch import Batch

__all__ = ["AutoRollback", "Verdict", "compare", "spread"]

_READ_TIMEOUT_S = 300.0
_POLL_S = 0.2


class Verdict(NamedTuple):
    """How an older snapshot did against the present one; losses are means a record."""

    snapshot: int
    comparison: Comparison
    loss: float
    present_loss: float


class AutoRollback:
    """Watches one job; `look` whenever there may be a new snapshot, from one thread."""

    def __init__(
        self,
        pipeline: Pipeline,
        store: SnapshotStore,
        book: VersionBook,
        mailbox: Mailbox,
        say: Callable[[str], None],
    ) -> None:
        self._pipeline = pipeline
        self._store = store
        self._book = book
        self._mailbox = mailbox
        self._say = say
        self._present: SnapshotManifest | None = None
        self._behind = 0
        self._thread: threading.Thread | None = None
        self._pinned: set[int] = set()
        self.comparisons = 0
        self._wanted = False

    def needed(self) -> set[int]:
        """Snapshots that must stay until they were compared."""
        return self._pinned | ({self._present.number} if self._present is not None else set())

    def begin_behind(self, number: int) -> None:
        """A generation begins: compared from now on are snapshots of its own, with higher numbers."""
        self._present, self._behind = None, number

    def compare_next(self) -> None:
        """Compare once, whether or not that is done by itself: on the records behind the next snapshot."""
        self._wanted = True
        if not self._pipeline.rollback.automatic:
            self._present = None

    def look(self, newest: SnapshotManifest | None) -> None:
        """Begin a comparison, if enough was learnt since the last one; returns at once."""
        if newest is None or newest.number <= self._behind:
            return
        if not (self._pipeline.rollback.automatic or self._wanted) or self._busy:
            return
        present = self._present
        if present is None:
            self._present = newest
        elif newest.records - present.records >= self._pipeline.rollback.records:
            older = self._older_than(present)
            self._pinned = {present.number, newest.number, *older}
            self._present, self._wanted = newest, False
            self._thread = threading.Thread(
                target=self._compare_aloud,
                args=(present, newest, older),
                name="millrace-rollback",
                daemon=True,
            )
            self._thread.start()

    @property
    def _busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _older_than(self, present: SnapshotManifest) -> list[int]:
        """Versions, or where there is none the oldest snapshots, that have learnt none of the records."""
        limit = self._pipeline.rollback.versions_max
        versions = [number for number in sorted(self._book.pinned()) if number < present.number]
        numbers = spread(versions, limit) or [n for n in self._store.numbers() if n < present.number][:limit]
        older = []
        for number in numbers:
            try:
                offsets = self._store.manifest(number).offsets
            except SnapshotDamagedError:
                continue  # the store says so where it matters
            same = number == present.note.get("rolled_back_to")
            if not same and all(at <= present.offsets.get(p, 0) for p, at in offsets.items()):
                older.append(number)
        return older

    def _compare_aloud(self, present: SnapshotManifest, newest: SnapshotManifest, older: list[int]) -> None:
        try:
            verdicts = compare(self._pipeline, self._store, present, newest, older)
            self.comparisons += 1
            better = [verdict for verdict in verdicts if verdict.comparison.older_is_better]
            if better and self._present is newest:  # no other generation has begun
                best = max(better, key=lambda verdict: verdict.comparison.lower)
                self._mailbox.ask(RollbackRequest.new(best.snapshot, "keep", _reason(best, present.number)))
        except (SourceError, StreamUnavailableError, SnapshotError) as error:
            self._say(f"older versions were not compared with snapshot {present.number}: {error}")
        finally:
            self._pinned = set()


def spread(versions: list[int], count_max: int) -> list[int]:
    """At most `count_max` of them: the newest, the oldest, and between them each about as many times older.

    What has ruined the present model may have ruined many versions before it.
    """
    count = len(versions)
    if count <= count_max:
        return versions
    back = {round(count ** (i / max(1, count_max - 1))) for i in range(count_max)}
    return [versions[-places] for places in sorted(back, reverse=True)]


def compare(
    pipeline: Pipeline,
    store: SnapshotStore,
    present: SnapshotManifest,
    newest: SnapshotManifest,
    older: list[int],
) -> list[Verdict]:
    """Compare `older` snapshots with `present` on what came from its place to that of `newest`.

    Raises:
        SourceError, StreamUnavailableError: the records cannot be read any more.
        SnapshotError: a snapshot cannot.

    """
    if not older:
        return []
    batches = _read(pipeline, present, newest)
    own = _losses(pipeline, store, present.number, batches)
    learner = pipeline.learner.build()
    verdicts = []
    for number in older:
        losses = _losses(pipeline, store, number, batches)
        comparison = Comparison(alpha=pipeline.rollback.alpha / len(older))
        for batch, mine, theirs in zip(batches, own, losses, strict=True):
            classes = batch.labels if isinstance(learner.metrics(), Prequential) else None
            comparison.add(mine, theirs, classes)
        verdicts.append(Verdict(number, comparison, _mean(losses), _mean(own)))
    return verdicts


def _read(pipeline: Pipeline, present: SnapshotManifest, newest: SnapshotManifest) -> list[Batch]:
    """The first `rollback.records` records behind a snapshot, as they were decoded."""
    bounds = {p: (present.offsets.get(p, 0), end) for p, end in newest.offsets.items()}
    source = open_source(pipeline, bounds, **wanted_records(pipeline))
    batches: list[Batch] = []
    left, until_s = pipeline.rollback.records, time.monotonic() + _READ_TIMEOUT_S
    try:
        while left > 0 and not source.exhausted:
            if time.monotonic() > until_s:
                raise SourceError(
                    f"the records behind snapshot {present.number} took over {_READ_TIMEOUT_S:g} s"
                )
            decoded = source.poll(_POLL_S)
            if decoded is not None and len(decoded.batch):
                batches.append(decoded.batch)
                left -= len(decoded.batch)
    finally:
        source.close()
    return batches


def _losses(
    pipeline: Pipeline, store: SnapshotStore, number: int, batches: list[Batch]
) -> list[NDArray[np.float64]]:
    """Losses of a frozen snapshot, batch by batch; it is in memory only meanwhile."""
    scorer = Scorer(model_of(store, number))
    loss = loss_of(pipeline.learner.build())
    return [loss(scorer.score(batch), batch.labels) for batch in batches]


def _mean(losses: list[NDArray[np.float64]]) -> float:
    return float(np.mean(np.concatenate(losses))) if losses else float("nan")


def _reason(best: Verdict, present: int) -> str:
    comparison = best.comparison
    return (
        f"on the same {comparison.records:,} records its loss is {best.loss:.4f} and that of snapshot {present} "
        f"{best.present_loss:.4f}: lower by {comparison.mean:.4f} (between {comparison.lower:.4f} and "
        f"{comparison.upper:.4f}, alpha {comparison.alpha:.2g})"
    )
