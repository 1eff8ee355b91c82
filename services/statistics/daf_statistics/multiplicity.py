"""Adjusted p-values of a family of tests."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum


class Family(Enum):
    """How a family shares its alpha."""

    HOLM = "Holm"
    """Holm, A simple sequentially rejective multiple test procedure, 1979: the probability of any wrong rejection is at
    most alpha, whatever the dependence of the tests."""
    BENJAMINI_HOCHBERG = "Benjamini-Hochberg"
    """Benjamini and Hochberg, Controlling the false discovery rate, 1995: alpha of the rejections are wrong in
    expectation, for independent or positively dependent tests."""


def adjusted(p_values: Sequence[float], family: Family, tests: int | None = None) -> list[float]:
    """The p-values so adjusted that each can be compared with alpha, in their order.

    Args:
        p_values: of the tests that could be carried out.
        family: how they share their alpha.
        tests: how many the family has, those that could not be carried out among them; these count as p = 1.
    """
    count = len(p_values) if tests is None else tests
    ranked = sorted(range(len(p_values)), key=lambda index: p_values[index])
    found = [1.0] * len(p_values)
    bound = 0.0 if family is Family.HOLM else 1.0
    if family is Family.HOLM:
        for rank, index in enumerate(ranked):
            bound = max(bound, min(1.0, (count - rank) * p_values[index]))
            found[index] = bound
    else:
        for rank, index in reversed(list(enumerate(ranked, start=1))):
            bound = min(bound, p_values[index] * count / rank)
            found[index] = bound
    return found
