"""Races among policies, run again from their samples: the same samples always make the same race."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from daf_statistics.design import Design
from daf_statistics.samples import Player, Sample, by_mission, distinct_blocks, played_together
from daf_statistics.sequential import Pair, Race, take_look


class RaceError(ValueError):
    """A policy has not the samples that its part in the race asks for; `policy` is its number."""

    def __init__(self, policy: int, message: str) -> None:
        super().__init__(message)
        self.policy = policy


def run_race(design: Design, looks: Sequence[Sequence[Sequence[Sample]]]) -> Race:
    """Runs a race as far as there are samples.

    Args:
        design: with several looks.
        looks: for every policy its samples of each look that it took part in, at least one.

    Raises:
        RaceError: a policy that is still racing has no samples of a look that others have, or one that had left has.
    """
    race = Race(len(looks), design.looks, design.alpha)
    while not race.over and any(len(looks[policy]) > race.done for policy in race.racing):
        for policy in race.racing:
            if len(looks[policy]) == race.done:
                raise RaceError(policy, f"is racing after look {race.done} and names no evaluation of the next")
        so_far = [[sample for look in of_policy[: race.done + 1] for sample in look] for of_policy in looks]
        race = take_look(race, {pair: _differences(so_far, pair) for pair in combinations(race.racing, 2)})
    for policy, of_policy in enumerate(looks):
        if len(of_policy) > race.looks_of(policy):
            ended = "left the race" if policy not in race.racing else "the race was over"
            raise RaceError(policy, f"names {len(of_policy)} evaluations, but {ended} at look {race.looks_of(policy)}")
    return race


def _differences(samples: Sequence[Sequence[Sample]], pair: Pair) -> list[float]:
    blocks = distinct_blocks(played_together([Player("", samples[policy]) for policy in pair]))
    return [first.value - second.value for of_mission in by_mission(blocks).values() for first, second in of_mission]
