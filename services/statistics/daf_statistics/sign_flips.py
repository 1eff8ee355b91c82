"""The paired sign-flip permutation test of the hypothesis that two policies do not differ.

If they do not, each difference could as well have had the other sign (Fisher, The Design of Experiments, 1935,
section 21). The test needs no normal distribution, and its smallest two-sided p-value is 2/2^n.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

EXACT_PAIRS = 32
"""Up to so many, all 2^n flips are counted."""
RANDOM_FLIPS, MORE_RANDOM_FLIPS = 9_999, 99_999
"""Beyond, as many are drawn; more where a small alpha is shared by many tests."""
NORMAL_PAIRS = 1000
"""From here on, the sum of the flipped differences is as good as normal."""

_SEED = 0
_BATCH_NUMBERS = 4_000_000
_ROUNDING = 1e-12
"""Of the sum of all differences; sums that differ by less are equal."""


@dataclass(frozen=True)
class SignFlipTest:
    """Its outcome."""

    p_value: float
    """Two-sided."""
    method: str
    """How it was computed."""


def sign_flip_test(differences: Sequence[float], alpha: float = 0.05, tests: int = 1) -> SignFlipTest:
    """Tests differences of pairs, of which none is a copy of another. Their order does not matter, and neither does
    the sign of all of them.

    Args:
        differences: one a pair, finite.
        alpha: at which the family of tests is to decide, so that random flips are many enough.
        tests: how many tests are in the family.
    """
    sizes = sorted(abs(difference) for difference in differences if difference)  # flipping a zero changes nothing
    observed = abs(math.fsum(differences))
    if len(sizes) <= EXACT_PAIRS:
        return SignFlipTest(_exact(sizes, observed), "exact sign flips")
    if len(sizes) >= NORMAL_PAIRS:
        squares = math.fsum([size * size for size in sizes])
        return SignFlipTest(math.erfc(observed / math.sqrt(2 * squares)), "normal limit of sign flips")
    flips = random_flips(alpha, tests)
    return SignFlipTest(_random(differences, flips), f"{flips} random sign flips")


def sign_flip_bound(differences: Sequence[float]) -> float:
    """An upper bound of the exact two-sided p-value (Hoeffding, Probability inequalities for sums of bounded random
    variables, 1963, theorem 2)."""
    squares = math.fsum([difference * difference for difference in differences])
    return min(1.0, 2 * math.exp(-(math.fsum(differences) ** 2) / (2 * squares))) if squares else 1.0


def random_flips(alpha: float, tests: int) -> int:
    """How many flips are drawn: enough for the smallest p-value, 2/(flips + 1), to stay far below alpha/tests."""
    return RANDOM_FLIPS if 4 * tests <= alpha * RANDOM_FLIPS else MORE_RANDOM_FLIPS


def smallest_p_value(pairs: int, alpha: float = 0.05, tests: int = 1) -> float:
    """The smallest p-value that so many pairs can have, before it is adjusted."""
    if pairs <= EXACT_PAIRS or pairs >= NORMAL_PAIRS:
        return min(1.0, 2.0 ** (1 - pairs))
    return 2 / (random_flips(alpha, tests) + 1)


def fewest_pairs(alpha: float, tests: int = 1) -> int:
    """How many pairs must differ before a test can reject at all, when `tests` share the alpha."""
    return math.ceil(math.log2(2 * tests / alpha) - 1e-9)


def _exact(sizes: Sequence[float], observed: float) -> float:
    """The share of the 2^n sign flips whose sum is as far from 0 as the one observed.

    Meet in the middle: the sums of one half are sorted, and for each sum of the other half it is looked up how many of
    them bring the total beyond.
    """
    import numpy as np

    if not sizes:
        return 1.0
    middle = len(sizes) // 2
    one, other = _sums(sizes[:middle]), np.sort(_sums(sizes[middle:]))
    threshold = observed - _ROUNDING * math.fsum(sizes)
    beyond = len(other) - np.searchsorted(other, threshold - one, side="left")
    below = np.searchsorted(other, -threshold - one, side="right")
    return min(1.0, float((beyond + below).sum()) / 2.0 ** len(sizes))


def _sums(sizes: Sequence[float]) -> Any:
    import numpy as np

    sums = np.zeros(1)
    for size in sizes:
        sums = np.concatenate([sums + size, sums - size])
    return sums


def _random(differences: Sequence[float], flips: int) -> float:
    import numpy as np
    from scipy.stats import permutation_test

    signed = math.fsum(differences)
    ordered = sorted(differences) if signed >= 0 else sorted(-difference for difference in differences)
    return float(
        permutation_test(
            (np.asarray(ordered),),
            np.sum,
            permutation_type="samples",
            n_resamples=flips,
            batch=max(1, _BATCH_NUMBERS // len(ordered)),
            rng=np.random.default_rng(_SEED),
        ).pvalue
    )
