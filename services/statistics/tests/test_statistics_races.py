"""Races and policies of several evaluations over gRPC: recomputed from the episodes of each look, and never twice."""

from __future__ import annotations

import hashlib
import random
from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np
import pytest

from daf_common.channel import raising
from daf_common.errors import FailedPrecondition, InvalidArgument
from daf_protos.statistics.v1 import comparison_pb2 as pb
from daf_protos.statistics.v1 import comparison_service_pb2 as api
from daf_protos.statistics.v1.episode_pb2 import Episode, Statistics
from daf_protos.statistics.v1.metric_pb2 import AGGREGATION_MAXIMUM, AGGREGATION_MEAN, AGGREGATION_SUM, Aggregation
from daf_protos.statistics.v1.statistics_service_pb2 import RecordEpisodesRequest, SummarizeEvaluationRequest
from daf_statistics.comparison_servicer import APPROXIMATE
from daf_statistics.sequential import nominal_levels

if TYPE_CHECKING:
    from daf_protos.statistics.v1.comparison_service_pb2_grpc import ComparisonServiceAsyncStub
    from daf_protos.statistics.v1.statistics_service_pb2_grpc import StatisticsServiceAsyncStub

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

GROUP = 10
DESIGN = {"metric": "reward", "looks": 3, "episodes": 3 * GROUP}


def look(number: int) -> str:
    return f"evaluations/race-l{number}"


async def play(
    stub: StatisticsServiceAsyncStub,
    evaluation: str,
    values: dict[int, list[float]],
    seed: int,
    mission: str = "m",
    **fields: object,
) -> None:
    """Each policy alone on the same seeds, one agent each."""
    episodes = []
    for policy, of_policy in values.items():
        for index, value in enumerate(of_policy):
            episode = Episode(
                evaluation=evaluation,
                scenario=policy + (100 if mission != "m" else 0),
                index=index,
                seed=seed + index,
                seats=[policy],
                rewards=[value],
                mission=mission,
                map_digest=hashlib.sha256(f"{mission} {seed + index}".encode()).hexdigest(),
                digest=hashlib.sha256(f"{evaluation} {policy} {index} {mission} {value}".encode()).hexdigest(),
            )
            episode.MergeFrom(Episode(**fields))
            episodes.append(episode)
    await raising(stub.RecordEpisodes(RecordEpisodesRequest(episodes=episodes)))


def policy(label: str, *sources: tuple[str, int]) -> pb.PolicyEpisodes:
    return pb.PolicyEpisodes(label=label, sources=[pb.EpisodeSource(evaluation=e, policy=p) for e, p in sources])


async def compare(stub: ComparisonServiceAsyncStub, *policies: pb.PolicyEpisodes, **design: object) -> pb.Comparison:
    request = api.ComparePoliciesRequest(design=pb.ComparisonDesign(**{**DESIGN, **design}), policies=policies)
    return (await raising(stub.ComparePolicies(request))).comparison


def level_values(count: int, seed: int) -> list[float]:
    generator = random.Random(seed)
    return [generator.gauss(0, 1) for _ in range(count)]


async def play_race(stub: StatisticsServiceAsyncStub) -> dict[str, pb.PolicyEpisodes]:
    """Three looks: C is far worse and leaves at the second; A is a little better than B, which shows at none."""
    a, noise = level_values(3 * GROUP, 1), level_values(3 * GROUP, 2)
    b = [value - 0.05 - 0.5 * n for value, n in zip(a, noise, strict=True)]
    c = [value - 3 - abs(n) for value, n in zip(a, noise, strict=True)]
    for number in (1, 2, 3):
        part = slice((number - 1) * GROUP, number * GROUP)
        playing = {0: a[part], 1: b[part], 2: c[part]} if number < 3 else {0: a[part], 1: b[part]}
        await play(stub, look(number), playing, seed=1000 + (number - 1) * GROUP)
    return {
        "A": policy("A", *((look(number), 0) for number in (1, 2, 3))),
        "B": policy("B", *((look(number), 1) for number in (1, 2, 3))),
        "C": policy("C", *((look(number), 2) for number in (1, 2))),
    }


