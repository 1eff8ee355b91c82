"""Every combination of the values."""

from __future__ import annotations

from daf_common.values import Scalar
from daf_scheduler.search.strategy import History
from daf_scheduler.space import Space, grid_point, grid_size


class GridSearch:
    """See `daf_scheduler.search.strategy.Strategy`."""

    learns = False

    def __init__(self, space: Space) -> None:
        size = grid_size(space)
        if size is None:
            raise ValueError("the values of a grid must be countable")
        self._space, self.planned = space, size

    def ask(self, history: History, trials: int) -> list[dict[str, Scalar]]:
        """See `Strategy.ask`."""
        indices = range(history.count, min(history.count + trials, self.planned))
        return [grid_point(self._space, index) for index in indices]
