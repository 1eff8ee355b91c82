"""Looks and races: the bounds against published tables, the error rate by simulation, what racing saves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pytest

from daf_statistics.sequential import Race, nominal_levels, obrien_fleming_constant, take_look


@pytest.mark.parametrize(
    ("looks", "alpha", "constant"),
    [
        (1, 0.05, 1.960),
        (2, 0.05, 1.977),
        (3, 0.05, 2.004),
        (4, 0.05, 2.024),
        (5, 0.05, 2.040),
        (10, 0.05, 2.087),
        (20, 0.05, 2.126),
        (4, 0.01, 2.609),
        (5, 0.01, 2.621),
        (5, 0.10, 1.751),
    ],
)
def test_the_bounds_are_those_of_the_published_table(looks: int, alpha: float, constant: float) -> None:
    # Jennison and Turnbull, Group Sequential Methods, 2000, table 2.3.
    assert obrien_fleming_constant(looks, alpha) == pytest.approx(constant, abs=6e-4)


def test_nominal_levels_rise_to_almost_alpha() -> None:
    levels = nominal_levels(5, 0.05)

    assert levels == sorted(levels)
    assert levels[0] == pytest.approx(5.1e-6, rel=0.02)
    assert levels[-1] == pytest.approx(0.0413, abs=1e-4)
    assert nominal_levels(1, 0.05) == [pytest.approx(0.05)]


def differences(values: Mapping[int, Sequence[float]] | np.ndarray, race: Race) -> dict[tuple[int, int], list[float]]:
    return {
        (first, second): [float(a) - float(b) for a, b in zip(values[first], values[second], strict=True)]
        for first, second in combinations(race.racing, 2)
    }


def race(values: np.ndarray, looks: int, alpha: float = 0.05) -> tuple[Race, int]:
    """A whole race; also the episodes that were played in it."""
    current, played, group = Race(values.shape[1], looks, alpha), 0, len(values) // looks
    while not current.over:
        played += group * len(current.racing)
        upto = group * (current.done + 1)
        current = take_look(current, differences(values[:upto].T, current))
    return current, played


def test_a_race_among_equal_policies_ends_wrongly_in_at_most_alpha_of_runs() -> None:
    generator = np.random.default_rng(1)
    runs = 300

    wrong = sum(
        bool(race(generator.exponential(size=(20, 1)) + generator.exponential(size=(20, 3)), 5)[0].decisions)
        for _ in range(runs)
    )

    assert wrong <= runs * 0.05 + 2 * math.sqrt(runs * 0.05 * 0.95)


def test_a_clear_race_is_short_and_has_the_right_winner() -> None:
    generator = np.random.default_rng(2)
    values = generator.normal(size=(40, 1)) + 0.5 * generator.normal(size=(40, 4)) + np.array([0.0, 0.3, 2.0, 0.1])

    ended, played = race(values, 8)

    assert ended.racing == [2]
    assert played < 0.6 * values.size


def test_a_race_that_nothing_decides_goes_to_its_last_look() -> None:
    values = np.tile([[1.0, 2.0], [2.0, 1.0]], (10, 1))

    ended, played = race(values, 5)

    assert (ended.over, ended.done, ended.racing, played) == (True, 5, [0, 1], 40)


def test_what_one_look_decides_and_who_goes_on() -> None:
    level = [float(value % 3) for value in range(16)]
    worse = [value - 5.0 - number % 2 for number, value in enumerate(level)]
    alike = [value + (0.1 if number % 2 else -0.1) for number, value in enumerate(level)]

    start = Race(3, 2)
    after = take_look(start, differences({0: level, 1: worse, 2: alike}, start))

    assert {(one.better, one.worse) for one in after.decisions} == {(0, 1), (2, 1)}
    assert (after.racing, after.done, after.over) == ([0, 2], 1, False)
    assert [after.looks_of(policy) for policy in range(3)] == [1, 1, 1]
    last = take_look(after, differences({0: level * 2, 2: alike * 2}, after))
    assert (last.decisions, last.over, last.looks_of(1)) == (after.decisions, True, 1)
