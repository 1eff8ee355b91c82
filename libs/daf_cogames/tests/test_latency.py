"""The histogram of a policy's step times."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from daf_cogames.play.latency import Latency


@given(st.integers(min_value=0, max_value=10**13))
def test_a_time_lies_within_the_bounds_of_its_bucket(nanoseconds: int) -> None:
    latency = Latency()
    latency.add(nanoseconds)
    bucket = latency.buckets.index(1)
    # Squared, so that the bounds are whole numbers: 2^bucket, in microseconds squared.
    squared = nanoseconds * nanoseconds
    assert squared < 2**bucket * 1_000_000
    assert bucket == 0 or squared >= 2 ** (bucket - 1) * 1_000_000


def test_a_batch_is_a_step_for_each_agent_but_its_time_counts_once() -> None:
    latency = Latency()
    latency.add(3_000, agents=4)
    latency.add(500)
    assert (latency.steps, latency.total_nanoseconds, latency.longest_nanoseconds) == (5, 3_500, 3_000)
    assert latency.buckets == [1, 0, 0, 0, 4]


def test_without_steps_there_are_no_buckets() -> None:
    assert Latency().buckets == []
