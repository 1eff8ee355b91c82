"""Scores of teams over gRPC, on SQLite and on PostgreSQL: from recorded episodes, and what is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest

from daf_common.channel import raising
from daf_common.errors import InvalidArgument, NotFound
from daf_protos.common.v1.failure_pb2 import Failure
from daf_protos.statistics.v1 import scoring_service_pb2 as pb
from daf_protos.statistics.v1.episode_pb2 import Episode, Statistics
from daf_protos.statistics.v1.metric_pb2 import AGGREGATION_MAXIMUM, AGGREGATION_SUM, Metric
from daf_protos.statistics.v1.scoring_service_pb2_grpc import ScoringServiceStub
from daf_protos.statistics.v1.statistics_service_pb2 import RecordEpisodesRequest

if TYPE_CHECKING:
    from daf_common.service import Context
    from daf_protos.statistics.v1.scoring_service_pb2_grpc import ScoringServiceAsyncStub
    from daf_protos.statistics.v1.statistics_service_pb2_grpc import StatisticsServiceAsyncStub
    from daf_statistics.main import Statistics

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""For tests of what never reaches the database, or only reads it in a way that is tested elsewhere."""

EVALUATION = "evaluations/e1"
MISSION = json.dumps({"name": "arena", "map_seed": None})


@pytest.fixture
def scoring(service: Statistics, context: Context) -> ScoringServiceAsyncStub:
    return ScoringServiceStub(context.peer("statistics"))


def episode(scenario: int, index: int, seats: Sequence[int], rewards: Sequence[float], **fields: object) -> Episode:
    message = Episode(
        evaluation=EVALUATION,
        scenario=scenario,
        index=index,
        seed=1000 + index,
        seats=seats,
        rewards=rewards,
        steps=300,
        max_steps=300,
        mission=MISSION,
        agent_statistics=[Statistics(values={"hearts": 10 * reward}) for reward in rewards],
        game_statistics=Statistics(values={"objects": sum(rewards)}),
        map_digest=hashlib.sha256(f"{index}".encode()).hexdigest(),
        digest=hashlib.sha256(f"{scenario} {index} {rewards}".encode()).hexdigest(),
    )
    message.MergeFrom(Episode(**fields))
    return message


async def record(stub: StatisticsServiceAsyncStub, *episodes: Episode) -> None:
    await raising(stub.RecordEpisodes(RecordEpisodesRequest(episodes=episodes)))


async def record_pickup(stub: StatisticsServiceAsyncStub) -> None:
    """A candidate, 0, and a pool, 1, in two seats, on three seeds."""
    rewards = {2: [[2, 5], [5, 7], [6, 11]], 1: [[8, 1], [4, 2], [6, 2]], 0: [[1, 3], [2, 4], [3, 8]]}
    await record(
        stub,
        *(
            episode(2 - count, index, [0] * count + [1] * (2 - count), of_seats)
            for count, played in rewards.items()
            for index, of_seats in enumerate(played)
        ),
    )


async def test_value_over_replacement_of_recorded_episodes(
    stub: StatisticsServiceAsyncStub, scoring: ScoringServiceAsyncStub
) -> None:
    await record_pickup(stub)

    response = await raising(scoring.ComputeVor(pb.ComputeVorRequest(evaluation=EVALUATION)))

    (vor,) = response.missions
    assert (vor.mission, vor.pinned, vor.seeds, response.warnings) == (MISSION, False, 3, [])
    assert vor.replacement_mean == pytest.approx((2 + 3 + 5.5) / 3)
    assert [(one.candidate_seats, dict(one.pool_seats), one.episodes) for one in vor.scenarios] == [
        (2, {}, 3),
        (1, {1: 1}, 3),
    ]
    both, one = vor.scenarios
    assert (both.candidate_mean, one.candidate_mean) == (pytest.approx(6.0), pytest.approx(6.0))
    assert one.value_over_replacement == one.candidate_mean - vor.replacement_mean
    assert vor.overall == pytest.approx(6.0 - 3.5)
    for low, value, high in (
        (vor.replacement_low, vor.replacement_mean, vor.replacement_high),
        (both.low, both.value_over_replacement, both.high),
        (vor.overall_low, vor.overall, vor.overall_high),
    ):
        assert low < value < high


@on_sqlite
async def test_other_metrics_and_levels(stub: StatisticsServiceAsyncStub, scoring: ScoringServiceAsyncStub) -> None:
    await record_pickup(stub)
    asked = pb.ComputeVorRequest(evaluation=EVALUATION, metric=Metric(name="hearts"), confidence=0.5)

    reward = await raising(scoring.ComputeVor(pb.ComputeVorRequest(evaluation=EVALUATION)))
    hearts = await raising(scoring.ComputeVor(asked))

    assert hearts.missions[0].overall == pytest.approx(10 * reward.missions[0].overall)
    widths = [vor.overall_high - vor.overall_low for vor in (hearts.missions[0], reward.missions[0])]
    assert widths[0] < 10 * widths[1]


