"""One worker of ours beside plain `cogames.train.train()`: same policy, environments, seed, and weights to the bit.

Both run at the same time, each on a core of its own, and swap cores from round to round: what disturbs the machine
disturbs both, and what differs between the cores cancels out. The ratio of each pair is what counts. Ours reports,
checks and asks whether to stop as it does in a job; plain cogames draws its dashboard, into nothing.
"""

from __future__ import annotations

import statistics
import sys
import tempfile

from benchmarks.training_process import Work
from benchmarks.training_runs import cores, geometric, run_at_once

MISSION, MAX_STEPS, ENVIRONMENTS, AGENT_STEPS, ROUNDS = "cogsguard_arena.basic", 1000, 16, 122_880, 8
POLICY = "mettagrid.policy.lstm.LSTMPolicy"
TARGET_RATIO = 0.99


def main() -> None:
    """Prints the figures."""
    if len(cores()) < 2:
        sys.exit("needs two cores")
    print(f"{POLICY} on {MISSION}, 4 agents, {ENVIRONMENTS} environments, {AGENT_STEPS} agent steps, one thread each")
    pairs = []
    for number in range(ROUNDS):
        with tempfile.TemporaryDirectory() as directory:
            plain, ours = (
                Work(kind, MISSION, MAX_STEPS, POLICY, AGENT_STEPS, ENVIRONMENTS, number, f"{directory}/{kind}")
                for kind in (True, False)
            )
            on = cores()[:2] if number % 2 == 0 else cores()[1::-1]
            theirs, measured = run_at_once([plain, ours], on)
        pairs.append((theirs, measured))
        print(
            f"plain cogames {theirs.speed:.0f} steps/s, ours {measured.speed:.0f} steps/s, ratio "
            f"{measured.speed / theirs.speed:.3f}, of CPU time {measured.cpu_speed / theirs.cpu_speed:.3f}, "
            f"{'the same' if theirs.digest == measured.digest else 'OTHER'} weights"
        )
    for name, ratios in (
        ("wall time", [ours.speed / plain.speed for plain, ours in pairs]),
        ("CPU time", [ours.cpu_speed / plain.cpu_speed for plain, ours in pairs]),
    ):
        mean, error = geometric(ratios)
        print(
            f"ours / plain, by {name}: geometric mean {mean:.3f} (standard error {error:.3f}), "
            f"median {statistics.median(ratios):.3f}, range {min(ratios):.3f} to {max(ratios):.3f} "
            f"(target at least {TARGET_RATIO})"
        )


if __name__ == "__main__":
    main()
