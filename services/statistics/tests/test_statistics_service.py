"""The statistics service over gRPC, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import hashlib
import math
import statistics
from typing import TYPE_CHECKING

import pytest
import scipy.stats
import sqlalchemy as sa

import daf_common.server
import daf_common.store
from daf_cogames.catalog import catalog
from daf_common.channel import raising
from daf_common.errors import DafError, InvalidArgument, NotFound, ResourceExhausted, Unavailable
from daf_common.faults import Faults
from daf_protos.common.v1.failure_pb2 import Failure
from daf_protos.statistics.v1 import statistics_service_pb2 as pb
from daf_protos.statistics.v1.episode_pb2 import Episode, Statistics
from daf_protos.statistics.v1.metric_pb2 import AGGREGATION_SUM, Metric
from daf_statistics import servicer
from daf_statistics.store import EPISODES, FEW_EPISODES, METRICS

if TYPE_CHECKING:
    from daf_protos.statistics.v1.statistics_service_pb2_grpc import StatisticsServiceAsyncStub
    from daf_statistics.main import Statistics as Service

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""For tests of what never reaches the database."""

JOB = "trainingJobs/j1"
EVALUATION = "evaluations/e1"


def point(step: int, **values: float) -> pb.MetricPoint:
    message = pb.MetricPoint(step=step, agent_steps=step * 100, values=values)
    message.time.FromMilliseconds(1_700_000_000_000 + step)
    return message


def episode(
    index: int,
    rewards: list[float],
    seats: list[int] | None = None,
    scenario: int = 0,
    evaluation: str = EVALUATION,
    **fields: object,
) -> Episode:
    message = Episode(
        evaluation=evaluation,
        scenario=scenario,
        index=index,
        seed=1000 + index,
        seats=seats or [0] * len(rewards),
        rewards=rewards,
        steps=300,
        max_steps=300,
        mission="mission",
        map_digest=hashlib.sha256(f"map {index}".encode()).hexdigest(),
        digest=hashlib.sha256(f"{evaluation} {scenario} {index} {rewards}".encode()).hexdigest(),
    )
    message.MergeFrom(Episode(**fields))
    return message


async def record(stub: StatisticsServiceAsyncStub, *episodes: Episode) -> int:
    return (await raising(stub.RecordEpisodes(pb.RecordEpisodesRequest(episodes=episodes)))).recorded


async def summarize(stub: StatisticsServiceAsyncStub, metric: str = "reward") -> pb.SummarizeEvaluationResponse:
    request = pb.SummarizeEvaluationRequest(evaluation=EVALUATION, metric=Metric(name=metric))
    return await raising(stub.SummarizeEvaluation(request))


async def read(stub: StatisticsServiceAsyncStub, **fields: object) -> dict[str, tuple[list[int], list[float]]]:
    answer = await raising(stub.ReadMetrics(pb.ReadMetricsRequest(source=JOB, **fields)))
    return {series.metric: (list(series.steps), list(series.values)) for series in answer.series}


async def test_metrics_are_read_back_by_name_and_step(stub: StatisticsServiceAsyncStub) -> None:
    points = [point(2, loss=0.5, reward=1.0), point(0, loss=0.7), point(1, loss=0.6)]

    recorded = await raising(stub.RecordMetrics(pb.RecordMetricsRequest(source=JOB, points=points)))

    assert recorded.recorded == 4
    assert await read(stub) == {"loss": ([0, 1, 2], [0.7, 0.6, 0.5]), "reward": ([2], [1.0])}
    assert await read(stub, metrics=["loss"], after_step=0) == {"loss": ([1, 2], [0.6, 0.5])}
    answer = await raising(stub.ReadMetrics(pb.ReadMetricsRequest(source=JOB, metrics=["reward"])))
    assert answer.series[0].agent_steps == [200]
    assert answer.series[0].times[0].ToMilliseconds() == 1_700_000_000_002
    assert (await raising(stub.ListMetrics(pb.ListMetricsRequest(source=JOB)))).metrics == ["loss", "reward"]


async def test_the_first_value_of_a_step_stays_when_a_resumed_run_repeats_it(stub: StatisticsServiceAsyncStub) -> None:
    await raising(stub.RecordMetrics(pb.RecordMetricsRequest(source=JOB, points=[point(1, loss=0.6)])))

    again = [point(1, loss=9.9, entropy=2.0), point(2, loss=0.5)]
    recorded = await raising(stub.RecordMetrics(pb.RecordMetricsRequest(source=JOB, points=again)))

    assert recorded.recorded == 2
    assert await read(stub) == {"loss": ([1, 2], [0.6, 0.5]), "entropy": ([1], [2.0])}


