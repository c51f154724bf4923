"""What a job does when its stream has drifted, by config and graded: each reaction is one of these.

Rates and shares are raised for a number of records and fade (learning/pace.py); `Forget` takes away a part of what the
optimiser remembers, so that steps grow, and moves no prediction; `Renew` begins one expert of an ensemble afresh, with
no weight, beside the others; `Snapshot` writes one now; `LookBack` compares older versions with the present model on
the same records, and goes back only if one of them is better beyond noise.

While a raise is in force, another one of its kind makes it last longer, and the event says what had been left: no
countdown begins anew in silence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

__all__ = ["REACTIONS", "Forget", "LookBack", "RaiseRates", "RaiseShare", "Reaction", "Renew", "Snapshot"]


@dataclass(frozen=True, slots=True)
class _Raise:
    records: int = 2_000
    half_life_records: float = 1_000.0

    def __post_init__(self) -> None:
        if self.records < 0 or not 0.0 < self.half_life_records < math.inf:
            raise ValueError(
                "records should be 0 or more and half_life_records above 0, but they are "
                f"{self.records} and {self.half_life_records}"
            )


@dataclass(frozen=True, slots=True)
class RaiseRates(_Raise):
    """Multiply learning rates by `factor` for `records` records of each worker, then fade."""

    factor: float = 3.0
    kind: ClassVar[str] = "raise_rates"

    def __post_init__(self) -> None:
        _Raise.__post_init__(self)
        if not 1.0 <= self.factor <= 1000.0:
            raise ValueError(f"factor should be from 1 to 1000, but is {self.factor}")


@dataclass(frozen=True, slots=True)
class RaiseShare(_Raise):
    """Have experts exchange at least `share` of their weights with every record, then fade."""

    share: float = 0.01
    kind: ClassVar[str] = "raise_share"

    def __post_init__(self) -> None:
        _Raise.__post_init__(self)
        if not 0.0 < self.share <= 1.0:
            raise ValueError(f"share should be above 0 and at most 1, but is {self.share}")


@dataclass(frozen=True, slots=True)
class Forget:
    """Keep the share `keep` of what the optimiser remembers; predictions stay as they are at that moment."""

    keep: float = 0.1
    kind: ClassVar[str] = "forget"

    def __post_init__(self) -> None:
        if not 0.0 <= self.keep < 1.0:
            raise ValueError(f"keep should be 0 or more and below 1, but is {self.keep}")


@dataclass(frozen=True, slots=True)
class Renew:
    """Begin the expert of that name in an ensemble afresh; it gets weight as it earns it."""

    expert: str = ""
    kind: ClassVar[str] = "renew"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Write a snapshot as soon as the workers stand still for one."""

    kind: ClassVar[str] = "snapshot"


@dataclass(frozen=True, slots=True)
class LookBack:
    """Compare older versions with the present model on the same records (`rollback`), and go back to a better one."""

    kind: ClassVar[str] = "look_back"


Reaction = RaiseRates | RaiseShare | Forget | Renew | Snapshot | LookBack
REACTIONS: dict[str, type[Reaction]] = {
    kind.kind: kind for kind in (RaiseRates, RaiseShare, Forget, Renew, Snapshot, LookBack)
}
"""By name."""
