"""Episodes of network policies beside `cogames.evaluate`'s own loop, on one core, with the same weights and seeds.

The peer plays `run_multi_episode_rollout`, as cogames does. Both are timed in turn in the same process, in CPU time,
which other processes disturb less than wall time; loading policies and making maps are counted on both sides. Every
exact episode is compared with the one that is played agent by agent, by its digest.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

MISSION, COGS, SEED = "cogsguard_machina_1.miner_tutorial", 4, 3_000_000
EPISODES, PEER_EPISODES, ROUNDS = 8, 2, 2
CASES = (
    ("lstm_corrected", 300),
    ("lstm_corrected", 1000),
    ("puffer_corrected", 300),
    ("pufferlib_cogs_corrected", 300),
    ("stateless_corrected", 300),
    ("tutorial", 100),
    ("grid_policy.GridPolicy", 300),
    ("grid_policy.GridPolicy", 1000),
)
CODE = Path(__file__).parents[1] / "examples" / "policies"
"""Where the policies are that CoGames does not ship: of them nothing is known but their network."""

TARGET_RATIO = 5


def main() -> None:
    """Prints the figures."""
    from daf_cogames.catalog import resolve_policy
    from daf_cogames.code import on_path

    for policy, steps in CASES:
        with tempfile.TemporaryDirectory() as directory, on_path(CODE):
            _measure(resolve_policy(policy).name, steps, Path(directory) / "weights.pt")
    print(f"target at least {TARGET_RATIO}")


def _measure(class_path: str, steps: int, weights: Path) -> None:
    import torch
    from mettagrid.policy.policy import PolicySpec
    from mettagrid.policy.policy_env_interface import PolicyEnvInterface
    from mettagrid.runner.rollout import run_multi_episode_rollout

    from daf_cogames.missions import Mission, build_mission
    from daf_cogames.play.episodes import EpisodeOutcome, EpisodeRunner
    from daf_cogames.policies import PolicySource, load_policy
    from daf_cogames.seating import plan_episodes

    mission = Mission(MISSION, cogs=COGS, max_steps=steps)
    config = build_mission(mission)
    torch.manual_seed(5)
    load_policy(PolicySource(class_path, code=CODE), PolicyEnvInterface.from_mg_cfg(config)).save_policy_data(
        str(weights)
    )
    runner = EpisodeRunner(mission, [PolicySource(class_path, weights=weights, code=CODE)])
    plans = plan_episodes((0,) * COGS, EPISODES, SEED)

    def theirs() -> object:
        spec = PolicySpec(class_path=class_path, data_path=str(weights))
        return run_multi_episode_rollout(
            policy_specs=[spec],
            assignments=(0,) * COGS,
            env_cfg=config,
            episodes=PEER_EPISODES,
            seed=SEED,
            max_action_time_ms=60_000,
        )

    def ours() -> list[str]:
        results = runner.run_together(plans)
        return [result.digest for result in results if isinstance(result, EpisodeOutcome)]

    expected = [runner.run(plan).digest for plan in plans[:PEER_EPISODES]]
    pairs = []
    for _ in range(ROUNDS):
        peer, _ = _seconds(theirs)
        own, digests = _seconds(ours)
        if digests[:PEER_EPISODES] != expected:
            raise AssertionError("an episode changed")
        pairs.append((peer / PEER_EPISODES, own / EPISODES))
    ratio = statistics.median(peer / own for peer, own in pairs)
    peer, own = (statistics.median(pair[side] for pair in pairs) for side in (0, 1))
    name = class_path.rpartition(".")[2]
    print(
        f"{name:<20} {steps:>5} steps, {COGS} agents: cogames {peer:.2f}, ours {own:.2f} s an episode and core, "
        f"median ratio {ratio:.1f}, digests equal"
    )


def _seconds(play: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    result = play()
    return time.process_time() - start, result


if __name__ == "__main__":
    main()