async def test_weighted_scores_of_recorded_episodes(
    stub: StatisticsServiceAsyncStub, scoring: ScoringServiceAsyncStub
) -> None:
    await record_pickup(stub)

    response = await raising(scoring.ComputeWeightedScores(pb.ComputeWeightedScoresRequest(evaluation=EVALUATION)))

    candidate, pool = response.scores
    assert (candidate.policy, candidate.episodes, candidate.mean_share) == (0, 6, 0.75)
    assert candidate.score == pytest.approx((3.5 + 6 + 8.5 + (8 + 4 + 6) / 2) / 4.5)
    assert candidate.low < candidate.score < candidate.high
    assert pool.score == pytest.approx((2 + 3 + 5.5 + (1 + 2 + 2) / 2) / 4.5)


async def test_cross_play_of_recorded_episodes(
    stub: StatisticsServiceAsyncStub, scoring: ScoringServiceAsyncStub
) -> None:
    teams = {(0, 0): [[1, 1], [2, 2]], (0, 1): [[5, 3], [9, 3]], (1, 1): [[2, 2], [4, 4]]}
    await record(
        stub,
        *(
            episode(scenario, index, seats, rewards)
            for scenario, (seats, played) in enumerate(teams.items())
            for index, rewards in enumerate(played)
        ),
    )

    response = await raising(scoring.ComputeCrossPlay(pb.ComputeCrossPlayRequest(evaluation=EVALUATION)))
    largest = await raising(
        scoring.ComputeCrossPlay(
            pb.ComputeCrossPlayRequest(
                evaluation=EVALUATION, metric=Metric(name="hearts", aggregation=AGGREGATION_MAXIMUM)
            )
        )
    )

    (found,) = response.missions
    cell = found.cells[1]
    assert (cell.first, cell.second, cell.team_mean, cell.first_mean, cell.second_mean) == (0, 1, 5.0, 7.0, 3.0)
    assert cell.cross_play_gain == pytest.approx(((4 - 1.5) + (6 - 3)) / 2)
    assert cell.gain_low < cell.cross_play_gain < cell.gain_high
    assert not found.cells[0].HasField("cross_play_gain")
    assert [(rank.policy, rank.mean, rank.best_rank, rank.worst_rank) for rank in found.ranking] == [
        (0, 5.0, 1, 2),
        (1, 5.0, 1, 2),
    ]
    assert largest.missions[0].cells[1].team_mean == pytest.approx(70.0)


@on_sqlite
async def test_forfeits_are_left_out_and_told(
    stub: StatisticsServiceAsyncStub, scoring: ScoringServiceAsyncStub
) -> None:
    await record_pickup(stub)
    before = await raising(scoring.ComputeVor(pb.ComputeVorRequest(evaluation=EVALUATION)))
    await record(stub, episode(1, 3, [0, 1], [1e6, 1e6], forfeits=[Failure(reason="POLICY_FAILED", subject="1")]))

    after = await raising(scoring.ComputeVor(pb.ComputeVorRequest(evaluation=EVALUATION)))

    assert after.missions == before.missions
    assert list(after.warnings) == ["1 of 10 episodes do not count: a policy forfeited, or a value is not finite."]


@on_sqlite
async def test_approximate_episodes_are_told(
    stub: StatisticsServiceAsyncStub, scoring: ScoringServiceAsyncStub
) -> None:
    await record(stub, *(episode(0, index, [0, 1], [index, 1.0], approximate=True) for index in range(3)))

    response = await raising(scoring.ComputeCrossPlay(pb.ComputeCrossPlayRequest(evaluation=EVALUATION)))

    assert any("approximate" in warning for warning in response.warnings)


@on_sqlite
@pytest.mark.parametrize(
    ("fields", "field", "message"),
    [
        ({"evaluation": "trials/x"}, "evaluation", "evaluations/"),
        ({"candidate": -1}, "candidate", "negative"),
        ({"candidate": 2}, "candidate", "2 has no seat in any episode; there are 0, 1"),
        ({"metric": Metric(name="heart")}, "metric.name", "'heart' is not known"),
        ({"metric": Metric()}, "metric.name", "is empty"),
        ({"metric": Metric(name="reward", aggregation=AGGREGATION_SUM)}, "metric.aggregation", "only the mean"),
        ({"metric": Metric(name="reward", aggregation=99)}, "metric.aggregation", "99 is not known"),
        ({"confidence": 1.0}, "confidence", "1 is not between 0.5 and 0.999"),
        ({"confidence": -0.5}, "confidence", "-0.5 is not between"),
        ({"confidence": float("nan")}, "confidence", "nan is not between"),
    ],
)
async def test_wrong_requests_name_the_field(
    stub: StatisticsServiceAsyncStub,
    scoring: ScoringServiceAsyncStub,
    fields: dict[str, object],
    field: str,
    message: str,
) -> None:
    await record_pickup(stub)

    with pytest.raises(InvalidArgument, match=message) as caught:
        await raising(scoring.ComputeVor(pb.ComputeVorRequest(**{"evaluation": EVALUATION, **fields})))

    assert [violation.field for violation in caught.value.violations] == [field]


@on_sqlite
async def test_an_evaluation_without_episodes_is_not_found(scoring: ScoringServiceAsyncStub) -> None:
    for call in (
        scoring.ComputeVor(pb.ComputeVorRequest(evaluation=EVALUATION)),
        scoring.ComputeWeightedScores(pb.ComputeWeightedScoresRequest(evaluation=EVALUATION)),
        scoring.ComputeCrossPlay(pb.ComputeCrossPlayRequest(evaluation=EVALUATION)),
    ):
        with pytest.raises(NotFound, match="no episodes of evaluations/e1 are recorded"):
            await raising(call)
