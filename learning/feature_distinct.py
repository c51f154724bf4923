"""HyperLogLog: about how many different 64-bit keys there were, in 1,024 bytes; unions are maxima.

P. Flajolet, E. Fusy, O. Gandouet, F. Meunier: HyperLogLog, 2007. The first 10 bits of a key's hash choose a register,
which keeps the largest rank (1 + leading zeros of the other 54 bits) that came to it. The estimate is that of O. Ertl:
New Cardinality Estimation Algorithms for HyperLogLog Sketches, 2017, equation (13): without bias from one key on, with
a standard error of 1.04 / sqrt(1024), 3 percent.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["RANK_MAX", "REGISTERS", "distinct", "place_and_rank"]

_BITS = 10
REGISTERS = 1 << _BITS
_RANKS = 64 - _BITS
RANK_MAX = _RANKS + 1
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_U30, _U27, _U31 = np.uint64(30), np.uint64(27), np.uint64(31)
_U_BITS, _U_RANKS, _U1 = np.uint64(_BITS), np.uint64(_RANKS), np.uint64(1)
_FIRST_BIT = np.uint64(1 << 63)
_ZERO = np.uint64(0)


@njit(cache=True, nogil=True, error_model="numpy")
def place_and_rank(key):  # noqa: ANN001, ANN201
    """The register of a key u64, and the rank u8 that it brings there."""
    # splitmix64's finaliser: keys of numbers are their bits, which are no hash.
    h = (key ^ (key >> _U30)) * _MIX_1
    h = (h ^ (h >> _U27)) * _MIX_2
    h ^= h >> _U31
    rest = h << _U_BITS
    rank = 1
    while rank < RANK_MAX and rest & _FIRST_BIT == _ZERO:
        rest <<= _U1
        rank += 1
    return h >> _U_RANKS, np.uint8(rank)


def distinct(registers: NDArray[np.uint8]) -> float:
    """Ertl's estimate from registers u8 (1024,)."""
    counts = np.bincount(registers, minlength=RANK_MAX + 1).tolist()
    full = 1.0 - counts[RANK_MAX] / REGISTERS
    z = REGISTERS * _tau(full)
    for rank in range(_RANKS, 0, -1):
        z = 0.5 * (z + counts[rank])
    z += REGISTERS * _sigma(counts[0] / REGISTERS)
    return REGISTERS * REGISTERS / (2.0 * math.log(2.0)) / z if math.isfinite(z) else 0.0


def _sigma(x: float) -> float:
    """x + sum_k x^(2^k) 2^(k-1)."""
    if x == 1.0:
        return math.inf
    total, power, before = x, 1.0, -1.0
    while total != before:
        before, x = total, x * x
        total += x * power
        power += power
    return total


def _tau(x: float) -> float:
    """(1 - x - sum_k (1 - x^(2^-k))^2 2^-k) / 3."""
    if x in {0.0, 1.0}:
        return 0.0
    total, power, before = 1.0 - x, 1.0, -1.0
    while total != before:
        before, x, power = total, math.sqrt(x), 0.5 * power
        total -= (1.0 - x) ** 2 * power
    return total / 3.0
