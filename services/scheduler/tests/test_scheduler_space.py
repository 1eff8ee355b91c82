"""Domains and grids."""

from __future__ import annotations

import pytest

from daf_scheduler.space import Choices, Domain, Interval, grid_point, grid_size


@pytest.mark.parametrize(
    ("interval", "values"),
    [
        (Interval(0.0, 0.3, step=0.1), [0.0, 0.1, 0.2, 0.3]),
        (Interval(0.0, 0.35, step=0.1), [0.0, 0.1, 0.2, 0.3]),
        (Interval(1, 3, integer=True), [1, 2, 3]),
        (Interval(128, 512, step=128, integer=True), [128, 256, 384, 512]),
        (Interval(0.5, 0.5), [0.5]),
    ],
)
def test_an_interval_that_can_be_counted_has_these_values(interval: Interval, values: list[float]) -> None:
    assert interval.size is not None
    found = [interval.at(index) for index in range(interval.size)]
    assert found == values
    assert {type(value) for value in found} == {int if interval.integer else float}
    assert all(value in interval for value in found)


@pytest.mark.parametrize("interval", [Interval(0.0, 1.0), Interval(0.1, 1.0, logarithmic=True)])
def test_an_interval_of_any_number_cannot_be_counted(interval: Interval) -> None:
    assert interval.size is None


@pytest.mark.parametrize(
    "interval",
    [
        Interval(1e-5, 1e-2, logarithmic=True),
        Interval(1, 1000, logarithmic=True, integer=True),
        Interval(-1.0, 1.0),
        Interval(0.0, 1.0, step=0.25),
        Interval(2, 9, integer=True),
    ],
)
def test_draws_reach_both_ends_and_stay_within(interval: Interval) -> None:
    draws = [interval.draw(uniform) for uniform in [*(i / 1000 for i in range(1000)), 1 - 2**-53]]
    assert all(value in interval for value in draws)
    assert min(draws) == pytest.approx(interval.minimum)
    assert max(draws) == pytest.approx(interval.maximum)


def test_a_logarithmic_draw_spends_as_much_on_every_power_of_ten() -> None:
    interval = Interval(1e-4, 1.0, logarithmic=True)
    assert interval.draw(0.25) == pytest.approx(1e-3)
    assert interval.draw(0.5) == pytest.approx(1e-2)


def test_choices_keep_their_types() -> None:
    choices = Choices((1, 2))
    assert choices.draw(0.99) == 2
    assert 1 in choices
    assert True not in choices


def test_a_grid_is_numbered_with_the_last_name_fastest() -> None:
    space: dict[str, Domain] = {"b": Choices((True, False)), "a": Interval(1, 3, integer=True)}
    assert grid_size(space) == 6
    assert [grid_point(space, index) for index in (0, 1, 2)] == [
        {"a": 1, "b": True},
        {"a": 1, "b": False},
        {"a": 2, "b": True},
    ]
