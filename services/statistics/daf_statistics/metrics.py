"""Metric series: values of one metric of one source, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Point(NamedTuple):
    """One value of a series. It is a plain tuple because a source may have hundreds of thousands."""

    step: int
    agent_steps: int
    time_us: int
    """Microseconds since 1970, by the clock of the source."""
    value: float | None
    """None where it was not finite."""


def thinned[T](points: Sequence[T], at_most: int) -> Sequence[T]:
    """At most so many of the points, evenly spread, the last always among them; 0 means all."""
    last = len(points) - 1
    if at_most == 0 or last < at_most:
        return points
    if at_most == 1:
        return points[-1:]
    return [points[number * last // (at_most - 1)] for number in range(at_most)]
