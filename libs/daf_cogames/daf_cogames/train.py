"""Training a policy through `cogames.train.train()` itself: called, not copied.

For the time of the call some names in the namespace of `cogames.train` are replaced: the trainer class, the policy's
construction, the environments' construction and what writes to the terminal. One process trains one job; the calls into
`Trainer` are the same whether it trains alone or beside others.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import multiprocessing
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import torch
from mettagrid.policy.policy_env_interface import PolicyEnvInterface
from mettagrid.policy.submission import POLICY_SPEC_FILENAME, SubmissionPolicySpec
from rich.console import Console

from daf_cogames.checkpoints import SavedCheckpoint, load_weights
from daf_cogames.cores import largest_divisor, usable_cores
from daf_cogames.missions import Mission, build_mission
from daf_cogames.params import DEFAULT_MINIBATCH_SIZE, Problem, Value, check_trainer_parameters
from daf_cogames.policies import PolicyError, PolicySource, load_policy
from daf_cogames.rotation import RotatingEnvironments, check_interchangeable
from daf_cogames.trainer import RUN_ID, EffectiveConfiguration, Progress, Run, StopReason, Trainer, cogames_train

if TYPE_CHECKING:
    from mettagrid.policy.policy import MultiAgentPolicy, PolicySpec

MAX_SEED = 2**31 - 1


class Ending(enum.Enum):
    COMPLETED = "completed"
    STOPPED = "stopped"
    DIVERGED = "diverged"


@dataclass(frozen=True)
class TrainingPlan:
    """What to train. Two runs of an equal plan on equal machines end with the same weights, to the bit.

    missions: environment i plays the mission i modulo their number; policy: its `weights` are where training starts;
    agent_steps: of all agents of all environments, rounded up to whole updates; trainer: parameters of the trainer, by
    their name without `trainer.`; directory: where `checkpoints/` goes; num_threads: of torch, part of what makes a run
    repeatable; progress_interval_s: the shortest time between two reports of progress.
    """

    missions: tuple[Mission, ...]
    policy: PolicySource
    agent_steps: int
    num_envs: int
    seed: int
    directory: Path
    trainer: Mapping[str, Value] = field(default_factory=dict)
    device: str = "cpu"
    num_threads: int = 1
    checkpoint_interval_updates: int = 200
    progress_interval_s: float = 0.5


@dataclass(frozen=True)
class Outcome:
    """How training ended, and where. update and agent_steps: the last one, for DIVERGED the one that broke the weights;
    checkpoint: the last one saved, which is finite; None where training diverged before the first."""

    ending: Ending
    stop_reason: StopReason | None
    update: int
    agent_steps: int
    checkpoint: SavedCheckpoint | None
    configuration: EffectiveConfiguration


class PlanError(ValueError):
    """A plan that cannot be trained; `problems` name its fields, or the full names of parameters."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("; ".join(f"{problem.name}: {problem.message}" for problem in problems))
        self.problems = problems


def train(
    plan: TrainingPlan,
    *,
    on_progress: Callable[[Progress], None],
    on_checkpoint: Callable[[SavedCheckpoint], None],
    stop: Callable[[], StopReason | None],
    on_start: Callable[[EffectiveConfiguration], None] = lambda configuration: None,
) -> Outcome:
    """Train to the end, until `stop` gives a reason (then the update under way is finished), or until it diverges.

    The callbacks are called in this thread, between updates (`on_start` before the first); what they raise ends
    training and is raised. A checkpoint is saved every `checkpoint_interval_updates` and at the end. Raises PlanError,
    MissionError, PolicyError, WeightsError, and OSError where a checkpoint cannot be written. Seeds the global random
    generators and sets the number of torch's threads: the process is meant to do nothing else.
    """
    _check(plan)
    configs = [build_mission(mission) for mission in plan.missions]
    check_interchangeable(plan.missions, configs)
    run = Run(
        settings=plan.trainer,
        agent_steps=plan.agent_steps,
        missions=len(plan.missions),
        progress_interval_s=plan.progress_interval_s,
        on_start=on_start,
        on_progress=on_progress,
        on_checkpoint=on_checkpoint,
        stop=stop,
    )
    device = torch.device(plan.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)  # cogames passes only the type on
    torch.set_num_threads(plan.num_threads)
    _seed(plan.seed)
    with (
        _no_workers_left(),
        _replaced(
            cogames_train,
            pufferl=SimpleNamespace(PuffeRL=functools.partial(Trainer, run=run)),
            initialize_or_load_policy=functools.partial(_make_policy, plan.policy, run),
            _EnvCreator=functools.partial(RotatingEnvironments, configs),
            SubmissionPolicySpec=functools.partial(SubmissionPolicySpec, init_kwargs=dict(plan.policy.arguments)),
            # It raises in the middle of a rollout; a signal is for the caller, who has `stop`.
            DeferSigintContextManager=contextlib.nullcontext,
            Console=functools.partial(Console, quiet=True),
        ),
    ):
        cogames_train.train(
            env_cfg=configs[0],
            policy_class_path=plan.policy.class_path,
            device=device,
            initial_weights_path=None,
            num_steps=plan.agent_steps,
            checkpoints_path=plan.directory,
            seed=plan.seed,
            minibatch_size=DEFAULT_MINIBATCH_SIZE,
            vector_num_envs=plan.num_envs,
            vector_num_workers=largest_divisor(plan.num_envs, at_most=usable_cores()),
            checkpoint_interval=plan.checkpoint_interval_updates,
        )
    assert run.trainer is not None
    _make_readable(plan.directory / RUN_ID / POLICY_SPEC_FILENAME)
    return _outcome(plan, run.trainer)


