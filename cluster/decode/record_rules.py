"""What a record is once it is decoded, whatever its format, and what the pipeline says about how to read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cluster.config import FeaturesConfig

__all__ = [
    "AS_CATEGORICAL",
    "AS_FOUND",
    "AS_NUMERIC",
    "FLOAT32_ABOVE_0",
    "FLOAT32_BOUND",
    "IGNORED",
    "BadRecord",
    "Entry",
    "Record",
    "Rules",
]

FLOAT32_BOUND = (2 - 2.0**-24) * 2.0**127
"""A double rounds to a finite float32 if and only if its magnitude is below this."""

FLOAT32_ABOVE_0 = 2.0**-150
"""A double rounds to a positive float32 if and only if it is above this."""

AS_FOUND, AS_NUMERIC, AS_CATEGORICAL, IGNORED = 0, 1, 2, 3
"""How a feature is read: by the kind its value has, or as the pipeline file says."""


class BadRecord(ValueError):  # noqa: N818 - a verdict on data, caught by the decoder and never seen by a user
    """The record cannot be learnt; the message is the sentence for the dead letter."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What the pipeline says about records: kinds of named features, and the range of labels."""

    kinds: dict[str, int]
    label_min: float = 0.0
    label_max: float = 1.0

    @classmethod
    def of(cls, features: FeaturesConfig, label_min: float = 0.0, label_max: float = 1.0) -> Rules:
        """Rules of a pipeline's `features` section."""
        kinds = dict.fromkeys(features.as_numeric, AS_NUMERIC)
        kinds |= dict.fromkeys(features.as_categorical, AS_CATEGORICAL) | dict.fromkeys(
            features.ignore, IGNORED
        )
        return cls(kinds, label_min, label_max)


@dataclass(frozen=True, slots=True)
class Entry:
    """One feature of one record, as the learner sees it."""

    key: int
    value: float
    kind: int


@dataclass(frozen=True, slots=True)
class Record:
    """One learnable record; `time_s` is NaN and `identity` empty where it brought none."""

    label: float
    weight: float
    time_s: float
    identity: str
    entries: list[Entry]
