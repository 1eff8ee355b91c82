"""What all search strategies promise, and what each does."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import pytest

from daf_common.errors import Unimplemented
from daf_common.values import Scalar
from daf_protos.scheduler.v1.sweep_pb2 import Search, SweepSpec
from daf_scheduler.search.grid import GridSearch
from daf_scheduler.search.random_search import RandomSearch
from daf_scheduler.search.strategy import History, Outcome, Strategy, Tried, create_strategy
from daf_scheduler.search.tpe import TreeParzenSearch
from daf_scheduler.space import Choices, Domain, Interval

COUNTABLE: dict[str, Domain] = {
    "env.variant": Choices(("a", "b")),
    "trainer.anneal_lr": Choices((True, False)),
    "trainer.gamma": Interval(0.9, 1.0, step=0.05),
    "trainer.update_epochs": Interval(1, 2, integer=True),
}
CONTINUOUS: dict[str, Domain] = {
    **COUNTABLE,
    "trainer.learning_rate": Interval(1e-5, 1e-2, logarithmic=True),
    "trainer.minibatch_size": Interval(128, 4096, step=128, integer=True),
    "trainer.bptt_horizon": Interval(2, 64, logarithmic=True, integer=True),
    "trainer.ent_coef": Interval(0.0, 0.1),
}
TRIALS = 24
MAKERS: dict[str, tuple[Callable[[int], Strategy], Mapping[str, Domain]]] = {
    "grid": (lambda seed: GridSearch(COUNTABLE), COUNTABLE),
    "random": (lambda seed: RandomSearch(CONTINUOUS, TRIALS, seed), CONTINUOUS),
    "bayesian": (lambda seed: TreeParzenSearch(CONTINUOUS, TRIALS, seed, True, 5), CONTINUOUS),
}


@pytest.fixture(params=MAKERS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def tried(number: int, parameters: Mapping[str, Scalar]) -> Tried:
    """Every third trial fails and the newest are live; the rest score by their discount."""
    if number % 3 == 0:
        return Tried(number, parameters, Outcome.FAILED)
    if number > TRIALS - 3:
        return Tried(number, parameters, Outcome.LIVE)
    return Tried(number, parameters, Outcome.SUCCEEDED, float(parameters["trainer.gamma"]))


def run(make: Callable[[], Strategy], batch: int) -> list[dict[str, Scalar]]:
    """All trials of a sweep whose strategy is made anew for every question, as if its process had been killed."""
    asked: list[dict[str, Scalar]] = []
    while True:
        history = [tried(number, parameters) for number, parameters in enumerate(asked, start=1)]
        answer = make().ask(History(len(asked), history), batch)
        if not answer:
            return asked
        asked += answer


def test_a_strategy_offers_as_many_trials_as_it_planned_and_then_none(kind: str) -> None:
    make, _ = MAKERS[kind]
    assert len(run(lambda: make(1), 5)) == make(1).planned == TRIALS


def test_a_strategy_stays_within_the_space_with_the_types_of_its_values(kind: str) -> None:
    make, space = MAKERS[kind]
    for parameters in run(lambda: make(2), 4):
        assert set(parameters) == set(space)
        for name, value in parameters.items():
            assert value in space[name], (name, value)


def test_a_strategy_gives_the_same_answer_to_the_same_history_whoever_asks(kind: str) -> None:
    make, _ = MAKERS[kind]
    kept = make(3)
    assert run(lambda: kept, 3) == run(lambda: make(3), 3)


def test_asking_for_many_is_asking_for_one_after_the_other(kind: str) -> None:
    make, _ = MAKERS[kind]
    live: list[Tried] = []
    for number in range(1, 9):
        (parameters,) = make(4).ask(History(number - 1, live), 1)
        live.append(Tried(number, parameters, Outcome.LIVE))

    assert make(4).ask(History(0), 8) == [trial.parameters for trial in live]


def test_another_seed_gives_other_trials() -> None:
    for kind in ("random", "bayesian"):
        make, _ = MAKERS[kind]
        assert make(1).ask(History(0), 3) != make(2).ask(History(0), 3)


def test_a_grid_is_every_combination_once() -> None:
    points = GridSearch(COUNTABLE).ask(History(0), 1000)
    assert len({tuple(point.items()) for point in points}) == 2 * 2 * 3 * 2
    assert [point["trainer.gamma"] for point in points[:6]] == [0.9, 0.9, 0.95, 0.95, 1.0, 1.0]


def test_tpe_learns_what_random_search_does_not() -> None:
    space: dict[str, Domain] = {"trainer.learning_rate": Interval(1e-5, 1e-1, logarithmic=True)}

    def distance(parameters: Mapping[str, Scalar]) -> float:
        return abs(math.log10(float(parameters["trainer.learning_rate"])) + 2.5)

    def mean_distance(strategy: Strategy) -> float:
        """Of the second half of 40 trials from the best learning rate, in powers of ten."""
        history: list[Tried] = []
        for number in range(1, 41):
            (parameters,) = strategy.ask(History(number - 1, history), 1)
            history.append(Tried(number, parameters, Outcome.SUCCEEDED, distance(parameters)))
        return sum(distance(trial.parameters) for trial in history[20:]) / 20

    learned = sum(mean_distance(TreeParzenSearch(space, 40, seed, False)) for seed in range(3))
    drawn = sum(mean_distance(RandomSearch(space, 40, seed)) for seed in range(3))
    assert learned < 0.75 * drawn


@pytest.mark.parametrize("strategy", ["successive_halving", "custom"])
def test_a_strategy_that_is_not_built_says_so(strategy: str) -> None:
    search = Search()
    getattr(search, strategy).SetInParent()
    with pytest.raises(Unimplemented, match=strategy):
        create_strategy(SweepSpec(search=search))
