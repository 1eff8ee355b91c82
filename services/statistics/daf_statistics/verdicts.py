"""Verdicts: what the comparison of two policies comes to, as a word and as a sentence."""

from __future__ import annotations

from enum import Enum

from daf_statistics.design import Design, count_of
from daf_statistics.pairs import PairMeasures
from daf_statistics.power import MOST_PAIRS, pairs_needed
from daf_statistics.sequential import Standing
from daf_statistics.sign_flips import fewest_pairs

_ROUNDING = 1 + 1e-9


class Verdict(Enum):
    """What a comparison comes to."""

    FIRST_BETTER = "first better"
    SECOND_BETTER = "second better"
    EQUIVALENT = "equivalent"
    UNDECIDED = "undecided"
    DEGENERATE = "degenerate"
    INVALID = "invalid"


def verdict(
    design: Design,
    measures: PairMeasures,
    labels: tuple[str, str],
    tests: int,
    standing: Standing | None = None,
) -> tuple[Verdict, str]:
    """The verdict on two policies.

    A policy is called better only where both the adjusted test and the interval say so, or where a race has decided it.
    Equivalence goes first: by the margin, a difference within it does not matter, however sure it is.

    Args:
        design: of the comparison.
        measures: of the two, with adjusted p-values.
        labels: what the policies are called.
        tests: how many tests are in the family.
        standing: of the two in a race, if this is its test of them.
    """
    if not measures.pairs:
        return Verdict.INVALID, (
            f"There is no pair of episodes to compare {labels[0]} and {labels[1]} by: none that counts has the same "
            "mission, seed, steps and seats."
        )
    if measures.constant is not None:
        return Verdict.DEGENERATE, (
            f"{design.metric} does not vary: it is {measures.constant:g} in every episode of {labels[0]} and "
            f"{labels[1]}; choose another metric."
        )
    seen = _seen(design, measures)
    equivalent = measures.adjusted_equivalence_p_value
    if equivalent is not None and equivalent <= design.alpha * _ROUNDING:
        return Verdict.EQUIVALENT, (
            f"{labels[0]} and {labels[1]} are equivalent: their {design.metric} differs by less than the margin of "
            f"{design.margin:g} ({seen}; p of equivalence = {equivalent:.3g})."
        )
    if standing is None:
        interval = measures.interval
        clear = interval is None or interval[0] > 0 or interval[1] < 0
        better = measures.adjusted_p_value is not None and measures.adjusted_p_value <= design.alpha * _ROUNDING
        decided = better and clear
    else:
        decided = standing is Standing.DECIDED
    if decided:
        difference = measures.difference or 0.0
        higher, lower = labels if difference > 0 else labels[::-1]
        found = Verdict.FIRST_BETTER if difference > 0 else Verdict.SECOND_BETTER
        return found, f"{higher} has a higher {design.metric} than {lower}: {seen}."
    return Verdict.UNDECIDED, _undecided(design, measures, labels, tests, standing)


def _undecided(
    design: Design, measures: PairMeasures, labels: tuple[str, str], tests: int, standing: Standing | None
) -> str:
    pairs, seen = count_of(measures.pairs, "pair"), _seen(design, measures)
    if not measures.differing:
        return f"{design.metric} is equal in all {pairs} of {labels[0]} and {labels[1]}: they show no difference."
    if standing is Standing.LEFT:
        return (
            f"The race does not decide whether {labels[0]} or {labels[1]} has the higher {design.metric}, since one of "
            f"them left it, being worse than a third: {seen}."
        )
    if standing is Standing.RACING and measures.look < design.looks:
        return (
            f"It is not decided yet whether {labels[0]} or {labels[1]} has the higher {design.metric}, and both are "
            f"racing: {seen}."
        )
    if measures.differing < fewest_pairs(design.last_level(tests)):
        differ = "" if measures.differing == measures.pairs else f"of {pairs} {measures.differing} differ, and "
        problem = design.problem(measures.differing, tests)
        return f"{labels[0]} and {labels[1]} are undecided: {differ}{problem} ({seen})."
    needed = pairs_needed(measures.cohens_d_paired or 0.0, design.last_level(tests) * tests, tests=tests)
    advice = f"more than {MOST_PAIRS:,}" if needed is None else f"about {max(needed, measures.pairs + 1):,}"
    return (
        f"The episodes do not decide whether {labels[0]} or {labels[1]} has the higher {design.metric}: {seen}; "
        f"if the difference is as large as seen, {advice} pairs are needed to find it."
    )


def _seen(design: Design, measures: PairMeasures) -> str:
    seen = f"a difference of {measures.difference:g} over {count_of(measures.pairs, 'pair')}"
    if measures.look:
        seen += f" at look {measures.look} of {design.looks}"
    if measures.interval:
        low, high = measures.interval
        looks = " (not adjusted for the looks)" if measures.look else ""
        seen += f", {design.confidence * 100:g} % interval {low:g} to {high:g}{looks}"
    adjusted = "" if measures.adjusted_p_value == measures.p_value else "adjusted "
    return f"{seen}, {adjusted}p = {measures.adjusted_p_value:.3g}"
