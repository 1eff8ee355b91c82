"""How long policies' steps took: histograms added up over episodes, and percentiles of them."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from daf_common.channel import raising
from daf_common.errors import InvalidArgument
from daf_protos.statistics.v1 import statistics_service_pb2 as pb
from daf_protos.statistics.v1.episode_pb2 import Episode, PolicyLatency
from daf_protos.statistics.v1.metric_pb2 import Metric
from daf_statistics.latencies import MAX_BUCKETS, Histogram, added_up

if TYPE_CHECKING:
    from daf_protos.statistics.v1.statistics_service_pb2_grpc import StatisticsServiceAsyncStub

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""For tests of what never reaches the database."""


def timed(policy: int, seconds: np.ndarray) -> PolicyLatency:
    """The latency of steps that took these times, by the definition of the buckets."""
    microseconds = 1e6 * seconds
    numbers = [0 if one < 1 else 1 + math.floor(2 * math.log2(one)) for one in microseconds]
    return PolicyLatency(
        policy=policy,
        steps=len(seconds),
        total_seconds=float(seconds.sum()),
        longest_seconds=float(seconds.max()),
        buckets=np.bincount(numbers).tolist(),
    )


@pytest.mark.parametrize("share", [0.5, 0.95, 0.99])
@pytest.mark.parametrize("scale", [1e-6, 1e-4, 1.0])
def test_percentiles_are_those_of_the_times_but_for_a_bucket(share: float, scale: float) -> None:
    generator = np.random.default_rng(1)
    parts = [generator.lognormal(math.log(scale), 1.5, count) for count in (1, 30, 2000)]

    (histogram,) = added_up([timed(4, part) for part in parts]).values()

    everything = np.concatenate(parts)
    exact = float(np.quantile(everything, share, method="inverted_cdf"))
    assert max(exact, 0.7e-6) / 2**0.5 <= histogram.percentile(share) <= max(exact, 1e-6) * 2**0.5
    assert histogram.steps == len(everything)
    assert histogram.total_seconds == pytest.approx(everything.sum())
    assert histogram.longest_seconds == everything.max()


def test_the_order_of_episodes_does_not_matter_and_policies_are_kept_apart() -> None:
    generator = np.random.default_rng(2)
    latencies = [timed(number % 2, generator.exponential(2.0**-number, 10)) for number in range(6)]

    one, other = added_up(latencies), added_up(latencies[::-1])

    assert [one[policy].buckets for policy in (0, 1)] == [other[policy].buckets for policy in (0, 1)]
    assert one[0].steps == one[1].steps == 30


def test_no_percentile_is_above_the_longest_and_all_steps_may_be_in_one_bucket() -> None:
    one = Histogram(steps=3, total_seconds=3e-6, longest_seconds=1.01e-6, buckets=[0, 3])

    assert {one.percentile(share) for share in (0.0, 0.5, 1.0)} == {1.01e-6}


def test_policies_without_timed_steps_are_left_out() -> None:
    assert added_up([PolicyLatency(policy=0), PolicyLatency(policy=1, steps=1, buckets=[1])]).keys() == {1}


def episode(index: int, *latencies: PolicyLatency) -> Episode:
    return Episode(
        evaluation="evaluations/e1",
        index=index,
        seats=[0, 1],
        rewards=[1.0, 2.0],
        latencies=latencies,
        digest=hashlib.sha256(str(index).encode()).hexdigest(),
    )


async def test_a_summary_has_the_latency_of_each_policy_that_was_timed(stub: StatisticsServiceAsyncStub) -> None:
    episodes = [
        episode(0, PolicyLatency(policy=0, steps=2, total_seconds=0.5, longest_seconds=0.4, buckets=[0] * 30 + [2])),
        episode(1, PolicyLatency(policy=0, steps=2, total_seconds=1.5, longest_seconds=1.4, buckets=[2])),
        episode(2),
    ]
    await raising(stub.RecordEpisodes(pb.RecordEpisodesRequest(episodes=episodes)))

    request = pb.SummarizeEvaluationRequest(evaluation="evaluations/e1", metric=Metric(name="reward"))
    first, second = (await raising(stub.SummarizeEvaluation(request))).policies

    assert not second.HasField("latency")
    latency = first.latency
    assert (latency.steps, latency.mean_seconds, latency.longest_seconds) == (4, 0.5, 1.4)
    assert latency.median_seconds == pytest.approx(1e-6 / 2**0.25)  # half of the steps are in the first bucket
    assert latency.p95_seconds == latency.p99_seconds == pytest.approx(1e-6 * 2**14.75)


@on_sqlite
@pytest.mark.parametrize(
    "wrong",
    [
        PolicyLatency(policy=-1),
        PolicyLatency(steps=-1),
        PolicyLatency(steps=1),
        PolicyLatency(steps=0, buckets=[1, -1]),
        PolicyLatency(steps=1, buckets=[0] * MAX_BUCKETS + [1]),
        PolicyLatency(total_seconds=math.nan),
        PolicyLatency(longest_seconds=math.inf),
        PolicyLatency(total_seconds=-1.0),
    ],
)
async def test_latencies_that_cannot_be_are_refused(stub: StatisticsServiceAsyncStub, wrong: PolicyLatency) -> None:
    good = PolicyLatency(steps=1, buckets=[0] * (MAX_BUCKETS - 1) + [1])
    with pytest.raises(InvalidArgument) as refused:
        await raising(stub.RecordEpisodes(pb.RecordEpisodesRequest(episodes=[episode(0, good, wrong)])))

    assert refused.value.violations[0].field == "episodes[0].latencies[1]"
    listed = await raising(stub.ListEpisodes(pb.ListEpisodesRequest(evaluation="evaluations/e1")))
    assert not listed.episodes
