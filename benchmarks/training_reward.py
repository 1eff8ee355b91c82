"""What two workers learn in as many agent steps as one process, with the same hyperparameters.

One worker of ours is plain cogames to the bit (`training_overhead` checks it), and can be given hyperparameters, which
`cogames.train.train()` cannot: so it is the peer. Two workers have half of the environments each and half of the
minibatch, so that both learn from the same number of agent steps in each gradient step. Both start from the same
weights, for several seeds; the reward is that of the final weights over the same episodes.
"""

from __future__ import annotations

import math
import statistics
import sys
import tempfile
import time
from pathlib import Path

from scipy import stats

from benchmarks.training_process import Work
from benchmarks.training_runs import ROOT, cores, run_at_once, run_ranks

MISSION, COGS, MAX_STEPS, ENVIRONMENTS, AGENT_STEPS = "cogsguard_machina_1.miner_tutorial", 4, 300, 16, 250_000
POLICY, ARGUMENTS = "grid_policy.GridPolicy", {"hidden_size": 64}
MINIBATCH = 256
TRAINER = {
    "gamma": 0.98,
    "gae_lambda": 0.95,
    "update_epochs": 2,
    "learning_rate": 0.002,
    "ent_coef": 0.01,
}
EXAMPLES = ROOT / "examples" / "policies"
SEEDS = range(6)
EPISODES, EPISODE_SEED = 20, 1_000_000


def mean_reward(weights: Path) -> float:
    """Of an agent in an episode, over the episodes on which all are compared."""
    from daf_cogames.missions import Mission
    from daf_cogames.play.episodes import EpisodeRunner
    from daf_cogames.policies import PolicySource
    from daf_cogames.seating import EpisodePlan

    runner = EpisodeRunner(
        Mission(MISSION, cogs=COGS, max_steps=MAX_STEPS), [PolicySource(POLICY, ARGUMENTS, weights, EXAMPLES)]
    )
    plans = (EpisodePlan(index, EPISODE_SEED + index, seats=(0,) * COGS) for index in range(EPISODES))
    return statistics.mean(statistics.mean(runner.run(plan).rewards) for plan in plans)


def main() -> None:
    """Prints the figures."""
    if len(cores()) < 2:
        sys.exit("needs two cores")
    sys.path.append(str(EXAMPLES))
    on = cores()[:2]
    print(f"{POLICY} on {MISSION}, {AGENT_STEPS} agent steps, {ENVIRONMENTS} environments in all, {EPISODES} episodes")
    differences = []
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as directory:

            def work(workers: int, seed: int = seed, directory: str = directory) -> Work:
                return Work(
                    plain=False,
                    mission=MISSION,
                    max_steps=MAX_STEPS,
                    policy=POLICY,
                    agent_steps=AGENT_STEPS,
                    environments=ENVIRONMENTS // workers,
                    seed=seed,
                    directory=f"{directory}/{workers}",
                    cogs=COGS,
                    arguments=ARGUMENTS,
                    trainer={**TRAINER, "minibatch_size": MINIBATCH // workers},
                    path=str(EXAMPLES),
                )

            start = time.perf_counter()
            [one] = run_at_once([work(1)], on[:1])
            middle = time.perf_counter()
            two = run_ranks(work(2), on)[0]
            end = time.perf_counter()
            rewards = mean_reward(one.weights), mean_reward(two.weights)
        differences.append(rewards[1] - rewards[0])
        print(
            f"seed {seed}: one process {rewards[0]:.2f} in {middle - start:.0f} s, two workers {rewards[1]:.2f} in "
            f"{end - middle:.0f} s"
        )
    mean = statistics.mean(differences)
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    margin = float(stats.t.ppf(0.975, len(differences) - 1)) * error
    print(f"two workers - one process: {mean:+.2f}, 95 % interval {mean - margin:+.2f} to {mean + margin:+.2f}")
    verdict = "worse" if mean + margin < 0 else "better" if mean - margin > 0 else "no difference shown"
    print(f"{verdict} over {len(differences)} seeds")


if __name__ == "__main__":
    main()
