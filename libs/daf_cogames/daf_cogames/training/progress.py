"""What a trainer says of itself."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from daf_cogames.parameter_table import Value
from daf_cogames.training.usage import WorkerUsage


class StopReason(enum.Enum):
    """Why training is asked to end early, the stronger reason first: somebody cancelled it, or the machine is wanted
    for something else."""

    CANCELLED = "cancelled"
    PREEMPTED = "preempted"


@dataclass(frozen=True)
class EffectiveConfiguration:
    """What the live trainer was found to train with, read back from it before the first update.

    trainer: every parameter of `params.TRAINER_PARAMETERS` by its full name, as in PuffeRL's config; optimizer: of its
    parameter group; workers: ranks; agents: in all environments of all ranks; batch_size: agent steps in an update, of
    all ranks; agent_steps: that will have been trained at the end, in whole updates; checkpoint_agent_steps: between
    two checkpoints, in whole updates, None where only the last is wanted; policy_parameters: trainable numbers in the
    network; notes: what the user should know about values that do less than they seem to.
    """

    trainer: Mapping[str, Value]
    optimizer: Mapping[str, float]
    recurrent: bool
    workers: int
    agents: int
    batch_size: int
    gradient_steps_per_update: int
    agent_steps: int
    checkpoint_agent_steps: int | None
    policy_parameters: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Progress:
    """What happened since the report before, on all ranks.

    learning_rate: of the last update; metrics: means over the updates (`losses/...`) and over the episodes that ended
    (`env/...`); nonfinite: the names of metrics that had a NaN or an infinity, left out of the means; workers: by rank.
    """

    update: int
    agent_steps: int
    agent_steps_per_second: float
    learning_rate: float
    metrics: Mapping[str, float]
    nonfinite: tuple[str, ...]
    workers: tuple[WorkerUsage, ...]
    configuration: EffectiveConfiguration
