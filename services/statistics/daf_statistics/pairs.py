"""What the paired values of two policies come to, as numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from daf_statistics.design import Design
from daf_statistics.effect_sizes import (
    cohens_d,
    cohens_d_paired,
    hedges_g,
    pearson_correlation,
    probability_of_improvement,
)
from daf_statistics.equivalence import equivalence_p_value
from daf_statistics.intervals import mean_interval
from daf_statistics.multiplicity import adjusted
from daf_statistics.samples import Block
from daf_statistics.sequential import sequential_p_value
from daf_statistics.sign_flips import sign_flip_test
from daf_statistics.spread import standard_deviation


@dataclass(frozen=True)
class PairMeasures:
    """The comparison of two policies. None where something cannot be computed; differences: first minus second."""

    first: int
    second: int
    """Numbers of the policies."""
    pairs: int
    copies: int
    look: int = 0
    """The last look of a race that both took part in; 0 without a race."""
    differing: int = 0
    """How many of the pairs differ: only they can decide."""
    constant: float | None = None
    """The one value that both have in all pairs."""
    first_mean: float | None = None
    second_mean: float | None = None
    difference: float | None = None
    interval: tuple[float, float] | None = None
    interval_method: str = ""
    cohens_d: float | None = None
    cohens_d_paired: float | None = None
    hedges_g: float | None = None
    p_value: float | None = None
    adjusted_p_value: float | None = None
    test_method: str = ""
    equivalence_p_value: float | None = None
    adjusted_equivalence_p_value: float | None = None
    correlation: float | None = None
    probability_of_improvement: float | None = None
    first_deviation: float | None = None
    second_deviation: float | None = None
    difference_deviation: float | None = None


def measure(
    design: Design, policies: tuple[int, int], missions: Mapping[str, Sequence[Block]], copies: int, tests: int
) -> PairMeasures:
    """Measures two policies.

    Args:
        design: of the comparison.
        policies: their numbers.
        missions: pairs of their samples by mission, none a copy of another.
        copies: how many pairs were copies.
        tests: how many tests are in the family.
    """
    strata = [[(first.value, second.value) for first, second in blocks] for blocks in missions.values()]
    values = [pair for stratum in strata for pair in stratum]
    if not values:
        return PairMeasures(*policies, pairs=0, copies=copies)
    first, second = [value for value, _ in values], [value for _, value in values]
    differences = [a - b for a, b in values]
    count = len(values)
    measures = PairMeasures(
        *policies,
        pairs=count,
        copies=copies,
        differing=sum(difference != 0 for difference in differences),
        first_mean=math.fsum(first) / count,
        second_mean=math.fsum(second) / count,
        difference=math.fsum(differences) / count,
        first_deviation=standard_deviation(first),
        second_deviation=standard_deviation(second),
        difference_deviation=standard_deviation(differences),
    )
    if min(*first, *second) == max(*first, *second):
        return replace(measures, constant=first[0])
    interval, method = mean_interval([[a - b for a, b in stratum] for stratum in strata], design.confidence)
    test = sign_flip_test(differences, design.alpha, tests)
    improvements = [probability_of_improvement(*zip(*stratum, strict=True)) for stratum in strata]
    return replace(
        measures,
        interval=interval,
        interval_method=method,
        cohens_d=cohens_d(first, second),
        cohens_d_paired=cohens_d_paired(differences),
        hedges_g=hedges_g(first, second),
        p_value=test.p_value,
        test_method=test.method,
        equivalence_p_value=None if design.margin is None else equivalence_p_value(differences, design.margin),
        correlation=pearson_correlation(first, second),
        probability_of_improvement=math.fsum(improvements) / len(improvements),
    )


def at_look(measures: PairMeasures, look: int) -> PairMeasures:
    """The measures of two policies whose episodes a race has looked at so often."""
    if measures.interval is None:
        return replace(measures, look=look)
    return replace(measures, look=look, interval_method=f"{measures.interval_method}, not adjusted for the looks")


def adjust(design: Design, measured: Sequence[PairMeasures]) -> list[PairMeasures]:
    """The measures of one family with their adjusted p-values: for the looks, if there are several, and for the number
    of tests. Tests of equivalence are a family of their own."""
    differing = _adjusted(design, [_over_looks(design, one.look, one.p_value) for one in measured])
    one_sided = [_one_sided_over_looks(design, one.look, one.equivalence_p_value) for one in measured]
    equivalent = _adjusted(design, one_sided)
    return [
        replace(one, adjusted_p_value=p, adjusted_equivalence_p_value=q)
        for one, p, q in zip(measured, differing, equivalent, strict=True)
    ]


def _adjusted(design: Design, p_values: Sequence[float | None]) -> list[float | None]:
    found = iter(adjusted([p for p in p_values if p is not None], design.family, tests=len(p_values)))
    return [None if p is None else next(found) for p in p_values]


def _over_looks(design: Design, look: int, p_value: float | None) -> float | None:
    return sequential_p_value(p_value, look, design.looks) if look and p_value is not None else p_value


def _one_sided_over_looks(design: Design, look: int, p_value: float | None) -> float | None:
    """Half of the two-sided one: that a path crosses both bounds is as good as impossible."""
    if not look or p_value is None or p_value >= 0.5:
        return p_value
    return sequential_p_value(2 * p_value, look, design.looks) / 2