async def test_a_race_is_made_anew_from_the_episodes_of_its_looks(
    stub: StatisticsServiceAsyncStub, comparisons: ComparisonServiceAsyncStub
) -> None:
    racing = await play_race(stub)

    made = await compare(comparisons, *racing.values())

    race = made.race
    assert (race.looks, race.over, list(race.racing)) == (3, True, [0, 1])
    assert {(one.better, one.worse, one.look) for one in race.decisions} == {(0, 2, 2), (1, 2, 2)}
    assert {one.level for one in race.decisions} == {nominal_levels(3, 0.05 / 3)[1]}  # both have the smallest p-value
    assert all(one.p_value <= one.level for one in race.decisions)
    pairs = {(pair.first, pair.second): pair for pair in made.pairs}
    assert [pairs[pair].pairs for pair in ((0, 1), (0, 2), (1, 2))] == [30, 20, 20]
    assert pairs[0, 2].verdict == pairs[1, 2].verdict == pb.VERDICT_FIRST_BETTER
    assert pairs[0, 1].verdict == pb.VERDICT_UNDECIDED
    assert "at look 2 of 3" in pairs[0, 2].sentence
    for pair in made.pairs:
        assert pair.adjusted_p_value >= pair.p_value
        assert (pair.adjusted_p_value <= 0.05) is (pair.verdict == pb.VERDICT_FIRST_BETTER)
        assert pair.interval_method.endswith("not adjusted for the looks")
    assert (made.design.looks, made.design.aggregation) == (3, AGGREGATION_MEAN)
    assert made.warnings == []
    assert await compare(comparisons, *racing.values()) != made  # another name and time, and nothing else
    again = await compare(comparisons, *racing.values())
    for field in ("race", "pairs", "policies", "warnings"):
        assert getattr(again, field) == getattr(made, field)


async def test_the_order_of_the_policies_of_a_race_does_not_matter(
    stub: StatisticsServiceAsyncStub, comparisons: ComparisonServiceAsyncStub
) -> None:
    racing = await play_race(stub)

    found = set()
    for order in permutations("ABC"):
        made = await compare(comparisons, *(racing[label] for label in order))
        found.add(
            (
                frozenset((order[one.better], order[one.worse], one.p_value, one.level) for one in made.race.decisions),
                frozenset(
                    (frozenset((order[pair.first], order[pair.second])), abs(pair.difference), pair.adjusted_p_value)
                    for pair in made.pairs
                ),
            )
        )

    assert len(found) == 1


async def test_a_race_that_is_not_over_says_who_goes_on(
    stub: StatisticsServiceAsyncStub, comparisons: ComparisonServiceAsyncStub
) -> None:
    racing = await play_race(stub)
    first = [policy(label, (look(1), number)) for number, label in enumerate("ABC")]

    made = await compare(comparisons, *first, strict=True)

    assert (made.race.looks, made.race.over, list(made.race.racing)) == (1, False, [0, 1, 2])
    assert {pair.verdict for pair in made.pairs} == {pb.VERDICT_UNDECIDED}
    assert "not decided yet" in made.pairs[0].sentence
    assert made.warnings == []
    with pytest.raises(InvalidArgument) as refused:  # B is racing and has no second look
        await compare(comparisons, policy("A", (look(1), 0), (look(2), 0)), *first[1:])
    assert refused.value.violations[0].field == "policies[1].sources"
    with pytest.raises(InvalidArgument, match="left the race at look 2") as refused:
        await compare(comparisons, racing["A"], racing["B"], policy("C", (look(1), 2), (look(2), 2), (look(3), 2)))
    assert refused.value.violations[0].field == "policies[2].sources"


async def test_a_race_on_one_pinned_map_ends_undecided_and_says_why(
    stub: StatisticsServiceAsyncStub, comparisons: ComparisonServiceAsyncStub
) -> None:
    for number in (1, 2, 3):
        same = {"map_digest": "1" * 64}
        await play(stub, look(number), {0: [2.0] * GROUP, 1: [1.0] * GROUP}, seed=1000 + number * GROUP, **same)
    sources = [policy(label, *((look(k), number) for k in (1, 2, 3))) for number, label in enumerate("AB")]

    made = await compare(comparisons, *sources)

    assert (made.race.looks, made.race.over, list(made.race.racing)) == (3, True, [0, 1])
    assert (made.pairs[0].verdict, made.pairs[0].pairs, made.pairs[0].copies) == (pb.VERDICT_UNDECIDED, 1, 29)
    assert any("29 of 30 episodes of A are copies" in warning for warning in made.warnings)
    assert any("cannot reach alpha 0.05 in 3 looks" in warning for warning in made.warnings)
    with pytest.raises(FailedPrecondition, match="in 3 looks"):
        await compare(comparisons, *sources, strict=True)


