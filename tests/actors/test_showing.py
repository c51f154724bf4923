"""What people see of features: names that are told, made harmless, each one's own."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from actors.showing import groups_of
from learning.batch import BatchId
from learning.feature_stats import FeatureStats
from learning.ftrl import Ftrl
from learning.job_messages import Reported
from learning.metrics import CoarsePrequential, DelayHistogram, Prequential
from learning.plain import CHARACTERS_MAX, plain
from learning.slice_values import SliceValues
from learning.slices import Slices
from learning.texts import TextColumn
from learning.worker_state import WorkerState
from tests.direct import coordinator_for
from tests.streams import stream

if TYPE_CHECKING:
    from learning.worker_state import Arrays


def state_of(names: dict[int, str], features: int = 4) -> Arrays:
    """A worker's state that has seen features 1, 2 and so on."""
    state = WorkerState(statistics=FeatureStats())
    keys = np.arange(1, features + 1, dtype=np.uint64)
    assert state.statistics is not None
    state.statistics.update(keys, np.ones(features), keys, 1)
    state.feature_names = names
    return state.arrays()


def test_features_are_shown_by_the_names_that_workers_or_the_pipeline_tell() -> None:
    """One worker knows one, another one another; where nobody does, there are 16 digits of the key."""
    states = [state_of({1: "price"}), state_of({2: "city"})]
    shown = groups_of(states, Prequential.zero(), {3: "named in the pipeline"})["features"]
    assert list(shown) == ["price", "city", "named in the pipeline", f"{4:016x}"]


def test_two_features_never_share_a_row() -> None:
    """Names that are the same once they are cut, or that a stream made so: the second one bears its key."""
    long = "x" * 10_000
    names = {1: long, 2: long + "y", 3: "", 4: '""'}
    shown = list(groups_of([state_of(names)], Prequential.zero(), {})["features"])
    cut = "x" * (CHARACTERS_MAX - 3) + "..."
    assert shown == [cut, f"{cut} ({2:016x})", '""', f'"" ({4:016x})']


def test_plain_text_cannot_do_anything_to_a_terminal() -> None:
    """Escapes are written out, long texts are cut; what is plain already stays, so that twice is once."""
    assert plain("Größe (cm), 身長 [b]") == "Größe (cm), 身長 [b]"
    assert plain("\x1b[2J\n\u202e") == r"\x1b[2J\n\u202e"
    for hostile in ("\x1b" * 10_000, "a" * 80, "a" * 81, "\x00" * 30, ""):
        assert len(plain(hostile)) <= CHARACTERS_MAX
        assert plain(plain(hostile)) == plain(hostile)
        assert plain(hostile).isprintable()


def slices_of(texts: list[str], there: list[bool]) -> dict[str, dict[str, float]]:
    """The rows of a stream with a record of each text."""
    n = len(texts)
    values = SliceValues.of(
        np.uint64(7), TextColumn.from_list(texts), np.array(there), np.full(n, np.nan, np.float32)
    )
    batch = replace(stream(n), slices=values)
    state = WorkerState(slices=Slices(CoarsePrequential, n - 1))
    state.judge(np.full(n, 0.5), batch)
    return groups_of([state.shown()], Prequential.zero(), {})["slices"]


def test_slices_with_the_same_text_are_told_apart() -> None:
    """Two long values with one beginning, and categories that are called as the rest and as what is missing."""
    long = "x" * 200
    rows = slices_of(
        [long + "1", long + "2", "(other)", "", "(missing)", "at", "of the rest"],
        [*[True] * 3, False, *[True] * 3],
    )
    assert [row["records"] for row in rows.values()] == [1.0] * 7
    cut = "x" * (CHARACTERS_MAX - 3) + "..."
    assert {cut, "(missing)", "at", "(other)"} < set(rows)
    marked = [name for name in rows if name[-19:-17] == " ("]
    assert [name[:-19] for name in marked] == [cut, "(other)", "(missing)"]


def telling(worker: int) -> Reported:
    """A worker's report with what it knows by itself."""
    state = WorkerState(slices=Slices())
    state.judge(np.full(3, 0.5), replace(stream(3), batch_id=BatchId(worker, 0, 3)))
    return Reported(worker, 1, Prequential.zero(), DelayHistogram(), 0, [], {}, shown=state.shown())


def test_a_worker_that_tells_for_the_first_time_is_shown() -> None:
    """One after the other, with somebody looking in between."""
    coordinator = coordinator_for(Ftrl(), workers=2)
    for worker in range(2):
        coordinator.report(telling(worker))
        assert list(coordinator.status().groups["partitions"]) == [str(i) for i in range(worker + 1)]


def test_reports_do_not_wait_for_what_is_made_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread reports while what the workers know is merged."""
    coordinator, ended = coordinator_for(Ftrl(), workers=2), []
    coordinator.report(telling(0))

    def slowly(*given: Any) -> Any:
        thread = threading.Thread(target=coordinator.report, args=(telling(1),), daemon=True)
        thread.start()
        thread.join(10.0)
        ended.append(not thread.is_alive())
        return groups_of(*given)

    monkeypatch.setattr("actors.coordinator.groups_of", slowly)
    assert list(coordinator.status().groups["partitions"]) == ["0"]
    assert ended == [True]
    assert coordinator.records() == 0