async def test_a_source_that_went_back_loses_its_points_after_that(stub: StatisticsServiceAsyncStub) -> None:
    other = "trainingJobs/other"
    steps = [point(step, loss=1.0, reward=1.0) for step in range(1, 6)]
    for source in (JOB, other):
        await raising(stub.RecordMetrics(pb.RecordMetricsRequest(source=source, points=steps)))

    back = pb.RecordMetricsRequest(source=JOB, after_step=2, points=[point(2, loss=9.0), point(3, loss=3.0)])
    for _ in range(2):  # sent again, it changes nothing
        await raising(stub.RecordMetrics(back))
        assert await read(stub) == {"loss": ([1, 2, 3], [1.0, 1.0, 3.0]), "reward": ([1, 2], [1.0, 1.0])}
    await raising(stub.RecordMetrics(pb.RecordMetricsRequest(source=JOB, after_step=0)))
    assert await read(stub) == {}
    kept = await raising(stub.ReadMetrics(pb.ReadMetricsRequest(source=other, metrics=["loss"])))
    assert list(kept.series[0].steps) == [1, 2, 3, 4, 5]


async def test_values_that_are_not_finite_are_stored_as_such(stub: StatisticsServiceAsyncStub) -> None:
    points = [
        point(1, loss=math.inf, reward=1.0),
        pb.MetricPoint(step=2, non_finite=["loss"], values={"loss": 1.0, "reward": math.nan}),
    ]

    await raising(stub.RecordMetrics(pb.RecordMetricsRequest(source=JOB, points=points)))

    series = await read(stub)
    assert [math.isnan(value) for value in series["loss"][1]] == [True, True]
    assert [math.isnan(value) for value in series["reward"][1]] == [False, True]


async def test_a_long_series_is_thinned_evenly_and_keeps_its_last_point(stub: StatisticsServiceAsyncStub) -> None:
    points = [point(step, loss=float(step)) for step in range(1001)]
    await raising(stub.RecordMetrics(pb.RecordMetricsRequest(source=JOB, points=points)))

    assert await read(stub, max_points=5) == {"loss": ([0, 250, 500, 750, 1000], [0.0, 250.0, 500.0, 750.0, 1000.0])}
    assert await read(stub, max_points=1) == {"loss": ([1000], [1000.0])}


