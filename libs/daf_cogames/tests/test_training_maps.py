"""The maps that training really plays on are those that evaluations keep away from."""

from __future__ import annotations

from typing import Any

import pytest

from daf_cogames.missions import Mission, build_mission
from daf_cogames.training.rotation import RotatingEnvironments
from daf_common.map_seeds import training_maps, with_pinned

SEED, ENVIRONMENTS, EPISODES = 1000, 3, 4


@pytest.mark.parametrize("map_seed", [None, 7])
def test_environments_play_on_maps_of_the_run(map_seed: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    from mettagrid.simulator import simulator

    seeds: list[int] = []
    made = simulator.Simulation._seeded_map_builder

    def told(simulation: Any, map_builder: Any) -> Any:
        builder = made(simulation, map_builder)
        seeds.append(builder.seed)
        return builder

    monkeypatch.setattr(simulator.Simulation, "_seeded_map_builder", told)
    mission = Mission("cogsguard_arena.basic", cogs=2, max_steps=10, map_seed=map_seed)
    config = build_mission(mission)
    creator = RotatingEnvironments([mission], [config], 0, config, None, None, SEED)
    seeds.clear()

    for number in range(ENVIRONMENTS):
        environment = creator(None, None, number)
        for _ in range(EPISODES - 1):
            environment.reset()
        environment.close()

    # Each environment took at least one step for each of its episodes.
    maps = with_pinned([map_seed], training_maps(SEED, environments=ENVIRONMENTS, agent_steps=ENVIRONMENTS * EPISODES))
    assert len(seeds) >= ENVIRONMENTS * EPISODES
    assert all(any(seed in one for one in maps) for seed in seeds)
    assert min(seeds) == (SEED if map_seed is None else map_seed)
    assert len(set(seeds)) == (1 if map_seed is not None else ENVIRONMENTS - 1 + EPISODES)
