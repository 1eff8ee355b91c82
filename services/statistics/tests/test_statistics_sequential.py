"""Looks and races: the bounds against published tables, the error rate by simulation, what racing saves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from daf_statistics.sequential import (
    Race,
    adjusted_p_values,
    nominal_levels,
    obrien_fleming_constant,
    sequential_p_value,
    take_look,
)
from daf_statistics.sign_flips import sign_flip_bound, sign_flip_test


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


@pytest.mark.parametrize("alpha", [1e-6, 0.001, 0.05, 0.3])
@pytest.mark.parametrize("looks", [2, 5, 20, 50])
def test_the_level_of_any_look_has_the_error_rate_of_all_as_its_sequential_p_value(looks: int, alpha: float) -> None:
    for look, level in enumerate(nominal_levels(looks, alpha), start=1):
        if level > 1e-300:
            assert sequential_p_value(level, look, looks) == pytest.approx(alpha, rel=1e-6)


@pytest.mark.parametrize(("look", "z"), [(1, 1.0), (2, 1.5), (4, 2.2), (5, 2.5)])
def test_a_sequential_p_value_is_how_often_any_look_is_as_extreme(look: int, z: float) -> None:
    looks, runs = 5, 200_000
    walks = np.random.default_rng(3).normal(size=(runs, looks)).cumsum(axis=1)

    seen = (np.abs(walks) >= z * math.sqrt(look)).any(axis=1).mean()

    found = sequential_p_value(math.erfc(z / math.sqrt(2)), look, looks)
    assert found == pytest.approx(seen, abs=4 * math.sqrt(seen * (1 - seen) / runs))


def test_sequential_p_values_rise_with_the_p_value_to_their_ends() -> None:
    p_values = [0.0, 1e-300, 1e-100, 1e-20, 1e-15, 1e-14, 1e-10, 1e-4, 0.01, 0.05, 0.3, 0.9, 0.999999, 1.0]
    for looks in (1, 2, 7, 50):
        for look in range(1, looks + 1):
            found = [sequential_p_value(p_value, look, looks) for p_value in p_values]
            assert found == pytest.approx(sorted(found), rel=1e-12, abs=0)
            assert (found[0], found[-1]) == (0.0, 1.0)
            if look == looks:
                assert all(one >= p_value * (1 - 1e-9) for one, p_value in zip(found, p_values, strict=True))
    assert sequential_p_value(0.03, 1, 1) == 0.03


@given(st.lists(st.floats(-1e3, 1e3), max_size=20))
def test_the_bound_of_the_sign_flip_test_is_never_below_its_exact_p_value(differences: list[float]) -> None:
    assert sign_flip_bound(differences) >= sign_flip_test(differences).p_value * (1 - 1e-9)


def test_the_bound_lets_clear_differences_be_found_at_the_first_look() -> None:
    clear = [3.0 + number % 3 for number in range(60)]

    after = take_look(Race(2, 10), {(0, 1): clear})

    assert (after.racing, after.over) == ([0], True)
    assert 0 < after.decisions[0].p_value <= after.decisions[0].level < 1e-9


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), policies=st.integers(2, 4), looks=st.integers(1, 4), shift=st.floats(0, 2))
def test_a_pair_is_decided_where_its_adjusted_p_value_is_at_most_alpha(
    seed: int, policies: int, looks: int, shift: float
) -> None:
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(8 * looks, policies)) + shift * np.arange(policies)

    ended, _ = race(values, looks)

    decided = {frozenset((one.better, one.worse)) for one in ended.decisions}
    found = adjusted_p_values(ended)
    assert {frozenset(pair) for pair, p_value in found.items() if p_value <= 0.05} == decided
    assert set(found) == set(combinations(range(policies), 2))
    if looks == 1:
        p_values = [sign_flip_test((values[:, a] - values[:, b]).tolist()).p_value for a, b in found]
        expected = multipletests(p_values, method="holm")[1]
        assert list(found.values()) == pytest.approx(expected.tolist())


@pytest.mark.parametrize("looks", [1, 5])
def test_a_policy_against_itself_is_called_different_in_at_most_alpha_of_a_thousand_runs(looks: int) -> None:
    generator = np.random.default_rng(4)
    runs = 1000

    wrong = sum(
        bool(race(generator.normal(size=(20, 1)) + generator.exponential(size=(20, 2)), looks)[0].decisions)
        for _ in range(runs)
    )

    assert wrong <= runs * 0.05 + 2 * math.sqrt(runs * 0.05 * 0.95)


def test_turning_a_pair_round_turns_its_race_round() -> None:
    generator = np.random.default_rng(5)
    values = generator.normal(size=(30, 2)) + np.array([0.7, 0.0])

    one, other = race(values, 3)[0], race(values[:, ::-1], 3)[0]

    assert [(d.better, d.worse, d.look, d.p_value, d.level) for d in one.decisions] == [
        (1 - d.better, 1 - d.worse, d.look, d.p_value, d.level) for d in other.decisions
    ]
    assert one.p_values == other.p_values