@on_sqlite
@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.RecordMetricsRequest(), "source"),
        (pb.RecordMetricsRequest(source="trainingJobs/\x00"), "source"),
        (pb.RecordMetricsRequest(source="x" * 1_000_000), "source"),
        (pb.RecordMetricsRequest(source=JOB, after_step=-1), "after_step"),
        (pb.RecordMetricsRequest(source=JOB, points=[pb.MetricPoint(step=-1)]), "points[0].step"),
        (pb.RecordMetricsRequest(source=JOB, points=[pb.MetricPoint(agent_steps=-1)]), "points[0].agent_steps"),
        (pb.RecordMetricsRequest(source=JOB, points=[pb.MetricPoint(values={"": 1.0})]), "points[0].values"),
        (pb.RecordMetricsRequest(source=JOB, points=[pb.MetricPoint(values={"a\x00": 1.0})]), "points[0].values"),
        (pb.RecordMetricsRequest(source=JOB, points=[pb.MetricPoint(non_finite=["a" * 201])]), "points[0].values"),
        (pb.RecordMetricsRequest(source=JOB, points=[point(1, loss=1.0), pb.MetricPoint(step=-2)]), "points[1].step"),
    ],
)
async def test_wrong_metrics_are_refused_and_nothing_is_written(
    stub: StatisticsServiceAsyncStub, request_: pb.RecordMetricsRequest, field: str
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await raising(stub.RecordMetrics(request_))

    assert [violation.field for violation in refused.value.violations] == [field]
    assert await read(stub) == {}


async def test_an_answer_that_would_be_too_large_is_refused_with_a_way_out(
    stub: StatisticsServiceAsyncStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servicer, "MAX_RESPONSE_BYTES", 10_000)
    points = [point(step, loss=float(step)) for step in range(1000)]
    await raising(stub.RecordMetrics(pb.RecordMetricsRequest(source=JOB, points=points)))

    with pytest.raises(ResourceExhausted, match="max_points"):
        await read(stub)
    assert len((await read(stub, max_points=100))["loss"][0]) == 100


async def test_episodes_recorded_twice_are_recorded_once(stub: StatisticsServiceAsyncStub) -> None:
    first = [episode(index, [1.0, 2.0]) for index in range(3)]

    assert await record(stub, *first) == 3
    assert await record(stub, *first, episode(3, [1.0, 2.0])) == 1
    assert await record(stub, episode(0, [5.0, 5.0])) == 0

    answer = await raising(stub.ListEpisodes(pb.ListEpisodesRequest(evaluation=EVALUATION)))
    assert list(answer.episodes) == [*first, episode(3, [1.0, 2.0])]


async def test_the_same_request_many_times_at_once_is_recorded_once(stub: StatisticsServiceAsyncStub) -> None:
    episodes = [episode(index, [1.0]) for index in range(20)]

    recorded = await asyncio.gather(*(record(stub, *episodes) for _ in range(100)))

    assert sorted(recorded)[-2:] == [0, 20]
    assert (await summarize(stub)).episodes == 20


async def test_faults_before_and_after_a_call_lose_and_double_nothing(
    stub: StatisticsServiceAsyncStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = Faults(rate=0.1, seed=7)
    for module in (daf_common.store, daf_common.server):
        monkeypatch.setattr(module, "FAULTS", faults)

    for index in range(30):
        while True:
            try:
                await record(stub, episode(index, [float(index)]))
                break
            except Unavailable:
                continue

    monkeypatch.undo()
    assert list((await summarize(stub)).policies[0].values) == [float(index) for index in range(30)]


async def test_an_episode_that_comes_again_with_another_digest_is_reported(
    stub: StatisticsServiceAsyncStub, caplog: pytest.LogCaptureFixture
) -> None:
    await record(stub, episode(0, [1.0]), episode(1, [1.0]))
    await record(stub, episode(0, [1.0]), episode(1, [2.0]))

    assert [record.getMessage() for record in caplog.records if "another digest" in record.message] == [
        "episode 1 of scenario 0 of evaluations/e1 came again with another digest; the first is kept"
    ]


async def test_episodes_are_listed_in_pages_by_scenario_and_index(stub: StatisticsServiceAsyncStub) -> None:
    await record(stub, *(episode(index, [1.0], scenario=scenario) for index in range(5) for scenario in (1, 0)))

    seen, token = [], ""
    while True:
        request = pb.ListEpisodesRequest(evaluation=EVALUATION, page_size=3, page_token=token)
        page = await raising(stub.ListEpisodes(request))
        seen += [(found.scenario, found.index) for found in page.episodes]
        if not (token := page.next_page_token):
            break

    assert seen == [(scenario, index) for scenario in (0, 1) for index in range(5)]


async def test_a_page_of_large_episodes_is_cut_to_what_a_message_holds(stub: StatisticsServiceAsyncStub) -> None:
    large = Statistics(values={f"statistic {number}": 1.0 for number in range(20_000)})
    for index in range(8):
        await record(stub, episode(index, [1.0], game_statistics=large))

    first = await raising(stub.ListEpisodes(pb.ListEpisodesRequest(evaluation=EVALUATION)))
    rest = pb.ListEpisodesRequest(evaluation=EVALUATION, page_token=first.next_page_token)
    second = await raising(stub.ListEpisodes(rest))

    assert len(first.episodes) < 8
    assert [e.index for e in (*first.episodes, *second.episodes)] == list(range(8))


async def test_pages_refuse_negative_sizes_and_foreign_tokens(stub: StatisticsServiceAsyncStub) -> None:
    await record(stub, episode(0, [1.0]), episode(1, [1.0]))
    page = await raising(stub.ListEpisodes(pb.ListEpisodesRequest(evaluation=EVALUATION, page_size=1)))

    for request, field in (
        (pb.ListEpisodesRequest(evaluation=EVALUATION, page_size=-1), "page_size"),
        (pb.ListEpisodesRequest(evaluation=EVALUATION, page_token="nonsense"), "page_token"),
        (pb.ListEpisodesRequest(evaluation="evaluations/e2", page_token=page.next_page_token), "page_token"),
        (pb.ListEpisodesRequest(evaluation="e1"), "evaluation"),
    ):
        with pytest.raises(InvalidArgument) as refused:
            await raising(stub.ListEpisodes(request))
        assert refused.value.violations[0].field == field


@on_sqlite
@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"evaluation": "trainingJobs/j1"}, "evaluation"),
        ({"scenario": -1}, "scenario"),
        ({"seed": 2**32}, "seed"),
        ({"rewards": [1.0]}, "rewards"),
        ({"seats": [-1]}, "seats"),
        ({"steps": -1}, "steps"),
        ({"action_timeouts": [1]}, "action_timeouts"),
        ({"digest": "0"}, "digest"),
        ({"forfeits": [Failure(subject="Tom")]}, "forfeits[0].subject"),
    ],
)
async def test_a_wrong_episode_is_refused_with_all_that_came_with_it(
    stub: StatisticsServiceAsyncStub, fields: dict[str, object], field: str
) -> None:
    wrong = episode(1, [1.0, 2.0])
    for name in fields:
        if name not in ("rewards", "action_timeouts", "forfeits"):
            wrong.ClearField(name)
    wrong.MergeFrom(Episode(**fields))

    with pytest.raises(InvalidArgument) as refused:
        await record(stub, episode(0, [1.0, 2.0]), wrong)

    assert f"episodes[1].{field}" in [violation.field for violation in refused.value.violations]
    listed = await raising(stub.ListEpisodes(pb.ListEpisodesRequest(evaluation=EVALUATION)))
    assert not listed.episodes


