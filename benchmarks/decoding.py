"""Episodes in one process with and without the faster observation decoding (`daf_cogames.play.decoding`)."""

from __future__ import annotations

import statistics
import time
from contextlib import nullcontext
from unittest.mock import patch

MISSION, COGS, STEPS, ROUNDS = "cogsguard_machina_1.miner_tutorial", 4, 300, 5
POLICIES = ("starter", "random")


def main() -> None:
    """Prints the figures: CPU time, which other processes disturb less than wall time."""
    from daf_cogames.catalog import resolve_policy
    from daf_cogames.missions import Mission
    from daf_cogames.play.episodes import EpisodeRunner
    from daf_cogames.policies import PolicySource
    from daf_cogames.seating import EpisodePlan

    for name in POLICIES:
        source = PolicySource(resolve_policy(name).name)
        runner = EpisodeRunner(Mission(MISSION, cogs=COGS, max_steps=STEPS), [source])
        plan = EpisodePlan(index=0, seed=1, seats=(0,) * COGS)

        def seconds(runner: EpisodeRunner = runner, plan: EpisodePlan = plan) -> tuple[float, str]:
            start = time.process_time()
            outcome = runner.run(plan)
            return time.process_time() - start, outcome.digest

        seconds()
        pairs = []
        for _ in range(ROUNDS):
            with patch("daf_cogames.play.episodes.fast_decoding", nullcontext):
                plain, expected = seconds()
            fast, digest = seconds()
            if digest != expected:
                raise AssertionError("the faster decoding changed the episode")
            pairs.append((plain, fast))
        ratio = statistics.median(plain / fast for plain, fast in pairs)
        theirs, ours = (statistics.median(pair[side] for pair in pairs) for side in (0, 1))
        print(f"{name:<8} mettagrid {theirs:.2f} s, ours {ours:.2f} s an episode ({STEPS} steps, {COGS} agents)")
        print(f"{'':<8} median ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
