"""Numbers and times in JSON text, compiled: exactly the doubles that Python and orjson give, or a refusal.

A decimal m * 10^e is rounded to the nearest double. Up to m = 2^53 and |e| = 22 one division or product of two exact
doubles does it (Clinger, "How to read floating point numbers accurately", PLDI 1990). Beyond, m times a 128-bit
approximation of 5^e is rounded (Lemire, "Number parsing at a gigabyte per second", Software: Practice and Experience
2021), and what lies too near to a tie is refused. C's strtod is not used: its decimal point depends on the locale.

All functions read a u8 array that ends in at least 16 zero bytes, and refuse by returning an end of -1.
"""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["iso_time", "number"]

_EXPONENT_MAX = 60  # of the decimals this file rounds: no result is subnormal or infinite as float64
_DIGITS_MAX = 19  # any 19 digits fit into 64 bits
_ZERO, _NINE, _DOT, _MINUS, _PLUS, _COLON = 48, 57, 46, 45, 43, 58
_MICROSECONDS_MAX = 1 << 53  # whole microseconds up to here are exact doubles: until the year 2255
_U1, _U9, _U63 = np.uint64(1), np.uint64(9), np.uint64(63)
_LOW_32 = np.uint64(0xFFFFFFFF)
_U32 = np.uint64(32)
_HIDDEN_BIT = np.uint64(1 << 52)
_EXACT_MAX = np.uint64(1 << 53)
_TOP_BIT = np.uint64(1 << 63)
_POWERS_OF_10 = 10.0 ** np.arange(23)  # exact


def _powers_of_5(exponent_max: int) -> np.ndarray[tuple[int, int], np.dtype[np.uint64]]:
    """5^e for |e| <= exponent_max as 128 bits with the top bit set (high, low): truncated, reciprocals rounded up."""
    rows = []
    for exponent in range(-exponent_max, exponent_max + 1):
        power = 5 ** abs(exponent)
        size = power.bit_length()
        bits = (1 << size + 127) // power + 1 if exponent < 0 else power << 128 >> size
        rows.append((bits >> 64, bits & (2**64 - 1)))
    return np.array(rows, np.uint64)


_POWERS_OF_5 = _powers_of_5(_EXPONENT_MAX)


@njit(cache=True, nogil=True, error_model="numpy")
def _product(a, b):  # noqa: ANN001, ANN202 - numba infers types
    """The 128-bit product of two u64, as (high, low)."""
    a_low, a_high, b_low, b_high = a & _LOW_32, a >> _U32, b & _LOW_32, b >> _U32
    low = a_low * b_low
    middle = a_high * b_low + (low >> _U32)
    cross = a_low * b_high + (middle & _LOW_32)
    return a_high * b_high + (middle >> _U32) + (cross >> _U32), (cross << _U32) | (low & _LOW_32)


@njit(cache=True, nogil=True, error_model="numpy")
def _rounded(mantissa, exponent):  # noqa: ANN001, ANN202
    """The double nearest to mantissa * 10^exponent (mantissa > 0); NaN if that is not certain."""
    shift = 0
    while mantissa < _TOP_BIT:
        mantissa <<= _U1
        shift += 1
    row = exponent + _EXPONENT_MAX
    high, low = _product(mantissa, _POWERS_OF_5[row, 0])
    if high & np.uint64(0x1FF) == np.uint64(
        0x1FF
    ):  # the bits below may carry: look at the power's lower half
        carried, _ = _product(mantissa, _POWERS_OF_5[row, 1])
        low += carried
        if low < carried:
            high += _U1
    if low <= _U1 or low == ~np.uint64(0):  # a tie, or as near to one as we can see
        return np.nan
    top = high >> _U63
    kept = high >> (top + _U9)  # 54 bits: the significand and one to round by
    kept = (kept + (kept & _U1)) >> _U1
    power = ((217706 * exponent) >> 16) + 63 + np.int64(top) - shift + 1023
    if kept >= _EXACT_MAX:
        kept, power = _HIDDEN_BIT, power + 1
    return np.uint64((kept & ~_HIDDEN_BIT) | (np.uint64(power) << np.uint64(52))).view(np.float64)


@njit(cache=True, nogil=True, error_model="numpy")
def _digits(data, at, mantissa):  # noqa: ANN001, ANN202
    """Append the digits from `at` on to mantissa (which wraps around; the caller counts). Returns (end, mantissa)."""
    digit = data[at] - np.uint8(_ZERO)
    while digit <= 9:
        mantissa = mantissa * np.uint64(10) + np.uint64(digit)
        at += 1
        digit = data[at] - np.uint8(_ZERO)
    return at, mantissa


@njit(cache=True, nogil=True, error_model="numpy")
def _exponent(data, at):  # noqa: ANN001, ANN202
    """Exponent after an `e` at `at - 1`, as (end, exponent)."""
    negative = data[at] == _MINUS
    if negative or data[at] == _PLUS:
        at += 1
    end, magnitude = _digits(data, at, np.uint64(0))
    if end == at or end > at + 4:
        return -1, 0
    return end, -np.int64(magnitude) if negative else np.int64(magnitude)


@njit(cache=True, nogil=True, error_model="numpy")
def _significant(data, first, end):  # noqa: ANN001, ANN202
    """Number of digits in data[first:end] (digits and a point) without leading zeros."""
    while first < end and (data[first] == _ZERO or data[first] == _DOT):
        first += 1
    count = 0
    for at in range(first, end):
        count += data[at] != _DOT
    return count


