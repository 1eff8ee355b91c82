"""The environments of training: which map each episode is played on."""

from __future__ import annotations

import pytest

from daf_cogames.missions import Mission, build_mission
from daf_cogames.training.rotation import RotatingEnvironments

SEED = 5


def maps(mission: Mission, episodes: int) -> list[frozenset[tuple[int, int, str]]]:
    """What stands where at the start of each episode of one environment, but for its agents."""
    config = build_mission(mission)
    environment = RotatingEnvironments([mission], [config], 0, config, None, None, SEED)(seed=0)
    seen = []
    for _ in range(episodes):
        environment.reset()
        objects = environment.current_simulation.grid_objects().values()
        seen.append(frozenset((thing["r"], thing["c"], thing["type_name"]) for thing in objects))
    environment.close()
    return seen


@pytest.mark.parametrize(("map_seed", "different"), [(7, 1), (None, 3)])
def test_a_map_seed_holds_for_every_episode_of_training_and_without_it_each_has_a_map_of_its_own(
    map_seed: int | None, different: int
) -> None:
    mission = Mission("cogsguard_machina_1.miner_tutorial", cogs=4, max_steps=10, map_seed=map_seed)

    assert len(set(maps(mission, 3))) == different
