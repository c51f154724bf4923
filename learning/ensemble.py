"""Ensemble: several experts over the same records, each with tables of its own, whose predictions a mixer joins.

Its tables are those of all experts, called by expert and table (`slow_weights`); keys, merge and coupling are each
expert's own. `learn` and `predict` give a column for each expert, f64 (n, K): probabilities (or ratings) that were made
before their record's label was used. What makes one prediction of them is learning/mixer.py, which each worker has.

Experts that live outside the tables (models of river's, learning/river_expert.py) come with the batch: their
predictions are `Batch.given`, f64 (n, R), in the experts' order.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from learning.batch import CATEGORY, ROLE_FIRST
from learning.ensemble_fit import check_fit
from learning.experts_rules import FixedShare
from learning.learner import Forgetting
from learning.mixer import MIXTURE, Mixer, Mixing
from learning.ratings import Ratings
from learning.river_build import RiverSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from learning.batch import Batch
    from learning.learner import Learner, Metrics, TableRows, TableSpec

__all__ = ["Ensemble", "Expert"]

_NAME = re.compile(r"[A-Za-z0-9_]{1,32}", re.ASCII)
_EXPERTS_MAX = 64


class Expert(NamedTuple):
    """An expert by name: a learner with tables, or what a model of river's is built from."""

    name: str
    learner: Learner | RiverSettings


class _Place(NamedTuple):
    """Where an expert with tables has them: from the `first` of all tables, `tables` of them."""

    learner: Learner
    first: int
    tables: int


