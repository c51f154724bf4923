"""What a worker knows of an ensemble beside the tables: its mixer, and its models of the experts outside the tables.

Names of arrays: `mixer.` those of learning/mixer.py, `experts.NAME.` those of learning/river_expert.py.

At a snapshot's barrier the workers' mixers are joined (learning/mixer_join.py), and all go on with what they know
together. Models stay each worker's own; where one is wanted, the one that has learnt most is taken.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from learning.mixer import Mixer
from learning.mixer_join import joined_mixers
from learning.river_expert import RiverExpert
from learning.state_arrays import joined, section

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from learning.batch import Batch
    from learning.ensemble import Ensemble
    from learning.mixer import Mixed
    from learning.worker_state import Arrays

__all__ = ["EnsembleState", "Sharing", "of_all_workers"]

_MIXER, _EXPERTS = "mixer", "experts"


class EnsembleState:
    """One worker's."""

    def __init__(self, ensemble: Ensemble, worker: int = 0) -> None:
        self._ensemble = ensemble
        self._worker = worker
        self.mixer = ensemble.mixer(worker)
        self.experts = {
            name: RiverExpert(settings, ratings=ensemble.of_ratings)
            for name, settings in ensemble.outside.items()
        }

    def prepare(self, batch: Batch) -> Batch:
        """The batch as it was sent, with predictions of the experts outside, which then learn it."""
        return _with_given(batch, [expert.learn(batch) for expert in self.experts.values()])

    def mix(self, predictions: NDArray[np.float64], batch: Batch) -> Mixed:
        """One prediction a record of all experts' f64 (n, K), by what was known before its label, which is learnt."""
        return self.mixer.learn(predictions, batch)

    def seen(self, batch: Batch) -> Batch:
        """As `prepare`, but nothing is learnt: for scoring."""
        return _with_given(batch, [expert.predict(batch) for expert in self.experts.values()])

    def shown(self) -> Arrays:
        """The small part of `arrays`: the mixer's, and how many records the experts outside the tables have had."""
        counts = {name: np.array([of.records, of.failed], np.int64) for name, of in self.experts.items()}
        return joined(_MIXER, self.mixer.arrays()) | {
            f"{_EXPERTS}.{name}.records": array for name, array in counts.items()
        }

    def arrays(self) -> Arrays:
        """All of it, as copies by name."""
        arrays = self.shown()
        for expert, of in self.experts.items():
            arrays |= joined(f"{_EXPERTS}.{expert}", of.arrays())
        return arrays

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Go on from `arrays`, if there are any of an ensemble. Raises ValueError for those of another one."""
        found = _of_ensemble(arrays)
        if not found:
            return
        known = (f"{_MIXER}.", *(f"{_EXPERTS}.{name}." for name in self.experts))
        if odd := sorted(name for name in found if not name.startswith(known)):
            raise ValueError(
                f"expected what an ensemble of {', '.join(self._ensemble.names)} knows, got {odd[0]}"
            )
        self.share(found)
        for name, expert in self.experts.items():
            own = section(found, f"{_EXPERTS}.{name}")
            self.experts[name] = RiverExpert.of(expert.settings, own, ratings=self._ensemble.of_ratings)

    def begin(self, shared: Mapping[str, NDArray[Any]], renewed: Iterable[str]) -> None:
        """A moment of the job begins: go on with the mixer that was joined, if one was; begin some experts afresh."""
        if shared:
            self.share(shared)
        for name in renewed:
            self.mixer.renew(name)
            if name in self.experts:
                settings = self._ensemble.outside[name]
                self.experts[name] = RiverExpert(settings, ratings=self._ensemble.of_ratings)

    def share(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Go on with a mixer that was joined, the models as they are."""
        ensemble = self._ensemble
        own = section(arrays, _MIXER)
        self.mixer = Mixer.of(
            ensemble.mixing, ensemble.names, own, squared=ensemble.of_ratings, worker=self._worker
        )


class Sharing:
    """The coordinator's part: at each barrier the workers' mixers become one, with which all go on.

    `shared`: that mixer's arrays, empty where there is no ensemble or one worker has its own.
    """

    def __init__(self, ensemble: Ensemble | None, workers: Mapping[int, Mapping[str, NDArray[Any]]]) -> None:
        self._ensemble = ensemble
        # All workers began with the mixer of the last snapshot, whoever had it there.
        self._base = section(workers[min(workers)], _MIXER) if workers else {}
        self.shared: Arrays = {}

    def renew(self, names: Iterable[str]) -> None:
        """Have experts begin afresh, as all workers do."""
        ensemble = self._ensemble
        if ensemble is None or not names or not self._base:
            return
        mixer = Mixer.of(ensemble.mixing, ensemble.names, self._base, squared=ensemble.of_ratings)
        for name in names:
            mixer.renew(name)
        self._base = mixer.arrays()

    def renewed_state(self, state: Arrays, names: Iterable[str]) -> Arrays:
        """What a worker that has finished keeps for the barriers to come, once `renew` was told of these experts.

        It cannot begin them afresh itself: its old evidence would come back with the next `join`, and its model, which
        has learnt most, would be the one that `of_all_workers` takes.
        """
        ensemble = self._ensemble
        if ensemble is None or not self._base:
            return state
        renewed = state | joined(_MIXER, self._base)
        for name in names:
            if name in ensemble.outside:
                fresh = RiverExpert(ensemble.outside[name], ratings=ensemble.of_ratings)
                renewed |= joined(f"{_EXPERTS}.{name}", fresh.arrays())
        return renewed

    def join(self, workers: Mapping[int, Arrays]) -> dict[int, Arrays]:
        """The states of all workers, by number, with the mixer that all of them go on with."""
        if self._ensemble is None or not workers:
            return dict(workers)
        parts = [section(state, _MIXER) for _, state in sorted(workers.items())]
        self._base = joined_mixers(self._ensemble.mixing, self._ensemble.names, self._base or None, parts)
        mixer = joined(_MIXER, self._base)
        self.shared = mixer if len(workers) > 1 else {}
        return {worker: state | mixer for worker, state in workers.items()}


def of_all_workers(workers: Iterable[Mapping[str, NDArray[Any]]]) -> Arrays:
    """Of states whose mixers were joined, what scores: the mixer, and of each model the one that has learnt most."""
    states = [_of_ensemble(of) for of in workers]
    if not states or not states[0]:
        return {}
    arrays = joined(_MIXER, section(states[0], _MIXER))
    for expert in dict.fromkeys(name.split(".")[1] for name in states[0] if name.startswith(f"{_EXPERTS}.")):
        name = f"{_EXPERTS}.{expert}"
        arrays |= joined(name, RiverExpert.joined([section(state, name) for state in states]))
    return arrays


def _with_given(batch: Batch, columns: list[NDArray[np.float64]]) -> Batch:
    return replace(batch, given=np.stack(columns, axis=1)) if columns else batch


def _of_ensemble(arrays: Mapping[str, NDArray[Any]]) -> Arrays:
    return {name: array for name, array in arrays.items() if name.startswith((f"{_MIXER}.", f"{_EXPERTS}."))}
