from __future__ import annotations

import pytest

from daf.space import Choices, Interval, daf_grid_search, daf_random_search, explicit


def test_a_grid_is_every_combination_in_order() -> None:
    assert daf_grid_search({"lr": [0.1, 0.2], "size": [1, 2]}) == [
        {"lr": 0.1, "size": 1},
        {"lr": 0.1, "size": 2},
        {"lr": 0.2, "size": 1},
        {"lr": 0.2, "size": 2},
    ]


def test_a_grid_takes_intervals_with_a_step() -> None:
    grid = daf_grid_search({"x": {"min": 0.1, "max": 0.3, "step": 0.1}, "n": {"min": 1, "max": 2, "int": True}})

    assert [point["n"] for point in grid] == [1, 2] * 3
    assert [point["x"] for point in grid[::2]] == pytest.approx([0.1, 0.2, 0.3])


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"x": {"min": 0, "max": 1}}, "x: a grid needs listed values"),
        ({"x": list(range(1001)), "y": list(range(1000))}, "more than 1000000 combinations"),
        ({"x": []}, "at least 1"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(space: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        daf_grid_search(space)


def test_random_draws_stay_inside_and_repeat_by_seed() -> None:
    space = {
        "pair": [0.5, 2.0],
        "whole": [1, 3],
        "log": {"min": 1e-4, "max": 1e-2, "log": True},
        "step": {"min": 0, "max": 1, "step": 0.25},
        "choice": {"choices": [1, 100]},
        "text": ["a", "b", "c"],
    }

    drawn = daf_random_search(space, 200, seed=1)

    assert drawn == daf_random_search(space, 200, seed=1) != daf_random_search(space, 200, seed=2)
    assert all(0.5 <= point["pair"] <= 2.0 for point in drawn)
    assert {point["whole"] for point in drawn} == {1, 2, 3}
    assert all(1e-4 <= point["log"] <= 1e-2 for point in drawn)
    assert 0.3 < sum(point["log"] < 1e-3 for point in drawn) / 200 < 0.7  # half of the scale, not a tenth
    assert {point["step"] for point in drawn} == {0, 0.25, 0.5, 0.75, 1.0}
    assert {point["choice"] for point in drawn} == {1, 100}
    assert {point["text"] for point in drawn} == {"a", "b", "c"}


def test_a_pair_means_an_interval_unless_the_strategy_is_a_grid() -> None:
    assert explicit([0.1, 0.5], "grid") == Choices(choices=[0.1, 0.5])
    assert explicit([0.1, 0.5], "random") == Interval(min=0.1, max=0.5)
    assert explicit([1, 5], "bayesian") == Interval(min=1, max=5, int=True)
    assert explicit([True, False], "random") == Choices(choices=[True, False])
    assert explicit(["a", "b"], "random") == Choices(choices=["a", "b"])
    with pytest.raises(ValueError, match="greater than"):
        explicit([0.5, 0.1], "random")
