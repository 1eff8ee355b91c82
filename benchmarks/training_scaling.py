"""Two workers on two cores beside two independent processes at the same time: what data-parallel training costs.

Two processes that have nothing to do with each other share the memory and the caches of the machine all the same: what
they reach together is the ceiling, and is less than twice what one reaches alone. Each process has a core of its own,
and all have as many environments.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from dataclasses import replace

from benchmarks.training_process import Work
from benchmarks.training_runs import cores, geometric, run_at_once, run_ranks

MISSION, MAX_STEPS, ENVIRONMENTS, AGENT_STEPS, ROUNDS = "cogsguard_arena.basic", 1000, 16, 81_920, 5
POLICY = "mettagrid.policy.lstm.LSTMPolicy"
TARGET_RATIO = 0.93


def main() -> None:
    """Prints the figures."""
    if len(cores()) < 2:
        sys.exit("needs two cores")
    on = cores()[:2]
    print(f"{POLICY} on {MISSION}, 4 agents, {ENVIRONMENTS} environments and {AGENT_STEPS} agent steps a process")
    rounds = []
    for number in range(ROUNDS):
        with tempfile.TemporaryDirectory() as directory:
            one = Work(False, MISSION, MAX_STEPS, POLICY, AGENT_STEPS, ENVIRONMENTS, number, f"{directory}/one")
            [alone] = run_at_once([one], on[:1])
            others = [replace(one, directory=f"{directory}/independent-{core}") for core in on]
            ceiling = sum(measured.speed for measured in run_at_once(others, on))
            two = replace(one, agent_steps=2 * AGENT_STEPS, directory=f"{directory}/two")
            together = run_ranks(two, on)[0].speed
        rounds.append((alone.speed, ceiling, together))
        print(
            f"1 worker {alone.speed:.0f} steps/s, 2 independent processes {ceiling:.0f}, 2 workers {together:.0f}: "
            f"{together / ceiling:.3f} of the ceiling"
        )
    mean, error = geometric([together / ceiling for _, ceiling, together in rounds])
    speed_up = statistics.median(together / alone for alone, _, together in rounds)
    of_ceiling = statistics.median(ceiling / alone for alone, ceiling, _ in rounds)
    print(f"1 -> 2 workers: {speed_up:.2f} times as fast; 2 independent processes: {of_ceiling:.2f} times")
    print(f"of the ceiling: geometric mean {mean:.3f} (standard error {error:.3f}; target at least {TARGET_RATIO})")


if __name__ == "__main__":
    main()
