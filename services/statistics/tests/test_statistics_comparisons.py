"""Comparisons over gRPC, on SQLite and on PostgreSQL: who is paired with whom, what is kept, and what is refused."""

from __future__ import annotations

import asyncio
import hashlib
import math
import random
import statistics
from typing import TYPE_CHECKING

import pytest

from daf_common.channel import raising
from daf_common.errors import AlreadyExists, DafError, FailedPrecondition, InvalidArgument, NotFound
from daf_protos.common.v1.failure_pb2 import Failure
from daf_protos.statistics.v1 import comparison_pb2 as pb
from daf_protos.statistics.v1 import comparison_service_pb2 as api
from daf_protos.statistics.v1.episode_pb2 import Episode
from daf_protos.statistics.v1.statistics_service_pb2 import RecordEpisodesRequest

if TYPE_CHECKING:
    from daf_protos.statistics.v1.comparison_service_pb2_grpc import ComparisonServiceAsyncStub
    from daf_protos.statistics.v1.statistics_service_pb2_grpc import StatisticsServiceAsyncStub

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""For tests of what never reaches the database, or only reads it in a way that is tested elsewhere."""

EVALUATION = "evaluations/e1"
GAINS = [0.9, 1.1, 1.3, 0.7, 1.2, 0.8, 1.0, 1.4]


def episode(
    index: int,
    rewards: list[float],
    seats: list[int],
    scenario: int = 0,
    evaluation: str = EVALUATION,
    mission: str = "mission",
    **fields: object,
) -> Episode:
    message = Episode(
        evaluation=evaluation,
        scenario=scenario,
        index=index,
        seed=1000 + index,
        seats=seats,
        rewards=rewards,
        steps=300,
        max_steps=300,
        mission=mission,
        map_digest=hashlib.sha256(f"{mission} {index}".encode()).hexdigest(),
        digest=hashlib.sha256(f"{evaluation} {scenario} {index} {rewards}".encode()).hexdigest(),
    )
    message.MergeFrom(Episode(**fields))
    return message


async def record(stub: StatisticsServiceAsyncStub, *episodes: Episode) -> None:
    await raising(stub.RecordEpisodes(RecordEpisodesRequest(episodes=episodes)))


async def record_solo(stub: StatisticsServiceAsyncStub, *policies: list[float], mission: str = "mission") -> None:
    """Each policy alone, in a scenario of its own, on the same seeds."""
    first = 0 if mission == "mission" else 100
    for number, values in enumerate(policies):
        played = [episode(i, [value], [number], first + number, mission=mission) for i, value in enumerate(values)]
        await record(stub, *played)


def request(*policies: int | tuple[str, int, str], **design: object) -> api.ComparePoliciesRequest:
    request_fields = {name: design.pop(name) for name in ("request_id", "comparison_id") if name in design}
    return api.ComparePoliciesRequest(
        design=pb.ComparisonDesign(**{"metric": "reward", **design}),
        policies=[
            pb.PolicyEpisodes(
                sources=[pb.EpisodeSource(evaluation=EVALUATION, policy=p)], label="ABCDEFG"[p] if p >= 0 else ""
            )
            if isinstance(p, int)
            else pb.PolicyEpisodes(sources=[pb.EpisodeSource(evaluation=p[0], policy=p[1])], label=p[2])
            for p in policies
        ],
        **request_fields,
    )


async def compare(
    stub: ComparisonServiceAsyncStub, *policies: int | tuple[str, int, str], **design: object
) -> pb.Comparison:
    return (await raising(stub.ComparePolicies(request(*policies, **design)))).comparison


def draws(count: int, mean: float, seed: int) -> list[float]:
    generator = random.Random(seed)
    return [generator.gauss(mean, 1.0) for _ in range(count)]


async def test_policies_that_play_alone_are_paired_by_their_seeds(
    stub: StatisticsServiceAsyncStub, comparisons: ComparisonServiceAsyncStub
) -> None:
    await record_solo(stub, [i + gain for i, gain in enumerate(GAINS)], [float(i) for i in range(8)])

    (pair,) = (await compare(comparisons, 0, 1)).pairs
    (turned,) = (await compare(comparisons, 1, 0)).pairs

    assert (pair.verdict, pair.pairs, pair.copies) == (pb.VERDICT_FIRST_BETTER, 8, 0)
    assert pair.difference == pytest.approx(statistics.mean(GAINS))
    assert pair.p_value == pair.adjusted_p_value == pytest.approx(2 / 2**8)
    assert pair.test_method == "exact sign flips"
    assert pair.correlation == pytest.approx(
        statistics.correlation([i + gain for i, gain in enumerate(GAINS)], range(8))
    )
    assert 0.7 < pair.interval_low < pair.difference < pair.interval_high < 1.4
    assert pair.sentence.startswith("A has a higher reward than B: a difference of 1.05 over 8 pairs, 95 % interval")
    assert turned.verdict == pb.VERDICT_SECOND_BETTER
    assert (turned.difference, turned.interval_low, turned.interval_high) == (
        -pair.difference,
        -pair.interval_high,
        -pair.interval_low,
    )


async def test_policies_of_several_evaluations_are_compared(
    stub: StatisticsServiceAsyncStub, comparisons: ComparisonServiceAsyncStub
) -> None:
    other = "evaluations/e2"
    await record_solo(stub, [i + gain for i, gain in enumerate(GAINS)])
    await record(stub, *(episode(i, [float(i)], [3], evaluation=other) for i in range(8)))

    comparison = await compare(comparisons, (EVALUATION, 0, ""), (other, 3, ""))

    assert comparison.pairs[0].pairs == 8
    assert [policy.label for policy in comparison.policies] == ["e1/0", "e2/3"]
    assert comparison.policies[1].episodes.sources[0].evaluation == other


async def test_policies_of_one_team_are_paired_within_their_episodes(
    stub: StatisticsServiceAsyncStub, comparisons: ComparisonServiceAsyncStub
) -> None:
    await record(stub, *(episode(i, [3.0 + i, 1.0], [0, 1] if i % 2 else [1, 0]) for i in range(8)))

    (pair,) = (await compare(comparisons, 0, 1)).pairs

    expected = [(3.0 + i - 1.0) * (1 if i % 2 else -1) for i in range(8)]
    assert (pair.pairs, pair.difference) == (8, pytest.approx(statistics.mean(expected)))


@on_sqlite
async def test_missions_are_kept_apart_and_pooled(
    stub: StatisticsServiceAsyncStub, comparisons: ComparisonServiceAsyncStub
) -> None:
    await record_solo(stub, [1.0 + i for i in range(4)], [3.0 + i for i in range(4)], mission="mission")
    await record_solo(stub, [50.0 + i for i in range(4)], [90.0 - i for i in range(4)], mission="another")

    comparison = await compare(comparisons, 0, 1)

    assert [mission.mission for mission in comparison.missions] == ["another", "mission"]
    assert [mission.pairs[0].difference for mission in comparison.missions] == [pytest.approx(-37.0), -2.0]
    assert [mission.pairs[0].pairs for mission in comparison.missions] == [4, 4]
    (pooled,) = comparison.pairs
    assert (pooled.pairs, pooled.difference) == (8, pytest.approx((-37 - 2) / 2))
    assert pooled.verdict == pb.VERDICT_SECOND_BETTER
    assert pooled.interval_method == "BCa bootstrap within missions"
    assert comparison.missions[0].policies[1].mean == 88.5
    assert comparison.warnings == [
        "On single missions, 4 pairs cannot reach alpha 0.05 shared by 2 tests: at least 7 that differ are needed."
    ]


@on_sqlite
@pytest.mark.parametrize("change", [{"seed": 5}, {"mission": "other"}, {"max_steps": 7}, {"seats": [1]}])
async def test_episodes_under_other_conditions_are_no_pairs(
    stub: StatisticsServiceAsyncStub, comparisons: ComparisonServiceAsyncStub, change: dict[str, object]
) -> None:
    other = "evaluations/e2"
    played = episode(0, [2.0], [1], evaluation=other)
    for name in change:
        played.ClearField(name)
    played.MergeFrom(Episode(**change))
    if "seats" in change:
        played.seats[:] = [1, 1]
        played.rewards[:] = [2.0, 2.0]
    await record(stub, episode(0, [1.0], [0]))
    await record(stub, played)

    (pair,) = (await compare(comparisons, (EVALUATION, 0, "A"), (other, 1, "B"))).pairs

    assert (pair.verdict, pair.pairs) == (pb.VERDICT_INVALID, 0)
    assert not pair.HasField("p_value")


@on_sqlite
async def test_copies_never_raise_the_number_of_pairs_and_are_said(
    stub: StatisticsServiceAsyncStub, comparisons: ComparisonServiceAsyncStub
) -> None:
    same = {"map_digest": "1" * 64}
    await record(stub, *(episode(i, [2.0], [0], **same) for i in range(20)))
    await record(stub, *(episode(i, [1.0], [1], 1, **same) for i in range(20)))

    comparison = await compare(comparisons, 0, 1)

    (pair,) = comparison.pairs
    assert (pair.verdict, pair.pairs, pair.copies) == (pb.VERDICT_UNDECIDED, 1, 19)
    assert "at least 6" in pair.sentence
    assert (comparison.policies[0].values.episodes, comparison.policies[0].values.copies) == (1, 19)
    assert any("19 of 20 episodes of A are copies" in warning for warning in comparison.warnings)


@on_sqlite
async def test_equal_values_on_different_maps_stay_samples(
    stub: StatisticsServiceAsyncStub, comparisons: ComparisonServiceAsyncStub
) -> None:
    await record_solo(stub, [2.0] * 8, [1.0] * 8)

    (pair,) = (await compare(comparisons, 0, 1)).pairs

    assert (pair.verdict, pair.pairs, pair.copies) == (pb.VERDICT_FIRST_BETTER, 8, 0)
    assert not pair.HasField("interval_low")
    assert not pair.HasField("cohens_d")


@on_sqlite
async def test_forfeits_do_not_count_and_are_said(
    stub: StatisticsServiceAsyncStub, comparisons: ComparisonServiceAsyncStub
) -> None:
    await record_solo(stub, [i + gain for i, gain in enumerate(GAINS)])
    for i in range(8):
        forfeits = [Failure(subject="1", message="raised")] if i < 2 else []
        await record(stub, episode(i, [float(i)], [1], 1, forfeits=forfeits))

    comparison = await compare(comparisons, 0, 1, episodes=8)

    assert (comparison.pairs[0].pairs, comparison.policies[1].values.forfeits) == (6, 2)
    assert "B forfeited 2 episodes, which do not count." in comparison.warnings
    assert "B has 6 of 8 planned episodes." in comparison.warnings


@on_sqlite
async def test_a_policy_without_episodes_makes_its_pairs_invalid_and_no_others(
    stub: StatisticsServiceAsyncStub, comparisons: ComparisonServiceAsyncStub
) -> None:
    await record_solo(stub, [i + gain for i, gain in enumerate(GAINS)], [float(i) for i in range(8)])

    comparison = await compare(comparisons, 0, 1, 6)

    assert [pair.verdict for pair in comparison.pairs] == [
        pb.VERDICT_FIRST_BETTER,
        pb.VERDICT_INVALID,
        pb.VERDICT_INVALID,
    ]
    assert comparison.pairs[0].adjusted_p_value == pytest.approx(3 * 2 / 2**8)  # the family is as it was declared
    assert "G has no episode that counts." in comparison.warnings
    assert comparison.policies[0].values.HasField("interquartile_mean")


@on_sqlite
async def test_a_baseline_is_compared_with_every_other_and_with_holm_or_without(
    stub: StatisticsServiceAsyncStub, comparisons: ComparisonServiceAsyncStub
) -> None:
    base = draws(12, 0.0, 1)
    await record_solo(
        stub, base, *([b + 0.4 * k + 0.6 * e for b, e in zip(base, draws(12, 0.0, k), strict=True)] for k in (2, 3, 4))
    )

    holm = await compare(comparisons, 0, 1, 2, 3, baseline=0)
    exploring = await compare(comparisons, 0, 1, 2, 3, baseline=0, family=pb.FAMILY_BENJAMINI_HOCHBERG)

    assert [(pair.first, pair.second) for pair in holm.pairs] == [(1, 0), (2, 0), (3, 0)]
    raw = [pair.p_value for pair in holm.pairs]
    ranked = sorted(raw)
    assert sorted(pair.adjusted_p_value for pair in holm.pairs) == pytest.approx(
        [min(1.0, max((3 - j) * ranked[j] for j in range(i + 1))) for i in range(3)]
    )
    assert sorted(pair.adjusted_p_value for pair in exploring.pairs) == pytest.approx(
        [min(min(1.0, ranked[j] * 3 / (j + 1)) for j in range(i, 3)) for i in range(3)]
    )
    assert holm.design.family == pb.FAMILY_HOLM


@on_sqlite
async def test_policies_that_differ_by_less_than_the_margin_are_equivalent(
    stub: StatisticsServiceAsyncStub, comparisons: ComparisonServiceAsyncStub
) -> None:
    base = draws(20, 5.0, 1)
    await record_solo(stub, base, [b + 0.01 * e for b, e in zip(base, draws(20, 0.2, 2), strict=True)])

    (within,) = (await compare(comparisons, 0, 1, margin=0.1)).pairs
    (without,) = (await compare(comparisons, 0, 1)).pairs
    (beyond,) = (await compare(comparisons, 0, 1, margin=1e-9)).pairs

    assert within.verdict == pb.VERDICT_EQUIVALENT
    assert "by less than the margin of 0.1" in within.sentence
    assert within.equivalence_p_value < 0.001
    assert without.verdict != pb.VERDICT_EQUIVALENT
    assert not without.HasField("equivalence_p_value")
    assert beyond.verdict != pb.VERDICT_EQUIVALENT


@on_sqlite
async def test_a_design_that_cannot_decide_is_warned_of_and_refused_if_strict(
    stub: StatisticsServiceAsyncStub, comparisons: ComparisonServiceAsyncStub
) -> None:
    await record_solo(stub, *([float(i * k) for i in range(5)] for k in (3, 2, 1)))

    comparison = await compare(comparisons, 0, 1, 2)

    assert {pair.verdict for pair in comparison.pairs} == {pb.VERDICT_UNDECIDED}
    assert comparison.warnings == [
        "5 pairs cannot reach alpha 0.05 shared by 3 tests: at least 7 that differ are needed."
    ]
    with pytest.raises(FailedPrecondition, match="at least 7"):
        await compare(comparisons, 0, 1, 2, strict=True)
    assert len((await raising(comparisons.ListComparisons(api.ListComparisonsRequest()))).comparisons) == 1


async def test_a_comparison_is_kept_with_its_design_and_made_once(
    stub: StatisticsServiceAsyncStub, comparisons: ComparisonServiceAsyncStub
) -> None:
    await record_solo(stub, [i + gain for i, gain in enumerate(GAINS)], [float(i) for i in range(8)])
    asked = {"request_id": "r1", "comparison_id": "mine", "alpha": 0.01, "margin": 0.5, "episodes": 8}

    made = await asyncio.gather(*(compare(comparisons, 0, 1, **asked) for _ in range(6)))

    assert len({one.SerializeToString(deterministic=True) for one in made}) == 1
    got = (await raising(comparisons.GetComparison(api.GetComparisonRequest(name="comparisons/mine")))).comparison
    assert got == made[0]
    assert (got.design.alpha, got.design.margin, got.design.episodes, got.design.metric) == (0.01, 0.5, 8, "reward")
    assert got.create_time.seconds > 0
    with pytest.raises(AlreadyExists):
        await compare(comparisons, 0, 1, **{**asked, "alpha": 0.02})
    with pytest.raises(AlreadyExists):
        await compare(comparisons, 0, 1, comparison_id="mine")


async def test_comparisons_are_listed_newest_first_and_deleted(
    stub: StatisticsServiceAsyncStub, comparisons: ComparisonServiceAsyncStub
) -> None:
    await record_solo(stub, [1.0, 2.0], [0.0, 3.0])
    made = [(await compare(comparisons, 0, 1)).name for _ in range(3)]

    async def page(token: str) -> api.ListComparisonsResponse:
        return await raising(comparisons.ListComparisons(api.ListComparisonsRequest(page_size=2, page_token=token)))

    first = await page("")
    rest = await page(first.next_page_token)

    assert [one.name for one in (*first.comparisons, *rest.comparisons)] == made[::-1]
    assert rest.next_page_token == ""
    await raising(comparisons.DeleteComparison(api.DeleteComparisonRequest(name=made[1])))
    assert [one.name for one in (await page("")).comparisons] == [made[2], made[0]]
    for call, message in (
        (comparisons.GetComparison, api.GetComparisonRequest(name=made[1])),
        (comparisons.DeleteComparison, api.DeleteComparisonRequest(name=made[1])),
    ):
        with pytest.raises(NotFound, match=made[1]):
            await raising(call(message))


def values(**policies: list[float]) -> list[pb.PolicyValues]:
    return [
        pb.PolicyValues(label=label, missions=[pb.MissionValues(mission="m", seeds=range(len(of)), values=of)])
        for label, of in policies.items()
    ]


async def test_values_from_elsewhere_are_compared_as_recorded_ones_are(
    stub: StatisticsServiceAsyncStub, comparisons: ComparisonServiceAsyncStub
) -> None:
    first, second = draws(15, 0.6, 1), draws(15, 0.0, 2)
    await record_solo(stub, first, second)
    recorded = await compare(comparisons, 0, 1, margin=0.1)

    asked = api.CompareValuesRequest(
        design=pb.ComparisonDesign(metric="reward", margin=0.1), policies=values(A=first, B=second)
    )
    given = (await raising(comparisons.CompareValues(asked))).comparison

    assert list(given.pairs) == list(recorded.pairs)
    assert [policy.values for policy in given.policies] == [policy.values for policy in recorded.policies]
    assert given.profile_thresholds == recorded.profile_thresholds


@on_sqlite
async def test_values_from_elsewhere_are_paired_by_their_seeds_whatever_their_order(
    comparisons: ComparisonServiceAsyncStub,
) -> None:
    def of(label: str, seeds: list[int], bonus: float) -> pb.PolicyValues:
        missions = [pb.MissionValues(mission=m, seeds=seeds, values=[seed + bonus for seed in seeds]) for m in "mn"]
        return pb.PolicyValues(label=label, missions=missions if bonus else missions[::-1])

    asked = api.CompareValuesRequest(policies=[of("A", [1, 2, 3, 4], 0.5), of("B", [4, 3, 1, 9], 0.0)])
    (pair,) = (await raising(comparisons.CompareValues(asked))).comparison.pairs

    assert (pair.pairs, pair.difference, pair.difference_standard_deviation) == (6, 0.5, 0.0)


@on_sqlite
async def test_a_plan_says_how_many_episodes_are_needed(
    stub: StatisticsServiceAsyncStub, comparisons: ComparisonServiceAsyncStub
) -> None:
    spread = math.sqrt(19 / 20)  # so that the differences have a standard deviation of exactly 1
    pilot_values = values(A=[0.3 + (spread if i % 2 else -spread) for i in range(20)], B=[0.0] * 20)
    made = await raising(comparisons.CompareValues(api.CompareValuesRequest(policies=pilot_values)))

    plan = await raising(
        comparisons.PlanComparison(
            api.PlanComparisonRequest(
                pilot=made.comparison.name, difference=0.5, design=pb.ComparisonDesign(episodes=34)
            )
        )
    )
    bare = await raising(
        comparisons.PlanComparison(
            api.PlanComparisonRequest(policies=3, missions=2, design=pb.ComparisonDesign(metric="reward", episodes=2))
        )
    )

    (pair,) = plan.pairs
    assert pair.difference_standard_deviation == pytest.approx(1.0)
    assert (plan.tests, plan.fewest_pairs, pair.pairs, pair.episodes) == (1, 6, 34, 34)  # Cohen 1988: 34 for d = 0.5
    assert 0.8 <= pair.planned_power < 0.82
    assert plan.warnings == []
    assert (bare.tests, bare.fewest_pairs, bare.fewest_episodes) == (3, 7, 4)
    assert "at least 7" in bare.warnings[0]
    with pytest.raises(FailedPrecondition, match="at least 7"):
        await raising(
            comparisons.PlanComparison(
                api.PlanComparisonRequest(policies=3, design=pb.ComparisonDesign(episodes=2, strict=True))
            )
        )


MEGABYTE = "x" * (1 << 20)
WRONG = [
    (request(0), "policies"),
    (request(*([0] * 17)), "policies"),
    (request(0, 0), "policies[1].sources[0]"),
    (request(("e1", 0, "A"), 1), "policies[0].sources[0].evaluation"),
    (request((EVALUATION, -1, "A"), 1), "policies[0].sources[0].policy"),
    (request((EVALUATION, 0, "B"), 1), "policies[1].label"),
    (request((EVALUATION, 0, "a\0b"), 1), "policies[0].label"),
    (request((EVALUATION, 0, MEGABYTE), 1), "policies[0].label"),
    (request(0, 1, metric=""), "design.metric"),
    (request(0, 1, metric="\0"), "design.metric"),
    (request(0, 1, metric="no.such.statistic"), "design.metric"),
    (request(0, 1, alpha=math.nan), "design.alpha"),
    (request(0, 1, alpha=1.0), "design.alpha"),
    (request(0, 1, margin=0.0), "design.margin"),
    (request(0, 1, margin=math.inf), "design.margin"),
    (request(0, 1, family=99), "design.family"),
    (request(0, 1, baseline=2), "design.baseline"),
    (request(0, 1, episodes=-1), "design.episodes"),
    (request(0, 1, comparison_id="Not An Id"), "comparison_id"),
    (request(0, 1, request_id="a\0b"), "request_id"),
    (api.CompareValuesRequest(policies=values(A=[1.0])), "policies"),
    (api.CompareValuesRequest(policies=[*values(A=[1.0]), *values(A=[1.0])]), "policies[1].label"),
    (api.CompareValuesRequest(policies=values(A=[1.0], B=[0.0, math.nan])), "policies[1].missions[0].values[1]"),
    (api.CompareValuesRequest(policies=values(A=[1.0], B=[-math.inf])), "policies[1].missions[0].values[0]"),
    (api.CompareValuesRequest(policies=values(A=[1.0], B=[0.0] * 100_001)), "policies"),
    (
        api.CompareValuesRequest(
            policies=[
                *values(A=[1.0]),
                pb.PolicyValues(label="B", missions=[pb.MissionValues(mission="m", seeds=[1, 1], values=[1, 2])]),
            ]
        ),
        "policies[1].missions[0].seeds[1]",
    ),
    (
        api.CompareValuesRequest(
            policies=[
                *values(A=[1.0]),
                pb.PolicyValues(label="B", missions=[pb.MissionValues(mission="m", seeds=[1], values=[1, 2])]),
            ]
        ),
        "policies[1].missions[0].seeds",
    ),
    (api.PlanComparisonRequest(), "policies"),
    (api.PlanComparisonRequest(policies=2, missions=-1), "missions"),
    (api.PlanComparisonRequest(policies=2, difference=math.nan), "difference"),
    (api.PlanComparisonRequest(policies=2, difference=0.0), "difference"),
    (api.PlanComparisonRequest(policies=2, power=1.0), "power"),
    (api.PlanComparisonRequest(pilot="evaluations/e1"), "pilot"),
    (api.GetComparisonRequest(name="evaluations/e1"), "name"),
    (api.ListComparisonsRequest(page_size=-1), "page_size"),
]


@on_sqlite
@pytest.mark.parametrize(
    ("asked", "field"), WRONG, ids=[f"{number}-{field}" for number, (_, field) in enumerate(WRONG)]
)
async def test_wrong_requests_are_refused_and_nothing_is_kept(
    stub: StatisticsServiceAsyncStub, comparisons: ComparisonServiceAsyncStub, asked: object, field: str
) -> None:
    await record_solo(stub, [1.0, 2.0], [0.0, 3.0])
    call = {
        api.ComparePoliciesRequest: comparisons.ComparePolicies,
        api.CompareValuesRequest: comparisons.CompareValues,
        api.PlanComparisonRequest: comparisons.PlanComparison,
        api.GetComparisonRequest: comparisons.GetComparison,
        api.ListComparisonsRequest: comparisons.ListComparisons,
    }[type(asked)]

    with pytest.raises(InvalidArgument) as refused:
        await raising(call(asked))

    assert refused.value.violations[0].field == field
    assert not (await raising(comparisons.ListComparisons(api.ListComparisonsRequest()))).comparisons


@on_sqlite
async def test_an_unknown_metric_lists_the_known_and_evaluations_without_episodes_are_not_found(
    stub: StatisticsServiceAsyncStub, comparisons: ComparisonServiceAsyncStub
) -> None:
    await record_solo(stub, [1.0, 2.0], [0.0, 3.0])

    with pytest.raises(InvalidArgument, match="known are: reward, "):
        await compare(comparisons, 0, 1, metric="hearts")
    with pytest.raises(NotFound, match="evaluations/e9"):
        await compare(comparisons, 0, ("evaluations/e9", 0, ""))
    with pytest.raises(DafError, match="comparisons/none"):
        await raising(comparisons.PlanComparison(api.PlanComparisonRequest(pilot="comparisons/none")))


@on_sqlite
async def test_a_known_statistic_that_no_episode_has_is_zero_and_so_degenerate(
    stub: StatisticsServiceAsyncStub, comparisons: ComparisonServiceAsyncStub
) -> None:
    await record_solo(stub, [1.0, 2.0], [0.0, 3.0])

    (pair,) = (await compare(comparisons, 0, 1, metric="heart.lost")).pairs

    assert (pair.verdict, pair.difference) == (pb.VERDICT_DEGENERATE, 0.0)
    assert "heart.lost does not vary" in pair.sentence