async def test_equivalence_is_found_in_a_race_too_at_a_level_for_its_looks(
    stub: StatisticsServiceAsyncStub, comparisons: ComparisonServiceAsyncStub
) -> None:
    racing = await play_race(stub)
    two = racing["A"], racing["B"]

    raced = (await compare(comparisons, *two, margin=0.5)).pairs[0]
    fixed = (await compare(comparisons, *two, margin=0.5, looks=1)).pairs[0]

    assert raced.verdict == fixed.verdict == pb.VERDICT_EQUIVALENT
    assert raced.equivalence_p_value == fixed.equivalence_p_value == fixed.adjusted_equivalence_p_value
    assert raced.adjusted_equivalence_p_value > fixed.adjusted_equivalence_p_value


async def test_missions_of_a_race_have_p_values_for_its_looks(
    stub: StatisticsServiceAsyncStub, comparisons: ComparisonServiceAsyncStub
) -> None:
    a, b = level_values(2 * GROUP, 1), level_values(2 * GROUP, 2)
    for number, mission in ((1, "m"), (2, "m"), (1, "n"), (2, "n")):
        part = slice((number - 1) * GROUP, number * GROUP)
        await play(stub, look(number), {0: a[part], 1: b[part]}, seed=number * 100, mission=mission)

    made = await compare(comparisons, *(policy(x, (look(1), n), (look(2), n)) for n, x in enumerate("AB")), looks=2)

    assert made.pairs[0].pairs == 40
    for mission in made.missions:
        (pair,) = mission.pairs
        assert pair.pairs == 20
        assert pair.adjusted_p_value > pair.p_value


async def test_several_evaluations_are_as_one(
    stub: StatisticsServiceAsyncStub, comparisons: ComparisonServiceAsyncStub
) -> None:
    first, second = level_values(12, 3), level_values(12, 4)
    await play(stub, "evaluations/whole", {0: first, 1: second}, seed=1000)
    for name, part in (("z", slice(4)), ("a", slice(4, 12))):
        await play(stub, f"evaluations/{name}", {0: first[part]}, seed=1000 + part.indices(12)[0])
    await play(stub, "evaluations/b", {7: second}, seed=1000)
    design = {"looks": 1, "episodes": 12}

    whole = await compare(
        comparisons, policy("A", ("evaluations/whole", 0)), policy("B", ("evaluations/whole", 1)), **design
    )
    parts = [("evaluations/z", 0), ("evaluations/a", 0)]
    for order in (parts, parts[::-1]):
        made = await compare(comparisons, policy("A", *order), policy("B", ("evaluations/b", 7)), **design)
        assert list(made.pairs) == list(whole.pairs)
        assert [one.values for one in made.policies] == [one.values for one in whole.policies]


async def test_the_same_episodes_never_count_twice(
    stub: StatisticsServiceAsyncStub, comparisons: ComparisonServiceAsyncStub
) -> None:
    values = level_values(8, 1)
    for evaluation in ("evaluations/one", "evaluations/two"):
        await play(stub, evaluation, {0: values, 1: [value - 1 - value / 10 for value in values]}, seed=5)
    both = [policy(label, ("evaluations/one", n), ("evaluations/two", n)) for n, label in enumerate("AB")]

    made = await compare(comparisons, *both, looks=1)

    assert (made.pairs[0].pairs, made.pairs[0].copies) == (8, 8)
    assert made.pairs[0].p_value == 2 / 2**8
    for wrong, field in (
        ([policy("A", ("evaluations/one", 0), ("evaluations/one", 0)), both[1]], "policies[0].sources[1]"),
        ([both[0], policy("B", ("evaluations/two", 1), ("evaluations/two", 0))], "policies[1].sources[1]"),
        ([policy("A"), both[1]], "policies[0].sources"),
        ([policy("A", *[("evaluations/one", n) for n in range(51)]), both[1]], "policies[0].sources"),
    ):
        with pytest.raises(InvalidArgument) as refused:
            await compare(comparisons, *wrong, looks=1)
        assert refused.value.violations[0].field == field


@pytest.mark.parametrize(
    ("design", "field"),
    [
        ({"looks": -1}, "design.looks"),
        ({"looks": 51}, "design.looks"),
        ({"looks": 5, "episodes": 4}, "design.looks"),
        ({"baseline": 0}, "design.baseline"),
        ({"family": pb.FAMILY_BENJAMINI_HOCHBERG}, "design.family"),
        ({"aggregation": 9}, "design.aggregation"),
        ({"looks": 2}, "policies[0].sources"),
    ],
)
async def test_wrong_designs_of_races_are_refused(
    stub: StatisticsServiceAsyncStub, comparisons: ComparisonServiceAsyncStub, design: dict[str, object], field: str
) -> None:
    racing = await play_race(stub)

    with pytest.raises(InvalidArgument) as refused:
        await compare(comparisons, racing["A"], racing["B"], **design)

    assert refused.value.violations[0].field == field
    values = api.CompareValuesRequest(design=pb.ComparisonDesign(looks=2), policies=[pb.PolicyValues(label="A")] * 2)
    with pytest.raises(InvalidArgument, match="compare values once"):
        await raising(comparisons.CompareValues(values))


