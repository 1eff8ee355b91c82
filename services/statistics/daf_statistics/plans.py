"""Plans of comparisons: how many episodes a design needs."""

from __future__ import annotations

import math

from daf_protos.statistics.v1.comparison_pb2 import Comparison, PairComparison
from daf_protos.statistics.v1.comparison_service_pb2 import PairPlan, PlanComparisonRequest, PlanComparisonResponse
from daf_statistics.design import Design
from daf_statistics.power import DEFAULT_POWER, pairs_needed, power
from daf_statistics.sign_flips import fewest_pairs


def plan(request: PlanComparisonRequest, design: Design, pilot: Comparison | None) -> PlanComparisonResponse:
    """What a design needs; see the response.

    Args:
        request: checked.
        design: the one in it.
        pilot: the comparison that it names, whose spread and correlation are taken for true.
    """
    policies = request.policies or (len(pilot.policies) if pilot else 0)
    missions = request.missions or (len(pilot.missions) if pilot else 0) or 1
    tests = len(design.pairs(policies))
    fewest = fewest_pairs(design.last_level(tests))
    response = PlanComparisonResponse(tests=tests, fewest_pairs=fewest, fewest_episodes=math.ceil(fewest / missions))
    planned = design.episodes * missions
    if design.episodes:
        if problem := design.problem(planned, tests):
            episodes = f" ({response.fewest_episodes} episodes of each mission)" if missions > 1 else ""
            response.warnings.append(f"{problem}{episodes}.")
    if pilot and request.HasField("difference"):
        wanted = request.power or DEFAULT_POWER
        for pair in pilot.pairs:
            if pair.HasField("difference_standard_deviation"):
                response.pairs.append(_pair_plan(pair, request.difference, design, wanted, tests, missions, planned))
    return response


def _pair_plan(
    pair: PairComparison, difference: float, design: Design, wanted: float, tests: int, missions: int, planned: int
) -> PairPlan:
    deviation = pair.difference_standard_deviation  # squared: var_1 + var_2 - 2 correlation sd_1 sd_2
    effect = abs(difference) / deviation if deviation else math.inf
    pairs = pairs_needed(effect, design.last_level(tests) * tests, wanted, tests)
    return PairPlan(
        first=pair.first,
        second=pair.second,
        difference_standard_deviation=deviation,
        correlation=pair.correlation if pair.HasField("correlation") else None,
        pairs=pairs,
        episodes=None if pairs is None else math.ceil(pairs / missions),
        planned_power=power(effect, planned, design.last_level(tests)) if planned > 1 else None,
    )
