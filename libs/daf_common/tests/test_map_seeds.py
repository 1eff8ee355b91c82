"""Which maps training plays on, and that those of evaluations are others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daf_common.map_seeds import (
    FIRST_UNTRAINED_SEED,
    MAX_TRAINING_SEED,
    overlap,
    rank_seed,
    training_maps,
    with_pinned,
)


def test_a_run_has_the_maps_of_every_rank_in_every_attempt() -> None:
    maps = training_maps(42, workers=2, attempts=2, environments=4, agent_steps=800, agents=2)

    # 800 agent steps of two workers with four environments of two agents are 50 steps of an environment.
    assert [(one.start, len(one)) for one in maps] == [
        (42, 54),
        (1_000_045, 54),
        (67_108_921, 54),
        (68_108_924, 54),
    ]


def test_with_fewer_workers_each_may_play_more_maps() -> None:
    one, _ = training_maps(42, workers=2, min_workers=1, environments=4, agent_steps=800, agents=2)
    assert one == range(42, 42 + 4 + 100)


def test_without_steps_there_is_the_first_map_of_each_environment() -> None:
    assert training_maps(42, environments=4) == [range(42, 46)]


@given(
    seed=st.integers(0, MAX_TRAINING_SEED),
    workers=st.integers(1, 20),
    attempts=st.integers(1, 10),
    environments=st.integers(1, 300),
    agent_steps=st.integers(0, 10**7),
)
def test_no_run_has_maps_that_are_kept_for_scoring(
    seed: int, workers: int, attempts: int, environments: int, agent_steps: int
) -> None:
    maps = training_maps(seed, workers=workers, attempts=attempts, environments=environments, agent_steps=agent_steps)

    assert overlap(maps, [range(FIRST_UNTRAINED_SEED, 2**32)]) is None
    assert rank_seed(seed, workers - 1, attempts) in {one.start for one in maps}


@pytest.mark.parametrize(
    ("some", "others", "shared"),
    [
        ([range(5)], [range(5, 9)], None),
        ([range(6)], [range(5, 9)], range(5, 6)),
        ([range(20, 30), range(6)], [range(5, 9)], range(5, 6)),
        ([range(10)], [range(3, 4)], range(3, 4)),
        ([], [range(3)], None),
        ([range(3)], [], None),
    ],
)
def test_overlaps_are_found_at_their_edges(some: list[range], others: list[range], shared: range | None) -> None:
    assert overlap(some, others) == shared
    assert overlap(others, some) == shared


@pytest.mark.parametrize(
    ("map_seeds", "maps"),
    [
        ([None], [range(10, 20)]),
        ([7], [range(7, 8)]),
        ([7, None, 8], [range(7, 8), range(8, 9), range(10, 20)]),
        ([], []),
    ],
)
def test_a_pinned_mission_has_its_own_map_alone(map_seeds: list[int | None], maps: list[range]) -> None:
    assert with_pinned(map_seeds, [range(10, 20)]) == maps
