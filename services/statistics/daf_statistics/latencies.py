"""How long the steps of policies took: histograms added up, and read."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from daf_protos.statistics.v1.episode_pb2 import PolicyLatency

MAX_BUCKETS = 128
"""The last would hold steps of half a million years."""

_MICROSECOND = 1e-6


@dataclass
class Histogram:
    """Steps of one policy by the time that they took; the buckets are those of `PolicyLatency`."""

    steps: int = 0
    total_seconds: float = 0.0
    longest_seconds: float = 0.0
    buckets: list[int] = field(default_factory=list)

    def percentile(self, share: float) -> float:
        """Seconds that this share of the steps took at most: the geometric mean of the ends of the bucket with the
        first step that is beyond the share, but never more than the longest."""
        wanted, seen = max(1, math.ceil(share * sum(self.buckets))), 0
        for number, steps in enumerate(self.buckets):
            seen += steps
            if seen >= wanted:
                return min(_middle(number), self.longest_seconds)
        return self.longest_seconds


def added_up(latencies: Iterable[PolicyLatency]) -> dict[int, Histogram]:
    """The histograms of all episodes by the number of the policy; policies without any timed step are left out."""
    found: dict[int, Histogram] = {}
    for latency in latencies:
        if not latency.steps:
            continue
        histogram = found.setdefault(latency.policy, Histogram())
        histogram.steps += latency.steps
        histogram.total_seconds += latency.total_seconds
        histogram.longest_seconds = max(histogram.longest_seconds, latency.longest_seconds)
        buckets, new = histogram.buckets, latency.buckets
        if len(new) > len(buckets):
            buckets.extend([0] * (len(new) - len(buckets)))
        for number, steps in enumerate(new):
            if steps:
                buckets[number] += steps
    return found


def _middle(bucket: int) -> float:
    """The geometric mean of a bucket's ends in seconds; the first, which begins at 0, counts as wide as the others."""
    return math.pow(2, (bucket - 0.5) / 2) * _MICROSECOND
