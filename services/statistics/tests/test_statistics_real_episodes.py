"""Which episodes of real missions are copies of others."""

from __future__ import annotations

from daf_cogames.catalog import catalog, resolve_policy
from daf_cogames.evaluation.table import Setting, Table
from daf_cogames.missions import Mission
from daf_cogames.policies import PolicySource
from daf_cogames.seating import plan_episodes
from daf_statistics.episodes import Source, statistic_names
from daf_statistics.outcomes import outcome
from daf_statistics.samples import KnownStatistics, distinct, find_source, measured, read_samples

MINER = "cogsguard_machina_1.miner_tutorial"


def test_on_a_pinned_map_a_policy_without_randomness_repeats_itself_and_elsewhere_equal_rewards_are_ties() -> None:
    missions = [Mission(MINER, cogs=4, max_steps=40), Mission(MINER, cogs=4, max_steps=40, map_seed=7)]
    starter = PolicySource(resolve_policy("starter").name)
    table = Table(Setting(missions, [starter], max_action_time_ms=60_000, time_limit_seconds=60.0))
    plans = plan_episodes([0] * 4, episodes=3, seed=100)
    free, pinned = ([table.play(mission, plan) for plan in plans] for mission in (0, 1))

    on_free, on_pinned = (
        read_samples("", measured([(outcome(one), one) for one in played], "reward", Source.REWARD)).by_policy[0]
        for played in (free, pinned)
    )

    assert len({sample.value for sample in on_free}) == len({sample.value for sample in on_pinned}) == 1
    assert (len(distinct(on_free)), len(distinct(on_pinned))) == (3, 1)
    for name in sorted(statistic_names(free[0])):
        assert find_source(free, name, KnownStatistics()) is (
            Source.AGENT if name in catalog().agent_statistics else Source.GAME
        )
