"""Requests about comparisons, checked; and comparisons for the wire."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from daf_common import names
from daf_common.errors import InvalidArgument, ResourceExhausted, Violation
from daf_protos.statistics.v1 import comparison_pb2 as pb
from daf_protos.statistics.v1.comparison_service_pb2 import (
    ComparePoliciesRequest,
    CompareValuesRequest,
    PlanComparisonRequest,
)
from daf_protos.statistics.v1.metric_pb2 import AGGREGATION_UNSPECIFIED
from daf_statistics.comparison import ComparisonOutcome, PairOutcome, PolicyOutcome
from daf_statistics.convert import AGGREGATIONS, name_problem
from daf_statistics.design import DEFAULT_ALPHA, MAX_ALPHA, MIN_ALPHA, Design
from daf_statistics.episodes import LARGEST, Conditions
from daf_statistics.multiplicity import Family
from daf_statistics.samples import Player, Sample
from daf_statistics.sequential import MAX_LOOKS, Race
from daf_statistics.verdicts import Verdict

MAX_POLICIES = 16
MAX_SOURCES = 50
"""Of one policy."""
MAX_MISSIONS = 100
MAX_VALUES = 100_000
MAX_TESTS = 2_000
"""Of one family: each has its bootstrap."""

_FAMILIES = {
    pb.FAMILY_UNSPECIFIED: Family.HOLM,
    pb.FAMILY_HOLM: Family.HOLM,
    pb.FAMILY_BENJAMINI_HOCHBERG: Family.BENJAMINI_HOCHBERG,
}
_FAMILY_MESSAGES = {Family.HOLM: pb.FAMILY_HOLM, Family.BENJAMINI_HOCHBERG: pb.FAMILY_BENJAMINI_HOCHBERG}
_VERDICTS = {
    Verdict.FIRST_BETTER: pb.VERDICT_FIRST_BETTER,
    Verdict.SECOND_BETTER: pb.VERDICT_SECOND_BETTER,
    Verdict.EQUIVALENT: pb.VERDICT_EQUIVALENT,
    Verdict.UNDECIDED: pb.VERDICT_UNDECIDED,
    Verdict.DEGENERATE: pb.VERDICT_DEGENERATE,
    Verdict.INVALID: pb.VERDICT_INVALID,
}
_AGGREGATION_MESSAGES = {
    aggregation: message for message, aggregation in AGGREGATIONS.items() if message != AGGREGATION_UNSPECIFIED
}
_ELSEWHERE = "value"  # what a metric without a name is called


def policies_design(request: ComparePoliciesRequest) -> Design:
    """The checked design of a comparison of episodes.

    Raises:
        InvalidArgument: names all fields that are wrong.
    """
    violations = list(_design_violations(request.design, len(request.policies)))
    violations += _count_violations(len(request.policies))
    if not request.design.metric:
        violations.append(Violation("design.metric", "is empty: name `reward` or a statistic"))
    for number, policy in enumerate(request.policies[: MAX_POLICIES + 1]):
        violations += _policy_violations(policy, f"policies[{number}]", request.design.looks)
    violations += _repeated_sources(request)
    if not violations:
        violations += _repeated(labels(request), "policies", ".label")
    if violations:
        raise InvalidArgument.of(violations)
    return _design(request.design)


def labels(request: ComparePoliciesRequest) -> list[str]:
    """What the policies of a request are called."""
    return [p.label or f"{p.sources[0].evaluation.partition('/')[2]}/{p.sources[0].policy}" for p in request.policies]


def values_design(request: CompareValuesRequest) -> Design:
    """The checked design of a comparison of values from elsewhere.

    Raises:
        InvalidArgument: names all fields that are wrong.
    """
    violations = list(_design_violations(request.design, len(request.policies)))
    violations += _count_violations(len(request.policies))
    if request.design.looks > 1:
        violations.append(Violation("design.looks", "are for policies that play: compare values once"))
    count = sum(len(mission.values) for policy in request.policies for mission in policy.missions)
    if count > MAX_VALUES:
        violations.append(Violation("policies", f"have {count} values, more than {MAX_VALUES}"))
    if not violations:
        for number, policy in enumerate(request.policies):
            violations += _values_violations(policy, f"policies[{number}]")
        violations += _repeated([policy.label for policy in request.policies], "policies", ".label")
    if violations:
        raise InvalidArgument.of(violations)
    return _design(request.design)


def players_of(request: CompareValuesRequest) -> list[Player]:
    """The policies of a checked request, with their values as samples; none is a copy of another."""
    return [
        Player(
            policy.label,
            [
                Sample(
                    scenario,
                    index,
                    Conditions(mission.mission, seed, max_steps=0, agents=0, seats=()),
                    value,
                    f"{number}/{scenario}/{index}".encode(),
                )
                for scenario, mission in enumerate(policy.missions)
                for index, (seed, value) in enumerate(zip(mission.seeds, mission.values, strict=True))
            ],
        )
        for number, policy in enumerate(request.policies)
    ]


def plan_design(request: PlanComparisonRequest) -> Design:
    """The checked design of a plan.

    Raises:
        InvalidArgument: names all fields that are wrong.
    """
    violations: list[Violation] = []
    if request.pilot:
        try:
            names.COMPARISON.parse(request.pilot, "pilot")
        except InvalidArgument as error:
            violations += error.violations
    elif not 2 <= request.policies <= MAX_POLICIES:
        violations.append(Violation("policies", f"name 2 to {MAX_POLICIES} policies, not {request.policies}"))
    if not 0 <= request.missions <= MAX_MISSIONS:
        violations.append(Violation("missions", f"{request.missions} is not between 0 and {MAX_MISSIONS}"))
    if request.HasField("difference") and not 0 < abs(request.difference) <= LARGEST:
        violations.append(Violation("difference", f"{request.difference:g} is no difference that can be found"))
    if request.power and not 0 < request.power < 1:
        violations.append(Violation("power", f"{request.power:g} is not between 0 and 1"))
    violations += _design_violations(request.design, request.policies or None)
    if violations:
        raise InvalidArgument.of(violations)
    return _design(request.design)


def check_size(design: Design, players: Sequence[Player]) -> None:
    """Checks that a comparison can be computed in a reasonable time.

    Raises:
        ResourceExhausted: it has too many tests.
    """
    missions = {sample.conditions.mission for player in players for sample in player.samples}
    tests = len(missions) * len(design.pairs(len(players)))
    if tests > MAX_TESTS:
        raise ResourceExhausted(
            f"{len(missions)} missions and {len(players)} policies are {tests} tests, more than {MAX_TESTS}: "
            "name a baseline, or compare fewer at a time"
        )


def comparison_message(
    name: str,
    design: Design,
    strict: bool,
    policies: Sequence[pb.ComparedPolicy],
    outcome: ComparisonOutcome,
    race: Race | None,
) -> pb.Comparison:
    """A comparison for the wire.

    Args:
        name: its resource name.
        design: its design.
        strict: whether the design was.
        policies: what they are called and where they come from; filled with what their values come to.
        outcome: the comparison.
        race: the one that was run, if any.
    """
    message = pb.Comparison(
        name=name,
        design=pb.ComparisonDesign(
            metric=design.metric,
            alpha=design.alpha,
            margin=design.margin,
            family=_FAMILY_MESSAGES[design.family],
            baseline=design.baseline,
            episodes=design.episodes,
            strict=strict,
            aggregation=_AGGREGATION_MESSAGES[design.aggregation],
            looks=design.looks,
        ),
        policies=policies,
        pairs=[_pair_message(pair) for pair in outcome.pairs],
        missions=[
            pb.MissionComparison(
                mission=mission.mission,
                pairs=[_pair_message(pair) for pair in mission.pairs],
                policies=[_values_message(policy) for policy in mission.policies],
            )
            for mission in outcome.missions
        ],
        warnings=outcome.warnings,
        profile_thresholds=outcome.thresholds,
        race=None if race is None else _race_message(race),
    )
    for policy, found in zip(message.policies, outcome.policies, strict=True):
        policy.values.CopyFrom(_values_message(found))
        policy.profile.extend(found.profile)
    return message


def _race_message(race: Race) -> pb.Race:
    return pb.Race(
        looks=race.done,
        racing=race.racing,
        decisions=[
            pb.RaceDecision(better=one.better, worse=one.worse, look=one.look, p_value=one.p_value, level=one.level)
            for one in race.decisions
        ],
        over=race.over,
    )


def _design(message: pb.ComparisonDesign) -> Design:
    return Design(
        metric=message.metric or _ELSEWHERE,
        alpha=message.alpha or DEFAULT_ALPHA,
        margin=message.margin if message.HasField("margin") else None,
        family=_FAMILIES[message.family],
        baseline=message.baseline if message.HasField("baseline") else None,
        episodes=message.episodes,
        aggregation=AGGREGATIONS[message.aggregation],
        looks=message.looks or 1,
    )


def _design_violations(design: pb.ComparisonDesign, policies: int | None) -> Iterator[Violation]:
    if design.metric and (problem := name_problem(design.metric)):
        yield Violation("design.metric", problem)
    if design.alpha and not MIN_ALPHA <= design.alpha <= MAX_ALPHA:  # also true of NaN
        yield Violation("design.alpha", f"{design.alpha:g} is not between {MIN_ALPHA} and {MAX_ALPHA}")
    if design.HasField("margin") and not 0 < design.margin <= LARGEST:
        yield Violation("design.margin", f"{design.margin:g} is not a number above 0")
    if design.family not in _FAMILIES:
        yield Violation("design.family", f"{design.family} is not known")
    if design.HasField("baseline") and policies is not None and not 0 <= design.baseline < policies:
        yield Violation("design.baseline", f"{design.baseline} is not the number of one of {policies} policies")
    if design.episodes < 0:
        yield Violation("design.episodes", f"{design.episodes} is negative")
    if design.aggregation not in AGGREGATIONS:
        yield Violation("design.aggregation", f"{design.aggregation} is not known")
    if not 0 <= design.looks <= MAX_LOOKS:
        yield Violation("design.looks", f"{design.looks} is not between 0 and {MAX_LOOKS}")
    elif design.looks > 1:
        if 0 < design.episodes < design.looks:
            message = f"there are more than the {design.episodes} episodes, of which each look needs one"
            yield Violation("design.looks", message)
        if design.HasField("baseline"):
            yield Violation("design.baseline", "is for one look: a race compares all pairs")
        if design.family == pb.FAMILY_BENJAMINI_HOCHBERG:
            yield Violation("design.family", "Benjamini-Hochberg is for one look: a race shares alpha as Holm does")


def _count_violations(policies: int) -> list[Violation]:
    if 2 <= policies <= MAX_POLICIES:
        return []
    return [Violation("policies", f"name 2 to {MAX_POLICIES} policies, not {policies}")]


def _policy_violations(policy: pb.PolicyEpisodes, field: str, looks: int) -> Iterator[Violation]:
    most = looks if looks > 1 else MAX_SOURCES
    if not 1 <= len(policy.sources) <= most:
        each = f", one for each of {looks} looks that it took part in" if looks > 1 else ""
        yield Violation(f"{field}.sources", f"name 1 to {most} evaluations{each}, not {len(policy.sources)}")
        return
    for number, source in enumerate(policy.sources):
        try:
            names.EVALUATION.parse(source.evaluation, f"{field}.sources[{number}].evaluation")
        except InvalidArgument as error:
            yield from error.violations
        if source.policy < 0:
            message = f"{source.policy} is negative: policies are numbered from 0"
            yield Violation(f"{field}.sources[{number}].policy", message)
    if policy.label and (problem := name_problem(policy.label)):
        yield Violation(f"{field}.label", problem)


def _repeated_sources(request: ComparePoliciesRequest) -> Iterator[Violation]:
    """The first evaluation whose episodes of one policy would count twice."""
    first: dict[tuple[str, int], str] = {}
    for number, policy in enumerate(request.policies[: MAX_POLICIES + 1]):
        for at, source in enumerate(policy.sources[: MAX_SOURCES + 1]):
            field = f"policies[{number}].sources[{at}]"
            there = first.setdefault((source.evaluation, source.policy), field)
            if there != field:
                yield Violation(field, f"is the same as {there}")
                return


def _values_violations(policy: pb.PolicyValues, field: str) -> Iterator[Violation]:
    if problem := name_problem(policy.label):
        yield Violation(f"{field}.label", problem)
    if len(policy.missions) > MAX_MISSIONS:
        yield Violation(f"{field}.missions", f"there are {len(policy.missions)}, more than {MAX_MISSIONS}")
        return
    yield from _repeated([mission.mission for mission in policy.missions], f"{field}.missions", ".mission")
    for number, mission in enumerate(policy.missions):
        at = f"{field}.missions[{number}]"
        if problem := name_problem(mission.mission):
            yield Violation(f"{at}.mission", problem)
        if len(mission.seeds) != len(mission.values):
            yield Violation(f"{at}.seeds", f"there are {len(mission.seeds)} for {len(mission.values)} values")
        bad = next((n for n, value in enumerate(mission.values) if not abs(value) <= LARGEST), None)  # also NaN
        if bad is not None:
            yield Violation(f"{at}.values[{bad}]", f"{mission.values[bad]:g} is not finite")
        yield from _repeated(mission.seeds, f"{at}.seeds", "")


def _repeated(values: Sequence[object], field: str, below: str) -> Iterator[Violation]:
    first: dict[object, int] = {}
    for number, value in enumerate(values):
        if first.setdefault(value, number) != number:
            yield Violation(f"{field}[{number}]{below}", f"is the same as {field}[{first[value]}]{below}")
            return


def _values_message(policy: PolicyOutcome) -> pb.PolicyValuesSummary:
    low, high = policy.extremes or (None, None)
    middle_low, middle_high = policy.interquartile_interval or (None, None)
    return pb.PolicyValuesSummary(
        episodes=policy.episodes,
        copies=policy.copies,
        forfeits=policy.forfeits,
        mean=policy.mean,
        standard_deviation=policy.deviation,
        minimum=low,
        maximum=high,
        interquartile_mean=policy.interquartile_mean,
        interquartile_mean_low=middle_low,
        interquartile_mean_high=middle_high,
    )


def _pair_message(pair: PairOutcome) -> pb.PairComparison:
    measures = pair.measures
    low, high = measures.interval or (None, None)
    return pb.PairComparison(
        first=measures.first,
        second=measures.second,
        verdict=_VERDICTS[pair.verdict],
        sentence=pair.sentence,
        pairs=measures.pairs,
        copies=measures.copies,
        first_mean=measures.first_mean,
        second_mean=measures.second_mean,
        difference=measures.difference,
        interval_low=low,
        interval_high=high,
        interval_method=measures.interval_method,
        cohens_d=_finite(measures.cohens_d),
        cohens_d_paired=_finite(measures.cohens_d_paired),
        hedges_g=_finite(measures.hedges_g),
        p_value=measures.p_value,
        adjusted_p_value=measures.adjusted_p_value,
        test_method=measures.test_method,
        equivalence_p_value=measures.equivalence_p_value,
        adjusted_equivalence_p_value=measures.adjusted_equivalence_p_value,
        correlation=measures.correlation,
        probability_of_improvement=measures.probability_of_improvement,
        first_standard_deviation=measures.first_deviation,
        second_standard_deviation=measures.second_deviation,
        difference_standard_deviation=measures.difference_deviation,
    )


def _finite(value: float | None) -> float | None:
    """A ratio, unless its divisor was so small that it is beyond all numbers."""
    return value if value is not None and math.isfinite(value) else None