@njit(cache=True, nogil=True, error_model="numpy")
def _decimal(mantissa, exponent):  # noqa: ANN001, ANN202
    """The double nearest to mantissa * 10^exponent; NaN if that is not certain."""
    if mantissa == np.uint64(0) or exponent == 0:
        return np.float64(mantissa)
    if mantissa <= _EXACT_MAX and 0 < exponent <= 22:
        return np.float64(mantissa) * _POWERS_OF_10[exponent]
    if mantissa <= _EXACT_MAX and -22 <= exponent < 0:
        return np.float64(mantissa) / _POWERS_OF_10[-exponent]
    if -_EXPONENT_MAX <= exponent <= _EXPONENT_MAX:
        return _rounded(mantissa, exponent)
    return np.nan


@njit(cache=True, nogil=True, error_model="numpy")
def number(data, at):  # noqa: ANN001, ANN201
    """Read the JSON number at `at`: (end, value, whole); whole: it is an integer and data[at:end] is its text."""
    negative = data[at] == _MINUS
    first = at + 1 if negative else at
    end, mantissa = _digits(data, first, np.uint64(0))
    if end == first or (data[first] == _ZERO and end > first + 1):
        return -1, 0.0, False
    whole, exponent, count = True, 0, end - first
    if data[end] == _DOT:
        point = end
        end, mantissa = _digits(data, point + 1, mantissa)
        if end == point + 1:
            return -1, 0.0, False
        whole, exponent, count = False, point + 1 - end, end - first - 1
    if count > _DIGITS_MAX and _significant(data, first, end) > _DIGITS_MAX:
        return -1, 0.0, False
    if data[end] | 32 == 101:  # e or E
        end, power = _exponent(data, end + 1)
        whole, exponent = False, exponent + power
    value = _decimal(mantissa, exponent)
    if end < 0 or np.isnan(value):
        return -1, 0.0, False
    if whole and negative and value == 0.0:
        return end, 0.0, False  # "-0" is Python's integer zero, which has no sign
    # Nineteen digits may not fit into 64 bits together with their sign.
    return end, -value if negative else value, whole and count < _DIGITS_MAX


@njit(cache=True, nogil=True, error_model="numpy")
def _field(data, at, size):  # noqa: ANN001, ANN202
    """A number of exactly `size` digits, or -1."""
    value = 0
    for i in range(at, at + size):
        if data[i] < _ZERO or data[i] > _NINE:
            return -1
        value = value * 10 + data[i] - _ZERO
    return value


@njit(cache=True, nogil=True, error_model="numpy")
def _days(year, month, day):  # noqa: ANN001, ANN202
    """Days since 1970-01-01 in the Gregorian calendar, or -1 << 62 for a date that does not exist."""
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    length = 29 if month == 2 and leap else 28 if month == 2 else 30 + (month + month // 8) % 2
    if year < 1 or month < 1 or month > 12 or day < 1 or day > length:
        return -1 << 62
    shifted = year - (month <= 2)  # years begin in March, so that the leap day is their last
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return 365 * shifted + shifted // 4 - shifted // 100 + shifted // 400 + of_year - 719468


@njit(cache=True, nogil=True, error_model="numpy")
def _offset(data, at, end):  # noqa: ANN001, ANN202
    """Seconds east of UTC that data[at:end] says: `Z`, `+hh:mm`, `-hh:mm` or nothing (UTC); else -1 << 62."""
    if end == at or (end == at + 1 and data[at] == 90):
        return 0
    hours, minutes = _field(data, at + 1, 2), _field(data, at + 4, 2)
    signed = data[at] == _PLUS or data[at] == _MINUS
    if (
        end != at + 6
        or not signed
        or data[at + 3] != _COLON
        or min(hours, minutes) < 0
        or hours > 23
        or minutes > 59
    ):
        return -1 << 62
    seconds = hours * 3600 + minutes * 60
    return -seconds if data[at] == _MINUS else seconds


@njit(cache=True, nogil=True, error_model="numpy")
def iso_time(data, at, end):  # noqa: ANN001, ANN201
    """Unix seconds of data[at:end], `YYYY-MM-DDThh:mm:ss[.f][Z|+hh:mm|-hh:mm]`, as (end, seconds)."""
    if end < at + 19 or data[at + 4] != _MINUS or data[at + 7] != _MINUS:
        return -1, 0.0
    if (data[at + 10] != 84 and data[at + 10] != 32) or data[at + 13] != _COLON or data[at + 16] != _COLON:
        return -1, 0.0
    days = _days(_field(data, at, 4), _field(data, at + 5, 2), _field(data, at + 8, 2))
    hours, minutes, seconds = _field(data, at + 11, 2), _field(data, at + 14, 2), _field(data, at + 17, 2)
    fraction, zone = 0, at + 19
    if data[zone] == _DOT:
        point, (zone, _) = zone, _digits(data, zone + 1, np.uint64(0))
        if zone == point + 1:
            return -1, 0.0
        for place in range(point + 1, point + 7):  # Python drops what is below a microsecond
            fraction = fraction * 10 + (data[place] - _ZERO if place < zone else 0)
    offset = _offset(data, zone, end)
    if (
        min(hours, minutes, seconds) < 0
        or hours > 23
        or minutes > 59
        or seconds > 59
        or min(days, offset) == -1 << 62
    ):
        return -1, 0.0
    microseconds = (days * 86400 + hours * 3600 + minutes * 60 + seconds - offset) * 1000000 + fraction
    if abs(microseconds) > _MICROSECONDS_MAX:
        return -1, 0.0
    return end, microseconds / 1e6
