"""What a record is once it is decoded, whatever its format, and what the pipeline says about how to read it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from learning.batch import CATEGORY, NUMBER, ROLE_FIRST
from learning.keys import name_key

if TYPE_CHECKING:
    from cluster.config import FeaturesConfig

__all__ = [
    "AS_CATEGORICAL",
    "AS_FOUND",
    "AS_NUMERIC",
    "AS_ROLE",
    "FIELDS",
    "FLOAT32_ABOVE_0",
    "FLOAT32_BOUND",
    "IGNORED",
    "BadRecord",
    "Entry",
    "Record",
    "Rules",
    "category_kind",
    "range_text",
]

FLOAT32_BOUND = (2 - 2.0**-24) * 2.0**127
"""A double rounds to a finite float32 if and only if its magnitude is below this."""

FLOAT32_ABOVE_0 = 2.0**-150
"""A double rounds to a positive float32 if and only if it is above this."""

AS_FOUND, AS_NUMERIC, IGNORED, AS_CATEGORICAL, AS_ROLE = 0, 1, 2, 3, 4
"""How a feature is read: by the kind its value has, as the pipeline file says, or, AS_ROLE + i, as the learner's
role i. From AS_CATEGORICAL on, whatever comes is a category."""

FIELDS = ("id", "ts", "label", "weight")
"""A record's own fields; in Arrow and in files they are columns beside the features, so no role may be called so."""


class BadRecord(ValueError):  # noqa: N818 - a verdict on data, caught by the decoder and never seen by a user
    """The record cannot be learnt; the message is the sentence for the dead letter."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What the pipeline says about records: kinds of named features, and the range of labels.

    `roles` are the features that the learner needs by name: each record must have them, and their entries have the
    kind ROLE_FIRST + i. They are categories, whatever their values; a role that is ignored or numeric is a ValueError.
    `kept_roles` are the numbers of those whose texts somebody needs beside their keys. `slice_feature` is the one whose
    values are to be told as they were sent (learning/slice_values.py): any feature that is not ignored, and no record
    has to have it. With `want_features` each entry tells of which feature it is.
    """

    kinds: dict[str, int]
    label_min: float = 0.0
    label_max: float = 1.0
    roles: tuple[str, ...] = ()
    kept_roles: tuple[int, ...] = ()
    slice_feature: str | None = None
    want_features: bool = False
    slice_key: np.uint64 = field(init=False)
    """Name key of the feature by which is sliced; of no consequence where there is none."""
    reads: dict[str, int] = field(init=False)
    """How each named feature is read: `kinds` with the roles."""

    def __post_init__(self) -> None:
        for name in self.roles:
            _check_role(name, self)
        if self.slice_feature is not None:
            _check_slice_feature(self.slice_feature, self)
        object.__setattr__(self, "slice_key", name_key(self.slice_feature or ""))
        reads = self.kinds | {name: AS_ROLE + i for i, name in enumerate(self.roles)}
        object.__setattr__(self, "reads", reads)  # frozen: this is the one way to derive a field

    @property
    def slice_place(self) -> int:
        """Number of the slices' text among the texts of a record, which are those of the roles and, if it is none of
        them, that of the feature by which is sliced.
        """
        roles = len(self.roles)
        return self.roles.index(self.slice_feature) if self.slice_feature in self.roles else roles

    @property
    def texts(self) -> int:
        """How many texts are noted of each record: 0 where nobody needs one."""
        if self.slice_feature is None:
            return len(self.roles) if self.kept_roles else 0
        return max(len(self.roles), self.slice_place + 1)

    @classmethod
    def of(
        cls,
        features: FeaturesConfig,
        label_min: float = 0.0,
        label_max: float = 1.0,
        roles: tuple[str, ...] = (),
        kept_roles: tuple[int, ...] = (),
        slice_feature: str | None = None,
        *,
        want_features: bool = False,
    ) -> Rules:
        """Rules of a pipeline's `features` section. Raises ValueError for roles that contradict it."""
        kinds = dict.fromkeys(features.as_numeric, AS_NUMERIC)
        kinds |= dict.fromkeys(features.as_categorical, AS_CATEGORICAL) | dict.fromkeys(
            features.ignore, IGNORED
        )
        return cls(kinds, label_min, label_max, roles, kept_roles, slice_feature, want_features)


def _check_slice_feature(name: str, rules: Rules) -> None:
    """Raise ValueError if no record could ever have this feature."""
    if rules.kinds.get(name) == IGNORED:
        raise ValueError(
            f"slices.feature names {name!r}, which features.ignore leaves out; take it out of one of them"
        )
    if name in FIELDS:
        raise ValueError(
            f"slices.feature names {name!r}, but {', '.join(FIELDS)} are a record's own fields; name a feature"
        )


def _check_role(name: str, rules: Rules) -> None:
    """Raise ValueError if no record could ever have this role."""
    section = {AS_NUMERIC: "as_numeric", IGNORED: "ignore"}.get(rules.kinds.get(name, AS_FOUND))
    if section is not None:
        raise ValueError(
            f"features.{section} names {name!r}, which the learner needs as a category; take it out of there"
        )
    if name in FIELDS:
        raise ValueError(
            f"the learner cannot use a feature called {name!r}, because {', '.join(FIELDS)} are a record's own "
            "fields; rename the feature"
        )
    if rules.roles.count(name) > 1:
        raise ValueError(
            f"the learner names the feature {name!r} for two of its roles; each needs one of its own"
        )


def category_kind(how: int) -> int:
    """The kind of a category's entry, by how its feature is read."""
    return ROLE_FIRST + how - AS_ROLE if how >= AS_ROLE else CATEGORY


def range_text(low: float, high: float) -> str:
    """What comes behind "a number" where only these are taken: " from 0 to 1", or nothing where all are."""
    if low > -math.inf and high < math.inf:
        return f" from {low:g} to {high:g}"
    return f" from {low:g} on" if low > -math.inf else f" up to {high:g}" if high < math.inf else ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One feature of one record, as the learner sees it, the key of the feature's name, and of a category the `text`
    that its key was made of.
    """

    key: int
    value: float
    kind: int
    feature: int
    text: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """One learnable record; `time_s` is NaN and `identity` empty where it brought none."""

    label: float
    weight: float
    time_s: float
    identity: str
    entries: list[Entry]

    def text_of(self, role: int) -> str:
        """The text of a role, which every record has."""
        return next(entry.text for entry in self.entries if entry.kind == ROLE_FIRST + role)

    def category_of(self, feature: int) -> str | None:
        """The text of a feature's category; None where it is missing or a number."""
        texts = (e.text for e in self.entries if e.feature == feature and e.kind != NUMBER)
        return next(texts, None)
