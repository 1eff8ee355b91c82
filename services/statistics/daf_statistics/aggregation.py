"""How the values of the seats of one policy become one value of the episode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum


class Aggregation(Enum):
    """Names it as users do."""

    MEAN = "mean"
    SUM = "sum"
    MINIMUM = "min"
    MAXIMUM = "max"

    @property
    def function(self) -> Callable[[Sequence[float]], float]:
        """Makes one of several finite values."""
        return _FUNCTIONS[self]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


_FUNCTIONS: dict[Aggregation, Callable[[Sequence[float]], float]] = {
    Aggregation.MEAN: _mean,
    Aggregation.SUM: sum,
    Aggregation.MINIMUM: min,
    Aggregation.MAXIMUM: max,
}
