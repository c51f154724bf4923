"""The rules by which experts get their weights; what they compute stands in learning/experts.py."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from learning import experts_kernels as kernels

__all__ = ["RULES", "BestRecent", "FixedShare", "Hedge", "InverseError", "Rule"]


@dataclass(frozen=True, slots=True)
class FixedShare:
    """`eta`: how fast weights move; `share`: what goes round among all with every record."""

    eta: float = 1.0
    share: float = 5e-4
    name: ClassVar[str] = "fixed_share"
    code: ClassVar[int] = kernels.SHARE

    def __post_init__(self) -> None:
        if not (0.0 < self.eta < math.inf and 0.0 < self.share <= 1.0):
            raise ValueError(
                f"eta should be above 0 and share in (0, 1], but they are {self.eta} and {self.share}"
            )

    @property
    def numbers(self) -> tuple[float, ...]:
        """What the kernels take: eta, share, offset, keep, ramp_step."""
        return self.eta, self.share, 0.0, 1.0, 0.0


@dataclass(frozen=True, slots=True)
class Hedge:
    """`eta`: how fast weights move."""

    eta: float = 1.0
    name: ClassVar[str] = "hedge"
    code: ClassVar[int] = kernels.SHARE

    def __post_init__(self) -> None:
        if not 0.0 < self.eta < math.inf:
            raise ValueError(f"eta should be above 0, but is {self.eta}")

    @property
    def numbers(self) -> tuple[float, ...]:
        """As FixedShare's."""
        return self.eta, 0.0, 0.0, 1.0, 0.0


@dataclass(frozen=True, slots=True)
class _ByRecord:
    """What the two rules by mean loss share; half_life_records 0: losses count for ever."""

    half_life_records: float = 10_000.0
    ramp_records: float = 1_000.0
    offset: float = 0.01

    def __post_init__(self) -> None:
        if not (self.half_life_records >= 0.0 and self.ramp_records >= 1.0 and self.offset > 0.0):
            raise ValueError(
                "half_life_records should be 0 or more, ramp_records 1 or more and offset above 0, but they are "
                f"{self.half_life_records}, {self.ramp_records} and {self.offset}"
            )

    @property
    def numbers(self) -> tuple[float, ...]:
        """As FixedShare's."""
        keep = 0.5 ** (1.0 / self.half_life_records) if self.half_life_records else 1.0
        return 0.0, 0.0, self.offset, keep, 1.0 / self.ramp_records


@dataclass(frozen=True, slots=True)
class InverseError(_ByRecord):
    """`offset` keeps the weight of an expert without loss finite."""

    name: ClassVar[str] = "inverse_error"
    code: ClassVar[int] = kernels.INVERSE_ERROR


@dataclass(frozen=True, slots=True)
class BestRecent(_ByRecord):
    """`offset` means nothing here."""

    name: ClassVar[str] = "best_recent"
    code: ClassVar[int] = kernels.BEST_RECENT


Rule = FixedShare | Hedge | InverseError | BestRecent
RULES: dict[str, type[Rule]] = {
    "fixed_share": FixedShare, "hedge": Hedge, "inverse_error": InverseError, "best_recent": BestRecent
}  # fmt: skip
"""By name; the first is the default."""
