"""What a search strategy is, and which one a sweep asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from daf_common.errors import Unimplemented
from daf_common.values import Scalar
from daf_protos.scheduler.v1.sweep_pb2 import DIRECTION_MINIMIZE, SweepSpec
from daf_scheduler.space import Parameters, from_message


class Outcome(Enum):
    """What has become of a trial."""

    LIVE = "live"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """Or infeasible, or cancelled: it has no objective."""


@dataclass(frozen=True)
class Tried:
    """A trial as a strategy sees it."""

    number: int
    parameters: Parameters
    outcome: Outcome
    objective: float | None = None


@dataclass(frozen=True)
class History:
    """What a sweep has tried so far."""

    count: int
    """How many trials there are; the next has the number after."""
    trials: Sequence[Tried] = ()
    """All of them, by number; only for strategies that learn."""


class Strategy(Protocol):
    """Chooses the parameters of trials. It keeps nothing: the same history gives the same answer, in any process."""

    learns: bool
    """Whether it looks at `History.trials`."""
    planned: int
    """How many trials it will offer at most."""

    def ask(self, history: History, trials: int) -> list[dict[str, Scalar]]:
        """The parameters of the next trials; fewer than asked for, or none, when there are no more."""
        ...


def create_strategy(spec: SweepSpec) -> Strategy:
    """The strategy of a sweep whose spec is valid.

    Raises:
        Unimplemented: there is no such strategy yet.
    """
    # Each strategy is imported when it is used: Optuna takes a second.
    space, search, kind = from_message(spec), spec.search, spec.search.WhichOneof("strategy")
    match kind:
        case "grid":
            from daf_scheduler.search.grid import GridSearch

            return GridSearch(space)
        case "random":
            from daf_scheduler.search.random_search import RandomSearch

            return RandomSearch(space, search.random.trials, spec.seed)
        case "bayesian":
            from daf_scheduler.search.tpe import TreeParzenSearch

            maximize = spec.objective.direction != DIRECTION_MINIMIZE
            settings = search.bayesian
            return TreeParzenSearch(space, settings.trials, spec.seed, maximize, settings.startup_trials)
    raise Unimplemented(f"the search strategy {kind} is not built yet: use grid, random or bayesian")