@dataclass(frozen=True, slots=True)
class Ensemble:
    """The ensemble learner: two experts or more, at least one with tables, that predict the same kind of thing."""

    experts: tuple[Expert, ...]
    mixing: Mixing = field(default_factory=Mixing)

    kind: ClassVar[str] = "ensemble"

    _places: tuple[_Place, ...] = field(init=False, repr=False, compare=False)
    _roles: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 2 <= len(self.experts) <= _EXPERTS_MAX:
            raise ValueError(f"an ensemble has 2 to {_EXPERTS_MAX} experts, but here are {len(self.experts)}")
        for name in self.names:
            if not _NAME.fullmatch(name) or name == MIXTURE or self.names.count(name) > 1:
                raise ValueError(
                    f"experts should have names of 1 to 32 letters, digits and _, each its own and none {MIXTURE!r}, "
                    f"but here is {name!r}; give them by the key name"
                )
        places, first = [], 0
        for _, learner in self.experts:
            if not isinstance(learner, RiverSettings):
                places.append(_Place(learner, first, len(learner.specs())))
                first += places[-1].tables
        object.__setattr__(self, "_places", tuple(places))
        roles = dict.fromkeys(role for place in places for role in place.learner.roles)
        object.__setattr__(self, "_roles", tuple(roles))
        check_fit([place.learner for place in places], bool(self.mixing.context))
        low, high = self.label_range
        if low >= high:
            raise ValueError(f"no label fits all experts: it would have to be from {low} to {high}")

    @property
    def names(self) -> tuple[str, ...]:
        """Of the experts, in the order of their columns."""
        return tuple(expert.name for expert in self.experts)

    @property
    def outside(self) -> dict[str, RiverSettings]:
        """The experts that each worker has outside the tables, by name, in the order of the columns of Batch.given."""
        return {name: found for name, found in self.experts if isinstance(found, RiverSettings)}

    @property
    def of_ratings(self) -> bool:
        """Whether the experts predict ratings; else probabilities."""
        return isinstance(self.metrics(), Ratings)

    def mixer(self, worker: int = 0) -> Mixer:
        """A mixer that has learnt nothing."""
        return Mixer(self.mixing, self.names, squared=self.of_ratings, worker=worker)

    @property
    def encodes(self) -> bool:
        """As all its experts."""
        return self._places[0].learner.encodes

    @property
    def reacts(self) -> frozenset[str]:
        """What any of its experts reacts to, and the share where the mixing has one."""
        own = {"raise_share"} if self.mixing.rule == FixedShare.name else set()
        return frozenset(own).union(*(place.learner.reacts for place in self._places))

    @property
    def label_range(self) -> tuple[float, float]:
        """What suits all experts."""
        ranges = [place.learner.label_range for place in self._places]
        return max(low for low, _ in ranges), min(high for _, high in ranges)

    @property
    def roles(self) -> tuple[str, ...]:
        """Those of all experts, each once."""
        return self._roles

    @property
    def named(self) -> dict[str, int]:
        """An ensemble is not asked for items by name."""
        return {}

    @property
    def tables_of_experts(self) -> dict[str, tuple[int, ...]]:
        """The numbers of each expert's tables; of a model of river's none."""
        found: dict[str, tuple[int, ...]] = dict.fromkeys(self.names, ())
        for i, place in self._at():
            found[self.names[i]] = tuple(range(place.first, place.first + place.tables))
        return found

    @property
    def imports(self) -> tuple[str, ...]:
        """Modules that experts' pipelines name."""
        return tuple(module for place in self._places for module in getattr(place.learner, "imports", ()))

    def specs(self) -> tuple[TableSpec, ...]:
        """All experts' tables, in their order."""
        return tuple(
            replace(spec, name=f"{name}_{spec.name}")
            for name, learner in self.experts
            if not isinstance(learner, RiverSettings)
            for spec in learner.specs()
        )

    def keys(self, batch: Batch) -> tuple[NDArray[np.uint64], ...]:
        """Each expert's keys for its tables."""
        return tuple(
            keys for place in self._places for keys in place.learner.keys(self._seen_by(place.learner, batch))
        )

    def learn(self, tables: Sequence[TableRows], batch: Batch) -> NDArray[np.float64]:
        """All experts predict and learn each record in order; f64 (n, K)."""
        columns = self._columns_of(batch)
        for i, place in self._at():
            own = tables[place.first : place.first + place.tables]
            columns[:, i] = place.learner.learn(own, self._seen_by(place.learner, batch))
        return columns

    def predict(self, tables: Sequence[TableRows], batch: Batch) -> NDArray[np.float64]:
        """All experts' predictions f64 (n, K) without learning."""
        columns = self._columns_of(batch)
        for i, place in self._at():
            own = tables[place.first : place.first + place.tables]
            columns[:, i] = place.learner.predict(own, self._seen_by(place.learner, batch))
        return columns

    def _at(self) -> list[tuple[int, _Place]]:
        """The columns of the experts with tables."""
        columns = [i for i, (_, found) in enumerate(self.experts) if not isinstance(found, RiverSettings)]
        return list(zip(columns, self._places, strict=True))

    def _columns_of(self, batch: Batch) -> NDArray[np.float64]:
        """Columns f64 (n, K) with those of the experts outside filled in."""
        columns = np.empty((len(batch), len(self.experts)))
        outside = [i for i, (_, found) in enumerate(self.experts) if isinstance(found, RiverSettings)]
        given = np.empty((len(batch), 0)) if batch.given is None else batch.given
        if given.shape != (len(batch), len(outside)):
            raise ValueError(
                f"expected predictions of the experts {', '.join(self.outside)} as given ({len(batch)}, "
                f"{len(outside)}), got {given.shape}"
            )
        columns[:, outside] = given
        return columns

    def _seen_by(self, learner: Learner, batch: Batch) -> Batch:
        """The batch with the kinds of entries as one expert numbers its roles."""
        if learner.roles == self._roles or not self._roles:
            return batch
        kinds = np.where(batch.kinds >= ROLE_FIRST, np.uint8(CATEGORY), batch.kinds)
        for own, role in enumerate(learner.roles):
            kinds[batch.kinds == ROLE_FIRST + self._roles.index(role)] = ROLE_FIRST + own
        return batch.with_entries(batch.keys, batch.values, kinds, batch.offsets, batch.features)

    def merge(
        self,
        table: int,
        rows: NDArray[np.float32],
        at: NDArray[np.int64],
        base: NDArray[np.float32],
        end: NDArray[np.float32],
        bias: int,
        coupling: float,
    ) -> int:
        """As the expert whose table it is merges."""
        place = next(place for place in reversed(self._places) if place.first <= table)
        return place.learner.merge(table - place.first, rows, at, base, end, bias, coupling)

    def forget(self, table: int, rows: NDArray[np.float32], bias: int, keep: float) -> None:
        """As the expert whose table it is forgets, if it can."""
        place = next(place for place in reversed(self._places) if place.first <= table)
        if isinstance(place.learner, Forgetting):
            place.learner.forget(table - place.first, rows, bias, keep)

    @property
    def forgetting_tables(self) -> tuple[int, ...]:
        """Tables of experts that can forget; of the others no row is touched."""
        able = [place for place in self._places if isinstance(place.learner, Forgetting)]
        return tuple(table for place in able for table in range(place.first, place.first + place.tables))

    def coupling(
        self, bases: Sequence[NDArray[np.float32]], tables: Sequence[TableRows], batch: Batch
    ) -> float:
        """The strongest of the experts' couplings: a push brings one number for all its tables."""
        found = []
        for place in self._places:
            own = slice(place.first, place.first + place.tables)
            found.append(place.learner.coupling(bases[own], tables[own], self._seen_by(place.learner, batch)))
        return max(found)

    def metrics(self) -> Metrics:
        """Metrics of the mixture."""
        return self._places[0].learner.metrics()

    def judge(self, metrics: Any, predictions: NDArray[np.float64], batch: Batch) -> None:
        """Add a batch's mixed predictions f64 (n,) to `metrics`."""
        metrics.update(predictions, batch.labels)
