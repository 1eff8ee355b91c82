"""Who sits where in which episode: the plan that cogames would follow, written down in advance.

cogames shuffles one list of seats, episode after episode, with one generator, and gives episode i the seed `seed +
i`. A plan made here can be cut into shards and run in any order by any number of workers, and every episode is still
the one that cogames' own sequential loop would have run. Imports nothing heavy: services plan, runners play.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

# Seeds are 32-bit unsigned where they end up: in the simulator and in numpy.
SEED_LIMIT = 2**32


@dataclass(frozen=True)
class EpisodePlan:
    """One episode. `seats[agent]` is the index of the policy that plays it; `seed` sets map and simulation."""

    index: int
    seed: int
    seats: tuple[int, ...]


def plan_episodes(seats: Sequence[int], episodes: int, seed: int) -> list[EpisodePlan]:
    """The episodes that `mettagrid.runner.rollout.run_multi_episode_rollout` would run, in its order.

    seats: the policy index of every agent before the first shuffle. Raises ValueError.
    """
    shuffled = ShuffledSeats([seats], episodes, seed)
    return [shuffled.episode(0, index) for index in range(episodes)]


class ShuffledSeats:
    """The episodes of scenarios that share one generator, each shuffling its own list of seats: what
    `cogames.pickup.pickup` runs for its scenarios in their order, and `run_multi_episode_rollout` for one alone.

    Shuffled as far as was asked for, since each shuffle depends on all before it, and kept at a byte a seat.
    """

    def __init__(self, scenarios: Sequence[Sequence[int]], episodes: int, seed: int) -> None:
        """Plans nothing yet.

        scenarios: of each the policy index of every agent before its first shuffle. Raises ValueError.
        """
        check_plan(episodes, seed)
        if not all(scenarios):
            raise ValueError("an episode needs at least one seat")
        self._scenarios, self._episodes, self._seed = scenarios, episodes, seed
        self._generator = random.Random(seed)
        self._shuffled = [bytearray()]
        self._seats = list(scenarios[0])

    def episode(self, scenario: int, index: int) -> EpisodePlan:
        """An episode of a scenario."""
        agents = len(self._scenarios[scenario])
        end = (index + 1) * agents
        while len(self._shuffled) <= scenario or len(self._shuffled[scenario]) < end:
            self._go_on()
        return EpisodePlan(index, self._seed + index, tuple(self._shuffled[scenario][end - agents : end]))

    def _go_on(self) -> None:
        if len(self._shuffled[-1]) == self._episodes * len(self._seats):
            self._seats = list(self._scenarios[len(self._shuffled)])
            self._shuffled.append(bytearray())
        self._generator.shuffle(self._seats)
        self._shuffled[-1].extend(self._seats)


def check_plan(episodes: int, seed: int) -> None:
    """Raise ValueError unless there is at least one episode and all their seeds are 32-bit."""
    if episodes < 1:
        raise ValueError(f"episodes must be at least 1, not {episodes}")
    if seed < 0 or seed + episodes > SEED_LIMIT:
        raise ValueError(f"the seeds {seed} to {seed + episodes - 1} do not all lie between 0 and 2^32 - 1")


def pickup_seats(agents: int, pool: int) -> list[tuple[int, ...]]:
    """The seats of `cogames.pickup`'s scenarios before the first shuffle, in its order: policy 0, the candidate, has
    all seats, then one fewer in each, and the policies of the pool, 1 and up, share the rest. Raises ValueError."""
    if pool < 1:
        raise ValueError("a pickup needs a pool of at least one policy")
    shares = (1.0,) * pool
    some = [
        (0,) * seats + tuple(1 + policy for policy in seats_from_proportions(agents - seats, shares))
        for seats in range(agents - 1, -1, -1)
    ]
    return [(0,) * agents, *some]


def pair_seats(agents: int, first: int, second: int) -> list[tuple[int, ...]]:
    """The seats of two policies in one team before the first shuffle: half for each, or where that leaves a seat over,
    once one more for the first and once for the second. Raises ValueError."""
    if agents < 2:
        raise ValueError("two policies in one team need at least 2 agents")
    halves = dict.fromkeys((agents - agents // 2, agents // 2))
    return [(first,) * half + (second,) * (agents - half) for half in halves]


def seats_from_proportions(agents: int, proportions: Sequence[float]) -> tuple[int, ...]:
    """The seats before the first shuffle: a run of agents for each policy, as many as `seat_counts` gives it."""
    return tuple(policy for policy, count in enumerate(seat_counts(agents, proportions)) for _ in range(count))


def seat_counts(agents: int, proportions: Sequence[float]) -> list[int]:
    """How many of the seats each policy gets: by largest remainder, as `metta_alo.scoring.allocate_counts`.

    A policy with a small proportion may get no seat at all. Raises ValueError.
    """
    if agents < 1:
        raise ValueError(f"there must be at least 1 agent, not {agents}")
    if not proportions:
        raise ValueError("there must be at least one policy")
    if any(not math.isfinite(proportion) or proportion < 0 for proportion in proportions):
        raise ValueError("proportions must be finite and not negative")
    total = sum(proportions)
    if not 0 < total < math.inf:
        raise ValueError("proportions must add up to a positive finite number")

    # The same operations in the same order as cogames, so that ties and rounding fall the same way.
    ideals = [agents * (proportion / total) for proportion in proportions]
    counts = [math.floor(ideal) for ideal in ideals]
    remainders = [ideal - count for ideal, count in zip(ideals, counts, strict=True)]
    by_remainder = sorted(range(len(remainders)), key=remainders.__getitem__, reverse=True)
    for policy in by_remainder[: agents - sum(counts)]:
        counts[policy] += 1
    return counts
