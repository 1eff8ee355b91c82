"""Episodes of a policy in a sandbox beside the same episodes in process, in turn; and what a sandbox costs to start."""

from __future__ import annotations

import dataclasses
import statistics
import time

MISSION, COGS, STEPS, ROUNDS = "cogsguard_machina_1.miner_tutorial", 4, 500, 7
POLICIES = ("starter", "noop", "daf_cogames.corrected.LSTMPolicy")


def main() -> None:
    """Prints the figures: wall time, since two processes take turns."""
    from daf_cogames.catalog import resolve_policy
    from daf_cogames.missions import Mission
    from daf_cogames.play.episodes import EpisodeRunner
    from daf_cogames.policies import PolicySource
    from daf_cogames.sandbox.sandbox import Sandbox
    from daf_cogames.seating import EpisodePlan

    plan = EpisodePlan(index=0, seed=1, seats=(0,) * COGS)

    def seconds(runner: EpisodeRunner) -> tuple[float, str]:
        start = time.perf_counter()
        digest = runner.run(plan).digest
        return time.perf_counter() - start, digest

    start = time.perf_counter()
    with Sandbox(60) as sandbox:
        _ = sandbox.enforced
        print(f"a sandbox is ready in {time.perf_counter() - start:.1f} s, once for each worker")
        for name in POLICIES:
            source = PolicySource(resolve_policy(name).name)
            mission, short = Mission(MISSION, cogs=COGS, max_steps=STEPS), Mission(MISSION, cogs=COGS, max_steps=1)
            apart = dataclasses.replace(source, elsewhere=sandbox)
            here, there = EpisodeRunner(mission, [source]), EpisodeRunner(mission, [apart])
            begun, begun_there = EpisodeRunner(short, [source]), EpisodeRunner(short, [apart])
            pairs, starts = [], []
            for round in range(ROUNDS + 1):
                ours, expected = seconds(there)
                plain, digest = seconds(here)
                if digest != expected:
                    raise AssertionError("the sandbox changed the episode")
                if round:  # the first is to warm up
                    pairs.append((plain, ours))
                    starts.append(seconds(begun_there)[0] - seconds(begun)[0])
            inside, apart_seconds = (statistics.median(pair[side] for pair in pairs) for side in (0, 1))
            ratio = statistics.median(plain / ours for plain, ours in pairs)
            label = name.rpartition(".")[2]
            print(f"{label:<12} in process {inside:.2f} s, in a sandbox {apart_seconds:.2f} s an episode", end="")
            print(f" ({STEPS} steps, {COGS} agents), of which {statistics.median(starts):.2f} s are its start")
            print(f"{'':<12} throughput {ratio:.2f} of that in process (median of pairs)")


if __name__ == "__main__":
    main()