async def test_a_summary_has_each_policys_mean_over_episodes_with_its_interval(
    stub: StatisticsServiceAsyncStub,
) -> None:
    seats = [[0, 0, 1, 1], [1, 0, 1, 0], [0, 1, 1, 0]]
    rewards = [[1.0, 2.0, 5.0, 7.0], [4.0, 3.0, 6.0, 2.0], [2.0, 9.0, 1.0, 4.0]]
    await record(stub, *(episode(i, rewards[i], seats[i]) for i in (2, 0, 1)))

    answer = await summarize(stub)

    first, second = answer.policies
    assert (first.policy, list(first.values)) == (0, [1.5, 2.5, 3.0])
    assert (second.policy, list(second.values)) == (1, [6.0, 5.0, 5.0])
    for policy in (first, second):
        values = list(policy.values)
        error = scipy.stats.sem(values)
        low, high = scipy.stats.t.interval(0.95, 2, statistics.mean(values), error)
        assert policy.mean == pytest.approx(statistics.mean(values))
        assert policy.standard_error == pytest.approx(error)
        assert (policy.interval_low, policy.interval_high) == pytest.approx((low, high))
        assert (policy.episodes, policy.forfeits, policy.copies) == (3, 0, 0)
    assert answer.episodes == 3
    lines = "".join(f"0/{i}:{episode(i, rewards[i]).digest}\n" for i in range(3))
    assert answer.digest == hashlib.sha256(lines.encode()).hexdigest()


async def test_missions_are_strata_of_the_interval(stub: StatisticsServiceAsyncStub) -> None:
    missions = {"a": [1.0, 2.0, 6.0], "b": [101.0, 103.0, 104.0, 104.5]}
    for scenario, (mission, values) in enumerate(missions.items()):
        played = (episode(i, [value], [0], scenario, mission=mission) for i, value in enumerate(values))
        await record(stub, *played)

    (policy,) = (await summarize(stub)).policies

    shares = [3 / 7, 4 / 7]
    errors = [scipy.stats.sem(values) for values in missions.values()]
    variances = [(share * error) ** 2 for share, error in zip(shares, errors, strict=True)]
    degrees = sum(variances) ** 2 / (variances[0] ** 2 / 2 + variances[1] ** 2 / 3)
    mean = statistics.mean([*missions["a"], *missions["b"]])
    low, high = scipy.stats.t.interval(0.95, degrees, mean, math.sqrt(sum(variances)))
    assert policy.standard_error == pytest.approx(math.sqrt(sum(variances)))
    assert (policy.mean, policy.interval_low, policy.interval_high) == pytest.approx((mean, low, high))


async def test_a_mission_with_one_episode_leaves_no_interval(stub: StatisticsServiceAsyncStub) -> None:
    await record(stub, *(episode(i, [float(i)], [0], 0, mission="a") for i in range(3)))
    await record(stub, episode(0, [5.0], [0], 1, mission="b"))

    (policy,) = (await summarize(stub)).policies

    assert (policy.mean, policy.HasField("standard_error"), policy.HasField("interval_low")) == (2.0, False, False)


