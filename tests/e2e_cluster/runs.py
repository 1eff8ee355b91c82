"""Runs of the `daf` command that several tests make."""

from __future__ import annotations

MISSION = "cogsguard_machina_1.miner_tutorial"
TRAINING = (
    "--mission", MISSION, "--cogs", "4", "--max-steps", "30", "--policy", "lstm", "--num-envs", "2",
    "--set", "trainer.bptt_horizon=16", "--set", "trainer.minibatch_size=64",
)  # fmt: skip
"""Of `daf train`: the smallest; it lasts for as many `--steps` as are asked for."""
