"""Pace: how fast a batch is learnt, where a reaction to drift has raised it, and how that fades.

A raise holds for `records` records of a worker, after which what it was raised by halves every half-life:

    d = count - begins;   value(d) = calm + (top - calm) 2^(-max(d - records, 0) / half_life_records)

It counts records that the worker has learnt, never seconds, and a batch has one pace, that of its first record. Rates
multiply the step of a record, and not what the optimiser remembers of it (for FTRL: the gradient in z and not its
square in n), so no prediction jumps when a raise begins or ends.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["CALM", "Pace", "Raise", "over", "pace_at"]

_NEGLIGIBLE = 1e-3
"""What is left of a raise by less than this share of it is no raise any more."""


class Pace(NamedTuple):
    """`rate` multiplies each step; the share that experts' weights exchange is `share` at least."""

    rate: float = 1.0
    share: float = 0.0


CALM = Pace()


@dataclass(frozen=True, slots=True)
class Raise:
    """A raise of `what` to `top` from the worker's record `begins` on."""

    what: Literal["rate", "share"]
    begins: int
    top: float
    records: int
    half_life_records: float

    def left(self, count: int) -> float:
        """What of the raise is in force at record `count`, from 0 to 1."""
        if count < self.begins:
            return 0.0
        fading = max(count - self.begins - self.records, 0)
        left = float(0.5 ** (fading / self.half_life_records))
        return left if left >= _NEGLIGIBLE else 0.0

    def since(self, count: int) -> Raise:
        """The same for a worker whose record `count` is counted as its first."""
        return replace(self, begins=self.begins - count)


def pace_at(raises: Iterable[Raise], count: int) -> Pace:
    """The pace of a batch whose first record is the worker's record `count`; of several raises the highest counts."""
    rate, share = CALM
    for raised in raises:
        left = raised.left(count)
        if raised.what == "rate":
            rate = max(rate, 1.0 + (raised.top - 1.0) * left)
        else:
            share = max(share, raised.top * left)
    return Pace(rate, share)


def over(raised: Raise, count: int) -> bool:
    """Whether nothing is left of it."""
    return count > raised.begins and raised.left(count) == 0.0
