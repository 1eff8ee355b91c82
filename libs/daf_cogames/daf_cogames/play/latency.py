"""How long a policy's steps take: a histogram that costs little to fill, with bounds that are the same everywhere."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Latency:
    """The times of one policy's steps.

    Bucket 0 counts those below 1 microsecond, bucket i those from sqrt(2)^(i-1) up to sqrt(2)^i microseconds, so that a
    quantile read from it is at most a fifth off. There are as many buckets as the longest time asks for.
    """

    steps: int = 0
    total_nanoseconds: int = 0
    longest_nanoseconds: int = 0
    buckets: list[int] = field(default_factory=list)

    def add(self, nanoseconds: int, agents: int = 1) -> None:
        """Counts one call that stepped so many agents: a step for each, as long as the call; its time counts once."""
        self.steps += agents
        self.total_nanoseconds += nanoseconds
        self.longest_nanoseconds = max(self.longest_nanoseconds, nanoseconds)
        # 2 * log2(t) + 1 in whole numbers: the bits of t squared.
        bucket = (nanoseconds * nanoseconds // 1_000_000).bit_length()
        try:
            self.buckets[bucket] += agents
        except IndexError:
            self.buckets += [0] * (bucket + 1 - len(self.buckets))
            self.buckets[bucket] = agents
