"""Intervals of a mean difference."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

from daf_statistics.spread import standard_error, t_quantile

RESAMPLES = 9_999
RESAMPLED_PAIRS = 1000
"""From here on the central limit theorem serves as well, and resampling would take long."""

_SEED = 0
_BATCH_NUMBERS = 4_000_000


def mean_interval(strata: Sequence[Sequence[float]], confidence: float) -> tuple[tuple[float, float] | None, str]:
    """An interval of the mean of independent values, and how it was computed; None where they do not vary.

    It is the bias-corrected and accelerated bootstrap (Efron, Better bootstrap confidence intervals, 1987), with a
    fixed seed. The order of the values does not matter, and turning all signs turns the interval exactly.

    Args:
        strata: the values by mission; each mission's are drawn anew among themselves, if each has two.
        confidence: level of the interval.
    """
    values = [value for stratum in strata for value in stratum]
    error = standard_error(values)
    if not error:
        return None, "none: the differences do not vary" if error is not None else "none: one pair has no spread"
    if len(values) < RESAMPLED_PAIRS:
        several = len(strata) > 1 and min(map(len, strata)) > 1
        ends = _bootstrap(strata if several else [values], confidence)
        if ends is not None:
            return ends, "BCa bootstrap within missions" if several else "BCa bootstrap"
    mean = math.fsum(values) / len(values)
    margin = error * t_quantile(len(values) - 1, (1 + confidence) / 2)
    return (mean - margin, mean + margin), "Student's t"


def _bootstrap(strata: Sequence[Sequence[float]], confidence: float) -> tuple[float, float] | None:
    """The ends of the BCa interval; None where scipy finds none, as for values of which nearly all are equal."""
    import numpy as np
    from scipy.stats import bootstrap

    total = sum(map(len, strata))
    turned = _is_turned(strata)
    ordered = sorted(sorted(-value if turned else value for value in stratum) for stratum in strata)

    def mean(*samples: np.ndarray, axis: int = -1) -> np.ndarray:
        # scipy also calls it with one value left out
        count = sum(sample.shape[axis] for sample in samples)
        return np.asarray(sum(sample.sum(axis=axis) for sample in samples) / count)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of degenerate data, which end in NaN
        low, high = bootstrap(
            [np.asarray(stratum) for stratum in ordered],
            mean,
            n_resamples=RESAMPLES,
            batch=max(1, _BATCH_NUMBERS // total),
            vectorized=True,
            confidence_level=confidence,
            method="BCa",
            rng=np.random.default_rng(_SEED),
        ).confidence_interval
    if not (math.isfinite(low) and math.isfinite(high)):
        return None
    return (float(-high), float(-low)) if turned else (float(low), float(high))


def _is_turned(strata: Sequence[Sequence[float]]) -> bool:
    """Whether the values are looked at with the other sign: for exactly one of two that differ in their signs alone."""
    values = [value for stratum in strata for value in stratum]
    total = math.fsum(values)
    if total:
        return total < 0
    return sorted(values) < sorted(-value for value in values)