async def test_missions_in_each_of_which_nothing_varies_have_no_interval(stub: StatisticsServiceAsyncStub) -> None:
    for scenario, mission in enumerate("ab"):
        await record(stub, *(episode(i, [float(scenario)], [0], scenario, mission=mission) for i in range(3)))

    (policy,) = (await summarize(stub)).policies

    assert (policy.mean, policy.standard_error, policy.HasField("interval_low")) == (0.5, 0.0, False)


async def test_a_policy_of_several_scenarios_has_a_summary_of_each(stub: StatisticsServiceAsyncStub) -> None:
    values = {0: [1.0, 2.0, 6.0], 3: [5.0, 5.0]}
    for scenario, of_scenario in values.items():
        await record(stub, *(episode(i, [value], [0], scenario) for i, value in enumerate(of_scenario)))
    await record(stub, *(episode(i, [value], [1], 1) for i, value in enumerate([1.0, 2.0])))

    several, one = (await summarize(stub)).policies

    first, second = several.scenarios
    error = scipy.stats.sem(values[0])
    assert (first.scenario, first.episodes, first.mean) == (0, 3, 3.0)
    assert first.standard_error == pytest.approx(error)
    low, high = scipy.stats.t.interval(0.95, 2, 3.0, error)
    assert (first.interval_low, first.interval_high) == pytest.approx((low, high))
    assert (second.scenario, second.episodes, second.mean, second.HasField("interval_low")) == (3, 2, 5.0, False)
    assert (several.episodes, several.mean) == (5, pytest.approx(3.8))
    assert not one.scenarios


@pytest.mark.parametrize("count", [FEW_EPISODES, FEW_EPISODES + 1, 600])
async def test_a_summary_counts_every_episode_however_many_there_are(
    stub: StatisticsServiceAsyncStub, count: int
) -> None:
    await record(stub, *(episode(index, [float(index)]) for index in range(count)))

    answer = await summarize(stub)

    assert list(answer.policies[0].values) == [float(index) for index in range(count)]
    lines = "".join(f"0/{i}:{episode(i, [float(i)]).digest}\n" for i in range(count))
    assert answer.digest == hashlib.sha256(lines.encode()).hexdigest()


async def test_a_statistic_that_an_episode_lacks_is_zero_there(stub: StatisticsServiceAsyncStub) -> None:
    mined = Statistics(values={"ore.mined": 8.0})
    await record(
        stub,
        episode(0, [0.0, 0.0], agent_statistics=[mined, Statistics()], game_statistics=Statistics(values={"t": 5.0})),
        episode(1, [0.0, 0.0]),
    )

    assert list((await summarize(stub, "ore.mined")).policies[0].values) == [4.0, 0.0]
    assert list((await summarize(stub, "t")).policies[0].values) == [5.0, 0.0]


async def test_a_known_statistic_that_no_episode_has_is_zero_in_all(stub: StatisticsServiceAsyncStub) -> None:
    await record(stub, episode(0, [1.0]), episode(1, [1.0]))

    for name in (catalog().agent_statistics[0], catalog().game_statistics[-1]):
        assert list((await summarize(stub, name)).policies[0].values) == [0.0, 0.0]


@on_sqlite
async def test_a_metric_is_checked_before_anything_has_been_played(stub: StatisticsServiceAsyncStub) -> None:
    known = ["reward", sorted(catalog().agent_statistics)[0], sorted(catalog().game_statistics)[0]]
    for name in known:
        await raising(stub.CheckMetric(pb.CheckMetricRequest(metric=Metric(name=name, aggregation=AGGREGATION_SUM))))

    await record(stub, episode(0, [1.0], agent_statistics=[Statistics(values={"only.recorded": 1.0})]))
    for metric, field, message in (
        (Metric(name="rewrd"), "metric.name", "known are: reward"),
        (Metric(name="only.recorded"), "metric.name", "known are: reward"),
        (Metric(), "metric.name", "is empty"),
        (Metric(name="x" * 201), "metric.name", "more than 200"),
        (Metric(name="a\0b"), "metric.name", "cannot be printed"),
        (Metric(name="reward", aggregation=9), "metric.aggregation", "9 is not known"),
    ):
        with pytest.raises(InvalidArgument, match=message) as refused:
            await raising(stub.CheckMetric(pb.CheckMetricRequest(metric=metric)))
        assert refused.value.violations[0].field == field


