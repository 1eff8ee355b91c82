"""Outcomes beside the messages of episodes: the same numbers, for episodes of every release, on both databases."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from daf_common.channel import raising
from daf_common.migrations import upgrade
from daf_protos.common.v1.failure_pb2 import Failure
from daf_protos.statistics.v1 import statistics_service_pb2 as pb
from daf_protos.statistics.v1.episode_pb2 import Episode, PolicyLatency, Statistics
from daf_protos.statistics.v1.metric_pb2 import Metric
from daf_statistics.episodes import LARGEST, all_finite
from daf_statistics.outcomes import from_row, latencies_of, outcome, row
from daf_statistics.store import EPISODES, FEW_EPISODES, MIGRATIONS, OUTCOMES

if TYPE_CHECKING:
    from daf_protos.statistics.v1.statistics_service_pb2_grpc import StatisticsServiceAsyncStub
    from daf_statistics.main import Statistics as Service

EVALUATION = "evaluations/e1"


def episode(index: int, reward: float, **fields: object) -> Episode:
    message = Episode(
        evaluation=EVALUATION,
        index=index,
        seed=2**32 - 1 - index,
        seats=[0, 1, 0],
        rewards=[reward, 1.0, 3.0],
        steps=10,
        max_steps=10,
        mission='{"name": "arena"}',
        agent_statistics=[Statistics(values={"heart.gained": reward})] * 3,
        map_digest=hashlib.sha256(f"map {index}".encode()).hexdigest(),
        digest=hashlib.sha256(f"{index} {reward}".encode()).hexdigest(),
    )
    message.MergeFrom(Episode(**fields))
    return message


def some_episodes(count: int) -> list[Episode]:
    return [
        episode(0, math.nan),
        episode(1, -0.5, forfeits=[Failure(subject="1", message="raised")]),
        episode(2, 1e300, approximate=True, latencies=[PolicyLatency(policy=0, steps=1, buckets=[0, 1])]),
        *(episode(index, index / 7) for index in range(3, count)),
    ]


async def record(stub: StatisticsServiceAsyncStub, episodes: list[Episode]) -> None:
    await raising(stub.RecordEpisodes(pb.RecordEpisodesRequest(episodes=episodes)))


async def summarize(stub: StatisticsServiceAsyncStub, metric: str = "reward") -> pb.SummarizeEvaluationResponse:
    request = pb.SummarizeEvaluationRequest(evaluation=EVALUATION, metric=Metric(name=metric))
    return await raising(stub.SummarizeEvaluation(request))


@given(
    rewards=st.lists(st.floats(), min_size=1, max_size=6),
    policies=st.integers(1, 4),
    seed=st.integers(0, 2**32 - 1),
    forfeits=st.sets(st.integers(0, 9), max_size=3),
    approximate=st.booleans(),
)
def test_an_outcome_is_read_as_it_was_stored(
    rewards: list[float], policies: int, seed: int, forfeits: set[int], approximate: bool
) -> None:
    message = Episode(
        evaluation=EVALUATION,
        seed=seed,
        seats=[seat % policies for seat in range(len(rewards))],
        rewards=rewards,
        forfeits=[Failure(subject=str(policy)) for policy in forfeits],
        approximate=approximate,
        latencies=[PolicyLatency(policy=3, steps=5)],
    )
    made = outcome(message)
    stored = row(EVALUATION, made)
    assert stored.pop("evaluation") == EVALUATION

    found = from_row(*stored.values())

    assert [repr(value) for value in found] == [repr(value) for value in made]  # NaN is not equal to itself
    assert list(latencies_of([found.latencies, found.latencies])) == [PolicyLatency(policy=3, steps=5)] * 2


@pytest.mark.parametrize(
    ("values", "finite"),
    [
        ([0.0, -LARGEST, LARGEST], True),
        ([], True),
        ([1.0, math.nan], False),
        ([math.nan, 1.0], False),
        ([math.inf, -math.inf], False),
        ([2 * LARGEST, -2 * LARGEST], False),
        ([-math.inf], False),
    ],
)
def test_values_are_finite_or_not_in_any_order(values: list[float], finite: bool) -> None:
    assert all_finite(values) is all_finite(values[::-1]) is finite


@pytest.mark.parametrize("count", [5, FEW_EPISODES + 3])
async def test_episodes_of_the_release_before_are_there_after_an_upgrade(
    stub: StatisticsServiceAsyncStub, service: Service, count: int
) -> None:
    await record(stub, some_episodes(count))
    before = await summarize(stub)
    with service.store.engine.begin() as connection:
        for later in ("outcomes", "metric_attempts"):
            connection.execute(sa.text(f"DROP TABLE {later}"))
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '0002'"))

    upgrade(service.store, MIGRATIONS)

    with service.store.engine.begin() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(OUTCOMES)).scalar() == count
    assert await summarize(stub) == before
    assert [(one.policy, one.episodes, one.forfeits) for one in before.policies] == [
        (0, count - 2, 0),
        (1, count - 1, 1),
    ]


@pytest.mark.parametrize("count", [5, FEW_EPISODES + 3])
async def test_episodes_that_the_release_before_records_after_the_upgrade_count(
    stub: StatisticsServiceAsyncStub, service: Service, count: int
) -> None:
    await record(stub, some_episodes(count))
    before = [await summarize(stub, metric) for metric in ("reward", "heart.gained")]

    with service.store.engine.begin() as connection:
        connection.execute(sa.delete(OUTCOMES).where(OUTCOMES.c.episode.in_([1, 2, 4])))

    assert [await summarize(stub, metric) for metric in ("reward", "heart.gained")] == before


async def test_a_statistic_is_read_from_the_same_episodes_as_the_reward(stub: StatisticsServiceAsyncStub) -> None:
    await record(stub, some_episodes(8))

    reward, statistic = [await summarize(stub, metric) for metric in ("reward", "heart.gained")]

    assert reward.digest == statistic.digest
    assert [one.episodes for one in reward.policies] == [6, 7]
    assert [one.episodes for one in statistic.policies] == [6, 5]  # of policy 1, two have no finite statistic
    assert list(reward.policies[0].values) == [(value + 3.0) / 2 for value in [-0.5, *(i / 7 for i in range(3, 8))]]
    assert list(statistic.policies[0].values) == [-0.5, *(index / 7 for index in range(3, 8))]
    assert reward.approximate
    assert statistic.approximate


async def test_an_episode_that_comes_again_leaves_one_outcome_and_deleted_ones_none(
    stub: StatisticsServiceAsyncStub, service: Service
) -> None:
    await record(stub, some_episodes(5))
    await record(stub, [episode(4, 9.0), episode(5, 1.0)])

    summary = await summarize(stub)
    await raising(stub.DeleteNumbers(pb.DeleteNumbersRequest(name=EVALUATION)))

    assert summary.episodes == 6
    assert 6.0 not in summary.policies[0].values
    with service.store.engine.begin() as connection:
        for table in (EPISODES, OUTCOMES):
            assert connection.execute(sa.select(sa.func.count()).select_from(table)).scalar() == 0
