"""How large a difference is, beside how sure it is."""

from __future__ import annotations

import math
from collections.abc import Sequence

from daf_statistics.spread import standard_deviation


def cohens_d(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Cohen's d with the pooled standard deviation: the difference of the means over the root of the mean variance
    (Cohen, Statistical Power Analysis for the Behavioral Sciences, 1988, section 2.2, for equal numbers). It does not
    depend on how well the values are paired. None where neither varies, or below two values."""
    deviations = standard_deviation(first), standard_deviation(second)
    if deviations[0] is None or deviations[1] is None:
        return None
    pooled = math.sqrt((deviations[0] ** 2 + deviations[1] ** 2) / 2)
    return (math.fsum(first) / len(first) - math.fsum(second) / len(second)) / pooled if pooled else None


def cohens_d_paired(differences: Sequence[float]) -> float | None:
    """Cohen's d_z: the mean difference over the standard deviation of the differences (the same, section 2.3.5). None
    where they do not vary, or below two."""
    deviation = standard_deviation(differences)
    return math.fsum(differences) / len(differences) / deviation if deviation else None


def hedges_g(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Hedges' g: `cohens_d` without its bias in small samples."""
    effect = cohens_d(first, second)
    return None if effect is None else effect * bias_correction(len(first) + len(second) - 2)


def bias_correction(degrees_of_freedom: int) -> float:
    """The factor that takes the bias from a standardized difference: J(m) of Hedges, Distribution theory for Glass's
    estimator of effect size, 1981, in its exact form."""
    half = degrees_of_freedom / 2
    return math.exp(math.lgamma(half) - math.lgamma(half - 0.5)) / math.sqrt(half)


def pearson_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Pearson's correlation; None where one side does not vary."""
    if len(first) < 2 or min(first) == max(first) or min(second) == max(second):
        return None
    means = math.fsum(first) / len(first), math.fsum(second) / len(second)
    deviations = [value - means[0] for value in first], [value - means[1] for value in second]
    squares = math.fsum([a * a for a in deviations[0]]), math.fsum([b * b for b in deviations[1]])
    product = math.fsum([a * b for a, b in zip(*deviations, strict=True)])
    size = math.sqrt(squares[0]) * math.sqrt(squares[1])
    return max(-1.0, min(1.0, product / size)) if size else None


def probability_of_improvement(first: Sequence[float], second: Sequence[float]) -> float:
    """How probable it is that a value of the first is higher than one of the second; equal ones count half.

    The Mann-Whitney statistic over the number of all combinations, as Agarwal et al., Deep Reinforcement Learning at
    the Edge of the Statistical Precipice, 2021, section 4.3, compute it for one task.
    """
    import numpy as np

    ordered = np.sort(np.asarray(second, float))
    values = np.asarray(first, float)
    below, up_to = np.searchsorted(ordered, values, "left"), np.searchsorted(ordered, values, "right")
    return int((below + up_to).sum()) / 2 / len(first) / len(second)
