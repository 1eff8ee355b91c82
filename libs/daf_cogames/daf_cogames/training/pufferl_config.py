"""PuffeRL's config: what cogames made of it, corrected, and a run's settings in it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from daf_cogames.parameter_table import DEFAULT_BPTT_HORIZON, DEFAULT_MINIBATCH_SIZE

if TYPE_CHECKING:
    from daf_cogames.training.trainer import Run


def configure(config: dict[str, Any], run: Run, agents: int) -> None:
    """Put a run's settings into the config that cogames made, and what follows from them.

    cogames has a horizon of 1 for policies without memory, for which PuffeRL computes no advantage at all, so that they
    learn nothing; it fits the minibatch to that horizon; it takes a policy for recurrent if its class path says "rnn";
    and where agent_steps are not whole updates, the last update comes after the learning rate has reached 0.
    """
    if run.recurrent is not None:
        config["use_rnn"] = run.recurrent
    config.update(bptt_horizon=DEFAULT_BPTT_HORIZON, minibatch_size=DEFAULT_MINIBATCH_SIZE)
    config.update(run.settings)
    horizon = config["bptt_horizon"]
    batch = agents * horizon
    minibatch = min(config["minibatch_size"], batch)
    config["minibatch_size"] = max(horizon, minibatch - minibatch % horizon)

    update_steps = batch * run.world.size
    done = run.resume.agent_steps if run.resume is not None else 0
    updates = math.ceil(max(0, run.agent_steps - done) / update_steps)
    config["total_timesteps"] = done + updates * update_steps
    wanted = run.checkpoint_agent_steps
    config["checkpoint_interval"] = math.inf if wanted is None else math.ceil(wanted / update_steps)


def notes_on(run: Run, config: Mapping[str, Any], gradient_steps: int) -> tuple[str, ...]:
    """What the user should know about values that do less, or more, than they seem to."""
    notes = []
    for name in ("clip_coef", "vf_clip_coef"):
        if name in run.settings and gradient_steps == 1:
            notes.append(f"trainer.{name} has no effect: each update is one gradient step")
    wanted = run.settings.get("minibatch_size", 0)
    if config["minibatch_size"] < int(wanted):
        notes.append(
            f"trainer.minibatch_size is {config['minibatch_size']}, not {wanted}: a batch has no more agent steps"
        )
    if run.world.size > 1:
        notes.append(
            f"each gradient step learns from {run.world.size * config['minibatch_size']} agent steps: "
            f"trainer.minibatch_size of each of the {run.world.size} workers"
        )
    return tuple(notes)
