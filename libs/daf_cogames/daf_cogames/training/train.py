"""Training a policy through `cogames.train.train()` itself: called, not copied.

For the time of the call some names in the namespace of `cogames.train` are replaced: the trainer class, the policy's
construction, the environments' construction and what writes to the terminal. A process trains alone, or as one rank of
several that train the same weights, each on environments of its own.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import io
import logging
import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING

import torch
from cogames.device import resolve_training_device
from mettagrid.policy.policy_env_interface import PolicyEnvInterface
from mettagrid.policy.submission import POLICY_SPEC_FILENAME, SubmissionPolicySpec
from rich.console import Console

from daf_cogames.missions import build_mission
from daf_cogames.parameter_table import DEFAULT_MINIBATCH_SIZE
from daf_cogames.params import Problem, check_minibatch
from daf_cogames.play.stopwatches import let_loggers_go
from daf_cogames.policies import PolicyError, PolicySource, load_policy
from daf_cogames.seeding import rank_seed, seed_generators
from daf_cogames.training.checkpoints import SavedCheckpoint, load_weights, nonfinite_tensors, put_weights
from daf_cogames.training.cogames_trainer import cogames_train
from daf_cogames.training.cores import largest_divisor, usable_cores
from daf_cogames.training.plan import PlanError, TrainingPlan, check_plan, check_unchanged, fixed_settings
from daf_cogames.training.progress import EffectiveConfiguration, Progress, StopReason
from daf_cogames.training.rotation import RotatingEnvironments, check_interchangeable
from daf_cogames.training.trainer import RUN_ID, Run, Trainer

if TYPE_CHECKING:
    from mettagrid import MettaGridConfig
    from mettagrid.policy.policy import MultiAgentPolicy, PolicySpec

__all__ = ["Ending", "Outcome", "PlanError", "TrainingPlan", "train"]

logger = logging.getLogger(__name__)


class Ending(enum.Enum):
    COMPLETED = "completed"
    STOPPED = "stopped"
    DIVERGED = "diverged"


@dataclass(frozen=True)
class Outcome:
    """How training ended, and where. update and agent_steps: the last one, for DIVERGED the one that broke the weights;
    checkpoint: the last one saved, which is finite; None where training diverged before the first, where a resumed run
    had nothing left to do, and on ranks other than 0."""

    ending: Ending
    stop_reason: StopReason | None
    update: int
    agent_steps: int
    checkpoint: SavedCheckpoint | None
    configuration: EffectiveConfiguration


def train(
    plan: TrainingPlan,
    *,
    on_progress: Callable[[Progress], None],
    on_checkpoint: Callable[[SavedCheckpoint], None],
    stop: Callable[[], StopReason | None],
    on_start: Callable[[EffectiveConfiguration], None] = lambda configuration: None,
    on_activity: Callable[[], None] = lambda: None,
) -> Outcome:
    """Train to the end, until `stop` gives a reason (then the update under way is finished), or until it diverges.

    On several ranks, all of them call this with plans that differ in `world` and `directory` alone; what one of them
    answers to `stop` ends all after the same update, for the strongest reason. `on_progress` and `on_checkpoint` are
    called on rank 0, the others on every rank; all in this thread, `on_start` before the first environment step,
    `on_activity` after each step of the environments and each gradient step, the others between updates. What they
    raise ends training and is raised. A checkpoint is saved every `checkpoint_agent_steps` and at the end.

    Raises PlanError, MissionError, PolicyError, WeightsError; OSError where a checkpoint cannot be written; PeerLost
    where another rank has gone. Seeds the global random generators and sets the number of torch's threads: the process
    is meant to do nothing else.
    """
    check_plan(plan)
    let_loggers_go()
    configs = [build_mission(mission) for mission in plan.missions]
    check_interchangeable(plan.missions, configs)
    if problems := check_minibatch(plan.trainer, plan.num_envs, agents=configs[0].game.num_agents):
        raise PlanError(*problems)
    device = _device(plan)
    torch.set_num_threads(plan.num_threads)
    with plan.world.connected(device, plan.peer_timeout_s):
        resume = plan.world.broadcast(plan.resume)
        fixed = fixed_settings(plan)
        if resume is not None:
            check_unchanged(fixed, resume.settings)
        # A run that starts afresh has learned from no map yet, and is the same in every attempt.
        seed = rank_seed(plan.seed, plan.world.rank, plan.attempt if resume is not None else 1)
        run = Run(
            world=plan.world,
            device=device,
            settings=plan.trainer,
            fixed=fixed,
            agent_steps=plan.agent_steps,
            checkpoint_agent_steps=plan.checkpoint_agent_steps,
            missions=len(plan.missions),
            progress_interval_s=plan.progress_interval_s,
            seed=seed,
            resume=resume,
            on_start=on_start,
            on_progress=on_progress,
            on_checkpoint=on_checkpoint,
            on_activity=on_activity,
            stop=stop,
        )
        seed_generators(plan.seed)
        _run_cogames(plan, run, configs)
    assert run.trainer is not None
    return _outcome(plan, run.trainer)


def _run_cogames(plan: TrainingPlan, run: Run, configs: list[MettaGridConfig]) -> None:
    environments = functools.partial(RotatingEnvironments, plan.missions, configs, plan.world.rank * plan.num_envs)
    with (
        _no_workers_left(),
        _replaced(
            cogames_train,
            pufferl=SimpleNamespace(PuffeRL=functools.partial(Trainer, run=run)),
            initialize_or_load_policy=functools.partial(_make_policy, plan.policy, run),
            _EnvCreator=environments,
            SubmissionPolicySpec=functools.partial(SubmissionPolicySpec, init_kwargs=dict(plan.policy.arguments)),
            # It raises in the middle of a rollout; a signal is for the caller, who has `stop`.
            DeferSigintContextManager=contextlib.nullcontext,
            Console=functools.partial(Console, quiet=True),
        ),
    ):
        cogames_train.train(
            env_cfg=configs[0],
            policy_class_path=plan.policy.class_path,
            device=run.device,
            initial_weights_path=None,
            num_steps=plan.agent_steps,
            checkpoints_path=plan.directory,
            seed=run.seed,
            minibatch_size=DEFAULT_MINIBATCH_SIZE,
            vector_num_envs=plan.num_envs,
            vector_num_workers=largest_divisor(plan.num_envs, at_most=min(plan.cpus, usable_cores())),
        )
    _make_readable(plan.directory / RUN_ID / POLICY_SPEC_FILENAME)


def _device(plan: TrainingPlan) -> torch.device:
    said = io.StringIO()
    device = resolve_training_device(Console(file=said), plan.device)
    if plan.device != "auto" and said.getvalue():
        logger.warning("%s", said.getvalue().strip())
    if device.type != "cuda":
        return device
    index = plan.world.local_rank if device.index is None else device.index
    there = torch.cuda.device_count()
    if index >= there:
        raise PlanError(Problem("device", f"rank {plan.world.rank} needs GPU {index}, and this machine has {there}"))
    device = torch.device("cuda", index)
    torch.cuda.set_device(device)  # cogames passes only the type on
    return device


def _make_policy(source: PolicySource, run: Run, environment: PolicyEnvInterface, spec: PolicySpec) -> MultiAgentPolicy:
    policy = load_policy(replace(source, weights=None), environment)
    network = policy.network()
    if network is None:
        raise PolicyError("class_path", f"{spec.class_path} has no network to train; it can only be evaluated")
    if run.resume is not None:
        put_weights(run.resume.weights, network, "the checkpoint to go on from")
    elif source.weights is not None:
        load_weights(source.weights, network)
    elif broken := nonfinite_tensors(network.state_dict()):
        message = (
            f"{spec.class_path} has values that are not finite in {', '.join(broken)}: no weights, so not to be saved"
        )
        raise PolicyError("class_path", f"{message} (register such buffers with persistent=False)")
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