async def test_an_unknown_metric_is_refused_with_the_known_ones(stub: StatisticsServiceAsyncStub) -> None:
    await record(stub, episode(0, [0.0], agent_statistics=[Statistics(values={"ore.mined": 8.0})]))

    with pytest.raises(InvalidArgument, match=r"'ore\.mind' is not known.*reward.*ore\.mined") as refused:
        await summarize(stub, "ore.mind")

    assert refused.value.violations[0].field == "metric.name"


async def test_forfeits_and_unfinished_episodes_do_not_count(stub: StatisticsServiceAsyncStub) -> None:
    await record(
        stub,
        episode(0, [1.0, 5.0], [0, 1]),
        episode(1, [9.0, 6.0], [0, 1], forfeits=[Failure(reason="POLICY_FAILED", subject="0")]),
        episode(2, [math.nan, 7.0], [0, 1]),
        episode(3, [2.0, 8.0], [0, 1]),
        episode(4, [1e300, 9.0], [0, 1]),
    )

    first, second = (await summarize(stub)).policies

    assert (list(first.values), first.episodes, first.forfeits) == ([1.0, 2.0], 2, 1)
    assert (list(second.values), second.episodes, second.forfeits) == ([5.0, 6.0, 7.0, 8.0, 9.0], 5, 0)


async def test_a_policy_that_forfeits_all_is_shown_without_a_score(stub: StatisticsServiceAsyncStub) -> None:
    await record(stub, episode(0, [1.0], forfeits=[Failure(subject="0")]))

    policy = (await summarize(stub)).policies[0]

    assert (policy.episodes, policy.forfeits) == (0, 1)
    assert not policy.HasField("mean")


async def test_copies_of_an_episode_do_not_narrow_the_interval(stub: StatisticsServiceAsyncStub) -> None:
    same_map = {"map_digest": "1" * 64}
    copies = [episode(i, [float(i % 2), 1.0], **same_map) for i in range(10)]
    await record(stub, *copies)

    policy = (await summarize(stub)).policies[0]

    assert (policy.mean, policy.episodes, policy.copies) == (0.75, 10, 8)
    assert policy.standard_error == pytest.approx(scipy.stats.sem([0.5, 1.0]))


async def test_equal_values_on_different_maps_are_no_copies(stub: StatisticsServiceAsyncStub) -> None:
    await record(stub, *(episode(i, [1.0]) for i in range(5)))

    policy = (await summarize(stub)).policies[0]

    assert (policy.copies, policy.mean, policy.standard_error) == (0, 1.0, 0.0)
    assert not policy.HasField("interval_low")


async def test_numbers_of_evaluations_without_episodes_are_not_found(stub: StatisticsServiceAsyncStub) -> None:
    with pytest.raises(NotFound, match="evaluations/e1"):
        await summarize(stub)


async def test_deleting_numbers_leaves_those_of_others(stub: StatisticsServiceAsyncStub) -> None:
    other = "evaluations/e2"
    await record(stub, episode(0, [1.0]))
    await record(stub, episode(0, [1.0], evaluation=other))
    await raising(stub.RecordMetrics(pb.RecordMetricsRequest(source=JOB, points=[point(1, loss=0.6)])))

    for _ in range(2):
        await raising(stub.DeleteNumbers(pb.DeleteNumbersRequest(name=EVALUATION)))

    with pytest.raises(DafError, match="no episodes"):
        await summarize(stub)
    assert len((await raising(stub.ListEpisodes(pb.ListEpisodesRequest(evaluation=other)))).episodes) == 1
    await raising(stub.DeleteNumbers(pb.DeleteNumbersRequest(name=JOB)))
    assert await read(stub) == {}


async def test_the_migrated_database_has_the_tables_of_the_code(service: Service) -> None:
    inspector = sa.inspect(service.store.engine)
    for table in (METRICS, EPISODES):
        columns = {column["name"]: column for column in inspector.get_columns(table.name)}
        assert columns.keys() == set(table.columns.keys())
        assert inspector.get_pk_constraint(table.name)["constrained_columns"] == [c.name for c in table.primary_key]
        for column in table.columns:
            assert columns[column.name]["nullable"] == column.nullable
            assert columns[column.name]["type"].python_type == column.type.python_type
