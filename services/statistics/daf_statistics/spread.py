"""How much values vary."""

from __future__ import annotations

import math
from collections.abc import Sequence


def standard_deviation(values: Sequence[float]) -> float | None:
    """Standard deviation with n - 1; None below two values, and exactly 0 where they do not vary."""
    count = len(values)
    if count < 2:
        return None
    if min(values) == max(values):
        return 0.0  # whatever rounding would make of it
    mean = math.fsum(values) / count
    deviations = [value - mean for value in values]
    return math.sqrt(math.fsum([deviation * deviation for deviation in deviations]) / (count - 1))


def standard_error(values: Sequence[float]) -> float | None:
    """Standard error of the mean of independent values; None below two."""
    deviation = standard_deviation(values)
    return None if deviation is None else deviation / math.sqrt(len(values))


def t_quantile(degrees_of_freedom: float, probability: float) -> float:
    """The value below which a t-distributed variable is with this probability."""
    from scipy.special import stdtrit  # heavy, so imported at first use

    return float(stdtrit(degrees_of_freedom, probability))


def t_tail(degrees_of_freedom: float, value: float) -> float:
    """The probability that a t-distributed variable is above the value."""
    from scipy.special import stdtr

    return float(stdtr(degrees_of_freedom, -value))
