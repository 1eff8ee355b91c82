"""Comparison of two policies, pair by pair: an interval, a test, and a verdict with a sentence.

The mean difference gets a bias-corrected and accelerated (BCa) bootstrap interval, and the hypothesis of no difference
the sign-flip permutation test, both from scipy with a fixed seed: the same episodes always give the same answer. A
policy is called better only where both agree.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from daf_statistics.summary import standard_error, t_quantile

DEFAULT_CONFIDENCE = 0.95
MIN_CONFIDENCE, MAX_CONFIDENCE = 0.5, 0.999
"""Above, the resamples are too few for the test ever to reject."""

RESAMPLES = 9999
RESAMPLED_PAIRS = 1000
"""From here on the limit theorems serve as well, and resampling would take long."""

POWER = 0.8
MOST_PAIRS = 10_000
"""The most that an advice on the number of episodes names."""

_SEED = 0


class Verdict(Enum):
    """What a comparison comes to."""

    FIRST_BETTER = "first better"
    SECOND_BETTER = "second better"
    UNDECIDED = "undecided"
    DEGENERATE = "degenerate"
    INVALID = "invalid"


@dataclass(frozen=True)
class Comparison:
    """The outcome of a comparison; difference: first minus second."""

    verdict: Verdict
    sentence: str
    pairs: int
    difference: float | None = None
    interval: tuple[float, float] | None = None
    p_value: float | None = None
    correlation: float | None = None
    method: str = ""


def compare(metric: str, first: Sequence[float], second: Sequence[float], confidence: float) -> Comparison:
    """Compares two policies by their values of a metric in pairs of episodes, of which none is a copy of another."""
    count = len(first)
    if not count:
        return Comparison(Verdict.INVALID, "There is no pair of episodes to compare.", 0)
    differences = [a - b for a, b in zip(first, second, strict=True)]
    difference = math.fsum(differences) / count
    if min(*first, *second) == max(*first, *second):
        sentence = f"{metric} does not vary: it is {first[0]:g} in every episode of both; choose another metric."
        return Comparison(Verdict.DEGENERATE, sentence, count, difference)

    interval, method = mean_interval(differences, confidence)
    p_value = sign_flip_p_value(differences)
    correlation = pearson_correlation(first, second)
    verdict, sentence = _verdict(metric, differences, interval, p_value, confidence)
    return Comparison(verdict, sentence, count, difference, interval, p_value, correlation, method)


def mean_interval(values: Sequence[float], confidence: float) -> tuple[tuple[float, float] | None, str]:
    """An interval of the mean of independent values, and how it was computed; None where they do not vary."""
    error = standard_error(values)
    if not error:
        return None, "none: the differences do not vary" if error is not None else "none: one pair has no spread"
    if len(values) < RESAMPLED_PAIRS:
        import numpy as np
        from scipy.stats import bootstrap

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of degenerate data, which is dealt with below
            low, high = bootstrap(
                (np.asarray(values),),
                np.mean,
                n_resamples=RESAMPLES,
                confidence_level=confidence,
                method="BCa",
                rng=np.random.default_rng(_SEED),
            ).confidence_interval
        if math.isfinite(low) and math.isfinite(high):
            return (float(low), float(high)), "BCa bootstrap"
    mean = math.fsum(values) / len(values)
    margin = error * t_quantile(len(values) - 1, confidence)
    return (mean - margin, mean + margin), "Student's t"


def sign_flip_p_value(differences: Sequence[float]) -> float:
    """Two-sided p-value of the hypothesis that each difference could as well have had the other sign.

    Exact up to 13 pairs, by random flips up to RESAMPLED_PAIRS, then by the normal limit of the flips' distribution.
    """
    squares = math.fsum(difference**2 for difference in differences)
    if squares == 0.0 or len(differences) == 1:
        return 1.0
    if len(differences) >= RESAMPLED_PAIRS:
        return math.erfc(abs(math.fsum(differences)) / math.sqrt(2 * squares))
    import numpy as np
    from scipy.stats import permutation_test

    return float(
        permutation_test(
            (np.asarray(differences),),
            np.mean,
            permutation_type="samples",
            n_resamples=RESAMPLES,
            rng=np.random.default_rng(_SEED),
        ).pvalue
    )


def fewest_pairs(confidence: float) -> int:
    """How many pairs must differ before the sign-flip test can reject at all: its smallest p-value is 2/2^n."""
    return math.ceil(math.log2(2 / (1 - confidence)) - 1e-9)


def pairs_needed(differences: Sequence[float], confidence: float) -> int | None:
    """How many pairs a paired t-test needs to find, with a power of 80 %, the effect seen; None above MOST_PAIRS."""
    from scipy.special import nctdtr

    error = standard_error(differences)
    effect = abs(math.fsum(differences) / len(differences)) / (error * math.sqrt(len(differences))) if error else 0.0

    def power(count: int) -> float:
        # Only that of finding the right sign: the other tail adds nothing here, and is NaN in scipy where it is small.
        return 1.0 - float(nctdtr(count - 1, effect * math.sqrt(count), t_quantile(count - 1, confidence)))

    low, high = fewest_pairs(confidence), MOST_PAIRS
    if power(high) < POWER:
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle) >= POWER else (middle + 1, high)
    return low


def pearson_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Pearson's correlation; None where one side does not vary."""
    import numpy as np

    if min(first) == max(first) or min(second) == max(second):
        return None
    return float(np.corrcoef(first, second)[0, 1])


def _verdict(
    metric: str, differences: Sequence[float], interval: tuple[float, float] | None, p_value: float, confidence: float
) -> tuple[Verdict, str]:
    count, differing = len(differences), sum(difference != 0 for difference in differences)
    difference, needed = math.fsum(differences) / count, fewest_pairs(confidence)
    if not differing:
        return Verdict.UNDECIDED, f"{metric} is equal in all {_pairs(count)}: they show no difference."
    seen = f"a difference of {difference:g} over {_pairs(count)}"
    if interval:
        seen += f", {confidence * 100:g} % interval {interval[0]:g} to {interval[1]:g}"
    seen += f", p = {p_value:.3g}"
    if differing < needed:
        fewer = _pairs(count) if differing == count else f"{_pairs(count)} of which {differing} differ"
        return Verdict.UNDECIDED, (
            f"{fewer} cannot decide at {confidence * 100:g} % confidence: at least {needed} that differ are needed "
            f"({seen})."
        )
    clear = interval is None or interval[0] > 0 or interval[1] < 0
    if p_value <= 1 - confidence and clear:
        verdict, which = (Verdict.FIRST_BETTER, "first") if difference > 0 else (Verdict.SECOND_BETTER, "second")
        return verdict, f"The {which} has the higher {metric}: {seen}."
    pairs = pairs_needed(differences, confidence)
    advice = f"more than {MOST_PAIRS}" if pairs is None else f"about {max(pairs, count + 1)}"
    return Verdict.UNDECIDED, (
        f"The episodes do not decide which has the higher {metric}: {seen}; "
        f"if the difference is as large as seen, {advice} pairs are needed to find it."
    )


def _pairs(count: int) -> str:
    return f"{count} pair" if count == 1 else f"{count} pairs"
