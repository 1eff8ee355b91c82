import math

import numpy as np
import pytest

from daf_cogames.training.metrics import MetricsWindow


def test_a_metric_is_the_mean_of_what_was_added():
    window = MetricsWindow(by_mission=False)

    window.add("losses/entropy", 1.0)
    window.add("losses/entropy", 2.0)

    assert window.means() == {"losses/entropy": 1.5}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan")])
def test_a_value_that_is_not_finite_is_named_and_left_out_of_the_mean(value):
    window = MetricsWindow(by_mission=False)

    window.add("losses/a", value)
    window.add("losses/b", value)
    window.add("losses/b", 3.0)

    assert window.means() == {"losses/b": 3.0}
    assert window.nonfinite() == ("losses/a", "losses/b")


def test_the_statistics_of_episodes_are_kept_without_those_of_single_agents_timings_and_text():
    window = MetricsWindow(by_mission=False)

    window.add_episodes(
        {
            "agent/heart.gained": [1.0, 3.0],
            "game/moves": [np.float32(5)],
            "per_agent/0/heart.gained": [9.0],
            "timing_per_epoch/frac/thread_idle": [0.1],
            "attributes/steps": [100, 300],
            "attributes/seed": [7, 8],
            "per_label_rewards/arena": [0.5, 1.5],
            "game/name": ["text"],
        }
    )

    assert window.means() == {
        "env/agent/heart.gained": 2.0,
        "env/game/moves": 5.0,
        "env/episode_steps": 200.0,
        "env/reward_per_agent": 1.0,
        "env/episodes": 2.0,
    }


def test_the_reward_is_also_kept_by_mission_where_several_are_played():
    window = MetricsWindow(by_mission=True)

    window.add_episodes({"per_label_rewards/arena": [1.0], "per_label_rewards/machina": [2.0]})

    assert window.means() == {
        "env/reward_per_agent": 1.5,
        "env/reward_per_agent/arena": 1.0,
        "env/reward_per_agent/machina": 2.0,
    }