@pytest.mark.parametrize(
    ("aggregation", "values"),
    [("MEAN", [2.0, 4.5]), ("SUM", [4.0, 9.0]), ("MINIMUM", [1.0, 4.0]), ("MAXIMUM", [3.0, 5.0])],
)
@pytest.mark.parametrize("metric", ["reward", "heart.gained", "game"])
async def test_summaries_and_comparisons_aggregate_alike(
    stub: StatisticsServiceAsyncStub,
    comparisons: ComparisonServiceAsyncStub,
    metric: str,
    aggregation: str,
    values: list[float],
) -> None:
    number = Aggregation.Value(f"AGGREGATION_{aggregation}")
    seats = [(1.0, 3.0), (5.0, 4.0)]
    for index in range(8):
        for scenario, rewards in enumerate(seats):
            episode = Episode(
                evaluation=look(1),
                scenario=scenario,
                index=index,
                seed=index,
                seats=[scenario, scenario],
                rewards=rewards if metric == "reward" else [0.0, 0.0],
                agent_statistics=[Statistics(values={"heart.gained": value}) for value in rewards],
                game_statistics=Statistics(values={"game": 7.0 + scenario}),
                map_digest=str(index),
                digest=hashlib.sha256(f"{scenario} {index}".encode()).hexdigest(),
            )
            await raising(stub.RecordEpisodes(RecordEpisodesRequest(episodes=[episode])))
    if metric == "game":
        values = [7.0, 8.0]

    asked = SummarizeEvaluationRequest(evaluation=look(1), metric={"name": metric, "aggregation": number})
    summary = await raising(stub.SummarizeEvaluation(asked))
    made = await compare(
        comparisons,
        policy("A", (look(1), 0)),
        policy("B", (look(1), 1)),
        metric=metric,
        looks=1,
        aggregation=number,
        episodes=0,
    )

    assert [one.mean for one in summary.policies] == values
    assert [one.values.mean for one in made.policies] == values
    assert made.design.aggregation == number


async def test_unset_aggregations_are_kept_as_the_mean_and_unknown_ones_are_refused(
    stub: StatisticsServiceAsyncStub,
) -> None:
    await play(stub, look(1), {0: [1.0]}, seed=0)
    for aggregation in (AGGREGATION_SUM, AGGREGATION_MAXIMUM):
        asked = SummarizeEvaluationRequest(evaluation=look(1), metric={"name": "reward", "aggregation": aggregation})
        assert (await raising(stub.SummarizeEvaluation(asked))).policies[0].mean == 1.0
    with pytest.raises(InvalidArgument) as refused:
        await raising(
            stub.SummarizeEvaluation(
                SummarizeEvaluationRequest(evaluation=look(1), metric={"name": "reward", "aggregation": 9})
            )
        )
    assert refused.value.violations[0].field == "metric.aggregation"


async def test_approximate_episodes_are_said_and_never_mixed_with_exact_ones(
    stub: StatisticsServiceAsyncStub, comparisons: ComparisonServiceAsyncStub
) -> None:
    values = {0: level_values(8, 1), 1: level_values(8, 2)}
    await play(stub, "evaluations/exact", values, seed=0)
    await play(stub, "evaluations/fast", values, seed=0, approximate=True)

    made = await compare(
        comparisons, policy("A", ("evaluations/fast", 0)), policy("B", ("evaluations/fast", 1)), looks=1
    )
    with pytest.raises(FailedPrecondition, match=r"evaluations/fast.*evaluations/exact") as refused:
        await compare(comparisons, policy("A", ("evaluations/exact", 0)), policy("B", ("evaluations/fast", 1)), looks=1)

    assert APPROXIMATE in made.warnings
    assert refused.value.reason == "MIXED_EXACTNESS"
    exact = await compare(
        comparisons, policy("A", ("evaluations/exact", 0)), policy("B", ("evaluations/exact", 1)), looks=1
    )
    assert APPROXIMATE not in exact.warnings
    assert np.isclose(exact.pairs[0].difference, made.pairs[0].difference)
