"""The numbers of training between one report and the next."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from numbers import Real

REWARD = "per_label_rewards/"


class MetricsWindow:
    """Means of what was added. A value that is not finite is named, not averaged."""

    def __init__(self, by_mission: bool) -> None:
        self._by_mission = by_mission
        self._sums: dict[str, float] = defaultdict(float)
        self._counts: dict[str, int] = defaultdict(int)
        self._nonfinite: set[str] = set()
        self._episodes = 0

    def add(self, name: str, number: Real | float) -> None:
        value = float(number)
        if math.isfinite(value):
            self._sums[name] += value
            self._counts[name] += 1
        else:
            self._nonfinite.add(name)

    def add_episodes(self, statistics: Mapping[str, Iterable[object]]) -> None:
        """What PuffeRL gathered of the episodes that ended: a list for each statistic, with an entry for each episode.

        Kept are those of the game, those of the agents (cogames has taken the mean over the agents of a team),
        the length in environment steps, and the reward of an agent, also by mission if so asked. Left out are the
        statistics of each agent, and timings.
        """
        for name, values in statistics.items():
            for value in values:
                if not isinstance(value, Real):
                    continue
                if name.startswith(("agent/", "game/")):
                    self.add(f"env/{name}", value)
                elif name == "attributes/steps":
                    self.add("env/episode_steps", value)
                    self._episodes += 1
                elif name.startswith(REWARD):
                    self.add("env/reward_per_agent", value)
                    if self._by_mission:
                        self.add(f"env/reward_per_agent/{name.removeprefix(REWARD)}", value)

    def merge(self, other: MetricsWindow) -> None:
        """Add what was added to another window."""
        for name, total in other._sums.items():
            self._sums[name] += total
            self._counts[name] += other._counts[name]
        self._nonfinite |= other._nonfinite
        self._episodes += other._episodes

    def means(self) -> dict[str, float]:
        means = {name: total / self._counts[name] for name, total in self._sums.items()}
        return {**means, "env/episodes": float(self._episodes)} if self._episodes else means

    def nonfinite(self) -> tuple[str, ...]:
        return tuple(sorted(self._nonfinite))
