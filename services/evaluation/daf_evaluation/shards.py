"""Shards: runs of episodes that one worker at a time may play, and how far each is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

SHARDS_PER_WORKER = 4
"""Small enough that workers which have run out of shards do not wait long for the last."""

MAX_SHARD = 100
"""Episodes at most, so that a lease fits into a message."""


class ShardState(Enum):
    """How far a shard is."""

    OPEN = "open"
    LEASED = "leased"
    DONE = "done"


@dataclass(frozen=True)
class Shard:
    """Episodes `first` to `first + count - 1` of a scenario. They are played and recorded in order."""

    number: int
    scenario: int
    first: int
    count: int
    state: ShardState = ShardState.OPEN
    holder: str = ""
    """The worker that plays it, or finished it."""
    fence: int = 0
    """Rises with every lease."""
    beat: int = 0
    """Rises with every report of the holder."""
    recorded: int = 0
    """How many of its episodes are recorded, from the first on."""


class OutOfOrder(ValueError):
    """A report leaves episodes of its shard out, or holds some that are not in it."""


def cut(scenarios: int, episodes: int, workers: int) -> list[Shard]:
    """Cuts all scenarios, of `episodes` each, into shards for so many workers."""
    shards = SHARDS_PER_WORKER * workers if workers > 1 else 1  # nobody waits for the last shard of one worker
    size = min(MAX_SHARD, max(1, scenarios * episodes // shards))
    runs = [
        (scenario, first, min(size, episodes - first))
        for scenario in range(scenarios)
        for first in range(0, episodes, size)
    ]
    return [Shard(number, *run) for number, run in enumerate(runs)]


def progress(shard: Shard, indices: Iterable[int]) -> int:
    """How many episodes of the shard are recorded once these are, too; those that were before do not count again.

    Raises:
        OutOfOrder: the indices do not go on where the shard stands.
    """
    recorded = shard.recorded
    for index in sorted(indices):
        position = index - shard.first
        if not 0 <= position < shard.count:
            raise OutOfOrder(f"episode {index} is not in shard {shard.number}")
        if position > recorded:
            raise OutOfOrder(f"episode {index} comes before episode {shard.first + recorded} was reported")
        recorded = max(recorded, position + 1)
    return recorded
