"""How many pairs a comparison needs."""

from __future__ import annotations

import math

from daf_statistics.sign_flips import fewest_pairs
from daf_statistics.spread import t_quantile

DEFAULT_POWER = 0.8
MOST_PAIRS = 10_000_000
"""The most that an advice names."""


def power(effect: float, pairs: int, alpha: float) -> float:
    """Power of a two-sided paired t-test.

    Only that of finding the right sign: for the sizes that matter the other tail adds nothing, and scipy has no number
    for it where it is very small.

    Args:
        effect: the difference over the standard deviation of the differences.
        pairs: how many, at least two.
        alpha: of the one test.
    """
    from scipy.special import nctdtr

    noncentrality = abs(effect) * math.sqrt(pairs)
    if not math.isfinite(noncentrality) or noncentrality > 1e3:
        return 1.0
    return 1.0 - float(nctdtr(pairs - 1, noncentrality, t_quantile(pairs - 1, 1 - alpha / 2)))


def pairs_needed(effect: float, alpha: float, wanted: float = DEFAULT_POWER, tests: int = 1) -> int | None:
    """How many pairs find an effect, which is the difference over the standard deviation of the differences.

    Args:
        effect: as in `power`.
        alpha: of the family.
        wanted: the power.
        tests: how many tests share the alpha; each is planned at its smallest share.

    Returns:
        The smallest number with the power, at least the fewest that can reject; None if more than MOST_PAIRS.
    """
    low = high = max(2, fewest_pairs(alpha, tests))
    if effect == 0.0:
        return None
    while power(effect, high, alpha / tests) < wanted:
        if high >= MOST_PAIRS:
            return None
        low, high = high + 1, min(2 * high, MOST_PAIRS)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if power(effect, middle, alpha / tests) >= wanted else (middle + 1, high)
    return low
