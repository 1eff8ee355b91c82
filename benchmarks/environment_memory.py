"""Memory of a training worker by its number of environments, for several missions and policies.

Each figure is the peak resident memory of a process of its own that trains for one update, and in the end of one that
trains for longer, since a worker grows a little. The lines through them give the numbers that `daf check` reckons with
(`daf.checks.memory`): memory of a worker without environments, and of each environment. There is no peer: CoGames says
nothing of memory.
"""

from __future__ import annotations

import subprocess
import sys
from statistics import linear_regression

MISSIONS = (
    ("cogsguard_machina_1.miner_tutorial", 4),
    ("cogsguard_arena.basic", 4),
    ("cogsguard_machina_1.basic", 4),
    ("cogsguard_machina_1.basic", 8),
)
POLICIES = ("lstm", "stateless")
ENVIRONMENTS = (4, 16, 64)
LONG_STEPS = 200_000
SECONDS = 1800

WORKER = """
import resource, sys, tempfile
from pathlib import Path
from daf_cogames.catalog import resolve_policy
from daf_cogames.missions import Mission
from daf_cogames.policies import PolicySource
from daf_cogames.training.train import TrainingPlan, train

mission, cogs, policy, environments, agent_steps = sys.argv[1], int(sys.argv[2]), sys.argv[3], *map(int, sys.argv[4:])
with tempfile.TemporaryDirectory() as directory:
    train(
        TrainingPlan(
            missions=(Mission(mission, cogs=cogs),),
            policy=PolicySource(resolve_policy(policy).name),
            agent_steps=agent_steps,
            num_envs=environments,
            seed=1,
            directory=Path(directory),
        ),
        on_progress=lambda progress: None,
        on_checkpoint=lambda checkpoint: None,
        stop=lambda: None,
    )
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def peak_mib(mission: str, cogs: int, policy: str, environments: int, agent_steps: int = 1) -> float:
    """Peak resident memory of a process that trains for so many agent steps, and at least for one update."""
    command = [sys.executable, "-c", WORKER, mission, str(cogs), policy, str(environments), str(agent_steps)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=SECONDS)
    return int(done.stdout.splitlines()[-1]) / 2**20


def main() -> None:
    """Prints the figures."""
    print(f"{'mission':<36}{'agents':>7}{'policy':>11}   MiB with {ENVIRONMENTS} environments    worker + environment")
    for mission, cogs in MISSIONS:
        for policy in POLICIES:
            peaks = [peak_mib(mission, cogs, policy, environments) for environments in ENVIRONMENTS]
            line = linear_regression(ENVIRONMENTS, peaks)
            print(
                f"{mission:<36}{cogs:>7}{policy:>11}   {'  '.join(f'{peak:6.0f}' for peak in peaks)}"
                f"          {line.intercept:6.0f} MiB + {line.slope:5.2f} MiB",
                flush=True,
            )
    mission, cogs = MISSIONS[0]
    short, long = (peak_mib(mission, cogs, POLICIES[0], 16, steps) for steps in (1, LONG_STEPS))
    print(
        f"{mission}, {POLICIES[0]}, 16 environments: {short:.0f} MiB, after {LONG_STEPS:,} agent steps {long:.0f} MiB"
    )


if __name__ == "__main__":
    main()
