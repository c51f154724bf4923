"""What every drift detector is: frozen parameters, and one pure step over a state that is a vector of numbers.

    state = detector.initial()                  f64 (width,)
    verdicts = detector.update(state, values)   i8 (m,): one for each value f64 (m,), in order; changes the state

All that a detector knows is in that vector. So a snapshot of it is the vector, and a detector that is restored in the
middle of a stream goes on with the very same verdicts.

Five of them are the algorithms of river 0.26, which reset themselves with the value after a drift. They are written
anew on numbers because river's objects do not give theirs: the state of its ADWIN is one opaque string of bytes, whose
form is nowhere fixed, and wrong bytes end in a panic of its Rust part. Tests feed river's own and these with the same
values, and compare all verdicts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["FALL", "NONE", "RISE", "WARNING", "Detector", "Feed", "expect_between"]

Feed = Literal["means", "sums", "errors"]

FALL, NONE, WARNING, RISE = -2, 0, 1, 2
"""Verdicts: the mean fell; nothing; it may be rising; it rose. river's `drift_detected` is RISE or FALL."""


class Detector(Protocol):
    """A detector's parameters and mathematics; the fields of each are its parameters, `kind` is its name."""

    kind: ClassVar[str]
    feeds: ClassVar[Feed]
    """What it takes: means of blocks of losses, their sums, or an error of 0 or 1 for each record."""

    def initial(self) -> NDArray[np.float64]:
        """The state f64 (width,) of a detector that has seen nothing."""

    def update(self, state: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.int8]:
        """Verdicts i8 (m,) on values f64 (m,), in order; changes the state in place."""


def expect_between(name: str, value: float, low: float, high: float) -> None:
    """Raises ValueError unless low <= value <= high."""
    if not low <= value <= high:
        raise ValueError(f"{name} should be from {low:g} to {high:g}, but is {value:g}")
