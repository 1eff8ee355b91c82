"""Independent draws."""

from __future__ import annotations

import random

from daf_common.values import Scalar
from daf_scheduler.search.strategy import History
from daf_scheduler.space import Space


class RandomSearch:
    """See `daf_scheduler.search.strategy.Strategy`. Trial n is drawn by a generator of its own, made of seed and n."""

    learns = False

    def __init__(self, space: Space, trials: int, seed: int) -> None:
        self._space, self.planned, self._seed = space, trials, seed

    def ask(self, history: History, trials: int) -> list[dict[str, Scalar]]:
        """See `Strategy.ask`."""
        last = min(history.count + trials, self.planned)
        return [self._draw(number) for number in range(history.count + 1, last + 1)]

    def _draw(self, number: int) -> dict[str, Scalar]:
        generator = random.Random(f"{self._seed}/{number}")
        return {name: self._space[name].draw(generator.random()) for name in sorted(self._space)}