def _check(plan: TrainingPlan) -> None:
    problems = check_trainer_parameters({f"trainer.{name}": value for name, value in plan.trainer.items()})
    if not plan.missions:
        problems.append(Problem("missions", "must not be empty"))
    if plan.num_envs < max(1, len(plan.missions)):
        problems.append(Problem("num_envs", f"must be at least 1 and the number of missions, not {plan.num_envs}"))
    if plan.agent_steps < 1:
        problems.append(Problem("agent_steps", f"must be at least 1, not {plan.agent_steps}"))
    if not 0 <= plan.seed <= MAX_SEED:
        problems.append(Problem("seed", f"must be between 0 and {MAX_SEED}, not {plan.seed}"))
    if plan.checkpoint_interval_updates < 1:
        message = f"must be at least 1, not {plan.checkpoint_interval_updates}"
        problems.append(Problem("checkpoint_interval_updates", message))
    if problems:
        raise PlanError(*problems)


def _make_policy(source: PolicySource, run: Run, environment: PolicyEnvInterface, spec: PolicySpec) -> MultiAgentPolicy:
    policy = load_policy(replace(source, weights=None), environment)
    network = policy.network()
    if network is None:
        raise PolicyError("class_path", f"{spec.class_path} has no network to train; it can only be evaluated")
    if source.weights is not None:
        load_weights(source.weights, network)
    is_recurrent = getattr(policy, "is_recurrent", None)
    run.recurrent = None if is_recurrent is None else bool(is_recurrent())
    return policy


def _outcome(plan: TrainingPlan, trainer: Trainer) -> Outcome:
    if trainer.diverged:
        ending = Ending.DIVERGED
    elif trainer.stopped_for is not None:
        ending = Ending.STOPPED
    elif trainer.global_step >= plan.agent_steps:
        ending = Ending.COMPLETED
    else:
        raise KeyboardInterrupt  # cogames caught it
    return Outcome(
        ending=ending,
        stop_reason=trainer.stopped_for,
        update=trainer.epoch,
        agent_steps=trainer.global_step,
        checkpoint=trainer.checkpoint,
        configuration=trainer.configuration,
    )


def _make_readable(policy_spec: Path) -> None:
    """cogames writes it so that only its owner can read it, and it is copied and packed with that mode."""
    if policy_spec.exists():
        policy_spec.chmod(0o644)


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@contextlib.contextmanager
def _no_workers_left() -> Iterator[None]:
    """End the environments' processes after an error: the interpreter would wait for them for ever."""
    before = set(multiprocessing.active_children())
    try:
        yield
    except BaseException:
        for process in set(multiprocessing.active_children()) - before:
            process.terminate()
        raise


@contextlib.contextmanager
def _replaced(module: ModuleType, **replacements: object) -> Iterator[None]:
    originals = {name: getattr(module, name) for name in replacements}
    try:
        for name, replacement in replacements.items():
            setattr(module, name, replacement)
        yield
    finally:
        for name, original in originals.items():
            setattr(module, name, original)
