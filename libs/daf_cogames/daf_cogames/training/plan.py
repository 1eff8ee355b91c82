"""What to train, and whether it can be."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from daf_cogames.missions import Mission
from daf_cogames.parameter_table import Value
from daf_cogames.params import Problem, check_trainer_parameters
from daf_cogames.policies import PolicySource
from daf_cogames.seeding import MAX_SEED
from daf_cogames.training.resume import ResumePoint
from daf_cogames.training.world import World


@dataclass(frozen=True)
class TrainingPlan:
    """What to train. Two runs of an equal plan on equal machines end with the same weights, to the bit.

    missions: environment i plays the mission i modulo their number, counted through all ranks; policy: its `weights`
    are where training starts; agent_steps: of all agents of all environments of all ranks, rounded up to whole updates;
    num_envs: of each rank; trainer: parameters of the trainer, by their name without `trainer.`; directory: where
    `checkpoints/` goes; device: as cogames resolves it, on CUDA each rank takes the GPU of its number on this machine;
    cpus: processes for the environments of a rank on CUDA, on a CPU they share the rank's own; num_threads: of torch,
    part of what makes a run repeatable; world: which rank this is; attempt: from 1, a resumed run plays other maps in
    each; resume: where to go on from, rank 0's counts; checkpoint_agent_steps: between two checkpoints, rounded up to
    whole updates, None for none but the last; progress_interval_s: the shortest time between two reports of progress;
    peer_timeout_s: how long a rank waits for the others before it gives them up.
    """

    missions: tuple[Mission, ...]
    policy: PolicySource
    agent_steps: int
    num_envs: int
    seed: int
    directory: Path
    trainer: Mapping[str, Value] = field(default_factory=dict)
    device: str = "auto"
    cpus: int = 1
    num_threads: int = 1
    world: World = field(default_factory=World)
    attempt: int = 1
    resume: ResumePoint | None = None
    checkpoint_agent_steps: int | None = None
    progress_interval_s: float = 0.5
    peer_timeout_s: float = 300.0


class PlanError(ValueError):
    """A plan that cannot be trained; `problems` name its fields, or the full names of parameters."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("; ".join(f"{problem.name}: {problem.message}" for problem in problems))
        self.problems = problems


def check_plan(plan: TrainingPlan) -> None:
    """Raise PlanError for what can be seen without building anything."""
    problems = check_trainer_parameters({f"trainer.{name}": value for name, value in plan.trainer.items()})
    if not plan.missions:
        problems.append(Problem("missions", "must not be empty"))
    if plan.num_envs < 1 or plan.num_envs * plan.world.size < len(plan.missions):
        message = f"must be at least 1, and on all ranks together the number of missions, not {plan.num_envs}"
        problems.append(Problem("num_envs", message))
    if not 0 <= plan.seed <= MAX_SEED:
        problems.append(Problem("seed", f"must be between 0 and {MAX_SEED}, not {plan.seed}"))
    at_least_1 = {
        "agent_steps": plan.agent_steps,
        "cpus": plan.cpus,
        "attempt": plan.attempt,
        "checkpoint_agent_steps": plan.checkpoint_agent_steps,
    }
    problems.extend(
        Problem(name, f"must be at least 1, not {value}")
        for name, value in at_least_1.items()
        if value is not None and value < 1
    )
    if problems:
        raise PlanError(*problems)


def fixed_settings(plan: TrainingPlan) -> dict[str, Value]:
    """What must be the same when a run is resumed; `workers`, `agent_steps` and machines may differ."""
    return {
        "policy": plan.policy.class_path,
        **{f"policy.{name}": _text(value) for name, value in plan.policy.arguments.items()},
        **{f"missions[{index}]": _described(mission) for index, mission in enumerate(plan.missions)},
        "num_envs": plan.num_envs,
        "seed": plan.seed,
        **{f"trainer.{name}": value for name, value in plan.trainer.items()},
    }


def _described(mission: Mission) -> str:
    """A mission with all that changes it; not the paths, which are private to an attempt."""
    values = dataclasses.asdict(mission)
    name = values.pop("name")
    changes = [
        f"{key}={value}" for key, value in values.items() if value not in (None, ()) and not isinstance(value, Path)
    ]
    return " ".join([name, *changes])


def _text(value: object) -> Value:
    return value if isinstance(value, bool | int | float | str) else repr(value)


def check_unchanged(settings: Mapping[str, Value], saved: Mapping[str, Value]) -> None:
    """Raise PlanError unless the settings of a run are those with which its checkpoint was saved."""
    problems = [
        Problem(name, f"is {settings.get(name)!r}, and {saved.get(name)!r} in the checkpoint to go on from")
        for name in sorted({*settings, *saved})
        if settings.get(name) != saved.get(name)
    ]
    if problems:
        raise PlanError(*problems)
